//! CustomResourceDefinition (upstream: `apiextensions-apiserver/pkg/apis/apiextensions`).
//!
//! Upstream checks an internal form, in which what all versions have in common stands once, beside the versions. Clients know the
//! paths of that form from error messages: `spec.validation.openAPIV3Schema`, for one.

mod approval;
mod conversion;
mod formats;
mod names;
mod parts;
mod schema;
mod structural;
#[cfg(test)]
mod tests;
mod versions;

pub(crate) use approval::condition as approval_condition;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::meta;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionSpec, CustomResourceDefinitionStatus,
};
use serde_json::{Value, json};

use crate::columns::Column;
use crate::def::{KindDef, UnqualifiedFinalizers};
use crate::rules::{self, list};
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{child_object, set_default, set_zero, text};

/// Keeps a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
const GROUP: &str = "apiextensions.k8s.io";
const SCOPES: &[&str] = &["Cluster", "Namespaced"];

impl Kind for CustomResourceDefinition {
    const DEF: KindDef =
        KindDef::new(GROUP, "v1", "CustomResourceDefinition", "customresourcedefinitions", "customresourcedefinition")
            .short(&["crd", "crds"])
            .categories(&["api-extensions"])
            .cluster()
            .generation()
            .versioned()
            .unqualified_finalizers(UnqualifiedFinalizers::Kept)
            .subresources(&[Sub::STATUS]);

    fn apply_defaults(object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        if let Some(names) = spec.get_mut("names").filter(|names| names.is_object()) {
            let kind = text(names, "/kind").to_owned();
            set_zero(names, "singular", kind.to_lowercase());
            if !kind.is_empty() {
                set_zero(names, "listKind", format!("{kind}List"));
            }
        }
        set_default(spec, "conversion", json!({"strategy": "None"}));
        let service = spec.pointer_mut("/conversion/webhook/clientConfig/service");
        if let Some(service) = service.filter(|service| service.is_object()) {
            set_default(service, "port", 443);
        }
    }

    fn prepare_create(object: &mut Value) {
        // Upstream says null here, at which `kubectl wait` fails when it comes before the first condition; to typed clients both are the same.
        object["status"] = json!({"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": null});
        store_in_storage_version(object);
    }

    fn prepare_update(object: &mut Value, _old: &Value) {
        store_in_storage_version(object);
    }

    /// Its objects go first: until then a finalizer keeps it, which it gets when it is deleted.
    fn is_kept(object: &Value) -> bool {
        !meta::is_deleting(object)
    }

    fn prepare_delete(object: &mut Value) {
        meta::add_finalizer(object, CLEANUP);
    }

    fn validate(&self, errors: &mut Errors) {
        let path = Path::new("spec");
        validate_spec(&self.spec, &path, errors);
        let none = CustomResourceDefinitionStatus::default();
        let status = self.status.as_ref().unwrap_or(&none);
        validate_status(status, errors);
        versions::validate_stored(list(&status.stored_versions), &self.spec.versions, errors);
        if self.spec.preserve_unknown_fields == Some(true) {
            let detail =
                "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
            errors.push(Error::invalid(&path.child("preserveUnknownFields"), true, detail));
        }
    }

    fn validate_create(&self, errors: &mut Errors) {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        if name != format!("{}.{}", self.spec.names.plural, self.spec.group) {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            errors.push(Error::invalid(&Path::new("metadata").child("name"), name, detail));
        }
        approval::validate(self, None, errors);
        validate_rules(self, None, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        approval::validate(self, Some(old), errors);
        validate_spec_update(self, old, errors);
        validate_rules(self, Some(&old.spec), errors);
    }

    fn validate_sub(&self, _sub: &str, _old: &Self, errors: &mut Errors) {
        if let Some(status) = &self.status {
            validate_status(status, errors);
        }
    }

    fn warnings(&self) -> Vec<String> {
        formats::warnings(&self.spec, None)
    }

    fn warnings_on_update(&self, old: &Self) -> Vec<String> {
        formats::warnings(&self.spec, Some(&old.spec))
    }

    fn columns() -> &'static [Column<Self>] {
        const { &[Column::NAME, Column::CREATED] }
    }
}

/// The rules in CEL of schemas that are right otherwise: what is wrong with a schema says more than what follows for its rules.
fn validate_rules(new: &CustomResourceDefinition, old: Option<&CustomResourceDefinitionSpec>, errors: &mut Errors) {
    if errors.is_empty() {
        versions::validate_rules(&new.spec, old, &Path::new("spec"), errors);
    }
}

/// The storage version is one of those in which objects are stored.
fn store_in_storage_version(object: &mut Value) {
    let versions = object.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten();
    let Some(storage) = versions.into_iter().find(|version| version["storage"] == true) else { return };
    let storage = storage["name"].clone();
    let status = child_object(object, "status");
    match &mut status["storedVersions"] {
        Value::Array(stored) if stored.contains(&storage) => {}
        Value::Array(stored) => stored.push(storage),
        other => *other = json!([storage]),
    }
}

fn validate_spec(spec: &CustomResourceDefinitionSpec, path: &Path, errors: &mut Errors) {
    names::validate_group(&spec.group, &path.child("group"), errors);
    rules::one_of(&path.child("scope"), &spec.scope, SCOPES, errors);
    let preserves = spec.preserve_unknown_fields == Some(true);
    if preserves && versions::schemas(spec, path).iter().any(|found| parts::has_defaults(found.schema)) {
        let detail = "must be false in order to use defaults in the schema";
        errors.push(Error::invalid(&path.child("preserveUnknownFields"), true, detail));
    }
    versions::validate(spec, path, errors);
    names::validate_required(&spec.names, &path.child("names"), errors);
    names::validate(&spec.names, &path.child("names"), errors);
    versions::validate_common(spec, path, errors);
    if let Some(conversion) = &spec.conversion {
        let path = path.child("conversion");
        if preserves && conversion.strategy != "None" {
            let detail = "must be None if spec.preserveUnknownFields is true";
            errors.push(Error::invalid(&path.child("strategy"), conversion.strategy.as_str(), detail));
        }
        conversion::validate(conversion, &path, errors);
    }
}

/// What clients of a served kind rely on does not change; what the objects are stored under never does.
fn validate_spec_update(new: &CustomResourceDefinition, old: &CustomResourceDefinition, errors: &mut Errors) {
    let (path, is, was) = (Path::new("spec"), &new.spec, &old.spec);
    let conditions = old.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default();
    let established = conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True");
    let fields = [
        (established, "scope", &is.scope, &was.scope),
        (established, "names.kind", &is.names.kind, &was.names.kind),
        (true, "group", &is.group, &was.group),
        (true, "names.plural", &is.names.plural, &was.names.plural),
    ];
    for (_, field, value, _) in fields.into_iter().filter(|(fixed, _, is, was)| *fixed && is != was) {
        errors.push(Error::invalid(&path.child(field), value.as_str(), meta::IMMUTABLE));
    }
    if established {
        conversion::validate_bundle(is.conversion.as_ref(), was.conversion.as_ref(), &path.child("conversion"), errors);
    }
}

fn validate_status(status: &CustomResourceDefinitionStatus, errors: &mut Errors) {
    if let Some(accepted) = &status.accepted_names {
        names::validate(accepted, &Path::new("status").child("acceptedNames"), errors);
    }
}
