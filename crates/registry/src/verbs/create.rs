//! create

use std::sync::Arc;

use apimachinery::apply::{self, By};
use apimachinery::{Status, meta, names, time};
use kinds::{Behaviour, StatusKeeps};
use serde_json::{Value, json};
use store::Expect;

use crate::entry::object_path;
use crate::entry::parts::Rest;
use crate::pipeline::{
    Unwritten, check_name, check_namespace, dedup_owners, prepare_metadata, requester, validate_new, wipe_metadata,
};
use crate::target::{How, Target};
use crate::verbs::list::unsigned;
use crate::{Context, Entry, Operation, Registry, Served};

/// How often a generated name is tried before the client is asked to try again.
const NAME_ATTEMPTS: usize = 8;

/// Where a new object comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    /// From a client's POST or PUT: the manager owns what is set.
    Sent,
    /// From server-side apply, which has tracked ownership itself.
    Applied,
}

impl Registry {
    /// Creates an object. `name_in_url` is given when the path names it (PUT, apply).
    pub async fn create(
        &self,
        cx: &Context,
        res: &Served,
        namespace: &str,
        name_in_url: Option<&str>,
        object: Value,
    ) -> Result<Arc<Entry>, Status> {
        self.create_from(cx, res, namespace, name_in_url, object, Created::Sent).await
    }

