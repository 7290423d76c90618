//! A kind in several versions: fields are owned in the version in which they were written.

use super::By;
use super::compare::{Diff, Diffs, compare};
use super::extract::{extract, settle, with_named_fields};
use super::managed::Managed;
use super::merge::remove;
use super::set::{self, Set};
use super::shape::{Ref, Types};
use crate::meta;
use serde_json::Value;
use std::borrow::Cow;

/// The versions of a kind.
pub trait Versions {
    /// What objects look like in a version, `None` when the kind is not served in it.
    fn types(&self, api_version: &str) -> Option<Types<'_>>;

    /// An object in another version.
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value>;
}

/// Of a kind that has no other version.
pub struct Alone;

impl Versions for Alone {
    fn types(&self, _: &str) -> Option<Types<'_>> {
        None
    }

    fn convert(&self, _: &Value, _: &str) -> Option<Value> {
        None
    }
}

/// How a request sees an object: in one version, beside which there may be others.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// What the object looks like in the version of the request.
    pub types: Types<'a>,
    /// The other versions.
    pub others: &'a dyn Versions,
}

impl<'a> From<Types<'a>> for Seen<'a> {
    fn from(types: Types<'a>) -> Self {
        Self { types, others: &Alone }
    }
}

impl<'a> Seen<'a> {
    /// The types of a version, when `own` is that of the request.
    fn root(&self, version: &str, own: &str) -> Option<Ref<'a>> {
        if version == own { Some(self.types.root()) } else { self.others.types(version).map(Types::root) }
    }

    fn convert<'v>(&self, object: &'v Value, version: &str) -> Option<Cow<'v, Value>> {
        if meta::api_version(object) == version {
            return Some(Cow::Borrowed(object));
        }
        self.others.convert(object, version).map(Cow::Owned)
    }

    /// Drops what is owned in versions that are not served any more, and brings the rest in line with the types of today.
    pub(super) fn settle(&self, managed: &mut Managed, own: &str) {
        managed.revise(|version, fields| {
            settle(self.root(version, own)?, fields);
            Some(())
        });
    }

    /// What differs between two states of an object in each version that has managers; `diff` is that in the version of the request.
    pub(super) fn diffs(&self, diff: Diff, managed: &Managed, own: &str, (old, new): (&Value, &Value), by: &By<'_>) -> Diffs {
        let reset = set::of_fields(by.reset);
        let mut diffs = Diffs(vec![(own.to_owned(), diff)]);
        for version in managed.versions().into_iter().filter(|version| version != own) {
            let (old, new) = (self.convert(old, &version), self.convert(new, &version));
            if let (Some(root), Some(old), Some(new)) = (self.root(&version, own), old, new) {
                let diff = compare(root, &old, &new).without(&reset);
                diffs.0.push((version, diff));
            }
        }
        diffs
    }

    /// An object without what this manager applied `last` time, in that version, does not apply now, and nobody else owns. `None`
    /// when there is nothing to remove, or the version is not there any more.
    pub(super) fn prune(&self, merged: &Value, (last, version): (&Set, &str), managed: &Managed, own: &str) -> Option<Value> {
        if last.is_empty() {
            return None;
        }
        let (root, whole) = (self.root(version, own)?, self.convert(merged, version)?);
        let last = with_named_fields(root, last);
        let without_last = remove(root, &whole, &last);
        let mut versions = managed.versions();
        // First the version in which fields were removed: others may not be able to tell an object without them.
        versions.sort_by_key(|other| other != version);
        let kept = versions.iter().fold(without_last, |kept, other| self.keep_owned(&whole, kept, (other, own), managed));
        // What is left out by now goes only if it was applied last time.
        let mut gone = members(root, &whole);
        set::subtract(&mut gone, &members(root, &*self.convert(&kept, version)?));
        let pruned = remove(root, &whole, &set::intersection(&gone, &last));
        if meta::api_version(&pruned) == own { Some(pruned) } else { self.others.convert(&pruned, own) }
    }

    /// An object, `whole`, without what is missing in `kept` and not owned in a version.
    fn keep_owned(&self, whole: &Value, kept: Value, (version, own): (&str, &str), managed: &Managed) -> Value {
        let Some(root) = self.root(version, own) else { return kept };
        let Some(left) = self.convert(&kept, version).map(|left| members(root, &left)) else { return kept };
        let Some(whole) = self.convert(whole, version) else { return kept };
        let mut gone = members(root, &whole);
        set::subtract(&mut gone, &left);
        set::subtract(&mut gone, &with_named_fields(root, &managed.everything(version)));
        remove(root, &whole, &gone)
    }
}

fn members(root: Ref<'_>, value: &Value) -> Set {
    with_named_fields(root, &extract(root, value))
}
