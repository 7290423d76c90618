//! Who owns an address and port of the node: one place decides. Pure.
//!
//! What is reserved comes first: ports that are nodes' own, be it this node's or another's, service addresses, and what programs of the
//! host listen on. Then whoever came first has a place and keeps it, be it a node port, a host port, an external address or a load
//! balancer, and whatever the names are. Who comes later waits, and is told what for. The cluster's own service addresses are not
//! claimed here: nobody else can have one of them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Family;
use super::element::{Element, Key, Protocol};

/// A place, and what holds there for who owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The place. The unspecified address stands for every address of the node.
    pub key: Key,
    pub(crate) elements: Vec<Element>,
    pub(crate) right: Right,
    pub(crate) programs: Programs,
}

/// Addresses at which programs that the owner of a place leads to may listen at its port themselves: pods in the node's network, or ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Programs {
    /// It is not known yet where the owner leads to.
    Unknown,
    /// At these addresses.
    At(Vec<IpAddr>),
}

impl Programs {
    /// No program that listens is the owner's.
    pub const NONE: Self = Self::At(Vec::new());
}

/// By what right an owner claims a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// The place is a node's own: the owner has it whoever came first, and nobody else gets it.
    Reserved,
    /// The place is at an address of another node, which has given it to others: what goes there keeps its destination. Nobody else gets it here.
    Elsewhere,
    /// Who comes first has it.
    First,
    /// The same, for an address of a load balancer: which of them has it is the controller's to say.
    Balancer,
}

impl Claimed {
    /// A place for who comes first.
    pub(crate) fn first(key: Key, elements: Vec<Element>) -> Self {
        Self { key, elements, right: Right::First, programs: Programs::NONE }
    }
}

/// What is there besides claims.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Addresses of the node.
    pub local: HashSet<IpAddr>,
    /// Ranges of service addresses.
    pub service_cidrs: Vec<IpNet>,
    /// Where programs of the host serve others.
    pub listeners: HashSet<Key>,
}

/// Why a place is not given to an owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Taken {
    /// It is the node's or the cluster's own.
    Reserved,
    /// The node that has the address has given it to others, and tells them so.
    Elsewhere,
    /// A program of the host listens there.
    Listener,
    /// What listens there is, or may be, what the owner leads to: connections reach it without the owner's rules.
    Own,
    /// Another owner came first.
    Owner(Arc<str>),
}

/// A place that an owner has not got.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refused {
    /// The place.
    pub key: Key,
    /// Who has it.
    pub taken: Taken,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { address, protocol, port } = self.key;
        match address.is_unspecified() {
            true => write!(f, "port {port}/{protocol} of the node")?,
            false => write!(f, "port {port}/{protocol} of {address}")?,
        }
        match &self.taken {
            Taken::Reserved => f.write_str(" is reserved for the cluster itself"),
            Taken::Elsewhere => f.write_str(" is taken on the node that has the address"),
            Taken::Listener => f.write_str(" is in use by a program of the host"),
            Taken::Own => f.write_str(" is in use by what it leads to"),
            Taken::Owner(owner) => match owner.split_once(':') {
                // Pods are known by their sandboxes here, which say nothing to people.
                Some(("pod", _)) => f.write_str(" is taken by the host port of a pod"),
                Some((kind, name)) => write!(f, " is taken by {kind} {name}"),
                None => write!(f, " is taken by {owner}"),
            },
        }
    }
}

#[derive(Debug)]
struct Held {
    owner: Arc<str>,
    address: IpAddr,
    elements: Vec<Element>,
    right: Right,
    programs: Programs,
    /// None: the owner has the place.
    taken: Option<Taken>,
}

impl Held {
    fn is_reserved(&self) -> bool {
        self.reserves().is_some()
    }

    /// What others are told of the place, if they do not get it whoever came first.
    fn reserves(&self) -> Option<Taken> {
        match self.right {
            Right::Reserved => Some(Taken::Reserved),
            Right::Elsewhere => Some(Taken::Elsewhere),
            Right::First | Right::Balancer => None,
        }
    }
}

