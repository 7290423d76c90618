//! What the service proxy says of itself, as kube-proxy does: `/healthz` and `/livez` for load balancers (KEP-3836), and its mode and metrics for the
//! machine itself.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base::metrics::{Format, Page};
use base::tasks::{OnFailure, Tasks};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::time::Instant;

use super::answers::{self, Answer, Answering};

/// How long a change may wait for the kernel (kube-proxy: twice the period of its rounds).
const PATIENCE: Duration = Duration::from_secs(60);
/// The taint of nodes that the cluster autoscaler is about to delete.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// How times are written.
const TIME: &str = "%Y-%m-%d %H:%M:%S.%9f +0000 UTC";
/// What names of metrics of service proxies begin with.
const OWN: &str = "kubeproxy_";

/// Where it is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// `/healthz` and `/livez`, for whoever balances load over nodes.
    pub health: Option<SocketAddr>,
    /// `/metrics` and `/proxyMode`.
    pub metrics: Option<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    code: &'static str,
}

struct Metrics {
    healthz: Family<Labels, Counter>,
    livez: Family<Labels, Counter>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let counter = |name, help| Page::Node.register(name, help, Family::default());
    Metrics {
        healthz: counter("kubeproxy_proxy_healthz", "Cumulative proxy healthz HTTP status"),
        livez: counter("kubeproxy_proxy_livez", "Cumulative proxy livez HTTP status"),
    }
});

/// How the proxy is. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Status(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// When the kernel last took the changes of a round; services that it does not take are left out of it.
    updated: Option<Timestamp>,
    /// Since when a round has changes that wait for the kernel.
    waits: Option<Instant>,
    /// The node is deleted, or about to be.
    leaves: bool,
}

impl Status {
    /// Something has changed that the kernel is to have.
    pub(super) fn queued(&self, now: Instant) {
        self.0.lock().waits.get_or_insert(now);
    }

    /// The kernel has taken the changes of a round. Services that it does not take by themselves have been left out and are tried again later: others
    /// are served meanwhile, so nothing is said of them here.
    pub(super) fn updated(&self) {
        let mut inner = self.0.lock();
        (inner.waits, inner.updated) = (None, Some(Timestamp::now()));
    }

    /// Takes over what the node's object says; none where it is gone.
    pub(super) fn of_node(&self, node: Option<&Node>) {
        let leaves = node.is_none_or(|node| {
            let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
            node.metadata.deletion_timestamp.is_some() || taints.any(|taint| taint.key == TO_BE_DELETED)
        });
        self.0.lock().leaves = leaves;
    }

    /// Whether no change waits for too long. While the proxy starts none does.
    pub(super) fn is_healthy(&self, now: Instant) -> bool {
        self.0.lock().waits.is_none_or(|since| now.duration_since(since) < PATIENCE)
    }

    /// Answers at these addresses from now on.
    pub(super) fn serve(&self, listen: Listen, tasks: &Tasks) {
        let status = self.clone();
        let health: Answering = Arc::new(move |path| status.health(path, Instant::now()));
        for (address, what, answering) in
            [(listen.health, "proxy health", health), (listen.metrics, "proxy metrics", Arc::new(metrics) as Answering)]
        {
            let (Some(address), tasks) = (address, tasks.clone()) else { continue };
            let spawner = tasks.clone();
            tasks.spawn_until_cancelled(what, OnFailure::Log, async move {
                let failed =
                    |error: &std::io::Error| tracing::warn!(%address, %error, "{what} cannot be asked for, trying again");
                let listener = answers::listen(address, failed).await;
                answers::serve(listener, spawner, what, answering).await;
                #[allow(unreachable_code)]
                Ok::<_, Infallible>(())
            });
        }
    }

