//! What kinds that keep a number of pods have in common: template, selector, counts.

use std::collections::BTreeMap;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::{Selector, validate_label_selector};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::{Value, json};

use crate::columns::Column;
use crate::core::pod;
use crate::rules::{self, list, text};
use crate::util::{integer, or_none};

/// A kind that keeps a number of pods of one template.
pub(crate) trait Workload {
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn selector(&self) -> Option<LabelSelector>;
    /// Wanted pods, and the seconds for which one must be ready to count as available.
    fn counts(&self) -> (Option<i32>, Option<i32>);
    /// Pods that exist, and those of them that are ready.
    fn observed(&self) -> (i32, i32);
}

/// Fills in the functions of [`Workload`] from the fields that all these kinds have; `$template` and `$selector` say how each keeps them.
macro_rules! workload {
    ($kind:ty, $replicas:expr, |$spec:ident| $template:expr, $selector:expr) => {
        impl Workload for $kind {
            fn template(&self) -> Option<&PodTemplateSpec> {
                self.spec.as_ref().and_then(|$spec| $template)
            }
            fn selector(&self) -> Option<LabelSelector> {
                self.spec.as_ref().and_then(|$spec| $selector)
            }
            fn counts(&self) -> (Option<i32>, Option<i32>) {
                self.spec.as_ref().map_or((None, None), |spec| (spec.replicas, spec.min_ready_seconds))
            }
            fn observed(&self) -> (i32, i32) {
                self.status.as_ref().map_or((0, 0), |status| ($replicas(status), status.ready_replicas.unwrap_or(0)))
            }
        }
    };
}

workload!(
    Deployment,
    |status: &k8s_openapi::api::apps::v1::DeploymentStatus| status.replicas.unwrap_or(0),
    |spec| Some(&spec.template),
    Some(spec.selector.clone())
);
workload!(
    ReplicaSet,
    |status: &k8s_openapi::api::apps::v1::ReplicaSetStatus| status.replicas,
    |spec| spec.template.as_ref(),
    Some(spec.selector.clone())
);
workload!(
    ReplicationController,
    |status: &k8s_openapi::api::core::v1::ReplicationControllerStatus| status.replicas,
    |spec| spec.template.as_ref(),
    Some(LabelSelector { match_labels: spec.selector.clone(), ..LabelSelector::default() })
);

/// Counts, selector and template. ReplicationControllers (`by_map`) say some of it in words of their own.
pub(crate) fn validate<K: Workload>(workload: &K, kind: &str, by_map: bool, errors: &mut Errors) {
    let path = Path::new("spec");
    let (replicas, min_ready) = workload.counts();
    let selector = workload.selector().unwrap_or_default();
    if !by_map {
        rules::non_negative(&path.child("replicas"), replicas.unwrap_or(0).into(), errors);
    }
    rules::non_negative(&path.child("minReadySeconds"), min_ready.unwrap_or(0).into(), errors);
    validate_selector(&selector, by_map, &path.child("selector"), errors);
    if by_map {
        rules::non_negative(&path.child("replicas"), replicas.unwrap_or(0).into(), errors);
    }
    let path = path.child("template");
    match workload.template() {
        Some(template) => validate_template(template, &selector, kind, &path, errors),
        None => errors.push(Error::required(&path, "")),
    }
}

fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty) && list(&selector.match_expressions).is_empty()
}

fn validate_selector(selector: &LabelSelector, by_map: bool, path: &Path, errors: &mut Errors) {
    if by_map {
        if is_empty(selector) {
            errors.push(Error::required(path, ""));
        }
        return;
    }
    if *selector == LabelSelector::default() {
        return errors.push(Error::required(path, ""));
    }
    validate_label_selector(selector, path, errors);
    if is_empty(selector) {
        errors.push(Error::invalid(path, json!(selector), "empty selector is invalid for deployment"));
    }
}

/// Pods of the template are selected, and run forever.
fn validate_template(template: &PodTemplateSpec, selector: &LabelSelector, kind: &str, path: &Path, errors: &mut Errors) {
    let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    match Selector::from_label_selector(Some(selector)) {
        Ok(parsed) if !is_empty(selector) && !parsed.matches(&labels) => {
            let path = path.child("metadata.labels");
            errors.push(Error::invalid(&path, json!(labels), "`selector` does not match template `labels`"));
        }
        Ok(_) => {}
        Err(_) => errors.push(Error::invalid(&Path::new("spec.selector"), json!(selector), "invalid label selector")),
    }
    pod::validate_template(template, path, errors);
    let spec = template.spec.as_ref();
    let policy = spec.map(|spec| text(&spec.restart_policy)).unwrap_or_default();
    rules::supported(&path.child("spec.restartPolicy"), Some(policy), &["Always"], errors);
    if spec.is_some_and(|spec| spec.active_deadline_seconds.is_some()) {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(Error::forbidden(&path.child("spec.activeDeadlineSeconds"), detail));
    }
}

