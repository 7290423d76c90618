//! Frames of pods: the bridge trusts none of them.
//!
//! A pod sends with its own hardware and network address by its own port, or not at all: no other address, no ARP for others, no
//! router advertisement and no neighbour discovery, for which there is no need, as all neighbours are pinned. And it sends to the
//! node only, never past it to another port. Where ports are isolated the kernel sees to that as well.

use std::net::IpAddr;

use super::{Config, Part, rules};
use crate::nft::batch::{Chain, Hook, Rule, Value};
use crate::nft::element::Element;
use crate::nft::expr::{Expr, Is, Meta, Verdict};
use crate::nft::set::{Field, SetKind};
use crate::nft::{Family, octets};

/// What the names of the ports of pods begin with.
pub(crate) const PORTS: &str = "knv";

/// Port, hardware address and address of each pod.
static SENDERS_V4: SetKind = SetKind::set("senders-v4", &[Field::Link, Field::Hardware, Field::V4]);
static SENDERS_V6: SetKind = SetKind::set("senders-v6", &[Field::Link, Field::Hardware, Field::V6]);

const BROADCAST: [u8; 6] = [0xff; 6];
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// First registers of the fields of a sender.
const HARDWARE: u32 = 4;
const ADDRESS: u32 = 6;

/// The guard of the bridge.
pub(super) fn part(config: &Config) -> Part {
    let bridge = config.bridge_address;
    let name = |is| [Expr::Meta { key: Meta::InputName, reg: 0 }, Expr::Compare { reg: 0, is, value: PORTS.into() }];
    let others = [name(Is::Unequal).to_vec(), rules::verdict(Verdict::Accept)].concat();
    let frame = Expr::Frame { offset: 6, len: 6, reg: HARDWARE };
    let network = |offset, len, reg| Expr::Network { offset, len, reg };
    let all = vec![
        others,
        known(bridge, IPV4, &SENDERS_V4, [frame.clone(), network(12, 4, ADDRESS)]),
        // The addresses of the sender that the message names.
        known(bridge, ARP, &SENDERS_V4, [network(8, 6, HARDWARE), network(14, 4, ADDRESS)]),
        known(BROADCAST, ARP, &SENDERS_V4, [network(8, 6, HARDWARE), network(14, 4, ADDRESS)]),
        discovery(),
        known(bridge, IPV6, &SENDERS_V6, [frame, network(8, 16, ADDRESS)]),
        rules::verdict(Verdict::Drop),
    ];
    let hook = Hook { kind: "filter", number: rules::PREROUTING, priority: -300 };
    let chain = Chain::base("frames", hook, all.into_iter().map(Rule::new).collect());
    Part { sets: vec![SENDERS_V4.only(), SENDERS_V6.only()], chains: vec![chain] }
}

fn of_type(number: [u8; 2]) -> [Expr; 2] {
    [Expr::Meta { key: Meta::Protocol, reg: 0 }, rules::equals(number)]
}

/// Accepts frames of a type to a hardware address from those who are what they say.
fn known(to: [u8; 6], number: [u8; 2], senders: &'static SetKind, load: [Expr; 2]) -> Vec<Expr> {
    let mut exprs = of_type(number).to_vec();
    exprs.extend([Expr::Frame { offset: 0, len: 6, reg: 0 }, rules::equals(to)]);
    exprs.push(Expr::Meta { key: Meta::InputName, reg: 0 });
    exprs.extend(load);
    exprs.extend([rules::contained(senders.only(), 0), Expr::Verdict(Verdict::Accept)]);
    exprs
}

/// Router and neighbour discovery, and redirects: ICMPv6 types 133 to 137.
fn discovery() -> Vec<Expr> {
    let mut exprs = of_type(IPV6).to_vec();
    exprs.extend(rules::of_protocol(58));
    exprs.push(Expr::Transport { offset: 0, len: 1, reg: 0 });
    exprs.push(Expr::Compare { reg: 0, is: Is::AtLeast, value: vec![133] });
    exprs.push(Expr::Compare { reg: 0, is: Is::AtMost, value: vec![137] });
    exprs.push(Expr::Verdict(Verdict::Drop));
    exprs
}

/// A pod behind the port `link` sends with these addresses.
pub(crate) fn sender(link: &str, hardware: [u8; 6], address: IpAddr) -> Element {
    let mut key = link.as_bytes().to_vec();
    key.resize(16, 0);
    key.extend_from_slice(&hardware);
    key.extend_from_slice(&[0; 2]);
    key.extend(octets(address));
    let kind = if address.is_ipv4() { &SENDERS_V4 } else { &SENDERS_V6 };
    Element::new(Family::Bridge, kind.only(), key, Value::None)
}
