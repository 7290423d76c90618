//! Who issues certificates by ACME: what annotations of Ingresses and Gateways say. Pure.

use std::collections::BTreeMap;

/// The annotation that names the issuer: one of [`ISSUERS`], or the URL of an ACME directory. Secrets that are kept here have it, too.
pub const ISSUER: &str = "acme.knarr.io/issuer";
/// The annotation with the address that the issuer may write to.
pub const EMAIL: &str = "acme.knarr.io/email";

/// Issuers that have a name.
const ISSUERS: [(&str, &str); 2] = [
    ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
    ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
];

/// Who issues a certificate, and for which account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Issuer {
    /// The URL of its directory.
    pub url: String,
    /// Where it may write to.
    pub email: Option<String>,
}

/// An annotation that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It names nobody.
    #[error("{ISSUER}: {0:?} is neither letsencrypt, nor letsencrypt-staging, nor a URL with https://")]
    Issuer(String),
    /// It is no address.
    #[error("{EMAIL}: {0:?} is no address")]
    Email(String),
}

impl Issuer {
    /// The one that annotations name.
    pub fn of(annotations: Option<&BTreeMap<String, String>>) -> Result<Option<Self>, Wrong> {
        let text = |name| annotations.and_then(|all| all.get(name)).map(|value| value.trim()).filter(|value| !value.is_empty());
        let Some(issuer) = text(ISSUER) else { return Ok(None) };
        let named = ISSUERS.iter().find(|(name, _)| *name == issuer).map(|(_, url)| *url);
        let is_url =
            |text: &&str| text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty()) && text.parse::<http::Uri>().is_ok();
        let url = named.or(Some(issuer).filter(is_url)).ok_or_else(|| Wrong::Issuer(issuer.to_owned()))?;
        let is_address = |text: &str| text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
        match text(EMAIL) {
            Some(email) if !is_address(email) => Err(Wrong::Email(email.to_owned())),
            email => Ok(Some(Self { url: url.to_owned(), email: email.map(str::to_owned) })),
        }
    }
}

/// Whether a name can be proved by HTTP-01: neither any host nor a wildcard can. Hosts are named as in the routing table.
pub(crate) fn is_provable(host: &str) -> bool {
    !host.is_empty() && !host.starts_with(['.', '*'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers() {
        let check = |issuer: &str, email: Option<&str>, expected: Option<&str>| {
            let mut annotations = BTreeMap::from([(ISSUER.to_owned(), issuer.to_owned())]);
            annotations.extend(email.map(|email| (EMAIL.to_owned(), email.to_owned())));
            let found = Issuer::of(Some(&annotations));
            assert_eq!(
                found.as_ref().ok().and_then(|found| found.as_ref()).map(|found| found.url.as_str()),
                expected,
                "{found:?}"
            );
        };
        check("letsencrypt", None, Some("https://acme-v02.api.letsencrypt.org/directory"));
        check("letsencrypt-staging", Some("ops@a.example"), Some("https://acme-staging-v02.api.letsencrypt.org/directory"));
        check(" https://ca.example/acme/directory ", None, Some("https://ca.example/acme/directory"));
        check("http://ca.example/directory", None, None);
        check("https://", None, None);
        check("https://a b/", None, None);
        check("other", None, None);
        check("letsencrypt", Some("nobody"), None);
        assert_eq!((Issuer::of(None), Issuer::of(Some(&BTreeMap::new()))), (Ok(None), Ok(None)));
    }

    #[test]
    fn names_that_can_be_proved() {
        for (host, expected) in [("a.example", true), ("", false), (".example", false), ("*.example", false)] {
            assert_eq!(is_provable(host), expected, "{host}");
        }
    }
}
