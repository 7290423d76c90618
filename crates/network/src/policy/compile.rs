//! From policies, pods and namespaces to what the table holds, incrementally. Pure.
//!
//! A pod contributes the elements that name it, a policy its chains, and the pods of this node that have the same policies
//! share one more chain. So a change of a pod is a change of its elements, and a change of a policy one of its chains. A policy
//! that concerns no pod of this node contributes nothing.

mod groups;
mod rules;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use client::Key;
use k8s_openapi::api::core::v1::Pod;

use super::spec::{Spec, Tier};
use crate::nft::contents::{Change, Fragment};
use crate::nft::element::Protocol;
use crate::nft::features::policies::{self, Decision, Direction, Isolation};
use crate::nft::{Config, Family};
use groups::{Counted, Groups};
use rules::Compiled;

type LabelMap = BTreeMap<String, String>;

/// What policies ask of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its labels.
    pub(crate) labels: LabelMap,
    /// Its addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its ports that have a name.
    pub(crate) ports: Vec<(String, Protocol, u16)>,
    /// It runs on this node.
    pub(crate) local: bool,
}

impl Facts {
    /// What there is to know of a pod as the API has it. None when policies are not about it: it is on the host's network, or
    /// has ended.
    pub(crate) fn of(pod: &Pod, node: &str) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if spec.host_network == Some(true) || matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        let status = pod.status.as_ref();
        let many = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten().map(|one| one.ip.as_str());
        let mut addresses: Vec<IpAddr> = many.filter_map(|ip| ip.parse().ok()).collect();
        if addresses.is_empty() {
            addresses.extend(status.and_then(|status| status.pod_ip.as_ref()?.parse::<IpAddr>().ok()));
        }
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let ports = containers.flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
            let protocol = Protocol::from_name(port.protocol.as_deref())?;
            Some((port.name.clone()?, protocol, u16::try_from(port.container_port).ok()?))
        });
        Some(Self {
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            addresses,
            ports: ports.collect(),
            local: spec.node_name.as_deref() == Some(node),
        })
    }
}

#[derive(Debug)]
struct Policy {
    number: u32,
    /// As the API has it.
    spec: Spec,
    /// The kernel refuses what it says: another holds in its place.
    is_closed: bool,
}

/// The policies of a pod in one direction, by their numbers, those of each tier in the order in which they are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Stack {
    admin: Vec<u32>,
    namespaced: Vec<u32>,
    /// None where a NetworkPolicy decides before.
    baseline: Vec<u32>,
}

impl Stack {
    fn is_empty(&self) -> bool {
        self.admin.is_empty() && self.namespaced.is_empty() && self.baseline.is_empty()
    }
}

/// Policies, pods and namespaces, and what of them has not been told yet.
#[derive(Debug)]
pub(crate) struct State {
    config: Config,
    families: Vec<Family>,
    pods: BTreeMap<Key, Facts>,
    namespaces: BTreeMap<String, LabelMap>,
    policies: BTreeMap<Key, Policy>,
    by_number: HashMap<u32, Key>,
    /// What there is of policies that concern pods of this node.
    compiled: HashMap<Key, Compiled>,
    /// The policies of each pod of this node that has some, and the number of such pods of each policy.
    concerned: HashMap<Key, BTreeSet<Key>>,
    users: HashMap<Key, usize>,
    /// Policies to compile anew.
    stale: BTreeSet<Key>,
    groups: Groups,
    /// The chains of isolated pods, by the numbers of their policies.
    isolations: HashMap<(Direction, Stack), Counted>,
    /// The policies of each isolated pod.
    isolated: HashMap<Key, Vec<(Direction, Stack)>>,
    /// Pods that contribute something.
    contributing: BTreeSet<Key>,
    last_number: u32,
    dirty: BTreeSet<Key>,
    changes: BTreeMap<String, Fragment>,
    /// What of policies is not enforced, and why.
    problems: Vec<(Key, String)>,
}

