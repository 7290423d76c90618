//! DaemonSet: a pod on every node.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::{Selector, validate_label_selector};
use apimachinery::meta;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::columns::Column;
use crate::core::pod;
use crate::def::KindDef;
use crate::rules::{self, int_or_percent, text};
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{self, child_object, or_none, set_default, set_zero};
use crate::workload::{each_container, format_selector, validate_counts};

/// The number of templates that there were, which older versions of the API kept in a field.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

impl Kind for DaemonSet {
    const DEF: KindDef = KindDef::new("apps", "v1", "DaemonSet", "daemonsets", "daemonset")
        .short(&["ds"])
        .in_all()
        .generation()
        .status_reads(&[])
        .subresources(&[Sub::STATUS]);

    fn apply_defaults(object: &mut Value) {
        let spec = child_object(object, "spec");
        let strategy = child_object(spec, "updateStrategy");
        set_zero(strategy, "type", "RollingUpdate");
        if util::text(strategy, "/type") == "RollingUpdate" {
            let rolling = child_object(strategy, "rollingUpdate");
            set_default(rolling, "maxUnavailable", 1);
            set_default(rolling, "maxSurge", 0);
        }
        set_default(spec, "revisionHistoryLimit", 10);
        pod::default_template(child_object(spec, "template"));
    }

    fn prepare_create(object: &mut Value) {
        object["status"] =
            json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0});
        let given = template_generation(object).max(1);
        meta::set_annotation(object, TEMPLATE_GENERATION, given.to_string());
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        let changed = object.pointer("/spec/template") != old.pointer("/spec/template");
        let generation = template_generation(old) + i64::from(changed);
        meta::set_annotation(object, TEMPLATE_GENERATION, generation.to_string());
    }

    fn validate(&self, errors: &mut Errors) {
        let none = DaemonSetSpec::default();
        validate(self.spec.as_ref().unwrap_or(&none), &Path::new("spec"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let selector = |set: &Self| set.spec.as_ref().map(|spec| spec.selector.clone());
        if selector(self) != selector(old) {
            let path = Path::new("spec").child("selector");
            errors.push(Error::invalid(&path, json!(selector(self)), meta::IMMUTABLE));
        }
    }

    fn validate_sub(&self, sub: &str, old: &Self, errors: &mut Errors) {
        if sub == "status" {
            let none = DaemonSetStatus::default();
            validate_status(self.status.as_ref().unwrap_or(&none), old.status.as_ref().unwrap_or(&none), errors);
        }
    }

    fn warnings(&self) -> Vec<String> {
        let path = Path::new("spec").child("template");
        self.spec.as_ref().map(|spec| pod::of_template(&spec.template, &path)).unwrap_or_default()
    }

    fn warnings_on_update(&self, old: &Self) -> Vec<String> {
        let template = |set: &Self| set.spec.as_ref().map(|spec| spec.template.clone());
        if template(self) == template(old) { Vec::new() } else { self.warnings() }
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::integer(
                    "Desired",
                    "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
                    |set, _| set.status.as_ref().map_or(0, |status| status.desired_number_scheduled).into(),
                ),
                Column::integer(
                    "Current",
                    "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
                    |set, _| set.status.as_ref().map_or(0, |status| status.current_number_scheduled).into(),
                ),
                Column::integer(
                    "Ready",
                    "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon pod running with a Ready Condition.",
                    |set, _| set.status.as_ref().map_or(0, |status| status.number_ready).into(),
                ),
                Column::integer("Up-to-date", "The total number of nodes that are running updated daemon pod", |set, _| {
                    set.status.as_ref().and_then(|status| status.updated_number_scheduled).unwrap_or(0).into()
                }),
                Column::integer(
                    "Available",
                    "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available (ready for at least spec.minReadySeconds)",
                    |set, _| set.status.as_ref().and_then(|status| status.number_available).unwrap_or(0).into(),
                ),
                Column::new("Node Selector", "", |set, _| node_selector(set)),
                Column::wide("Containers", "Names of each container in the template.", |set, _| {
                    each_container(set.spec.as_ref().map(|spec| &spec.template), |container| container.name.clone())
                }),
                Column::wide("Images", "Images referenced by each container in the template.", |set, _| {
                    each_container(set.spec.as_ref().map(|spec| &spec.template), |c| c.image.clone().unwrap_or_default())
                }),
                Column::wide(
                    "Selector",
                    "A label query over pods that are managed by the daemon set. Must match in order to be controlled. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
                    |set, _| or_none(format_selector(set.spec.as_ref().map(|spec| &spec.selector))),
                ),
            ]
        }
    }
}

