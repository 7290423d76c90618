//! Rules of HTTPRoutes as the data path needs them: what a request must be like, which of several rules wins, and what is changed. Pure.

use std::cmp::Reverse;
use std::time::Duration;

use client::Key;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use regex::Regex;

use super::types::{Filter, HeaderModifier, Match, ObjectRef, PathModifier, Pattern, Rule};
use crate::endpoints::PortRef;
use crate::paths::Matcher;
use crate::template::{Facts, header};
use crate::upstream::{Place, UpstreamKey};

/// What a request must be like, beside its path.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    method: Option<Method>,
    headers: Vec<(HeaderName, Test)>,
    parameters: Vec<(String, Test)>,
}

#[derive(Clone, Debug)]
enum Test {
    Exact(String),
    Pattern(Regex),
}

impl Test {
    fn of(pattern: &Pattern) -> Option<Self> {
        let value = pattern.value.clone().unwrap_or_default();
        match pattern.kind.as_deref() {
            None | Some("Exact") => Some(Self::Exact(value)),
            Some("RegularExpression") => Some(Self::Pattern(whole(&value)?)),
            Some(_) => None,
        }
    }

    fn passes(&self, value: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == value,
            Self::Pattern(pattern) => pattern.is_match(value),
        }
    }
}

/// A pattern that has to match everything.
fn whole(pattern: &str) -> Option<Regex> {
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

impl Conditions {
    fn of(one: &Match) -> Option<Self> {
        let method = one.method.as_ref().map(|method| Method::from_bytes(method.as_bytes())).transpose().ok()?;
        // Of two entries with the same name the first counts.
        let (mut headers, mut parameters) = (Vec::<(HeaderName, Test)>::new(), Vec::<(String, Test)>::new());
        for pattern in &one.headers {
            let name: HeaderName = pattern.name.parse().ok()?;
            if headers.iter().all(|(other, _)| *other != name) {
                headers.push((name, Test::of(pattern)?));
            }
        }
        for pattern in &one.query_params {
            if parameters.iter().all(|(other, _)| *other != pattern.name) {
                parameters.push((pattern.name.clone(), Test::of(pattern)?));
            }
        }
        Some(Self { method, headers, parameters })
    }

    /// Whether a request is like this.
    pub fn hold(&self, parts: &Parts) -> bool {
        self.method.as_ref().is_none_or(|method| *method == parts.method)
            && self
                .headers
                .iter()
                .all(|(name, test)| parts.headers.contains_key(name) && test.passes(header(&parts.headers, name)))
            && self.parameters.iter().all(|(name, test)| {
                let mut pairs = parts.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
                pairs.find(|(found, _)| found == name).is_some_and(|(_, value)| test.passes(value))
            })
    }
}

/// The order of rules of one host: an exact path, a longer path, a method, more headers, more parameters; then the older route, and
/// the earlier rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    kind: u8,
    length: Reverse<usize>,
    method: Reverse<bool>,
    headers: Reverse<usize>,
    parameters: Reverse<usize>,
    created: i64,
    route: Key,
    place: usize,
}

/// One match of one rule.
#[derive(Clone, Debug)]
pub struct Matched {
    /// Its place among the others.
    pub rank: Rank,
    /// What paths it matches.
    pub matcher: Matcher,
    /// What else a request must be like.
    pub conditions: Conditions,
}

/// The matches of a rule; one for everything when it has none.
///
/// # Errors
/// A value that cannot be followed, for people.
pub fn matches(rule: &Rule, created: i64, route: &Key, place: usize) -> Result<Vec<Matched>, Unsupported> {
    let every = [Match::default()];
    let all = if rule.matches.is_empty() { &every[..] } else { &rule.matches };
    let one = |one: &Match| {
        let text = one.path.as_ref().and_then(|path| path.value.clone()).unwrap_or_else(|| "/".to_owned());
        let (kind, matcher) = match one.path.as_ref().and_then(|path| path.kind.as_deref()) {
            Some("Exact") => (0, Matcher::Exact(text.clone())),
            None | Some("PathPrefix") => (1, Matcher::Prefix(text.strip_suffix('/').unwrap_or(&text).to_owned())),
            Some("RegularExpression") => (2, Matcher::Pattern(whole(&text).ok_or(Unsupported("path"))?)),
            Some(_) => return Err(Unsupported("type of a path")),
        };
        let conditions = Conditions::of(one).ok_or(Unsupported("match"))?;
        let rank = Rank {
            kind,
            length: Reverse(text.len()),
            method: Reverse(conditions.method.is_some()),
            headers: Reverse(conditions.headers.len()),
            parameters: Reverse(conditions.parameters.len()),
            created,
            route: route.clone(),
            place,
        };
        Ok(Matched { rank, matcher, conditions })
    };
    all.iter().map(one).collect()
}

