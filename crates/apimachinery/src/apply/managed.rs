//! The entries of `metadata.managedFields`.

use super::By;
use super::compare::Diffs;
use super::set::{self, Set};
use crate::field::{Errors, Path};
use crate::meta;
use crate::text::quote;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// More entries of operation `Update` than this are merged, oldest first.
pub(super) const MAX_UPDATE_MANAGERS: usize = 10;
/// Who owns what merged entries owned.
const ANCIENT: &str = "ancient-changes";

/// What a manager does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who owns what: entries in the form in which they are stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Managed(Vec<Map<String, Value>>);

fn text<'a>(entry: &'a Map<String, Value>, key: &str) -> &'a str {
    entry.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn fields(entry: &Map<String, Value>) -> &Set {
    static EMPTY: std::sync::LazyLock<Set> = std::sync::LazyLock::new(Set::new);
    entry.get("fieldsV1").and_then(Value::as_object).unwrap_or(&EMPTY)
}

/// What tells entries apart: manager, operation, subresource, and the version for updates.
fn identity(entry: &Map<String, Value>) -> (&str, &str, &str, &str) {
    let operation = text(entry, "operation");
    let version = if operation == "Apply" { "" } else { text(entry, "apiVersion") };
    (text(entry, "manager"), operation, version, text(entry, "subresource"))
}

