//! Access to `apiVersion`, `kind` and `metadata` of an object in JSON form.
//!
//! Readers never fail: what is absent or of the wrong type reads as empty, as a decoded Go struct would. Writers create what is missing.

mod validate;

use serde_json::{Map, Value};
use std::collections::HashSet;
pub use validate::*;

/// `apiVersion`, or empty.
pub fn api_version(object: &Value) -> &str {
    text(object, "apiVersion")
}

/// `kind`, or empty.
pub fn kind(object: &Value) -> &str {
    text(object, "kind")
}

/// Sets `apiVersion` and `kind`.
pub fn set_type(object: &mut Value, api_version: &str, kind: &str) {
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
}

/// `metadata`, if it is an object.
pub fn metadata(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.as_object()
}

/// `metadata`, created when absent (or replaced when it is not an object).
///
/// # Panics
/// When `object` is not a JSON object.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    object_entry(object.as_object_mut().expect("an API object is a JSON object"), "metadata")
}

fn object_entry<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    if !map.get(key).is_some_and(Value::is_object) {
        map.insert(key.to_owned(), Value::Object(Map::new()));
    }
    map.get_mut(key).and_then(Value::as_object_mut).expect("just inserted")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A text field of `metadata`, or empty.
pub fn get<'a>(object: &'a Value, key: &str) -> &'a str {
    metadata(object).and_then(|m| m.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// Sets a field of `metadata`; empty text and null remove it.
pub fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    let value = value.into();
    if value.is_null() || value.as_str().is_some_and(str::is_empty) {
        metadata_mut(object).remove(key);
    } else {
        metadata_mut(object).insert(key.to_owned(), value);
    }
}

/// Removes a field of `metadata` and returns it.
pub fn remove(object: &mut Value, key: &str) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove(key)
}

macro_rules! texts {
    ($($(#[$doc:meta])* $get:ident, $set:ident, $key:literal;)+) => { $(
        $(#[$doc])*
        pub fn $get(object: &Value) -> &str { get(object, $key) }
        #[doc = concat!("Sets `metadata.", $key, "`; the empty string removes it.")]
        pub fn $set(object: &mut Value, value: impl Into<String>) { set(object, $key, value.into()) }
    )+ };
}

texts! {
    /// `metadata.name`.
    name, set_name, "name";
    /// `metadata.generateName`.
    generate_name, set_generate_name, "generateName";
    /// `metadata.namespace`, empty for objects of the cluster.
    namespace, set_namespace, "namespace";
    /// `metadata.uid`.
    uid, set_uid, "uid";
    /// `metadata.resourceVersion`.
    resource_version, set_resource_version, "resourceVersion";
    /// `metadata.creationTimestamp`, RFC 3339.
    creation_timestamp, set_creation_timestamp, "creationTimestamp";
}

/// `metadata.deletionTimestamp`, RFC 3339; `None` for an object that is not being deleted.
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    Some(get(object, "deletionTimestamp")).filter(|t| !t.is_empty())
}

/// Whether the object is being deleted.
pub fn is_deleting(object: &Value) -> bool {
    deletion_timestamp(object).is_some()
}

/// Sets `metadata.deletionTimestamp`.
pub fn set_deletion_timestamp(object: &mut Value, time: impl Into<String>) {
    set(object, "deletionTimestamp", time.into());
}

/// `metadata.deletionGracePeriodSeconds`.
pub fn deletion_grace_period_seconds(object: &Value) -> Option<i64> {
    metadata(object)?.get("deletionGracePeriodSeconds")?.as_i64()
}

/// Sets or removes `metadata.deletionGracePeriodSeconds`.
pub fn set_deletion_grace_period_seconds(object: &mut Value, seconds: Option<i64>) {
    set(object, "deletionGracePeriodSeconds", seconds.map_or(Value::Null, Value::from));
}

/// `metadata.generation`, 0 when absent.
pub fn generation(object: &Value) -> i64 {
    metadata(object).and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or(0)
}

/// Sets `metadata.generation`; 0 removes it.
pub fn set_generation(object: &mut Value, generation: i64) {
    set(object, "generation", if generation == 0 { Value::Null } else { generation.into() });
}

/// `metadata.labels`, if there are any.
pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    metadata(object)?.get("labels")?.as_object()
}

