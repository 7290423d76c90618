//! Rules of HTTPRoutes as the data path needs them: what a request must be like, which of several rules wins, and what is changed. Pure.

use client::Key;
use http::request::Parts;
use http::{HeaderName, Method};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use super::attach::Closeness;
use super::types::{Match, ObjectRef, Pattern, Rule};
use crate::effort::Effort;
use crate::endpoints::PortRef;
use crate::paths::{Matcher, normalize};
use crate::patterns::{Pattern as Compiled, Refused, pattern};
use crate::template::header;
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
    Pattern(Arc<Compiled>),
}

impl Test {
    fn of(pattern: &Pattern, namespace: &str) -> Result<Self, Unsupported> {
        let value = pattern.value.clone().unwrap_or_default();
        match pattern.kind.as_deref() {
            None | Some("Exact") => Ok(Self::Exact(value)),
            Some("RegularExpression") => Ok(Self::Pattern(whole(namespace, &value).map_err(|refused| why(&refused, MATCH))?)),
            Some(_) => Err(MATCH),
        }
    }

    fn passes(&self, value: &str, effort: &Effort) -> bool {
        match self {
            Self::Exact(wanted) => wanted == value,
            Self::Pattern(pattern) => effort.spend(value.len()) && pattern.is_match(value),
        }
    }
}

const MATCH: Unsupported = Unsupported::Part("match");
/// What finds no room may find it later.
pub(super) const NO_ROOM: Unsupported =
    Unsupported::Part("regular expression, for which there is no room beside those of this namespace and of others,");

/// A pattern that has to match everything.
fn whole(namespace: &str, text: &str) -> Result<Arc<Compiled>, Refused> {
    pattern(namespace, &format!("^(?:{text})$"), false)
}

/// Why a part of a rule with a pattern cannot be followed.
fn why(refused: &Refused, part: Unsupported) -> Unsupported {
    match refused {
        Refused::Wrong(_) => part,
        Refused::NoRoom => NO_ROOM,
    }
}

impl Conditions {
    fn of(one: &Match, namespace: &str) -> Result<Self, Unsupported> {
        let method = one.method.as_ref().map(|method| Method::from_bytes(method.as_bytes())).transpose().map_err(|_| MATCH)?;
        // Of two entries with the same name the first counts.
        let (mut headers, mut parameters) = (Vec::<(HeaderName, Test)>::new(), Vec::<(String, Test)>::new());
        for pattern in &one.headers {
            let name: HeaderName = pattern.name.parse().map_err(|_| MATCH)?;
            if headers.iter().all(|(other, _)| *other != name) {
                headers.push((name, Test::of(pattern, namespace)?));
            }
        }
        for pattern in &one.query_params {
            if parameters.iter().all(|(other, _)| *other != pattern.name) {
                parameters.push((pattern.name.clone(), Test::of(pattern, namespace)?));
            }
        }
        Ok(Self { method, headers, parameters })
    }

    /// Whether a request is like this, as far as it may be looked at.
    pub fn hold(&self, parts: &Parts, effort: &Effort) -> bool {
        self.method.as_ref().is_none_or(|method| *method == parts.method)
            && self
                .headers
                .iter()
                .all(|(name, test)| parts.headers.contains_key(name) && test.passes(header(&parts.headers, name), effort))
            && self.parameters.iter().all(|(name, test)| {
                let query = parts.uri.query().unwrap_or_default();
                // It is gone through for each parameter.
                if !effort.spend(query.len()) {
                    return false;
                }
                let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                // Values of rules stand for themselves, or as they stand in URLs.
                let found = pairs.find(|(found, _)| found == name || unescaped(found) == *name);
                found.is_some_and(|(_, value)| test.passes(value, effort) || test.passes(&unescaped(value), effort))
            })
    }
}

