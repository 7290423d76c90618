//! What probes found, under the names of upstream's prober.

use std::sync::LazyLock;
use std::time::Duration;

use base::metrics::Page;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::{DEFAULT_BUCKETS, Histograms, histograms};
use crate::probes::Target;

const RESULTS: [&str; 3] = ["successful", "failed", "unknown"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Found {
    probe_type: &'static str,
    result: &'static str,
    container: String,
    pod: String,
    namespace: String,
    pod_uid: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Took {
    probe_type: &'static str,
    container: String,
    pod: String,
    namespace: String,
}

static FOUND: LazyLock<Family<Found, Counter>> = LazyLock::new(|| {
    let help = "Cumulative number of a liveness, readiness or startup probe for a container by result";
    Page::Probes.register("prober_probe", help, Family::default())
});
static SECONDS: LazyLock<Histograms<Took>> = LazyLock::new(|| {
    let help = "Duration in seconds for a probe response";
    histograms(Page::Probes, "prober_probe_duration_seconds", help, || Histogram::new(DEFAULT_BUCKETS))
});

/// The figures of one probe of a container. They go on when the container is made again, and leave the page with the pod: otherwise the
/// failures that ended a container would be gone before anybody reads them.
pub(crate) struct Probed {
    found: [Found; 3],
    took: Took,
}

impl Probed {
    pub(crate) fn of(target: &Target) -> Self {
        let (model, probe_type) = (&target.model, target.kind.title());
        let [container, pod, namespace] = [target.member.spec.name.as_str(), model.name(), model.namespace()].map(str::to_owned);
        let took = Took { probe_type, container, pod, namespace };
        let found = RESULTS.map(|result| Found {
            probe_type,
            result,
            container: took.container.clone(),
            pod: took.pod.clone(),
            namespace: took.namespace.clone(),
            pod_uid: model.uid().to_owned(),
        });
        Self { found, took }
    }

    /// Whether the container was found healthy, if that was found out at all, and after how long.
    pub(crate) fn count(&self, healthy: Option<bool>, after: Duration) {
        let [successful, failed, unknown] = &self.found;
        let found = healthy.map_or(unknown, |healthy| if healthy { successful } else { failed });
        FOUND.get_or_create(found).inc();
        // As upstream: what was not found out has no duration.
        if healthy.is_some() {
            SECONDS.get_or_create(&self.took).observe(after.as_secs_f64());
        }
    }
}

impl Drop for Probed {
    fn drop(&mut self) {
        for found in &self.found {
            FOUND.remove(found);
        }
        SECONDS.remove(&self.took);
    }
}