fn template_generation(object: &Value) -> i64 {
    meta::annotation(object, TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn node_selector(set: &DaemonSet) -> Value {
    let pod = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let labels = pod.into_iter().flat_map(|pod| pod.node_selector.iter().flatten());
    or_none(labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
}

fn validate(spec: &DaemonSetSpec, path: &Path, errors: &mut Errors) {
    let (selector, at) = (&spec.selector, path.child("template"));
    validate_label_selector(selector, &path.child("selector"), errors);
    let labels = spec.template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    // A selector that is not there selects nothing; one that is there and says nothing selects everything.
    let parsed = Selector::from_label_selector(Some(selector).filter(|selector| **selector != LabelSelector::default()));
    if parsed.as_ref().is_ok_and(|parsed| !parsed.matches(&labels)) {
        let detail = "`selector` does not match template `labels`";
        errors.push(Error::invalid(&at.child("metadata.labels"), json!(labels), detail));
    }
    if parsed.is_ok_and(|parsed| parsed.is_everything()) {
        errors.push(Error::invalid(&path.child("selector"), json!(selector), "empty selector is invalid for daemonset"));
    }
    pod::validate_template(&spec.template, &at, errors);
    let pod = spec.template.spec.as_ref();
    let policy = pod.map(|pod| text(&pod.restart_policy)).unwrap_or_default();
    rules::supported(&at.child("spec.restartPolicy"), Some(policy), &["Always"], errors);
    if pod.is_some_and(|pod| pod.active_deadline_seconds.is_some()) {
        let detail = "activeDeadlineSeconds in DaemonSet is not Supported";
        errors.push(Error::forbidden(&at.child("spec.activeDeadlineSeconds"), detail));
    }
    rules::non_negative(&path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0).into(), errors);
    validate_strategy(spec.update_strategy.as_ref(), &path.child("updateStrategy"), errors);
    rules::non_negative(&path.child("revisionHistoryLimit"), spec.revision_history_limit.unwrap_or(0).into(), errors);
}

fn validate_strategy(strategy: Option<&DaemonSetUpdateStrategy>, path: &Path, errors: &mut Errors) {
    let none = DaemonSetUpdateStrategy::default();
    let strategy = strategy.unwrap_or(&none);
    let at = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.push(Error::required(&at, "")),
        ("RollingUpdate", Some(rolling)) => validate_rolling(rolling, &at, errors),
        _ => errors.push(Error::not_supported(path, json!(strategy), &["RollingUpdate", "OnDelete"])),
    }
}

/// A new pod beside the old one, or one after the other, but not both and not neither (KEP-1591).
fn validate_rolling(rolling: &RollingUpdateDaemonSet, path: &Path, errors: &mut Errors) {
    let none = IntOrString::Int(0);
    let (unavailable, surge) = (rolling.max_unavailable.as_ref().unwrap_or(&none), rolling.max_surge.as_ref().unwrap_or(&none));
    let (at_unavailable, at_surge) = (path.child("maxUnavailable"), path.child("maxSurge"));
    int_or_percent::positive(&at_unavailable, unavailable, errors);
    int_or_percent::positive(&at_surge, surge, errors);
    int_or_percent::at_most_all(&at_unavailable, unavailable, errors);
    int_or_percent::at_most_all(&at_surge, surge, errors);
    match (int_or_percent::is_zero(unavailable), int_or_percent::is_zero(surge)) {
        (false, false) => {
            errors.push(Error::invalid(&at_surge, json!(surge), "may not be set when maxUnavailable is non-zero"));
        }
        (true, true) => errors.push(Error::required(&at_unavailable, "cannot be 0 when maxSurge is 0")),
        _ => {}
    }
}

fn validate_status(status: &DaemonSetStatus, old: &DaemonSetStatus, errors: &mut Errors) {
    let count = |count: Option<i32>| i64::from(count.unwrap_or(0));
    let counts = [
        ("currentNumberScheduled", status.current_number_scheduled.into()),
        ("numberMisscheduled", status.number_misscheduled.into()),
        ("desiredNumberScheduled", status.desired_number_scheduled.into()),
        ("numberReady", status.number_ready.into()),
        ("observedGeneration", status.observed_generation.unwrap_or(0)),
        ("updatedNumberScheduled", count(status.updated_number_scheduled)),
        ("numberAvailable", count(status.number_available)),
        ("numberUnavailable", count(status.number_unavailable)),
        ("collisionCount", count(status.collision_count)),
    ];
    validate_counts(&counts, &[], errors);
    if status.collision_count < old.collision_count {
        let path = Path::new("status").child("collisionCount");
        errors.push(Error::invalid(&path, status.collision_count.unwrap_or(0), "cannot be decremented"));
    }
}

#[cfg(test)]
mod tests;
