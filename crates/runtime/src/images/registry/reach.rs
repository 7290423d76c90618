//! Where a registry may send us: it is whoever the name of an image leads to, and sees neither what only this machine reaches nor what would be
//! said to somebody else in the clear.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use base::addresses::is_special;
use reqwest::Url;
use reqwest::redirect::Policy;

/// Most hops of one request.
const HOPS: usize = 10;
/// Where the environment names proxies, whose names are looked up as those of registries are.
const PROXIES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

static PROXY_NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let url = |text: String| Url::parse(&text).ok().filter(Url::has_host).or_else(|| Url::parse(&format!("http://{text}")).ok());
    let named = PROXIES.iter().filter_map(|name| url(std::env::var(name).ok()?));
    named.filter_map(|url| url.host_str().map(str::to_owned)).collect()
});

/// Why a registry's word is not followed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("it leads to {0}, which is this machine or its link: no registry elsewhere may do that")]
    Inside(String),
    #[error("it leads from https to {0}")]
    Clear(String),
    #[error("it leads to another place more than {HOPS} times")]
    Far,
}

/// What a registry may lead to.
#[derive(Debug)]
pub(super) struct Reach {
    /// The name of its host.
    own: String,
    /// It is on this machine itself.
    inside: bool,
}

impl Reach {
    /// Of a registry at `host`, which may have a port.
    pub(super) fn of(host: &str) -> Arc<Self> {
        let own = Url::parse(&format!("https://{host}")).ok().and_then(|url| url.host_str().map(str::to_owned));
        let own = own.unwrap_or_else(|| host.to_owned());
        Arc::new(Self { inside: is_inside(&own), own })
    }

    /// Whether it may lead to an address to which a name has led.
    pub(super) fn has(&self, name: &str, address: IpAddr) -> bool {
        self.inside || !is_special(address) || name == self.own || PROXY_NAMES.iter().any(|proxy| proxy == name)
    }

    /// Whether it may lead from a URL with this scheme to another one; to one in the clear only where what comes from there `is_checked` by
    /// its digest.
    pub(super) fn check(&self, scheme: &str, to: &Url, is_checked: bool) -> Result<(), Refused> {
        if scheme == "https" && to.scheme() != "https" && !is_checked {
            return Err(Refused::Clear(to.origin().ascii_serialization()));
        }
        let host = to.host_str().unwrap_or_default();
        if !self.inside && host != self.own && is_inside(host) {
            return Err(Refused::Inside(host.to_owned()));
        }
        Ok(())
    }

    /// What holds for each hop.
    pub(super) fn policy(self: Arc<Self>) -> Policy {
        Policy::custom(move |attempt| {
            if attempt.previous().len() > HOPS {
                return attempt.error(Refused::Far);
            }
            let scheme = attempt.previous().last().map_or("https", Url::scheme);
            // Registries keep blobs in stores elsewhere, some of which do not speak TLS.
            let is_blob = attempt.previous().first().is_some_and(|first| is_blob(first.path()));
            match self.check(scheme, attempt.url(), is_blob) {
                Ok(()) => attempt.follow(),
                Err(refused) => attempt.error(refused),
            }
        })
    }
}

/// Whether a path is that of a blob (OCI distribution: `/v2/NAME/blobs/DIGEST`), whose name says what is in it. Names of repositories may have any of
/// these words.
fn is_blob(path: &str) -> bool {
    let mut words = path.rsplit('/');
    let digest = words.next().and_then(|digest| digest.split_once(':'));
    let is_hex = |text: &str| text.len() >= 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    path.starts_with("/v2/") && words.next() == Some("blobs") && digest.is_some_and(|(_, text)| is_hex(text))
}

/// Whether a host, as URLs have it, says by itself that it is this machine or its link.
fn is_inside(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse().ok();
    address.map_or_else(|| name == "localhost" || name.ends_with(".localhost"), is_special)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_registry_elsewhere_leads_to_nothing_that_is_here() {
        let check = |registry: &str, scheme: &str, to: &str, expected: bool| {
            let found = Reach::of(registry).check(scheme, &Url::parse(to).unwrap(), false);
            assert_eq!(found.is_ok(), expected, "{registry} {to}: {found:?}");
        };
        assert_eq!(Reach::of("r.io").check("https", &Url::parse("http://blobs.example/x").unwrap(), true), Ok(()));
        check("r.io", "https", "https://blobs.example/x", true);
        check("r.io", "https", "https://10.1.2.3/x", true);
        check("r.io", "https", "http://blobs.example/x", false);
        check("r.io:5000", "http", "http://blobs.example/x", true);
        check("r.io:5000", "http", "https://blobs.example/x", true);
        let inside = [
            "127.0.0.1:10250",
            "169.254.169.254",
            "[::1]",
            "[fe80::1]",
            "[::ffff:127.0.0.1]",
            "0.0.0.0",
            "localhost:8080",
            "a.localhost.",
        ];
        for host in inside.into_iter().chain(["2130706433", "[fd00:ec2::254]"]) {
            check("r.io", "http", &format!("http://{host}/latest"), false);
            check("10.1.2.3:5000", "http", &format!("http://{host}/latest"), false);
            check("localhost:5000", "http", &format!("http://{host}/latest"), true);
            check("127.0.0.1:5000", "http", &format!("http://{host}/latest"), true);
        }
    }

    #[test]
    fn what_is_a_blob() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let check = |path: &str, expected: bool| assert_eq!(is_blob(path), expected, "{path}");
        check(&format!("/v2/a/b/blobs/{digest}"), true);
        check(&format!("/v2/a/manifests/{digest}"), false);
        check("/v2/a/blobs/shop/manifests/latest", false);
        check("/v2/a/blobs/sha", false);
        check(&format!("/token/blobs/{digest}"), false);
        check("/v2/blobs/uploads/sha256:x", false);
    }

    #[test]
    fn names_lead_elsewhere_as_well() {
        let reach = Reach::of("R.io:5000");
        let check = |name: &str, address: &str, expected: bool| {
            assert_eq!(reach.has(name, address.parse().unwrap()), expected, "{name} {address}");
        };
        check("r.io", "127.0.0.1", true);
        check("blobs.example", "10.1.2.3", true);
        check("blobs.example", "127.0.0.1", false);
        check("blobs.example", "169.254.169.254", false);
        check("blobs.example", "::ffff:169.254.169.254", false);
    }
}