/// The claims of all owners.
#[derive(Debug, Default)]
pub struct Claims {
    /// By protocol and port, in the order in which they came.
    places: HashMap<(Protocol, u16), Vec<Held>>,
    owners: HashMap<Arc<str>, BTreeSet<Key>>,
    /// Where somebody waits for a program of the host.
    programs: HashSet<(Protocol, u16)>,
}

impl Claims {
    /// Replaces what an owner claims. Returns the ports at which anything may have changed, and what the owner had claimed.
    pub(crate) fn set(&mut self, owner: &Arc<str>, claimed: Vec<Claimed>) -> (HashSet<(Protocol, u16)>, Vec<Claimed>) {
        let mut new: HashMap<Key, Claimed> = HashMap::new();
        for claim in claimed {
            match new.entry(claim.key) {
                Entry::Vacant(place) => drop(place.insert(claim)),
                Entry::Occupied(mut place) => {
                    let place = place.get_mut();
                    place.elements.extend(claim.elements);
                    place.right = place.right.min(claim.right);
                }
            }
        }
        let keys: BTreeSet<Key> = new.keys().copied().collect();
        let old = self.owners.remove(owner).unwrap_or_default();
        let mut displaced = Vec::with_capacity(old.len());
        for key in old.difference(&keys) {
            let port = (key.protocol, key.port);
            if let Some(all) = self.places.get_mut(&port) {
                let own = all.extract_if(.., |held| held.owner == *owner && held.address == key.address);
                displaced.extend(own.map(|Held { elements, right, programs, .. }| Claimed {
                    key: *key,
                    elements,
                    right,
                    programs,
                }));
                if all.is_empty() {
                    self.places.remove(&port);
                }
            }
        }
        for (key, Claimed { elements, right, programs, .. }) in new {
            let all = self.places.entry((key.protocol, key.port)).or_default();
            match all.iter_mut().find(|held| held.owner == *owner && held.address == key.address) {
                Some(held) => {
                    let elements = std::mem::replace(&mut held.elements, elements);
                    let right = std::mem::replace(&mut held.right, right);
                    let programs = std::mem::replace(&mut held.programs, programs);
                    displaced.push(Claimed { key, elements, right, programs });
                }
                None => {
                    let (owner, address, taken) = (owner.clone(), key.address, Some(Taken::Reserved));
                    all.push(Held { owner, address, elements, right, programs, taken });
                }
            }
        }
        let touched = old.union(&keys).map(|key| (key.protocol, key.port)).collect();
        if !keys.is_empty() {
            self.owners.insert(owner.clone(), keys);
        }
        (touched, displaced)
    }

    /// Decides anew who has what at these ports. Returns the owners whose claims are there.
    pub(crate) fn decide(&mut self, ports: &HashSet<(Protocol, u16)>, world: &World) -> BTreeSet<Arc<str>> {
        let mut concerned = BTreeSet::new();
        for port in ports {
            self.programs.remove(port);
            let Some(all) = self.places.get_mut(port) else { continue };
            // What is reserved is asked first, then who has a place, then who waits, each in the order in which they came.
            let mut order: Vec<usize> = (0..all.len()).collect();
            order.sort_by_key(|index| (!all[*index].is_reserved(), all[*index].taken.is_some()));
            // By address: services by the thousand may have the same port.
            let mut granted: HashMap<IpAddr, Vec<usize>> = HashMap::new();
            for index in order {
                let held = &all[index];
                let key = Key { address: held.address, protocol: port.0, port: port.1 };
                let other = || {
                    let there = world.overlapping(held.address).into_iter().filter_map(|address| granted.get(&address));
                    let others = there.flatten().filter(|other| all[**other].owner != held.owner);
                    others.min_by_key(|other| (!all[**other].is_reserved(), **other)).map(|other| &all[*other])
                };
                let taken = match other() {
                    _ if held.is_reserved() => None,
                    _ if world.reserves(key.address) => Some(Taken::Reserved),
                    Some(other) => Some(other.reserves().unwrap_or_else(|| Taken::Owner(other.owner.clone()))),
                    None if held.taken.is_some() => world.listener(key, &held.programs),
                    None => None,
                };
                if taken.is_none() {
                    granted.entry(held.address).or_default().push(index);
                }
                if matches!(taken, Some(Taken::Listener | Taken::Own)) {
                    self.programs.insert(*port);
                }
                concerned.insert(held.owner.clone());
                all[index].taken = taken;
            }
        }
        concerned
    }

