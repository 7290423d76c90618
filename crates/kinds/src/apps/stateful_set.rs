//! StatefulSet: pods with names, and storage that stays.

mod claims;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::{Selector, validate_label_selector};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus, StatefulSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use crate::columns::Column;
use crate::core::{claim_spec_warnings, pod};
use crate::def::{KindDef, NameRule};
use crate::rules::{self, int_or_percent, list, text};
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{self, child_object, each, set_default, set_zero};
use crate::workload::{each_container, validate_counts};

const UPDATABLE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

impl Kind for StatefulSet {
    const DEF: KindDef = KindDef::new("apps", "v1", "StatefulSet", "statefulsets", "statefulset")
        .short(&["sts"])
        .in_all()
        .generation()
        .status_reads(&[])
        .name(NameRule::Label)
        .subresources(&[Sub::SCALE, Sub::STATUS]);

    fn apply_defaults(object: &mut Value) {
        let spec = child_object(object, "spec");
        set_zero(spec, "podManagementPolicy", "OrderedReady");
        let strategy = child_object(spec, "updateStrategy");
        if util::text(strategy, "/type").is_empty() {
            strategy["type"] = "RollingUpdate".into();
            child_object(strategy, "rollingUpdate");
        }
        if let Some(rolling) = strategy.get_mut("rollingUpdate").filter(|rolling| rolling.is_object()) {
            set_default(rolling, "partition", 0);
        }
        let retention = child_object(spec, "persistentVolumeClaimRetentionPolicy");
        set_zero(retention, "whenDeleted", "Retain");
        set_zero(retention, "whenScaled", "Retain");
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        each(spec, "volumeClaimTemplates").for_each(default_claim);
        pod::default_template(child_object(spec, "template"));
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"replicas": 0, "availableReplicas": 0});
    }

    fn validate(&self, errors: &mut Errors) {
        let none = StatefulSetSpec::default();
        validate(self.spec.as_ref().unwrap_or(&none), &Path::new("spec"), errors);
    }

    fn validate_create(&self, errors: &mut Errors) {
        let service = self.spec.as_ref().map(|spec| text(&spec.service_name)).unwrap_or_default();
        if !service.is_empty() {
            rules::dns_label(&Path::new("spec").child("serviceName"), service, errors);
        }
        if let Some(spec) = &self.spec {
            errors.extend(claims::wrong(spec));
            errors.extend(claims::wrong_pod(spec));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(new), Some(old)) = (&self.spec, &old.spec) else { return };
        let fixed = |spec: &StatefulSetSpec| StatefulSetSpec {
            replicas: None,
            template: Default::default(),
            update_strategy: None,
            min_ready_seconds: None,
            ordinals: None,
            revision_history_limit: None,
            persistent_volume_claim_retention_policy: None,
            ..spec.clone()
        };
        if fixed(new) != fixed(old) {
            errors.push(Error::forbidden(&Path::new("spec"), UPDATABLE));
        }
        // These rules are younger than sets may be: one that was wrong before may still be changed, its template, too.
        for rules in [claims::wrong, claims::wrong_pod] {
            if rules(old).is_empty() {
                errors.extend(rules(new));
            }
        }
    }

    fn validate_sub(&self, sub: &str, old: &Self, errors: &mut Errors) {
        if sub == "status" {
            let none = StatefulSetStatus::default();
            validate_status(self.status.as_ref().unwrap_or(&none), old.status.as_ref().unwrap_or(&none), errors);
        }
    }

    fn warnings(&self) -> Vec<String> {
        let Some(spec) = &self.spec else { return Vec::new() };
        let mut warnings = pod::of_template(&spec.template, &Path::new("spec").child("template"));
        warnings.extend(own_warnings(spec));
        warnings
    }

    fn warnings_on_update(&self, old: &Self) -> Vec<String> {
        let Some(spec) = &self.spec else { return Vec::new() };
        let same = old.spec.as_ref().is_some_and(|old| old.template == spec.template);
        if same { own_warnings(spec) } else { self.warnings() }
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("Ready", "Number of the pod with ready state", |set, _| {
                    let ready = set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
                    format!("{ready}/{}", set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)).into()
                }),
                Column::wide("Containers", "Names of each container in the template.", |set, _| {
                    each_container(set.spec.as_ref().map(|spec| &spec.template), |container| container.name.clone())
                }),
                Column::wide("Images", "Images referenced by each container in the template.", |set, _| {
                    each_container(set.spec.as_ref().map(|spec| &spec.template), |c| c.image.clone().unwrap_or_default())
                }),
            ]
        }
    }
}

/// A claim in a template is a claim that is not there yet.
fn default_claim(claim: &mut Value) {
    claim["apiVersion"] = "v1".into();
    claim["kind"] = "PersistentVolumeClaim".into();
    set_default(child_object(claim, "spec"), "volumeMode", "Filesystem");
    set_zero(child_object(claim, "status"), "phase", "Pending");
}

