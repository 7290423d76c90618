//! Namespace.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::meta;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};

use crate::columns::Column;
use crate::def::{KindDef, NameRule};
use crate::rules::{self, list};
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{child_object, keep_all_but_part, text};
use crate::verb::{Verb, VerbSet};

impl Kind for Namespace {
    const DEF: KindDef = KindDef::new("", "v1", "Namespace", "namespaces", "namespace")
        .short(&["ns"])
        .cluster()
        .name(NameRule::Label)
        .verbs(VerbSet::WITHOUT_COLLECTION)
        .subresources(&[
            Sub::part("finalize", VerbSet::of(&[Verb::Update]), |object, old| {
                keep_all_but_part(object, old, "spec", "finalizers")
            }),
            Sub::STATUS,
        ]);
    const SELECTABLE: &'static [&'static str] = &["status.phase"];

    fn field(object: &Value, _name: &'static str) -> String {
        text(object, "/status/phase").to_owned()
    }

    /// Every namespace carries its name as a label (KEP-2161).
    fn apply_defaults(object: &mut Value) {
        let name = text(object, "/metadata/name").to_owned();
        if !name.is_empty() {
            child_object(child_object(object, "metadata"), "labels")["kubernetes.io/metadata.name"] = name.into();
        }
    }

    /// The `kubernetes` finalizer keeps a namespace until its content is gone.
    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"phase": "Active"});
        let finalizers = child_object(object, "spec").as_object_mut().map(|spec| spec.entry("finalizers").or_insert(json!([])));
        if let Some(Value::Array(list)) = finalizers
            && !list.iter().any(|name| name == "kubernetes")
        {
            list.push("kubernetes".into());
        }
    }

    /// A namespace stays until its content is gone (Namespaces walkthrough: "finalizers").
    fn is_kept(object: &Value) -> bool {
        object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
    }

    fn prepare_delete(object: &mut Value) {
        child_object(object, "status")["phase"] = "Terminating".into();
    }

    /// Finalizers change through the finalize sub-resource only.
    fn prepare_update(object: &mut Value, old: &Value) {
        crate::util::carry_over(object, old, "spec");
    }

    fn validate(&self, errors: &mut Errors) {
        let path = Path::new("spec").child("finalizers");
        for finalizer in self.spec.iter().flat_map(|spec| list(&spec.finalizers)) {
            validate_finalizer(finalizer, &path, errors);
        }
    }

    fn validate_sub(&self, sub: &str, _old: &Self, errors: &mut Errors) {
        if sub == "finalize" {
            let path = Path::new("spec").child("finalizers");
            for (index, finalizer) in self.spec.iter().flat_map(|spec| list(&spec.finalizers)).enumerate() {
                validate_finalizer(finalizer, &path.index(index), errors);
            }
            return;
        }
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let (expected, deleted) =
            if self.metadata.deletion_timestamp.is_some() { ("Terminating", "not empty") } else { ("Active", "empty") };
        if phase != expected {
            let detail = format!("may only be '{expected}' if `deletionTimestamp` is {deleted}");
            errors.push(Error::invalid(&Path::new("status.Phase"), phase, detail));
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[Column::new("Status", "The status of the namespace", |namespace, _| {
                namespace.status.as_ref().and_then(|status| status.phase.clone()).into()
            })]
        }
    }
}

/// A qualified name, or one of the few older than that rule.
fn validate_finalizer(finalizer: &str, path: &Path, errors: &mut Errors) {
    rules::qualified_name(path, finalizer, errors);
    meta::validate_qualified_finalizer(finalizer, path, errors);
}
