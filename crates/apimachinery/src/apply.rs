//! Server-side apply and the tracking of managed fields (KEP-555, structured-merge-diff).
//!
//! Every write records who set which fields. [`update`] does so for create, update and patch; [`apply`] merges a configuration into
//! an object: fields that it names are set, fields that its manager applied before and no longer names are removed unless somebody
//! else owns them, and fields that others own are conflicts.
//!
//! Each manager owns fields of the version through which it wrote: what a write changes is found out in every version that has
//! managers ([`versions`]). Objects are expected in canonical form, in which Go would write them; the configuration of an apply is
//! taken as it came.

mod compare;
mod encoded;
mod extract;
mod managed;
mod merge;
mod overlay;
mod set;
mod shape;
mod versions;

use crate::meta;
use crate::status::{Cause, Reason, Status};
use compare::{Diff, compare, is_unowned_meta, is_unowned_root};
pub use encoded::update_encoded;
use managed::Managed;
pub use managed::check_managed_fields;
pub use overlay::{OverlayError, overlay};
use schema::{Schema, TypeId};
use serde_json::{Map, Value};
use set::Set;
pub use shape::Types;
use shape::field_element;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
pub use versions::{Alone, Seen, Versions};

/// The annotation of client-side apply.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Who owns what was there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Who writes, when, and what they cannot write.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// The field manager; empty is recorded as `unknown`.
    pub manager: &'a str,
    /// Such as `status`; empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339 in whole seconds, see [`crate::time::now`].
    pub now: &'a str,
    /// Paths that the endpoint resets, such as `status` for the object and `spec` for its status: never owned through it.
    pub reset: &'a [&'a [&'a str]],
}

impl By<'_> {
    fn manager(&self) -> &str {
        if self.manager.is_empty() { "unknown" } else { self.manager }
    }
}

/// Records in `new` who set what by a create (no `live` object), update or patch.
///
/// As upstream, an object whose entries were reset stays without until the next apply.
pub fn update(seen: Seen<'_>, live: Option<&Value>, new: &mut Value, by: &By<'_>) {
    let sent = meta::remove(new, "managedFields");
    let mut managed = managed::of_update(sent.as_ref(), live, !by.subresource.is_empty());
    if live.is_some() && managed.is_empty() {
        return;
    }
    let empty;
    let old = match live {
        Some(live) => live,
        None => {
            empty = empty_object(seen.types);
            &empty
        }
    };
    let diff = compare(seen.types.root(), old, new).without(&set::of_fields(by.reset));
    if !diff.is_empty() {
        record(seen, &mut managed, diff, (old, new), by);
    }
    managed.cap();
    meta::set_managed_fields(new, managed.encode());
}

/// Notes who has changed what between two states of an object.
fn record(seen: Seen<'_>, managed: &mut Managed, diff: Diff, objects: (&Value, &Value), by: &By<'_>) {
    let api_version = meta::api_version(objects.1);
    seen.settle(managed, api_version);
    let diffs = seen.diffs(diff, managed, api_version, objects, by);
    managed.take(&diffs, None);
    managed.add_update(by, api_version, diffs.into_own());
}

/// Merges a configuration into an object, or makes the object of it. The result carries the new `managedFields`; like any written
/// object it still has to be decoded and defaulted. When nothing changes it equals `live`.
///
/// # Errors
/// 409 with a cause per field when others own fields that would change, unless `force`; 400 when the configuration cannot be
/// applied; 500 without a reason, as upstream, when it does not fit the types.
pub fn apply(seen: Seen<'_>, live: Option<&Value>, patch: &Value, by: &By<'_>, force: bool) -> Result<Value, Status> {
    let types = seen.types;
    check_patch(types, live, patch)?;
    let entries = live.map_or(&[][..], meta::managed_fields);
    let decode_error = |e| unknown_error(format!("failed to decode managed fields: {e}"));
    let mut managed = Managed::decode(entries).map_err(decode_error)?;
    let empty = empty_object(types);
    let mut base = live.cloned().unwrap_or_else(|| Value::clone(&empty));
    meta::remove(&mut base, "managedFields");
    if managed.is_empty() && live.is_some() {
        let before = By { manager: BEFORE_FIRST_APPLY, ..*by };
        let diff = compare(types.root(), &empty, &base).without(&set::of_fields(by.reset));
        managed.add_update(&before, meta::api_version(patch), diff.changed);
    }
    seen.settle(&mut managed, meta::api_version(patch));
    let job = Job { seen, live: &base, patch, by };
    let mut result = job.run(&managed, force);
    // `kubectl apply --server-side` takes over what `kubectl apply` set before.
    if let Err(conflicts) = &mut result
        && by.manager == "kubectl"
        && let Some(allowed) = job.allowed_by_last_applied()
    {
        conflicts.iter_mut().for_each(|(_, set)| set::subtract(set, &allowed));
        conflicts.retain(|(_, set)| !set.is_empty());
        if conflicts.is_empty() {
            result = job.run(&managed, true);
        }
    }
    let (mut object, managed) = result.map_err(|conflicts| conflict_status(&conflicts))?;
    if by.manager == "kubectl" {
        update_last_applied(&mut object, patch);
    }
    meta::set_managed_fields(&mut object, managed.encode());
    Ok(object)
}