/// A part of a rule that cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this {0} is not supported")]
pub struct Unsupported(pub &'static str);

/// What happens to requests of a rule.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    /// Changes of the request's headers.
    pub request: Changes,
    /// Changes of the answer's headers.
    pub response: Changes,
    /// Where requests are sent instead.
    pub redirect: Option<Redirect>,
    /// What the path becomes.
    pub path: Option<NewPath>,
    /// `Host` as back ends get it.
    pub host: Option<HeaderValue>,
    /// How long a back end may need.
    pub timeout: Option<Duration>,
}

/// Changes of headers.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl Changes {
    fn add(&mut self, modifier: &HeaderModifier) -> Option<()> {
        let pair = |one: &Pattern| -> Option<(HeaderName, HeaderValue)> {
            Some((one.name.parse().ok()?, one.value.as_deref().unwrap_or_default().parse().ok()?))
        };
        self.set.extend(modifier.set.iter().map(pair).collect::<Option<Vec<_>>>()?);
        self.add.extend(modifier.add.iter().map(pair).collect::<Option<Vec<_>>>()?);
        self.remove.extend(modifier.remove.iter().map(|name| name.parse().ok()).collect::<Option<Vec<HeaderName>>>()?);
        Some(())
    }

    /// Makes them.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

/// What a path becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewPath {
    /// This.
    Full(String),
    /// What was matched becomes this.
    Prefix(String),
}

impl NewPath {
    fn of(modifier: &PathModifier) -> Option<Self> {
        let full = modifier.replace_full_path.clone().map(Self::Full);
        full.or_else(|| modifier.replace_prefix_match.clone().map(Self::Prefix))
    }

    /// The path instead of this one, which `matcher` has matched.
    pub fn of_path(&self, matcher: &Matcher, path: &str) -> String {
        let (Self::Prefix(new), Matcher::Prefix(old)) = (self, matcher) else {
            return match self {
                Self::Full(path) | Self::Prefix(path) => path.clone(),
            };
        };
        let rest = path.get(old.len()..).unwrap_or_default();
        let new = new.strip_suffix('/').unwrap_or(new);
        if rest.is_empty() && new.is_empty() { "/".to_owned() } else { format!("{new}{rest}") }
    }
}

/// Where requests are sent instead.
#[derive(Clone, Debug)]
pub struct Redirect {
    scheme: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<NewPath>,
    status: StatusCode,
}

impl Redirect {
    /// Status and location for a request to `path`. `port` is that of the listener.
    pub fn of(&self, facts: &Facts<'_>, matcher: &Matcher, path: &str, port: u16) -> (StatusCode, String) {
        let scheme = self.scheme.as_deref().unwrap_or(facts.scheme);
        let standard = if scheme == "https" { 443 } else { 80 };
        // A scheme that is named has its own port; without one the listener's stays.
        let port = self.port.unwrap_or(if self.scheme.is_some() { standard } else { port });
        let port = if port == standard { String::new() } else { format!(":{port}") };
        let host = self.host.as_deref().unwrap_or(facts.host);
        let path = self.path.as_ref().map_or_else(|| facts.uri.path().to_owned(), |new| new.of_path(matcher, path));
        let query = facts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        (self.status, format!("{scheme}://{host}{port}{path}{query}"))
    }
}

impl Actions {
    /// Of a rule.
    ///
    /// # Errors
    /// It has something that cannot be followed.
    pub fn of(rule: &Rule) -> Result<Self, Unsupported> {
        let mut actions = Self::default();
        for filter in &rule.filters {
            actions.add(filter)?;
        }
        if rule.backend_refs.iter().any(|backend| !backend.filters.is_empty()) {
            return Err(Unsupported("filter of a back end"));
        }
        let timeouts = rule.timeouts.iter().flat_map(|all| [&all.request, &all.backend_request]).flatten();
        let times: Option<Vec<Duration>> = timeouts.map(|text| duration(text)).collect();
        let times = times.ok_or(Unsupported("timeout"))?;
        actions.timeout = times.into_iter().filter(|time| !time.is_zero()).min();
        Ok(actions)
    }

