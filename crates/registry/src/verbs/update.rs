//! update, of objects and of the subresources that are views of them

use std::sync::Arc;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{Status, meta, time};
use kinds::Behaviour;
use kinds::util::keep_all_but;
use serde_json::{Map, Value, json};
use store::Expect;

use crate::pipeline::{Unwritten, count_generation, keep_metadata, requester, without_managed_fields};
use crate::target::{How, Target};
use crate::verbs::create::check_identity;
use crate::{Context, Entry, Operation, Registry, Served, Written};

/// How often a write is tried again after another one came between, when the client asked for no particular version.
pub(crate) const CONFLICT_ATTEMPTS: usize = 20;

impl Registry {
    /// Replaces an object, or the part of it that `sub` names.
    pub async fn update(
        &self,
        cx: &Context,
        res: &Served,
        sub: &str,
        namespace: &str,
        name: &str,
        mut object: Value,
    ) -> Result<Written, Status> {
        if let Some(Behaviour::Scale) = res.behaviour(sub) {
            return self.update_scale(Target { cx, res, sub, namespace, name, how: How::Plain }, &res.def.scale, &object).await;
        }
        check_identity(&mut object, namespace, Some(name))?;
        let target = Target { cx, res, sub, namespace, name, how: How::Plain };
        if meta::resource_version(&object) == "0" {
            meta::remove(&mut object, "resourceVersion");
        }
        let version = meta::resource_version(&object).to_owned();
        for _ in 0..CONFLICT_ATTEMPTS {
            let Some(current) = res.storage.cache.get(&target.path()) else {
                return self.create_missing(target, object, &version).await;
            };
            if version.is_empty() && res.def.versioned {
                return Err(unversioned(target));
            }
            // Only a write of no particular version is tried again.
            let wanted = if version.is_empty() { object.clone() } else { std::mem::take(&mut object) };
            let old = res.value(&current).await?;
            let result = self.replace(target, &current, old, wanted, true).await;
            match result {
                Err(status) if status == target.modified() && version.is_empty() => {}
                other => return other.map(|entry| Written { entry, created: false, object: None }),
            }
        }
        Err(target.modified())
    }

    async fn create_missing(&self, target: Target<'_>, object: Value, version: &str) -> Result<Written, Status> {
        if !target.res.def.create_on_update || !target.sub.is_empty() || !version.is_empty() {
            return Err(target.not_found());
        }
        target.may_create()?;
        let entry = self.create(target.cx, target.res, target.namespace, Some(target.name), object).await?;
        Ok(Written { entry, created: true, object: None })
    }

    /// One attempt to put `object` in the place of `current`, whose decoded form is `old`. With `tracked`, ownership of fields
    /// is noted here.
    pub(crate) async fn replace(
        &self,
        target: Target<'_>,
        current: &Arc<Entry>,
        mut old: Value,
        mut object: Value,
        tracked: bool,
    ) -> Result<Arc<Entry>, Status> {
        let Target { cx, res, sub, .. } = target;
        check_preconditions(target, current, &old, &object)?;
        if res.is_own_body(sub) {
            res.strategy.apply_defaults(&mut object);
        }
        keep_metadata(&mut object, &old);
        meta::set_resource_version(&mut object, current.revision.to_string());
        confine(res, sub, &mut object, &old);
        if tracked {
            self.track(cx, res, Some(&old), &mut object, sub);
        }
        let mut object = self.mutate(target, Operation::Update, Some(object), Some(&old)).await?.unwrap_or_default();
        res.strategy.record(&mut object, Some(&old), &requester(cx, &time::now()));
        if res.def.generation && !matches!(res.behaviour(sub), Some(Behaviour::Status)) {
            count_generation(res, &mut object, &old);
        }
        validate_change(target, &mut object, &mut old)?;
        let (admitted, holds) = self.admit(target, Operation::Update, Some(object), Some(&old)).await?;
        let mut object = admitted.unwrap_or_default();
        apimachinery::apply::keep_times(&old, &mut object);
        if object == old {
            return res.show(current).await;
        }
        let result = if finished(res, &object, &old) {
            self.remove(target, current).await
        } else {
            self.put(target, &object, Expect::At(current.revision)).await
        };
        drop(holds);
        result.map_err(|error| match error {
            Unwritten::Store(store::Error::Conflict(None)) => target.not_found(),
            Unwritten::Store(store::Error::Conflict(Some(_))) => target.modified(),
            error => error.into(),
        })
    }
}