/// Gives `new` the times of `live` when it differs in nothing but times of `managedFields`: a write that changes nothing is none.
/// To be called last, on the decoded and defaulted object.
pub fn keep_times(live: &Value, new: &mut Value) {
    let (old_entries, new_entries) = (meta::managed_fields(live), meta::managed_fields(new));
    let same_but_times = |a: &Value, b: &Value| {
        let fields = |v: &Value| v.as_object().map_or(0, |m| m.len() - usize::from(m.contains_key("time")));
        let differs = |(k, v): (&String, &Value)| k != "time" && b.get(k) != Some(v);
        fields(a) == fields(b) && !a.as_object().into_iter().flatten().any(differs)
    };
    let same_entries =
        old_entries.len() == new_entries.len() && old_entries.iter().zip(new_entries).all(|(a, b)| same_but_times(a, b));
    if !same_entries || old_entries == new_entries {
        return;
    }
    let theirs = meta::remove(new, "managedFields").unwrap_or_default();
    meta::set_managed_fields(new, old_entries.to_vec());
    if new != live {
        meta::set(new, "managedFields", theirs);
    }
}

fn check_patch(types: Types<'_>, live: Option<&Value>, patch: &Value) -> Result<(), Status> {
    if !patch.is_object() {
        return Err(Status::bad_request("error decoding YAML: the configuration is not an object"));
    }
    let wanted = live.map(|l| (meta::api_version(l), meta::kind(l))).filter(|(_, kind)| !kind.is_empty());
    if wanted.is_some_and(|wanted| wanted != (meta::api_version(patch), meta::kind(patch))) {
        let gvk = crate::GroupVersionKind::of(patch);
        return Err(Status::bad_request(format!("invalid object type: {gvk}")));
    }
    if meta::metadata(patch).and_then(|m| m.get("managedFields")).is_some_and(|m| !m.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let errors = extract::validate(types.root(), patch, MAX_TOLD);
    let text = match errors.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:{}", many.iter().map(|error| format!("\n  {error}")).collect::<String>()),
    };
    let named = format!("{}/{}; {}", meta::namespace(patch), meta::name(patch), crate::GroupVersionKind::of(patch));
    Err(unknown_error(format!("failed to create typed patch object ({named}): {text}")))
}

/// Upstream returns these as plain errors, which clients see as 500 without a reason.
fn unknown_error(message: String) -> Status {
    Status::new(500, Reason::Other("".into()), message)
}

/// Managers, as upstream names them, and what they own.
type Conflicts = Vec<(String, Set)>;

/// One merge of a configuration into an object.
struct Job<'a> {
    seen: Seen<'a>,
    live: &'a Value,
    patch: &'a Value,
    by: &'a By<'a>,
}

