//! Validation of `metadata` on creation and on update (upstream: `pkg/api/validation/objectmeta.go`).

use super::{
    annotations, deletion_grace_period_seconds, deletion_timestamp, finalizers, generate_name, generation, get, labels, list,
    managed_fields, name, namespace, owner_references, resource_version,
};
use crate::field::{Error, Errors, Path};
use crate::names::{self, NameFn};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Keys and values of all annotations together, in bytes.
pub const ANNOTATIONS_LIMIT: usize = 256 << 10;
/// Finalizer of deletion that leaves dependents.
pub const FINALIZER_ORPHAN: &str = "orphan";
/// Finalizer of deletion that waits for dependents.
pub const FINALIZER_FOREGROUND: &str = "foregroundDeletion";
/// Finalizers that are well known and have no domain in their names (upstream: `helper.IsStandardFinalizerName`).
pub const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", FINALIZER_ORPHAN, FINALIZER_FOREGROUND];
/// The message for a field that must not change.
pub const IMMUTABLE: &str = "field is immutable";

/// Validates `metadata` of a new object, after a name was generated.
pub fn validate_object_meta(object: &Value, namespaced: bool, name_fn: NameFn, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let generate = generate_name(object);
    if !generate.is_empty() {
        errors.invalid_each(&path.child("generateName"), generate, name_fn(generate, true));
    }
    if name(object).is_empty() {
        errors.push(Error::required(&path.child("name"), "name or generateName is required"));
    } else {
        errors.invalid_each(&path.child("name"), name(object), name_fn(name(object), false));
    }
    validate_namespace(object, namespaced, path, &mut errors);
    if generation(object) < 0 {
        let detail = "must be greater than or equal to 0";
        errors.push(Error::invalid(&path.child("generation"), generation(object), detail));
    }
    validate_maps_and_owners(object, path, &mut errors);
    validate_finalizers(object, &path.child("finalizers"), &mut errors);
    validate_managed_fields(managed_fields(object), &path.child("managedFields"), &mut errors);
    errors
}

/// Validates `metadata` of an update against the stored object.
pub fn validate_object_meta_update(new: &Value, old: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if deletion_timestamp(old).is_some() {
        forbid_new_finalizers(new, old, &path.child("finalizers"), &mut errors);
    }
    if resource_version(new).is_empty() {
        errors.push(Error::invalid(&path.child("resourceVersion"), "", "must be specified for an update"));
    }
    if generation(new) < generation(old) {
        errors.push(Error::invalid(&path.child("generation"), generation(new), "must not be decremented"));
    }
    for key in ["name", "namespace", "uid"] {
        immutable(get(new, key).into(), get(old, key).into(), &path.child(key), &mut errors);
    }
    for key in ["creationTimestamp", "deletionTimestamp"] {
        immutable(time(new, key), time(old, key), &path.child(key), &mut errors);
    }
    let grace = |o| deletion_grace_period_seconds(o).map_or(Value::Null, Value::from);
    immutable(grace(new), grace(old), &path.child("deletionGracePeriodSeconds"), &mut errors);
    validate_maps_and_owners(new, path, &mut errors);
    validate_managed_fields(managed_fields(new), &path.child("managedFields"), &mut errors);
    errors
}

fn time(object: &Value, key: &str) -> Value {
    Some(get(object, key)).filter(|t| !t.is_empty()).map_or(Value::Null, Value::from)
}

fn immutable(new: Value, old: Value, path: &Path, errors: &mut Errors) {
    validate_immutable(&new, &old, path, errors);
}

/// Adds an error when the two differ. `Null` stands for absent.
pub fn validate_immutable(new: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    if new != old {
        errors.push(Error::invalid(path, new.clone(), IMMUTABLE));
    }
}

fn validate_namespace(object: &Value, namespaced: bool, path: &Path, errors: &mut Errors) {
    let path = path.child("namespace");
    match (namespaced, namespace(object)) {
        (true, "") => errors.push(Error::required(&path, "")),
        (true, namespace) => errors.invalid_each(&path, namespace, names::name_is_label(namespace, false)),
        (false, "") => {}
        (false, _) => errors.push(Error::forbidden(&path, "not allowed on this type")),
    }
}

