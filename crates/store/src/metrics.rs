//! The store's figures in the process-wide registry.

use std::sync::LazyLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

pub(crate) struct Metrics {
    pub(crate) commits: Counter,
    pub(crate) batch_size: Histogram,
    pub(crate) sync_seconds: Histogram,
    pub(crate) reopened: Counter,
    pub(crate) taken: Gauge,
    pub(crate) quota: Gauge,
    pub(crate) over_quota: Counter,
}

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    commits: base::metrics::Page::Server.register("knarr_store_commits", "Committed writes", Counter::default()),
    batch_size: base::metrics::Page::Server.register(
        "knarr_store_batch_size",
        "Writes that shared one disk synchronisation",
        Histogram::new(exponential_buckets(1.0, 2.0, 12)),
    ),
    sync_seconds: base::metrics::Page::Server.register(
        "knarr_store_sync_seconds",
        "Time to write one batch to disk and synchronise it",
        Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
    ),
    reopened: base::metrics::Page::Server.register(
        "knarr_store_reopened",
        "Times that the database was opened again after a failed write",
        Counter::default(),
    ),
    taken: base::metrics::Page::Server.register(
        "knarr_store_bytes",
        "Bytes of all current objects, without history",
        Gauge::default(),
    ),
    quota: base::metrics::Page::Server.register("knarr_store_quota_bytes", "What knarr_store_bytes may be", Gauge::default()),
    over_quota: base::metrics::Page::Server.register(
        "knarr_store_over_quota",
        "Writes that were refused because of the quota of the store",
        Counter::default(),
    ),
});
