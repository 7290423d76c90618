//! What requests cost, under the names, labels and buckets of upstream's API server.
//!
//! | module | what it measures |
//! |---|---|
//! | this one | requests that were answered |
//! | [`admission`] | calls of admission webhooks |
//! | [`deprecated`] | deprecated APIs that were asked for |
//! | [`fairness`] | priority levels: limits, requests that wait and that are executed |
//! | [`load`] | requests under way, and those that last: watches and connections |
//! | [`identity`] | authentication and authorization |
//! | [`storage`] | what is stored |
//! | [`pods`] | what pods ask for (`/metrics/resources`) |

pub(crate) mod admission;
pub(crate) mod aggregation;
pub(crate) mod deprecated;
pub(crate) mod fairness;
pub(crate) mod identity;
pub(crate) mod load;
pub(crate) mod pods;
pub(crate) mod reload;
pub(crate) mod storage;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base::metrics::{Histograms, Page};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body::Body as _;
use kinds::KindDef;
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::body::Body;
use crate::dispatch::{Handler, Plan};
use crate::route::Route;

/// What a request was about. Only names of the kinds' list, so that clients cannot make series.
#[derive(Clone, Copy, Debug, Default, Eq, EncodeLabelSet)]
pub(crate) struct About {
    /// The method, but `LIST`, `WATCH`, `APPLY` and `CONNECT` where it is one of these.
    verb: &'static str,
    /// API group.
    group: &'static str,
    /// API version.
    version: &'static str,
    /// Resource, empty for paths.
    resource: &'static str,
    /// Subresource; the path of a health check.
    subresource: &'static str,
    /// `resource`, `namespace` or `cluster`: how much it looked at. Empty for paths.
    scope: &'static str,
    /// Always `apiserver` for resources.
    component: &'static str,
}

impl About {
    fn fields(&self) -> [&'static str; 7] {
        [self.resource, self.verb, self.group, self.version, self.subresource, self.scope, self.component]
    }
}

/// Names come from one list each: nearly always the same text is at the same place.
impl PartialEq for About {
    fn eq(&self, other: &Self) -> bool {
        self.fields().iter().zip(other.fields()).all(|(own, other)| std::ptr::eq(*own, other) || *own == other)
    }
}

/// The resource and the lengths of the rest tell nearly all apart, and hashing all texts takes as long as the rest of a look-up.
impl Hash for About {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let lengths = self.fields().map(str::len).into_iter().fold(0_u64, |all, length| (all << 8) ^ (length as u64));
        (self.resource, lengths).hash(state);
    }
}

/// The same with what only some families tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Asked {
    dry_run: &'static str,
    #[prometheus(flatten)]
    about: About,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    code: u16,
    #[prometheus(flatten)]
    asked: Asked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Terminated {
    code: u16,
    #[prometheus(flatten)]
    about: About,
}

/// Marks an answer that the server gives to defend itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SelfDefense;

impl Asked {
    /// Takes the labels from what the request leads to.
    pub(crate) fn of(plan: &Plan, route: &Route<'_>, def: Option<&KindDef>, parts: &Parts) -> Self {
        let query = parts.uri.query().unwrap_or_default();
        let dry_run = match () {
            () if !query.contains("dryRun") => "",
            () if query.split('&').all(|pair| !pair.starts_with("dryRun=") || pair == "dryRun=All") => "All",
            () => "invalid",
        };
        let mut about = About { verb: verb(plan, parts), component: "apiserver", ..About::default() };
        match (route, def) {
            (Route::Resource(target), Some(def)) => {
                (about.group, about.version, about.resource) = def.label();
                about.subresource = def.subresource(target.sub).map_or("", |sub| sub.name);
                about.scope = match (target.name.is_empty(), target.namespace.is_empty()) {
                    (false, _) => "resource",
                    (true, _) if about.verb == "POST" => "resource",
                    (true, false) => "namespace",
                    (true, true) => "cluster",
                };
            }
            (Route::Other, _) => about.subresource = crate::health::endpoint(parts.uri.path()).unwrap_or_default(),
            (Route::Resource(_), None) => {}
        }
        Self { dry_run, about }
    }

    /// Whether it lasts as long as the client wants.
    pub(crate) fn is_long_running(&self) -> bool {
        matches!(self.about.verb, "WATCH" | "CONNECT")
    }

