//! Talking to registries: references, endpoints, credentials and what their errors mean.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use oci_client::Reference;
use oci_client::RegistryOperation;
use oci_client::client::{Certificate, CertificateEncoding, Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::RegistryTokenType;
use serde::Deserialize;

use crate::api::{Credentials, Error, Result};

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

/// One place to ask for an image, with a client for it.
pub(crate) struct Endpoint {
    pub(crate) client: Client,
    pub(crate) reference: Reference,
    pub(crate) auth: RegistryAuth,
}

impl Endpoint {
    /// The manifest or index of the image, and its digest.
    pub(crate) async fn manifest(&self, accepted: &[&str]) -> Result<(Bytes, String)> {
        let mut result = self.client.pull_manifest_raw(&self.reference, &self.auth, accepted).await;
        // The client asks at `/v2/` how to authenticate. Registries that show some repositories to everybody answer there as well, and ask
        // for credentials at the others.
        if let (Err(OciDistributionError::UnauthorizedError { .. }), RegistryAuth::Basic(user, word)) = (&result, &self.auth) {
            let basic = RegistryTokenType::Basic(user.clone(), word.clone());
            self.client.tokens.insert(&self.reference, RegistryOperation::Pull, basic).await;
            result = self.client.pull_manifest_raw(&self.reference, &self.auth, accepted).await;
        }
        result.map_err(|error| match (is_absent(&error), explain(&self.reference, &error)) {
            (true, Error::ImagePull(text) | Error::RegistryUnavailable(text)) => Error::ImageNotFound(text),
            (_, error) => error,
        })
    }
}

/// Whether the registry says that it has no such image, or is not there: nothing listens, or its name does not resolve. One that refuses or
/// puts off (401, 403, 429, 5xx), or that is silent, may have it.
fn is_absent(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::RequestError(cause) => cause.is_connect() && !cause.is_timeout(),
        OciDistributionError::ServerError { code, .. } => *code == 404,
        OciDistributionError::RegistryError { envelope, .. } => {
            let is_unknown = |code: &OciErrorCode| {
                matches!(code, OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound)
            };
            !envelope.errors.is_empty() && envelope.errors.iter().all(|error| is_unknown(&error.code))
        }
        _ => false,
    }
}

impl Registries {
    /// The places to ask for `reference`, in order: mirrors first, each with every credential.
    pub(crate) fn endpoints(&self, reference: &Reference, credentials: &[Credentials]) -> Result<Vec<Endpoint>> {
        let mut endpoints = Vec::new();
        let mirrors = [reference.registry(), "*"].into_iter().filter_map(|name| self.mirrors.get(name));
        for address in mirrors.flat_map(|mirror| &mirror.endpoints) {
            let (plain, host) = split_scheme(address);
            let mut mirrored = reference.clone();
            mirrored.set_mirror_registry(host.to_owned());
            self.add(&mut endpoints, &mirrored, host, plain, &[])?;
        }
        let host = reference.resolve_registry().to_owned();
        self.add(&mut endpoints, reference, &host, None, credentials)?;
        Ok(endpoints)
    }

    fn add(
        &self,
        endpoints: &mut Vec<Endpoint>,
        reference: &Reference,
        host: &str,
        plain: Option<bool>,
        credentials: &[Credentials],
    ) -> Result<()> {
        let settings = self.configs.get(host).or_else(|| self.configs.get(reference.registry())).cloned().unwrap_or_default();
        let plain = plain.unwrap_or(settings.http || is_loopback(host));
        let configured = settings.auth.iter().map(|auth| (auth.username.clone(), auth.password.clone()));
        let given = credentials.iter().map(|c| (c.username.clone(), c.password.clone()));
        let mut auths: Vec<RegistryAuth> = given.chain(configured).map(|(user, word)| RegistryAuth::Basic(user, word)).collect();
        if auths.is_empty() {
            auths.push(RegistryAuth::Anonymous);
        }
        for auth in auths {
            let client = client(host, plain, &settings.tls)?;
            endpoints.push(Endpoint { client, reference: reference.clone(), auth });
        }
        Ok(())
    }
}

