//! `/healthz`, `/livez` and `/readyz`, each with its checks below it, in upstream's format.
//!
//! Liveness is that the process answers, logs and reads its store, and that what it does once after its start is done. Readiness
//! is that every component of the process has what it needs, besides.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::LazyLock;
use std::time::Duration;

use base::metrics::Page;
use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::body::Body;
use crate::call::Inner;
use crate::query::Query;
use crate::respond;

/// How long the store may take to answer.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// Checks of this name are about what is done once after the start.
const HOOK: &str = "poststarthook/";
/// Another one: all that is registered once is.
const COMPLETE: &str = "autoregister-completion";

/// Upstream's names of what one thing of ours does. Its start hooks are many programs' in one; probes and its tests ask for them by name.
pub(crate) mod hooks {
    use super::COMPLETE;

    /// The indices that requests are judged by follow the store.
    pub(crate) const INFORMERS: [&str; 3] = [
        "informer-sync",
        "poststarthook/generic-apiserver-start-informers",
        "poststarthook/start-apiserver-admission-initializer",
    ];
    /// Flow schemas and priority levels are in force.
    pub(crate) const FAIRNESS: [&str; 2] =
        ["poststarthook/priority-and-fairness-config-consumer", "poststarthook/priority-and-fairness-filter"];
    /// The objects that every cluster has are there: namespaces, the `kubernetes` Service and ServiceCIDR, since when tokens are tracked.
    pub(crate) const OWN_OBJECTS: [&str; 4] = [
        "poststarthook/bootstrap-controller",
        "poststarthook/start-kubernetes-service-cidr-controller",
        "poststarthook/start-legacy-token-tracking-controller",
        "poststarthook/start-system-namespaces-controller",
    ];
    /// Custom resources are served.
    pub(crate) const DEFINITIONS: [&str; 3] = [
        "poststarthook/crd-informer-synced",
        "poststarthook/start-apiextensions-controllers",
        "poststarthook/start-apiextensions-informers",
    ];
    /// APIServices are followed, with what is discovered and documented of them.
    pub(crate) const AGGREGATION: [&str; 6] = [
        "poststarthook/apiservice-discovery-controller",
        "poststarthook/apiservice-openapi-controller",
        "poststarthook/apiservice-openapiv3-controller",
        "poststarthook/apiservice-registration-controller",
        "poststarthook/apiservice-status-remote-available-controller",
        "poststarthook/start-kube-aggregator-informers",
    ];
    /// The APIServices of this server are there, with their conditions, and what other servers need to know of it.
    pub(crate) const REGISTRATION: [&str; 4] = [
        COMPLETE,
        "poststarthook/apiservice-status-local-available-controller",
        "poststarthook/kube-apiserver-autoregistration",
        "poststarthook/start-cluster-authentication-info-controller",
    ];
    /// The task that renews the server's lease, and takes away those that are over, has been started. As upstream, nobody waits for the lease: a
    /// server without one serves all the same, and would not get one by being started again.
    pub(crate) const IDENTITY: [&str; 2] = [
        "poststarthook/start-kube-apiserver-identity-lease-controller",
        "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
    ];
}

/// That something works, or why not.
pub(crate) type Outcome = Result<(), String>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Checked {
    name: String,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Counted {
    name: String,
    status: &'static str,
    r#type: &'static str,
}

struct Metrics {
    last: Family<Checked, Gauge>,
    all: Family<Counted, Counter>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    last: Page::ServerSlis.register(
        "kubernetes_healthcheck",
        "This metric records the result of a single healthcheck",
        Family::default(),
    ),
    all: Page::ServerSlis.register(
        "kubernetes_healthchecks",
        "This metric records the results of all healthcheck",
        Family::default(),
    ),
});

/// The endpoint of health that a path is of.
pub(crate) fn endpoint(path: &str) -> Option<&'static str> {
    let first = path.strip_prefix('/')?.split('/').next()?;
    ["/healthz", "/livez", "/readyz"].into_iter().find(|endpoint| endpoint[1..] == *first)
}

