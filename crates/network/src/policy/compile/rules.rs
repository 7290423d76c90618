//! From the rules of a policy to what the table has for them.
//!
//! A rule is one set of peers and one of ports: it takes as many rules of the table as there are kinds of these, however many it names.

use std::sync::Arc;

use client::Key;

use super::groups::Group;
use super::{State, policy_owner, title};
use crate::nft::Family;
use crate::nft::contents::Fragment;
use crate::nft::element::Protocol;
use crate::nft::features::policies::{self, Decision, Direction, Peers, Ports};
use crate::policy::spec::{self, Namespaces, Rule, Selection, Spec, Tier};

/// Sets that the rules of a NetworkPolicy may ask for, selections of pods by these, and pods in those sets that no other policy has: who writes one chooses
/// what each node keeps and asks of each pod, which is sets, or selections, times pods. A cluster of 5,000 pods has room for 50 rules about all of them.
const SETS: usize = 1000;
const SELECTIONS: usize = 4096;
const MEMBERS: usize = 1 << 18;

/// What there is of a policy.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    groups: Vec<Arc<Group>>,
    ingress: Vec<Decision>,
    egress: Vec<Decision>,
    /// Sets of any kind, selections, and pods in the groups that were made for it.
    sets: usize,
    selections: usize,
    members: usize,
}

impl Compiled {
    /// What the policy says in a direction, in order.
    pub(super) fn decisions(&self, direction: Direction) -> &[Decision] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    fn has_room(&self, rule: &Rule) -> bool {
        let selections = if let spec::Peers::Some { pods, .. } = &rule.peers { pods.len() } else { 0 };
        self.sets < SETS && self.members < MEMBERS && self.selections + selections <= SELECTIONS
    }
}

impl State {
    /// Brings the contributions of policies that have changed, or concern pods of this node only now or no more, in line.
    pub(super) fn compile_stale(&mut self) {
        let had_any = !self.compiled.is_empty();
        let stale = std::mem::take(&mut self.stale);
        let mut restacked = Vec::new();
        for key in &stale {
            let old = self.compiled.remove(key);
            let policy = self.policies.get(key).filter(|_| self.users.contains_key(key));
            let wanted =
                policy.map(|policy| (policy.number, if policy.is_closed { policy.spec.closed() } else { policy.spec.clone() }));
            match wanted {
                Some((number, spec)) => {
                    let (compiled, fragment) = self.compile(key, number, &spec);
                    self.compiled.insert(key.clone(), compiled);
                    self.changes.insert(policy_owner(key), fragment);
                    restacked.extend((spec.tier != Tier::Namespaced).then_some(number));
                }
                None if old.is_some() => drop(self.changes.insert(policy_owner(key), Fragment::default())),
                None => (),
            }
            for group in old.into_iter().flat_map(|old| old.groups) {
                if self.groups.release(&group) {
                    self.touch(&group);
                }
            }
        }
        restacked.into_iter().for_each(|number| self.restack(number));
        if had_any == self.compiled.is_empty() {
            let mut base = Fragment::default();
            for family in self.families.iter().filter(|_| !had_any) {
                base.extend(policies::base(&self.config, *family));
            }
            self.changes.insert("policies".to_owned(), base);
        }
    }

    fn compile(&mut self, key: &Key, number: u32, spec: &Spec) -> (Compiled, Fragment) {
        let (mut compiled, mut fragment) = (Compiled::default(), Fragment::default());
        let name = title(key);
        let mut left_out = 0;
        for direction in Direction::ALL {
            let Some(rules) = spec.rules(direction) else { continue };
            let mut decisions = Vec::new();
            for rule in rules {
                // Those of the cluster are written by who may do anything to it.
                if spec.tier == Tier::Namespaced && !compiled.has_room(rule) {
                    left_out += 1;
                    continue;
                }
                decisions.extend(self.compile_rule(direction, &spec.subject, rule, &mut compiled, &mut fragment));
            }
            // The rules of the cluster's policies are in the chains of the pods that they concern.
            if spec.tier == Tier::Namespaced {
                let chain = |family: &Family| (*family, policies::policy(direction, *family, number, &name, &decisions));
                fragment.chains.extend(self.families.iter().map(chain));
            }
            match direction {
                Direction::Ingress => compiled.ingress = decisions,
                Direction::Egress => compiled.egress = decisions,
            }
        }
        if left_out > 0 {
            let what = format!("{left_out} of its rules allow nothing: they name too many sets of pods, addresses and ports");
            self.problems.push((key.clone(), what));
        }
        (compiled, fragment)
    }

