//! Request counts and latencies, named as upstream's.

use std::sync::LazyLock;
use std::time::Duration;

use kinds::KindDef;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::dispatch::{Handler, Plan};
use crate::route::Route;

/// What a request was about. Only names of the kinds' list, so that clients cannot make series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct About {
    /// API verb.
    pub verb: &'static str,
    /// API group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Resource, empty for paths.
    pub resource: &'static str,
    /// Subresource.
    pub subresource: &'static str,
}

impl About {
    /// Takes the labels from what the request leads to.
    pub(crate) fn fill(&mut self, plan: &Plan, route: &Route<'_>, def: Option<&'static KindDef>) {
        self.verb = match plan.handler {
            Ok(Handler::Connect(_)) => "connect",
            _ => plan.verbs[0],
        };
        let (Route::Resource(target), Some(def)) = (route, def) else { return };
        (self.group, self.version, self.resource) = (def.group, def.version, def.plural);
        self.subresource = def.subresource(target.sub).map_or("", |sub| sub.name);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    code: u16,
}

const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

static REQUESTS: LazyLock<Family<Answered, Counter>> = LazyLock::new(|| {
    base::metrics::register("apiserver_request", "Requests by verb, resource and code of the answer", Family::default())
});

type Durations = Family<About, Histogram, fn() -> Histogram>;

static DURATIONS: LazyLock<Durations> = LazyLock::new(|| {
    let family = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
    base::metrics::register("apiserver_request_duration_seconds", "Latency of requests, watches and connections left out", family)
});

/// Counts one answer.
pub(crate) fn answered(about: &About, code: u16, took: Duration) {
    let About { verb, group, version, resource, subresource } = *about;
    REQUESTS.get_or_create(&Answered { verb, group, version, resource, subresource, code }).inc();
    if !matches!(verb, "watch" | "connect") {
        DURATIONS.get_or_create(about).observe(took.as_secs_f64());
    }
}