    fn health(&self, path: &str, at: Instant) -> Answer {
        let (counter, asks_for_node) = match path {
            "/healthz" => (&METRICS.healthz, true),
            "/livez" => (&METRICS.livez, false),
            _ => return Answer::not_found(),
        };
        let (works, now) = (self.is_healthy(at), Timestamp::now());
        let (updated, leaves) = {
            let inner = self.0.lock();
            (inner.updated, inner.leaves)
        };
        let is_good = works && !(asks_for_node && leaves);
        counter.get_or_create(&Labels { code: if is_good { "200" } else { "503" } }).inc();
        // When nothing is wrong upstream tells the present time for compatibility.
        let updated = if is_good { Some(now) } else { updated };
        let updated = updated.map_or("0001-01-01 00:00:00 +0000 UTC".to_owned(), |time| time.strftime(TIME).to_string());
        let eligible = if asks_for_node { format!(", \"nodeEligible\": {}", !leaves) } else { String::new() };
        let body = format!("{{\"lastUpdated\": \"{updated}\",\"currentTime\": \"{}\"{eligible}}}", now.strftime(TIME));
        Answer::json(is_good, body)
    }
}

/// What the machine itself is told.
fn metrics(path: &str) -> Answer {
    match path {
        "/healthz" => Answer::text("ok"),
        "/proxyMode" => Answer::text("nftables"),
        "/metrics" => {
            let page = Page::Node.encode(Format::Text);
            let is_own = |line: &&str| line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").starts_with(OWN);
            let body = page.lines().filter(is_own).flat_map(|line| [line, "\n"]).collect::<String>();
            Answer { media_type: Format::Text.media_type(), ..Answer::text(body) }
        }
        _ => Answer::not_found(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    /// KEP-3836: "healthz: 503 when the node is being deleted or tainted", "livez: does not take the node into account".
    #[test]
    fn who_is_healthy() {
        let (status, start) = (Status::default(), Instant::now());
        let check = |at: Instant, healthz: bool, livez: bool, eligible: bool| {
            let [health, live] = ["/healthz", "/livez"].map(|path| status.health(path, at));
            assert_eq!((health.status.starts_with("200"), live.status.starts_with("200")), (healthz, livez));
            let body: Value = serde_json::from_str(&health.body).unwrap();
            assert_eq!(body["nodeEligible"], eligible, "{body}");
            assert!(body["lastUpdated"].as_str().unwrap().ends_with(" +0000 UTC"), "{body}");
            assert!(body["currentTime"].as_str().unwrap().ends_with(" +0000 UTC"), "{body}");
            let body: Value = serde_json::from_str(&live.body).unwrap();
            assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["currentTime", "lastUpdated"]);
        };
        let node = |change: Value| -> Node {
            let mut node = json!({"metadata": {"name": "n"}});
            node.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            serde_json::from_value(node).unwrap()
        };
        check(start, true, true, true);
        // A change that waits is late after a minute, counted from the first of those that wait.
        let (halfway, late) = (start + PATIENCE / 2, start + PATIENCE);
        status.queued(start);
        status.queued(halfway);
        check(halfway, true, true, true);
        check(late, false, false, true);
        status.updated();
        check(late, true, true, true);
        let taint = |key: &str| node(json!({"spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}}));
        status.of_node(Some(&taint("node.kubernetes.io/unschedulable")));
        check(late, true, true, true);
        status.of_node(Some(&taint(TO_BE_DELETED)));
        check(late, false, true, false);
        status.of_node(Some(&node(json!({}))));
        check(late, true, true, true);
        status.of_node(Some(&node(json!({"metadata": {"name": "n", "deletionTimestamp": "2026-11-30T12:00:00Z"}}))));
        check(late, false, true, false);
        status.of_node(Some(&node(json!({}))));
        status.of_node(None);
        check(late, false, true, false);
        assert!(status.health("/", late).status.starts_with("404"));
    }

    #[test]
    fn the_machine_is_told_of_the_proxy_alone() {
        Status::default().health("/livez", Instant::now());
        let page = metrics("/metrics").body;
        assert!(page.contains("kubeproxy_proxy_livez_total{code=\"200\"}"), "{page}");
        assert!(!page.contains("process_") && page.lines().all(|line| line.contains(OWN)), "{page}");
        assert_eq!(metrics("/proxyMode").body, "nftables");
        assert!(metrics("/configz").status.starts_with("404"));
    }
}
