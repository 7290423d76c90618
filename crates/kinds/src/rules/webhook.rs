//! How an API server reaches a webhook (upstream: `apiserver/pkg/util/webhook/validation.go`).

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::admissionregistration;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;

const FORM: &str = "; desired format: https://host[/path]";

/// The service behind which a webhook listens.
pub(crate) struct WebhookService<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) path: Option<&'a str>,
    pub(crate) port: i32,
}

macro_rules! services {
    ($($kind:ty),+) => { $(
        impl<'a> From<&'a $kind> for WebhookService<'a> {
            fn from(service: &'a $kind) -> Self {
                let port = service.port.unwrap_or_default();
                Self { namespace: &service.namespace, name: &service.name, path: service.path.as_deref(), port }
            }
        }
    )+ };
}

services!(admissionregistration::v1::ServiceReference, apiextensions::v1::ServiceReference);

/// Where a webhook listens: at a URL, or behind a service.
pub(crate) fn webhook_client(path: &Path, url: Option<&str>, service: Option<WebhookService<'_>>, errors: &mut Errors) {
    match (url, service) {
        (Some(url), None) => webhook_url(&path.child("url"), url, errors),
        (None, Some(service)) => webhook_service(&path.child("service"), &service, errors),
        _ => errors.push(Error::required(path, "exactly one of url or service is required")),
    }
}

/// The parts of a URL that matter here.
#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    scheme: String,
    user: Option<&'a str>,
    host: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Result<Self, &'static str> {
        if url.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return Err("net/url: invalid control character in URL");
        }
        let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
        let (scheme, rest) = scheme(rest)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let Some(rest) = rest.strip_prefix("//") else {
            let first = rest.split('/').next().unwrap_or_default();
            if scheme.is_empty() && first.contains(':') {
                return Err("first path segment in URL cannot contain colon");
            }
            return Ok(Self { scheme, user: None, host: "", query, fragment });
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        if host.contains(' ') {
            return Err("invalid character \" \" in host name");
        }
        Ok(Self { scheme, user, host, query, fragment })
    }
}

/// The scheme in lower case, and what follows its colon.
fn scheme(url: &str) -> Result<(String, &str), &'static str> {
    for (at, byte) in url.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme"),
            b':' => return Ok((url[..at].to_lowercase(), &url[at + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), url))
}

/// An HTTPS URL without user, query and fragment.
fn webhook_url(path: &Path, url: &str, errors: &mut Errors) {
    let parsed = match Url::parse(url) {
        Ok(parsed) => parsed,
        Err(why) => {
            return errors.push(Error::required(path, format!("url must be a valid URL: parse {url:?}: {why}{FORM}")));
        }
    };
    if parsed.scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        errors.push(Error::invalid(path, parsed.scheme.as_str(), detail));
    }
    if parsed.host.is_empty() {
        errors.push(Error::invalid(path, parsed.host, format!("host must be specified{FORM}")));
    }
    if let Some(user) = parsed.user {
        errors.push(Error::invalid(path, user, "user information is not permitted in the URL"));
    }
    if !parsed.fragment.is_empty() {
        errors.push(Error::invalid(path, parsed.fragment, "fragments are not permitted in the URL"));
    }
    if !parsed.query.is_empty() {
        errors.push(Error::invalid(path, parsed.query, "query parameters are not permitted in the URL"));
    }
}

/// A service, with a path of DNS names.
fn webhook_service(path: &Path, service: &WebhookService<'_>, errors: &mut Errors) {
    super::required(&path.child("name"), service.name, errors);
    super::required(&path.child("namespace"), service.namespace, errors);
    let wrong = names::port_number(service.port.into());
    if !wrong.is_empty() {
        let detail = format!("port is not valid: {}", wrong.join(", "));
        errors.push(Error::invalid(&path.child("port"), service.port, detail));
    }
    let at = path.child("path");
    match service.path.unwrap_or_default() {
        "" | "/" => {}
        "//" => errors.push(Error::invalid(&at, "//", "segment[0] may not be empty")),
        url => segments(url, &at, errors),
    }
}

fn segments(url: &str, path: &Path, errors: &mut Errors) {
    let mut refuse = |detail: String| errors.push(Error::invalid(path, url, detail));
    if !url.starts_with('/') {
        refuse("must start with a '/'".to_owned());
    }
    // As upstream: the first character counts as the slash, whatever it is.
    let rest = url.get(1..).unwrap_or_default();
    for (index, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            refuse(format!("segment[{index}] may not be empty"));
            continue;
        }
        names::dns1123_subdomain(step).into_iter().for_each(|why| refuse(format!("segment[{index}]: {why}")));
    }
}

/// Versions of review objects: DNS labels, each once.
pub(crate) fn review_versions(versions: &[String], path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, version) in versions.iter().enumerate() {
        let at = path.index(index);
        if !seen.insert(version) {
            errors.push(Error::invalid(&at, version.as_str(), "duplicate version"));
        } else {
            errors.invalid_each(&at, version, names::dns1035_label(version));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_url(url: &str, expected: &str) {
        let mut errors = Errors::new();
        webhook_url(&Path::new("url"), url, &mut errors);
        assert_eq!(errors.to_string().trim_start_matches("url: "), expected, "{url}");
    }

    #[test]
    fn urls() {
        check_url("https://host.example/path", "");
        check_url("HTTPS://[::1]:8443", "");
        check_url(
            "http://a",
            "Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
        );
        check_url("https:///path", "Invalid value: \"\": host must be specified; desired format: https://host[/path]");
        check_url("https://me:word@a", "Invalid value: \"me:word\": user information is not permitted in the URL");
        check_url("https://a#b", "Invalid value: \"b\": fragments are not permitted in the URL");
        check_url("https://a?b", "Invalid value: \"b\": query parameters are not permitted in the URL");
        check_url(
            "://a",
            "Required value: url must be a valid URL: parse \"://a\": missing protocol scheme; desired format: https://host[/path]",
        );
    }

    #[track_caller]
    fn check_service(path: Option<&str>, port: i32, expected: &str) {
        let mut errors = Errors::new();
        let service = WebhookService { namespace: "ns", name: "n", path, port };
        webhook_service(&Path::new("s"), &service, &mut errors);
        let text: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(text.join("|"), expected, "{path:?}");
    }

    #[test]
    fn services() {
        check_service(None, 443, "");
        check_service(Some("/"), 443, "");
        check_service(Some("/foo/bar/"), 443, "");
        check_service(Some("//"), 443, "s.path: Invalid value: \"//\": segment[0] may not be empty");
        check_service(Some("/foo//bar/"), 443, "s.path: Invalid value: \"/foo//bar/\": segment[1] may not be empty");
        check_service(Some("foo"), 443, "s.path: Invalid value: \"foo\": must start with a '/'");
        check_service(None, 0, "s.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive");
    }
}
