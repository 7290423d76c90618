//! Deployment.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::view::{self, SCALE, SCALE_SUB};
use crate::columns::Column;
use crate::def::{KindDef, Sub};
use crate::pod;
use crate::typed::Kind;
use crate::util::{child_object, set_default, text};

impl Kind for Deployment {
    const DEF: KindDef = KindDef::new("apps", "v1", "Deployment", "deployments", "deployment")
        .short(&["deploy"])
        .in_all()
        .generation()
        .status_keeps_labels()
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
        view::validate(self, errors);
        validate_strategy(spec, &path.child("strategy"), errors);
        view::non_negative(&path.child("revisionHistoryLimit"), spec.revision_history_limit, errors);
        view::non_negative(&path.child("progressDeadlineSeconds"), spec.progress_deadline_seconds, errors);
        if spec.progress_deadline_seconds.is_some_and(|deadline| deadline <= spec.min_ready_seconds.unwrap_or(0)) {
            let path = path.child("progressDeadlineSeconds");
            errors.push(Error::invalid(&path, spec.progress_deadline_seconds, "must be greater than minReadySeconds"));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        view::immutable_selector(self, old, errors);
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
                view::containers(),
                view::images(),
                view::selector(),
            ]
        }
    }
}

fn validate_strategy(spec: &DeploymentSpec, path: &Path, errors: &mut Errors) {
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

fn is_zero(value: &IntOrString) -> bool {
    matches!(value, IntOrString::Int(0)) || matches!(value, IntOrString::String(text) if text == "0%")
}