    /// Ports that somebody has not got because a program of the host has them: nobody tells when it ends.
    pub(crate) fn programs(&self) -> &HashSet<(Protocol, u16)> {
        &self.programs
    }

    /// What an owner claims.
    pub(crate) fn claimed(&self, owner: &str) -> Vec<Claimed> {
        let of = |(key, held): (Key, &Held)| {
            let Held { elements, right, programs, .. } = held;
            Claimed { key, elements: elements.clone(), right: *right, programs: programs.clone() }
        };
        self.of(owner).map(of).collect()
    }

    /// What holds at the places that the owner has.
    pub(crate) fn granted(&self, owner: &Arc<str>) -> Vec<Element> {
        self.of(owner).filter(|(_, held)| held.taken.is_none()).flat_map(|(_, held)| held.elements.clone()).collect()
    }

    /// The places that the owner has not got.
    pub fn refused(&self, owner: &str) -> Vec<Refused> {
        let of = |(key, held): (Key, &Held)| Some(Refused { key, taken: held.taken.clone()? });
        self.of(owner).filter_map(of).collect()
    }

    /// Who keeps a load balancer, which leads to these programs, from a place where it may not be claimed yet. Other load balancers do not: the
    /// controller sets them apart.
    pub(crate) fn lost(&self, owner: &str, key: Key, programs: &Programs, world: &World) -> Option<Taken> {
        let all = self.places.get(&(key.protocol, key.port)).map_or(&[][..], Vec::as_slice);
        let granted = || all.iter().filter(|held| held.taken.is_none() && world.overlap(held.address, key.address));
        if granted().any(|held| &*held.owner == owner && held.right == Right::Balancer) {
            return None;
        }
        match granted().find(|held| &*held.owner != owner && held.right != Right::Balancer) {
            Some(held) => Some(held.reserves().unwrap_or_else(|| Taken::Owner(held.owner.clone()))),
            None => world.listener(key, programs).filter(|taken| *taken == Taken::Listener),
        }
    }

    /// Whether an owner claims anything.
    pub(crate) fn has(&self, owner: &str) -> bool {
        self.owners.contains_key(owner)
    }

    fn of(&self, owner: &str) -> impl Iterator<Item = (Key, &Held)> {
        self.owners
            .get_key_value(owner)
            .into_iter()
            .flat_map(|(owner, keys)| keys.iter().map(move |key| (owner, *key)))
            .filter_map(|(owner, key)| {
                let all = self.places.get(&(key.protocol, key.port))?;
                all.iter().find(|held| held.owner == *owner && held.address == key.address).map(|held| (key, held))
            })
    }
}

impl World {
    fn is_local(&self, address: IpAddr) -> bool {
        address.is_unspecified() || self.local.contains(&address)
    }

    /// The addresses such that a connection can be to one of them and to this one.
    fn overlapping(&self, address: IpAddr) -> Vec<IpAddr> {
        let any = Family::of(address).unspecified();
        if address.is_unspecified() {
            let own = self.local.iter().copied().filter(|one| Family::of(*one) == Family::of(address));
            return own.chain([address]).collect();
        }
        if self.is_local(address) { vec![address, any] } else { vec![address] }
    }

    /// Whether a connection can be to both.
    fn overlap(&self, a: IpAddr, b: IpAddr) -> bool {
        let any = |any: IpAddr, one: IpAddr| any.is_unspecified() && self.is_local(one);
        Family::of(a) == Family::of(b) && (a == b || any(a, b) || any(b, a))
    }

    fn reserves(&self, address: IpAddr) -> bool {
        self.service_cidrs.iter().any(|cidr| cidr.contains(&address))
    }

    /// What listens at a place that an owner asks for who leads to these programs.
    fn listener(&self, key: Key, programs: &Programs) -> Option<Taken> {
        let is_own = match programs {
            Programs::Unknown => true,
            Programs::At(addresses) => addresses.iter().any(|address| self.local.contains(address)),
        };
        self.listens(key).then_some(if is_own { Taken::Own } else { Taken::Listener })
    }

