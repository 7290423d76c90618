//! Talking to registries: references, endpoints, credentials and what their errors mean.

mod endpoint;
mod failure;
mod reach;
mod resolve;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use oci_spec::distribution::Reference;
use serde::Deserialize;

pub(crate) use self::endpoint::Endpoint;
pub(crate) use self::failure::Failure;
use self::reach::Reach;
use self::resolve::Resolver;
use crate::api::{Credentials, Error, Result};

/// How long a connection may take to come about, and how long a registry may be silent.
const CONNECT: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(60);

/// Where images come from; the shape of the registries file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields, default)]
pub struct Registries {
    /// By registry (`docker.io`, `registry.example:5000`, `*` for all): where to ask first.
    pub mirrors: BTreeMap<String, Mirror>,
    /// By host (with port): how to talk to it.
    pub configs: BTreeMap<String, Host>,
}

/// Stand-ins for a registry, asked in order before the registry itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mirror {
    /// `http://host:port`, `https://host` or `host`.
    #[serde(rename = "endpoint")]
    pub endpoints: Vec<String>,
}

/// How to talk to one host.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// Plain HTTP.
    pub http: bool,
    /// User and password.
    pub auth: Option<HostAuth>,
    /// TLS.
    pub tls: HostTls,
}

/// Credentials of a host.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostAuth {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl std::fmt::Debug for HostAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// TLS of a host.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostTls {
    /// A PEM file of authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Trust anybody.
    pub insecure_skip_verify: bool,
}

/// Parses what a user wrote: `busybox` is `docker.io/library/busybox:latest`.
pub(crate) fn parse(reference: &str) -> Result<Reference> {
    let parsed: Reference = reference
        .parse()
        .map_err(|error| Error::InvalidImageName(format!("couldn't parse image name {reference:?}: {error}")))?;
    if let Some(digest) = parsed.digest() {
        super::manifest::check_digest(digest).map_err(|error| Error::InvalidImageName(error.to_string()))?;
    }
    Ok(parsed)
}

impl Registries {
    /// The places to ask for `reference`, in order: mirrors first, each with every credential.
    pub(crate) fn endpoints(&self, reference: &Reference, credentials: &[Credentials]) -> Result<Vec<Endpoint>> {
        let mut endpoints = Vec::new();
        let registry = self.configs.get(reference.registry()).cloned().unwrap_or_default();
        // A mirror is somebody else, perhaps in the clear: it is shown no name and password but its own, as containerd has it.
        let of_mirrors = Host { auth: None, ..registry.clone() };
        let mirrors = [reference.registry(), "*"].into_iter().filter_map(|name| self.mirrors.get(name));
        for address in mirrors.flat_map(|mirror| &mirror.endpoints) {
            let (plain, host) = split_scheme(address);
            let mut mirrored = reference.clone();
            mirrored.set_mirror_registry(host.to_owned());
            let settings = self.configs.get(host).unwrap_or(&of_mirrors);
            add(&mut endpoints, &mirrored, (host, plain), settings, &[])?;
        }
        let host = reference.resolve_registry().to_owned();
        add(&mut endpoints, reference, (&host, None), self.configs.get(&host).unwrap_or(&registry), credentials)?;
        Ok(endpoints)
    }
}

/// Adds a host, with every credential, and with the scheme where that is said.
fn add(
    endpoints: &mut Vec<Endpoint>,
    reference: &Reference,
    (host, plain): (&str, Option<bool>),
    settings: &Host,
    credentials: &[Credentials],
) -> Result<()> {
    let plain = plain.unwrap_or(settings.http || is_loopback(host));
    let configured =
        settings.auth.iter().map(|auth| Credentials { username: auth.username.clone(), password: auth.password.clone() });
    let mut shown: Vec<Option<Credentials>> = credentials.iter().cloned().chain(configured).map(Some).collect();
    if shown.is_empty() {
        shown.push(None);
    }
    for credentials in shown {
        let reach = Reach::of(host);
        let http = client(host, &settings.tls, &reach)?;
        let scheme = if plain { "http" } else { "https" };
        endpoints.push(Endpoint::new((http, reach), scheme, reference.clone(), credentials));
    }
    Ok(())
}

