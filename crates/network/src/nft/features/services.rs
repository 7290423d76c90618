//! Services: one set of rules that look everything up in maps.
//!
//! `services` maps (address, protocol, port) to a *code*: how many endpoints there
//! are and how to choose one. `dispatch` maps the code to a chain shared by all services of that code, which draws a
//! slot at random and looks (address, protocol, port, slot) up in `slots` for the endpoint. A change of a service is
//! therefore a change of a few map elements. Only a service with session affinity has something of its own: a map of its clients, and the chains that
//! look into it.

mod pick;

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Config, Part, rules};
use crate::nft::batch::{Chain, Rule, Value};
use crate::nft::claims::{Claimed, Programs, Right};
use crate::nft::contents::{Contents, Fragment};
use crate::nft::element::{Claim, Element, Endpoint, Key};
use crate::nft::expr::{Expr, Meta, Refusal, Verdict};
use crate::nft::set::{Field, SetId, SetKind, Values};
use crate::nft::{Family, octets};

pub use super::masquerade::hairpin;

pub(super) const CHAIN: &str = "service-ports";
const REFUSE: &str = "refuse";

/// With its filler.
const CODE: &[Field] = &[Field::Word, Field::Word, Field::Word, Field::Word];
/// With its filler.
const ENDPOINT: &[Field] = &[Field::Word, Field::Address, Field::Port];
const CLIENT: &[Field] = &[Field::Address, Field::Protocol, Field::Port, Field::Address];

/// Key to code, for every client.
static SERVICES: SetKind = SetKind::map("services", rules::KEY, CODE);
/// Key to code, before `SERVICES`, for clients outside the cluster only (external traffic policy Local).
static EXTERNAL: SetKind = SetKind::map("external", rules::KEY, CODE);
/// Key and slot to endpoint.
static SLOTS: SetKind = SetKind::map("slots", &[Field::Address, Field::Protocol, Field::Port, Field::Word], ENDPOINT);
/// Keys and endpoints to which affinity may stick.
static AFFINE: SetKind = SetKind::set("affine", &[Field::Address, Field::Port, Field::Address, Field::Protocol, Field::Port]);
/// Keys and ranges of clients that may use them, where not everybody may.
static SOURCES: SetKind = SetKind::ranges("sources", CLIENT);
/// Key and client to endpoint, one map for each service: whoever fills that of one takes no room from others.
static AFFINITY: SetKind =
    SetKind { name: "affinity", key: CLIENT, values: Values::Data(ENDPOINT), ranges: false, dynamic: Some(REMEMBERED) };
/// Code to chain.
static DISPATCH: SetKind = SetKind::verdicts("dispatch", &[Field::Word, Field::Word, Field::Word]);

/// Clients that one service remembers on this node in each family, those of all its ports together; some megabytes. A client counts once for each address and port at which
/// it asks. Further ones are led to any endpoint.
pub const REMEMBERED: u32 = 1 << 15;

/// Whom an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Clients {
    /// Everybody.
    All,
    /// Those outside the cluster, before the entries for everybody (external traffic policy Local).
    Outside,
}

/// What happens to connections when there is no endpoint to send them to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Empty {
    /// TCP reset or ICMP port unreachable.
    Reject,
    /// Silence, as the Local traffic policies ask for when only other nodes have endpoints.
    Drop,
}

/// How an endpoint is chosen. All keys of one code share a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code {
    /// Number of endpoints.
    pub slots: u32,
    /// When `slots` is 0.
    pub empty: Empty,
    /// Session affinity by client address, seconds; 0 is none.
    pub sticky: u32,
    /// The number of the map that remembers clients; 0 without affinity.
    pub affinity: u32,
    /// Hide the client's address behind the node's.
    pub masquerade: bool,
    /// The key has the unspecified address: a node port.
    pub any_address: bool,
    /// The slots are those for clients outside.
    pub local: bool,
    /// Only clients in the sources of the entry are served; the packets of others are dropped.
    pub restricted: bool,
}

