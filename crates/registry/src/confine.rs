//! What a change may change: through the object itself all but its status, through a sub-resource its part, and never what only the
//! server says. It is looked at when the change comes, and again when admission has made something else of it.

use apimachinery::meta;
use kinds::util::keep_all_but;
use kinds::{Behaviour, StatusKeeps};
use serde_json::{Value, json};

use crate::Served;

/// Metadata of a changed object: what only the server sets stays as it was. An update cannot take a `deletionTimestamp` away. One that it adds is
/// left for validation to refuse, since the object would not be deleted.
pub(crate) fn keep_metadata(object: &mut Value, old: &Value) {
    for key in ["uid", "creationTimestamp", "deletionTimestamp", "generation", "generateName", "selfLink"] {
        match meta::metadata(old).and_then(|metadata| metadata.get(key)) {
            Some(value) => meta::set(object, key, value.clone()),
            None if key == "deletionTimestamp" => {}
            None => drop(meta::remove(object, key)),
        }
    }
    if let Some(seconds) =
        meta::deletion_grace_period_seconds(old).filter(|_| meta::deletion_grace_period_seconds(object).is_none())
    {
        meta::set(object, "deletionGracePeriodSeconds", seconds);
    }
}

/// Takes back what a write through this sub-resource may not change.
pub(crate) fn confine(res: &Served, sub: &str, object: &mut Value, old: &Value) {
    match res.behaviour(sub) {
        None => {
            if res.def.has_status() {
                copy(object, old, "status");
            }
            res.strategy.prepare_update(object, old);
        }
        Some(Behaviour::Status) => {
            keep_all_but(object, old, &["status", "metadata"]);
            let writable: &[&str] = match res.def.status_keeps {
                StatusKeeps::Nothing => &["labels", "annotations", "finalizers", "managedFields"],
                StatusKeeps::Labels => &["annotations", "finalizers", "managedFields"],
                StatusKeeps::Metadata => &["managedFields"],
            };
            if let (Some(metadata), Some(old)) = (object.get_mut("metadata"), old.get("metadata")) {
                keep_all_but(metadata, old, writable);
            }
            if let Some(map) = object.as_object_mut().filter(|_| !res.def.status_is_optional) {
                map.entry("status").or_insert_with(|| json!({}));
            }
            res.strategy.prepare_status(object, old);
        }
        Some(Behaviour::Part(confine)) => confine(object, old),
        Some(Behaviour::Scale | Behaviour::Action(_) | Behaviour::Connect(_)) => {}
    }
}

fn copy(object: &mut Value, from: &Value, key: &str) {
    match (from.get(key), object.as_object_mut()) {
        (Some(value), Some(map)) => drop(map.insert(key.to_owned(), value.clone())),
        (None, Some(map)) => drop(map.remove(key)),
        (_, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sub: &str, object: Value, old: Value, expected: Value) {
        let (mut object, catalog) = (object, crate::Catalog::builtin(kinds::KINDS).expect("all kinds have a schema"));
        confine(catalog.get("", "v1", "namespaces").expect("namespaces are served"), sub, &mut object, &old);
        assert_eq!(object, expected, "{sub}");
    }

    /// Upstream: `rest.BeforeUpdate` restores the marks of deletion that an object has; others are left to the rules of metadata.
    #[test]
    fn nobody_says_by_an_update_that_an_object_goes() {
        let check = |old: Value, new: Value, expected: Value| {
            let mut object = json!({"metadata": new});
            keep_metadata(&mut object, &json!({"metadata": old}));
            assert_eq!(object["metadata"], expected);
        };
        let (going, later) =
            (json!({"deletionTimestamp": "t", "deletionGracePeriodSeconds": 5}), json!({"deletionTimestamp": "u"}));
        check(going.clone(), json!({}), going.clone());
        check(going.clone(), later.clone(), going.clone());
        check(json!({"uid": "u"}), later, json!({"uid": "u", "deletionTimestamp": "u"}));
        check(json!({}), json!({"deletionGracePeriodSeconds": 0, "uid": "v"}), json!({"deletionGracePeriodSeconds": 0}));
    }

    #[test]
    fn a_view_changes_its_part_alone() {
        let old = json!({"kind": "N", "metadata": {"name": "a", "labels": {"x": "1"}, "uid": "u"}, "spec": {"finalizers": ["k"]},
                         "status": {"phase": "Active"}});
        let with = |pointer: &str, value: Value| {
            let mut object = old.clone();
            *object.pointer_mut(pointer).expect("a field of the object") = value;
            object
        };
        let sent = json!({"metadata": {"name": "b", "labels": {"x": "2"}}, "spec": {"finalizers": [], "other": 1}, "more": 1,
                          "status": {"phase": "Terminating"}});
        let mut status = with("/status/phase", json!("Terminating"));
        status["metadata"]["labels"] = json!({"x": "2"});
        check("status", sent.clone(), old.clone(), status);
        check("status", json!({"metadata": {"labels": {"x": "1"}}}), old.clone(), with("/status", json!({})));
        check("finalize", sent, old.clone(), with("/spec/finalizers", json!([])));
        check("finalize", json!({}), old.clone(), with("/spec", json!({})));
    }
}
