//! What each metric of an autoscaler asks for.

use apimachinery::quantity::{Format, Quantity as Amount};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, MetricIdentifier, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::replicas::{Scaled, Unknown};
use super::sources::{About, SourceError, Sources};
use crate::scale::Resources;

/// What a metric asks for.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// What is said of it when it decides.
    pub(super) name: String,
    pub(super) status: MetricStatus,
}

/// Why a metric asks for nothing: the reason for the condition, and the message.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Invalid {
    pub(super) reason: &'static str,
    /// For the condition, after "the HPA was unable to compute the replica count".
    pub(super) message: String,
    /// What is said before it where all metrics are spoken of.
    pub(super) about: String,
}

/// What metrics are computed with.
pub(super) struct Evaluation<'a> {
    pub(super) sources: &'a Sources,
    pub(super) resources: &'a Resources,
    pub(super) about: About<'a>,
    /// With the size that is set.
    pub(super) scaled: Scaled<'a>,
    /// The size that there is.
    pub(super) present: i32,
}

/// Why a value is not known.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error("unable to get metrics for resource {0}: {1}")]
    Resource(String, SourceError),
    #[error("unable to get metric {0}: {1}")]
    Metric(String, SourceError),
    #[error("unable to get metric {metric}: {error} on {object}")]
    Object { metric: String, object: String, error: Box<SourceError> },
    #[error("unable to get external metric {0}: {1}")]
    External(String, SourceError),
    /// What of a resource: its usage, or its utilization.
    #[error("failed to get {resource} {what}: {error}")]
    OfResource { resource: String, what: &'static str, error: Box<Failure> },
    #[error("invalid {0} metric source: neither {1} was set")]
    NoTarget(&'static str, &'static str),
}

type Result<T, E = Failure> = std::result::Result<T, E>;

