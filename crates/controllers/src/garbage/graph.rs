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

/// Where an object lives: enough to tell that a reference means another place. Names are kept as hashes, so equality is a
/// strong hint, and difference is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of its resource.
    pub(super) resource: u32,
    namespace: u32,
    name: u32,
}

impl Place {
    /// `namespace` is none for objects outside of namespaces.
    pub(super) fn new(resource: usize, namespace: Option<&str>, name: &str) -> Self {
        let short = |text: &str| fnv(text) as u32;
        let namespace = namespace.filter(|namespace| !namespace.is_empty()).map_or(0, short);
        Self { resource: resource as u32, namespace, name: short(name) }
    }

    /// Whether both are of one resource, in different namespaces.
    pub(super) fn is_elsewhere(self, other: Self) -> bool {
        self.resource == other.resource && self.namespace != other.namespace
    }
}

/// An owner, as an object refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: Uid,
    /// None when the API serves no such kind.
    pub(super) place: Option<Place>,
    /// The object holds up a foreground deletion of the owner.
    pub(super) blocked: bool,
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
    owners: Vec<Owner>,
    pub(super) waits: Waits,
    pub(super) ends: bool,
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    live: HashMap<Uid, Place>,
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
    /// Takes in an object of a resource as it is, with its owners. The objects to look at.
    pub(super) fn observe(&mut self, resource: usize, meta: &ObjectMeta, owners: Vec<Owner>) -> Vec<Uid> {
        let own = uid(meta.uid.as_deref().unwrap_or_default());
        let place = Place::new(resource, meta.namespace.as_deref(), meta.name.as_deref().unwrap_or_default());
        let is_new = self.live.insert(own, place).is_none();
        let waits = waits(meta);
        let old = self.items.remove(&own);
        for owner in old.iter().flat_map(|old| &old.owners) {
            self.unlink(owner.uid, own);
        }
        // Dependents that came first and mean an object in another place: only now can they be told from those whose owner is gone.
        let mut work = if is_new { self.mistaken(own, place) } else { Vec::new() };
        for owner in &owners {
            self.dependents.entry(owner.uid).or_default().insert(own);
            // An owner that is not there, at least not where the reference says, or that waits for this one.
            if !self.is_live(owner.uid, owner.place) || self.waits(owner.uid) != Waits::No {
                work.push(own);
            }
        }
        // Owners that this object held up and no longer does.
        let held = |uid: Uid| owners.iter().any(|owner| owner.uid == uid && owner.blocked);
        let lost = old.iter().flat_map(|old| &old.owners).filter(|owner| owner.blocked && !held(owner.uid));
        work.extend(lost.map(|owner| owner.uid).filter(|uid| self.waits(*uid) != Waits::No));
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

    /// Objects with an owner of a kind that the API did not serve when they were observed.
    pub(super) fn unplaced(&self) -> impl Iterator<Item = Uid> {
        self.items.iter().filter(|(_, item)| item.owners.iter().any(|owner| owner.place.is_none())).map(|(own, _)| *own)
    }

    /// An object is gone. The objects to look at: what it owned, and owners that waited for it.
    pub(super) fn remove(&mut self, own: Uid) -> Vec<Uid> {
        self.live.remove(&own);
        let mut work: Vec<Uid> = self.dependents_of(own).collect();
        if let Some(item) = self.items.remove(&own) {
            for owner in item.owners {
                self.unlink(owner.uid, own);
                if self.waits(owner.uid) != Waits::No {
                    work.push(owner.uid);
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
        let stale = self.live.iter().filter(|(uid, place)| place.resource as usize == resource && !keep.contains(uid));
        stale.map(|(uid, _)| *uid).collect()
    }

    /// Whether the object is there, and where the reference to it says.
    pub(super) fn is_live(&self, uid: Uid, place: Option<Place>) -> bool {
        place.is_some() && self.place(uid) == place
    }

    /// Where an object is.
    pub(super) fn place(&self, uid: Uid) -> Option<Place> {
        self.live.get(&uid).copied()
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

    /// The dependents that refer to `owner` as something that is in another place than it is.
    fn mistaken(&self, owner: Uid, place: Place) -> Vec<Uid> {
        let mistakes = |item: &Item| item.owners.iter().any(|one| one.uid == owner && one.place != Some(place));
        self.dependents_of(owner).filter(|uid| self.items.get(uid).is_some_and(mistakes)).collect()
    }

    /// The dependents that hold up the foreground deletion of `owner`.
    pub(super) fn blocking(&self, owner: Uid) -> Vec<Uid> {
        let holds = |item: &Item| item.owners.iter().any(|one| one.uid == owner && one.blocked);
        let blocks = |uid: &Uid| self.items.get(uid).is_some_and(holds);
        self.dependents_of(owner).filter(blocks).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;
    use serde_json::json;

    fn number(text: &str) -> Uid {
        super::uid(text)
    }

    /// Puts an object of resource 0 in; its owners are taken to be of resource 0 too.
    fn observe(graph: &mut Graph, name: &str, owners: &[(&str, bool)], finalizer: Option<&str>) -> Vec<Uid> {
        let meta = object(json!({"uid": name, "name": name, "finalizers": finalizer.map(|one| [one]),
                                 "deletionTimestamp": finalizer.map(|_| "2026-01-01T00:00:00Z")}));
        let owner = |(name, blocked): &(&str, bool)| Owner {
            uid: number(name),
            place: Some(Place::new(0, None, name)),
            blocked: *blocked,
        };
        graph.observe(0, &meta, owners.iter().map(owner).collect())
    }

    #[test]
    fn says_what_to_look_at() {
        let mut graph = Graph::default();
        assert_eq!(observe(&mut graph, "owner", &[], None), []);
        assert_eq!(observe(&mut graph, "child", &[("owner", true)], None), []);
        assert_eq!(observe(&mut graph, "lost", &[("nobody", true)], None), [number("lost")]);
        assert_eq!(observe(&mut graph, "owner", &[], Some(FOREGROUND)), [number("owner")]);
        assert_eq!((graph.waits(number("owner")), graph.blocking(number("owner"))), (Waits::Foreground, vec![number("child")]));
        assert_eq!(graph.remove(number("child")), [number("owner")]);
        assert_eq!(graph.blocking(number("owner")), []);
        assert_eq!(observe(&mut graph, "late", &[("owner", true)], None), [number("late")]);
        // It no longer holds up its owner, which still waits for it.
        assert_eq!(observe(&mut graph, "late", &[("owner", false)], None), [number("late"), number("owner")]);
        assert_eq!(graph.remove(number("owner")), [number("late")]);
        assert_eq!(graph.place(number("owner")), None);
        assert_eq!(graph.stale(0, &HashSet::from([number("late")])), [number("lost")]);
    }

    #[test]
    fn references_to_another_place_are_looked_at() {
        let mut graph = Graph::default();
        let meta = object(json!({"uid": "owner", "name": "owner", "namespace": "a"}));
        graph.observe(3, &meta, Vec::new());
        let child = object(json!({"uid": "child", "name": "child", "namespace": "a"}));
        let right = Place::new(3, Some("a"), "owner");
        let mut check = |place: Option<Place>, doubtful: bool| {
            let owner = Owner { uid: number("owner"), place, blocked: false };
            assert_eq!(graph.observe(1, &child, vec![owner]) == [number("child")], doubtful, "{place:?}");
        };
        check(Some(right), false);
        check(Some(Place::new(3, Some("b"), "owner")), true);
        check(Some(Place::new(3, Some("a"), "other")), true);
        check(Some(Place::new(4, Some("a"), "owner")), true);
        check(None, true);
        // An owner that comes later than its dependents has those looked at that mean something else by its uid.
        graph.remove(number("owner"));
        let node = object(json!({"uid": "node", "name": "node"}));
        let mistaken = Owner { uid: number("owner"), place: Some(Place::new(3, None, "owner")), blocked: false };
        graph.observe(2, &node, vec![mistaken]);
        graph.observe(1, &child, vec![Owner { uid: number("owner"), place: Some(right), blocked: false }]);
        assert_eq!(graph.observe(3, &meta, Vec::new()), [number("node")]);
        assert_eq!(graph.observe(3, &meta, Vec::new()), [], "it was there before");
        assert!(right.is_elsewhere(Place::new(3, Some("b"), "owner")));
        assert!(!right.is_elsewhere(Place::new(4, Some("b"), "owner")));
    }
}
