//! Who owns whom. Pure.
//!
//! Of most objects only the uid is kept. Names are kept of objects that have owners and of those that wait for their
//! dependents, for only these are ever touched.

use std::collections::{HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// A uid, as a number.
pub(super) type Uid = u128;

/// The number of a uid. What is no UUID gets a number by its text.
pub(super) fn uid(text: &str) -> Uid {
    uuid::Uuid::parse_str(text).map_or_else(|_| fnv(text), |uuid| uuid.as_u128())
}

fn fnv(text: &str) -> Uid {
    let step = |hash: Uid, byte: u8| (hash ^ Uid::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, step)
}

/// What an object waits for before it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// Nothing of ours.
    No,
    /// Its dependents must go first.
    Foreground,
    /// Its dependents must be freed first.
    Orphan,
}

/// An object that may have to be touched.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Number of its resource.
    pub(super) resource: usize,
    pub(super) namespace: Option<Box<str>>,
    pub(super) name: Box<str>,
    /// With whether this object holds up a foreground deletion of the owner.
    owners: Vec<(Uid, bool)>,
    pub(super) waits: Waits,
    pub(super) ends: bool,
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    live: HashMap<Uid, usize>,
    items: HashMap<Uid, Item>,
    dependents: HashMap<Uid, HashSet<Uid>>,
}

fn waits(meta: &ObjectMeta) -> Waits {
    let has = |name: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == name);
    match meta.deletion_timestamp {
        Some(_) if has(ORPHAN) => Waits::Orphan,
        Some(_) if has(FOREGROUND) => Waits::Foreground,
        _ => Waits::No,
    }
}

impl Graph {
    /// Takes in an object as it is. The objects to look at.
    pub(super) fn observe(&mut self, resource: usize, meta: &ObjectMeta) -> Vec<Uid> {
        let own = uid(meta.uid.as_deref().unwrap_or_default());
        self.live.insert(own, resource);
        let references = meta.owner_references.as_deref().unwrap_or_default();
        let owners: Vec<(Uid, bool)> =
            references.iter().map(|one| (uid(&one.uid), one.block_owner_deletion == Some(true))).collect();
        let waits = waits(meta);
        let old = self.items.remove(&own);
        for (owner, _) in old.iter().flat_map(|old| &old.owners) {
            self.unlink(*owner, own);
        }
        let mut work = Vec::new();
        for (owner, _) in &owners {
            self.dependents.entry(*owner).or_default().insert(own);
            // An owner that is not there, or that waits for this one.
            if !self.live.contains_key(owner) || self.waits(*owner) != Waits::No {
                work.push(own);
            }
        }
        // Owners that this object held up and no longer does.
        let lost = old.iter().flat_map(|old| &old.owners).filter(|(owner, _)| !owners.contains(&(*owner, true)));
        work.extend(lost.map(|(owner, _)| *owner).filter(|owner| self.waits(*owner) != Waits::No));
        if waits != Waits::No {
            work.push(own);
        }
        if !owners.is_empty() || waits != Waits::No {
            let item = Item {
                resource,
                namespace: meta.namespace.as_deref().map(Into::into),
                name: meta.name.as_deref().unwrap_or_default().into(),
                owners,
                waits,
                ends: meta.deletion_timestamp.is_some(),
            };
            self.items.insert(own, item);
        }
        work
    }

    /// An object is gone. The objects to look at: what it owned, and owners that waited for it.
    pub(super) fn remove(&mut self, own: Uid) -> Vec<Uid> {
        self.live.remove(&own);
        let mut work: Vec<Uid> = self.dependents_of(own).collect();
        if let Some(item) = self.items.remove(&own) {
            for (owner, _) in item.owners {
                self.unlink(owner, own);
                if self.waits(owner) != Waits::No {
                    work.push(owner);
                }
            }
        }
        work
    }

    fn unlink(&mut self, owner: Uid, dependent: Uid) {
        if let Some(set) = self.dependents.get_mut(&owner) {
            set.remove(&dependent);
            if set.is_empty() {
                self.dependents.remove(&owner);
            }
        }
    }

    /// The uids of a resource that are not in `keep`: what a relist found gone.
    pub(super) fn stale(&self, resource: usize, keep: &HashSet<Uid>) -> Vec<Uid> {
        let stale = self.live.iter().filter(|(uid, of)| **of == resource && !keep.contains(uid));
        stale.map(|(uid, _)| *uid).collect()
    }

    pub(super) fn is_live(&self, uid: Uid) -> bool {
        self.live.contains_key(&uid)
    }

    pub(super) fn item(&self, uid: Uid) -> Option<&Item> {
        self.items.get(&uid)
    }

    pub(super) fn waits(&self, uid: Uid) -> Waits {
        self.items.get(&uid).map_or(Waits::No, |item| item.waits)
    }

    pub(super) fn dependents_of(&self, uid: Uid) -> impl Iterator<Item = Uid> {
        self.dependents.get(&uid).into_iter().flatten().copied()
    }

    /// The dependents that hold up the foreground deletion of `owner`.
    pub(super) fn blocking(&self, owner: Uid) -> Vec<Uid> {
        let blocks = |uid: &Uid| self.items.get(uid).is_some_and(|item| item.owners.contains(&(owner, true)));
        self.dependents_of(owner).filter(blocks).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;
    use serde_json::json;

    fn meta(uid: &str, owners: &[&str], finalizer: Option<&str>) -> ObjectMeta {
        let owners: Vec<_> = owners
            .iter()
            .map(|owner| json!({"apiVersion": "v1", "kind": "K", "name": owner, "uid": owner, "blockOwnerDeletion": true}))
            .collect();
        object(json!({"uid": uid, "name": uid, "ownerReferences": owners, "finalizers": finalizer.map(|one| [one]),
                      "deletionTimestamp": finalizer.map(|_| "2026-01-01T00:00:00Z")}))
    }

    #[test]
    fn says_what_to_look_at() {
        let mut graph = Graph::default();
        let number = |text: &str| super::uid(text);
        assert_eq!(graph.observe(0, &meta("owner", &[], None)), []);
        assert_eq!(graph.observe(1, &meta("child", &["owner"], None)), []);
        assert_eq!(graph.observe(1, &meta("lost", &["nobody"], None)), [number("lost")]);
        assert_eq!(graph.observe(0, &meta("owner", &[], Some(FOREGROUND))), [number("owner")]);
        assert_eq!((graph.waits(number("owner")), graph.blocking(number("owner"))), (Waits::Foreground, vec![number("child")]));
        assert_eq!(graph.remove(number("child")), [number("owner")]);
        assert_eq!(graph.blocking(number("owner")), []);
        assert_eq!(graph.observe(1, &meta("late", &["owner"], None)), [number("late")]);
        assert_eq!(graph.remove(number("owner")), [number("late")]);
        assert!(!graph.is_live(number("owner")));
        assert_eq!(graph.stale(1, &HashSet::from([number("late")])), [number("lost")]);
    }
}