    pub(crate) async fn create_from(
        &self,
        cx: &Context,
        res: &Served,
        namespace: &str,
        name_in_url: Option<&str>,
        mut object: Value,
        from: Created,
    ) -> Result<Arc<Entry>, Status> {
        check_identity(&mut object, namespace, name_in_url)?;
        wipe_metadata(&mut object);
        // What is no number is no version, and is forgotten, as upstream.
        if unsigned(meta::resource_version(&object)).is_some_and(|version| version != 0) {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let name = meta::name(&object).to_owned();
        let how = if from == Created::Applied { How::Apply } else { How::Plain };
        let target = Target { cx, res, sub: "", namespace, name: &name, how, apart: false };
        self.check_open(target)?;
        res.strategy.apply_defaults(&mut object);
        if from == Created::Sent {
            // What is applied is looked at behind admission, with what was there.
            dedup_owners(&mut object, &cx.warnings, "");
            // Before admission: what it adds belongs to nobody, so that nobody conflicts with it.
            self.track(cx, res, None, &mut object, "").await;
        }
        let mut object = self.mutate(target, Operation::Create, Some(object), None).await?.unwrap_or_default();
        // Those who change objects on their way cannot move them.
        check_identity(&mut object, namespace, None)?;
        prepare_metadata(&mut object);
        self.insert(target, object).await
    }

    /// Whether objects of the kind may still be made. It is asked again after admission, which takes what time it likes: an object that comes
    /// after its definition has gone would be nobody's, and the next definition's of that name.
    fn check_open(&self, target: Target<'_>) -> Result<(), Status> {
        let res = target.res;
        if !res.is_custom() {
            return Ok(());
        }
        let catalog = self.catalog();
        let now = catalog.get(&res.def.group, &res.def.version, &res.def.plural);
        match now.filter(|now| Arc::ptr_eq(&now.storage, &res.storage)) {
            Some(now) if !now.def.closing => Ok(()),
            Some(_) => {
                let why = "create not allowed while custom resource definition is terminating";
                Err(Status::forbidden(&res.group_resource, target.name, why))
            }
            None => Err(target.not_found()),
        }
    }

    /// Notes in managedFields who set what. A webhook that does not convert keeps nobody from writing: then nobody is known to own
    /// anything (upstream: `UpdateNoErrors`).
    pub(crate) async fn track(&self, cx: &Context, res: &Served, live: Option<&Value>, object: &mut Value, sub: &str) {
        let (now, siblings) = (time::now(), self.siblings(res));
        let by = by(cx, res, sub, &now);
        if !res.is_converted_elsewhere() {
            return apply::update(siblings.seen(), live, object, &by);
        }
        let tracked = siblings.resolve(|seen| {
            let mut tracked = object.clone();
            apply::update(seen, live, &mut tracked, &by);
            tracked
        });
        match tracked.await {
            Ok(tracked) => *object = tracked,
            Err(error) => {
                tracing::debug!(kind = &*res.def.kind, %error, "it is not noted who has set what");
                meta::remove(object, "managedFields");
            }
        }
    }

    /// The same for a write of the status, where the managed fields are not in the objects.
    pub(crate) fn track_apart(&self, target: Target<'_>, rest: &mut Rest<'_>, live: &Value, object: &mut Value) {
        let Target { cx, res, sub, .. } = target;
        meta::remove(object, "managedFields");
        let now = time::now();
        let noted =
            |stored: &str| apply::update_encoded(self.siblings(res).seen(), stored, live, object, &by(cx, res, sub, &now));
        rest.managed = rest.managed.as_deref().and_then(noted).map(Into::into);
    }

    /// Names, prepares, validates and commits a new object; a generated name that is taken is generated again.
    async fn insert(&self, target: Target<'_>, mut object: Value) -> Result<Arc<Entry>, Status> {
        let base = meta::generate_name(&object).to_owned();
        let generated = meta::name(&object).is_empty() && !base.is_empty();
        let is_there = |name: &str| target.res.storage.cache.get(&object_path(target.namespace, name)).is_some();
        if generated {
            let mut names = (0..NAME_ATTEMPTS).map(|_| names::generate(&base));
            let Some(name) = names.find(|name| !is_there(name)) else {
                return Err(Status::generate_name_conflict(&target.res.group_resource, &names::generate(&base), 1));
            };
            meta::set_name(&mut object, name);
            // The namespace label repeats the name; other defaults do not depend on it and are in place.
            target.res.strategy.apply_defaults(&mut object);
        } else if meta::name(&object).is_empty() && target.res.def.named_by_uid {
            let uid = meta::uid(&object).to_owned();
            meta::set_name(&mut object, uid);
        }
        let name = meta::name(&object).to_owned();
        let target = Target { name: &name, ..target };
        prepare(target.res, &mut object);
        target.res.strategy.record(&mut object, None, &requester(target.cx, &time::now()));
        target.invalid(&validate_new(target.res, &mut object, &target.cx.warnings))?;
        let (admitted, holds) = self.admit(target, Operation::Create, Some(object), None).await?;
        object = admitted.unwrap_or_default();
        self.check_open(target)?;
        // What is there is told also when nothing can be written, so that who makes sure of an object works on a full disk.
        let result = match is_there(&name) {
            true => Err(Unwritten::Store(store::Error::Conflict(None))),
            false => self.put(target, &object, None, Expect::Absent, &holds).await,
        };
        match result {
            // The name was free a moment ago: who asks again gets another.
            Err(Unwritten::Store(store::Error::Conflict(_))) if generated => {
                Err(Status::generate_name_conflict(&target.res.group_resource, &name, 1))
            }
            Err(Unwritten::Store(store::Error::Conflict(_))) => Err(Status::already_exists(&target.res.group_resource, &name)),
            other => Ok(other?),
        }
    }
}

/// What only the server says of a new object.
fn prepare(res: &Served, object: &mut Value) {
    if res.def.has_status() && !res.def.status_on_create {
        match object.as_object_mut() {
            Some(map) if res.def.status_is_optional => drop(map.remove("status")),
            _ => object["status"] = json!({}),
        }
    }
    res.strategy.prepare_create(object);
    if res.def.generation {
        meta::set_generation(object, 1);
    }
}

/// Who writes through which part of the object; what that part resets is never owned through it.
pub(crate) fn by<'a>(cx: &'a Context, res: &Served, sub: &'a str, now: &'a str) -> By<'a> {
    let reset: &[&[&str]] = match res.behaviour(sub) {
        None if res.def.has_status() => &[&["status"]],
        Some(Behaviour::Status) => match res.def.status_keeps {
            StatusKeeps::Nothing => &[&["spec"]],
            StatusKeeps::Labels => &[&["spec"], &["metadata", "labels"]],
            StatusKeeps::Metadata => &[&["spec"], &["metadata"]],
        },
        _ => &[],
    };
    By { manager: &cx.manager, subresource: sub, now, reset }
}

/// The body says the namespace and name of the path, or leaves them out.
pub(crate) fn check_identity(object: &mut Value, namespace: &str, name_in_url: Option<&str>) -> Result<(), Status> {
    check_namespace(object, namespace)?;
    let Some(wanted) = name_in_url else { return Ok(()) };
    if meta::name(object).is_empty() {
        meta::set_name(object, wanted);
    }
    check_name(meta::name(object), wanted)
}