/// Slots for clients outside are numbered from here.
const LOCAL_OFFSET: u32 = 0x8000_0000;

impl Code {
    /// As map data: three words in host byte order. Codes without endpoints are equal when they refuse alike.
    fn encode(self) -> [u8; 12] {
        let flags = if self.slots == 0 {
            u32::from(self.empty == Empty::Drop)
        } else {
            let bits = [(self.masquerade, 24), (self.any_address, 25), (self.local, 26), (self.restricted, 27)];
            bits.into_iter().fold(self.sticky, |flags, (bit, at)| flags | u32::from(bit) << at)
        };
        // The number of slots comes first: see `slots_of`.
        let affinity = if self.slots == 0 { 0 } else { self.affinity };
        let mut bytes = [0; 12];
        for (part, word) in bytes.chunks_exact_mut(4).zip([self.slots, flags, affinity]) {
            part.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    fn chain_name(self) -> String {
        let Self { slots, sticky, affinity, masquerade, any_address, local, restricted, .. } = self;
        let flag = |on, name| if on { name } else { "" };
        let sticky = if sticky > 0 { format!("-sticky-{sticky}-{affinity}") } else { String::new() };
        let flags = [(masquerade, "-masquerade"), (any_address, "-node-port"), (local, "-local"), (restricted, "-restricted")];
        let flags: String = flags.into_iter().map(|(on, name)| flag(on, name)).collect();
        format!("pick-{slots}{sticky}{flags}")
    }

    fn verdict(self) -> Verdict {
        match (self.slots, self.empty) {
            (0, Empty::Reject) => Verdict::Goto(REFUSE.to_owned()),
            (0, Empty::Drop) => Verdict::Drop,
            _ => Verdict::Goto(self.chain_name()),
        }
    }
}

/// One place where clients connect to a service, and the endpoints that they may get. Slots keep their endpoints as
/// long as they can, so that a change of one endpoint is a change of one or two slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whom it is for.
    pub clients: Clients,
    /// Where clients connect to.
    pub key: Key,
    /// The endpoint in each slot.
    pub slots: Vec<Endpoint>,
    /// What happens without slots.
    pub empty: Empty,
    /// Affinity timeout, seconds; 0 is none.
    pub sticky: u32,
    /// Clients are hidden behind the node's address.
    pub masquerade: bool,
    /// The clients that are served, without overlaps; None: everybody.
    pub sources: Option<Vec<IpNet>>,
    /// Whose claim the key is.
    pub claim: Claim,
    /// What the service leads to and may listen at the port of the key itself.
    pub programs: Programs,
}

impl Entry {
    /// `affinity` is the number of the service's map.
    fn code(&self, affinity: u32) -> Code {
        Code {
            slots: self.slots.len() as u32,
            empty: self.empty,
            sticky: self.sticky,
            affinity: if self.sticky > 0 { affinity } else { 0 },
            masquerade: self.masquerade,
            any_address: self.key.address.is_unspecified(),
            local: self.clients == Clients::Outside,
            restricted: self.sources.is_some(),
        }
    }