impl Evaluation<'_> {
    /// What one metric asks for.
    pub(super) async fn propose(&self, spec: &MetricSpec) -> Result<Proposal, Invalid> {
        let (reason, what) = match spec.type_.as_str() {
            "Resource" => ("FailedGetResourceMetric", name_of_resource(spec)),
            "ContainerResource" => ("FailedGetContainerResourceMetric", format!("{} container", container_resource(spec))),
            "Pods" => ("FailedGetPodsMetric", "pods".to_owned()),
            "Object" => ("FailedGetObjectMetric", "object".to_owned()),
            "External" => ("FailedGetExternalMetric", "external".to_owned()),
            other => {
                let message = format!("unknown metric source type {other:?}");
                return Err(Invalid { reason: "InvalidMetricSourceType", about: String::new(), message });
            }
        };
        let result = match spec.type_.as_str() {
            "Pods" => self.pods(spec).await,
            "Object" => self.object(spec).await,
            "External" => self.external(spec).await,
            _ => self.resource(spec).await,
        };
        let about = format!("failed to get {what} metric value: {}", of_external(spec));
        result.map_err(|error| Invalid { reason, about, message: error.to_string() })
    }

    /// A resource of pods, or of one container of each.
    async fn resource(&self, spec: &MetricSpec) -> Result<Proposal> {
        let (name, target, container) = match (&spec.resource, &spec.container_resource) {
            (Some(source), _) => (&source.name, &source.target, None),
            (None, Some(source)) => (&source.name, &source.target, Some(source.container.as_str())),
            (None, None) => return Err(NO_RESOURCE_TARGET),
        };
        let kind = if container.is_some() { "container resource" } else { "resource" };
        let fetched = self.sources.resource(self.about, name, container);
        let fetched = async { fetched.await.map_err(|error| Failure::Resource(name.clone(), error)) };
        let failed = |what| move |error: Failure| Failure::OfResource { resource: name.clone(), what, error: Box::new(error) };
        let (replicas, said, current) = if let Some(average) = &target.average_value {
            let found = fetched.await.and_then(|pods| Ok(self.scaled.by_average(pods, milli(average), Some(name))?));
            let (replicas, average) = found.map_err(failed("usage"))?;
            (
                replicas,
                format!("{name} {kind}"),
                MetricValueStatus { average_value: of_resource(name, average), ..Default::default() },
            )
        } else {
            let percent = target.average_utilization.ok_or(NO_RESOURCE_TARGET)?;
            let found = fetched.await.and_then(|pods| Ok(self.scaled.by_utilization(pods, percent, name, container)?));
            let one = found.map_err(failed("utilization"))?;
            let current = MetricValueStatus {
                average_utilization: Some(one.utilization),
                average_value: of_resource(name, one.average),
                value: None,
            };
            (one.replicas, format!("{name} {kind} utilization (percentage of request)"), current)
        };
        let mut status = MetricStatus { type_: spec.type_.clone(), ..Default::default() };
        match container {
            None => status.resource = Some(ResourceMetricStatus { name: name.clone(), current }),
            Some(container) => {
                let (container, name) = (container.to_owned(), name.clone());
                status.container_resource = Some(ContainerResourceMetricStatus { container, name, current });
            }
        }
        Ok(Proposal { replicas, name: said, status })
    }

    async fn pods(&self, spec: &MetricSpec) -> Result<Proposal> {
        let missing = Failure::NoTarget("pods", "an average value target");
        let Some(source) = &spec.pods else { return Err(missing) };
        let Some(target) = &source.target.average_value else { return Err(missing) };
        let metrics = self.sources.of_pods(self.about, self.scaled.pods, &source.metric).await;
        let metrics = metrics.map_err(|error| Failure::Metric(source.metric.name.clone(), error))?;
        let (replicas, average) = self.scaled.by_average(metrics, milli(target), None)?;
        let current = MetricValueStatus { average_value: text(average), ..Default::default() };
        let status = MetricStatus {
            type_: spec.type_.clone(),
            pods: Some(PodsMetricStatus { metric: source.metric.clone(), current }),
            ..Default::default()
        };
        Ok(Proposal { replicas, name: format!("pods metric {}", source.metric.name), status })
    }

    async fn object(&self, spec: &MetricSpec) -> Result<Proposal> {
        let Some(source) = &spec.object else { return Err(NO_OBJECT_TARGET) };
        let (object, metric) = (&source.described_object, &source.metric);
        let usage = self.sources.of_object(self.about, self.resources, object, metric).await;
        let usage = usage.map_err(|error| Failure::Object {
            metric: metric.name.clone(),
            object: format!("{} {}/{}", object.kind, self.about.namespace, object.name),
            error: Box::new(error),
        })?;
        let (replicas, current) = self.of_whole(usage, &source.target)?.ok_or(NO_OBJECT_TARGET)?;
        let status = MetricStatus {
            type_: spec.type_.clone(),
            object: Some(ObjectMetricStatus { current, described_object: object.clone(), metric: metric.clone() }),
            ..Default::default()
        };
        Ok(Proposal { replicas, name: format!("{} metric {}", object.kind, metric.name), status })
    }

    async fn external(&self, spec: &MetricSpec) -> Result<Proposal> {
        let Some(source) = &spec.external else { return Err(NO_EXTERNAL_TARGET) };
        let usage = self.sources.external(self.about, &source.metric).await;
        let usage = usage.map_err(|error| Failure::External(said(&source.metric), error))?;
        let (replicas, current) = self.of_whole(usage, &source.target)?.ok_or(NO_EXTERNAL_TARGET)?;
        let status = MetricStatus {
            type_: spec.type_.clone(),
            external: Some(ExternalMetricStatus { current, metric: source.metric.clone() }),
            ..Default::default()
        };
        Ok(Proposal { replicas, name: format!("external metric {}", said(&source.metric)), status })
    }

    /// By a value of the whole, or by the share of each pod in it; none without a target.
    fn of_whole(&self, usage: i64, target: &MetricTarget) -> Result<Option<(i32, MetricValueStatus)>> {
        if let Some(average) = &target.average_value {
            let present = Scaled { replicas: self.present, ..self.scaled };
            let (replicas, share) = present.by_share(usage, milli(average));
            return Ok(Some((replicas, MetricValueStatus { average_value: text(share), ..Default::default() })));
        }
        let Some(value) = &target.value else { return Ok(None) };
        let replicas = self.scaled.by_value(usage, milli(value))?;
        Ok(Some((replicas, MetricValueStatus { value: text(usage), ..Default::default() })))
    }
}

const NO_RESOURCE_TARGET: Failure =
    Failure::NoTarget("resource", "an average utilization target nor an average value (usage) target");
const NO_OBJECT_TARGET: Failure = Failure::NoTarget("object", "a value target nor an average value target");
const NO_EXTERNAL_TARGET: Failure = Failure::NoTarget("external", "a value target nor an average value target");

fn name_of_resource(spec: &MetricSpec) -> String {
    spec.resource.as_ref().map(|source| format!("{} resource", source.name)).unwrap_or_default()
}

fn container_resource(spec: &MetricSpec) -> &str {
    spec.container_resource.as_ref().map_or("", |source| source.name.as_str())
}

