//! What the Gateway API calls extended or experimental features of HTTPRoutes: origins, retries, sessions, copies of requests. Pure.

use std::time::Duration;

use http::HeaderValue;

use super::duration::duration;
use super::rules::Unsupported;
use super::types::{CorsFilter, ObjectRef, RequestMirror, RouteRetry, SessionPersistence};
use crate::policy::{Cookie, Cors, Retry, Told};

/// Who gets copies of requests, and of how many.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The Service.
    pub backend: ObjectRef,
    /// So many ...
    pub part: u64,
    /// ... of so many.
    pub of: u64,
}

/// What a RequestMirror filter asks for; none when its share is no share.
pub(super) fn mirror(filter: &RequestMirror) -> Option<Mirror> {
    let (part, of) = match (&filter.fraction, filter.percent) {
        (Some(fraction), None) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
        (None, percent) => (percent.unwrap_or(100), 100),
        (Some(_), Some(_)) => return None,
    };
    (of > 0 && part <= of).then(|| Mirror { backend: filter.backend_ref.clone(), part, of })
}

/// What a CORS filter allows (GEP-1767): with credentials browsers take no `*`, and what they ask for is repeated instead.
pub(super) fn cors(filter: &CorsFilter) -> Option<Cors> {
    let credentials = filter.allow_credentials.unwrap_or_default();
    let list = |items: &[String]| HeaderValue::from_str(&items.join(", ")).ok();
    let told = |items: &[String]| match items {
        [] => Some(Told::Nothing),
        [all] if all == "*" && credentials => Some(Told::Asked),
        items => list(items).map(Told::These),
    };
    let expose: Vec<String> = filter.expose_headers.iter().filter(|name| !(credentials && *name == "*")).cloned().collect();
    Some(Cors {
        enabled: true,
        origins: filter.allow_origins.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
        repeats_origin: credentials,
        methods: told(&filter.allow_methods)?,
        headers: told(&filter.allow_headers)?,
        expose: if expose.is_empty() { None } else { Some(list(&expose)?) },
        credentials,
        max_age: filter.max_age.unwrap_or(5),
    })
}

/// When requests are sent again (GEP-1731): after failed connections in any case, after answers with these statuses, `attempts` times,
/// not sooner than `backoff`.
pub(super) fn retry(asked: &RouteRetry) -> Result<Retry, Unsupported> {
    let wait = match &asked.backoff {
        Some(text) => duration(text).ok_or(Unsupported::Part("back-off of a retry"))?,
        None => Duration::ZERO,
    };
    let tries = asked.attempts.map_or(Retry::default().tries, |attempts| usize::from(attempts) + 1);
    Ok(Retry { statuses: asked.codes.clone(), tries, wait, same_endpoint: true, ..Retry::default() })
}

/// The cookie of a session (GEP-1619). It holds nothing but an endpoint, so that only a browser can end it.
pub(super) fn session(asked: &SessionPersistence) -> Result<Cookie, Unsupported> {
    if asked.kind.as_deref().is_some_and(|kind| kind != "Cookie") {
        return Err(Unsupported::Part("type of session persistence"));
    }
    if asked.idle_timeout.is_some() {
        return Err(Unsupported::Part("idle timeout of a session"));
    }
    if !asked.header.is_null() {
        return Err(Unsupported::Part("header of a session"));
    }
    let config = asked.cookie.as_ref().or(asked.cookie_config.as_ref());
    let lifetime = config.and_then(|config| config.lifetime_type.as_deref()).unwrap_or("Session");
    let limit = asked
        .absolute_timeout
        .as_deref()
        .map(|text| duration(text).ok_or(Unsupported::Part("timeout of a session")))
        .transpose()?;
    let max_age = match (lifetime, limit) {
        ("Session", None) => None,
        ("Permanent", Some(limit)) => Some(limit.as_secs()),
        _ => return Err(Unsupported::Part("timeout of a session whose cookie has none")),
    };
    let name = config.and_then(|config| config.name.as_ref()).or(asked.session_name.as_ref()).cloned().unwrap_or_default();
    if name.bytes().any(|byte| !(byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))) {
        return Err(Unsupported::Part("name of a session"));
    }
    Ok(Cookie { name, path: path(asked)?, max_age, persistent: true, change_on_failure: true, ..Cookie::default() })
}

