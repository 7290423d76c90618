//! What administrators see: the nft program lists the tables, of both families and with every kind of service.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use common::{Netns, isolate, sh, tcp};
use network::Protocol;
use network::nft::Config;
use network::nft::Family;
use network::nft::claims::Programs;
use network::nft::contents::Fragment;
use network::nft::element::{Claim, Endpoint, Key};
use network::nft::features::host_ports;
use network::nft::features::services::{self, Clients, Empty, Entry};
use network::nft::table::Table;

fn open() -> Table {
    let cidrs = |texts: [&str; 2]| texts.map(|text| text.parse().unwrap()).to_vec();
    let config = Config {
        bridge: "knarr0".to_owned(),
        bridge_address: [0x0a, 0x58, 10, 42, 0, 1],
        pod_cidrs: cidrs(["10.42.0.0/24", "fd42::/64"]),
        cluster_cidrs: cidrs(["10.42.0.0/16", "fd42::/48"]),
        service_cidrs: cidrs(["10.43.0.0/16", "fd43::/112"]),
        reserved_ports: vec![(Protocol::Tcp, 6443)],
        is_overlay_open: true,
        masquerade: true,
    };
    Table::open("knarr-test", config, &[]).unwrap()
}

/// A service with two endpoints, at ports 8080 and 8081.
fn plain(address: IpAddr, endpoint: IpAddr, port: u16) -> Entry {
    Entry {
        clients: Clients::All,
        key: Key { address, protocol: Protocol::Tcp, port },
        slots: [8080, 8081].map(|port| Endpoint { address: endpoint, port }).to_vec(),
        empty: Empty::Reject,
        sticky: 0,
        masquerade: false,
        sources: None,
        claim: Claim::ClusterIp,
        programs: Programs::NONE,
    }
}

/// A service for each way of choosing an endpoint, on ports from 80 on, with a pod that connects to itself and a host port.
fn every_kind(address: IpAddr, endpoint: IpAddr) -> Fragment {
    let one = |port| plain(address, endpoint, port);
    let any = |port| plain(Family::of(address).unspecified(), endpoint, port);
    let entries = [
        one(80),
        Entry { sticky: 60, ..one(81) },
        Entry { slots: Vec::new(), ..one(82) },
        Entry { slots: Vec::new(), empty: Empty::Drop, ..one(83) },
        Entry { masquerade: true, sources: Some(vec![ipnet::IpNet::new(endpoint, 24).unwrap().trunc()]), ..one(84) },
        Entry { sticky: 60, ..any(85) },
        Entry { clients: Clients::Outside, ..any(86) },
    ];
    let mut fragment = services::fragment(&entries);
    let host_port = Key { port: 1080, ..one(80).key };
    fragment.extend(vec![services::hairpin(endpoint)].into());
    fragment.extend(vec![host_ports::claim(host_port, one(80).slots[0])].into());
    fragment
}

#[test]
fn the_nft_program_lists_every_rule() {
    if !isolate() {
        return;
    }
    let table = open();
    let pairs = [("10.43.0.7", "10.42.0.5"), ("fd43::7", "fd42::5")].map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()));
    table.replace(pairs.map(|(a, b): (IpAddr, IpAddr)| (a.to_string(), every_kind(a, b)))).unwrap();
    assert_eq!(sh("nft list tables"), "table ip knarr-test\ntable ip6 knarr-test\ntable bridge knarr-test\n");
    let json: serde_json::Value = serde_json::from_str(&sh("nft -j list ruleset")).unwrap();
    let rules = json["nftables"].as_array().unwrap().iter().filter_map(|object| object.get("rule"));
    let chains: BTreeSet<_> = rules.filter_map(|rule| rule["chain"].as_str()).collect();
    let picks = chains.iter().filter(|chain| chain.starts_with("pick-2")).count();
    // Those with affinity are a service's own.
    assert_eq!(picks, 7, "{chains:?}");
    let text = sh("nft list ruleset");
    for expected in
        ["10.43.0.7 . tcp . 80", "fd43::7 . tcp . 81", "which map affinity-170590215 has", "goto pick-2-sticky-60-170590215"]
    {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

#[test]
fn affinity_of_the_longer_addresses() {
    if !isolate() {
        return;
    }
    sh("ip -6 addr add fd42::5/128 dev lo nodad; ip -6 route add fd43::/112 dev lo");
    let table = open();
    let (address, endpoint) = ("fd43::7".parse().unwrap(), "fd42::5".parse().unwrap());
    let sticky = Entry { sticky: 60, ..plain(address, endpoint, 80) };
    let both = services::fragment(&[sticky, plain(address, endpoint, 81)]);
    table.replace([("both".to_owned(), both)]).unwrap();
    let here = Netns::current();
    here.serve(endpoint, 8080, "a");
    here.serve(endpoint, 8081, "b");
    let answers = |port| -> BTreeSet<String> { (0..40).map(|_| tcp(SocketAddr::new(address, port)).unwrap()).collect() };
    assert_eq!(answers(81).len(), 2);
    assert_eq!(answers(80).len(), 1);
    assert!(sh("nft list map ip6 knarr-test affinity-7").contains("fd43::7 . tcp . 80 . "));
}

/// When a service remembers as many clients as it may, further ones reach it all the same, and clients of other services are remembered.
#[test]
fn who_cannot_be_remembered_is_served() {
    if !isolate() {
        return;
    }
    sh("ip addr add 10.42.0.5/32 dev lo; ip route add 10.43.0.0/16 dev lo");
    let table = open();
    let (full, other): (IpAddr, IpAddr) = ("10.43.0.7".parse().unwrap(), "10.43.0.8".parse().unwrap());
    let endpoint = "10.42.0.5".parse().unwrap();
    let sticky = |address| services::fragment(&[Entry { sticky: 60, ..plain(address, endpoint, 80) }]);
    table.replace([("full".to_owned(), sticky(full)), ("other".to_owned(), sticky(other))]).unwrap();
    let here = Netns::current();
    here.serve(endpoint, 8080, "a");
    here.serve(endpoint, 8081, "b");
    let answers = |address| -> BTreeSet<String> { (0..40).map(|_| tcp(SocketAddr::new(address, 80)).unwrap()).collect() };
    assert_eq!((answers(full).len(), answers(other).len()), (1, 1));
    // The kernel has the addresses of 10.43.0.7 and .8 as numbers in the names of the maps.
    let map = "ip knarr-test affinity-170590215";
    sh(&format!("nft flush map {map}"));
    let clients: Vec<String> = (0..services::REMEMBERED)
        .map(|client| {
            format!(
                "10.43.0.7 . tcp . 80 . 198.{}.{}.{} : 0 . 10.42.0.5 . 8080",
                18 + client / 65_536,
                client / 256 % 256,
                client % 256
            )
        })
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("add element {map} {{ {} }}", clients.join(", "))).unwrap();
    sh(&format!("nft -f {}", file.path().display()));
    assert_eq!((answers(full).len(), answers(other).len()), (2, 1));
}
