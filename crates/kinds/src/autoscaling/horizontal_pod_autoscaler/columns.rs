//! Columns of an autoscaler: what it looks at, now and wanted.

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::columns::Column;
use crate::rules::list;

/// Metrics that are shown; of further ones only the number is.
const SHOWN: usize = 2;
const UNKNOWN: &str = "<unknown>";

pub(super) const COLUMNS: &[Column<HorizontalPodAutoscaler>] = &[
    Column::new(
        "Reference",
        "scaleTargetRef points to the target resource to scale, and is used to the pods for which metrics should be collected, as well as to actually change the replica count.",
        |scaler, _| {
            let target = &scaler.spec.scale_target_ref;
            format!("{}/{}", target.kind, target.name).into()
        },
    ),
    Column::new(
        "Targets",
        "metrics contains the specifications for which to use to calculate the desired replica count (the maximum replica count across all metrics will be used).  The desired replica count is calculated multiplying the ratio between the target value and the current value by the current number of pods.  Ergo, metrics used must decrease as the pod count is increased, and vice-versa.  See the individual metric source types for more information about how each type of metric must respond. If not set, the default metric will be set to 80% average CPU utilization.",
        |scaler, _| {
            let specs = list(&scaler.spec.metrics);
            let statuses = scaler.status.as_ref().map(|status| list(&status.current_metrics)).unwrap_or_default();
            metrics(specs, statuses).into()
        },
    ),
    Column::new(
        "MinPods",
        "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.  It defaults to 1 pod.  minReplicas is allowed to be 0 if the alpha feature gate HPAScaleToZero is enabled and at least one Object or External metric is configured.  Scaling is active as long as at least one metric value is available.",
        |scaler, _| {
            let min = scaler.spec.min_replicas;
            min.map_or_else(|| "<unset>".to_owned(), |min| min.to_string()).into()
        },
    ),
    Column::new(
        "MaxPods",
        "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up. It cannot be less that minReplicas.",
        |scaler, _| scaler.spec.max_replicas.into(),
    ),
    Column::new(
        "Replicas",
        "currentReplicas is current number of replicas of pods managed by this autoscaler, as last seen by the autoscaler.",
        |scaler, _| scaler.status.as_ref().and_then(|status| status.current_replicas).unwrap_or(0).into(),
    ),
];

pub(super) fn metrics(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let shown = specs.iter().enumerate().take(SHOWN).map(|(index, spec)| metric(spec, statuses.get(index)));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match specs.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn metric(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    let source = (&spec.external, &spec.object, &spec.pods, &spec.resource, &spec.container_resource);
    match (spec.type_.as_str(), source) {
        ("External", (Some(external), ..)) => {
            value(&external.target, status.and_then(|status| status.external.as_ref()).map(|status| &status.current))
        }
        ("Object", (_, Some(object), ..)) => {
            value(&object.target, status.and_then(|status| status.object.as_ref()).map(|status| &status.current))
        }
        ("Pods", (_, _, Some(pods), ..)) => {
            let now = status.and_then(|status| status.pods.as_ref()).and_then(|status| status.current.average_value.as_ref());
            format!("{}/{}", text(now), text(pods.target.average_value.as_ref()))
        }
        ("Resource", (_, _, _, Some(resource), _)) => {
            let now = status.and_then(|status| status.resource.as_ref()).map(|status| &status.current);
            format!("{}: {}", resource.name, part(&resource.target, now))
        }
        ("ContainerResource", (.., Some(resource))) => {
            let now = status.and_then(|status| status.container_resource.as_ref()).map(|status| &status.current);
            format!("{}: {}", resource.name, part(&resource.target, now))
        }
        _ => "<unknown type>".to_owned(),
    }
}

fn text(quantity: Option<&Quantity>) -> &str {
    quantity.map_or(UNKNOWN, |quantity| &quantity.0)
}

/// An amount for each pod, or one in all.
fn value(target: &MetricTarget, now: Option<&MetricValueStatus>) -> String {
    match &target.average_value {
        Some(average) => format!("{}/{} (avg)", text(now.and_then(|now| now.average_value.as_ref())), average.0),
        None => format!("{}/{}", text(now.and_then(|now| now.value.as_ref())), text(target.value.as_ref())),
    }
}

/// An amount for each pod, or a part of what the pods request.
fn part(target: &MetricTarget, now: Option<&MetricValueStatus>) -> String {
    if let Some(average) = &target.average_value {
        return format!("{}/{}", text(now.and_then(|now| now.average_value.as_ref())), average.0);
    }
    let percent = |part: Option<i32>, none: &str| part.map_or_else(|| none.to_owned(), |part| format!("{part}%"));
    let now = percent(now.and_then(|now| now.average_utilization), UNKNOWN);
    format!("{now}/{}", percent(target.average_utilization, "<auto>"))
}