impl State {
    /// Nothing is known yet. `config` and `families` are those of the table.
    pub(crate) fn new(config: Config, families: Vec<Family>) -> Self {
        Self {
            config,
            families,
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            policies: BTreeMap::new(),
            by_number: HashMap::new(),
            compiled: HashMap::new(),
            concerned: HashMap::new(),
            users: HashMap::new(),
            stale: BTreeSet::new(),
            groups: Groups::default(),
            isolations: HashMap::new(),
            isolated: HashMap::new(),
            contributing: BTreeSet::new(),
            last_number: 0,
            dirty: BTreeSet::new(),
            changes: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// A policy is there, has changed or is gone. The key of one of the cluster has no namespace, and its kind in its name.
    pub(super) fn set_policy(&mut self, key: &Key, spec: Option<Spec>) {
        if self.policies.get(key).map(|old| &old.spec) == spec.as_ref() {
            return;
        }
        let number = self.policies.remove(key).map(|old| old.number);
        match spec {
            Some(spec) => {
                let number = number.unwrap_or_else(|| self.number());
                self.by_number.insert(number, key.clone());
                self.policies.insert(key.clone(), Policy { number, spec, is_closed: false });
            }
            None => drop(number.and_then(|number| self.by_number.remove(&number))),
        }
        self.stale.insert(key.clone());
        let concerned =
            |(pod, facts): &(&Key, &Facts)| facts.local && (key.namespace.is_none() || key.namespace == pod.namespace);
        let local: Vec<Key> = self.pods.iter().filter(concerned).map(|(pod, _)| pod.clone()).collect();
        self.dirty.extend(local);
    }

    /// The kernel refuses what the policy says: until that changes, or is tried again, it fails closed. Whether it did not before.
    fn close(&mut self, key: &Key) -> bool {
        let Some(policy) = self.policies.get_mut(key).filter(|policy| !policy.is_closed) else { return false };
        policy.is_closed = true;
        self.stale.insert(key.clone());
        true
    }

    /// What the policy says may be taken by the kernel now: it is tried again.
    pub(super) fn open(&mut self, key: &Key) {
        if let Some(policy) = self.policies.get_mut(key).filter(|policy| policy.is_closed) {
            policy.is_closed = false;
            self.stale.insert(key.clone());
        }
    }

    /// A pod is there, has changed or is gone.
    pub(crate) fn set_pod(&mut self, key: &Key, facts: Option<Facts>) {
        if self.pods.get(key) == facts.as_ref() {
            return;
        }
        match facts {
            Some(facts) => drop(self.pods.insert(key.clone(), facts)),
            None => drop(self.pods.remove(key)),
        }
        self.dirty.insert(key.clone());
    }

    /// A namespace is there, has changed or is gone.
    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<LabelMap>) {
        if self.namespaces.get(name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
        let pods: Vec<Key> = self.in_namespace(name).map(|(key, _)| key.clone()).collect();
        self.dirty.extend(pods);
    }

    /// Whether there is a policy in the namespace, or one of the cluster.
    pub(crate) fn has_policies(&self, namespace: &str) -> bool {
        let of_cluster = self.policies.keys().next().is_some_and(|key| key.namespace.is_none());
        let mut own = self.policies.range(Key::namespaced(namespace, "")..).map(|(key, _)| key);
        of_cluster || own.next().is_some_and(|key| key.namespace.as_deref() == Some(namespace))
    }

    /// Whether there is a policy.
    pub(crate) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// What changed in the table since the last call.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        for key in self.dirty.clone() {
            self.concern(&key);
        }
        self.compile_stale();
        // With the pods that are in other groups now.
        for key in std::mem::take(&mut self.dirty) {
            let fragment = self.pod_fragment(&key);
            let empty = fragment == Fragment::default();
            let known = if empty { self.contributing.remove(&key) } else { !self.contributing.insert(key.clone()) };
            if known || !empty {
                self.changes.insert(pod_owner(&key), fragment);
            }
        }
        std::mem::take(&mut self.changes).into_iter().collect()
    }

    /// What of policies is not enforced, and why, since the last call.
    pub(super) fn problems(&mut self) -> Vec<(Key, String)> {
        std::mem::take(&mut self.problems)
    }

