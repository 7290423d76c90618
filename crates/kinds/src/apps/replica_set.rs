//! ReplicaSet, and what ReplicationControllers have of it.

use apimachinery::field::Errors;
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::{Value, json};

use crate::columns::Column;
use crate::core::pod;
use crate::def::KindDef;
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{child_object, set_default};
use crate::workload;

pub(crate) fn apply_defaults(object: &mut Value) {
    let spec = child_object(object, "spec");
    set_default(spec, "replicas", 1);
    pod::default_template(child_object(spec, "template"));
}

pub(crate) fn prepare_create(object: &mut Value) {
    object["status"] = json!({"replicas": 0});
}

pub(crate) fn validate_status(
    replicas: i32,
    labeled: Option<i32>,
    ready: Option<i32>,
    available: Option<i32>,
    terminating: Option<i32>,
    generation: Option<i64>,
    errors: &mut Errors,
) {
    let count = |count: Option<i32>| i64::from(count.unwrap_or(0));
    let counts = [
        ("replicas", replicas.into()),
        ("fullyLabeledReplicas", count(labeled)),
        ("readyReplicas", count(ready)),
        ("availableReplicas", count(available)),
        ("terminatingReplicas", count(terminating)),
        ("observedGeneration", generation.unwrap_or(0)),
    ];
    let parts = [
        ("fullyLabeledReplicas", "replicas"),
        ("readyReplicas", "replicas"),
        ("availableReplicas", "replicas"),
        ("availableReplicas", "readyReplicas"),
    ];
    workload::validate_counts(&counts, &parts, errors);
}

impl Kind for ReplicaSet {
    const DEF: KindDef = KindDef::new("apps", "v1", "ReplicaSet", "replicasets", "replicaset")
        .short(&["rs"])
        .in_all()
        .generation()
        .status_reads(&[])
        .subresources(&[Sub::SCALE, Sub::STATUS]);
    const SELECTABLE: &'static [&'static str] = &["status.replicas"];

    fn field(object: &Value, _name: &'static str) -> String {
        workload::replicas_field(object)
    }

    fn apply_defaults(object: &mut Value) {
        apply_defaults(object);
    }

    fn prepare_create(object: &mut Value) {
        prepare_create(object);
    }

    fn validate(&self, errors: &mut Errors) {
        workload::validate(self, "ReplicaSet", false, errors);
    }

    fn validate_sub(&self, sub: &str, _old: &Self, errors: &mut Errors) {
        if let Some(status) = self.status.as_ref().filter(|_| sub == "status") {
            let (ready, labeled) = (status.ready_replicas, status.fully_labeled_replicas);
            let (available, terminating) = (status.available_replicas, status.terminating_replicas);
            validate_status(status.replicas, labeled, ready, available, terminating, status.observed_generation, errors);
        }
    }

    fn warnings(&self) -> Vec<String> {
        workload::warnings(self, &self.metadata)
    }

    fn warnings_on_update(&self, old: &Self) -> Vec<String> {
        workload::warnings_on_update(self, old)
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        workload::immutable_selector(self, old, errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const { &workload::replica_columns() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check_status;

    /// KEP-3973: the pods that end are counted, too.
    #[test]
    fn statuses() {
        let set = json!({"metadata": {"name": "a"}});
        check_status::<ReplicaSet>(set.clone(), json!({"replicas": 1, "readyReplicas": 1, "terminatingReplicas": 2}), &[]);
        check_status::<ReplicaSet>(
            set,
            json!({"replicas": 1, "readyReplicas": 2, "terminatingReplicas": -1}),
            &[
                "status.terminatingReplicas: Invalid value: -1: must be greater than or equal to 0",
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
            ],
        );
    }
}
