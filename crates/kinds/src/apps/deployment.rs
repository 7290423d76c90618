//! Deployment.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{intstr, names};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::columns::Column;
use crate::core::pod;
use crate::def::KindDef;
use crate::rules;
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{child_object, set_default, text};
use crate::workload;

impl Kind for Deployment {
    const DEF: KindDef = KindDef::new("apps", "v1", "Deployment", "deployments", "deployment")
        .short(&["deploy"])
        .in_all()
        .generation_of(&["annotations"])
        .status_reads(&[])
        .status_keeps_labels()
        .subresources(&[Sub::SCALE, Sub::STATUS]);

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
        workload::validate(self, "ReplicaSet", false, errors);
        validate_strategy(spec, &path.child("strategy"), errors);
        rules::non_negative(&path.child("revisionHistoryLimit"), spec.revision_history_limit.unwrap_or(0).into(), errors);
        rules::non_negative(&path.child("progressDeadlineSeconds"), spec.progress_deadline_seconds.unwrap_or(0).into(), errors);
        if spec.progress_deadline_seconds.is_some_and(|deadline| deadline <= spec.min_ready_seconds.unwrap_or(0)) {
            let path = path.child("progressDeadlineSeconds");
            errors.push(Error::invalid(&path, spec.progress_deadline_seconds, "must be greater than minReadySeconds"));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        workload::immutable_selector(self, old, errors);
    }

    fn validate_sub(&self, sub: &str, old: &Self, errors: &mut Errors) {
        if sub == "status" {
            validate_status(self, old, errors);
        }
    }

    fn warnings(&self) -> Vec<String> {
        workload::warnings(self, &self.metadata)
    }

    fn warnings_on_update(&self, old: &Self) -> Vec<String> {
        workload::warnings_on_update(self, old)
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
                workload::containers(),
                workload::images(),
                workload::selector(),
            ]
        }
    }
}

fn validate_strategy(spec: &DeploymentSpec, path: &Path, errors: &mut Errors) {
    let Some(strategy) = &spec.strategy else { return };
    let at = path.child("rollingUpdate");
    match (strategy.type_.as_deref(), &strategy.rolling_update) {
        (Some("Recreate"), Some(_)) => {
            errors.push(Error::forbidden(&at, "may not be specified when strategy `type` is 'Recreate'"));
        }
        (Some("Recreate"), None) => {}
        (Some("RollingUpdate"), Some(rolling)) => validate_rolling(rolling, &at, errors),
        (Some("RollingUpdate"), None) => errors.push(Error::required(&at, "this should be defaulted and never be nil")),
        _ => errors.push(Error::not_supported(path, json!(strategy), &["Recreate", "RollingUpdate"])),
    }
}

fn validate_rolling(rolling: &RollingUpdateDeployment, path: &Path, errors: &mut Errors) {
    let (unavailable, surge) = (&rolling.max_unavailable, &rolling.max_surge);
    for (field, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
        match value {
            Some(IntOrString::Int(count)) => rules::non_negative(&path.child(field), (*count).into(), errors),
            Some(IntOrString::String(text)) => errors.invalid_each(&path.child(field), text, names::percent(text)),
            None => {}
        }
    }
    let zero = |value: &Option<IntOrString>| match value {
        Some(IntOrString::Int(count)) => *count == 0,
        Some(text) => intstr::percent(text).unwrap_or(0) == 0,
        None => true,
    };
    let path = path.child("maxUnavailable");
    if zero(unavailable) && zero(surge) {
        errors.push(Error::invalid(&path, json!(unavailable), "may not be 0 when `maxSurge` is 0"));
    }
    if unavailable.as_ref().and_then(intstr::percent).is_some_and(|percent| percent > 100) {
        errors.push(Error::invalid(&path, json!(unavailable), "must not be greater than 100%"));
    }
}