    fn compile_rule(
        &mut self,
        direction: Direction,
        subject: &Selection,
        rule: &Rule,
        compiled: &mut Compiled,
        fragment: &mut Fragment,
    ) -> Vec<Decision> {
        let ports = self.ports(&rule.ports, compiled, fragment);
        let named = match &rule.ports {
            spec::Ports::Some { named, .. } if !named.is_empty() => Some(named.clone()),
            _ => None,
        };
        let (pods, blocks) = match &rule.peers {
            spec::Peers::All => (&[][..], None),
            spec::Peers::Some { pods, blocks } => (&pods[..], Some(blocks)),
        };
        let blocks = blocks.filter(|ranges| !ranges.is_empty()).map(|ranges| {
            let number = self.number();
            compiled.sets += 1;
            for family in &self.families {
                let own: Vec<_> = ranges.iter().copied().filter(|(first, _)| Family::of(*first) == *family).collect();
                fragment.extend(policies::blocks(*family, number, &own));
            }
            Peers::Blocks(number)
        });
        // Whoever is not told from others by being a pod.
        let others: Vec<Peers> = if rule.peers == spec::Peers::All { vec![Peers::All] } else { blocks.into_iter().collect() };
        let mut found: Vec<(Peers, Ports)> = Vec::new();
        let mut need = |pods: &[Selection], ports: Option<&Vec<_>>| {
            let group = Group { pods: pods.to_vec(), ports: ports.cloned() };
            self.need(group, compiled, fragment)
        };
        let mut members = None;
        if !pods.is_empty() && (!ports.is_empty() || direction == Direction::Ingress) {
            members = Some(Peers::Pods(need(pods, None)));
        }
        found.extend(members.iter().chain(&others).flat_map(|peers| ports.iter().map(|ports| (*peers, *ports))));
        if let Some(names) = &named {
            // The ports of a name are those of the pods that the connection goes to.
            match direction {
                Direction::Ingress => {
                    let ports = Ports::Named(need(std::slice::from_ref(subject), Some(names)));
                    found.extend(members.iter().chain(&others).map(|peers| (*peers, ports)));
                }
                Direction::Egress => {
                    if !pods.is_empty() {
                        found.push((Peers::All, Ports::Named(need(pods, Some(names)))));
                    }
                    if !others.is_empty() {
                        let ports = Ports::Named(need(&[everybody()], Some(names)));
                        found.extend(others.iter().map(|peers| (*peers, ports)));
                    }
                }
            }
        }
        found.into_iter().map(|(peers, ports)| Decision { action: rule.action, peers, ports }).collect()
    }

    /// The ports of a rule that have numbers.
    fn ports(&mut self, ports: &spec::Ports, compiled: &mut Compiled, fragment: &mut Fragment) -> Vec<Ports> {
        let spec::Ports::Some { ranges, .. } = ports else { return vec![Ports::All] };
        let mut found = Vec::new();
        for of_protocol in ranges.chunk_by(|(one, ..), (other, ..)| one == other) {
            found.extend(match of_protocol {
                [] => None,
                [(protocol, 0, u16::MAX)] => Some(Ports::Of(*protocol)),
                [(protocol, first, last)] => Some(Ports::Range(*protocol, *first, *last)),
                [(protocol, ..), ..] => {
                    compiled.sets += 1;
                    Some(self.port_set(*protocol, of_protocol, fragment))
                }
            });
        }
        found
    }

    fn port_set(&mut self, protocol: Protocol, ranges: &[(Protocol, u16, u16)], fragment: &mut Fragment) -> Ports {
        let number = self.number();
        let ranges: Vec<(u16, u16)> = ranges.iter().map(|(_, first, last)| (*first, *last)).collect();
        for family in &self.families {
            fragment.extend(policies::port_ranges(*family, number, &ranges));
        }
        Ports::Ranges(protocol, number)
    }

    /// The number of a group's set, which is there from now on.
    fn need(&mut self, group: Group, compiled: &mut Compiled, fragment: &mut Fragment) -> u32 {
        let group = Arc::new(group);
        let last = &mut self.last_number;
        let next = || {
            *last += 1;
            *last
        };
        let (number, is_new) = self.groups.acquire(&group, next);
        if is_new {
            compiled.members += self.touch(&group);
        }
        for family in &self.families {
            fragment.extend(group.set(*family, number));
        }
        compiled.sets += 1;
        compiled.selections += group.pods.len();
        compiled.groups.push(group);
        number
    }

    /// The pods of a group that came or went have other elements. Returns their number.
    fn touch(&mut self, group: &Group) -> usize {
        let namespaces = group.namespaces();
        let mut members: Vec<Key> = Vec::new();
        if namespaces.contains(&None) {
            let all = self.pods.iter().filter(|(key, pod)| group.selects(&self.namespaces, key, pod));
            members.extend(all.map(|(key, _)| key.clone()));
        } else {
            for namespace in namespaces.into_iter().flatten() {
                let own = self.in_namespace(namespace).filter(|(key, pod)| group.selects(&self.namespaces, key, pod));
                members.extend(own.map(|(key, _)| key.clone()));
            }
        }
        let count = members.len();
        self.dirty.extend(members);
        count
    }
}

/// All pods.
fn everybody() -> Selection {
    let everything = apimachinery::labels::Selector::everything;
    Selection { namespaces: Namespaces::Selected(everything()), pods: everything() }
}
