//! The steps that every write goes through, whatever its verb.

use std::sync::Arc;

use apimachinery::field::{Errors, Path};
use apimachinery::{Status, apply, meta, names, time};
use bytes::Bytes;
use kinds::UnqualifiedFinalizers;
use serde_json::Value;
use store::{Change, Expect, Hold, Lane, Write};

use crate::admission::{Admission, Request};
use crate::context::{Context, Warnings};
use crate::entry::Entry;
use crate::entry::object_path;
use crate::entry::parts::Rest;
use crate::metrics;
use crate::metrics::admission::{self as measured, Step};
use crate::target::{How, Target};
use crate::{Operation, Registry, Served, size};

/// Why a write was not done, or cannot be shown.
#[derive(Debug)]
pub(crate) enum Unwritten {
    /// The store did not take it.
    Store(store::Error),
    /// It could not be converted.
    Refused(Status),
}

impl From<store::Error> for Unwritten {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<Status> for Unwritten {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

impl From<Unwritten> for Status {
    fn from(error: Unwritten) -> Self {
        match error {
            Unwritten::Store(error) => storage_error(error),
            Unwritten::Refused(status) => status,
        }
    }
}

/// A store failure as a client sees it. Conflicts are handled where they mean something.
pub(crate) fn storage_error(error: store::Error) -> Status {
    match error {
        store::Error::NoSpace | store::Error::Quota { .. } => {
            Status::new(507, apimachinery::Reason::InternalError, error.to_string())
        }
        store::Error::Compacted(_) => Status::expired(),
        other => Status::internal(other),
    }
}

impl Registry {
    /// Runs the mutating plugins in order, and hands the object back. What they changed is decoded, and gets its defaults, again.
    pub(crate) async fn mutate(
        &self,
        target: Target<'_>,
        operation: Operation,
        object: Option<Value>,
        old: Option<&Value>,
    ) -> Result<Option<Value>, Status> {
        let mut request = Request::new(self, target, operation, object, old);
        measured::step(operation, Step::Admit, async {
            // A second time when what has changed the object concerns the plugins before it, and never a third time.
            while request.begin_round() {
                for plugin in &self.admission {
                    if self.concerns(plugin.as_ref(), target, &request) {
                        measured::plugin(plugin.name(), operation, Step::Admit, plugin.mutate(&mut request)).await?;
                    }
                }
            }
            Ok::<_, Status>(())
        })
        .await?;
        let (changed, managed) = (request.changed(), request.take_managed());
        let mut object = request.into_object();
        if let (true, Some(object)) = (changed, &mut object) {
            target.res.decode(target.cx, target.sub, object)?;
            if target.res.is_own_body(target.sub) {
                target.res.strategy.apply_defaults(object);
            }
        }
        if let Some(object) = &mut object {
            if let Some(before) = managed {
                settle_managed_fields(object, before, &target.cx.warnings);
            }
            dedup_owners(object, &target.cx.warnings, " after mutating admission happens");
        }
        Ok(object)
    }

    /// Runs the plugins that hold something for the object, and then those that validate it, in order. What is held is the second
    /// value, which goes with the write.
    pub(crate) async fn admit(
        &self,
        target: Target<'_>,
        operation: Operation,
        object: Option<Value>,
        old: Option<&Value>,
    ) -> Result<(Option<Value>, Vec<Hold>), Status> {
        let mut request = Request::new(self, target, operation, object, old);
        let mut holds = Vec::new();
        for plugin in &self.admission {
            if self.concerns(plugin.as_ref(), target, &request) {
                holds.extend(plugin.reserve(&mut request).await?);
            }
        }
        measured::step(operation, Step::Validate, async {
            for plugin in &self.admission {
                if self.concerns(plugin.as_ref(), target, &request) {
                    measured::plugin(plugin.name(), operation, Step::Validate, plugin.validate(&request)).await?;
                }
            }
            Ok::<_, Status>(())
        })
        .await?;
        Ok((request.into_object(), holds))
    }

    /// Whether a plugin has a say. One that has come to see all objects since a write of a status began comes too late for it.
    fn concerns(&self, plugin: &dyn Admission, target: Target<'_>, request: &Request<'_>) -> bool {
        plugin.handles(request) && !(target.apart && plugin.sees_all(self))
    }

    /// Admission for a connection (exec, proxy...), which writes nothing; its options are its object.
    pub async fn connect(
        &self,
        cx: &Context,
        res: &Served,
        sub: &str,
        (namespace, name): (&str, &str),
        options: Option<Value>,
    ) -> Result<(), Status> {
        let target = Target { cx, res, sub, namespace, name, how: How::Plain, apart: false };
        let options = self.mutate(target, Operation::Connect, options, None).await?;
        self.admit(target, Operation::Connect, options, None).await.map(|_| ())
    }