    fn is_read_only(&self) -> bool {
        matches!(self.about.verb, "GET" | "LIST" | "WATCH")
    }
}

fn verb(plan: &Plan, parts: &Parts) -> &'static str {
    let apply = || parts.headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/apply-patch+"));
    match (plan.handler, plan.verbs[0]) {
        (Ok(Handler::Connect(_)), _) => "CONNECT",
        (_, "get" | "head") => "GET",
        (_, "list") => "LIST",
        (_, "watch") => "WATCH",
        (_, "create" | "post") => "POST",
        (_, "update" | "put") => "PUT",
        (_, "patch") if apply() => "APPLY",
        (_, "patch") => "PATCH",
        (_, "delete" | "deletecollection") => "DELETE",
        _ => "other",
    }
}

const SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

struct Metrics {
    requests: Family<Answered, Counter>,
    terminations: Family<Terminated, Counter>,
    seconds: Histograms<Asked>,
    sli_seconds: Histograms<About>,
    sizes: Histograms<About>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    Metrics {
    requests: Page::Server.register(
        "apiserver_request",
        "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code",
        Family::default(),
    ),
    terminations: Page::Server.register(
        "apiserver_request_terminations",
        "Number of requests which apiserver terminated in self-defense.",
        Family::default(),
    ),
    seconds: Page::Server.register(
        "apiserver_request_duration_seconds",
        "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component",
        Family::new_with_constructor(|| Histogram::new(SECONDS)),
    ),
    sli_seconds: Page::Server.register(
        "apiserver_request_sli_duration_seconds",
        "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component",
        Family::new_with_constructor(|| Histogram::new(SECONDS.into_iter().skip(2))),
    ),
    sizes: Page::Server.register(
        "apiserver_response_sizes",
        "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component",
        Family::new_with_constructor(|| Histogram::new(exponential_buckets(1000.0, 10.0, 7))),
    ),
}
});

/// The series of requests that are alike, found with one look-up.
struct Series {
    seconds: Histogram,
    sli_seconds: Option<Histogram>,
    sizes: Option<Histogram>,
    codes: RwLock<Vec<(u16, Counter)>>,
}

static SERIES: LazyLock<RwLock<HashMap<Asked, Arc<Series>>>> = LazyLock::new(RwLock::default);

impl Series {
    fn of(asked: &Asked) -> Arc<Self> {
        if let Some(series) = SERIES.read().get(asked) {
            return series.clone();
        }
        let about = &asked.about;
        let series = Self {
            seconds: METRICS.seconds.get_or_create(asked).clone(),
            sli_seconds: asked.dry_run.is_empty().then(|| METRICS.sli_seconds.get_or_create(about).clone()),
            // Of reads only, as upstream.
            sizes: matches!(about.verb, "GET" | "LIST").then(|| METRICS.sizes.get_or_create(about).clone()),
            codes: RwLock::default(),
        };
        SERIES.write().entry(*asked).or_insert_with(|| Arc::new(series)).clone()
    }

    fn count(&self, asked: &Asked, code: u16) {
        if let Some((_, counter)) = self.codes.read().iter().find(|(known, _)| *known == code) {
            counter.inc();
            return;
        }
        let counter = METRICS.requests.get_or_create(&Answered { code, asked: *asked }).clone();
        counter.inc();
        let mut codes = self.codes.write();
        if codes.iter().all(|(known, _)| *known != code) {
            codes.push((code, counter));
        }
    }
}

/// Counts an answer that was given in self-defense.
pub(crate) fn terminated(asked: &Asked, code: u16) {
    METRICS.terminations.get_or_create(&Terminated { code, about: asked.about }).inc();
}

/// Counts one answer; of one that lasts, when it is over.
pub(crate) fn answered(asked: &Asked, code: u16, body: Option<&Body>, took: Duration) {
    let series = Series::of(asked);
    series.count(asked, code);
    series.seconds.observe(took.as_secs_f64());
    if let Some(histogram) = &series.sli_seconds {
        histogram.observe(took.as_secs_f64());
    }
    if let (Some(histogram), Some(size)) = (&series.sizes, body.and_then(|body| body.size_hint().exact())) {
        histogram.observe(size as f64);
    }
}

#[cfg(test)]
mod tests;
