//! What rules of HTTPRoutes do to requests and answers. Pure.

use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::duration::duration;
use super::extended::{self, Mirror};
use super::rules::Unsupported;
use super::types::{Filter, HeaderModifier, PathModifier, Pattern, Rule, Timeouts};
use crate::paths::{Matcher, behind, written};
use crate::policy::{Cookie, Cors, Retry};
use crate::template::Facts;

/// How long an endpoint may say nothing that has no limit. Connections of which nobody hears any more are found by the kernel before.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// How long a request may take until its answer begins, with all attempts.
    pub timeout: Option<Duration>,
    /// How long an endpoint may say nothing, the usual time when none.
    pub silence: Option<Duration>,
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
        self.set.extend(pairs(&modifier.set)?);
        self.add.extend(pairs(&modifier.add)?);
        self.remove.extend(modifier.remove.iter().map(|name| name.parse().ok()).collect::<Option<Vec<HeaderName>>>()?);
        Some(())
    }

    /// The host that is set. No request has two, so one that is added is set, too, and none goes without.
    pub fn host(&self) -> Option<&HeaderValue> {
        self.add.iter().chain(&self.set).find(|(name, _)| *name == HOST).map(|(_, value)| value)
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

/// Names and values. "Subsequent entries with an equivalent header name MUST be ignored" (HTTPHeader): a definition tells names apart by their letters' case.
fn pairs(entries: &[Pattern]) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let mut pairs = Vec::<(HeaderName, HeaderValue)>::new();
    for one in entries {
        let (name, value): (HeaderName, _) = (one.name.parse().ok()?, one.value.as_deref().unwrap_or_default().parse().ok()?);
        if pairs.iter().all(|(other, _)| *other != name) {
            pairs.push((name, value));
        }
    }
    Some(pairs)
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

    /// The path instead of the one that was sent, as requests have it. `matcher` has matched the normal one.
    pub fn of_path(&self, matcher: &Matcher, normal: &str, sent: &str) -> String {
        let (Self::Prefix(new), Matcher::Prefix(old)) = (self, matcher) else {
            return match self {
                Self::Full(path) | Self::Prefix(path) => written(path),
            };
        };
        let rest = behind(old, normal, sent);
        let new = written(new.strip_suffix('/').unwrap_or(new));
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
                _ => return Err(Unsupported::Part("filter of a back end")),
            };
            to.add(modifier).ok_or(Unsupported::Part("value of a filter"))?;
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
    /// Status and location for a request whose normal path is `path`. `port` is that of the listener.
    pub fn of(&self, facts: &Facts<'_>, matcher: &Matcher, path: &str, port: u16) -> (StatusCode, String) {
        let scheme = self.scheme.as_deref().unwrap_or(facts.scheme);
        let standard = if scheme == "https" { 443 } else { 80 };
        // A scheme that is named has its own port; without one the listener's stays.
        let port = self.port.unwrap_or(if self.scheme.is_some() { standard } else { port });
        let port = if port == standard { String::new() } else { format!(":{port}") };
        let host = self.host.as_deref().unwrap_or(facts.host);
        let sent = facts.uri.path();
        let path = self.path.as_ref().map_or_else(|| sent.to_owned(), |new| new.of_path(matcher, path, sent));
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
        if let Some(why) = &rule.unread {
            return Err(Unsupported::Unread(why.clone()));
        }
        let mut actions = Self::default();
        for filter in &rule.filters {
            actions.add(filter)?;
        }
        if let Some(timeouts) = &rule.timeouts {
            (actions.timeout, actions.silence) = times(timeouts, rule.retry.is_some())?;
        }
        actions.retry = rule.retry.as_ref().map(extended::retry).transpose()?;
        actions.session = rule.session_persistence.as_ref().map(extended::session).transpose()?;
        Ok(actions)
    }

    fn add(&mut self, filter: &Filter) -> Result<(), Unsupported> {
        const WRONG: Unsupported = Unsupported::Part("value of a filter");
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
            return Err(Unsupported::Part("filter"));
        }
        Ok(())
    }
}

