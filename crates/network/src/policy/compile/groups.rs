//! Pods that policies ask about, counted by the rules that do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use client::Key;

use super::{Facts, LabelMap};
use crate::nft::Family;
use crate::nft::contents::Fragment;
use crate::nft::element::{Element, Key as Place, Protocol};
use crate::nft::features::policies;
use crate::policy::spec::{Namespaces, Selection};

/// Pods that the peers of a rule select, or their ports of some names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Group {
    /// Selected by any of them.
    pub(super) pods: Vec<Selection>,
    /// In order.
    pub(super) ports: Option<Vec<(Protocol, String)>>,
}

/// Something with the number of its users.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) number: u32,
    pub(super) users: usize,
}

/// The groups that rules look into.
#[derive(Debug, Default)]
pub(super) struct Groups {
    counted: HashMap<Arc<Group>, Counted>,
    /// Groups by the namespaces whose pods may be in them, those of any namespace by None: a pod asks no others.
    reach: HashMap<Option<String>, BTreeMap<u32, Arc<Group>>>,
}

impl Group {
    /// The namespaces whose pods may be in it. None: any.
    pub(super) fn namespaces(&self) -> BTreeSet<Option<&str>> {
        self.pods
            .iter()
            .map(|selection| match &selection.namespaces {
                Namespaces::One(name) => Some(name.as_str()),
                Namespaces::Selected(_) => None,
            })
            .collect()
    }

    pub(super) fn selects(&self, namespaces: &BTreeMap<String, LabelMap>, key: &Key, pod: &Facts) -> bool {
        self.pods.iter().any(|one| one.selects(namespaces, key, pod))
    }

    /// The set of the group of this number.
    pub(super) fn set(&self, family: Family, number: u32) -> Fragment {
        if self.ports.is_none() { policies::peer_set(family, number) } else { policies::named_set(family, number) }
    }

    /// What a pod of the group contributes to its set.
    pub(super) fn elements(&self, number: u32, addresses: &[IpAddr], pod: &Facts) -> Vec<Element> {
        let Some(names) = &self.ports else {
            return addresses.iter().map(|address| policies::peer(*address, number)).collect();
        };
        let is_asked = |protocol: Protocol, name: &str| {
            names.binary_search_by(|(of, one)| (*of, one.as_str()).cmp(&(protocol, name))).is_ok()
        };
        let ports: Vec<_> = pod.ports.iter().filter(|(name, protocol, _)| is_asked(*protocol, name)).collect();
        let at = |address: &IpAddr, (_, protocol, port): &(String, Protocol, u16)| {
            policies::named_port(Place { address: *address, protocol: *protocol, port: *port }, number)
        };
        addresses.iter().flat_map(|address| ports.iter().map(move |port| at(address, port))).collect()
    }
}

impl Selection {
    pub(super) fn selects(&self, namespaces: &BTreeMap<String, LabelMap>, key: &Key, pod: &Facts) -> bool {
        let namespace = match &self.namespaces {
            Namespaces::One(name) => name == key.ns(),
            Namespaces::Selected(selector) => namespaces.get(key.ns()).is_some_and(|labels| selector.matches(labels)),
        };
        namespace && self.pods.matches(&pod.labels)
    }
}

impl Groups {
    /// Counts one more user. The number, and whether the group is new; `next` is asked for the number of one that is.
    pub(super) fn acquire(&mut self, group: &Arc<Group>, next: impl FnOnce() -> u32) -> (u32, bool) {
        if let Some(counted) = self.counted.get_mut(group) {
            counted.users += 1;
            return (counted.number, false);
        }
        let number = next();
        self.counted.insert(group.clone(), Counted { number, users: 1 });
        for namespace in group.namespaces() {
            self.reach.entry(namespace.map(str::to_owned)).or_default().insert(number, group.clone());
        }
        (number, true)
    }

    /// Counts one user less. Whether the group is gone.
    pub(super) fn release(&mut self, group: &Group) -> bool {
        let Some(counted) = self.counted.get_mut(group) else { return false };
        counted.users -= 1;
        if counted.users > 0 {
            return false;
        }
        let number = counted.number;
        self.counted.remove(group);
        for namespace in group.namespaces() {
            let namespace = namespace.map(str::to_owned);
            if let Some(groups) = self.reach.get_mut(&namespace) {
                groups.remove(&number);
                if groups.is_empty() {
                    self.reach.remove(&namespace);
                }
            }
        }
        true
    }

    /// The groups that a pod of the namespace may be in, with their numbers.
    pub(super) fn of_namespace(&self, namespace: &str) -> BTreeMap<u32, &Arc<Group>> {
        let reach = [Some(namespace.to_owned()), None];
        reach.iter().filter_map(|one| self.reach.get(one)).flatten().map(|(number, group)| (*number, group)).collect()
    }
}
