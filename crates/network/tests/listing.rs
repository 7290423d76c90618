//! What administrators see: the nft program lists the tables, of both families and with every kind of service.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use common::{Netns, isolate, sh, tcp};
use network::nft::Config;
use network::nft::Family;
use network::nft::ruleset::{Code, Element, Empty, Endpoint, Key, Map, Protocol};
use network::nft::table::Table;

const PLAIN: Code =
    Code { slots: 2, empty: Empty::Reject, sticky: 0, masquerade: false, any_address: false, local: false, restricted: false };

fn open() -> Table {
    let cidrs = |texts: [&str; 2]| texts.map(|text| text.parse().unwrap()).to_vec();
    let config = Config {
        bridge: "knarr0".to_owned(),
        pod_cidrs: cidrs(["10.42.0.0/24", "fd42::/64"]),
        cluster_cidrs: cidrs(["10.42.0.0/16", "fd42::/48"]),
        service_cidrs: cidrs(["10.43.0.0/16", "fd43::/112"]),
        reserved_ports: vec![6443],
        masquerade: true,
    };
    Table::open("knarr-test", config, false).unwrap()
}

/// A service for each way of choosing an endpoint, on ports from 80 on, with endpoints at ports 8080 and 8081.
fn services(address: IpAddr, endpoint: IpAddr) -> Vec<Element> {
    let none = Code { slots: 0, ..PLAIN };
    let codes = [
        PLAIN,
        Code { sticky: 60, ..PLAIN },
        none,
        Code { empty: Empty::Drop, ..none },
        Code { masquerade: true, restricted: true, ..PLAIN },
        Code { any_address: true, sticky: 60, ..PLAIN },
        Code { local: true, any_address: true, ..PLAIN },
    ];
    codes.into_iter().zip(80..).flat_map(|(code, port)| service(address, endpoint, code, port)).collect()
}

fn service(address: IpAddr, endpoint: IpAddr, code: Code, port: u16) -> Vec<Element> {
    let address = if code.any_address { Family::of(address).unspecified() } else { address };
    let key = Key { address, protocol: Protocol::Tcp, port };
    let endpoints = (0..code.slots).map(|slot| (slot, Endpoint { address: endpoint, port: 8080 + slot as u16 }));
    let mut elements: Vec<Element> =
        endpoints.flat_map(|(slot, to)| [Element::slot(key, code.local, slot, to), Element::affine(key, to)]).collect();
    elements.push(Element::entry(if code.local { Map::External } else { Map::Services }, key, code));
    elements.push(Element::hairpin(endpoint));
    elements.push(Element::source(key, ipnet::IpNet::new(endpoint, 24).unwrap()));
    elements.push(Element::host_port(Key { port: port + 1000, ..key }, Endpoint { address: endpoint, port: 8080 }));
    elements
}

#[test]
fn the_nft_program_lists_every_rule() {
    if !isolate() {
        return;
    }
    let table = open();
    let pairs = [("10.43.0.7", "10.42.0.5"), ("fd43::7", "fd42::5")].map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()));
    table.replace(pairs.map(|(a, b): (IpAddr, IpAddr)| (a.to_string(), services(a, b)))).unwrap();
    assert_eq!(sh("nft list tables"), "table ip knarr-test\ntable ip6 knarr-test\n");
    let json: serde_json::Value = serde_json::from_str(&sh("nft -j list ruleset")).unwrap();
    let rules = json["nftables"].as_array().unwrap().iter().filter_map(|object| object.get("rule"));
    let chains: BTreeSet<_> = rules.filter_map(|rule| rule["chain"].as_str()).collect();
    let picks = chains.iter().filter(|chain| chain.starts_with("pick-2")).count();
    assert_eq!(picks, 5, "{chains:?}");
    let text = sh("nft list ruleset");
    for expected in ["10.43.0.7 . tcp . 80", "fd43::7 . tcp . 81", "which map affinity has", "goto pick-2-sticky-60"] {
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
    let sticky = service(address, endpoint, Code { sticky: 60, ..PLAIN }, 80);
    let plain = service(address, endpoint, PLAIN, 81);
    table.replace([("sticky".to_owned(), sticky), ("plain".to_owned(), plain)]).unwrap();
    let here = Netns::current();
    here.serve(endpoint, 8080, "a");
    here.serve(endpoint, 8081, "b");
    let answers = |port| -> BTreeSet<String> { (0..40).map(|_| tcp(SocketAddr::new(address, port)).unwrap()).collect() };
    assert_eq!(answers(81).len(), 2);
    assert_eq!(answers(80).len(), 1);
    assert!(sh("nft list map ip6 knarr-test affinity").contains("fd43::7 . tcp . 80 . "));
}