fn client(host: &str, tls: &HostTls, reach: &Arc<Reach>) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .danger_accept_invalid_certs(tls.insecure_skip_verify)
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .user_agent(concat!("knarr/", env!("CARGO_PKG_VERSION")))
        .redirect(reach.clone().policy())
        .dns_resolver(Arc::new(Resolver(reach.clone())));
    if let Some(file) = &tls.ca_file {
        let failed = |error: &dyn std::fmt::Display| {
            Error::ImagePull(format!("reading ca_file {} of registry {host}: {error}", file.display()))
        };
        let data = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
        if !tls.insecure_skip_verify {
            let trusting = base::tls::Trusting::beside_system(&data).and_then(base::tls::Trusting::client);
            builder = builder.tls_backend_preconfigured(trusting.map_err(|error| failed(&error))?);
        }
    }
    builder.build().map_err(|error| Error::ImagePull(format!("client for registry {host}: {error}")))
}

/// Whether the scheme says plain HTTP, and the host.
fn split_scheme(address: &str) -> (Option<bool>, &str) {
    let address = address.trim_end_matches('/');
    match (address.strip_prefix("http://"), address.strip_prefix("https://")) {
        (Some(host), _) => (Some(true), host),
        (_, Some(host)) => (Some(false), host),
        _ => (None, address),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(written: &str, expected: Option<&str>) {
        assert_eq!(parse(written).ok().map(|r| r.whole()).as_deref(), expected, "{written}");
    }

    #[test]
    fn references_get_docker_defaults() {
        check("busybox", Some("docker.io/library/busybox:latest"));
        check("a/b:1", Some("docker.io/a/b:1"));
        check("localhost:5000/x", Some("localhost:5000/x:latest"));
        check("127.0.0.1:5000/x:2", Some("127.0.0.1:5000/x:2"));
        check("Busy Box", None);
        check("x@sha256:12", None);
        check("", None);
    }

    #[test]
    fn plain_http_is_for_loopback_and_where_told() {
        for (host, plain) in [("localhost:5000", true), ("127.1.2.3", true), ("[::1]:80", true), ("quay.io", false)] {
            assert_eq!(is_loopback(host), plain, "{host}");
        }
        assert_eq!(split_scheme("http://a:1/"), (Some(true), "a:1"));
        assert_eq!(split_scheme("a:1"), (None, "a:1"));
    }

    /// The client takes what trusts a file in addition, and says what is wrong with the file.
    #[test]
    fn a_file_of_authorities_makes_a_client() {
        let _ = rustls::crypto::CryptoProvider::clone(&base::tls::provider()).install_default();
        let directory = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            let file = directory.path().join("ca.pem");
            std::fs::write(&file, text).unwrap();
            client("r.example", &HostTls { ca_file: Some(file), ..HostTls::default() }, &Reach::of("r.example")).map(|_| ())
        };
        let own = rcgen::generate_simple_self_signed(["r.example".to_owned()]).unwrap();
        of(&own.cert.pem()).unwrap();
        let error = of("none").unwrap_err().to_string();
        assert!(error.contains("ca.pem of registry r.example"), "{error}");
    }

    /// A password of a registry is shown to the registry, and to no mirror, which may be anybody, and in the clear.
    #[test]
    fn mirrors_are_shown_their_own_credentials() {
        let _ = rustls::crypto::CryptoProvider::clone(&base::tls::provider()).install_default();
        let of =
            |name: &str| Host { auth: Some(HostAuth { username: name.to_owned(), password: "p".to_owned() }), ..Host::default() };
        let endpoints = ["http://10.0.0.5:5000", "https://own.example"].map(str::to_owned).to_vec();
        let registries = Registries {
            mirrors: [
                ("registry.example".to_owned(), Mirror { endpoints: endpoints.clone() }),
                ("*".to_owned(), Mirror { endpoints }),
            ]
            .into(),
            configs: [("registry.example".to_owned(), of("puller")), ("own.example".to_owned(), of("other"))].into(),
        };
        let check = |reference: &str, expected: &[(&str, &str)]| {
            let asked = registries.endpoints(&parse(reference).unwrap(), &[]).unwrap();
            let asked: Vec<_> = asked
                .iter()
                .map(|endpoint| {
                    let name = endpoint.credentials.as_ref().map_or("", |credentials| credentials.username.as_str());
                    (endpoint.reference.resolve_registry(), name)
                })
                .collect();
            assert_eq!(asked, expected, "{reference}");
        };
        let mirrors = [("10.0.0.5:5000", ""), ("own.example", "other")];
        check("registry.example/a:1", &[mirrors[0], mirrors[1], mirrors[0], mirrors[1], ("registry.example", "puller")]);
        check("other.example/a:1", &[mirrors[0], mirrors[1], ("other.example", "")]);
    }
}
