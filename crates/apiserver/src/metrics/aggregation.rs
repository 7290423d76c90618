//! Which APIServices are unavailable, under upstream's names.

use std::sync::LazyLock;

use base::metrics::Page;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lost {
    name: String,
    reason: &'static str,
}

struct Metrics {
    unavailable: Family<Named, Gauge>,
    lost: Family<Lost, Counter>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    unavailable: Page::Server.register(
        "aggregator_unavailable_apiservice",
        "Gauge of APIServices which are marked as unavailable broken down by APIService name",
        Family::default(),
    ),
    lost: Page::Server.register(
        "aggregator_unavailable_apiservice",
        "Counter of APIServices which are marked as unavailable broken down by APIService name and reason",
        Family::default(),
    ),
});

/// An APIService was found like this.
pub(crate) fn found(name: &str, available: bool) {
    METRICS.unavailable.get_or_create(&Named { name: name.to_owned() }).set(i64::from(!available));
}

/// An APIService is said to be unavailable from now on, or for another reason than before.
pub(crate) fn lost(name: &str, reason: &'static str) {
    METRICS.lost.get_or_create(&Lost { name: name.to_owned(), reason }).inc();
}

/// An APIService is no more.
pub(crate) fn gone(name: &str) {
    METRICS.unavailable.remove(&Named { name: name.to_owned() });
}
