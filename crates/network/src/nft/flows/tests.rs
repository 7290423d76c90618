#![allow(clippy::unwrap_used)]
use super::*;
use crate::nft::claims::{Programs, World};
use crate::nft::contents::Fragment;
use crate::nft::element::{Claim, Protocol};
use crate::nft::features::services::{self, Clients, Empty, Entry};
use crate::nft::features::{self, Config, host_ports, reserved};

const NODE: &str = "192.0.2.1";

fn endpoint(text: &str) -> Endpoint {
    let (address, port) = text.rsplit_once(':').unwrap();
    Endpoint { address: address.parse().unwrap(), port: port.parse().unwrap() }
}

fn endpoints(texts: &[&str]) -> Vec<Endpoint> {
    texts.iter().map(|text| endpoint(text)).collect()
}

fn udp(text: &str) -> Key {
    let Endpoint { address, port } = endpoint(text);
    Key { address, protocol: Protocol::Udp, port }
}

/// A port of a service that leads to these endpoints.
fn entry(key: &str, slots: &[&str]) -> Entry {
    let (key, slots) = (udp(key), endpoints(slots));
    let claim = if key.address.to_string().starts_with("10.43.") { Claim::ClusterIp } else { Claim::External };
    Entry {
        clients: Clients::All,
        key,
        slots,
        empty: Empty::Reject,
        sticky: 0,
        masquerade: false,
        sources: None,
        claim,
        programs: Programs::NONE,
    }
}

fn service(key: &str, slots: &[&str]) -> Fragment {
    services::fragment(&[entry(key, slots)])
}

#[derive(Default)]
struct Kernel {
    contents: Contents,
    world: World,
}

impl Kernel {
    fn new() -> Self {
        let mut kernel = Self { world: World { local: [NODE.parse().unwrap()].into(), ..World::default() }, ..Self::default() };
        kernel.turns("features", features::fixed(&Config::default(), &[Family::V4, Family::V6]), &[]);
        kernel
    }

    /// Changes what an owner contributes, and compares the places from which flows may turn.
    #[track_caller]
    fn turns(&mut self, owner: &str, fragment: Fragment, expected: &[&str]) {
        let deltas = self.contents.replace([(owner.to_owned(), fragment)], &self.world);
        let mut keys = self.contents.take_left();
        keys.extend(deltas.iter().flat_map(|(family, delta)| translation::turned(*family, delta)));
        assert_eq!(keys, expected.iter().map(|text| udp(text)).collect());
    }

    /// Whether a flow that was led from one place to another would be led elsewhere now.
    fn is_stale(&self, to: &str, from: &str) -> bool {
        let mut flows = vec![Flow::new(endpoint(to), endpoint(from))];
        self.contents.keep_stale(&mut flows, &self.world.local, &["10.43.0.0/16".parse().unwrap()]);
        !flows.is_empty()
    }
}

#[test]
fn endpoints_that_go_leave_flows_behind() {
    let mut kernel = Kernel::new();
    let (a, b, c) = ("10.42.0.2:53", "10.42.0.3:53", "10.42.0.4:53");
    let at = "10.43.0.10:53";
    kernel.turns("dns", service(at, &[a, b]), &[at]);
    assert_eq!([kernel.is_stale(at, a), kernel.is_stale(at, b), kernel.is_stale(at, c)], [false, false, true]);
    // One more leads nobody elsewhere.
    kernel.turns("dns", service(at, &[a, b, c]), &[]);
    kernel.turns("dns", service(at, &[c, b]), &[at]);
    assert_eq!([kernel.is_stale(at, a), kernel.is_stale(at, b), kernel.is_stale(at, c)], [true, false, false]);
    // None are left: what goes on to the last ones would be lost.
    kernel.turns("dns", service(at, &[]), &[at]);
    assert!(kernel.is_stale(at, b));
    kernel.turns("dns", service(at, &[a]), &[]);
    kernel.turns("dns", Fragment::default(), &[at]);
    assert_eq!([kernel.is_stale(at, a), kernel.is_stale(at, at)], [true, false]);
}

/// KEP-1669: an endpoint that terminates and serves keeps what it has, whoever else new clients get.
#[test]
fn flows_to_endpoints_that_still_serve_go_on() {
    let mut kernel = Kernel::new();
    let (a, b, at) = ("10.42.0.2:53", "10.42.0.3:53", "10.43.0.10:53");
    kernel.turns("dns", service(at, &[a]), &[at]);
    let lingering = Fragment { lingering: vec![(udp(at), endpoint(a))], ..service(at, &[b]) };
    kernel.turns("dns", lingering.clone(), &[at]);
    assert_eq!([kernel.is_stale(at, a), kernel.is_stale(at, b)], [false, false]);
    kernel.turns("dns", lingering, &[]);
    kernel.turns("dns", service(at, &[b]), &[at]);
    assert!(kernel.is_stale(at, a));
}