/// Rules for a changed object.
fn validate_change(target: Target<'_>, object: &mut Value, old: &mut Value) -> Result<(), Status> {
    let (strategy, sub) = (&target.res.strategy, target.sub);
    let mut errors = meta::validate_object_meta_update(object, old, &Path::new("metadata"));
    let mut found = Vec::new();
    let fixed = if is_plain_status(target) { take_fixed(old) } else { Map::new() };
    let own = without_managed_fields(object, |object| {
        without_managed_fields(old, |old| match sub {
            "" => strategy.validate_update(object, old, &mut found),
            _ => strategy.validate_sub(sub, object, old),
        })
    });
    if let Some(fields) = old.as_object_mut() {
        fields.extend(fixed);
    }
    errors.extend(own);
    target.invalid(&errors)?;
    found.into_iter().for_each(|text| target.cx.warnings.push(text));
    Ok(())
}

/// Whether a status is written whose rules need of the old object only metadata and status. Other versions are made of the whole object,
/// and rules of custom resources may look at all of it.
fn is_plain_status(target: Target<'_>) -> bool {
    let res = target.res;
    matches!(res.behaviour(target.sub), Some(Behaviour::Status)) && !res.is_custom() && !res.is_converted()
}

/// Takes out of the old object what a write of its status does not change: the new one has it too, and decoding it a second time costs
/// more than all the rules.
fn take_fixed(old: &mut Value) -> Map<String, Value> {
    let Some(fields) = old.as_object_mut() else { return Map::new() };
    let (own, fixed) = std::mem::take(fields)
        .into_iter()
        .partition(|(key, _)| ["apiVersion", "kind", "metadata", "status"].contains(&key.as_str()));
    *fields = own;
    fixed
}

fn unversioned(target: Target<'_>) -> Status {
    let path = Path::new("metadata").child("resourceVersion");
    let errors = Errors::from(vec![Error::invalid(&path, 0, "must be specified for an update")]);
    Status::invalid(&target.res.def.group, &target.res.def.kind, target.name, &errors)
}

/// The body's version and uid, where given, are those of the stored object.
fn check_preconditions(target: Target<'_>, current: &Entry, old: &Value, object: &Value) -> Result<(), Status> {
    let (version, uid) = (meta::resource_version(object), meta::uid(object));
    if !version.is_empty() && version != "0" && version.parse() != Ok(current.revision) {
        return match version.parse::<u64>() {
            Ok(_) => Err(target.modified()),
            Err(_) => Err(Status::bad_request(format!("invalid resource version \"{version}\": it must be a number"))),
        };
    }
    if !uid.is_empty() && uid != meta::uid(old) {
        return Err(Status::uid_precondition(&target.res.group_resource, target.name, uid, meta::uid(old)));
    }
    Ok(())
}

/// Takes back what a write through this sub-resource may not change.
fn confine(res: &Served, sub: &str, object: &mut Value, old: &Value) {
    match res.behaviour(sub) {
        None => {
            if res.def.has_status() {
                copy(object, old, "status");
            }
            res.strategy.prepare_update(object, old);
        }
        Some(Behaviour::Status) => {
            keep_all_but(object, old, &["status", "metadata"]);
            let labels = if res.def.status_keeps_labels { "" } else { "labels" };
            if let (Some(metadata), Some(old)) = (object.get_mut("metadata"), old.get("metadata")) {
                keep_all_but(metadata, old, &[labels, "annotations", "finalizers", "managedFields"]);
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

/// Whether the update has taken away the last thing that kept a deleted object.
fn finished(res: &Served, object: &Value, old: &Value) -> bool {
    meta::is_deleting(old)
        && meta::finalizers(object).next().is_none()
        && meta::deletion_grace_period_seconds(old).unwrap_or(0) == 0
        && !res.strategy.is_kept(object)
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