/// What is said of an external metric where all metrics are spoken of; its own condition does without.
fn of_external(spec: &MetricSpec) -> String {
    let Some(source) = &spec.external else { return String::new() };
    let name = &source.metric.name;
    match (&source.target.average_value, &source.target.value) {
        (Some(_), _) => format!("failed to get {name} external metric: "),
        (None, Some(_)) => format!("failed to get external metric {name}: "),
        (None, None) => String::new(),
    }
}

/// A metric with the series of it that count.
fn said(metric: &MetricIdentifier) -> String {
    let selector = apimachinery::labels::Selector::from_label_selector(metric.selector.as_ref());
    match (&metric.selector, selector) {
        (Some(_), Ok(selector)) => format!("{}({selector})", metric.name),
        _ => metric.name.clone(),
    }
}

fn milli(quantity: &Quantity) -> i64 {
    ::pods::resources::parse(quantity).as_milli()
}

/// The amount of a resource: memory in whole Ki, as metrics and targets have it (kubernetes#132351), or in bytes where it is less than one.
fn of_resource(resource: &str, milli: i64) -> Option<Quantity> {
    const KI: i64 = 1024;
    let bytes = milli / 1000;
    match resource {
        "memory" if bytes >= KI => Some(Quantity(Amount::from_units(bytes / KI * KI, Format::BinarySi).to_string())),
        "memory" => Some(Quantity(Amount::from_units(bytes, Format::BinarySi).to_string())),
        _ => text(milli),
    }
}

fn text(milli: i64) -> Option<Quantity> {
    Some(Quantity(Amount::from_milli(milli, Format::DecimalSi).to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::super::replicas::Tolerances;
    use super::super::sources::Pages;
    use super::*;
    use crate::testing::{World, object};

    /// kubernetes#132351: "HPA status now displays memory metrics using Ki".
    #[test]
    fn memory_is_told_in_ki() {
        let check = |resource: &str, milli: i64, expected: &str| {
            assert_eq!(of_resource(resource, milli).unwrap().0, expected, "{resource} {milli}");
        };
        check("memory", 71_421_952_000, "69748Ki");
        check("memory", 171_502_796_800, "167483Ki");
        check("memory", 2 * 1024 * 1024 * 1000, "2Mi");
        check("memory", 1_001_500, "1001");
        check("cpu", 1_500, "1500m");
        check("cpu", 2_000, "2");
    }

    /// Upstream's events: FailedGetResourceMetric and its kin, and FailedComputeMetricsReplicas, which begins with more.
    #[tokio::test]
    async fn what_is_said_of_metrics_that_cannot_be_had() {
        let (world, resources) = (World::new(), Resources::default());
        let options = world.options();
        let sources = Sources::new(options.informers.of(), options.informers.of());
        let (client, tolerances) = ((options.clients)("autoscaler"), Tolerances { up: 0.1, down: 0.1 });
        let check = async |spec: Value, about: &str, message: &str| {
            let spec: MetricSpec = object(spec);
            let pages = Pages::of(std::slice::from_ref(&spec));
            let evaluation = Evaluation {
                sources: &sources,
                resources: &resources,
                about: About { client: &client, namespace: "ns", selector: "a=b", pages: &pages },
                scaled: Scaled { pods: &[], replicas: 1, tolerances, now: Timestamp::UNIX_EPOCH },
                present: 1,
            };
            let found = evaluation.propose(&spec).await.unwrap_err();
            assert_eq!(found.about, about);
            assert!(found.message.starts_with(message), "{}", found.message);
        };
        let (usage, utilization) =
            (json!({"type": "Value", "averageValue": "1"}), json!({"type": "Utilization", "averageUtilization": 50}));
        let resource = |target: &Value| json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        let about = "failed to get cpu resource metric value: ";
        check(resource(&usage), about, "failed to get cpu usage: unable to get metrics for resource cpu: ").await;
        check(resource(&utilization), about, "failed to get cpu utilization: unable to get metrics for resource cpu: ").await;
        check(resource(&json!({"type": "Value"})), about, "invalid resource metric source: neither an average utilization").await;
        let source = json!({"name": "memory", "container": "c", "target": utilization});
        let container = json!({"type": "ContainerResource", "containerResource": source});
        check(container, "failed to get memory container metric value: ", "failed to get memory utilization: ").await;
        let external = |target: Value| json!({"type": "External", "external": {"metric": {"name": "m"}, "target": target}});
        let about = "failed to get external metric value: failed to get m external metric: ";
        check(external(usage), about, "unable to get external metric m: ").await;
        let about = "failed to get external metric value: failed to get external metric m: ";
        check(external(json!({"type": "Value", "value": "1"})), about, "unable to get external metric m: ").await;
    }
}