    /// What listens at loopback is not reached from elsewhere, and what the node serves at service addresses is nobody's to claim.
    fn listens(&self, key: Key) -> bool {
        self.is_local(key.address)
            && self.listeners.iter().any(|Key { address, protocol, port }| {
                // What listens at `::` mostly serves both families.
                let both = address.is_unspecified() && address.is_ipv6();
                (*protocol, *port) == (key.protocol, key.port)
                    && !address.is_loopback()
                    && !self.reserves(*address)
                    && (both || self.overlap(*address, key.address))
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn world() -> World {
        World {
            local: ["192.0.2.1", "192.0.2.2", "10.42.0.1", "10.43.0.10", "2001:db8::1"].map(|one| one.parse().unwrap()).into(),
            service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
            listeners: HashSet::new(),
        }
    }

    /// `tcp ADDRESS PORT`, `udp ...`; the address `*` is every one of the node.
    fn key(text: &str) -> Key {
        let [protocol, address, port] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
        let address = if address == "*" { [0; 4].into() } else { address.parse().unwrap() };
        Key { address, protocol: Protocol::from_name(Some(&protocol.to_uppercase())).unwrap(), port: port.parse().unwrap() }
    }

    fn claimed(place: &str, right: Right) -> Claimed {
        Claimed { right, ..Claimed::first(key(place), Vec::new()) }
    }

    /// Lets owners (what `reserved` claims is a node's own) claim places (separated by commas) one after the other, and compares what is refused at the end.
    fn check(world: &World, steps: &[(&str, &str)], expected: &[(&str, &str)]) {
        let mut claims = Claims::default();
        for (owner, places) in steps {
            let places = places.split(", ").filter(|one| !one.is_empty());
            let right = match *owner {
                "reserved" => Right::Reserved,
                "elsewhere" => Right::Elsewhere,
                _ => Right::First,
            };
            let claimed = places.map(|one| claimed(one, right)).collect();
            let (touched, _) = claims.set(&Arc::from(*owner), claimed);
            claims.decide(&touched, world);
        }
        let mut refused: Vec<(String, String)> = Vec::new();
        let owners: BTreeSet<&str> = steps.iter().map(|(owner, _)| *owner).collect();
        for owner in owners {
            refused.extend(claims.refused(owner).into_iter().map(|one| (owner.to_owned(), one.to_string())));
        }
        let expected: Vec<_> = expected.iter().map(|(owner, text)| (String::from(*owner), String::from(*text))).collect();
        assert_eq!(refused, expected, "{steps:?}");
    }

    #[test]
    fn first_come_first_kept() {
        // The names say nothing.
        let (a, b) = ("service:z/first", "service:b/late");
        let taken = [(b, "port 80/TCP of the node is taken by service z/first")];
        check(&world(), &[(a, "tcp * 80"), (b, "tcp * 80")], &taken);
        // It keeps the place when it claims it again, and more.
        check(&world(), &[(a, "tcp * 80"), (b, "tcp * 80"), (a, "tcp * 80, tcp * 81")], &taken);
        check(&world(), &[(a, "tcp * 80"), (b, "tcp * 80"), (a, "")], &[]);
        check(&world(), &[(a, "tcp * 80"), (b, "udp * 80, tcp * 81")], &[]);
        check(&world(), &[(a, "tcp * 80, tcp 192.0.2.1 80")], &[]);
        // Given up and asked for again: now the other was first.
        let other = [(a, "port 80/TCP of the node is taken by service b/late")];
        check(&world(), &[(a, "tcp * 80"), (b, "tcp * 80"), (a, ""), (a, "tcp * 80")], &other);
    }

    #[test]
    fn an_address_of_the_node_is_one_of_all() {
        let (a, b) = ("service:x/a", "pod:p");
        check(&world(), &[(a, "tcp 192.0.2.1 80"), (b, "tcp * 80")], &[(b, "port 80/TCP of the node is taken by service x/a")]);
        check(
            &world(),
            &[(b, "tcp * 80"), (a, "tcp 192.0.2.1 80")],
            &[(a, "port 80/TCP of 192.0.2.1 is taken by the host port of a pod")],
        );
        check(&world(), &[(a, "tcp 192.0.2.1 80"), (b, "tcp 192.0.2.2 80")], &[]);
        // An address that the node has not is no port of the node.
        check(&world(), &[(a, "tcp 203.0.113.5 80"), (b, "tcp * 80")], &[]);
        check(&world(), &[(a, "tcp 2001:db8::1 80"), (b, "tcp * 80")], &[]);
        // Who waits does not keep others waiting.
        let c = "service:x/c";
        let steps = [(a, "tcp 192.0.2.1 80"), (b, "tcp * 80"), (c, "tcp 192.0.2.2 80")];
        check(&world(), &steps, &[(b, "port 80/TCP of the node is taken by service x/a")]);
        check(&world(), &[&steps[..], &[(a, "")]].concat(), &[(b, "port 80/TCP of the node is taken by service x/c")]);
    }

    #[test]
    fn what_nobody_gets() {
        let own = ("reserved", "tcp * 6443, tcp * 10250, udp * 8472, udp 192.0.2.3 8472");
        let reserved = |place: &str| format!("port {place} is reserved for the cluster itself");
        for (place, name) in [
            ("tcp * 6443", "6443/TCP of the node"),
            ("udp * 8472", "8472/UDP of the node"),
            ("udp 192.0.2.2 8472", "8472/UDP of 192.0.2.2"),
            ("tcp 192.0.2.1 10250", "10250/TCP of 192.0.2.1"),
            // Of another node.
            ("udp 192.0.2.3 8472", "8472/UDP of 192.0.2.3"),
            ("tcp 10.43.0.1 443", "443/TCP of 10.43.0.1"),
            ("udp 10.43.0.10 53", "53/UDP of 10.43.0.10"),
        ] {
            check(&world(), &[own, ("a", place)], &[("a", &reserved(name))]);
            // What turns out later to be a node's own is taken back.
            check(&world(), &[("a", place), own], &[("a", &reserved(name))]);
        }
        check(&world(), &[own, ("a", "udp * 10250, tcp * 8472"), ("b", "tcp 203.0.113.5 6443, udp 203.0.113.5 8472")], &[]);
        check(&world(), &[own, ("a", "udp 192.0.2.3 8472"), ("reserved", "")], &[]);
    }

    #[test]
    fn what_another_node_has_given_to_others() {
        let told = ("elsewhere", "tcp 192.0.2.3 80");
        let expected = [("a", "port 80/TCP of 192.0.2.3 is taken on the node that has the address")];
        check(&world(), &[told, ("a", "tcp 192.0.2.3 80, tcp 192.0.2.3 81")], &expected);
        // It is told after others have asked; when it ends, those have the place.
        check(&world(), &[("a", "tcp 192.0.2.3 80"), told], &expected);
        check(&world(), &[("a", "tcp 192.0.2.3 80"), told, ("elsewhere", "")], &[]);
    }

    #[test]
    fn programs_of_the_host_keep_their_ports() {
        let with = |listener: &str| World { listeners: [key(listener)].into(), ..world() };
        let in_use = |place: &str| format!("port {place} is in use by a program of the host");
        for (protocol, other) in [("tcp", "udp"), ("udp", "tcp"), ("sctp", "udp")] {
            let name = protocol.to_uppercase();
            for listener in ["0.0.0.0", "::", "192.0.2.1"] {
                let world = with(&format!("{protocol} {listener} 22"));
                check(&world, &[("a", &format!("{protocol} * 22"))], &[("a", &in_use(&format!("22/{name} of the node")))]);
                let at = format!("{protocol} 192.0.2.1 22");
                check(&world, &[("a", &at)], &[("a", &in_use(&format!("22/{name} of 192.0.2.1")))]);
                let elsewhere = format!("{protocol} 203.0.113.5 22, {other} * 22, {protocol} * 23");
                check(&world, &[("a", &elsewhere)], &[]);
            }
            // The last is the cluster DNS.
            for listener in ["127.0.0.1", "::1", "10.43.0.10"] {
                check(&with(&format!("{protocol} {listener} 22")), &[("a", &format!("{protocol} * 22"))], &[]);
            }
        }
        // A program that starts later takes nothing.
        let mut claims = Claims::default();
        let claimed = || vec![claimed("tcp * 22", Right::First)];
        for world in [world(), with("tcp 0.0.0.0 22")] {
            let (touched, _) = claims.set(&Arc::from("a"), claimed());
            claims.decide(&touched, &world);
            assert_eq!(claims.refused("a"), []);
        }
        // Who waits for one is known until it has ended.
        let mut claims = Claims::default();
        let (ports, _) = claims.set(&Arc::from("a"), claimed());
        for (world, waits) in [(with("tcp 0.0.0.0 22"), true), (world(), false), (with("tcp 0.0.0.0 22"), false)] {
            claims.decide(&ports, &world);
            assert_eq!((claims.refused("a").is_empty(), claims.programs().is_empty()), (!waits, !waits));
        }
        claims.set(&Arc::from("a"), Vec::new());
        claims.set(&Arc::from("b"), claimed());
        claims.decide(&ports, &with("tcp 0.0.0.0 22"));
        claims.set(&Arc::from("b"), Vec::new());
        claims.decide(&ports, &world());
        assert!(claims.programs().is_empty());
    }

    /// What a Service leads to may listen on the node before its endpoints are known or ready: nobody is told that a program has the port.
    #[test]
    fn who_leads_to_a_program_of_the_host_loses_nothing_to_it() {
        let world = World { listeners: [key("tcp 0.0.0.0 22")].into(), ..world() };
        let at = |address: &str| Programs::At(vec![address.parse().unwrap()]);
        let cases = [
            (Programs::Unknown, Taken::Own, None),
            (at("192.0.2.2"), Taken::Own, None),
            (Programs::NONE, Taken::Listener, Some(Taken::Listener)),
            (at("203.0.113.5"), Taken::Listener, Some(Taken::Listener)),
        ];
        let mut claims = Claims::default();
        for (programs, expected, lost) in cases {
            let place = key("tcp 192.0.2.1 22");
            let claim = Claimed { programs: programs.clone(), ..claimed("tcp 192.0.2.1 22", Right::Balancer) };
            let (touched, _) = claims.set(&Arc::from("a"), vec![claim]);
            claims.decide(&touched, &world);
            assert_eq!(claims.refused("a"), [Refused { key: place, taken: expected }], "{programs:?}");
            assert_eq!(claims.lost("a", place, &programs, &world), lost, "{programs:?}");
            // When it has ended, the place is the Service's.
            assert_eq!(claims.programs().len(), 1);
        }
    }

    #[test]
    fn what_load_balancers_lose() {
        let world = World { listeners: [key("tcp 0.0.0.0 22")].into(), ..world() };
        let mut claims = Claims::default();
        let mut set = |owner: &str, places: &[&str], right| {
            let (touched, _) = claims.set(&Arc::from(owner), places.iter().map(|one| claimed(one, right)).collect());
            claims.decide(&touched, &world);
            ["service:a", "service:b"].map(|owner| {
                let lost = ["22", "80", "81"].into_iter();
                lost.filter(|port| claims.lost(owner, key(&format!("tcp 192.0.2.1 {port}")), &Programs::NONE, &world).is_some())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(set("pod:p", &["tcp * 80"], Right::First), [["22", "80"]; 2]);
        // Whether the place is claimed or not.
        let claimed = set("service:a", &["tcp 192.0.2.1 80", "tcp 192.0.2.1 81"], Right::Balancer);
        assert_eq!(claimed, [["22", "80"]; 2]);
        // A node port of its own takes nothing from it.
        assert_eq!(set("service:b", &["tcp * 82"], Right::First), [["22", "80"]; 2]);
        assert_eq!(set("pod:p", &[], Right::First), [["22"]; 2]);
        // Who comes now waits.
        assert_eq!(set("pod:p", &["tcp * 80"], Right::First), [["22"]; 2]);
        assert_eq!(set("service:a", &[], Right::Balancer), [["22", "80"]; 2]);
    }
}
