//! Who has which address and port: a set that follows the caches.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::Value;

use crate::Entry;
use crate::cache::{Cache, Cursor, Since};

/// Addresses and node ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Whatever the protocol: a node port belongs to one service (as upstream's allocator has it).
    pub(super) ports: BTreeSet<u16>,
    /// Ports of a load balancer that all nodes serve, whatever the protocol: no node port is chosen to have such a number.
    pub(super) balanced: BTreeSet<u16>,
}

impl Taken {
    /// What a service has.
    pub(super) fn of(service: &Value) -> Self {
        let list = |at: &str| service.pointer(at).and_then(Value::as_array).into_iter().flatten();
        let number = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
        let ports = list("/spec/ports").filter_map(|port| number(&port["nodePort"]));
        let health = service.pointer("/spec/healthCheckNodePort").and_then(number);
        Self {
            addresses: list("/spec/clusterIPs").filter_map(|address| address.as_str()?.parse().ok()).collect(),
            ports: ports.chain(health).collect(),
            balanced: service["spec"].as_object().map(super::ports::balanced).unwrap_or_default(),
        }
    }
}

/// How often something is had: a change is taken in before or after another one that goes with it.
#[derive(Debug)]
struct Counts<T>(HashMap<T, u32>);

impl<T> Default for Counts<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Eq + Hash> Counts<T> {
    fn add(&mut self, one: T) {
        *self.0.entry(one).or_default() += 1;
    }

    fn remove(&mut self, one: &T) {
        if let Some(count) = self.0.get_mut(one) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(one);
            }
        }
    }

    fn get(&self, one: &T) -> u32 {
        self.0.get(one).copied().unwrap_or(0)
    }
}

/// Who has what.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// How far the caches of services, of addresses and of ranges were read.
    read: [Cursor; 3],
    /// What each service has, by its path.
    services: HashMap<String, Taken>,
    /// What services have, and what is being written.
    addresses: Counts<IpAddr>,
    ports: Counts<u16>,
    balanced: Counts<u16>,
    /// Addresses that IPAddress objects claim for others than services.
    claimed: BTreeSet<IpAddr>,
    /// Ranges of ServiceCIDRs that are ready, by name.
    ranges: HashMap<String, Ranges>,
}

impl Book {
    /// Takes in what has changed among the services.
    pub(super) fn follow(&mut self, cache: &Cache) {
        match cache.since(&mut self.read[0]) {
            Since::All(services) => {
                let old: Vec<String> = self.services.keys().cloned().collect();
                old.iter().for_each(|path| self.put(path, None));
                services.iter().for_each(|entry| self.put(&path(entry), Some(Taken::of(&entry.value()))));
            }
            Since::Changes(changes) => {
                for (path, entry) in changes {
                    self.put(&path, entry.map(|entry| Taken::of(&entry.value())));
                }
            }
        }
    }

    /// The service at `path` has this from now on; none is a service that is gone.
    pub(super) fn put(&mut self, path: &str, new: Option<Taken>) {
        if let Some(new) = &new {
            self.hold(new);
        }
        let old = match new {
            Some(new) => self.services.insert(path.to_owned(), new),
            None => self.services.remove(path),
        };
        if let Some(old) = old {
            self.release(&old);
        }
    }

    /// Takes in which addresses others than services have.
    pub(super) fn follow_claims(&mut self, cache: &Cache) {
        let address = |path: &str| path.parse::<IpAddr>().ok();
        let of_others = |entry: &Entry| {
            let parent = &entry.value()["spec"]["parentRef"];
            let of_service = parent["resource"] == super::SERVICES && parent["group"].as_str().unwrap_or_default().is_empty();
            !of_service
        };
        match cache.since(&mut self.read[1]) {
            Since::All(all) => {
                self.claimed = all.iter().filter(|entry| of_others(entry)).filter_map(|entry| address(entry.name())).collect();
            }
            Since::Changes(changes) => {
                for (path, entry) in changes {
                    let Some(address) = address(&path) else { continue };
                    if entry.is_some_and(|entry| of_others(&entry)) {
                        self.claimed.insert(address);
                    } else {
                        self.claimed.remove(&address);
                    }
                }
            }
        }
    }

