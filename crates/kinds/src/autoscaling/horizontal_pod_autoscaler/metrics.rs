//! What an autoscaler looks at.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use apimachinery::quantity::Quantity;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget};

use super::{Version, validate_reference};
use crate::rules::resources::{amount, container_resource_name};
use crate::rules::{self, list, text};

const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

pub(super) fn validate(
    spec: &HorizontalPodAutoscalerSpec,
    old: Option<&HorizontalPodAutoscalerSpec>,
    path: &Path,
    errors: &mut Errors,
) {
    let metrics = list(&spec.metrics);
    let version = if old.is_some_and(is_unreadable) { Version::Any } else { Version::Readable };
    for (index, metric) in metrics.iter().enumerate() {
        validate_metric(metric, version, &path.index(index), errors);
    }
    let outside = metrics.iter().any(|metric| ["Object", "External"].contains(&metric.type_.as_str()));
    if spec.min_replicas == Some(0) && !outside {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(Error::forbidden(path, detail));
    }
}

/// Whether the version of an object that a metric is about is none.
fn is_unreadable(spec: &HorizontalPodAutoscalerSpec) -> bool {
    let objects =
        list(&spec.metrics).iter().filter(|metric| metric.type_ == "Object").filter_map(|metric| metric.object.as_ref());
    objects.map(|object| text(&object.described_object.api_version)).any(|given| Version::Readable.problem(given).is_some())
}

/// The source that the type names, and no other. Of several sources only the first is looked into.
fn validate_metric(metric: &MetricSpec, version: Version, path: &Path, errors: &mut Errors) {
    let at = path.child("type");
    if metric.type_.is_empty() {
        errors.push(Error::required(&at, "must specify a metric source type"));
    }
    rules::supported(&at, Some(&metric.type_), TYPES, errors);
    validate_first(metric, version, path, errors);
    let sources = [
        ("Object", "object", metric.object.is_some()),
        ("External", "external", metric.external.is_some()),
        ("Pods", "pods", metric.pods.is_some()),
        ("Resource", "resource", metric.resource.is_some()),
        ("ContainerResource", "containerResource", metric.container_resource.is_some()),
    ];
    match sources.iter().find(|(name, _, _)| *name == metric.type_) {
        Some((_, field, false)) => {
            errors.push(Error::required(&path.child(field), "must populate information for the given metric source"));
        }
        Some(_) => {}
        None => errors.push(Error::not_supported(&at, metric.type_.as_str(), TYPES)),
    }
    let present = sources.iter().filter(|(_, _, present)| *present);
    if present.clone().count() > 1 || metric.type_.is_empty() {
        for (_, field, _) in present.filter(|(name, _, _)| *name != metric.type_) {
            errors.push(Error::forbidden(&path.child(field), "must populate the given metric source only"));
        }
    }
}

fn validate_first(metric: &MetricSpec, version: Version, path: &Path, errors: &mut Errors) {
    let one_amount = |target: &MetricTarget| target.value.is_some() || target.average_value.is_some();
    if let Some(object) = &metric.object {
        let path = path.child("object");
        validate_reference(&object.described_object, version, &path.child("describedObject"), errors);
        validate_named(&object.metric, &object.target, &path, errors);
        let missing = !one_amount(&object.target);
        required(missing, &path, "averageValue", "must set either a target value or averageValue", errors);
    } else if let Some(external) = &metric.external {
        let (path, target) = (path.child("external"), &external.target);
        validate_named(&external.metric, target, &path, errors);
        let detail = "must set either a target value for metric or a per-pod target";
        required(!one_amount(target), &path, "averageValue", detail, errors);
        if target.value.is_some() && target.average_value.is_some() {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.push(Error::forbidden(&path.child("target").child("value"), detail));
        }
    } else if let Some(pods) = &metric.pods {
        let path = path.child("pods");
        validate_named(&pods.metric, &pods.target, &path, errors);
        let missing = pods.target.average_value.is_none();
        required(missing, &path, "averageValue", "must specify a positive target averageValue", errors);
    } else if let Some(resource) = &metric.resource {
        let path = path.child("resource");
        if resource.name.is_empty() {
            errors.push(Error::required(&path.child("name"), "must specify a resource name"));
        }
        validate_resource(&resource.target, &path, errors);
    } else if let Some(resource) = &metric.container_resource {
        let path = path.child("containerResource");
        if resource.name.is_empty() {
            errors.push(Error::required(&path.child("name"), "must specify a resource name"));
        } else {
            container_resource_name(&path.child("name"), &resource.name, errors);
        }
        if resource.container.is_empty() {
            errors.push(Error::required(&path.child("container"), "must specify a container"));
        } else {
            rules::dns_label(&path.child("container"), &resource.container, errors);
        }
        validate_resource(&resource.target, &path, errors);
    }
}

fn required(missing: bool, path: &Path, field: &str, detail: &str, errors: &mut Errors) {
    if missing {
        errors.push(Error::required(&path.child("target").child(field), detail));
    }
}

fn validate_named(metric: &MetricIdentifier, target: &MetricTarget, path: &Path, errors: &mut Errors) {
    let at = path.child("metric").child("name");
    if metric.name.is_empty() {
        errors.push(Error::required(&at, "must specify a metric name"));
    }
    errors.invalid_each(&at, &metric.name, names::path_segment_name(&metric.name));
    validate_target(target, &path.child("target"), errors);
}

/// Amount or part of what is requested.
fn validate_resource(target: &MetricTarget, path: &Path, errors: &mut Errors) {
    validate_target(target, &path.child("target"), errors);
    let (part, value) = (target.average_utilization.is_some(), target.average_value.is_some());
    let detail = "must set either a target raw value or a target utilization";
    required(!part && !value, path, "averageUtilization", detail, errors);
    if part && value {
        let detail = "may not set both a target raw value and a target utilization";
        errors.push(Error::forbidden(&path.child("target").child("averageValue"), detail));
    }
}

fn validate_target(target: &MetricTarget, path: &Path, errors: &mut Errors) {
    let (at, kind) = (path.child("type"), target.type_.as_str());
    if kind.is_empty() {
        errors.push(Error::required(&at, "must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        errors.push(Error::invalid(&at, kind, "must be either Utilization, Value, or AverageValue"));
    }
    for (field, quantity) in [("value", &target.value), ("averageValue", &target.average_value)] {
        if let Some(quantity) = quantity.as_ref().filter(|quantity| amount(quantity) <= Quantity::ZERO) {
            errors.push(Error::invalid(&path.child(field), quantity.0.as_str(), "must be positive"));
        }
    }
    if let Some(part) = target.average_utilization.filter(|part| *part < 1) {
        errors.push(Error::invalid(&path.child("averageUtilization"), part, "must be greater than 0"));
    }
}