    fn add(&mut self, filter: &Filter) -> Result<(), Unsupported> {
        const WRONG: Unsupported = Unsupported("value of a filter");
        if let Some(modifier) = &filter.request_header_modifier {
            self.request.add(modifier).ok_or(WRONG)?;
        } else if let Some(modifier) = &filter.response_header_modifier {
            self.response.add(modifier).ok_or(WRONG)?;
        } else if let Some(redirect) = &filter.request_redirect {
            let status = StatusCode::from_u16(redirect.status_code.unwrap_or(302)).map_err(|_| WRONG)?;
            let path = redirect.path.as_ref().and_then(NewPath::of);
            let (scheme, host) = (redirect.scheme.clone(), redirect.hostname.clone());
            self.redirect = Some(Redirect { scheme, host, port: redirect.port, path, status });
        } else if let Some(rewrite) = &filter.url_rewrite {
            self.path = rewrite.path.as_ref().and_then(NewPath::of);
            self.host = rewrite.hostname.as_deref().map(HeaderValue::from_str).transpose().map_err(|_| WRONG)?;
        } else {
            return Err(Unsupported("filter"));
        }
        Ok(())
    }
}

/// A duration of the Gateway API (GEP-2257): `1h30m`, `10s`, `150ms`.
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..end].parse().ok().filter(|number| *number < 100_000)?;
        let unit = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        sum += match &rest[end..unit] {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = &rest[unit..];
    }
    Some(sum)
}

/// The back end that a reference means; none when it is no Service with a port.
pub fn backend(reference: &ObjectRef, namespace: &str) -> Option<UpstreamKey> {
    let service =
        matches!(reference.group.as_deref(), None | Some("")) && matches!(reference.kind.as_deref(), None | Some("Service"));
    let key = Key::namespaced(reference.namespace.as_deref().unwrap_or(namespace), &reference.name);
    let place = Place::Service(key, PortRef::Number(reference.port.filter(|_| service)?));
    Some(UpstreamKey { place, protocol: None, tls_name: None, trust: None })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::Request;
    use serde_json::{Value, json};

    fn rule(value: Value) -> Rule {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
        };
        check("10s", Some(10_000));
        check("1h30m", Some(5_400_000));
        check("150ms", Some(150));
        check("0s", Some(0));
        check("1", None);
        check("1d", None);
        check("-1s", None);
    }

    #[test]
    fn conditions() {
        let check = |one: Value, method: &str, uri: &str, headers: &[(&str, &str)], expected: bool| {
            let found = matches(&rule(json!({"matches": [one]})), 0, &Key::namespaced("a", "r"), 0).unwrap();
            let mut request = Request::builder().method(method).uri(uri);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            assert_eq!(
                found[0].conditions.hold(&request.body(()).unwrap().into_parts().0),
                expected,
                "{method} {uri} {headers:?}"
            );
        };
        check(json!({}), "GET", "/", &[], true);
        check(json!({"method": "POST"}), "GET", "/", &[], false);
        let header = json!({"headers": [{"name": "Version", "value": "two"}, {"name": "version", "value": "ignored"}]});
        check(header.clone(), "GET", "/", &[("version", "two")], true);
        check(header.clone(), "GET", "/", &[("version", "one")], false);
        check(header, "GET", "/", &[], false);
        let pattern = json!({"headers": [{"type": "RegularExpression", "name": "version", "value": "t.o"}]});
        check(pattern.clone(), "GET", "/", &[("version", "two")], true);
        check(pattern, "GET", "/", &[("version", "xtwo")], false);
        let parameter = json!({"queryParams": [{"name": "animal", "value": "whale"}]});
        check(parameter.clone(), "GET", "/?x=1&animal=whale", &[], true);
        check(parameter, "GET", "/?animal=dolphin&animal=whale", &[], false);
    }

    #[test]
    fn what_cannot_be_followed() {
        let check = |value: Value| {
            let rule = rule(value);
            let found = matches(&rule, 0, &Key::namespaced("a", "r"), 0).map(drop).and_then(|()| Actions::of(&rule).map(drop));
            assert!(found.is_err(), "{rule:?}");
        };
        check(json!({"matches": [{"path": {"type": "RegularExpression", "value": "("}}]}));
        check(json!({"matches": [{"path": {"type": "Future", "value": "/"}}]}));
        check(json!({"filters": [{"type": "RequestMirror"}]}));
        check(
            json!({"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a b", "value": "x"}]}}]}),
        );
        check(json!({"timeouts": {"request": "soon"}}));
    }

    #[test]
    fn new_paths() {
        let check = |old: &str, new: &str, path: &str, expected: &str| {
            let matcher = Matcher::Prefix(old.to_owned());
            assert_eq!(NewPath::Prefix(new.to_owned()).of_path(&matcher, path), expected, "{path}");
        };
        check("/foo", "/xyz", "/foo/bar", "/xyz/bar");
        check("/foo", "/xyz/", "/foo/bar", "/xyz/bar");
        check("/foo", "/xyz", "/foo", "/xyz");
        check("/foo", "/xyz", "/foo/", "/xyz/");
        check("/foo", "/", "/foo/bar", "/bar");
        check("/foo", "/", "/foo", "/");
        check("/foo", "", "/foo/", "/");
    }
}