fn validate_status(new: &Deployment, old: &Deployment, errors: &mut Errors) {
    let Some(status) = &new.status else { return };
    let count = |count: Option<i32>| i64::from(count.unwrap_or(0));
    let counts = [
        ("observedGeneration", status.observed_generation.unwrap_or(0)),
        ("replicas", count(status.replicas)),
        ("updatedReplicas", count(status.updated_replicas)),
        ("readyReplicas", count(status.ready_replicas)),
        ("availableReplicas", count(status.available_replicas)),
        ("unavailableReplicas", count(status.unavailable_replicas)),
        ("terminatingReplicas", count(status.terminating_replicas)),
        ("collisionCount", count(status.collision_count)),
    ];
    let parts = [
        ("updatedReplicas", "replicas"),
        ("readyReplicas", "replicas"),
        ("availableReplicas", "replicas"),
        ("availableReplicas", "readyReplicas"),
    ];
    workload::validate_counts(&counts, &parts, errors);
    let was = old.status.as_ref().and_then(|status| status.collision_count);
    if status.collision_count < was {
        let path = Path::new("status.collisionCount");
        errors.push(Error::invalid(&path, json!(status.collision_count), "cannot be decremented"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use apimachinery::patch;

    fn check(spec: Value, expected: &[&str]) {
        let base = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
        let mut object = patch::merge(&base, &json!({"spec": spec})).unwrap();
        Deployment::apply_defaults(&mut object);
        let mut errors = Errors::new();
        serde_json::from_value::<Deployment>(object).unwrap().validate(&mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{spec}");
    }

    #[test]
    fn selectors_and_templates() {
        check(json!({}), &[]);
        check(json!({"selector": null}), &["spec.selector: Required value"]);
        check(
            json!({"selector": {"matchLabels": {"a": "c"}}}),
            &["spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"],
        );
        check(
            json!({"replicas": -1, "template": {"spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 5}}}),
            &[
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
            ],
        );
        check(
            json!({"minReadySeconds": 600}),
            &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
        );
    }

    #[test]
    fn strategies() {
        let rolling = |unavailable: Value, surge: Value| json!({"strategy": {"rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}}});
        let at = "spec.strategy.rollingUpdate";
        check(rolling(json!("100%"), json!(0)), &[]);
        check(
            rolling(json!("0%"), json!(0)),
            &[&format!("{at}.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0")],
        );
        check(
            rolling(json!("101%"), json!(1)),
            &[&format!("{at}.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%")],
        );
        check(
            rolling(json!(-1), json!("x")),
            &[
                &format!("{at}.maxUnavailable: Invalid value: -1: must be greater than or equal to 0"),
                &format!(
                    "{at}.maxSurge: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
                ),
            ],
        );
        check(
            json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}),
            &[&format!("{at}: Forbidden: may not be specified when strategy `type` is 'Recreate'")],
        );
        check(
            json!({"strategy": {"type": "Slow"}}),
            &["spec.strategy: Unsupported value: {\"type\":\"Slow\"}: supported values: \"Recreate\", \"RollingUpdate\""],
        );
    }

    #[test]
    fn statuses() {
        let check = |old: Value, new: Value, expected: &str| {
            let of = |status: Value| serde_json::from_value::<Deployment>(json!({"status": status})).unwrap();
            let mut errors = Errors::new();
            validate_status(&of(new), &of(old), &mut errors);
            assert_eq!(errors.to_string(), expected);
        };
        check(json!({}), json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 1}), "");
        check(
            json!({}),
            json!({"replicas": 1, "readyReplicas": 2}),
            "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
        );
        check(
            json!({}),
            json!({"terminatingReplicas": -1}),
            "status.terminatingReplicas: Invalid value: -1: must be greater than or equal to 0",
        );
        check(
            json!({"collisionCount": 2}),
            json!({"collisionCount": 1}),
            "status.collisionCount: Invalid value: 1: cannot be decremented",
        );
    }
}
