//! What rules of HTTPRoutes do to requests and answers. Pure.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::duration::duration;
use super::extended::{self, Mirror};
use super::rules::Unsupported;
use super::types::{Filter, HeaderModifier, PathModifier, Pattern, Rule};
use crate::paths::Matcher;
use crate::policy::{Cookie, Cors, Retry};
use crate::template::Facts;

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
    /// What browsers are told of origins.
    pub cors: Option<Cors>,
    /// When a request is sent again; the usual when none.
    pub retry: Option<Retry>,
    /// The cookie that keeps clients with their endpoint.
    pub session: Option<Cookie>,
    /// Who gets copies of requests.
    pub mirrors: Vec<Mirror>,
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

/// What one back end changes, after its rule.
#[derive(Clone, Debug, Default)]
pub struct BackendChanges {
    /// Changes of the request's headers.
    pub request: Changes,
    /// Changes of the answer's headers.
    pub response: Changes,
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

impl BackendChanges {
    /// Of the filters of a back end.
    ///
    /// # Errors
    /// One of them changes something else than headers.
    pub fn of(filters: &[Filter]) -> Result<Self, Unsupported> {
        let mut changes = Self::default();
        for filter in filters {
            let (to, modifier) = match (&filter.request_header_modifier, &filter.response_header_modifier) {
                (Some(modifier), _) => (&mut changes.request, modifier),
                (_, Some(modifier)) => (&mut changes.response, modifier),
                _ => return Err(Unsupported("filter of a back end")),
            };
            to.add(modifier).ok_or(Unsupported("value of a filter"))?;
        }
        Ok(changes)
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
        let timeouts = rule.timeouts.iter().flat_map(|all| [&all.request, &all.backend_request]).flatten();
        let times: Option<Vec<Duration>> = timeouts.map(|text| duration(text)).collect();
        let times = times.ok_or(Unsupported("timeout"))?;
        actions.timeout = times.into_iter().filter(|time| !time.is_zero()).min();
        actions.retry = rule.retry.as_ref().map(extended::retry).transpose()?;
        actions.session = rule.session_persistence.as_ref().map(extended::session).transpose()?;
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
        } else if let Some(cors) = &filter.cors {
            self.cors = Some(extended::cors(cors).ok_or(WRONG)?);
        } else if let Some(mirror) = &filter.request_mirror {
            self.mirrors.push(extended::mirror(mirror).ok_or(WRONG)?);
        } else {
            return Err(Unsupported("filter"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use client::Key;
    use serde_json::{Value, json};

    use super::super::rules::matches;
    use super::*;

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

    #[test]
    fn what_cannot_be_followed() {
        let check = |value: Value| {
            let rule: Rule = serde_json::from_value(value).unwrap();
            let found = matches(&rule, 0, &Key::namespaced("a", "r"), 0).map(drop).and_then(|()| Actions::of(&rule).map(drop));
            assert!(found.is_err(), "{rule:?}");
        };
        check(json!({"matches": [{"path": {"type": "RegularExpression", "value": "("}}]}));
        check(json!({"matches": [{"path": {"type": "Future", "value": "/"}}]}));
        check(json!({"filters": [{"type": "ExtensionRef"}]}));
        check(json!({"retry": {"backoff": "soon"}}));
        check(
            json!({"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a b", "value": "x"}]}}]}),
        );
        check(json!({"timeouts": {"request": "soon"}}));
    }
}
