//! update, of objects and of the subresources that are views of them

use std::sync::Arc;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{Status, meta, time};
use kinds::Behaviour;
use serde_json::{Map, Value};
use store::Expect;

use crate::confine::{confine, keep_metadata};
use crate::entry::parts::{Apart, Rest};
use crate::pipeline::{
    Unwritten, check_name, check_namespace, count_generation, dedup_owners, requester, validate_finalizers,
    without_managed_fields,
};
use crate::target::{How, Target};
use crate::verbs::list::unsigned;
use crate::{Context, Entry, Operation, Registry, Served, Written};

/// How often a write is tried again after another one came between, when the client asked for no particular version.
pub(crate) const CONFLICT_ATTEMPTS: usize = 20;

/// An object that is to be changed.
pub(crate) struct Live<'a> {
    pub(crate) entry: &'a Arc<Entry>,
    pub(crate) object: Value,
    /// What a write of the status leaves as it is, where that is not decoded.
    pub(crate) rest: Option<Rest<'a>>,
}

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
        check_name(meta::name(&object), name)?;
        check_namespace(&mut object, namespace)?;
        if let Some(Behaviour::Scale) = res.behaviour(sub) {
            return self
                .update_scale(Target { cx, res, sub, namespace, name, how: How::Plain, apart: false }, &res.def.scale, &object)
                .await;
        }
        let target = Target { cx, res, sub, namespace, name, how: How::Plain, apart: false };
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
            let live = self.live(target, &current, true).await?;
            let result = self.replace(target, live, wanted, true).await;
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
        target.may_create().await?;
        let entry = self.create(target.cx, target.res, target.namespace, Some(target.name), object).await?;
        Ok(Written { entry, created: true, object: None })
    }

    /// An object that is to be changed. Where a write of its status allows it, and concerns `status_alone`, the rest stays apart.
    pub(crate) async fn live<'a>(
        &self,
        target: Target<'_>,
        entry: &'a Arc<Entry>,
        status_alone: bool,
    ) -> Result<Live<'a>, Status> {
        let Target { res, sub, cx, .. } = target;
        let is_status = matches!(res.behaviour(sub), Some(Behaviour::Status));
        // Who may look at all of an object has all of it, and so has the answer to a dry run.
        let alone = is_status && status_alone && !cx.dry_run && !self.admission.iter().any(|plugin| plugin.sees_all(self));
        if let Some(Apart { object, rest }) = alone.then(|| res.apart(entry)).flatten() {
            return Ok(Live { entry, object, rest: Some(rest) });
        }
        Ok(Live { entry, object: res.value(entry).await?, rest: None })
    }

    /// One attempt to put `object` in the place of what is there. With `tracked`, ownership of fields is noted here.
    pub(crate) async fn replace(
        &self,
        target: Target<'_>,
        live: Live<'_>,
        mut object: Value,
        tracked: bool,
    ) -> Result<Arc<Entry>, Status> {
        let Live { entry: current, object: mut old, mut rest } = live;
        let target = Target { apart: rest.is_some(), ..target };
        let Target { cx, res, sub, .. } = target;
        check_preconditions(target, current, &old, &object)?;
        // What is apart has its defaults, and so has the status of such a kind.
        if res.is_own_body(sub) && rest.is_none() {
            res.strategy.apply_defaults(&mut object);
        }
        // Owner references of a patch are looked at after admission, as upstream.
        if matches!(target.how, How::Plain) {
            dedup_owners(&mut object, &cx.warnings, "");
        }
        keep_metadata(&mut object, &old);
        meta::set_resource_version(&mut object, current.revision.to_string());
        confine(res, sub, &mut object, &old);
        match &mut rest {
            Some(rest) => self.track_apart(target, rest, &old, &mut object),
            None if tracked => self.track(cx, res, Some(&old), &mut object, sub).await,
            None => {}
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
        if object == old && !self.is_stale(res, current).await? {
            return res.show(current).await;
        }
        let result = if finished(res, &object, &old) {
            self.remove(target, current, &holds).await
        } else {
            self.put(target, &object, rest.as_ref(), Expect::At(current.revision), &holds).await
        };
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
    validate_finalizers(target.res, object, Some(old), &mut errors, &mut found);
    let fixed = if is_plain_status(target) { take_fixed(old) } else { Map::new() };
    let own = without_managed_fields(object, |object| {
        without_managed_fields(old, |old| match sub {
            "" => strategy.validate_update(object, old, &mut found),
            _ => strategy.validate_sub(sub, object, old, &mut found),
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

/// Upstream tells of the resource, and of the version as Go writes an unsigned number: clients and their users know the words.
fn unversioned(target: Target<'_>) -> Status {
    let path = Path::new("metadata").child("resourceVersion");
    let error = Error { value: None, ..Error::invalid(&path, Value::Null, "0x0: must be specified for an update") };
    Status::invalid(&target.res.def.group, &target.res.def.plural, target.name, &Errors::from(vec![error]))
}

/// The body's version and uid, where given, are those of the stored object.
fn check_preconditions(target: Target<'_>, current: &Entry, old: &Value, object: &Value) -> Result<(), Status> {
    let (version, uid) = (meta::resource_version(object), meta::uid(object));
    if !version.is_empty() && version != "0" && unsigned(version) != Some(current.revision) {
        return match unsigned(version) {
            Some(_) => Err(target.modified()),
            None => Err(Status::bad_request(format!("invalid resource version \"{version}\": it must be a number"))),
        };
    }
    if !uid.is_empty() && uid != meta::uid(old) {
        return Err(Status::uid_precondition(&target.res.group_resource, target.name, uid, meta::uid(old)));
    }
    Ok(())
}

/// Whether the update has taken away the last thing that kept a deleted object.
fn finished(res: &Served, object: &Value, old: &Value) -> bool {
    meta::is_deleting(old)
        && meta::finalizers(object).next().is_none()
        && meta::deletion_grace_period_seconds(old).unwrap_or(0) == 0
        && !res.strategy.is_kept(object)
}
