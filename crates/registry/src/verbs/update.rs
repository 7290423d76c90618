//! update, of objects and of the subresources that are views of them

use std::sync::Arc;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{Status, meta};
use serde_json::{Value, json};
use store::Expect;

use crate::pipeline::{Target, count_generation, keep_metadata, storage_error};
use crate::verbs::create::{check_identity, track};
use crate::{Context, Entry, Operation, Registry, Resource, Written};

/// How often a write is tried again after another one came between, when the client asked for no particular version.
pub(crate) const CONFLICT_ATTEMPTS: usize = 20;

impl Registry {
    /// Replaces an object, or the part of it that `sub` names.
    pub async fn update(
        &self,
        cx: &Context,
        res: &Resource,
        sub: &str,
        namespace: &str,
        name: &str,
        mut object: Value,
    ) -> Result<Written, Status> {
        if sub == "scale" {
            return self.update_scale(cx, res, namespace, name, &object).await;
        }
        check_identity(&mut object, namespace, Some(name))?;
        let target = Target { cx, res, sub, namespace, name };
        if meta::resource_version(&object) == "0" {
            meta::remove(&mut object, "resourceVersion");
        }
        let version = meta::resource_version(&object).to_owned();
        for _ in 0..CONFLICT_ATTEMPTS {
            let Some(current) = res.cache.get(&target.path()) else {
                return self.create_missing(target, object, &version).await;
            };
            if version.is_empty() && res.def.versioned {
                return Err(unversioned(target));
            }
            let result = self.replace(target, &current, object.clone(), true).await;
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

    /// One attempt to put `object` in the place of `current`. With `tracked`, ownership of fields is noted here.
    pub(crate) async fn replace(
        &self,
        target: Target<'_>,
        current: &Arc<Entry>,
        mut object: Value,
        tracked: bool,
    ) -> Result<Arc<Entry>, Status> {
        let Target { cx, res, sub, .. } = target;
        let old = res.value(current);
        check_preconditions(target, current, &old, &object)?;
        if sub.is_empty() {
            res.strategy.apply_defaults(&mut object);
        }
        keep_metadata(&mut object, &old);
        meta::set_resource_version(&mut object, current.revision.to_string());
        confine(res, sub, &mut object, &old);
        if tracked {
            track(cx, res, Some(&old), &mut object, sub);
        }
        let mut object = self.mutate(target, Operation::Update, object, Some(&old)).await?;
        if res.def.generation && sub != "status" {
            count_generation(&mut object, &old);
        }
        self.validate_change(target, &object, &old)?;
        let held = match self.hook(res) {
            Some(hook) if sub.is_empty() => hook.before_write(self, &mut object, Some(&old)).await?,
            _ => None,
        };
        let mut object = self.admit(target, Operation::Update, Some(object), Some(&old)).await?.unwrap_or_default();
        apimachinery::apply::keep_times(&old, &mut object);
        if object == old {
            return Ok(res.show(current));
        }
        let result = if finished(res, &object, &old) {
            self.remove(target, current).await
        } else {
            self.put(target, &object, Expect::At(current.revision)).await
        };
        drop(held);
        result.map_err(|error| match error {
            store::Error::Conflict(None) => target.not_found(),
            store::Error::Conflict(Some(_)) => target.modified(),
            error => storage_error(error),
        })
    }

    fn validate_change(&self, target: Target<'_>, object: &Value, old: &Value) -> Result<(), Status> {
        let mut errors = meta::validate_object_meta_update(object, old, &Path::new("metadata"));
        let strategy = target.res.strategy;
        let mut found = Vec::new();
        let own = if target.sub.is_empty() {
            strategy.validate_update(object, old, &mut found)
        } else {
            strategy.validate_sub(target.sub, object, old)
        };
        errors.0.extend(own.0);
        target.invalid(&errors)?;
        found.into_iter().for_each(|text| target.cx.warnings.push(text));
        Ok(())
    }
}

fn unversioned(target: Target<'_>) -> Status {
    let path = Path::new("metadata").child("resourceVersion");
    let errors = Errors(vec![Error::invalid(&path, 0, "must be specified for an update")]);
    Status::invalid(target.res.def.group, target.res.def.kind, target.name, &errors)
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

/// Takes back what this view of the object may not change.
fn confine(res: &Resource, sub: &str, object: &mut Value, old: &Value) {
    match sub {
        "" => {
            if res.def.has_status() {
                copy(object, old, "status");
            }
            res.strategy.prepare_update(object, old);
        }
        "status" => {
            let status = object.get("status").cloned();
            let metadata = object.get("metadata").cloned();
            *object = old.clone();
            object["status"] = status.unwrap_or_else(|| json!({}));
            let metadata = metadata.unwrap_or_default();
            for key in ["labels", "annotations", "finalizers", "managedFields"] {
                if !(key == "labels" && res.def.status_keeps_labels) {
                    copy(&mut object["metadata"], &metadata, key);
                }
            }
            res.strategy.prepare_status(object, old);
        }
        "finalize" => keep_all_but(object, old, "spec", "finalizers"),
        "ephemeralcontainers" => keep_all_but(object, old, "spec", "ephemeralContainers"),
        _ => {}
    }
}

fn copy(object: &mut Value, from: &Value, key: &str) {
    match (from.get(key), object.as_object_mut()) {
        (Some(value), Some(map)) => drop(map.insert(key.to_owned(), value.clone())),
        (None, Some(map)) => drop(map.remove(key)),
        (_, None) => {}
    }
}

/// The old object with one field of one part from the new one.
fn keep_all_but(object: &mut Value, old: &Value, part: &str, field: &str) {
    let given = object.get(part).and_then(|part| part.get(field)).cloned();
    *object = old.clone();
    match given {
        Some(given) => object[part][field] = given,
        None => {
            if let Some(map) = object.get_mut(part).and_then(Value::as_object_mut) {
                map.remove(field);
            }
        }
    }
}

/// Whether the update has taken away the last thing that kept a deleted object.
fn finished(res: &Resource, object: &Value, old: &Value) -> bool {
    let is_namespace = res.def.kind == "Namespace" && res.def.group.is_empty();
    let spec_finalizers = object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    meta::is_deleting(old)
        && meta::finalizers(object).next().is_none()
        && meta::deletion_grace_period_seconds(old).unwrap_or(0) == 0
        && !(is_namespace && spec_finalizers)
}