/// The path of a session's cookie: "When not specified, implementations MUST default the cookie path to `/`" (CookieConfig). Until version 1.6 of the definitions,
/// which had no path, it was that of the rule.
fn path(asked: &SessionPersistence) -> Result<Option<String>, Unsupported> {
    let Some(cookie) = &asked.cookie else { return Ok(None) };
    let path = cookie.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    // What a cookie's attribute takes (RFC 6265, 4.1.1).
    let fits = path.bytes().all(|byte| (byte.is_ascii_graphic() || byte == b' ') && byte != b';');
    if fits { Ok(Some(path.to_owned())) } else { Err(Unsupported::Part("path of a session's cookie")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    /// HTTPCORSFilter: "the gateway must not return `*` in the `Access-Control-Allow-Origin` response header" with credentials.
    #[test]
    fn origins() {
        let check = |filter: Value, repeats: bool, methods: &Told, expose: Option<&str>, max_age: u64| {
            let cors = cors(&read(filter.clone())).unwrap();
            let found =
                (cors.repeats_origin, &cors.methods, cors.expose.as_ref().map(|value| value.to_str().unwrap()), cors.max_age);
            assert_eq!(found, (repeats, methods, expose, max_age), "{filter}");
        };
        let these = |text: &str| Told::These(text.parse().unwrap());
        check(json!({"allowOrigins": ["*"]}), false, &Told::Nothing, None, 5);
        check(
            json!({"allowMethods": ["GET", "PUT"], "exposeHeaders": ["a", "*"], "maxAge": 9}),
            false,
            &these("GET, PUT"),
            Some("a, *"),
            9,
        );
        check(json!({"allowMethods": ["*"]}), false, &these("*"), None, 5);
        check(json!({"allowMethods": ["*"], "exposeHeaders": ["*"], "allowCredentials": true}), true, &Told::Asked, None, 5);
        assert!(cors(&read(json!({"allowHeaders": ["a\n"]}))).is_none());
    }

    #[test]
    fn retries() {
        let check = |asked: Value, expected: Option<(usize, u64, usize)>| {
            let found = retry(&read(asked.clone())).ok();
            let found = found.map(|retry| (retry.tries, u64::try_from(retry.wait.as_millis()).unwrap(), retry.statuses.len()));
            assert_eq!(found, expected, "{asked}");
        };
        check(json!({"codes": [500, 503], "attempts": 2, "backoff": "100ms"}), Some((3, 100, 2)));
        check(json!({"attempts": 0}), Some((1, 0, 0)));
        check(json!({}), Some((3, 0, 0)));
        check(json!({"backoff": "soon"}), None);
    }

    #[test]
    fn sessions() {
        let check = |asked: Value, expected: Option<(&str, Option<u64>)>| {
            let found = session(&read(asked.clone())).ok();
            assert_eq!(found.as_ref().map(|cookie| (cookie.name.as_str(), cookie.max_age)), expected, "{asked}");
            let has_path = found.and_then(|cookie| cookie.path).is_some();
            assert_eq!(has_path, expected.is_some() && asked.get("cookie").is_some(), "{asked}");
        };
        check(json!({"sessionName": "s"}), Some(("s", None)));
        check(json!({"type": "Cookie", "cookieConfig": {"lifetimeType": "Session"}}), Some(("", None)));
        check(json!({"absoluteTimeout": "1h", "cookieConfig": {"lifetimeType": "Permanent"}}), Some(("", Some(3600))));
        check(json!({"type": "Cookie", "cookie": {}}), Some(("", None)));
        check(json!({"cookie": {"name": "SX", "path": "/", "lifetimeType": "Session"}}), Some(("SX", None)));
        check(json!({"absoluteTimeout": "1h", "cookie": {"lifetimeType": "Permanent"}}), Some(("", Some(3600))));
        for refused in [
            json!({"type": "Header"}),
            json!({"idleTimeout": "1m"}),
            json!({"absoluteTimeout": "1h"}),
            json!({"cookieConfig": {"lifetimeType": "Permanent"}}),
            json!({"sessionName": "a;b"}),
            json!({"type": "Header", "header": {"name": "x-session"}}),
            json!({"header": {"name": "x-session"}}),
            json!({"absoluteTimeout": "1h", "cookie": {"name": "s"}}),
            json!({"cookie": {"lifetimeType": "Permanent"}}),
            json!({"cookie": {"name": "a b"}}),
            json!({"cookie": {"path": "/; Domain=evil"}}),
        ] {
            check(refused, None);
        }
    }

    #[test]
    fn paths_of_sessions() {
        let check = |asked: Value, expected: Option<&str>| {
            assert_eq!(session(&read(asked.clone())).unwrap().path.as_deref(), expected, "{asked}");
        };
        check(json!({"cookieConfig": {}}), None);
        check(json!({"cookie": {}}), Some("/"));
        check(json!({"cookie": {"path": ""}}), Some("/"));
        check(json!({"cookie": {"path": "/shop"}}), Some("/shop"));
    }

    #[test]
    fn mirrors() {
        let check = |filter: Value, expected: Option<(u64, u64)>| {
            assert_eq!(mirror(&read(filter.clone())).map(|mirror| (mirror.part, mirror.of)), expected, "{filter}");
        };
        check(json!({"backendRef": {"name": "x"}}), Some((100, 100)));
        check(json!({"percent": 42}), Some((42, 100)));
        check(json!({"fraction": {"numerator": 1, "denominator": 3}}), Some((1, 3)));
        check(json!({"fraction": {"numerator": 1}}), Some((1, 100)));
        check(json!({"fraction": {"numerator": 2, "denominator": 1}}), None);
        check(json!({"fraction": {"numerator": 0, "denominator": 0}}), None);
        check(json!({"percent": 101}), None);
        check(json!({"percent": 1, "fraction": {"numerator": 1}}), None);
    }
}