fn validate(spec: &StatefulSetSpec, path: &Path, errors: &mut Errors) {
    match text(&spec.pod_management_policy) {
        "" => errors.push(Error::required(&path.child("podManagementPolicy"), "")),
        "OrderedReady" | "Parallel" => {}
        other => {
            errors.push(Error::invalid(&path.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'"));
        }
    }
    validate_strategy(spec.update_strategy.as_ref(), &path.child("updateStrategy"), errors);
    if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for (field, value) in [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)] {
            rules::supported(&path.child(field), Some(text(value)), &["Retain", "Delete"], errors);
        }
    }
    rules::non_negative(&path.child("replicas"), spec.replicas.unwrap_or(0).into(), errors);
    rules::non_negative(&path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0).into(), errors);
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start);
    rules::non_negative(&path.child("ordinals.start"), start.unwrap_or(0).into(), errors);
    validate_template(spec, path, errors);
}

fn validate_strategy(strategy: Option<&StatefulSetUpdateStrategy>, path: &Path, errors: &mut Errors) {
    let none = StatefulSetUpdateStrategy::default();
    let strategy = strategy.unwrap_or(&none);
    let at = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("", _) => errors.push(Error::required(path, "")),
        ("OnDelete", Some(rolling)) => {
            errors.push(Error::invalid(&at, json!(rolling), "only allowed for updateStrategy 'RollingUpdate'"));
        }
        ("RollingUpdate", Some(rolling)) => {
            rules::non_negative(&at.child("partition"), rolling.partition.unwrap_or(0).into(), errors);
            let Some(unavailable) = &rolling.max_unavailable else { return };
            let at = at.child("maxUnavailable");
            int_or_percent::positive(&at, unavailable, errors);
            if int_or_percent::is_zero(unavailable) {
                errors.push(Error::invalid(&at, json!(unavailable), "cannot be 0"));
            }
            int_or_percent::at_most_all(&at, unavailable, errors);
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => errors.push(Error::invalid(path, json!(strategy), "must be 'RollingUpdate' or 'OnDelete'")),
    }
}

fn validate_template(spec: &StatefulSetSpec, path: &Path, errors: &mut Errors) {
    let (template, at) = (&spec.template, path.child("template"));
    if spec.selector == LabelSelector::default() {
        errors.push(Error::required(&path.child("selector"), ""));
    } else {
        let path = path.child("selector");
        validate_label_selector(&spec.selector, &path, errors);
        match Selector::from_label_selector(Some(&spec.selector)) {
            Ok(selector) if selector.is_everything() => {
                errors.push(Error::invalid(&path, json!(spec.selector), "empty selector is invalid for statefulset"));
            }
            Ok(selector) => {
                let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
                if !selector.matches(&labels) {
                    let path = at.child("metadata.labels");
                    errors.push(Error::invalid(&path, json!(labels), "`selector` does not match template `labels`"));
                }
            }
            Err(_) => errors.push(Error::invalid(&path, json!(spec.selector), "")),
        }
    }
    pod::validate_template_metadata(template, &at, errors);
    let pod = template.spec.as_ref();
    let policy = pod.map(|pod| text(&pod.restart_policy)).unwrap_or_default();
    rules::supported(&at.child("spec.restartPolicy"), Some(policy), &["Always"], errors);
    if pod.is_some_and(|pod| pod.active_deadline_seconds.is_some()) {
        let detail = "activeDeadlineSeconds in StatefulSet is not Supported";
        errors.push(Error::forbidden(&at.child("spec.activeDeadlineSeconds"), detail));
    }
}

fn validate_status(status: &StatefulSetStatus, old: &StatefulSetStatus, errors: &mut Errors) {
    let count = |count: Option<i32>| i64::from(count.unwrap_or(0));
    let counts = [
        ("replicas", status.replicas.into()),
        ("readyReplicas", count(status.ready_replicas)),
        ("currentReplicas", count(status.current_replicas)),
        ("updatedReplicas", count(status.updated_replicas)),
        ("availableReplicas", count(status.available_replicas)),
        ("observedGeneration", status.observed_generation.unwrap_or(0)),
        ("collisionCount", count(status.collision_count)),
    ];
    let parts = [
        ("readyReplicas", "replicas"),
        ("currentReplicas", "replicas"),
        ("updatedReplicas", "replicas"),
        ("availableReplicas", "replicas"),
    ];
    validate_counts(&counts, &parts, errors);
    let path = Path::new("status");
    let (available, ready) = (count(status.available_replicas), count(status.ready_replicas));
    if available > ready {
        let detail = "cannot be greater than status.readyReplicas";
        errors.push(Error::invalid(&path.child("availableReplicas"), available, detail));
    }
    if status.collision_count < old.collision_count {
        let value = status.collision_count.unwrap_or(0);
        errors.push(Error::invalid(&path.child("collisionCount"), value, "cannot be decremented"));
    }
}

/// What the author should know beside the template.
fn own_warnings(spec: &StatefulSetSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, claim) in list(&spec.volume_claim_templates).iter().enumerate() {
        let path = Path::new("spec").child("volumeClaimTemplates").index(index).child("Spec");
        warnings.extend(claim.spec.iter().flat_map(|spec| claim_spec_warnings(spec, &path)));
    }
    if spec.revision_history_limit.is_some_and(|limit| limit < 0) {
        let text = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";
        warnings.push(text.to_owned());
    }
    warnings
}

#[cfg(test)]
mod tests;
