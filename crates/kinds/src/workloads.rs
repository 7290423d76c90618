//! Deployment and ReplicaSet.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use crate::columns::Column;
use crate::def::{KindDef, ScalePaths, Sub};
use crate::pod;
use crate::typed::Kind;
use crate::util::{child_object, integer, or_none, set_default, text};

const SCALE: ScalePaths =
    ScalePaths { replicas: "/spec/replicas", status_replicas: "/status/replicas", selector: "/spec/selector" };
const SCALE_SUB: Sub = Sub { name: "scale", kind: ("autoscaling", "v1", "Scale"), verbs: &["get", "patch", "update"] };

impl Kind for Deployment {
    const DEF: KindDef = KindDef::new("apps", "v1", "Deployment", "deployments", "deployment")
        .short(&["deploy"])
        .in_all()
        .generation()
        .scale(SCALE)
        .subresources(&[
            SCALE_SUB,
            Sub { name: "status", kind: ("apps", "v1", "Deployment"), verbs: &["get", "patch", "update"] },
        ]);

    fn apply_defaults(object: &mut Value) {
        let spec = child_object(object, "spec");
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        set_default(spec, "progressDeadlineSeconds", 600);
        let strategy = child_object(spec, "strategy");
        set_default(strategy, "type", "RollingUpdate");
        if text(strategy, "/type") == "RollingUpdate" {
            let rolling = child_object(strategy, "rollingUpdate");
            set_default(rolling, "maxUnavailable", "25%");
            set_default(rolling, "maxSurge", "25%");
        }
        pod::default_template(child_object(spec, "template"));
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        let path = Path::new("spec");
        validate_common(&path, spec.replicas, spec.min_ready_seconds, errors);
        validate_template(&path, &spec.selector, &spec.template, errors);
        validate_strategy(spec, &path.child("strategy"), errors);
        non_negative(&path.child("revisionHistoryLimit"), spec.revision_history_limit, errors);
        non_negative(&path.child("progressDeadlineSeconds"), spec.progress_deadline_seconds, errors);
        if spec.progress_deadline_seconds.is_some_and(|deadline| deadline <= spec.min_ready_seconds.unwrap_or(0)) {
            let path = path.child("progressDeadlineSeconds");
            errors.push(Error::invalid(&path, spec.progress_deadline_seconds, "must be greater than minReadySeconds"));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let selector = |deployment: &Self| deployment.spec.as_ref().map(|spec| spec.selector.clone());
        immutable_selector(selector(self), selector(old), errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("Ready", "Number of the pod with ready state", |deployment, _| {
                    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
                    format!("{ready}/{}", deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)).into()
                }),
                Column::new(
                    "Up-to-date",
                    "Total number of non-terminated pods targeted by this deployment that have the desired template spec.",
                    |deployment, _| deployment.status.as_ref().and_then(|status| status.updated_replicas).unwrap_or(0).into(),
                ),
                Column::new(
                    "Available",
                    "Total number of available pods (ready for at least minReadySeconds) targeted by this deployment.",
                    |deployment, _| deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0).into(),
                ),
                Column::wide("Containers", "Names of each container in the template.", |deployment, _| {
                    containers(deployment.spec.as_ref().map(|spec| &spec.template), |c| c.name.clone())
                }),
                Column::wide("Images", "Images referenced by each container in the template.", |deployment, _| {
                    containers(deployment.spec.as_ref().map(|spec| &spec.template), |c| c.image.clone().unwrap_or_default())
                }),
                Column::wide("Selector", "Label selector for pods.", |deployment, _| {
                    selector(deployment.spec.as_ref().map(|spec| &spec.selector))
                }),
            ]
        }
    }
}

impl Kind for ReplicaSet {
    const DEF: KindDef = KindDef::new("apps", "v1", "ReplicaSet", "replicasets", "replicaset")
        .short(&["rs"])
        .in_all()
        .generation()
        .scale(SCALE)
        .subresources(&[
            SCALE_SUB,
            Sub { name: "status", kind: ("apps", "v1", "ReplicaSet"), verbs: &["get", "patch", "update"] },
        ]);
    const SELECTABLE: &'static [&'static str] = &["status.replicas"];

    fn field(object: &Value, _name: &'static str) -> String {
        integer(object, "/status/replicas").unwrap_or(0).to_string()
    }

    fn apply_defaults(object: &mut Value) {
        let spec = child_object(object, "spec");
        set_default(spec, "replicas", 1);
        pod::default_template(child_object(spec, "template"));
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        let path = Path::new("spec");
        validate_common(&path, spec.replicas, spec.min_ready_seconds, errors);
        match &spec.template {
            Some(template) => validate_template(&path, &spec.selector, template, errors),
            None => errors.push(Error::required(&path.child("template"), "")),
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let selector = |set: &Self| set.spec.as_ref().map(|spec| spec.selector.clone());
        immutable_selector(selector(self), selector(old), errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::integer("Desired", "Number of desired pods.", |set, _| {
                    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0).into()
                }),
                Column::integer("Current", "Number of pods observed.", |set, _| {
                    set.status.as_ref().map_or(0, |status| status.replicas).into()
                }),
                Column::integer("Ready", "Number of ready pods.", |set, _| {
                    set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0).into()
                }),
                Column::wide("Containers", "Names of each container in the template.", |set, _| {
                    containers(set.spec.as_ref().and_then(|spec| spec.template.as_ref()), |c| c.name.clone())
                }),
                Column::wide("Images", "Images referenced by each container in the template.", |set, _| {
                    containers(set.spec.as_ref().and_then(|spec| spec.template.as_ref()), |c| c.image.clone().unwrap_or_default())
                }),
                Column::wide("Selector", "Label selector for pods.", |set, _| {
                    selector(set.spec.as_ref().map(|spec| &spec.selector))
                }),
            ]
        }
    }
}

