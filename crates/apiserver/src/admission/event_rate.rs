//! EventRateLimit, where it is enabled: how many Events a second are taken, of all, of a namespace, of a user, of a source about one object.

use std::collections::HashMap;
use std::time::Duration;

use apimachinery::Status;
use async_trait::async_trait;
use parking_lot::Mutex;
use registry::{Admission, Operation, Request};
use serde_json::Value;
use tokio::time::Instant;

use super::{EVENT_RATE, is, text};

/// How many keys of one limit are remembered unless the configuration says otherwise, and at most.
const KEYS: usize = 4096;
const MOST_KEYS: usize = 1 << 20;

/// What a limit is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

impl Scope {
    const ALL: [(&'static str, Self); 4] = [
        ("Server", Self::Server),
        ("Namespace", Self::Namespace),
        ("User", Self::User),
        ("SourceAndObject", Self::SourceAndObject),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, scope)| *scope == self).map_or("", |(name, _)| name)
    }
}

/// One limit of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Limit {
    scope: Scope,
    /// Events a second.
    rate: u32,
    burst: u32,
    keys: usize,
}

/// Limits of a Configuration of eventratelimit.admission.k8s.io/v1alpha1.
pub(super) fn parse(value: &Value) -> Result<Vec<Limit>, String> {
    if value["apiVersion"] != "eventratelimit.admission.k8s.io/v1alpha1" || value["kind"] != "Configuration" {
        return Err("it is not a Configuration of eventratelimit.admission.k8s.io/v1alpha1".to_owned());
    }
    let limits = value["limits"].as_array().filter(|limits| !limits.is_empty()).ok_or("limits: Required value")?;
    limits.iter().enumerate().map(|(index, limit)| one(limit).map_err(|why| format!("limits[{index}].{why}"))).collect()
}

fn one(limit: &Value) -> Result<Limit, String> {
    let kind = text(limit, "/type");
    let scope = Scope::ALL.iter().find(|(name, _)| *name == kind).map(|(_, scope)| *scope);
    let scope = scope.ok_or_else(|| format!("type: Unsupported value: {kind:?}"))?;
    let number = |field: &str| limit[field].as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
    let positive = |field: &str| number(field).ok_or_else(|| format!("{field}: Invalid value: must be positive"));
    let keys = match &limit["cacheSize"] {
        Value::Null => KEYS,
        size => {
            size.as_u64().and_then(|size| usize::try_from(size).ok()).ok_or("cacheSize: Invalid value: must not be negative")?
        }
    };
    let keys = if keys == 0 { KEYS } else { keys.min(MOST_KEYS) };
    Ok(Limit { scope, rate: positive("qps")?, burst: positive("burst")?, keys })
}

pub(super) struct EventRateLimit(Vec<(Limit, Mutex<Buckets>)>);

impl EventRateLimit {
    pub(super) fn new(limits: Vec<Limit>) -> Self {
        Self(limits.into_iter().map(|limit| (limit, Mutex::default())).collect())
    }
}

#[async_trait]
impl Admission for EventRateLimit {
    fn name(&self) -> &'static str {
        EVENT_RATE
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        let is_event = is(a, "", "events") || is(a, "events.k8s.io", "events");
        is_event && a.subresource.is_empty() && matches!(a.operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let Some(event) = a.object().filter(|_| !a.dry_run) else { return Ok(()) };
        let now = Instant::now();
        // Each limit counts the event, also when another one refuses it.
        let mut refused = Vec::new();
        for (limit, buckets) in &self.0 {
            let key = key(limit.scope, a.namespace, &a.user.name, event);
            if !buckets.lock().take(limit, &key, now) {
                let of = if key.is_empty() { String::new() } else { format!(" for key {key}") };
                refused.push(format!("limit reached on type {}{of}", limit.scope.name()));
            }
        }
        match refused.len() {
            0 => Ok(()),
            1 => Err(Status::too_many_requests(refused.concat(), 1)),
            _ => Err(Status::too_many_requests(format!("[{}]", refused.join(", ")), 1)),
        }
    }
}

