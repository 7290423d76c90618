//! The scale subresource: `autoscaling/v1 Scale` as a view of replicas.

use std::sync::Arc;

use apimachinery::apply::Seen;
use apimachinery::field::{Error, Errors, Path};
use apimachinery::{GroupResource, Status, apply, meta, time};
use kinds::ScalePaths;
use serde_json::{Value, json};

use crate::pipeline::{check_name, check_namespace};
use crate::scale::{check_said, offer, read, set};
use crate::target::Target;
use crate::verbs::{CONFLICT_ATTEMPTS, Live, by, check_identity, check_shape, check_type, patched};
use crate::{Entry, Patch, Registry, Written};

/// How many pods a Scale asks for.
fn wanted(target: Target<'_>, scale: &Value) -> Result<i64, Status> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas >= 0 {
        return Ok(replicas);
    }
    let mut errors = Errors::new();
    let path = Path::new("spec").child("replicas");
    errors.push(Error::invalid(&path, replicas, "must be greater than or equal to 0"));
    Err(Status::invalid("autoscaling", "Scale", target.name, &errors))
}

/// What a Scale says of the object that it is for, which is a condition: it is this one (upstream's `scaleUpdatedObjectInfo`), and of this version.
fn condition(target: Target<'_>, scale: &Value, old: &Value, object: &mut Value) -> Result<(), Status> {
    let (uid, version) = (meta::uid(scale), meta::resource_version(scale));
    if !uid.is_empty() && uid != meta::uid(old) {
        let def = &target.res.def;
        let about = GroupResource::new(&*def.group, format!("{}/{}", def.plural, target.sub));
        return Err(Status::uid_precondition(&about, target.name, uid, meta::uid(old)));
    }
    if !version.is_empty() {
        meta::set_resource_version(object, version);
    }
    Ok(())
}

impl Registry {
    pub(crate) async fn update_scale(&self, target: Target<'_>, paths: &ScalePaths, scale: &Value) -> Result<Written, Status> {
        self.change_scale(target, paths, |_| Ok(scale.clone())).await
    }

    pub(crate) async fn patch_scale(&self, target: Target<'_>, paths: &ScalePaths, patch: &Patch) -> Result<Written, Status> {
        if let Patch::Apply(config) = patch {
            return self.apply_scale(target, paths, config).await;
        }
        self.change_scale(target, paths, |current| {
            let mut scale = patched(target, &current, patch)?;
            check_namespace(&mut scale, target.namespace)?;
            check_name(meta::name(&scale), target.name)?;
            Ok(scale)
        })
        .await
    }

    /// Server-side apply of a Scale: one of the object itself, which says the number of its pods and nothing else, through this
    /// sub-resource (upstream: `managedfields.ScaleHandler`).
    async fn apply_scale(&self, target: Target<'_>, paths: &ScalePaths, config: &Value) -> Result<Written, Status> {
        let Target { cx, res, sub, .. } = target;
        check_shape(config)?;
        check_type(target, config)?;
        // What is said of an object that is not there does not count.
        res.storage.cache.get(&target.path()).ok_or_else(|| target.not_found())?;
        let mut scale = config.clone();
        check_identity(&mut scale, target.namespace, Some(target.name))?;
        let says = scale.pointer("/spec/replicas").is_some();
        res.decode(cx, sub, &mut scale)?;
        let replicas = wanted(target, &scale)?;
        let mut config = json!({"apiVersion": res.def.api_version(), "kind": res.def.kind, "metadata": {"name": target.name}});
        if says {
            set(&mut config, &paths.replicas, replicas.into());
        }
        for _ in 0..CONFLICT_ATTEMPTS {
            let current = res.storage.cache.get(&target.path()).ok_or_else(|| target.not_found())?;
            let (old, now) = (res.value(&current).await?, time::now());
            let by = by(cx, res, sub, &now);
            let applied = |seen: Seen<'_>| apply::apply(seen, Some(&old), &config, &by, cx.force);
            let mut object = self.siblings(res).resolve(applied).await??;
            res.decode(cx, "", &mut object)?;
            condition(target, &scale, &old, &mut object)?;
            match self.replace(target, Live { entry: &current, object: old, rest: None }, object, false).await {
                Err(status) if status == target.modified() && meta::resource_version(&scale).is_empty() => {}
                Err(status) => return Err(status),
                Ok(entry) => {
                    let object = Some(read(&entry.value(), paths)?);
                    return Ok(Written { entry, created: false, object });
                }
            }
        }
        Err(target.modified())
    }

    async fn change_scale(
        &self,
        target: Target<'_>,
        paths: &ScalePaths,
        change: impl Fn(Value) -> Result<Value, Status> + Send,
    ) -> Result<Written, Status> {
        for _ in 0..CONFLICT_ATTEMPTS {
            let current = target.res.storage.cache.get(&target.path()).ok_or_else(|| target.not_found())?;
            let before = target.res.value(&current).await?;
            let shown = offer(&before, paths)?;
            let scale = change(shown.clone())?;
            check_said(&scale, paths)?;
            let pinned =
                meta::resource_version(&scale) != meta::resource_version(&shown) && !meta::resource_version(&scale).is_empty();
            match self.set_replicas(target, &current, before, &scale, paths).await {
                Err(status) if status == target.modified() && !pinned => {}
                Err(status) => return Err(status),
                Ok(entry) => {
                    let object = Some(read(&entry.value(), paths)?);
                    return Ok(Written { entry, created: false, object });
                }
            }
        }
        Err(target.modified())
    }

    async fn set_replicas(
        &self,
        target: Target<'_>,
        current: &Arc<Entry>,
        old: Value,
        scale: &Value,
        paths: &ScalePaths,
    ) -> Result<Arc<Entry>, Status> {
        let replicas = wanted(target, scale)?;
        let mut object = old.clone();
        condition(target, scale, &old, &mut object)?;
        set(&mut object, &paths.replicas, replicas.into());
        self.replace(target, Live { entry: current, object: old, rest: None }, object, true).await
    }
}
