//! delete and deletecollection

use std::sync::Arc;

use apimachinery::{Status, meta, time};
use futures::{TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use kinds::Dependents;
use serde_json::Value;
use store::{Expect, Hold};

use crate::pipeline::Unwritten;
use crate::target::{How, Target};
use crate::verbs::update::CONFLICT_ATTEMPTS;
use crate::{Context, DeleteOptions, Deleted, Entry, List, ListOptions, Operation, Registry, Served};

/// How many objects of a collection are deleted at once: the store writes them together. One after the other, a large collection takes longer
/// than its request may.
const AT_ONCE: usize = 32;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Who is asked whether an object may be deleted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admit {
    /// Admission.
    All,
    /// It has been asked about what the deletion is a part of (upstream: `rest.ValidateAllObjectFunc`).
    Already,
}

/// What a deletion does to the stored object.
#[derive(Debug, PartialEq)]
enum Step {
    /// Nothing keeps it.
    Remove,
    /// It is marked, and goes later.
    Mark(Value),
    /// It is marked already.
    Nothing,
}

impl Registry {
    /// Deletes an object: at once, or by marking it when it has finalizers or a grace period.
    pub async fn delete(
        &self,
        cx: &Context,
        res: &Served,
        namespace: &str,
        name: &str,
        options: DeleteOptions,
    ) -> Result<Deleted, Status> {
        let target = Target { cx, res, sub: "", namespace, name, how: How::Delete(&options), apart: false };
        if let Some(warning) =
            res.def.silent_deletion.filter(|_| options.propagation.is_none() && options.orphan_dependents.is_none())
        {
            cx.warnings.push(warning);
        }
        self.delete_target(target, &options, Admit::All).await
    }

    /// Deletes an object.
    pub(crate) async fn delete_target(
        &self,
        target: Target<'_>,
        options: &DeleteOptions,
        admit: Admit,
    ) -> Result<Deleted, Status> {
        for _ in 0..CONFLICT_ATTEMPTS {
            let current = target.res.storage.cache.get(&target.path()).ok_or_else(|| target.not_found())?;
            match self.delete_once(target, &current, options, admit).await {
                Err(Unwritten::Store(store::Error::Conflict(_))) => {}
                Ok(result) => return result,
                Err(error) => return Err(error.into()),
            }
        }
        Err(target.modified())
    }

    async fn delete_once(
        &self,
        target: Target<'_>,
        current: &Arc<Entry>,
        options: &DeleteOptions,
        admit: Admit,
    ) -> Result<Result<Deleted, Status>, Unwritten> {
        let old = target.res.value(current).await?;
        let holds = match self.admit_deletion(target, current, &old, options, admit).await {
            Ok(holds) => holds,
            Err(status) => return Ok(Err(status)),
        };
        Ok(Ok(match plan(target.res, &old, options, Timestamp::now()) {
            Step::Remove => Deleted::Now(self.remove(target, current, &holds).await?),
            Step::Nothing => Deleted::Later(target.res.show(current).await?),
            Step::Mark(object) => Deleted::Later(self.put(target, &object, None, Expect::At(current.revision), &holds).await?),
        }))
    }

    async fn admit_deletion(
        &self,
        target: Target<'_>,
        current: &Entry,
        old: &Value,
        options: &DeleteOptions,
        admit: Admit,
    ) -> Result<Vec<Hold>, Status> {
        check_preconditions(target, current, old, options)?;
        if admit == Admit::Already {
            return Ok(Vec::new());
        }
        self.mutate(target, Operation::Delete, None, Some(old)).await?;
        Ok(self.admit(target, Operation::Delete, None, Some(old)).await?.1)
    }

    /// Deletes every object that `list` selects, each as [`Registry::delete`] does. What is deleted stays so when one cannot be, and when nobody waits
    /// any more; no other is begun then.
    pub async fn delete_collection(
        &self,
        cx: &Context,
        res: &Served,
        namespace: Option<&str>,
        list: &ListOptions,
        options: DeleteOptions,
    ) -> Result<List, Status> {
        let selected = self.list(res, namespace, list).await?;
        let deletions = stream::iter(selected.entries.iter().map(Ok)).try_for_each_concurrent(AT_ONCE, |entry: &Arc<Entry>| {
            let options = options.clone();
            async move {
                // In the namespace that the request is about, and whose rights were asked for.
                let namespace = namespace.unwrap_or_else(|| entry.namespace());
                match self.delete(cx, res, namespace, entry.name(), options).await {
                    Err(status) if !status.is(apimachinery::Reason::NotFound) => Err(status),
                    _ => Ok(()),
                }
            }
        });
        deletions.await?;
        Ok(selected)
    }
}

fn check_preconditions(target: Target<'_>, current: &Entry, old: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let gr = &target.res.group_resource;
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != meta::uid(old)) {
        return Err(Status::delete_uid_precondition(gr, target.name, uid, meta::uid(old)));
    }
    let actual = current.revision.to_string();
    match options.resource_version.as_deref() {
        Some(wanted) if wanted != actual => Err(Status::delete_resource_version_precondition(gr, target.name, wanted, &actual)),
        _ => Ok(()),
    }
}