/// The answer, if the path is one of health.
pub(crate) async fn respond(inner: &Inner, path: &str, query: &str) -> Option<Response<Body>> {
    let endpoint = &endpoint(path)?[1..];
    let checks = checks(inner, endpoint).await;
    let wanted = path.trim_start_matches('/').split_once('/').map(|(_, check)| check);
    let (code, text) = match wanted {
        None => summary(endpoint, &checks, &Query::parse(query)),
        Some(wanted) => match checks.into_iter().find(|(name, _)| name == wanted) {
            None => return Some(respond::page_not_found()),
            Some((_, Ok(()))) => (StatusCode::OK, "ok".to_owned()),
            Some((_, Err(error))) => (StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {error}\n")),
        },
    };
    let mut response = respond::text(code, text);
    response.headers_mut().insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    Some(response)
}

/// Whether the store answers.
pub(crate) async fn store(inner: &Inner) -> Outcome {
    match tokio::time::timeout(STORE_TIMEOUT, inner.registry.ping()).await {
        Ok(answered) => answered.map_err(|error| error.to_string()),
        Err(_) => Err("the store does not answer".to_owned()),
    }
}

/// Every check of an endpoint, in upstream's order.
async fn checks(inner: &Inner, endpoint: &str) -> Vec<(String, Outcome)> {
    let log = if base::logging::works() { Ok(()) } else { Err("logging blocked".to_owned()) };
    let store = store(inner).await;
    let mut checks = vec![("ping".to_owned(), Ok(())), ("log".to_owned(), log), ("etcd".to_owned(), store.clone())];
    let known = inner.readiness.snapshot().into_iter().map(|(name, state)| (name.to_owned(), state));
    let (hooks, components): (Vec<_>, Vec<_>) = known.partition(|(name, _)| is_hook(name));
    if endpoint == "readyz" {
        checks.push(("etcd-readiness".to_owned(), store));
        let (mut last, components): (Vec<_>, Vec<_>) = components.into_iter().partition(|(name, _)| name == "shutdown");
        checks.extend(components);
        checks.extend(hooks);
        checks.append(&mut last);
    } else {
        checks.extend(hooks);
    }
    checks
}

/// Whether a check is about what is done once after the start.
fn is_hook(name: &str) -> bool {
    name.starts_with(HOOK) || name == COMPLETE
}

/// The code and the text of an endpoint. Why a check failed is told only by its own path, which not everybody may read.
fn summary(endpoint: &str, checks: &[(String, Outcome)], query: &Query) -> (StatusCode, String) {
    let mut unknown: HashSet<&str> = query.all("exclude").collect();
    let excluded = unknown.clone();
    let (mut text, mut failed) = (String::new(), false);
    for (name, outcome) in checks {
        // Writing to a String cannot fail.
        let _ = if excluded.contains(name.as_str()) {
            unknown.remove(name.as_str());
            writeln!(text, "[+]{name} excluded: ok")
        } else if let Err(error) = outcome {
            failed = true;
            tracing::debug!(endpoint, check = name, error, "health check failed");
            writeln!(text, "[-]{name} failed: reason withheld")
        } else {
            writeln!(text, "[+]{name} ok")
        };
        if !excluded.contains(name.as_str()) {
            observe(endpoint, name, outcome.is_ok());
        }
    }
    if !unknown.is_empty() {
        let mut names: Vec<String> = unknown.into_iter().map(apimachinery::text::quote).collect();
        names.sort();
        let _ = writeln!(text, "warn: some health checks cannot be excluded: no matches for {}", names.join(","));
    }
    let end = if failed { "failed" } else { "passed" };
    let _ = writeln!(text, "{endpoint} check {end}");
    match failed {
        true => (StatusCode::INTERNAL_SERVER_ERROR, text),
        false if query.get("verbose").is_none() => (StatusCode::OK, "ok".to_owned()),
        false => (StatusCode::OK, text),
    }
}

fn observe(endpoint: &str, name: &str, passed: bool) {
    let r#type = match endpoint {
        "healthz" => "healthz",
        "livez" => "livez",
        _ => "readyz",
    };
    let name = name.to_owned();
    METRICS.last.get_or_create(&Checked { name: name.clone(), r#type }).set(i64::from(passed));
    let status = if passed { "success" } else { "error" };
    METRICS.all.get_or_create(&Counted { name, status, r#type }).inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let check = |states: &[(&str, Outcome)], query: &str, code: u16, expected: &str| {
            let states: Vec<_> = states.iter().map(|(name, outcome)| ((*name).to_owned(), outcome.clone())).collect();
            let (found, text) = summary("readyz", &states, &Query::parse(query));
            assert_eq!((found.as_u16(), text.as_str()), (code, expected), "{query}");
        };
        let bad = [("ping", Ok(())), ("scheduler", Err("starting".to_owned()))];
        let good = [("ping", Ok(())), ("scheduler", Ok(()))];
        check(&good, "", 200, "ok");
        check(&good, "verbose", 200, "[+]ping ok\n[+]scheduler ok\nreadyz check passed\n");
        check(&bad, "", 500, "[+]ping ok\n[-]scheduler failed: reason withheld\nreadyz check failed\n");
        check(&bad, "exclude=scheduler", 200, "ok");
        check(&bad, "exclude=scheduler&verbose=1", 200, "[+]ping ok\n[+]scheduler excluded: ok\nreadyz check passed\n");
        check(
            &good,
            "exclude=b&exclude=a&verbose",
            200,
            "[+]ping ok\n[+]scheduler ok\nwarn: some health checks cannot be excluded: no matches for \"a\",\"b\"\nreadyz check passed\n",
        );
    }

    #[test]
    fn paths() {
        let check = |path: &str, expected: Option<&str>| assert_eq!(endpoint(path), expected, "{path}");
        check("/livez", Some("/livez"));
        check("/readyz/poststarthook/rbac/bootstrap-roles", Some("/readyz"));
        check("/healthzz", None);
        check("/version", None);
    }
}