impl Job<'_> {
    fn run(&self, managed: &Managed, force: bool) -> Result<(Value, Managed), Conflicts> {
        let root = self.seen.types.root();
        let api_version = meta::api_version(self.patch);
        let reset = set::of_fields(self.by.reset);
        let mut fields = extract::extract(root, self.patch);
        set::subtract_recursive(&mut fields, &reset);
        let last = managed.last_applied(self.by).map(|(last, version)| (last.clone(), version.to_owned()));
        let mut managed = managed.clone();
        managed.set_apply(self.by, api_version, fields.clone(), false);
        let merged = merge::merge(root, self.live, self.patch);
        let object = match last {
            Some((last, version)) => self.seen.prune(&merged, (&last, &version), &managed, api_version).unwrap_or(merged),
            None => merged,
        };
        let diff = compare(root, self.live, &object).without(&reset);
        let diffs = self.seen.diffs(diff, &managed, api_version, (self.live, &object), self.by);
        let conflicts = managed.conflicts(self.by, &diffs);
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        managed.take(&diffs, managed.applied(self.by));
        strip(&mut fields);
        managed.set_apply(self.by, api_version, fields, object != *self.live);
        Ok((object, managed))
    }

    /// The fields that client-side apply set and nobody changed since.
    fn allowed_by_last_applied(&self) -> Option<Set> {
        let text = meta::annotation(self.live, LAST_APPLIED)?;
        let last_applied: Value = serde_json::from_str(text).ok()?;
        if meta::api_version(&last_applied) != meta::api_version(self.patch) {
            return None;
        }
        let root = self.seen.types.root();
        let mut fields = extract::extract(root, &last_applied);
        let Diff { changed, removed } = compare(root, &last_applied, self.live);
        set::subtract(&mut fields, &changed);
        set::subtract(&mut fields, &removed);
        Some(fields)
    }
}

/// Takes out the fields that nobody owns.
fn strip(fields: &mut Set) {
    fields.retain(|key, _| !key.strip_prefix("f:").is_some_and(is_unowned_root));
    let metadata = field_element("metadata");
    if let Some(Value::Object(below)) = fields.get_mut(&metadata) {
        below.retain(|key, _| key != "." && !key.strip_prefix("f:").is_some_and(is_unowned_meta));
        if below.is_empty() {
            fields.remove(&metadata);
        }
    }
}

fn update_last_applied(object: &mut Value, patch: &Value) {
    if meta::annotation(object, LAST_APPLIED).is_none_or(str::is_empty) {
        return;
    }
    let mut config = patch.clone();
    meta::remove_annotation(&mut config, LAST_APPLIED);
    meta::set_annotation(object, LAST_APPLIED, format!("{config}\n"));
    let sizes = meta::annotations(object).into_iter().flatten();
    let size: usize = sizes.map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > meta::ANNOTATIONS_LIMIT {
        meta::remove_annotation(object, LAST_APPLIED);
    }
}

/// Bytes of text about the fields of an apply that conflict or are wrong: what is beyond is not told.
const MAX_TOLD: usize = 256 << 10;

fn conflict_status(conflicts: &Conflicts) -> Status {
    let mut causes = Vec::new();
    let mut by_manager: Vec<(&String, Vec<String>)> = Vec::new();
    let mut left = MAX_TOLD;
    for (manager, fields) in conflicts {
        let paths = set::paths(fields, left);
        left = paths.iter().fold(left, |left, path| left.saturating_sub(path.len() + manager.len()));
        causes.extend(paths.iter().map(|path| Cause {
            reason: "FieldManagerConflict".to_owned(),
            message: format!("conflict with {manager}"),
            field: path.clone(),
        }));
        by_manager.push((manager, paths));
    }
    by_manager.sort();
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        _ => {
            let lines = by_manager.iter().map(|(manager, paths)| {
                let paths: String = paths.iter().map(|p| format!("\n- {p}")).collect();
                format!("conflicts with {manager}:{paths}")
            });
            format!("Apply failed with {} conflicts: {}", causes.len(), lines.collect::<Vec<_>>().join("\n"))
        }
    };
    Status::apply_conflict(causes, message)
}

/// An object without anything, in canonical form: the fields that Go always writes are not owned by whoever creates one.
fn empty_object(types: Types<'_>) -> Arc<Value> {
    static BUILTIN: LazyLock<RwLock<HashMap<TypeId, Arc<Value>>>> = LazyLock::new(RwLock::default);
    let new = || Arc::new(Value::Object(Map::new()));
    let Types::Builtin(schema, id) = types else { return new() };
    if !std::ptr::eq(schema, Schema::builtin()) {
        return decode_empty(schema, id);
    }
    if let Some(known) = BUILTIN.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
        return known.clone();
    }
    let made = decode_empty(schema, id);
    BUILTIN.write().unwrap_or_else(PoisonError::into_inner).insert(id, made.clone());
    made
}

fn decode_empty(schema: &Schema, id: TypeId) -> Arc<Value> {
    let mut value = Value::Object(Map::new());
    // An empty object has no value of a wrong type: this cannot fail.
    if schema::decode(schema, id, &mut value).is_err() {
        value = Value::Object(Map::new());
    }
    Arc::new(value)
}

#[cfg(test)]
mod tests;
