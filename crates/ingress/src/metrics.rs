//! Figures, on the node's page.

use std::sync::{Arc, LazyLock};

use base::metrics::Page;
use client::Key;
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// Names come from objects of the API, never from clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: Arc<str>,
    ingress: Arc<str>,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Port {
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

static REQUESTS: LazyLock<Family<Labels, Counter>> = LazyLock::new(|| {
    Page::Node.register("knarr_ingress_requests", "Requests by Ingress and class of the answer's status", Family::default())
});
static UNKNOWN: LazyLock<Counter> = LazyLock::new(|| {
    Page::Node.register("knarr_ingress_unmatched_requests", "Requests that no Ingress has a rule for", Counter::default())
});
static SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    let buckets = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    Page::Node.register("knarr_ingress_request_duration_seconds", "Time to the head of the answer", Histogram::new(buckets))
});
static RETRIES: LazyLock<Counter> = LazyLock::new(|| {
    Page::Node.register("knarr_ingress_retries", "Requests that were sent to another endpoint", Counter::default())
});
static EJECTIONS: LazyLock<Counter> = LazyLock::new(|| {
    Page::Node.register("knarr_ingress_ejections", "Endpoints left out for a while after failures in a row", Counter::default())
});
static ORDERS: LazyLock<Family<Outcome, Counter>> = LazyLock::new(|| {
    Page::Node.register("knarr_ingress_acme_orders", "Certificates that were asked for, by what came of it", Family::default())
});
static LISTENING: LazyLock<Family<Port, Gauge>> = LazyLock::new(|| {
    Page::Node.register(
        "knarr_ingress_listening",
        "Whether a port is listened on, at all addresses that it is served at",
        Family::default(),
    )
});

/// The figures of one Ingress.
#[derive(Debug)]
pub(crate) struct Counts {
    labels: [Labels; 5],
    counters: [Counter; 5],
}

impl Counts {
    pub(crate) fn of(ingress: &Key) -> Self {
        let (namespace, name): (Arc<str>, Arc<str>) = (ingress.ns().into(), ingress.name.as_str().into());
        let labels = CLASSES.map(|status| Labels { namespace: namespace.clone(), ingress: name.clone(), status });
        let counters = labels.each_ref().map(|labels| REQUESTS.get_or_create(labels).clone());
        Self { labels, counters }
    }

    pub(crate) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.counters[class].inc();
    }

    /// The Ingress is gone.
    pub(crate) fn forget(&self) {
        for labels in &self.labels {
            REQUESTS.remove(labels);
        }
    }
}

pub(crate) fn ordered(issued: bool) {
    let outcome = if issued { "issued" } else { "failed" };
    ORDERS.get_or_create(&Outcome { outcome }).inc();
}

pub(crate) fn unmatched() {
    UNKNOWN.inc();
}

pub(crate) fn took(seconds: f64) {
    SECONDS.observe(seconds);
}

pub(crate) fn retried() {
    RETRIES.inc();
}

pub(crate) fn ejected() {
    EJECTIONS.inc();
}

pub(crate) fn listening(port: u16, yes: bool) {
    LISTENING.get_or_create(&Port { port }).set(yes.into());
}