/// `metadata.annotations`, if there are any.
pub fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    metadata(object)?.get("annotations")?.as_object()
}

/// One label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object)?.get(key)?.as_str()
}

/// One annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    annotations(object)?.get(key)?.as_str()
}

/// Sets one label.
pub fn set_label(object: &mut Value, key: &str, value: impl Into<String>) {
    object_entry(metadata_mut(object), "labels").insert(key.to_owned(), Value::String(value.into()));
}

/// Sets one annotation.
pub fn set_annotation(object: &mut Value, key: &str, value: impl Into<String>) {
    object_entry(metadata_mut(object), "annotations").insert(key.to_owned(), Value::String(value.into()));
}

/// Removes one annotation; the map goes when it becomes empty.
pub fn remove_annotation(object: &mut Value, key: &str) -> Option<Value> {
    let meta = object.get_mut("metadata")?.as_object_mut()?;
    let map = meta.get_mut("annotations")?.as_object_mut()?;
    let removed = map.remove(key);
    if map.is_empty() {
        meta.remove("annotations");
    }
    removed
}

/// A list of `metadata`; empty when absent.
fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    metadata(object).and_then(|m| m.get(key)).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn set_list(object: &mut Value, key: &str, items: Vec<Value>) {
    set(object, key, if items.is_empty() { Value::Null } else { Value::Array(items) });
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "finalizers").iter().filter_map(Value::as_str)
}

/// Whether a finalizer is set.
pub fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    finalizers(object).any(|f| f == finalizer)
}

/// Sets `metadata.finalizers`; an empty list removes it.
pub fn set_finalizers<S: Into<String>>(object: &mut Value, finalizers: impl IntoIterator<Item = S>) {
    set_list(object, "finalizers", finalizers.into_iter().map(|f| Value::String(f.into())).collect());
}

/// Adds a finalizer unless it is there; says whether it was added.
pub fn add_finalizer(object: &mut Value, finalizer: &str) -> bool {
    if has_finalizer(object, finalizer) {
        return false;
    }
    let mut all = list(object, "finalizers").to_vec();
    all.push(finalizer.into());
    set_list(object, "finalizers", all);
    true
}

/// Removes a finalizer; says whether it was there.
pub fn remove_finalizer(object: &mut Value, finalizer: &str) -> bool {
    if !has_finalizer(object, finalizer) {
        return false;
    }
    let kept = list(object, "finalizers").iter().filter(|f| f.as_str() != Some(finalizer)).cloned().collect();
    set_list(object, "finalizers", kept);
    true
}

/// `metadata.ownerReferences`.
pub fn owner_references(object: &Value) -> &[Value] {
    list(object, "ownerReferences")
}

/// Sets `metadata.ownerReferences`; an empty list removes it.
pub fn set_owner_references(object: &mut Value, references: Vec<Value>) {
    set_list(object, "ownerReferences", references);
}

/// Keeps of owner references that are equal in all fields the first. The value names the uid of each that went (upstream:
/// `dedupOwnerReferences`).
pub fn dedup_owner_references(object: &mut Value) -> Vec<String> {
    let references = owner_references(object);
    // Nearly all have one at most.
    if references.len() < 2 {
        return Vec::new();
    }
    let (mut seen, mut kept, mut gone) = (HashSet::with_capacity(references.len()), Vec::new(), Vec::new());
    for reference in references {
        if seen.insert(reference) {
            kept.push(reference.clone());
        } else {
            gone.push(reference["uid"].as_str().unwrap_or_default().to_owned());
        }
    }
    if !gone.is_empty() {
        set_owner_references(object, kept);
    }
    gone
}

/// The owner reference whose `controller` is true.
pub fn controller_of(object: &Value) -> Option<&Value> {
    owner_references(object).iter().find(|r| r.get("controller").and_then(Value::as_bool) == Some(true))
}