    /// Takes in which ranges there are.
    pub(super) fn follow_ranges(&mut self, cache: &Cache) {
        match cache.since(&mut self.read[2]) {
            Since::All(all) => {
                self.ranges = all.iter().map(|entry| (entry.name().to_owned(), Ranges::of(&entry.value()))).collect();
            }
            Since::Changes(changes) => {
                for (name, entry) in changes {
                    self.ranges.insert(name, entry.map(|entry| Ranges::of(&entry.value())).unwrap_or_default());
                }
            }
        }
        self.ranges.retain(|_, ranges| *ranges != Ranges::default());
    }

    /// The ranges of the cluster: its `own`, unless their ServiceCIDR is to go, and then those of ServiceCIDRs.
    pub(super) fn ranges(&self, own: &[IpNet]) -> Vec<IpNet> {
        let mut names: Vec<_> = self.ranges.iter().collect();
        names.sort();
        let is_ending = |range: &IpNet| names.iter().any(|(_, ranges)| ranges.ending.contains(range));
        let mut all: Vec<IpNet> = own.iter().map(IpNet::trunc).filter(|range| !is_ending(range)).collect();
        for range in names.iter().flat_map(|(_, ranges)| &ranges.usable) {
            if !all.contains(range) {
                all.push(*range);
            }
        }
        all
    }

    /// Keeps this from others until it is released.
    pub(super) fn hold(&mut self, taken: &Taken) {
        taken.addresses.iter().for_each(|address| self.addresses.add(*address));
        taken.ports.iter().for_each(|port| self.ports.add(*port));
        taken.balanced.iter().for_each(|port| self.balanced.add(*port));
    }

    /// Ends a hold.
    pub(super) fn release(&mut self, taken: &Taken) {
        taken.addresses.iter().for_each(|address| self.addresses.remove(address));
        taken.ports.iter().for_each(|port| self.ports.remove(port));
        taken.balanced.iter().for_each(|port| self.balanced.remove(port));
    }

    /// Whether another than the service at `path` has the address.
    pub(super) fn has_address(&self, address: &IpAddr, path: &str) -> bool {
        let own = self.services.get(path).is_some_and(|taken| taken.addresses.contains(address));
        self.claimed.contains(address) || self.addresses.get(address) > u32::from(own)
    }

    /// Whether another than the service at `path` has the node port.
    pub(super) fn has_port(&self, port: u16, path: &str) -> bool {
        let own = self.services.get(path).is_some_and(|taken| taken.ports.contains(&port));
        self.ports.get(&port) > u32::from(own)
    }

    /// Whether a load balancer, be it the service's own, has the port on all nodes.
    pub(super) fn is_balanced(&self, port: u16) -> bool {
        self.balanced.get(&port) > 0
    }
}

fn path(entry: &Arc<Entry>) -> String {
    crate::entry::object_path(entry.namespace(), entry.name())
}

/// The ranges of a ServiceCIDR.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Ranges {
    /// From which addresses are given: none when it is not ready, or is to go (KEP-1880).
    usable: Vec<IpNet>,
    /// From which none is given any more, as it is to go.
    ending: Vec<IpNet>,
}