fn validate_maps_and_owners(object: &Value, path: &Path, errors: &mut Errors) {
    if let Some(labels) = labels(object) {
        validate_labels(labels, &path.child("labels"), errors);
    }
    if let Some(annotations) = annotations(object) {
        validate_annotations(annotations, &path.child("annotations"), errors);
    }
    validate_owner_references(owner_references(object), &path.child("ownerReferences"), errors);
}

/// Keys and values of a map of labels.
pub fn validate_labels(labels: &Map<String, Value>, path: &Path, errors: &mut Errors) {
    validate_label_pairs(labels.iter().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())), path, errors);
}

/// [`validate_labels`] of labels in any form.
pub fn validate_label_pairs<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>, path: &Path, errors: &mut Errors) {
    for (key, value) in labels {
        errors.invalid_each(path, key, names::qualified_name(key));
        errors.invalid_each(path, value, names::label_value(value));
    }
}

/// Keys of annotations, and their size altogether.
pub fn validate_annotations(annotations: &Map<String, Value>, path: &Path, errors: &mut Errors) {
    validate_annotation_pairs(
        annotations.iter().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())),
        path,
        errors,
    );
}

/// [`validate_annotations`] of annotations in any form.
pub fn validate_annotation_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>, path: &Path, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in pairs {
        size += key.len() + value.len();
        let messages = if key.bytes().any(|b| b.is_ascii_uppercase()) {
            names::qualified_name(&key.to_lowercase())
        } else {
            names::qualified_name(key)
        };
        errors.invalid_each(path, key, messages);
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(Error::too_long(path, ANNOTATIONS_LIMIT));
    }
}

/// Owner references: complete, and at most one controller.
pub fn validate_owner_references(references: &[Value], path: &Path, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for reference in references {
        let text = |key| reference.get(key).and_then(Value::as_str).unwrap_or_default();
        let api_version = text("apiVersion");
        let (group, version) = crate::gvk::split_api_version(api_version).unwrap_or_default();
        if version.is_empty() {
            errors.push(Error::invalid(&path.child("apiVersion"), api_version, "version must not be empty"));
        }
        for key in ["kind", "name", "uid"] {
            if text(key).is_empty() {
                errors.push(Error::invalid(&path.child(key), "", "must not be empty"));
            }
        }
        if (group, version, text("kind")) == ("", "v1", "Event") {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(Error::invalid(path, reference.clone(), detail));
        }
        if reference.get("controller").and_then(Value::as_bool) == Some(true) {
            let this = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                None => controller = Some(this),
                // The error shows all references: once there are many errors, there is no use in more of them.
                Some(first) if !errors.is_full() => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    errors.push(Error::invalid(path, references.to_vec(), detail));
                }
                Some(_) => {}
            }
        }
    }
}

/// The name of one finalizer.
pub fn validate_finalizer_name(finalizer: &str, path: &Path, errors: &mut Errors) {
    errors.invalid_each(path, finalizer, names::qualified_name(finalizer));
}

/// Whether another controller may have chosen the same name for a finalizer of its own: it has no domain, and is not a standard one.
fn is_unqualified_finalizer(finalizer: &str) -> bool {
    !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer)
}

/// [`is_unqualified_finalizer`] as an error (upstream: `validateKubeFinalizerName` of `pkg/apis/core/validation`).
pub fn validate_qualified_finalizer(finalizer: &str, path: &Path, errors: &mut Errors) {
    if is_unqualified_finalizer(finalizer) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(Error::invalid(path, finalizer, detail));
    }
}

/// New finalizers without a domain, and their places in the list. Those that the old object has are left alone, so that an object can be
/// changed that was stored before there was a rule about them.
pub fn new_unqualified_finalizers<'v>(object: &'v Value, old: Option<&Value>) -> Vec<(usize, &'v str)> {
    let mut found: Vec<_> = finalizers(object).enumerate().filter(|(_, name)| is_unqualified_finalizer(name)).collect();
    if !found.is_empty() {
        let known: HashSet<&str> = old.into_iter().flat_map(finalizers).collect();
        found.retain(|(_, name)| !known.contains(name));
    }
    found
}

/// Validates the finalizers that a change adds, as those of a new object (upstream: kinds whose rules for a change are those for a new object
/// and more). Those that the old object has are left alone.
pub fn validate_added_finalizers(object: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    let known: HashSet<&str> = finalizers(old).collect();
    finalizers(object).filter(|name| !known.contains(name)).for_each(|name| validate_finalizer_name(name, path, errors));
    if !goes_both_ways(old) {
        validate_ways(object, path, errors);
    }
}