/// `metadata.managedFields`.
pub fn managed_fields(object: &Value) -> &[Value] {
    list(object, "managedFields")
}

/// Sets `metadata.managedFields`; an empty list removes it.
pub fn set_managed_fields(object: &mut Value, entries: Vec<Value>) {
    set_list(object, "managedFields", entries);
}

/// `namespace/name`, or `name` for objects of the cluster: the key of informers and queues.
pub fn key(object: &Value) -> String {
    match namespace(object) {
        "" => name(object).to_owned(),
        namespace => format!("{namespace}/{}", name(object)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_and_writes() {
        let mut o = json!({"apiVersion": "v1", "kind": "Pod"});
        assert_eq!((name(&o), generation(&o), finalizers(&o).count()), ("", 0, 0));
        set_name(&mut o, "a");
        set_namespace(&mut o, "n");
        set_generation(&mut o, 2);
        set_label(&mut o, "k", "v");
        set_annotation(&mut o, "x", "y");
        assert!(add_finalizer(&mut o, "f/1") && !add_finalizer(&mut o, "f/1"));
        let meta = json!({"name": "a", "namespace": "n", "generation": 2, "labels": {"k": "v"}, "annotations": {"x": "y"}, "finalizers": ["f/1"]});
        assert_eq!(o["metadata"], meta);
        assert_eq!((key(&o).as_str(), label(&o, "k"), annotation(&o, "x")), ("n/a", Some("v"), Some("y")));
        assert!(remove_finalizer(&mut o, "f/1") && !remove_finalizer(&mut o, "f/1"));
        remove_annotation(&mut o, "x");
        set_generation(&mut o, 0);
        set_namespace(&mut o, "");
        assert_eq!(o["metadata"], json!({"name": "a", "labels": {"k": "v"}}));
    }

    #[test]
    fn wrong_types_read_as_empty() {
        let o = json!({"metadata": {"name": 1, "labels": [], "finalizers": {}, "ownerReferences": null}});
        assert_eq!((name(&o), labels(&o).is_none(), owner_references(&o).len(), is_deleting(&o)), ("", true, 0, false));
    }

    /// The cases of upstream's unit test `TestDedupOwnerReferences` (apiserver/pkg/endpoints/handlers/rest_test.go): what differs in a field stays.
    #[test]
    fn equal_owner_references() {
        let owner = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "K", "name": name, "uid": uid});
        let with = |mut owner: Value, key: &str, value: bool| {
            owner[key] = value.into();
            owner
        };
        let check = |references: &[Value], expected: &[usize], gone: &[&str]| {
            let mut object = json!({"metadata": {"name": "o", "ownerReferences": references}});
            assert_eq!(dedup_owner_references(&mut object), gone);
            assert_eq!(owner_references(&object), expected.iter().map(|i| references[*i].clone()).collect::<Vec<_>>());
        };
        let (a, b) = (owner("n", "1"), owner("n", "2"));
        check(&[], &[], &[]);
        check(&[a.clone(), b.clone()], &[0, 1], &[]);
        check(&[a.clone(), b.clone(), a.clone(), a.clone(), b], &[0, 1], &["1", "1", "2"]);
        check(&[a.clone(), owner("m", "1")], &[0, 1], &[]);
        let (controller, no) = (with(a.clone(), "controller", true), with(a.clone(), "controller", false));
        check(&[a.clone(), controller.clone(), no.clone(), no, controller], &[0, 1, 2], &["1", "1"]);
        let blocks = with(a.clone(), "blockOwnerDeletion", true);
        check(&[blocks.clone(), a, blocks], &[0, 1], &["1"]);
        assert_eq!(dedup_owner_references(&mut json!({})), [""; 0]);
    }

    #[test]
    fn controllers() {
        let o = json!({"metadata": {"ownerReferences": [{"name": "a"}, {"name": "b", "controller": true}]}});
        assert_eq!(controller_of(&o).map(|r| &r["name"]), Some(&json!("b")));
    }
}