/// A name or a value of a query without the escapes that URLs have (also `+` for a space, as forms have it).
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
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
    /// How closely its route names the host.
    pub closeness: Closeness,
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
        // Definitions take letters that are none of URLs only as they are escaped; requests are matched by their normal paths.
        let normal = || normalize(&text).ok_or(Unsupported::Part("path"));
        let (kind, matcher) = match one.path.as_ref().and_then(|path| path.kind.as_deref()) {
            Some("Exact") => (0, Matcher::Exact(normal()?.into_owned())),
            None | Some("PathPrefix") => (1, Matcher::Prefix(normal()?.trim_end_matches('/').to_owned())),
            Some("RegularExpression") => {
                let pattern = whole(route.ns(), &text).map_err(|refused| why(&refused, Unsupported::Part("path")))?;
                (2, Matcher::Pattern(pattern))
            }
            Some(_) => return Err(Unsupported::Part("type of a path")),
        };
        let conditions = Conditions::of(one, route.ns())?;
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
        Ok(Matched { closeness: Closeness::default(), rank, matcher, conditions })
    };
    all.iter().map(one).collect()
}

/// Why a rule cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// A part of it.
    #[error("this {0} is not supported")]
    Part(&'static str),
    /// It has something that is not known.
    #[error("a rule is not supported: {0}")]
    Unread(String),
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
    fn conditions() {
        let check = |one: Value, method: &str, uri: &str, headers: &[(&str, &str)], expected: bool| {
            let found = matches(&rule(json!({"matches": [one]})), 0, &Key::namespaced("a", "r"), 0).unwrap();
            let mut request = Request::builder().method(method).uri(uri);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            assert_eq!(
                found[0].conditions.hold(&request.body(()).unwrap().into_parts().0, &Effort::default()),
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
        let parameter = |kind: &str, value: &str, queries: &[(&str, bool)]| {
            for (query, expected) in queries {
                let parameters = json!({"queryParams": [{"type": kind, "name": "animal", "value": value}]});
                check(parameters, "GET", &format!("/?{query}"), &[], *expected);
            }
        };
        let (exact, pattern) = ("Exact", "RegularExpression");
        let known = [("x=1&animal=whale", true), ("animal=dolphin&animal=whale", false), ("anim%61l=wh%61le", true)];
        parameter(exact, "whale", &known);
        let spaced = [("animal=blue%20whale", true), ("animal=blue+whale", true), ("animal=blue%2Bwhale", false)];
        parameter(exact, "blue whale", &spaced);
        parameter(exact, "blue%20whale", &[("animal=blue%20whale", true), ("animal=blue%2520whale", true)]);
        parameter(exact, "1+2", &[("animal=1+2", true), ("animal=1%2B2", true), ("animal=1%2%2B2%", false)]);
        parameter(pattern, "üß.", &[("animal=%C3%BC%c3%9f!", true), ("animal=%FC%DF!", false)]);
    }

    #[test]
    fn paths() {
        let check = |kind: &str, value: &str, sent: &str, expected: bool| {
            let path = json!({"type": kind, "value": value});
            let found = matches(&rule(json!({"matches": [{"path": path}]})), 0, &Key::namespaced("a", "r"), 0).unwrap();
            assert_eq!(
                found[0].matcher.matches(&normalize(sent).unwrap(), &Effort::default()),
                expected,
                "{kind} {value} {sent}"
            );
        };
        for kind in ["Exact", "PathPrefix"] {
            check(kind, "/caf%C3%A9/a%20b", "/caf%C3%A9/a%20b", true);
            check(kind, "/caf%C3%A9", "/caf%c3%a9", true);
            check(kind, "/a%41", "/aA", true);
            check(kind, "/a", "/b", false);
        }
        check("PathPrefix", "/a%20b/", "/a%20b", true);
        check("PathPrefix", "/", "/a%20b", true);
        check("Exact", "/a/", "/a", false);
        let wrong = matches(&rule(json!({"matches": [{"path": {"value": "/%zz"}}]})), 0, &Key::namespaced("a", "r"), 0);
        assert_eq!(wrong.unwrap_err(), Unsupported::Part("path"));
    }
}