fn validate_finalizers(object: &Value, path: &Path, errors: &mut Errors) {
    finalizers(object).for_each(|f| validate_finalizer_name(f, path, errors));
    validate_ways(object, path, errors);
}

/// Whether what an object owns is to be deleted before it, and to be left alone.
fn goes_both_ways(object: &Value) -> bool {
    super::has_finalizer(object, FINALIZER_ORPHAN) && super::has_finalizer(object, FINALIZER_FOREGROUND)
}

fn validate_ways(object: &Value, path: &Path, errors: &mut Errors) {
    if goes_both_ways(object) {
        let detail = format!("finalizer {FINALIZER_ORPHAN} and {FINALIZER_FOREGROUND} cannot be both set");
        errors.push(Error::invalid(path, list(object, "finalizers").to_vec(), detail));
    }
}

fn forbid_new_finalizers(new: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    let known: HashSet<&str> = finalizers(old).collect();
    let mut extra: Vec<&str> = finalizers(new).filter(|f| !known.contains(f)).collect();
    extra.sort_unstable();
    extra.dedup();
    if !extra.is_empty() {
        let quoted: Vec<String> = extra.iter().map(|f| crate::text::quote(f)).collect();
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            quoted.join(", ")
        );
        errors.push(Error::forbidden(path, detail));
    }
}

/// The name of a field manager: at most 128 bytes, printable.
pub fn validate_field_manager(manager: &str, path: &Path, errors: &mut Errors) {
    if manager.len() > 128 {
        errors.push(Error::too_long(path, 128));
    }
    for (position, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        let detail = format!("invalid character U+{:04X} (at position {position})", c as u32);
        errors.push(Error::invalid(path, manager, detail));
    }
}