    /// Commits an object and returns it as every reader now sees it. Of what a write of the status has left apart, the text is the
    /// `rest`. What is held stays so until the write is decided, also when the request ends before.
    pub(crate) async fn put(
        &self,
        target: Target<'_>,
        object: &Value,
        rest: Option<&Rest<'_>>,
        expect: Expect,
        holds: &[Hold],
    ) -> Result<Arc<Entry>, Unwritten> {
        let res = target.res;
        let (object, index, form) = res.stored_form(object).await?;
        let stored = match rest {
            Some(rest) => res.encode_apart(&object, rest),
            None => res.encode(&object, form.as_deref()),
        };
        let stored = stored.map_err(|error| store::Error::Failed(error.to_string()))?;
        let stored = size::check(target, (&index, form.as_deref()), stored, expect).await?;
        if target.cx.dry_run {
            return Ok(res.show(&self.rehearse(target, &object, expect)?).await?);
        }
        let key = res.storage.key(index.path());
        let operation = if expect == Expect::Absent { "create" } else { "update" };
        let change = Change::Put(stored.clone());
        let removes = matches!(target.how, How::Delete(_));
        let write = Write { note: Some(index.clone()), holds: holds.to_vec(), removes, ..self.write(res, key, expect, change) };
        let revision = metrics::timed(operation, target, self.engine.commit(write)).await?;
        // The cache has it already, unless somebody was quicker to write it again.
        let cached = res.storage.cache.get(index.path()).filter(|entry| entry.revision == revision);
        let entry = cached.unwrap_or_else(|| Arc::new(res.storage.cache.entry(&stored, revision, Some(index))));
        Ok(res.show(&entry).await?)
    }

    /// Commits a deletion and returns the last state.
    pub(crate) async fn remove(&self, target: Target<'_>, last: &Arc<Entry>, holds: &[Hold]) -> Result<Arc<Entry>, Unwritten> {
        if target.cx.dry_run {
            return Ok(target.res.show(last).await?);
        }
        let key = target.res.storage.key(last.index.path());
        let write = self.write(target.res, key, Expect::At(last.revision), Change::Delete);
        let write = Write { holds: holds.to_vec(), ..write };
        let revision = metrics::timed("delete", target, self.engine.commit(write)).await?;
        Ok(target.res.show(&Arc::new(target.res.storage.cache.restamp(last, revision))).await?)
    }

    /// Whether an object is to be written also without a change: what is stored of it is not what would be stored now.
    pub(crate) async fn is_stale(&self, res: &Served, current: &Entry) -> Result<bool, Status> {
        // Of another version, which only a webhook can convert: who writes it back migrates it.
        if !res.storage.form().encoding.is_of(&current.json) {
            return Ok(true);
        }
        self.engine.is_stale(&res.storage.key(current.index.path())).await.map_err(storage_error)
    }

    /// What a dry run answers: the object as it would be, under its present revision.
    fn rehearse(&self, target: Target<'_>, object: &Value, expect: Expect) -> Result<Arc<Entry>, store::Error> {
        let path = object_path(meta::namespace(object), meta::name(object));
        if expect == Expect::Absent && target.res.storage.cache.get(&path).is_some() {
            return Err(store::Error::Conflict(None));
        }
        let mut object = object.clone();
        if let Expect::At(revision) = expect {
            meta::set_resource_version(&mut object, revision.to_string());
        }
        Ok(Arc::new(target.res.storage.cache.unstored(&object)))
    }

    /// A write of an object of the kind.
    fn write(&self, res: &Served, key: Bytes, expect: Expect, change: Change) -> Write {
        let lane = if res.def.ephemeral { Lane::Ephemeral } else { Lane::Durable };
        let ttl = res.def.expires.then_some(self.options.event_ttl);
        Write { ttl, ..Write::new(key, expect, change, lane) }
    }
}

/// Who writes, as kinds may note it.
pub(crate) fn requester<'a>(cx: &'a Context, now: &'a str) -> kinds::Requester<'a> {
    let user = &cx.user;
    kinds::Requester { name: &user.name, uid: &user.uid, groups: &user.groups, extra: &user.extra, now }
}

/// What replaces an object has the name of the path: writes rename nothing (upstream: `checkName`).
pub(crate) fn check_name(found: &str, wanted: &str) -> Result<(), Status> {
    match found {
        _ if found == wanted => Ok(()),
        "" => Err(Status::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        ))),
        _ => Err(Status::bad_request(format!("the name of the object ({found}) does not match the name on the URL ({wanted})"))),
    }
}

/// The namespace of a body is that of the path, and comes into it where it does not say one: admission sees where an object will be. What is in
/// no namespace has none (upstream: `EnsureObjectNamespaceMatchesRequestNamespace`).
///
/// # Errors
/// The body says another namespace.
pub(crate) fn check_namespace(object: &mut Value, namespace: &str) -> Result<(), Status> {
    let given = meta::namespace(object);
    if given == namespace {
        return Ok(());
    }
    if namespace.is_empty() {
        meta::remove(object, "namespace");
        return Ok(());
    }
    if !given.is_empty() {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(message));
    }
    meta::set_namespace(object, namespace);
    Ok(())
}

/// Takes away what only the server says of a new object, so that admission does not see what a client has made up (upstream:
/// `WipeObjectMetaSystemFields`).
pub(crate) fn wipe_metadata(object: &mut Value) {
    for key in ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        meta::remove(object, key);
    }
}

