//! What is called: the `clientConfig` of a webhook, or the service of an aggregated API.

use http::Uri;
use serde_json::Value;

use super::Error;

const HTTPS: u16 = 443;

/// What is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// Where it is.
    pub(crate) place: Place,
    /// The path of calls, with its leading slash.
    pub(crate) path: String,
    /// The certificates, in PEM, of which one vouches for it; none for those of the system.
    pub(crate) ca_bundle: Option<String>,
    /// Its certificate is not looked at (`insecureSkipTLSVerify`).
    pub(crate) unverified: bool,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// A host by name or address.
    Host { host: String, port: u16 },
    /// A service of the cluster.
    Service { namespace: String, name: String, port: u16 },
}

impl Target {
    /// A service, at the root.
    pub(crate) fn service(namespace: &str, name: &str, port: u16) -> Self {
        let place = Place::Service { namespace: namespace.to_owned(), name: name.to_owned(), port };
        Self { place, path: "/".to_owned(), ca_bundle: None, unverified: false }
    }

    /// The target of a `clientConfig`.
    pub(crate) fn of_client_config(config: &Value) -> Result<Self, Error> {
        let (place, path) = match (config["url"].as_str(), &config["service"]) {
            (Some(url), _) => of_url(url)?,
            (None, service) if service.is_object() => of_service(service)?,
            _ => return Err(Error::Target("webhook configuration must have either service or URL".to_owned())),
        };
        Ok(Self { place, path, ca_bundle: ca_bundle(config)?, unverified: false })
    }

    /// The target of a URL, and the path and query of it.
    pub(crate) fn of_url(url: &str, ca_bundle: Option<String>) -> Result<(Self, String), Error> {
        let (place, path) = of_url(url)?;
        let query = url.parse::<Uri>().ok().and_then(|uri| uri.query().map(str::to_owned));
        let whole = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        Ok((Self { place, path, ca_bundle, unverified: false }, whole))
    }

    /// The name that its certificate has to be for.
    pub(crate) fn server_name(&self) -> String {
        match &self.place {
            Place::Host { host, .. } => host.clone(),
            Place::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }

    /// Host and port as they stand in URLs.
    pub(crate) fn authority(&self) -> String {
        let (Place::Host { port, .. } | Place::Service { port, .. }) = &self.place;
        authority(&self.server_name(), *port)
    }

    /// The URL of a call, for messages.
    pub(crate) fn url(&self, query: &str) -> String {
        let mark = if query.is_empty() { "" } else { "?" };
        format!("https://{}{}{mark}{query}", self.authority(), self.path)
    }
}

/// Host and port; addresses of IPv6 stand in brackets.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The certificates of a `caBundle`, none when it is left out.
pub(crate) fn ca_bundle(config: &Value) -> Result<Option<String>, Error> {
    let Some(text) = config["caBundle"].as_str().filter(|text| !text.is_empty()) else { return Ok(None) };
    ca_data(text).map(Some)
}

/// Certificates in base64.
pub(super) fn ca_data(text: &str) -> Result<String, Error> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| Error::Roots(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| Error::Roots(error.to_string()))
}

fn of_url(url: &str) -> Result<(Place, String), Error> {
    let wrong = |why: &dyn std::fmt::Display| Error::Target(format!("unparsable webhook URL {url:?}: {why}"));
    let uri: Uri = url.parse().map_err(|error| wrong(&error))?;
    if uri.scheme_str() != Some("https") {
        return Err(wrong(&"the scheme must be https"));
    }
    let host = uri.host().ok_or_else(|| wrong(&"no host"))?.trim_matches(['[', ']']).to_owned();
    let path = if uri.path().is_empty() { "/" } else { uri.path() };
    Ok((Place::Host { host, port: uri.port_u16().unwrap_or(HTTPS) }, path.to_owned()))
}

fn of_service(service: &Value) -> Result<(Place, String), Error> {
    let text = |key: &str| service[key].as_str().unwrap_or_default().to_owned();
    let port = service["port"].as_u64().map_or(Some(HTTPS), |port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| Error::Target(format!("invalid port {}", service["port"])))?;
    let path = text("path");
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    let valid = path.parse::<http::uri::PathAndQuery>();
    valid.map_err(|error| Error::Target(format!("invalid path {path:?}: {error}")))?;
    Ok((Place::Service { namespace: text("namespace"), name: text("name"), port }, path))
}