/// How long a request may take with all attempts, and how long an endpoint may say nothing. Without retries that were asked for an endpoint that takes too long is
/// not followed by another one: each may have had the request.
fn times(timeouts: &Timeouts, has_retries: bool) -> Result<(Option<Duration>, Option<Duration>), Unsupported> {
    let read = |text: &Option<String>| text.as_deref().map(|text| duration(text).ok_or(Unsupported::Part("timeout"))).transpose();
    let said = [read(&timeouts.request)?, read(&timeouts.backend_request)?];
    // Zero is none.
    let [request, attempt] = said.map(|time| time.filter(|time| !time.is_zero()));
    let is_endless = said.iter().any(Option::is_some);
    let silence = attempt.into_iter().chain(request).min().or(is_endless.then_some(LONGEST));
    let whole = if has_retries { request } else { request.into_iter().chain(attempt).min() };
    Ok((whole, silence))
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
            let (matcher, normal) = (Matcher::Prefix(old.to_owned()), crate::paths::normalize(path).unwrap());
            assert_eq!(NewPath::Prefix(new.to_owned()).of_path(&matcher, &normal, path), expected, "{path}");
        };
        check("/foo", "/xyz", "/foo/bar", "/xyz/bar");
        check("/foo", "/xyz/", "/foo/bar", "/xyz/bar");
        check("/foo", "/xyz", "/foo", "/xyz");
        check("/foo", "/xyz", "/foo/", "/xyz/");
        check("/foo", "/", "/foo/bar", "/bar");
        check("/foo", "/", "/foo", "/");
        check("/foo", "", "/foo/", "/");
        check("/gitlab", "/", "/gitlab/api/v4/projects/group%2Fproject", "/api/v4/projects/group%2Fproject");
        check("/foo", "/x%20y", "/foo/a%3Fb", "/x%20y/a%3Fb");
        let full = NewPath::Full("/a b%20c?d".to_owned());
        assert_eq!(full.of_path(&Matcher::Exact("/".to_owned()), "/", "/"), "/a%20b%20c?d");
    }

    /// HTTPHeaderFilter: what is set, added and removed; of equal names the first counts.
    #[test]
    fn changes_of_headers() {
        let modifier = json!({"set": [{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}],
            "add": [{"name": "x-b", "value": "3"}, {"name": "X-B", "value": "4"}], "remove": ["X-C"]});
        let mut changes = Changes::default();
        changes.add(&serde_json::from_value(modifier).unwrap()).unwrap();
        assert_eq!(changes.host(), None);
        for (how, value) in [("set", "a.example"), ("add", "b.example:80")] {
            let mut changes = Changes::default();
            let modifier = json!({how: [{"name": "Host", "value": value}], "remove": ["host"]});
            changes.add(&serde_json::from_value(modifier).unwrap()).unwrap();
            assert_eq!(changes.host().unwrap(), value);
        }
        let header = |name: &'static str, value: &'static str| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut headers = HeaderMap::from_iter([header("x-a", "0"), header("x-b", "0"), header("x-c", "0")]);
        changes.apply(&mut headers);
        let found: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(found, [("x-a", "1"), ("x-b", "0"), ("x-b", "3")]);
    }

    /// HTTPRouteTimeouts: how long all may take and how long an endpoint may say nothing.
    #[test]
    fn timeouts() {
        let check = |rule: Value, expected: [Option<u64>; 2]| {
            let actions = Actions::of(&serde_json::from_value(rule.clone()).unwrap()).unwrap();
            let millis = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap());
            assert_eq!([millis(actions.timeout), millis(actions.silence)], expected, "{rule}");
        };
        let both = |request: &str, backend: &str| json!({"timeouts": {"request": request, "backendRequest": backend}});
        check(json!({}), [None, None]);
        check(json!({"timeouts": {"request": "5m"}}), [Some(300_000), Some(300_000)]);
        check(json!({"timeouts": {"backendRequest": "200ms"}}), [Some(200), Some(200)]);
        check(both("10s", "2s"), [Some(2_000), Some(2_000)]);
        // "Setting a timeout to the zero duration SHOULD disable the timeout completely", else it is "the longest possible value".
        let longest = Some(86_400_000);
        check(json!({"timeouts": {"request": "0s"}}), [None, longest]);
        check(json!({"timeouts": {"backendRequest": "0s"}}), [None, longest]);
        check(both("10s", "0s"), [Some(10_000), Some(10_000)]);
        check(both("0s", "2s"), [Some(2_000), Some(2_000)]);
        // HTTPRouteRetryWithTimeouts: an attempt that takes too long is followed by the next one, while the request has time.
        let with_retry = |mut rule: Value| {
            rule["retry"] = json!({"attempts": 2});
            rule
        };
        check(with_retry(json!({"timeouts": {"backendRequest": "200ms"}})), [None, Some(200)]);
        check(with_retry(both("400ms", "200ms")), [Some(400), Some(200)]);
        check(with_retry(json!({"timeouts": {"request": "10s"}})), [Some(10_000), Some(10_000)]);
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