impl Managed {
    /// Reads entries; the error says which one is malformed.
    pub(crate) fn decode(entries: &[Value]) -> Result<Self, String> {
        let mut out = Self(Vec::with_capacity(entries.len() + 1));
        let mut known = HashMap::with_capacity(entries.len());
        for (i, entry) in entries.iter().enumerate() {
            let entry = entry.as_object().ok_or_else(|| format!("managed fields entry {i} is not an object"))?;
            check(entry, i)?;
            let position = *known.entry(identity(entry)).or_insert(out.0.len());
            match out.0.get_mut(position) {
                Some(earlier) => *earlier = entry.clone(),
                None => out.0.push(entry.clone()),
            }
        }
        Ok(out)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries, in upstream's order.
    pub(crate) fn encode(mut self) -> Vec<Value> {
        let order =
            |e: &Map<String, Value>| ["operation", "time", "manager", "apiVersion", "subresource"].map(|k| text(e, k).to_owned());
        if self.0.len() > 1 {
            self.0.sort_by_cached_key(order);
        }
        self.0.into_iter().map(Value::Object).collect()
    }

    /// What a manager applied last, and in which version.
    pub(crate) fn last_applied(&self, by: &By<'_>) -> Option<(&Set, &str)> {
        self.applied(by).map(|i| (fields(&self.0[i]), text(&self.0[i], "apiVersion")))
    }

    /// The versions that entries are of, each once.
    pub(crate) fn versions(&self) -> Vec<String> {
        let mut versions: Vec<String> = Vec::new();
        for version in self.0.iter().map(|entry| text(entry, "apiVersion")) {
            if !versions.iter().any(|known| known == version) {
                versions.push(version.to_owned());
            }
        }
        versions
    }

    /// Changes the fields of every entry; entries for whose version there is no change are dropped.
    pub(crate) fn revise(&mut self, mut change: impl FnMut(&str, &mut Set) -> Option<()>) {
        self.0.retain_mut(|entry| {
            let version = text(entry, "apiVersion").to_owned();
            let mut none = Set::new();
            let fields = entry.get_mut("fieldsV1").and_then(Value::as_object_mut);
            change(&version, fields.unwrap_or(&mut none)).is_some()
        });
    }

    fn position(&self, by: &By<'_>, operation: Operation, api_version: &str) -> Option<usize> {
        let version = if operation == Operation::Apply { "" } else { api_version };
        let wanted = (by.manager(), operation.as_str(), version, by.subresource);
        self.0.iter().position(|e| identity(e) == wanted)
    }

    /// All fields of all entries of a version.
    pub(crate) fn everything(&self, api_version: &str) -> Set {
        let mut out = Set::new();
        let entries = self.0.iter().filter(|entry| text(entry, "apiVersion") == api_version);
        entries.for_each(|entry| set::union(&mut out, fields(entry)));
        out
    }

    /// Takes what has changed away from all entries but the one at `except`. Entries without fields are dropped, and those of
    /// versions in which the object cannot be seen.
    pub(crate) fn take(&mut self, diffs: &Diffs, except: Option<usize>) {
        let mut index = 0;
        self.0.retain_mut(|entry| {
            index += 1;
            if Some(index - 1) == except {
                return true;
            }
            let Some(diff) = diffs.of(text(entry, "apiVersion")) else { return false };
            if let Some(Value::Object(fields)) = entry.get_mut("fieldsV1") {
                set::subtract(fields, &diff.changed);
                set::subtract(fields, &diff.removed);
            }
            !fields(entry).is_empty()
        });
    }

    /// Adds fields to the entry of an update.
    pub(crate) fn add_update(&mut self, by: &By<'_>, api_version: &str, added: Set) {
        if added.is_empty() {
            return;
        }
        match self.position(by, Operation::Update, api_version) {
            None => self.0.push(entry(by, Operation::Update, api_version, added)),
            Some(i) => {
                let mut all = added;
                set::union(&mut all, fields(&self.0[i]));
                self.0[i] = entry(by, Operation::Update, api_version, all);
            }
        }
    }

    /// Replaces the entry of an apply; an entry without fields is dropped. Without `touch` the time stays, and a new entry has
    /// none.
    pub(crate) fn set_apply(&mut self, by: &By<'_>, api_version: &str, fields: Set, touch: bool) {
        let position = self.position(by, Operation::Apply, api_version);
        let earlier = position.map(|i| self.0.remove(i));
        if fields.is_empty() {
            return;
        }
        let mut new = entry(by, Operation::Apply, api_version, fields);
        if !touch {
            let time = earlier.and_then(|mut earlier| earlier.remove("time"));
            match time {
                Some(time) => drop(new.insert("time".to_owned(), time)),
                None => drop(new.remove("time")),
            }
        }
        self.0.push(new);
    }

    /// Who, apart from this apply, owns some of what has changed, and which.
    pub(crate) fn conflicts(&self, by: &By<'_>, diffs: &Diffs) -> Vec<(String, Set)> {
        let own = self.applied(by);
        let others = self.0.iter().enumerate().filter(|(i, _)| Some(*i) != own).map(|(_, entry)| entry);
        let common = others.filter_map(|entry| {
            let diff = diffs.of(text(entry, "apiVersion"))?;
            Some((describe(entry), set::intersection(fields(entry), &diff.changed)))
        });
        common.filter(|(_, set)| !set.is_empty()).collect()
    }

    /// The index of the entry of an apply.
    pub(crate) fn applied(&self, by: &By<'_>) -> Option<usize> {
        self.position(by, Operation::Apply, "")
    }

    /// Merges the oldest updates of the same version until there are at most ten.
    pub(crate) fn cap(&mut self) {
        let is_update = |e: &Map<String, Value>| text(e, "operation") == "Update";
        let mut excess = self.0.iter().filter(|e| is_update(e)).count().saturating_sub(MAX_UPDATE_MANAGERS);
        if excess == 0 {
            return;
        }
        let order = |e: &Map<String, Value>| ["time", "manager", "apiVersion", "subresource"].map(|key| text(e, key).to_owned());
        self.0.sort_by_cached_key(order);
        // The oldest update of each version, which takes in those that follow.
        let mut oldest: HashMap<String, usize> = HashMap::new();
        let mut kept: Vec<Map<String, Value>> = Vec::with_capacity(self.0.len());
        for entry in std::mem::take(&mut self.0) {
            if excess > 0 && is_update(&entry) {
                match oldest.entry(text(&entry, "apiVersion").to_owned()) {
                    Entry::Occupied(at) => {
                        merge_ancient(&mut kept[*at.get()], &entry);
                        excess -= 1;
                        continue;
                    }
                    Entry::Vacant(place) => drop(place.insert(kept.len())),
                }
            }
            kept.push(entry);
        }
        self.0 = kept;
    }
}

/// A manager as upstream names it in conflicts: `"kubectl" with subresource "scale" using apps/v1`.
fn describe(entry: &Map<String, Value>) -> String {
    let mut out = quote(text(entry, "manager"));
    if !text(entry, "subresource").is_empty() {
        out.push_str(&format!(" with subresource {}", quote(text(entry, "subresource"))));
    }
    if text(entry, "operation") == "Update" {
        out.push_str(&format!(" using {}", text(entry, "apiVersion")));
    }
    out
}

/// Makes the older entry one of all that merged, in place: what it has taken in is not looked at again.
fn merge_ancient(older: &mut Map<String, Value>, newer: &Map<String, Value>) {
    let version = text(older, "apiVersion").to_owned();
    let mut all = match older.remove("fieldsV1") {
        Some(Value::Object(all)) => all,
        _ => Set::new(),
    };
    set::union(&mut all, fields(newer));
    let by = By { manager: ANCIENT, subresource: "", now: text(newer, "time"), reset: &[] };
    *older = entry(&by, Operation::Update, &version, all);
}

fn check(entry: &Map<String, Value>, index: usize) -> Result<(), String> {
    if !matches!(text(entry, "operation"), "Apply" | "Update") {
        return Err("operation must be `Apply` or `Update`".to_owned());
    }
    if text(entry, "apiVersion").is_empty() {
        return Err("apiVersion must not be empty".to_owned());
    }
    match text(entry, "fieldsType") {
        "FieldsV1" => {}
        "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
        other => return Err(format!("invalid fieldsType {} in managed fields entry {index}", quote(other))),
    }
    if !set::is_valid(fields(entry)) {
        return Err(format!("error decoding set: managed fields entry {index} holds something that is no path element"));
    }
    Ok(())
}

fn entry(by: &By<'_>, operation: Operation, api_version: &str, fields: Set) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("apiVersion".to_owned(), api_version.into());
    out.insert("fieldsType".to_owned(), "FieldsV1".into());
    out.insert("fieldsV1".to_owned(), Value::Object(fields));
    out.insert("manager".to_owned(), by.manager().into());
    out.insert("operation".to_owned(), operation.as_str().into());
    if !by.subresource.is_empty() {
        out.insert("subresource".to_owned(), by.subresource.into());
    }
    if !by.now.is_empty() {
        out.insert("time".to_owned(), by.now.into());
    }
    out
}

/// Whether managed fields can be stored and read again (upstream: `fieldmanager.ValidateManagedFields`).
///
/// # Errors
/// What is wrong with them, in upstream's words.
pub fn check_managed_fields(entries: &[Value]) -> Result<(), String> {
    let mut errors = Errors::new();
    meta::validate_managed_fields(entries, &Path::new("metadata").child("managedFields"), &mut errors);
    if !errors.is_empty() {
        return Err(errors.to_string());
    }
    Managed::decode(entries).map(|_| ())
}

/// Whether the sender asks for the entries to be forgotten: an empty list, or a list of one empty entry.
pub(crate) fn is_reset(entries: Option<&Value>) -> bool {
    match entries.and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// The entries that count for an update: those sent, else those stored.
pub(crate) fn of_update(sent: Option<&Value>, live: Option<&Value>, subresource: bool) -> Managed {
    let stored = || live.map(|l| Managed::decode(meta::managed_fields(l)).unwrap_or_default()).unwrap_or_default();
    if subresource {
        return stored();
    }
    if is_reset(sent) {
        return Managed::default();
    }
    match sent.and_then(Value::as_array).map(|entries| Managed::decode(entries)) {
        Some(Ok(managed)) if !managed.is_empty() => managed,
        _ => stored(),
    }
}