/// Decides what a deletion does. Pure.
fn plan(res: &Served, old: &Value, options: &DeleteOptions, now: Timestamp) -> Step {
    let mut object = old.clone();
    let finalizers_changed = set_propagation(res.def.dependents, &mut object, options);
    let kept = meta::finalizers(&object).next().is_some() || res.strategy.is_kept(old);
    if let Some(deadline) = meta::deletion_timestamp(old) {
        let before = meta::deletion_grace_period_seconds(old).unwrap_or(0);
        // While its grace period lasts, an object's deletion can be made shorter and is otherwise as it was asked for first: it ends when whoever ends
        // it says so, whatever the object says meanwhile (upstream: `rest.BeforeDelete`).
        let shorter = options.grace_seconds.map(|asked| if asked < 0 { 1 } else { asked }).filter(|asked| *asked < before);
        if before > 0 && shorter.is_none() {
            return Step::Nothing;
        }
        if shorter.unwrap_or(0) == 0 && !kept {
            return Step::Remove;
        }
        if let Some(grace) = shorter {
            // The clock started when the object was marked first. A time that was beyond the calendar does not tell when.
            let deadline = time::parse(deadline).filter(|deadline| deadline.as_second() < Timestamp::MAX.as_second());
            let start = deadline.map_or(now, |deadline| later(deadline, before.saturating_neg()));
            mark(&mut object, start, grace);
        }
        return if finalizers_changed || shorter.is_some() { Step::Mark(object) } else { Step::Nothing };
    }
    let grace = res.strategy.grace_seconds(old, options.grace_seconds);
    if grace == 0 && !kept {
        return Step::Remove;
    }
    mark(&mut object, now, grace);
    if meta::generation(&object) > 0 {
        let next = meta::generation(&object) + 1;
        meta::set_generation(&mut object, next);
    }
    res.strategy.prepare_delete(&mut object);
    Step::Mark(object)
}

/// Clients choose the seconds: what lies beyond the calendar is at its end.
fn later(time: Timestamp, seconds: i64) -> Timestamp {
    let end = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(end)
}

fn mark(object: &mut Value, start: Timestamp, grace: i64) {
    meta::set_deletion_timestamp(object, time::format(later(start, grace)));
    meta::set_deletion_grace_period_seconds(object, Some(grace));
}

