//! Where metrics come from: the metrics API for resources; for other metrics the API of an adapter where one is installed, and
//! else the pods themselves.

mod pages;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use apimachinery::labels::{self, Selector};
use apimachinery::quantity::Quantity;
use client::kube;
use client::{Client, Informer};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, MetricIdentifier};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::prometheus::{self, METRICS, Measured, Scraper, series};
use super::replicas::{PodMetric, PodMetrics};
use crate::scale::{Resources, ScaleError};
use crate::{meta, pods};
pub(super) use pages::Pages;
use pages::{PAGES, Places};

const CUSTOM: &str = "custom.metrics.k8s.io";
const EXTERNAL: &str = "external.metrics.k8s.io";

/// Why a metric cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("unable to fetch metrics from {0} metrics API: {why}", why = client::why(.1))]
    Api(&'static str, kube::Error),
    #[error("no metrics returned from {0} metrics API")]
    Nothing(&'static str),
    #[error("container {container} not present in metrics for pod {namespace}/{pod}")]
    NoContainer { container: String, namespace: String, pod: String },
    #[error(transparent)]
    Object(#[from] ScaleError),
    #[error("{0}")]
    Selector(#[from] labels::SelectorError),
    #[error("at most {METRICS} metrics of an autoscaler are read from pods; no API of an adapter is registered")]
    Metrics,
    #[error("at most {PAGES} pages of pods are read for a metric, and there are more")]
    Pages,
    #[error("no {0} API is registered, and no pod or Service with the annotation prometheus.io/scrape has the metric{1}")]
    NowhereToBeFound(&'static str, String),
}

/// The sources of one cluster.
pub(super) struct Sources {
    pods: Informer<Pod>,
    services: Informer<Service>,
    scraper: Scraper,
}

/// `metrics.k8s.io` PodMetricsList, as far as it counts.
#[derive(Deserialize)]
struct PodUsages {
    items: Vec<PodUsage>,
}

#[derive(Deserialize)]
struct PodUsage {
    metadata: Name,
    timestamp: Timestamp,
    window: String,
    containers: Vec<ContainerUsage>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct ContainerUsage {
    name: String,
    usage: BTreeMap<String, String>,
}

/// MetricValueList and ExternalMetricValueList, as far as they count.
#[derive(Deserialize)]
struct Values {
    items: Vec<MetricValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    described_object: Option<Name>,
    timestamp: Timestamp,
    window_seconds: Option<i64>,
    value: String,
}

impl MetricValue {
    fn milli(&self) -> i64 {
        Quantity::parse(&self.value).unwrap_or_default().as_milli()
    }
}

/// Which of a namespace's objects and series a metric is about.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) client: &'a Client,
    pub(super) namespace: &'a str,
    /// Selects the pods that are scaled.
    pub(super) selector: &'a str,
    pub(super) pages: &'a Pages,
}

impl Sources {
    pub(super) fn new(pods: Informer<Pod>, services: Informer<Service>) -> Self {
        Self { pods, services, scraper: Scraper::default() }
    }

    /// What the pods, or one container of each, use of a resource.
    pub(super) async fn resource(
        &self,
        about: About<'_>,
        resource: &str,
        container: Option<&str>,
    ) -> Result<PodMetrics, SourceError> {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", about.namespace);
        let usages: PodUsages = get(about.client, &path, &[("labelSelector", about.selector)])
            .await
            .map_err(|error| SourceError::Api("resource", error))?;
        if usages.items.is_empty() {
            return Err(SourceError::Nothing("resource"));
        }
        usages.items.into_iter().filter_map(|pod| of_pod(pod, about.namespace, resource, container).transpose()).collect()
    }

    /// A metric of each pod.
    pub(super) async fn of_pods(
        &self,
        about: About<'_>,
        pods: &[Arc<Pod>],
        metric: &MetricIdentifier,
    ) -> Result<PodMetrics, SourceError> {
        let selector = series(metric)?;
        if let Some(version) = served(about.client, CUSTOM).await {
            let path = format!("/apis/{version}/namespaces/{}/pods/*/{}", about.namespace, metric.name);
            let query = [("labelSelector", about.selector), ("metricLabelSelector", &selector.to_string())];
            let values: Values = get(about.client, &path, &query).await.map_err(|error| SourceError::Api("custom", error))?;
            return if values.items.is_empty() { Err(SourceError::Nothing("custom")) } else { Ok(by_pod(values)) };
        }
        let places = pods.iter().filter(|pod| pods::phase(pod) == "Running");
        let places = places.filter_map(|pod| Some((meta::name(pod.as_ref()).to_owned(), prometheus::of_pod(pod)?))).collect();
        let (measured, why) = self.scrape(&places, about.pages, (&metric.name, &selector)).await?;
        let now = Timestamp::now();
        let metrics: PodMetrics = measured
            .into_iter()
            .map(|(pod, one)| (pod, PodMetric { value: milli(one.value), at: now, window: one.window }))
            .collect();
        if metrics.is_empty() { Err(SourceError::NowhereToBeFound(CUSTOM, why)) } else { Ok(metrics) }
    }

    /// A metric of one object, in thousandths.
    pub(super) async fn of_object(
        &self,
        about: About<'_>,
        resources: &Resources,
        object: &CrossVersionObjectReference,
        metric: &MetricIdentifier,
    ) -> Result<i64, SourceError> {
        let (selector, namespace) = (series(metric)?, about.namespace);
        if let Some(version) = served(about.client, CUSTOM).await {
            let path = if object.kind == "Namespace" {
                format!("/apis/{version}/namespaces/{namespace}/metrics/{}", metric.name)
            } else {
                let resource = resources.resource(about.client, object).await?;
                let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
                format!("/apis/{version}/namespaces/{namespace}/{}{group}/{}/{}", resource.plural, object.name, metric.name)
            };
            let query = [("metricLabelSelector", selector.to_string())];
            let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let values: Values = get(about.client, &path, &query).await.map_err(|error| SourceError::Api("custom", error))?;
            return values.items.first().map(MetricValue::milli).ok_or(SourceError::Nothing("custom"));
        }
        let places: Places = match object.kind.as_str() {
            "Pod" => {
                let pod = self.pods.get(Some(namespace), &object.name);
                pod.and_then(|pod| Some((object.name.clone(), prometheus::of_pod(&pod)?))).into_iter().collect()
            }
            "Service" => {
                let service = self.services.get(Some(namespace), &object.name);
                service.map(|service| self.behind(&service)).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        self.sum(&places, about.pages, (&metric.name, &selector), CUSTOM).await
    }

    /// A metric from elsewhere, in thousandths: the sum of its series.
    pub(super) async fn external(&self, about: About<'_>, metric: &MetricIdentifier) -> Result<i64, SourceError> {
        let selector = series(metric)?;
        if let Some(version) = served(about.client, EXTERNAL).await {
            let path = format!("/apis/{version}/namespaces/{}/{}", about.namespace, metric.name);
            let query = [("labelSelector", selector.to_string())];
            let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let values: Values = get(about.client, &path, &query).await.map_err(|error| SourceError::Api("external", error))?;
            if values.items.is_empty() {
                return Err(SourceError::Nothing("external"));
            }
            return Ok(values.items.iter().map(MetricValue::milli).sum());
        }
        let places = about.pages.everywhere.get_or_init(|| Arc::new(self.everywhere(about.namespace)));
        self.sum(places, about.pages, (&metric.name, &selector), EXTERNAL).await
    }

    /// Where the ready pods behind all Services of a namespace serve metrics, each page once; no more than one too many.
    fn everywhere(&self, namespace: &str) -> Places {
        let services = self.services.in_namespace(namespace);
        let mut seen = HashSet::new();
        let all = services.iter().flat_map(|service| self.behind(service)).filter(|(_, place)| seen.insert(place.clone()));
        all.take(PAGES + 1).collect()
    }

    /// Where the ready pods behind a Service serve metrics.
    fn behind(&self, service: &Service) -> Places {
        let set = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|set| !set.is_empty());
        let Some(set) = set.filter(|_| meta::annotation(service, "prometheus.io/scrape").is_some()) else { return Vec::new() };
        let selector = Selector::from_set(set.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let pods = self.pods.labelled(meta::namespace(service), |labels| selector.matches(&meta::Labels(labels)));
        let ready = pods.iter().filter(|pod| pods::is_active(pod) && pods::is_ready(pod));
        ready.filter_map(|pod| Some((meta::name(pod.as_ref()).to_owned(), prometheus::behind(service, pod)?))).collect()
    }

    async fn sum(
        &self,
        places: &Places,
        pages: &Pages,
        wanted: (&str, &Selector),
        api: &'static str,
    ) -> Result<i64, SourceError> {
        let (measured, why) = self.scrape(places, pages, wanted).await?;
        if measured.is_empty() {
            return Err(SourceError::NowhereToBeFound(api, why));
        }
        Ok(milli(measured.iter().map(|(_, one)| one.value).sum()))
    }

    /// The metric at each place that has it, and why the first place that failed did.
    async fn scrape(
        &self,
        places: &Places,
        pages: &Pages,
        (metric, selector): (&str, &Selector),
    ) -> Result<(Vec<(String, Measured)>, String), SourceError> {
        let number = pages.wanted.number(metric, &selector.to_string()).ok_or(SourceError::Metrics)?;
        if places.len() > PAGES {
            return Err(SourceError::Pages);
        }
        pages.read(&self.scraper, places).await;
        let (mut measured, mut why) = (Vec::new(), String::new());
        for (name, place) in places {
            match pages.at(place) {
                Some(Ok(all)) => measured.extend(all[number].map(|one| (name.clone(), one))),
                Some(Err(error)) if why.is_empty() => why = format!(": {error}"),
                Some(Err(_)) | None => {}
            }
        }
        Ok((measured, why))
    }
}

fn milli(value: f64) -> i64 {
    (value * 1000.0).round() as i64
}

/// A pod that has not all of what is asked for is left out, as missing.
fn of_pod(
    pod: PodUsage,
    namespace: &str,
    resource: &str,
    container: Option<&str>,
) -> Result<Option<(String, PodMetric)>, SourceError> {
    let amount = |one: &ContainerUsage| Some(Quantity::parse(one.usage.get(resource)?).ok()?.as_milli());
    let value = match container {
        None => pod.containers.iter().map(amount).sum::<Option<i64>>(),
        Some(name) => {
            let missing = || SourceError::NoContainer {
                container: name.to_owned(),
                namespace: namespace.to_owned(),
                pod: pod.metadata.name.clone(),
            };
            amount(pod.containers.iter().find(|one| one.name == name).ok_or_else(missing)?)
        }
    };
    let window = apimachinery::time::parse_duration(&pod.window).unwrap_or_default();
    Ok(value.map(|value| (pod.metadata.name, PodMetric { value, at: pod.timestamp, window })))
}

fn by_pod(values: Values) -> PodMetrics {
    let of_pod = |value: MetricValue| {
        let window = SignedDuration::from_secs(value.window_seconds.unwrap_or(60));
        let metric = PodMetric { value: value.milli(), at: value.timestamp, window };
        Some((value.described_object?.name, metric))
    };
    values.items.into_iter().filter_map(of_pod).collect()
}

/// The group version of an API that an adapter serves; none when there is none.
async fn served(client: &Client, group: &str) -> Option<String> {
    let group: APIGroup = get(client, &format!("/apis/{group}"), &[]).await.ok()?;
    let preferred = group.preferred_version.or_else(|| group.versions.into_iter().next());
    preferred.map(|version| version.group_version)
}

async fn get<T: DeserializeOwned>(client: &Client, path: &str, query: &[(&str, &str)]) -> kube::Result<T> {
    let pairs: Vec<String> =
        query.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name}={}", escape(value))).collect();
    let uri = if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) };
    let request = http::Request::get(uri).body(Vec::new()).map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// Escapes what may not stand in a query.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests;