/// Brings the metadata of what is posted, and need not be kept, into the form in which rules are meant to see it: in the namespace of
/// the path, and without what only the server says.
///
/// # Errors
/// The body says another namespace (400).
pub fn settle_posted(object: &mut Value, namespace: &str) -> Result<(), Status> {
    check_namespace(object, namespace)?;
    wipe_metadata(object);
    Ok(())
}

/// Sets managed fields back to what they were before admission, if nobody could read them afterwards, and says so (upstream:
/// `managedFieldsValidatingAdmissionController`).
fn settle_managed_fields(object: &mut Value, before: Option<Value>, warnings: &Warnings) {
    let Err(why) = apply::check_managed_fields(meta::managed_fields(object)) else { return };
    meta::set(object, "managedFields", before.unwrap_or_default());
    warnings.push(format!(
        ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission \
         controller; please fix your requests: {why}"
    ));
}

/// Drops owner references that are there twice, and says so. `when` stands behind what is wrong (upstream:
/// `dedupOwnerReferencesAndAddWarning`).
pub(crate) fn dedup_owners(object: &mut Value, warnings: &Warnings, when: &str) {
    let gone = meta::dedup_owner_references(object);
    if !gone.is_empty() {
        warnings.push(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may \
             reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            gone.join(", ")
        ));
    }
}

/// Metadata of a new object, before its name is generated.
pub(crate) fn prepare_metadata(object: &mut Value) {
    wipe_metadata(object);
    for key in ["resourceVersion", "generation"] {
        meta::remove(object, key);
    }
    meta::set(object, "uid", names::new_uid());
    meta::set(object, "creationTimestamp", time::now());
}

/// Rules for a new object.
pub(crate) fn validate_new(res: &Served, object: &mut Value, warnings: &Warnings) -> Errors {
    let rule = name_rule(res);
    let mut errors = meta::validate_object_meta(object, res.def.namespaced, rule, &Path::new("metadata"));
    let mut found = Vec::new();
    validate_finalizers(res, object, None, &mut errors, &mut found);
    errors.extend(without_managed_fields(object, |object| res.strategy.validate(object, &mut found)));
    if errors.is_empty() {
        found.into_iter().for_each(|text| warnings.push(text));
    }
    errors
}

/// Finalizers that a change of a built-in kind adds, and what the kind says of new ones without a domain, whose names another controller may
/// have chosen, too.
pub(crate) fn validate_finalizers(
    res: &Served,
    object: &Value,
    old: Option<&Value>,
    errors: &mut Errors,
    warnings: &mut Vec<String>,
) {
    if old.is_some_and(|old| meta::finalizers(old).eq(meta::finalizers(object))) {
        return;
    }
    let path = Path::new("metadata").child("finalizers");
    if let Some(old) = old.filter(|_| !res.is_custom()) {
        meta::validate_added_finalizers(object, old, &path, errors);
    }
    let rule = res.def.unqualified_finalizers;
    if rule == UnqualifiedFinalizers::Kept {
        return;
    }
    for (index, name) in meta::new_unqualified_finalizers(object, old) {
        if rule == UnqualifiedFinalizers::Refused {
            meta::validate_qualified_finalizer(name, &path.index(index), errors);
            continue;
        }
        let advice = "prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers";
        warnings.push(format!("{path}: {name:?}: {advice}"));
    }
}

/// Lends an object to a kind's rules without its managed fields: no rule reads them, and decoding them costs as much as the rest.
pub(crate) fn without_managed_fields<T>(object: &mut Value, rules: impl FnOnce(&Value) -> T) -> T {
    let managed = meta::remove(object, "managedFields");
    let result = rules(object);
    if let Some(managed) = managed {
        meta::set(object, "managedFields", managed);
    }
    result
}

/// The generation counts changes of what the user asks for: everything but metadata and status.
/// Without a status of its own, a custom resource's status is like any other field.
pub(crate) fn count_generation(res: &Served, object: &mut Value, old: &Value) {
    let has_status = res.def.has_status() || !res.def.status_is_optional;
    let changed = |key: &&str| {
        let map = |object| meta::metadata(object).and_then(|all| all.get(*key)?.as_object()).filter(|map| !map.is_empty());
        map(object) != map(old)
    };
    if res.def.generation_of.iter().any(changed) || !wanted(object, has_status).eq(wanted(old, has_status)) {
        meta::set_generation(object, meta::generation(old) + 1);
    }
}

fn wanted(object: &Value, has_status: bool) -> impl Iterator<Item = (&String, &Value)> {
    let fields = object.as_object().into_iter().flatten();
    fields.filter(move |(key, _)| {
        let own = ["metadata", "apiVersion", "kind"].contains(&key.as_str());
        !own && (!has_status || key.as_str() != "status")
    })
}

/// The name check of a kind in the form that metadata validation takes.
fn name_rule(res: &Served) -> names::NameFn {
    match res.def.name {
        kinds::NameRule::Subdomain => names::name_is_subdomain,
        kinds::NameRule::Label => names::name_is_label,
        kinds::NameRule::PathSegment => names::name_is_path_segment,
        kinds::NameRule::IpAddress => names::name_is_ip,
    }
}