    fn elements(&self, code: Code) -> Vec<Element> {
        let (family, key) = (Family::of(self.key.address), self.key.bytes());
        let element = |kind: &'static SetKind, key, value| Element::new(family, kind.only(), key, value);
        let filled = |bytes: &[u8]| Value::Data([&rules::FILLER, bytes].concat().into());
        let places = if code.local { &EXTERNAL } else { &SERVICES };
        let mut elements = vec![element(places, key.clone(), filled(&code.encode()))];
        for range in self.sources.iter().flatten() {
            // The first and the last of a range, one after the other.
            let ends = [range.network(), range.broadcast()].map(|address| [key.clone(), octets(address)].concat());
            elements.push(element(&SOURCES, ends.concat(), Value::None));
        }
        let offset = if code.local { LOCAL_OFFSET } else { 0 };
        for (slot, endpoint) in (offset..).zip(&self.slots) {
            elements.push(element(&SLOTS, slot_key(self.key, slot), filled(&endpoint.bytes())));
            if code.sticky > 0 {
                elements.push(element(&AFFINE, [endpoint.bytes(), key.clone()].concat(), Value::None));
            }
        }
        elements.into_iter().map(|element| element.claimed(self.claim)).collect()
    }
}

fn slot_key(key: Key, slot: u32) -> Vec<u8> {
    [key.bytes(), slot.to_ne_bytes().to_vec()].concat()
}

/// What follows the filler of a value.
fn after_filler(value: &Value) -> Option<&[u8]> {
    value.data()?.get(rules::FILLER.len()..)
}

/// The number of endpoints that a code stands for.
fn slots_of(code: &Value) -> u32 {
    let bytes = after_filler(code).and_then(|code| code.get(..4)?.try_into().ok());
    bytes.map_or(0, u32::from_ne_bytes)
}

/// The endpoints that clients of any kind are led to; none where no service has the place.
pub(super) fn endpoints(table: &Contents, key: Key) -> Option<Vec<Endpoint>> {
    let mut found = None;
    for (places, offset) in [(&EXTERNAL, LOCAL_OFFSET), (&SERVICES, 0)] {
        let Some(code) = table.value(places.only(), key.address, &key.bytes()) else { continue };
        let at = |slot| table.value(SLOTS.only(), key.address, &slot_key(key, offset + slot));
        let endpoints = (0..slots_of(code)).filter_map(|slot| Endpoint::parse(after_filler(at(slot)?)?));
        found.get_or_insert_with(Vec::new).extend(endpoints);
    }
    found
}

/// Whether elements of the set are ports of services.
pub(super) fn is_port(set: SetId) -> bool {
    set.is(&SERVICES) || set.is(&EXTERNAL)
}

/// Whether elements of the set are endpoints of such ports.
pub(super) fn is_endpoint(set: SetId) -> bool {
    set.is(&SLOTS)
}

/// What the entries of a service contribute.
pub fn fragment(entries: &[Entry]) -> Fragment {
    let mut fragment = Fragment::default();
    let mut codes = HashSet::new();
    // Once, not for each entry: there may be thousands.
    let (v4, v6) = (affinity(entries, Family::V4), affinity(entries, Family::V6));
    for entry in entries {
        let family = Family::of(entry.key.address);
        let code = entry.code(if family == Family::V6 { v6 } else { v4 });
        match entry.claim {
            Claim::ClusterIp => fragment.elements.extend(entry.elements(code)),
            Claim::External | Claim::Balancer => {
                let right = if entry.claim == Claim::Balancer { Right::Balancer } else { Right::First };
                let (key, elements, programs) = (entry.key, entry.elements(code), entry.programs.clone());
                fragment.claimed.push(Claimed { key, elements, right, programs });
            }
        }
        if !codes.insert((family, code.encode())) {
            continue;
        }
        let by_code = Element::new(family, DISPATCH.only(), code.encode().to_vec(), Value::Verdict(code.verdict()));
        fragment.common.push(by_code);
        if code.slots > 0 {
            fragment.sets.extend((code.affinity > 0).then(|| (family, AFFINITY.numbered(code.affinity))));
            let rules = pick::rules(family, code).into_iter().map(rule).collect();
            fragment.chains.push((family, Chain::regular(code.chain_name(), rules)));
        }
    }
    fragment
}

/// The number of a service's map of a family, by its own address there, which no other service has.
fn affinity(entries: &[Entry], family: Family) -> u32 {
    let own = entries.iter().filter(|entry| entry.claim == Claim::ClusterIp).map(|entry| entry.key.address);
    let number = own.filter(|one| Family::of(*one) == family && !one.is_unspecified()).map(|address| match address {
        IpAddr::V4(address) => address.to_bits(),
        // Services of one range differ in these bits.
        IpAddr::V6(address) => address.to_bits() as u32,
    });
    number.min().unwrap_or(1).max(1)
}

/// A rule with a comment where the nft program does not show what it does.
fn rule(exprs: Vec<Expr>) -> Rule {
    let hidden: Option<SetId> = exprs.iter().find_map(|expr| match expr {
        Expr::Lookup { set, data: Some(_), .. } => Some(*set),
        _ => None,
    });
    match hidden {
        Some(set) => {
            Rule::new(exprs).commented(&format!("nft cannot show that this uses the value which map {set} has for the packet"))
        }
        None => Rule::new(exprs),
    }
}

/// The maps, and the rules that look into them.
pub(super) fn part(config: &Config, family: Family) -> Part {
    let kinds = [&SERVICES, &EXTERNAL, &SLOTS, &AFFINE, &SOURCES, &DISPATCH];
    let refuse = vec![
        Rule::new([rules::of_protocol(6).to_vec(), vec![Expr::Reject(Refusal::TcpReset)]].concat()),
        Rule::new(vec![Expr::Reject(Refusal::PortUnreachable)]),
    ];
    let dispatching = dispatching(config, family).into_iter().map(rule).collect();
    let chains = vec![Chain::regular(REFUSE, refuse), Chain::regular(CHAIN, dispatching)];
    Part { sets: kinds.map(SetKind::only).to_vec(), chains }
}

fn dispatching(config: &Config, family: Family) -> Vec<Vec<Expr>> {
    let to_service = |cidr| rules::within(rules::destination(family, 0), cidr, true);
    let outside = || rules::outside_client(Config::of_family(&config.cluster_cidrs, family), family);
    let dispatch = |kind: &'static SetKind, any_address| {
        let mut exprs = rules::load_key(family, 0, any_address);
        let filler = family.address_regs() + 2;
        let code = filler + 1;
        let decoys = [code, code + 1, code + 2].map(|reg| Expr::Meta { key: Meta::Mark, reg });
        exprs.extend(rules::lookup(kind.only(), 0, filler, decoys));
        exprs.push(Expr::Dispatch { set: DISPATCH.only(), reg: code });
        exprs
    };
    let service_cidrs: Vec<&IpNet> = Config::of_family(&config.service_cidrs, family).collect();
    let mut all = vec![[outside(), dispatch(&EXTERNAL, false)].concat()];
    for cidr in &service_cidrs {
        all.push([to_service(cidr), outside(), rules::mark()].concat());
    }
    all.push(dispatch(&SERVICES, false));
    all.push([rules::to_node(), outside(), dispatch(&EXTERNAL, true)].concat());
    all.push([rules::to_node(), dispatch(&SERVICES, true)].concat());
    for cidr in &service_cidrs {
        all.push([to_service(cidr), rules::verdict(Verdict::Goto(REFUSE.to_owned()))].concat());
    }
    all
}

/// Services of every kind, to find out whether the kernel takes their rules.
pub(super) fn sample(family: Family) -> Fragment {
    let key = Key { address: family.unspecified(), protocol: crate::nft::element::Protocol::Tcp, port: 1 };
    let slots = vec![Endpoint { address: family.unspecified(), port: 1 }; 2];
    let entry = Entry {
        clients: Clients::All,
        key,
        slots,
        empty: Empty::Reject,
        sticky: 60,
        masquerade: true,
        sources: Some(Vec::new()),
        claim: Claim::External,
        programs: Programs::NONE,
    };
    let outside = Entry { clients: Clients::Outside, sticky: 0, ..entry.clone() };
    let none = Entry { key: Key { port: 2, ..key }, slots: Vec::new(), ..entry.clone() };
    fragment(&[entry, outside, none])
}

#[cfg(test)]
mod tests;