fn client(host: &str, plain: bool, tls: &HostTls) -> Result<Client> {
    let mut config = ClientConfig {
        protocol: if plain { ClientProtocol::HttpsExcept(vec![host.to_owned()]) } else { ClientProtocol::Https },
        accept_invalid_certificates: tls.insecure_skip_verify,
        platform_resolver: None,
        connect_timeout: Some(Duration::from_secs(15)),
        read_timeout: Some(Duration::from_secs(60)),
        user_agent: concat!("knarr/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    if let Some(file) = &tls.ca_file {
        let data = std::fs::read(file)
            .map_err(|error| Error::ImagePull(format!("reading ca_file {} of registry {host}: {error}", file.display())))?;
        config.extra_root_certificates.push(Certificate { encoding: CertificateEncoding::Pem, data });
    }
    Client::try_from(config).map_err(|error| Error::ImagePull(format!("client for registry {host}: {error}")))
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

/// Whether another endpoint or credential may do better, and the error for people.
pub(crate) fn explain(reference: &Reference, error: &OciDistributionError) -> Error {
    let name = reference.whole();
    let registry = reference.resolve_registry();
    match error {
        OciDistributionError::RequestError(cause) if cause.is_connect() || cause.is_timeout() => {
            let cause = chain(cause);
            Error::RegistryUnavailable(format!("failed to pull {name:?}: registry {registry} cannot be reached: {cause}"))
        }
        OciDistributionError::ServerError { code, message, .. } if matches!(code, 429 | 500..) => {
            let text = message.trim();
            Error::RegistryUnavailable(format!("failed to pull {name:?}: registry {registry} answers {code}: {text}"))
        }
        OciDistributionError::RegistryError { envelope, .. } => {
            let texts: Vec<String> = envelope.errors.iter().map(registry_text).collect();
            Error::ImagePull(format!("failed to pull {name:?}: {}", texts.join("; ")))
        }
        OciDistributionError::ImageManifestNotFoundError(_) => Error::ImagePull(format!("failed to pull {name:?}: not found")),
        OciDistributionError::ServerError { code: 404, .. } => {
            Error::ImagePull(format!("failed to pull {name:?}: not found in registry {registry}"))
        }
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            let text = "pull access denied, the repository does not exist or needs credentials (imagePullSecrets)";
            Error::ImagePull(format!("failed to pull {name:?}: {text}"))
        }
        other => Error::ImagePull(format!("failed to pull {name:?}: {}", chain(other))),
    }
}

/// `manifest unknown: detail`, as registries and other runtimes put it.
fn registry_text(error: &oci_client::errors::OciError) -> String {
    let code = serde_json::to_value(&error.code).ok().and_then(|code| code.as_str().map(str::to_lowercase)).unwrap_or_default();
    let code = code.replace('_', " ");
    if error.message.is_empty() || error.message.to_lowercase() == code { code } else { format!("{code}: {}", error.message) }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
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

    /// What another node may give in the registry's stead.
    #[test]
    fn absent_is_what_a_registry_does_not_have() {
        let told = |codes: &[&str]| {
            let errors: Vec<_> = codes.iter().map(|code| serde_json::json!({"code": code, "message": ""})).collect();
            let envelope = serde_json::from_value(serde_json::json!({"errors": errors})).unwrap();
            is_absent(&OciDistributionError::RegistryError { envelope, url: String::new() })
        };
        for (codes, expected) in [
            (&["MANIFEST_UNKNOWN"][..], true),
            (&["NAME_UNKNOWN", "NOT_FOUND"], true),
            (&["DENIED"], false),
            (&["UNAUTHORIZED"], false),
            (&["TOOMANYREQUESTS"], false),
            (&["NAME_UNKNOWN", "DENIED"], false),
            (&["TEA"], false),
            (&[], false),
        ] {
            assert_eq!(told(codes), expected, "{codes:?}");
        }
        let answered = |code| is_absent(&OciDistributionError::ServerError { code, url: String::new(), message: String::new() });
        assert_eq!([404, 401, 403, 429, 500, 503].map(answered), [true, false, false, false, false, false]);
        assert!(!is_absent(&OciDistributionError::UnauthorizedError { url: String::new() }));
    }

    #[test]
    fn plain_http_is_for_loopback_and_where_told() {
        for (host, plain) in [("localhost:5000", true), ("127.1.2.3", true), ("[::1]:80", true), ("quay.io", false)] {
            assert_eq!(is_loopback(host), plain, "{host}");
        }
        assert_eq!(split_scheme("http://a:1/"), (Some(true), "a:1"));
        assert_eq!(split_scheme("a:1"), (None, "a:1"));
    }
}