/// Entries of `metadata.managedFields`.
pub fn validate_managed_fields(entries: &[Value], path: &Path, errors: &mut Errors) {
    for (i, entry) in entries.iter().enumerate() {
        let text = |key| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        let path = path.index(i);
        if !matches!(text("operation"), "Apply" | "Update") {
            errors.push(Error::invalid(&path.child("operation"), text("operation"), "must be `Apply` or `Update`"));
        }
        if !matches!(text("fieldsType"), "" | "FieldsV1") {
            errors.push(Error::invalid(&path.child("fieldsType"), text("fieldsType"), "must be `FieldsV1`"));
        }
        validate_field_manager(text("manager"), &path.child("manager"), errors);
        if text("subresource").len() > 256 {
            errors.push(Error::too_long(&path.child("subresource"), 256));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(errors: Errors, expected: &[&str]) {
        let got: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(got.len(), expected.len(), "{got:?}");
        for (got, part) in got.iter().zip(expected) {
            assert!(got.starts_with(part), "{got} does not start with {part}");
        }
    }

    fn create(meta: Value, namespaced: bool, expected: &[&str]) {
        let object = json!({"metadata": meta});
        check(validate_object_meta(&object, namespaced, names::name_is_subdomain, &Path::new("metadata")), expected);
    }

    #[test]
    fn creation() {
        create(json!({"name": "a", "namespace": "n"}), true, &[]);
        create(json!({"name": "a", "generateName": "b-"}), false, &[]);
        let none = "metadata.name: Required value: name or generateName is required";
        create(json!({"namespace": "n"}), true, &[none]);
        create(json!({"name": "A"}), false, &[r#"metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain"#]);
        create(json!({"name": "a"}), true, &["metadata.namespace: Required value"]);
        create(json!({"name": "a", "namespace": "n"}), false, &["metadata.namespace: Forbidden: not allowed on this type"]);
        create(
            json!({"name": "a", "labels": {"a b": "-"}}),
            false,
            &["metadata.labels: Invalid value: \"a b\"", "metadata.labels: Invalid value: \"-\""],
        );
        create(json!({"name": "a", "annotations": {"UPPER/ok": ""}}), false, &[]);
        let big = "x".repeat(ANNOTATIONS_LIMIT);
        create(
            json!({"name": "a", "annotations": {"a": big}}),
            false,
            &["metadata.annotations: Too long: may not be more than 262144 bytes"],
        );
        create(
            json!({"name": "a", "finalizers": ["orphan", "foregroundDeletion"]}),
            false,
            &["metadata.finalizers: Invalid value: [\"orphan\""],
        );
        create(
            json!({"name": "a", "managedFields": [{"operation": "Guess"}]}),
            false,
            &["metadata.managedFields[0].operation: Invalid value: \"Guess\": must be"],
        );
    }

    /// Upstream's TestValidateFinalizersUpdate and `validateKubeFinalizerName`.
    #[test]
    fn finalizers_that_are_added() {
        let of = |names: &[&str]| json!({"metadata": {"finalizers": names}});
        let added = |new: &[&str], old: &[&str], expected: &[&str]| {
            let mut errors = Errors::new();
            validate_added_finalizers(&of(new), &of(old), &Path::new("finalizers"), &mut errors);
            let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), expected.len(), "{found:?}");
            assert!(found.iter().zip(expected).all(|(text, part)| text.contains(part)), "{found:?}");
        };
        let both = ["orphan", "foregroundDeletion"];
        added(&["a.b/c", "orphan"], &[], &[]);
        added(&both, &["orphan"], &["finalizer orphan and foregroundDeletion cannot be both set"]);
        added(&["a.b/c d"], &[], &["Invalid value: \"a.b/c d\""]);
        added(&["a.b/c d", "x.y/z"], &["a.b/c d"], &[]);
        added(&["orphan", "foregroundDeletion", "a.b/c"], &both, &[]);
        added(&[], &["a.b/c d"], &[]);
    }

    #[test]
    fn finalizers_without_a_domain() {
        let of = |names: &[&str]| json!({"metadata": {"finalizers": names}});
        let found = |new: &[&str], old: Option<&[&str]>, expected: &[(usize, &str)]| {
            let (new, old) = (of(new), old.map(of));
            assert_eq!(new_unqualified_finalizers(&new, old.as_ref()), expected);
        };
        found(&["kubernetes", "orphan", "foregroundDeletion", "example.com/x"], None, &[]);
        found(&["example.com/x", "x"], None, &[(1, "x")]);
        found(&["example.com/x", "x"], Some(&["example.com/x"]), &[(1, "x")]);
        found(&["example.com/x", "x"], Some(&["x"]), &[]);
        found(&[], Some(&["x"]), &[]);
    }

    #[test]
    fn owners() {
        let owner = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
        create(json!({"name": "a", "ownerReferences": [owner("x")]}), false, &[]);
        create(
            json!({"name": "a", "ownerReferences": [owner("x"), owner("y")]}),
            false,
            &["metadata.ownerReferences: Invalid value: [{"],
        );
        let empty = ["apiVersion", "kind", "name", "uid"].map(|k| format!("metadata.ownerReferences.{k}: Invalid value: \"\""));
        create(json!({"name": "a", "ownerReferences": [{}]}), false, &empty.each_ref().map(String::as_str));
    }

    #[test]
    fn updates() {
        let old = json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "1", "generation": 2}});
        let update = |change: fn(&mut Value), expected: &[&str]| {
            let mut new = old.clone();
            change(&mut new["metadata"]);
            check(validate_object_meta_update(&new, &old, &Path::new("metadata")), expected);
        };
        update(|_| (), &[]);
        update(|m| m["name"] = "b".into(), &["metadata.name: Invalid value: \"b\": field is immutable"]);
        update(|m| m["generation"] = 1.into(), &["metadata.generation: Invalid value: 1: must not be decremented"]);
        update(
            |m| m["resourceVersion"] = "".into(),
            &["metadata.resourceVersion: Invalid value: \"\": must be specified for an update"],
        );
        update(
            |m| m["deletionGracePeriodSeconds"] = 1.into(),
            &["metadata.deletionGracePeriodSeconds: Invalid value: 1: field is immutable"],
        );
        let deleting = json!({"metadata": {"name": "a", "resourceVersion": "1", "deletionTimestamp": "t"}});
        let mut new = deleting.clone();
        new["metadata"]["finalizers"] = json!(["x/y"]);
        let text = r#"metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"x/y"}"#;
        check(validate_object_meta_update(&new, &deleting, &Path::new("metadata")), &[text]);
    }
}
