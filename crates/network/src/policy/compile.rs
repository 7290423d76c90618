//! From policies, pods and namespaces to what the table holds, incrementally. Pure.
//!
//! A pod contributes the elements that name it, a policy its chains, and the pods of this node that have the same policies
//! share one more chain. So a change of a pod is a change of its elements, and a change of a policy one of its chains.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use client::Key;
use k8s_openapi::api::core::v1::Pod;

use super::spec::{Namespaces, Peer, Port, Selection, Spec, Tier};
use crate::nft::contents::{Change, Fragment};
use crate::nft::element::{Key as Place, Protocol};
use crate::nft::features::policies::{self, Decision, Direction, Isolation, Peers, Ports};
use crate::nft::{Config, Family};

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

/// Pods that a peer selects, or their ports of a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Group {
    pods: Selection,
    port: Option<(Protocol, String)>,
}

#[derive(Debug)]
struct Policy {
    number: u32,
    spec: Spec,
    groups: Vec<Group>,
    /// The sets of ranges, by direction and rule.
    blocks: HashMap<(Direction, usize), u32>,
}

#[derive(Debug)]
struct Counted {
    number: u32,
    users: usize,
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
    groups: HashMap<Group, Counted>,
    /// The chains of isolated pods, by the numbers of their policies.
    isolations: HashMap<(Direction, Stack), Counted>,
    /// The policies of each isolated pod.
    isolated: HashMap<Key, Vec<(Direction, Stack)>>,
    /// Pods that contribute something.
    contributing: BTreeSet<Key>,
    last_number: u32,
    dirty: BTreeSet<Key>,
    changes: BTreeMap<String, Fragment>,
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
            groups: HashMap::new(),
            isolations: HashMap::new(),
            isolated: HashMap::new(),
            contributing: BTreeSet::new(),
            last_number: 0,
            dirty: BTreeSet::new(),
            changes: BTreeMap::new(),
        }
    }

    /// A policy is there, has changed or is gone. The key of one of the cluster has no namespace, and its kind in its name.
    pub(super) fn set_policy(&mut self, key: &Key, spec: Option<Spec>) {
        if self.policies.get(key).map(|old| &old.spec) == spec.as_ref() {
            return;
        }
        let old = self.policies.remove(key);
        let new = spec.map(|spec| self.policy(spec, old.as_ref().map(|old| old.number)));
        let fragment = new.as_ref().map(|policy| self.policy_fragment(key, policy)).unwrap_or_default();
        self.changes.insert(format!("policy:{key}"), fragment);
        let number = new.as_ref().or(old.as_ref()).map(|policy| policy.number);
        if let Some(policy) = new {
            self.policies.insert(key.clone(), policy);
        }
        self.restack(number);
        for group in old.into_iter().flat_map(|old| old.groups) {
            self.release(&group);
        }
        let concerned =
            |(pod, facts): &(&Key, &Facts)| facts.local && (key.namespace.is_none() || key.namespace == pod.namespace);
        let local: Vec<Key> = self.pods.iter().filter(concerned).map(|(pod, _)| pod.clone()).collect();
        self.dirty.extend(local);
        let base = self.families.iter().filter(|_| !self.policies.is_empty()).map(|family| policies::base(&self.config, *family));
        let base = base.fold(Fragment::default(), |mut all, part| {
            all.extend(part);
            all
        });
        self.changes.insert("policies".to_owned(), base);
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
        self.policies.keys().any(|key| key.namespace.is_none() || key.ns() == namespace)
    }

    /// Whether there is a policy.
    pub(crate) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// What changed in the table since the last call.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        for key in std::mem::take(&mut self.dirty) {
            let fragment = self.pod_fragment(&key);
            let empty = fragment == Fragment::default();
            let known = if empty { self.contributing.remove(&key) } else { !self.contributing.insert(key.clone()) };
            if known || !empty {
                self.changes.insert(format!("policies of pod:{key}"), fragment);
            }
        }
        std::mem::take(&mut self.changes).into_iter().collect()
    }

    fn number(&mut self) -> u32 {
        self.last_number += 1;
        self.last_number
    }

    fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = (&Key, &Facts)> {
        let first = Key::namespaced(namespace, "");
        self.pods.range(first..).take_while(move |(key, _)| key.namespace.as_deref() == Some(namespace))
    }

    fn policy(&mut self, spec: Spec, number: Option<u32>) -> Policy {
        let mut groups = Vec::new();
        let mut blocks = HashMap::new();
        for direction in Direction::ALL {
            for (index, rule) in spec.rules(direction).unwrap_or_default().iter().enumerate() {
                groups.extend(rule.peers.iter().filter_map(|peer| match peer {
                    Peer::Pods(pods) => Some(Group { pods: pods.clone(), port: None }),
                    Peer::All | Peer::Blocks(_) => None,
                }));
                if rule.peers.iter().any(|peer| matches!(peer, Peer::Blocks(_))) {
                    blocks.insert((direction, index), self.number());
                }
                for port in &rule.ports {
                    let targets = rule.peers.iter().filter_map(|peer| named(direction, &spec.subject, peer, port));
                    groups.extend(targets);
                }
            }
        }
        for group in &groups {
            self.acquire(group);
        }
        Policy { number: number.unwrap_or_else(|| self.number()), spec, groups, blocks }
    }

    fn acquire(&mut self, group: &Group) {
        if let Some(counted) = self.groups.get_mut(group) {
            counted.users += 1;
            return;
        }
        let number = self.number();
        self.groups.insert(group.clone(), Counted { number, users: 1 });
        self.touch(group);
    }

    fn release(&mut self, group: &Group) {
        let Some(counted) = self.groups.get_mut(group) else { return };
        counted.users -= 1;
        if counted.users == 0 {
            self.groups.remove(group);
            self.touch(group);
        }
    }

    /// The pods of a group that came or went have other elements.
    fn touch(&mut self, group: &Group) {
        let members: Vec<Key> =
            self.pods.iter().filter(|(key, pod)| self.selects(&group.pods, key, pod)).map(|(key, _)| key.clone()).collect();
        self.dirty.extend(members);
    }

    fn selects(&self, selection: &Selection, key: &Key, pod: &Facts) -> bool {
        let namespace = match &selection.namespaces {
            Namespaces::One(name) => name == key.ns(),
            Namespaces::Selected(selector) => self.namespaces.get(key.ns()).is_some_and(|labels| selector.matches(labels)),
        };
        namespace && selection.pods.matches(&pod.labels)
    }

    fn policy_fragment(&self, key: &Key, policy: &Policy) -> Fragment {
        let mut fragment = Fragment::default();
        let name = title(key);
        for family in self.families.iter().copied() {
            for group in &policy.groups {
                let Some(Counted { number, .. }) = self.groups.get(group) else { continue };
                fragment.extend(match group.port {
                    None => policies::peer_set(family, *number),
                    Some(_) => policies::named_set(family, *number),
                });
            }
            for direction in Direction::ALL {
                let Some(rules) = policy.spec.rules(direction) else { continue };
                for (index, peer) in
                    rules.iter().enumerate().flat_map(|(index, rule)| rule.peers.iter().map(move |peer| (index, peer)))
                {
                    if let (Peer::Blocks(ranges), Some(number)) = (peer, policy.blocks.get(&(direction, index))) {
                        let own = ranges.iter().copied().filter(|(first, _)| Family::of(*first) == family);
                        fragment.extend(policies::blocks(family, *number, &own.collect::<Vec<_>>()));
                    }
                }
                // The rules of the cluster's policies are in the chains of the pods that they concern.
                if policy.spec.tier == Tier::Namespaced {
                    let allowed = self.decisions(direction, policy);
                    fragment.chains.push((family, policies::policy(direction, family, policy.number, &name, &allowed)));
                }
            }
        }
        fragment
    }

    /// What a policy says in a direction, in order.
    fn decisions(&self, direction: Direction, policy: &Policy) -> Vec<Decision> {
        let mut all = Vec::new();
        for (index, rule) in policy.spec.rules(direction).unwrap_or_default().iter().enumerate() {
            let block = policy.blocks.get(&(direction, index)).copied();
            for peer in &rule.peers {
                let connections = |port| self.connections(direction, &policy.spec.subject, peer, port, block);
                let found = rule.ports.iter().filter_map(connections);
                all.extend(found.map(|(peers, ports)| Decision { action: rule.action, peers, ports }));
            }
        }
        all
    }

    fn connections(
        &self,
        direction: Direction,
        subject: &Selection,
        peer: &Peer,
        port: &Port,
        block: Option<u32>,
    ) -> Option<(Peers, Ports)> {
        let number = |group: &Group| self.groups.get(group).map(|counted| counted.number);
        let ports = match port {
            Port::All => Ports::All,
            Port::Of(protocol) => Ports::Of(*protocol),
            Port::Range(protocol, first, last) => Ports::Range(*protocol, *first, *last),
            Port::Named(..) => Ports::Named(number(&named(direction, subject, peer, port)?)?),
        };
        let peers = match peer {
            Peer::All => Peers::All,
            // The ports of the name are those of the peer's pods already.
            Peer::Pods(_) if direction == Direction::Egress && matches!(port, Port::Named(..)) => Peers::All,
            Peer::Pods(pods) => Peers::Pods(number(&Group { pods: pods.clone(), port: None })?),
            Peer::Blocks(_) => Peers::Blocks(block?),
        };
        Some((peers, ports))
    }

    /// The elements that name a pod.
    fn pod_fragment(&mut self, key: &Key) -> Fragment {
        let before = self.isolated.remove(key).unwrap_or_default();
        let mut fragment = Fragment::default();
        if let Some(pod) = self.pods.get(key).cloned() {
            let addresses: Vec<IpAddr> =
                pod.addresses.iter().copied().filter(|address| self.families.contains(&Family::of(*address))).collect();
            for (group, Counted { number, .. }) in self.groups.iter().filter(|(group, _)| self.selects(&group.pods, key, &pod)) {
                for address in &addresses {
                    match &group.port {
                        None => fragment.elements.push(policies::peer(*address, *number)),
                        Some((protocol, name)) => {
                            let ports = pod.ports.iter().filter(|(one, of, _)| one == name && of == protocol);
                            fragment.elements.extend(ports.map(|(_, protocol, port)| {
                                policies::named_port(Place { address: *address, protocol: *protocol, port: *port }, *number)
                            }));
                        }
                    }
                }
            }
            let now = if pod.local { self.policies_of(key, &pod) } else { Vec::new() };
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

    /// The policies that concern a pod, for each direction in which there are some.
    fn policies_of(&self, key: &Key, pod: &Facts) -> Vec<(Direction, Stack)> {
        let of_cluster = self.policies.iter().take_while(|(policy, _)| policy.namespace.is_none());
        let first = Key::namespaced(key.ns(), "");
        let own = self.policies.range(first..).take_while(|(policy, _)| policy.namespace == key.namespace);
        let all: Vec<&Policy> = of_cluster
            .chain(own)
            .map(|(_, policy)| policy)
            .filter(|policy| self.selects(&policy.spec.subject, key, pod))
            .collect();
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
    fn restack(&mut self, policy: Option<u32>) {
        let Some(policy) = policy else { return };
        let has = |stack: &Stack| stack.admin.contains(&policy) || stack.baseline.contains(&policy);
        let changed = self.isolations.iter().filter(|((_, stack), _)| has(stack)).map(|((direction, stack), counted)| {
            let fragment = self.isolation_fragment(*direction, stack, counted.number);
            (isolation_owner(*direction, counted.number), fragment)
        });
        let changed: Vec<Change> = changed.collect();
        self.changes.extend(changed);
    }

    fn isolation_fragment(&self, direction: Direction, stack: &Stack, number: u32) -> Fragment {
        let by_number: HashMap<u32, (String, &Policy)> =
            self.policies.iter().map(|(key, policy)| (policy.number, (title(key), policy))).collect();
        let tier = |numbers: &[u32]| -> Vec<(Decision, &str)> {
            let found = numbers.iter().filter_map(|number| by_number.get(number));
            found
                .flat_map(|(title, policy)| self.decisions(direction, policy).into_iter().map(|one| (one, title.as_str())))
                .collect()
        };
        let named = |number: &u32| (*number, by_number.get(number).map_or("", |(title, _)| title.as_str()));
        let of = Isolation {
            admin: tier(&stack.admin),
            policies: stack.namespaced.iter().map(named).collect(),
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

/// How a policy is called in the comments of rules.
fn title(key: &Key) -> String {
    if key.namespace.is_some() { format!("NetworkPolicy {key}") } else { key.name.clone() }
}

/// The pods whose ports of a name a rule means: those that the connection goes to.
fn named(direction: Direction, subject: &Selection, peer: &Peer, port: &Port) -> Option<Group> {
    let Port::Named(protocol, name) = port else { return None };
    let everything = apimachinery::labels::Selector::everything;
    let pods = match (direction, peer) {
        (Direction::Ingress, _) => subject.clone(),
        (Direction::Egress, Peer::Pods(pods)) => pods.clone(),
        (Direction::Egress, Peer::All | Peer::Blocks(_)) => {
            Selection { namespaces: Namespaces::Selected(everything()), pods: everything() }
        }
    };
    Some(Group { pods, port: Some((*protocol, name.clone())) })
}

#[cfg(test)]
mod tests;