/// A name that its pods have in theirs, and that is no DNS label.
pub(crate) fn name_warning(metadata: &ObjectMeta) -> Option<String> {
    pod::of_name(metadata.name.as_deref(), "Pod names and hostnames")
}

/// What its author should know.
pub(crate) fn warnings<K: Workload>(workload: &K, metadata: &ObjectMeta) -> Vec<String> {
    name_warning(metadata).into_iter().chain(template_warnings(workload)).collect()
}

fn template_warnings<K: Workload>(workload: &K) -> Vec<String> {
    workload.template().map(|template| pod::of_template(template, &Path::new("spec.template"))).unwrap_or_default()
}

/// The same of a change, where there was one.
pub(crate) fn warnings_on_update<K: Workload>(new: &K, old: &K) -> Vec<String> {
    if new.template() == old.template() { Vec::new() } else { template_warnings(new) }
}

/// Counts in a status: none negative, and parts no greater than the whole.
pub(crate) fn validate_counts(counts: &[(&str, i64)], parts: &[(&str, &str)], errors: &mut Errors) {
    let path = Path::new("status");
    let count = |name: &str| counts.iter().find(|(other, _)| *other == name).map_or(0, |(_, count)| *count);
    for (field, count) in counts {
        rules::non_negative(&path.child(field), *count, errors);
    }
    for (part, whole) in parts.iter().filter(|(part, whole)| count(part) > count(whole)) {
        let whole = if *whole == "replicas" { "status.replicas" } else { whole };
        errors.push(Error::invalid(&path.child(part), count(part), format!("cannot be greater than {whole}")));
    }
}

/// The selector never changes.
pub(crate) fn immutable_selector<K: Workload>(new: &K, old: &K, errors: &mut Errors) {
    if new.selector() != old.selector() {
        errors.push(Error::invalid(&Path::new("spec").child("selector"), json!(new.selector()), "field is immutable"));
    }
}

/// The selectable field `status.replicas`.
pub(crate) fn replicas_field(object: &Value) -> String {
    integer(object, "/status/replicas").unwrap_or(0).to_string()
}

pub(crate) const fn containers<K: Workload>() -> Column<K> {
    Column::wide("Containers", "Names of each container in the template.", |workload, _| {
        each(workload, |container| container.name.clone())
    })
}

pub(crate) const fn images<K: Workload>() -> Column<K> {
    Column::wide("Images", "Images referenced by each container in the template.", |workload, _| {
        each(workload, |container| container.image.clone().unwrap_or_default())
    })
}

pub(crate) const fn selector<K: Workload>() -> Column<K> {
    Column::wide("Selector", "Label selector for pods.", |workload, _| or_none(format_selector(workload.selector().as_ref())))
}

/// A selector as one line, empty when it selects nothing in particular.
pub(crate) fn format_selector(selector: Option<&LabelSelector>) -> String {
    let parsed = selector.and_then(|selector| Selector::from_label_selector(Some(selector)).ok());
    parsed.map(|parsed| parsed.to_string()).unwrap_or_default()
}

pub(crate) const fn desired<K: Workload>() -> Column<K> {
    Column::integer("Desired", "Number of desired pods.", |workload, _| workload.counts().0.unwrap_or(0).into())
}

pub(crate) const fn current<K: Workload>() -> Column<K> {
    Column::integer("Current", "Number of pods observed.", |workload, _| workload.observed().0.into())
}

pub(crate) const fn ready<K: Workload>() -> Column<K> {
    Column::integer("Ready", "Number of ready pods.", |workload, _| workload.observed().1.into())
}

/// The columns of what keeps a number of pods.
pub(crate) const fn replica_columns<K: Workload>() -> [Column<K>; 6] {
    [desired(), current(), ready(), containers(), images(), selector()]
}

fn each<K: Workload>(workload: &K, pick: fn(&Container) -> String) -> Value {
    each_container(workload.template(), pick)
}

/// What `pick` says of each container of a template, joined by commas.
pub(crate) fn each_container(template: Option<&PodTemplateSpec>, pick: fn(&Container) -> String) -> Value {
    let spec = template.and_then(|template| template.spec.as_ref());
    spec.iter().flat_map(|spec| spec.containers.iter().map(pick)).collect::<Vec<_>>().join(",").into()
}
