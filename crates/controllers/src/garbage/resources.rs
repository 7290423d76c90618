//! The resources that the API serves, by number. One is found by its name and by its kind without looking at the others.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::graph::{Owner, Place, uid};
use crate::discovery::Discovered;

/// A group and a name in it.
type InGroup = (String, String);

/// Resources by their number, which they keep for ever.
#[derive(Default)]
pub(super) struct Resources {
    pub(super) all: Vec<Discovered>,
    by_plural: HashMap<InGroup, usize>,
    by_kind: HashMap<InGroup, Vec<usize>>,
}

fn in_group(group: &str, name: &str) -> InGroup {
    (group.to_owned(), name.to_owned())
}

impl Resources {
    /// The number of an owner reference's resource.
    pub(super) fn of_kind(&self, api_version: &str, kind: &str) -> Option<usize> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let all = self.by_kind.get(&in_group(group, kind))?;
        let exact = all.iter().find(|number| self.all[**number].api.api_version == api_version);
        // A reference may name a version that is served but not preferred.
        exact.or(all.first()).copied()
    }

    /// Where the owner should be that an object of this namespace refers to. None when the API serves no such kind.
    pub(super) fn place_of(&self, owner: &OwnerReference, namespace: Option<&str>) -> Option<Place> {
        let number = self.of_kind(&owner.api_version, &owner.kind)?;
        Some(Place::new(number, namespace.filter(|_| self.all[number].namespaced), &owner.name))
    }

    /// The owners that an object refers to.
    pub(super) fn owners(&self, meta: &ObjectMeta) -> Vec<Owner> {
        let owner = |reference: &OwnerReference| Owner {
            uid: uid(&reference.uid),
            place: self.place_of(reference, meta.namespace.as_deref()),
            blocked: reference.block_owner_deletion == Some(true),
        };
        meta.owner_references.iter().flatten().map(owner).collect()
    }

    /// The number of a resource, which it gets when it has none.
    pub(super) fn number(&mut self, resource: &Discovered) -> usize {
        let api = &resource.api;
        let number = *self.by_plural.entry(in_group(&api.group, &api.plural)).or_insert(self.all.len());
        let known = self.all.get(number).map(|known| known.api.kind.clone());
        if known.as_ref() != Some(&api.kind) {
            if let Some(of_before) = known.and_then(|kind| self.by_kind.get_mut(&in_group(&api.group, &kind))) {
                of_before.retain(|other| *other != number);
            }
            self.by_kind.entry(in_group(&api.group, &api.kind)).or_default().push(number);
        }
        match self.all.get_mut(number) {
            Some(place) => *place = resource.clone(),
            None => self.all.push(resource.clone()),
        }
        number
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn resources_are_found_by_name_and_kind() {
        let mut resources = Resources::default();
        let mut add = |api_version: &str, plural: &str, kind: &str| resources.number(&Discovered::of(api_version, plural, kind));
        assert_eq!(add("v1", "events", "Event"), 0);
        assert_eq!(add("events.k8s.io/v1", "events", "Event"), 1);
        assert_eq!(add("g/v1", "as", "A"), 2);
        assert_eq!(add("g/v1", "as", "A"), 2, "it keeps its number");
        assert_eq!(add("g/v2", "bs", "A"), 3);
        let find = |resources: &Resources, api_version: &str, kind: &str| resources.of_kind(api_version, kind);
        assert_eq!(find(&resources, "v1", "Event"), Some(0));
        assert_eq!(find(&resources, "events.k8s.io/v1", "Event"), Some(1));
        assert_eq!(find(&resources, "g/v2", "A"), Some(3));
        assert_eq!(find(&resources, "g/v0", "A"), Some(2), "another version of the group");
        assert_eq!(find(&resources, "h/v1", "A"), None);
        // A definition that has come again with another kind.
        assert_eq!(resources.number(&Discovered::of("g/v1", "as", "C")), 2);
        assert_eq!((find(&resources, "g/v1", "C"), find(&resources, "g/v0", "A")), (Some(2), Some(3)));
    }
}