impl Ranges {
    fn of(range: &Value) -> Self {
        let all = range.pointer("/spec/cidrs").and_then(Value::as_array).into_iter().flatten();
        let all: Vec<IpNet> = all.filter_map(|range| range.as_str()?.parse().ok()).collect();
        if range.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null()) {
            return Self { ending: all, ..Self::default() };
        }
        let conditions = range.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        let is_ready = conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        Self { usable: if is_ready { all } else { Vec::new() }, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn has(last: u8, port: u16) -> Taken {
        Taken { addresses: [IpAddr::from([10, 43, 0, last])].into(), ports: [port].into(), balanced: [port + 1000].into() }
    }

    #[test]
    fn what_a_service_has() {
        let spec = json!({"clusterIPs": ["10.43.0.9", "fd43::9"], "healthCheckNodePort": 30009,
            "ports": [{"port": 80, "nodePort": 30001}, {"port": 81}, {"port": 82, "nodePort": 0}]});
        let taken = Taken::of(&json!({"spec": spec}));
        let addresses = ["10.43.0.9", "fd43::9"].map(|address| address.parse().unwrap());
        assert_eq!(taken, Taken { addresses: addresses.into(), ports: [30001, 30009].into(), balanced: [].into() });
        assert_eq!(Taken::of(&json!({"spec": {"clusterIPs": ["None"]}})), Taken::default());
        let balanced = |spec: Value| Taken::of(&json!({"spec": spec})).balanced;
        let ports = json!([{"port": 30500}, {"port": 53, "protocol": "UDP"}]);
        assert_eq!(balanced(json!({"type": "LoadBalancer", "ports": ports})), [53, 30500].into());
        assert_eq!(balanced(json!({"type": "LoadBalancer", "loadBalancerClass": "a.b/c", "ports": ports})), [].into());
        assert_eq!(balanced(json!({"type": "NodePort", "ports": ports})), [].into());
    }

    #[test]
    fn services_come_change_and_go() {
        let mut book = Book::default();
        // Whether the service at `path` finds the address and the port of this number taken.
        #[track_caller]
        fn check(book: &Book, path: &str, number: u8, expected: bool) {
            let address = IpAddr::from([10, 43, 0, number]);
            assert_eq!((book.has_address(&address, path), book.has_port(30_000 + u16::from(number), path)), (expected, expected));
        }
        book.put("a/x", Some(has(7, 30_007)));
        check(&book, "a/y", 7, true);
        check(&book, "a/x", 7, false);
        assert!(book.is_balanced(31_007) && !book.is_balanced(31_008));
        // While a write is under way, and after it, whether its change was taken in before or not.
        book.hold(&has(8, 30_008));
        check(&book, "a/y", 8, true);
        check(&book, "a/x", 8, true);
        book.put("a/x", Some(has(8, 30_008)));
        book.release(&has(8, 30_008));
        check(&book, "a/y", 8, true);
        check(&book, "a/x", 8, false);
        check(&book, "a/y", 7, false);
        book.put("a/x", None);
        check(&book, "a/y", 8, false);
        assert!(book.balanced.0.is_empty());
    }

    #[test]
    fn ranges_that_are_ready() {
        let check = |object: Value, expected: &[&str]| {
            let found: Vec<String> = Ranges::of(&object).usable.iter().map(IpNet::to_string).collect();
            assert_eq!(found, expected, "{object}");
        };
        let (spec, ready) =
            (json!({"cidrs": ["10.9.0.0/24", "fd09::/112"]}), json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        check(json!({"spec": spec, "status": ready}), &["10.9.0.0/24", "fd09::/112"]);
        check(json!({"spec": spec}), &[]);
        check(json!({"spec": spec, "status": {"conditions": [{"type": "Ready", "status": "False"}]}}), &[]);
        check(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": ready}), &[]);
        let mut book = Book::default();
        let ranges = |all: &[&str]| all.iter().map(|range| range.parse().unwrap()).collect::<Vec<IpNet>>();
        let check = |book: &Book, expected: &[&str]| assert_eq!(book.ranges(&ranges(&["10.43.0.1/16"])), ranges(expected));
        let usable = Ranges { usable: ranges(&["10.9.0.0/24", "10.43.0.0/16"]), ending: Vec::new() };
        let ending = Ranges { usable: Vec::new(), ending: ranges(&["10.43.0.0/16"]) };
        book.ranges.insert("more".into(), usable);
        check(&book, &["10.43.0.0/16", "10.9.0.0/24"]);
        // The task "Kubernetes Default ServiceCIDR Reconfiguration": "This prevents new allocations from the old range".
        book.ranges.insert("kubernetes".into(), ending);
        check(&book, &["10.9.0.0/24", "10.43.0.0/16"]);
        book.ranges.insert("more".into(), Ranges { usable: ranges(&["10.9.0.0/24"]), ending: Vec::new() });
        check(&book, &["10.9.0.0/24"]);
    }
}
