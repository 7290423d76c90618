//! ReplicationController: a ReplicaSet but for how it selects.

use apimachinery::field::Errors;
use k8s_openapi::api::core::v1::ReplicationController;
use serde_json::Value;

use crate::apps::replica_set::{apply_defaults, prepare_create, validate_status};
use crate::columns::Column;
use crate::def::{Dependents, KindDef};
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{child_object, set_default};
use crate::workload;

impl Kind for ReplicationController {
    const DEF: KindDef = KindDef::new("", "v1", "ReplicationController", "replicationcontrollers", "replicationcontroller")
        .short(&["rc"])
        .in_all()
        .generation()
        .dependents(Dependents::Stay)
        .subresources(&[Sub::SCALE, Sub::STATUS]);
    const SELECTABLE: &'static [&'static str] = &["status.replicas"];

    fn field(object: &Value, _name: &'static str) -> String {
        workload::replicas_field(object)
    }

    /// Selector and labels are those of the template, unless said otherwise.
    fn apply_defaults(object: &mut Value) {
        apply_defaults(object);
        if let Some(labels) = object.pointer("/spec/template/metadata/labels").filter(|labels| labels.is_object()).cloned() {
            set_default(child_object(object, "spec"), "selector", labels.clone());
            set_default(child_object(object, "metadata"), "labels", labels);
        }
    }

    fn prepare_create(object: &mut Value) {
        prepare_create(object);
    }

    fn validate(&self, errors: &mut Errors) {
        workload::validate(self, "ReplicationController", true, errors);
    }

    fn validate_sub(&self, sub: &str, _old: &Self, errors: &mut Errors) {
        if let Some(status) = self.status.as_ref().filter(|_| sub == "status") {
            let (ready, labeled) = (status.ready_replicas, status.fully_labeled_replicas);
            let (available, generation) = (status.available_replicas, status.observed_generation);
            validate_status(status.replicas, labeled, ready, available, None, generation, errors);
        }
    }

    fn warnings(&self) -> Vec<String> {
        workload::warnings(self, &self.metadata)
    }

    fn warnings_on_update(&self, old: &Self) -> Vec<String> {
        workload::warnings_on_update(self, old)
    }

    fn columns() -> &'static [Column<Self>] {
        const { &workload::replica_columns() }
    }
}