fn key(scope: Scope, namespace: &str, user: &str, event: &Value) -> String {
    match scope {
        Scope::Server => String::new(),
        Scope::Namespace => namespace.to_owned(),
        Scope::User => user.to_owned(),
        Scope::SourceAndObject => {
            let object =
                ["kind", "namespace", "name", "uid", "apiVersion"].map(|field| text(event, &format!("/involvedObject/{field}")));
            let source = [text(event, "/source/component"), text(event, "/source/host")];
            [source.concat(), object.concat()].concat()
        }
    }
}

/// What is left for each key. Two generations: those that nobody has asked for in a while are forgotten, and begin anew.
#[derive(Default)]
struct Buckets {
    young: HashMap<String, Bucket>,
    old: HashMap<String, Bucket>,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Buckets {
    fn take(&mut self, limit: &Limit, key: &str, now: Instant) -> bool {
        let full = Bucket { tokens: f64::from(limit.burst), at: now };
        let mut bucket = self.young.get(key).or_else(|| self.old.get(key)).copied().unwrap_or(full);
        let waited: Duration = now.saturating_duration_since(bucket.at);
        bucket.tokens = (bucket.tokens + waited.as_secs_f64() * f64::from(limit.rate)).min(f64::from(limit.burst));
        bucket.at = now;
        let is_left = bucket.tokens >= 1.0;
        if is_left {
            bucket.tokens -= 1.0;
        }
        if self.young.len() >= limit.keys.div_ceil(2) && !self.young.contains_key(key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.to_owned(), bucket);
        is_left
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn limit(keys: usize) -> Limit {
        Limit { scope: Scope::User, rate: 2, burst: 3, keys }
    }

    #[test]
    fn as_many_as_a_burst_and_then_as_many_as_come_back() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        let mut taken = |key: &str, millis: u64| {
            let at = now + Duration::from_millis(millis);
            (0..10).filter(|_| buckets.take(&limit(10), key, at)).count()
        };
        assert_eq!([taken("a", 0), taken("b", 0), taken("a", 400), taken("a", 1000), taken("a", 60_000)], [3, 3, 0, 2, 3]);
    }

    #[test]
    fn keys_are_bounded() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        for number in 0..1000 {
            assert!(buckets.take(&limit(10), &number.to_string(), now));
            assert!(buckets.young.len() + buckets.old.len() <= 10);
        }
        // The last ones are known.
        assert_eq!((0..3).filter(|_| buckets.take(&limit(10), "999", now)).count(), 2);
    }

    #[test]
    fn configurations() {
        let check = |limits: Value, expected: Result<Vec<Limit>, &str>| {
            let value =
                json!({"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration", "limits": limits});
            assert_eq!(parse(&value), expected.map_err(str::to_owned), "{limits}");
        };
        check(json!([{"type": "User", "qps": 2, "burst": 3, "cacheSize": 10}]), Ok(vec![limit(10)]));
        check(json!([{"type": "User", "qps": 2, "burst": 3}]), Ok(vec![limit(KEYS)]));
        check(json!([]), Err("limits: Required value"));
        check(json!([{"type": "Pod", "qps": 2, "burst": 3}]), Err("limits[0].type: Unsupported value: \"Pod\""));
        check(json!([{"type": "User", "qps": 0, "burst": 3}]), Err("limits[0].qps: Invalid value: must be positive"));
        check(json!([{"type": "User", "qps": 1}]), Err("limits[0].burst: Invalid value: must be positive"));
        assert!(parse(&json!({"kind": "Configuration"})).is_err());
    }

    #[test]
    fn what_is_counted_together() {
        let event = json!({"source": {"component": "c", "host": "h"}, "involvedObject": {"kind": "Pod", "namespace": "n", "name": "p", "uid": "u"}});
        let found = Scope::ALL.map(|(_, scope)| key(scope, "n", "user", &event));
        assert_eq!(found, ["", "n", "user", "chPodnpu"]);
    }
}