    /// The kernel refuses what these owners contribute: the policies that are behind it fail closed until they change or are tried again ([`Self::open`]). Returns those that did not before.
    ///
    /// The chain of an isolation leads to the policies of its pods, and is refused where one of these is: it is asked only where no policy is left to close. What it holds
    /// itself are the rules of the policies of the cluster.
    pub(super) fn close_behind<'a>(&mut self, owners: impl IntoIterator<Item = &'a str>) -> Vec<Key> {
        let (mut own, mut held) = (BTreeSet::new(), BTreeSet::new());
        for owner in owners {
            own.extend(self.policy_of(owner).cloned());
            held.extend(self.stacked_in(owner).into_iter().filter(|key| key.namespace.is_none()));
        }
        for keys in [own, held] {
            let closed: Vec<Key> = keys.into_iter().filter(|key| self.close(key)).collect();
            if !closed.is_empty() {
                return closed;
            }
        }
        Vec::new()
    }

    /// The policies that are not in force as long as the kernel refuses what this owner contributes.
    pub(super) fn behind(&self, owner: &str) -> BTreeSet<Key> {
        let pod = |key: &&Key| pod_owner(key) == owner;
        let of_pod = self.concerned.keys().find(pod).and_then(|key| self.concerned.get(key));
        let own = self.policy_of(owner).into_iter().chain(of_pod.into_iter().flatten()).cloned();
        own.chain(self.stacked_in(owner)).collect()
    }

    /// Who contributes what isolates a pod.
    pub(super) fn isolators(&self, pod: &Key) -> Vec<String> {
        let chains = self
            .isolated
            .get(pod)
            .into_iter()
            .flatten()
            .filter_map(|id| Some(isolation_owner(id.0, self.isolations.get(id)?.number)));
        chains.chain([pod_owner(pod)]).collect()
    }

    fn policy_of(&self, owner: &str) -> Option<&Key> {
        self.compiled.keys().find(|key| policy_owner(key) == owner)
    }

    /// The policies of the pods whose isolation this is.
    fn stacked_in(&self, owner: &str) -> Vec<Key> {
        let is = |(direction, _): &(Direction, Stack), counted: &Counted| isolation_owner(*direction, counted.number) == owner;
        let Some(((_, stack), _)) = self.isolations.iter().find(|(id, counted)| is(id, counted)) else { return Vec::new() };
        let numbers = [&stack.admin, &stack.namespaced, &stack.baseline].into_iter().flatten();
        numbers.filter_map(|number| self.by_number.get(number).cloned()).collect()
    }

    /// Counts the pod for the policies that concern it, if it is one of this node.
    fn concern(&mut self, key: &Key) {
        let now = match self.pods.get(key).filter(|pod| pod.local) {
            Some(pod) => self.policies_of(key, pod).map(|(policy, _)| policy.clone()).collect(),
            None => BTreeSet::new(),
        };
        let before = self.concerned.remove(key).unwrap_or_default();
        for policy in now.difference(&before) {
            let users = self.users.entry(policy.clone()).or_default();
            *users += 1;
            if *users == 1 {
                self.stale.insert(policy.clone());
            }
        }
        for policy in before.difference(&now) {
            let Some(users) = self.users.get_mut(policy) else { continue };
            *users -= 1;
            if *users == 0 {
                self.users.remove(policy);
                self.stale.insert(policy.clone());
            }
        }
        if !now.is_empty() {
            self.concerned.insert(key.clone(), now);
        }
    }

    fn number(&mut self) -> u32 {
        self.last_number += 1;
        self.last_number
    }

    fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = (&Key, &Facts)> {
        let first = Key::namespaced(namespace, "");
        self.pods.range(first..).take_while(move |(key, _)| key.namespace.as_deref() == Some(namespace))
    }

    /// The elements that name a pod.
    fn pod_fragment(&mut self, key: &Key) -> Fragment {
        let before = self.isolated.remove(key).unwrap_or_default();
        let mut fragment = Fragment::default();
        if let Some(pod) = self.pods.get(key).cloned() {
            let addresses: Vec<IpAddr> =
                pod.addresses.iter().copied().filter(|address| self.families.contains(&Family::of(*address))).collect();
            let groups = self.groups.of_namespace(key.ns());
            for (number, group) in groups.into_iter().filter(|(_, group)| group.selects(&self.namespaces, key, &pod)) {
                fragment.elements.extend(group.elements(number, &addresses, &pod));
            }
            let now = if pod.local { self.stacks_of(key, &pod) } else { Vec::new() };
            for (direction, policies) in &now {
                let number = self.isolate(*direction, policies);
                fragment.elements.extend(addresses.iter().map(|address| policies::isolated(*direction, *address, number)));
            }
            if !now.is_empty() {
                fragment.elements.extend(addresses.iter().map(|address| policies::itself(*address)));
                self.isolated.insert(key.clone(), now);
            }
        }
        for isolation in before {
            self.end_isolation(isolation);
        }
        fragment
    }

    /// The policies that concern a pod.
    fn policies_of<'a>(&'a self, key: &'a Key, pod: &'a Facts) -> impl Iterator<Item = (&'a Key, &'a Policy)> {
        let of_cluster = self.policies.iter().take_while(|(policy, _)| policy.namespace.is_none());
        let first = Key::namespaced(key.ns(), "");
        let own = self.policies.range(first..).take_while(|(policy, _)| policy.namespace == key.namespace);
        of_cluster.chain(own).filter(|(_, policy)| policy.spec.subject.selects(&self.namespaces, key, pod))
    }

    /// The same, for each direction in which there are some.
    fn stacks_of(&self, key: &Key, pod: &Facts) -> Vec<(Direction, Stack)> {
        let all: Vec<&Policy> = self.policies_of(key, pod).map(|(_, policy)| policy).collect();
        let of = |direction: Direction| {
            let mut stack = Stack::default();
            let (mut admin, mut baseline) = (Vec::new(), Vec::new());
            for policy in all.iter().filter(|policy| policy.spec.rules(direction).is_some()) {
                match policy.spec.tier {
                    Tier::Admin(priority) => admin.push((priority, policy.number)),
                    Tier::Namespaced => stack.namespaced.push(policy.number),
                    Tier::Baseline(priority) => baseline.push((priority, policy.number)),
                }
            }
            let in_order = |mut tier: Vec<(i32, u32)>| {
                tier.sort_unstable();
                tier.into_iter().map(|(_, number)| number).collect()
            };
            stack.namespaced.sort_unstable();
            stack.admin = in_order(admin);
            if stack.namespaced.is_empty() {
                stack.baseline = in_order(baseline);
            }
            (direction, stack)
        };
        Direction::ALL.map(of).into_iter().filter(|(_, stack)| !stack.is_empty()).collect()
    }

    /// The number of the chain of pods with these policies.
    fn isolate(&mut self, direction: Direction, stack: &Stack) -> u32 {
        let id = (direction, stack.clone());
        if let Some(counted) = self.isolations.get_mut(&id) {
            counted.users += 1;
            return counted.number;
        }
        let number = self.number();
        let fragment = self.isolation_fragment(direction, stack, number);
        self.changes.insert(isolation_owner(direction, number), fragment);
        self.isolations.insert(id, Counted { number, users: 1 });
        number
    }

    /// The chains of pods that a policy of the cluster concerns hold its rules: they change with it.
    fn restack(&mut self, policy: u32) {
        let has = |stack: &Stack| stack.admin.contains(&policy) || stack.baseline.contains(&policy);
        let changed = self.isolations.iter().filter(|((_, stack), _)| has(stack)).map(|((direction, stack), counted)| {
            let fragment = self.isolation_fragment(*direction, stack, counted.number);
            (isolation_owner(*direction, counted.number), fragment)
        });
        let changed: Vec<Change> = changed.collect();
        self.changes.extend(changed);
    }

    fn isolation_fragment(&self, direction: Direction, stack: &Stack, number: u32) -> Fragment {
        let titles: HashMap<u32, String> = [&stack.admin, &stack.namespaced, &stack.baseline]
            .into_iter()
            .flatten()
            .filter_map(|number| Some((*number, title(self.by_number.get(number)?))))
            .collect();
        let named = |number: &u32| titles.get(number).map_or("", String::as_str);
        let tier = |numbers: &[u32]| -> Vec<(Decision, &str)> {
            let decisions = |number: &u32| self.compiled.get(self.by_number.get(number)?).map(|one| one.decisions(direction));
            let of = |number| decisions(number).into_iter().flatten().map(move |one| (*one, named(number)));
            numbers.iter().flat_map(of).collect()
        };
        let of = Isolation {
            admin: tier(&stack.admin),
            policies: stack.namespaced.iter().map(|number| (*number, named(number))).collect(),
            baseline: tier(&stack.baseline),
        };
        let chains = self
            .families
            .iter()
            .flat_map(|family| policies::isolation(direction, *family, number, &of).into_iter().map(|chain| (*family, chain)));
        Fragment { chains: chains.collect(), ..Fragment::default() }
    }

    fn end_isolation(&mut self, id: (Direction, Stack)) {
        let Some(counted) = self.isolations.get_mut(&id) else { return };
        counted.users -= 1;
        if counted.users == 0 {
            self.changes.insert(isolation_owner(id.0, counted.number), Fragment::default());
            self.isolations.remove(&id);
        }
    }
}

fn isolation_owner(direction: Direction, number: u32) -> String {
    format!("isolation:{}:{number}", direction.name())
}

fn pod_owner(key: &Key) -> String {
    format!("policies of pod:{key}")
}

fn policy_owner(key: &Key) -> String {
    format!("policy:{key}")
}

/// How a policy is called in the comments of rules.
fn title(key: &Key) -> String {
    if key.namespace.is_some() { format!("NetworkPolicy {key}") } else { key.name.clone() }
}

#[cfg(test)]
mod tests;