#[test]
fn ports_of_the_node() {
    let mut kernel = Kernel::new();
    let (any, here, elsewhere, pod) = ("0.0.0.0:5353", "192.0.2.1:5353", "192.0.2.9:5353", "10.42.0.2:53");
    // A program of the host has the port.
    kernel.world.listeners = [udp(any)].into();
    kernel.turns("mdns", service(any, &[pod]), &[]);
    assert_eq!([kernel.is_stale(here, here), kernel.is_stale(here, pod)], [false, true]);
    // It has ended: flows to it are for the service. Those to other machines are not.
    kernel.world.listeners.clear();
    let (deltas, _) = kernel.contents.look_again(&kernel.world);
    assert_eq!(deltas.iter().flat_map(|(family, delta)| translation::turned(*family, delta)).collect::<Vec<_>>(), [udp(any)]);
    assert_eq!(
        [kernel.is_stale(here, here), kernel.is_stale(here, pod), kernel.is_stale(elsewhere, elsewhere)],
        [true, false, false]
    );
    // Who gives a port up, and who gets it.
    let host_port = |pod| Fragment::from(vec![host_ports::claim(udp(here), endpoint(pod))]);
    kernel.turns("pod", host_port("10.42.0.7:53"), &[]);
    kernel.turns("mdns", Fragment::default(), &[any, here]);
    assert_eq!([kernel.is_stale(here, pod), kernel.is_stale(here, "10.42.0.7:53")], [true, false]);
    kernel.turns("pod", host_port("10.42.0.8:53"), &[here]);
    kernel.turns("pod", Fragment::default(), &[here]);
    assert_eq!([kernel.is_stale(here, "10.42.0.8:53"), kernel.is_stale(here, here)], [true, false]);
}

#[test]
fn what_is_another_nodes() {
    let mut kernel = Kernel::new();
    let (at, pod) = ("192.0.2.9:53", "10.42.0.2:53");
    kernel.turns("dns", service(at, &[pod]), &[at]);
    kernel.turns("nodes", Fragment::from(vec![reserved::elsewhere(udp(at))]), &[at]);
    assert_eq!([kernel.is_stale(at, pod), kernel.is_stale(at, at)], [true, false]);
    kernel.turns("nodes", Fragment::default(), &[at]);
    assert_eq!([kernel.is_stale(at, pod), kernel.is_stale(at, at)], [false, true]);
}

/// A service address that the node serves itself is looked up by no rule, and clients outside have endpoints of their own.
#[test]
fn what_the_rules_find_first() {
    let mut kernel = Kernel::new();
    let (own, pod) = ("10.43.0.53:53", "10.42.0.2:53");
    kernel.world.local.insert("10.43.0.53".parse().unwrap());
    kernel.turns("dns", service(own, &[pod]), &[own]);
    assert_eq!([kernel.is_stale(own, own), kernel.is_stale(own, pod)], [false, true]);
    let (port, here) = ("0.0.0.0:30053", "192.0.2.1:30053");
    let local = Entry { clients: Clients::Outside, ..entry(port, &["10.42.0.3:53"]) };
    kernel.turns("local", services::fragment(&[entry(port, &[pod]), local]), &[port]);
    assert_eq!([pod, "10.42.0.3:53", here].map(|from| kernel.is_stale(here, from)), [false, false, true]);
    // TCP is not asked about.
    let tcp = Entry { key: Key { protocol: Protocol::Tcp, ..udp("10.43.0.9:80") }, ..entry("10.43.0.9:80", &[pod]) };
    kernel.turns("web", services::fragment(&[tcp]), &[]);
    assert_eq!(kernel.contents.udp_places(), [own, port].map(udp).into());
}

#[test]
fn what_is_asked_about() {
    let asked = Asked {
        keys: ["0.0.0.0:53", "[fd43::1]:53"].map(|text| udp(&text.replace(['[', ']'], ""))).into(),
        ranges: vec!["10.43.0.0/16".parse().unwrap()],
        local: [NODE.parse().unwrap()].into(),
    };
    for (to, expected) in
        [("192.0.2.1:53", true), ("192.0.2.9:53", false), ("192.0.2.1:54", false), ("10.43.0.1:7", true), ("fd43::1:53", true)]
    {
        assert_eq!(asked.has(endpoint(to)), expected, "{to}");
    }
    assert_eq!(asked.families().collect::<Vec<_>>(), [Family::V4, Family::V6]);
    assert_eq!(
        Asked { ranges: Vec::new(), keys: [udp("10.43.0.1:53")].into(), ..asked }.families().collect::<Vec<_>>(),
        [Family::V4]
    );
}