impl Kind for ReplicationController {
    const DEF: KindDef = KindDef::new("", "v1", "ReplicationController", "replicationcontrollers", "replicationcontroller")
        .short(&["rc"])
        .in_all()
        .generation()
        .scale(SCALE)
        .subresources(&[
            SCALE_SUB,
            Sub { name: "status", kind: ("", "v1", "ReplicationController"), verbs: &["get", "patch", "update"] },
        ]);
    const SELECTABLE: &'static [&'static str] = &["status.replicas"];

    fn field(object: &Value, _name: &'static str) -> String {
        integer(object, "/status/replicas").unwrap_or(0).to_string()
    }

    /// Selector and labels are those of the template, unless said otherwise.
    fn apply_defaults(object: &mut Value) {
        let spec = child_object(object, "spec");
        set_default(spec, "replicas", 1);
        pod::default_template(child_object(spec, "template"));
        let labels = object.pointer("/spec/template/metadata/labels").cloned();
        if let Some(labels) = labels {
            set_default(child_object(object, "spec"), "selector", labels.clone());
            set_default(child_object(object, "metadata"), "labels", labels);
        }
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        let path = Path::new("spec");
        validate_common(&path, spec.replicas, spec.min_ready_seconds, errors);
        match &spec.template {
            Some(template) => {
                let selector = LabelSelector { match_labels: spec.selector.clone(), ..LabelSelector::default() };
                validate_template(&path, &selector, template, errors);
            }
            None => errors.push(Error::required(&path.child("template"), "")),
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::integer("Desired", "Number of desired pods.", |controller, _| {
                    controller.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0).into()
                }),
                Column::integer("Current", "Number of pods observed.", |controller, _| {
                    controller.status.as_ref().map_or(0, |status| status.replicas).into()
                }),
                Column::integer("Ready", "Number of ready pods.", |controller, _| {
                    controller.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0).into()
                }),
            ]
        }
    }
}

fn non_negative(path: &Path, value: Option<i32>, errors: &mut Errors) {
    if let Some(value) = value.filter(|value| *value < 0) {
        errors.push(Error::invalid(path, value, "must be greater than or equal to 0"));
    }
}

fn validate_common(path: &Path, replicas: Option<i32>, min_ready: Option<i32>, errors: &mut Errors) {
    non_negative(&path.child("replicas"), replicas, errors);
    non_negative(&path.child("minReadySeconds"), min_ready, errors);
}

/// The selector selects something, and the pods of the template.
fn validate_template(path: &Path, selector: &LabelSelector, template: &PodTemplateSpec, errors: &mut Errors) {
    let at = path.child("selector");
    let empty = selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
    if empty {
        errors.push(Error::invalid(&at, json!(selector), "empty selector is invalid for deployment"));
    }
    let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    match apimachinery::labels::Selector::from_label_selector(Some(selector)) {
        Ok(parsed) if !empty && !parsed.matches(&labels) => {
            let path = path.child("template").child("metadata").child("labels");
            errors.push(Error::invalid(&path, json!(labels), "`selector` does not match template `labels`"));
        }
        Ok(_) => {}
        Err(error) => errors.push(Error::invalid(&at, json!(selector), error.to_string())),
    }
    pod::validate_template(template, &path.child("template"), errors);
    let policy = template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    if policy != "Always" {
        let path = path.child("template").child("spec").child("restartPolicy");
        errors.push(Error::not_supported(&path, policy, &["Always"]));
    }
}

fn validate_strategy(spec: &k8s_openapi::api::apps::v1::DeploymentSpec, path: &Path, errors: &mut Errors) {
    let Some(strategy) = &spec.strategy else { return };
    match strategy.type_.as_deref() {
        Some("Recreate") if strategy.rolling_update.is_some() => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(Error::forbidden(&path.child("rollingUpdate"), detail));
        }
        Some("Recreate") => {}
        Some("RollingUpdate") => {
            let Some(rolling) = &strategy.rolling_update else { return };
            let path = path.child("rollingUpdate");
            let zero = |value: &Option<_>| value.as_ref().is_some_and(is_zero);
            if zero(&rolling.max_unavailable) && zero(&rolling.max_surge) {
                errors.push(Error::invalid(
                    &path.child("maxUnavailable"),
                    json!(rolling.max_unavailable),
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
        }
        other => {
            errors.push(Error::not_supported(&path.child("type"), other.unwrap_or_default(), &["Recreate", "RollingUpdate"]))
        }
    }
}

fn is_zero(value: &k8s_openapi::apimachinery::pkg::util::intstr::IntOrString) -> bool {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    matches!(value, IntOrString::Int(0)) || matches!(value, IntOrString::String(text) if text == "0%")
}

fn immutable_selector(new: Option<LabelSelector>, old: Option<LabelSelector>, errors: &mut Errors) {
    if new != old {
        errors.push(Error::invalid(&Path::new("spec").child("selector"), json!(new), "field is immutable"));
    }
}

fn containers(template: Option<&PodTemplateSpec>, pick: fn(&k8s_openapi::api::core::v1::Container) -> String) -> Value {
    let containers =
        template.and_then(|template| template.spec.as_ref()).map(|spec| spec.containers.as_slice()).unwrap_or_default();
    containers.iter().map(pick).collect::<Vec<_>>().join(",").into()
}

fn selector(selector: Option<&LabelSelector>) -> Value {
    let parsed = apimachinery::labels::Selector::from_label_selector(selector).ok();
    or_none(parsed.map(|parsed| parsed.to_string()).unwrap_or_default())
}
