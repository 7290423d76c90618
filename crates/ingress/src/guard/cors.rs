//! Cross-origin requests: what browsers ask before, and what answers tell them.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::policy::{Cors, Told};

/// What the answer to a request says, beside what all answers say.
#[derive(Clone, Debug)]
pub struct Grant {
    /// `Access-Control-Allow-Origin`.
    pub origin: HeaderValue,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
}

/// What is granted to a request; none when its origin may not ask.
pub fn grant(cors: &Cors, headers: &HeaderMap) -> Option<Grant> {
    let told = |told: &Told, asked: HeaderName| match told {
        Told::Nothing => None,
        Told::These(these) => Some(these.clone()),
        Told::Asked => headers.get(asked).cloned(),
    };
    let origin = origin(cors, headers)?;
    let methods = told(&cors.methods, ACCESS_CONTROL_REQUEST_METHOD);
    Some(Grant { origin, methods, headers: told(&cors.headers, ACCESS_CONTROL_REQUEST_HEADERS) })
}

fn origin(cors: &Cors, headers: &HeaderMap) -> Option<HeaderValue> {
    if !cors.enabled {
        return None;
    }
    if cors.origins.iter().any(|origin| origin == "*") {
        return if cors.repeats_origin { headers.get(ORIGIN).cloned() } else { Some(HeaderValue::from_static("*")) };
    }
    let origin = headers.get(ORIGIN)?;
    let text = origin.to_str().ok()?.to_ascii_lowercase();
    cors.origins.iter().any(|allowed| matches(allowed, &text)).then(|| origin.clone())
}

/// Whether a browser asks beforehand what it may do.
pub fn is_preflight(cors: &Cors, method: &Method, headers: &HeaderMap) -> bool {
    cors.enabled && method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether the answer depends on the origin that asks.
fn varies(cors: &Cors) -> bool {
    cors.enabled && (cors.repeats_origin || cors.origins.iter().all(|origin| origin != "*"))
}

/// Adds to an answer what an allowed origin may do. A back end's own word on it is replaced. Where it depends on the origin all answers say so, also those to an
/// origin that may not ask and to none: caches would give them to others (Fetch, "CORS protocol and HTTP caches").
pub fn apply(cors: &Cors, grant: Option<Grant>, headers: &mut HeaderMap) {
    if varies(cors) {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    let Some(Grant { origin, methods, headers: names }) = grant else { return };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if cors.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    for (name, value) in [(ACCESS_CONTROL_ALLOW_METHODS, methods), (ACCESS_CONTROL_ALLOW_HEADERS, names)] {
        match value {
            Some(value) => headers.insert(name, value),
            None => headers.remove(name),
        };
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, cors.max_age.into());
    if let Some(expose) = &cors.expose {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
    }
}

/// Whether an origin is the allowed one; a `*` in that stands for labels of a host.
fn matches(allowed: &str, origin: &str) -> bool {
    let Some((before, after)) = allowed.split_once('*') else { return allowed == origin };
    let middle = origin.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    middle.is_some_and(|middle| {
        !middle.is_empty() && middle.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn origins() {
        let check = |origins: &[&str], origin: Option<&str>, expected: Option<&str>| {
            let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
            let cors = Cors { enabled: true, origins, ..Cors::default() };
            let headers = origin.map(|origin| (ORIGIN, origin.parse().unwrap())).into_iter().collect();
            let found = grant(&cors, &headers).map(|grant| grant.origin);
            assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), expected, "{origin:?}");
            assert!(grant(&Cors::default(), &headers).is_none());
        };
        check(&["*"], Some("https://a.example"), Some("*"));
        check(&["https://a.example"], Some("https://A.example"), Some("https://A.example"));
        check(&["https://a.example"], Some("http://a.example"), None);
        check(&["https://a.example"], None, None);
        check(&["https://*.b.example:8443"], Some("https://x.y.b.example:8443"), Some("https://x.y.b.example:8443"));
        check(&["https://*.b.example"], Some("https://b.example"), None);
        check(&["https://*.b.example"], Some("https://evil/.b.example"), None);
    }

    #[test]
    fn answers() {
        let mut headers = HeaderMap::from_iter([(ACCESS_CONTROL_ALLOW_ORIGIN, "https://backend".parse().unwrap())]);
        let cors = Cors { enabled: true, max_age: 60, repeats_origin: true, ..Cors::default() };
        let asks = HeaderMap::from_iter([(ORIGIN, "https://a.example".parse().unwrap())]);
        apply(&cors, grant(&cors, &asks), &mut headers);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!((&headers[ACCESS_CONTROL_MAX_AGE], &headers[VARY]), (&"60".parse().unwrap(), &"Origin".parse().unwrap()));
        let asks = HeaderMap::from_iter([(ACCESS_CONTROL_REQUEST_METHOD, "PUT".parse().unwrap())]);
        assert!(is_preflight(&cors, &Method::OPTIONS, &asks) && !is_preflight(&cors, &Method::GET, &asks));
        assert!(!is_preflight(&cors, &Method::OPTIONS, &headers));
    }

    /// A cache that has the answer to one origin may give it to another only if it is the same.
    #[test]
    fn answers_say_that_they_depend_on_the_origin() {
        let check = |origins: &[&str], repeats_origin: bool, asks: &str, expected: bool| {
            let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
            let cors = Cors { enabled: true, origins, repeats_origin, ..Cors::default() };
            let (asks, mut headers) = (HeaderMap::from_iter([(ORIGIN, asks.parse().unwrap())]), HeaderMap::new());
            apply(&cors, grant(&cors, &asks), &mut headers);
            let found: Vec<&HeaderValue> = headers.get_all(VARY).into_iter().collect();
            assert_eq!(found, vec!["Origin"; usize::from(expected)], "{origins:?} {asks:?}", origins = cors.origins);
        };
        check(&["https://a.example"], false, "https://a.example", true);
        check(&["https://a.example"], false, "https://b.example", true);
        check(&["*"], false, "https://a.example", false);
        check(&["*"], true, "https://a.example", true);
        let mut headers = HeaderMap::new();
        apply(&Cors::default(), None, &mut headers);
        assert!(headers.is_empty(), "nobody asked for any of it");
    }

    #[test]
    fn what_is_asked_for_is_repeated() {
        let cors = Cors { enabled: true, methods: Told::Asked, headers: Told::Nothing, ..Cors::default() };
        let mut headers = HeaderMap::from_iter([(ACCESS_CONTROL_ALLOW_HEADERS, "backend".parse().unwrap())]);
        let asks = HeaderMap::from_iter([(ACCESS_CONTROL_REQUEST_METHOD, "PUT".parse().unwrap())]);
        apply(&cors, grant(&cors, &asks), &mut headers);
        assert_eq!(
            (&headers[ACCESS_CONTROL_ALLOW_METHODS], headers.get(ACCESS_CONTROL_ALLOW_HEADERS)),
            (&"PUT".parse().unwrap(), None)
        );
        apply(&cors, grant(&cors, &HeaderMap::new()), &mut headers);
        assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_METHODS));
    }
}