/// Finalizers that make the garbage collector treat dependents as asked. Says whether they changed.
fn set_propagation(default: Dependents, object: &mut Value, options: &DeleteOptions) -> bool {
    let decided = meta::has_finalizer(object, ORPHAN) || meta::has_finalizer(object, FOREGROUND);
    let policy = match (options.propagation.as_deref(), options.orphan_dependents, default) {
        (_, _, Dependents::None) => "Background",
        (Some(policy), _, _) => policy,
        (None, Some(true), _) => "Orphan",
        (None, Some(false), _) => "Background",
        (None, None, Dependents::Stay) if !decided => "Orphan",
        (None, None, _) => return false,
    };
    let orphan = if policy == "Orphan" { meta::add_finalizer(object, ORPHAN) } else { meta::remove_finalizer(object, ORPHAN) };
    let foreground =
        if policy == "Foreground" { meta::add_finalizer(object, FOREGROUND) } else { meta::remove_finalizer(object, FOREGROUND) };
    orphan || foreground
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn resource(kind: &str) -> std::sync::Arc<Served> {
        crate::Catalog::builtin(kinds::KINDS).unwrap().iter().find(|served| served.def.kind == kind).unwrap().clone()
    }

    fn check(kind: &str, object: Value, options: DeleteOptions, expected: &str) {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let step = match plan(&resource(kind), &object, &options, now) {
            Step::Remove => "remove".to_owned(),
            Step::Nothing => "nothing".to_owned(),
            Step::Mark(object) => {
                let grace = meta::deletion_grace_period_seconds(&object).unwrap_or(-1);
                let finalizers = meta::finalizers(&object).collect::<Vec<_>>().join(",");
                format!("{} {grace} {finalizers}", meta::deletion_timestamp(&object).unwrap_or_default())
            }
        };
        assert_eq!(step.trim(), expected, "{object} {options:?}");
    }

    #[test]
    fn deletions() {
        let none = DeleteOptions::default;
        let now = DeleteOptions { grace_seconds: Some(0), ..none() };
        let foreground = DeleteOptions { propagation: Some("Foreground".into()), ..none() };
        check("ConfigMap", json!({"metadata": {"name": "a"}}), none(), "remove");
        check("ConfigMap", json!({"metadata": {"name": "a", "finalizers": ["x/y"]}}), none(), "2026-01-01T00:00:00Z 0 x/y");
        check("ConfigMap", json!({"metadata": {"name": "a"}}), foreground.clone(), "2026-01-01T00:00:00Z 0 foregroundDeletion");
        let background = DeleteOptions { propagation: Some("Background".into()), ..none() };
        let controller = json!({"metadata": {"name": "a"}});
        check("ReplicationController", controller.clone(), none(), "2026-01-01T00:00:00Z 0 orphan");
        check("ReplicationController", controller.clone(), background, "remove");
        check("ReplicationController", controller, foreground.clone(), "2026-01-01T00:00:00Z 0 foregroundDeletion");
        let foreground_already = json!({"metadata": {"name": "a", "finalizers": [FOREGROUND]}});
        check("ReplicationController", foreground_already, none(), "2026-01-01T00:00:00Z 0 foregroundDeletion");
        check("Event", json!({"metadata": {"name": "a"}}), foreground.clone(), "remove");
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}});
        check("Pod", pod.clone(), none(), "2026-01-01T00:00:05Z 5");
        check("Pod", pod.clone(), now.clone(), "remove");
        let ages = DeleteOptions { grace_seconds: Some(i64::MAX), ..none() };
        check("Pod", pod.clone(), ages, "9999-12-30T22:00:00Z 9223372036854775807");
        let mut patient = pod.clone();
        patient["metadata"]["deletionTimestamp"] = "9999-12-30T22:00:00Z".into();
        patient["metadata"]["deletionGracePeriodSeconds"] = i64::MAX.into();
        check("Pod", patient, DeleteOptions { grace_seconds: Some(2), ..none() }, "2026-01-01T00:00:02Z 2");
        check("Pod", json!({"metadata": {"name": "a"}, "spec": {}}), none(), "remove");
        let mut marked = pod;
        marked["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:05Z".into();
        marked["metadata"]["deletionGracePeriodSeconds"] = 5.into();
        check("Pod", marked.clone(), none(), "nothing");
        check("Pod", marked.clone(), DeleteOptions { grace_seconds: Some(2), ..none() }, "2026-01-01T00:00:02Z 2");
        check("Pod", marked.clone(), now.clone(), "remove");
        // Cases of upstream's `TestDeletionResponseMatrix`: nothing but less time changes a deletion whose grace period lasts.
        check("Pod", marked.clone(), DeleteOptions { grace_seconds: Some(9), ..none() }, "nothing");
        check("Pod", marked.clone(), DeleteOptions { grace_seconds: Some(-1), ..none() }, "2026-01-01T00:00:01Z 1");
        check("Pod", marked.clone(), foreground.clone(), "nothing");
        let mut ended = marked.clone();
        ended["status"]["phase"] = "Succeeded".into();
        check("Pod", ended.clone(), none(), "nothing");
        check("Pod", ended, now.clone(), "remove");
        let mut held = marked;
        held["metadata"]["finalizers"] = json!(["x/y"]);
        check("Pod", held.clone(), foreground.clone(), "nothing");
        check("Pod", held.clone(), now.clone(), "2026-01-01T00:00:00Z 0 x/y");
        held["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        held["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        check("Pod", held.clone(), none(), "nothing");
        check("Pod", held.clone(), now, "nothing");
        let both = "2026-01-01T00:00:00Z 0 x/y,foregroundDeletion";
        check("Pod", held.clone(), foreground.clone(), both);
        held["kind"] = "ConfigMap".into();
        check("ConfigMap", held.clone(), none(), "nothing");
        check("ConfigMap", held.clone(), foreground, both);
        // One that nothing keeps any more has only been forgotten.
        meta::remove_finalizer(&mut held, "x/y");
        check("Pod", held, none(), "remove");
        let kept = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}});
        check("Namespace", kept, none(), "2026-01-01T00:00:00Z 0");
    }
}
