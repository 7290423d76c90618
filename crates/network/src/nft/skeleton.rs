//! The fixed rules of the table, and the chain of each code.
//!
//! Administrators list rules with the nft program. It takes the value of a map for an expression without length, gives it
//! the first register only, and aborts (1.0.6) where a later expression reads that register as a part of a key. Values
//! that are read so begin with a filler, and the registers after it are loaded before the lookup with something of
//! the type that the value has: see [`lookup`]. The nft program then shows what was loaded, and a comment of the rule
//! says so.

use std::net::IpAddr;

use ipnet::IpNet;

use super::batch::{Field, Hook, Op, Set, Value, Values};
use super::expr::{Expr, Meta, Refusal, Reg, Remember, Verdict};
use super::ruleset::{Code, Delta, Empty, LOCAL_OFFSET, Map};
use super::{Family, octets};

/// What the rules must know of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Name of the pod bridge.
    pub bridge: String,
    /// Ranges of this node's pods.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges of all pods of the cluster: clients with these addresses are inside, and traffic to them is never masqueraded.
    pub cluster_cidrs: Vec<IpNet>,
    /// Ranges of service addresses; connections to addresses in them that no service has are refused.
    pub service_cidrs: Vec<IpNet>,
    /// TCP ports of the node that no service and no pod gets: those of the API server and of the kubelet.
    pub reserved_ports: Vec<u16>,
    /// Hide pods behind the node's address when they talk to the outside.
    pub masquerade: bool,
}

/// The bit of the packet mark that asks for masquerading, the same that kube-proxy uses.
const MARK: u32 = 0x4000;
const AFFINITY: &str = "affinity";
const DISPATCH: &str = "dispatch";
const REFUSE: &str = "refuse";
const SERVICES_CHAIN: &str = "service-ports";

/// Creates the table with its sets, chains and rules, without elements.
pub(crate) fn create(config: &Config, family: Family) -> Vec<Op> {
    let mut ops = sets(family);
    let chain = |name: &str, hook| Op::NewChain { name: name.to_owned(), hook };
    let nat = |number, priority| Some(Hook { kind: "nat", number, priority });
    ops.push(chain(REFUSE, None));
    ops.push(chain(SERVICES_CHAIN, None));
    ops.push(chain("guard", Some(Hook { kind: "filter", number: 0, priority: -300 })));
    ops.push(chain("prerouting", nat(0, -100)));
    ops.push(chain("output", nat(3, -100)));
    ops.push(chain("postrouting", nat(4, 100)));
    let rules = Rules { config, family };
    for (chain, exprs) in rules.all() {
        ops.push(rule(chain, exprs));
    }
    ops
}

/// A rule with a comment where the nft program does not show what it does.
fn rule(chain: &str, exprs: Vec<Expr>) -> Op {
    let hidden = exprs.iter().find_map(|expr| match expr {
        Expr::Lookup { set, data: Some(_), .. } if *set != Map::HostPorts.name() => Some(*set),
        _ => None,
    });
    let comment = hidden.map(|set| format!("nft cannot show that this uses the value which map {set} has for the packet"));
    Op::NewRule { chain: chain.to_owned(), exprs, comment }
}

/// The changes of `delta` in an order in which every reference exists.
pub(crate) fn update(family: Family, delta: Delta) -> Vec<Op> {
    let mut ops = Vec::new();
    let decoded = |codes: &[[u8; 8]]| -> Vec<(Box<[u8]>, Code)> {
        codes.iter().filter_map(|bytes| Some((bytes[..].into(), Code::decode(bytes)?))).collect()
    };
    for (bytes, code) in decoded(&delta.new_codes) {
        if code.slots > 0 {
            ops.push(Op::NewChain { name: chain_name(code), hook: None });
            ops.extend(pick(family, code).into_iter().map(|exprs| rule(&chain_name(code), exprs)));
        }
        ops.push(Op::Add { set: DISPATCH, elements: vec![(bytes, Value::Verdict(verdict(code)))] });
    }
    ops.extend(delta.remove.into_iter().map(|(map, keys)| Op::Remove { set: map.name(), keys }));
    ops.extend(delta.add.into_iter().map(|(map, elements)| Op::Add { set: map.name(), elements }));
    for (bytes, code) in decoded(&delta.gone_codes) {
        ops.push(Op::Remove { set: DISPATCH, keys: vec![bytes] });
        if code.slots > 0 {
            ops.push(Op::FlushChain { name: chain_name(code) });
            ops.push(Op::DelChain { name: chain_name(code) });
        }
    }
    ops
}

fn sets(family: Family) -> Vec<Op> {
    let address = match family {
        Family::V4 => Field { kind: 7, len: 4 },
        Family::V6 => Field { kind: 8, len: 16 },
    };
    let protocol = Field { kind: 12, len: 1 };
    let port = Field { kind: 13, len: 2 };
    // The nft program has no plain 32-bit type for maps; it prints marks as hexadecimal numbers.
    let word = Field { kind: 19, len: 4 };
    let key = vec![address, protocol, port];
    // The first word is the filler.
    let endpoint = || Values::Data(vec![word, address, port]);
    let code = || Values::Data(vec![word, word, word]);
    let set = |name, key, values, dynamic| Op::NewSet(Set { name, key, values, dynamic, ranges: false });
    let sources = vec![address, protocol, port, address];
    vec![
        set(Map::Services.name(), key.clone(), code(), None),
        set(Map::External.name(), key.clone(), code(), None),
        set(Map::Slots.name(), vec![address, protocol, port, word], endpoint(), None),
        set(Map::Affine.name(), vec![address, port, address, protocol, port], Values::Nothing, None),
        set(Map::Hairpin.name(), vec![address, address], Values::Nothing, None),
        set(Map::HostPorts.name(), key, Values::Data(vec![address, port]), None),
        Op::NewSet(Set { name: Map::Sources.name(), key: sources.clone(), values: Values::Nothing, dynamic: None, ranges: true }),
        set(AFFINITY, sources, endpoint(), Some(1 << 20)),
        set(DISPATCH, vec![word, word], Values::Verdicts, None),
    ]
}

fn chain_name(code: Code) -> String {
    let Code { slots, sticky, masquerade, any_address, local, restricted, .. } = code;
    let flag = |on, name| if on { name } else { "" };
    let sticky = if sticky > 0 { format!("-sticky-{sticky}") } else { String::new() };
    let flags = [(masquerade, "-masquerade"), (any_address, "-node-port"), (local, "-local"), (restricted, "-restricted")];
    let flags: String = flags.into_iter().map(|(on, name)| flag(on, name)).collect();
    format!("pick-{slots}{sticky}{flags}")
}

fn verdict(code: Code) -> Verdict {
    match (code.slots, code.empty) {
        (0, Empty::Reject) => Verdict::Goto(REFUSE.to_owned()),
        (0, Empty::Drop) => Verdict::Drop,
        _ => Verdict::Goto(chain_name(code)),
    }
}

fn destination(family: Family, reg: Reg) -> Expr {
    Expr::Network { offset: if family == Family::V4 { 16 } else { 24 }, len: family.address_len(), reg }
}

fn source(family: Family, reg: Reg) -> Expr {
    Expr::Network { offset: if family == Family::V4 { 12 } else { 8 }, len: family.address_len(), reg }
}

/// Loads (destination or unspecified address, protocol, port) from `reg` on.
fn load_key(family: Family, reg: Reg, any_address: bool) -> Vec<Expr> {
    let address =
        if any_address { Expr::Immediate { reg, value: octets(family.unspecified()) } } else { destination(family, reg) };
    let next = reg + family.address_regs();
    vec![address, Expr::Meta { key: Meta::Layer4, reg: next }, Expr::Transport { offset: 2, len: 2, reg: next + 1 }]
}

/// Looks the key at `key` up for a value that begins with a filler, which goes to `filler`. `decoys` load what the nft
/// program is to see in the registers after it.
fn lookup(set: &'static str, key: Reg, filler: Reg, decoys: impl IntoIterator<Item = Expr>) -> Vec<Expr> {
    let value = Expr::Lookup { set, reg: key, data: Some(filler), invert: false };
    decoys.into_iter().chain([value]).collect()
}

/// Something of the types of an endpoint.
fn endpoint_decoys(family: Family, reg: Reg) -> [Expr; 2] {
    [destination(family, reg), Expr::Transport { offset: 2, len: 2, reg: reg + family.address_regs() }]
}

fn mark() -> Vec<Expr> {
    vec![
        Expr::Meta { key: Meta::Mark, reg: 0 },
        Expr::Bitwise { reg: 0, mask: (!MARK).to_ne_bytes().to_vec(), xor: MARK.to_ne_bytes().to_vec() },
        Expr::SetMark { reg: 0 },
    ]
}

/// The rules of a code's chain.
fn pick(family: Family, code: Code) -> Vec<Vec<Expr>> {
    let regs = family.address_regs();
    let offset = if code.local { LOCAL_OFFSET } else { 0 };
    let mut rules = Vec::new();
    if code.restricted {
        let mut stranger = load_key(family, 0, code.any_address);
        stranger.push(source(family, regs + 2));
        stranger.push(Expr::Lookup { set: Map::Sources.name(), reg: 0, data: None, invert: true });
        stranger.push(Expr::Verdict(Verdict::Drop));
        rules.push(stranger);
    }
    if code.masquerade {
        rules.push(mark());
    }
    match code.sticky {
        0 => {
            let (slot, filler, endpoint) = (regs + 2, regs + 3, regs + 4);
            let mut rule = load_key(family, 0, code.any_address);
            rule.push(Expr::Random { reg: slot, modulus: code.slots, offset });
            rule.extend(lookup(Map::Slots.name(), 0, filler, endpoint_decoys(family, endpoint)));
            rule.push(Expr::Dnat { address: endpoint, port: endpoint + regs });
            rules.push(rule);
        }
        _ => rules.extend(pick_sticky(family, code, offset)),
    }
    rules
}

/// The rules for clients that have an endpoint and for those that have none.
fn pick_sticky(family: Family, code: Code, offset: u32) -> [Vec<Expr>; 2] {
    // filler, endpoint | address, protocol, port | client or slot: for IPv6 all 16 registers
    let regs = family.address_regs();
    let (filler, endpoint, key, client) = (0, 1, regs + 2, 2 * regs + 4);
    // The endpoint is remembered as a value: with a filler, which nft must not take for a map's value.
    let filled = Expr::Meta { key: Meta::Mark, reg: filler };
    let update = Expr::Remember { set: AFFINITY, key, action: Remember::Update { data: filler, seconds: code.sticky } };
    let dnat = Expr::Dnat { address: endpoint, port: endpoint + regs };
    let find = |set| lookup(set, key, filler, endpoint_decoys(family, endpoint));
    let mut known = load_key(family, key, code.any_address);
    known.push(source(family, client));
    known.extend(find(AFFINITY));
    known.push(Expr::Lookup { set: Map::Affine.name(), reg: endpoint, data: None, invert: false });
    known.extend([filled.clone(), update.clone(), dnat.clone()]);
    let mut new = load_key(family, key, code.any_address);
    new.push(Expr::Random { reg: client, modulus: code.slots, offset });
    new.extend(find(Map::Slots.name()));
    new.extend([source(family, client), filled]);
    // An update leaves the endpoint of an element as it is: forget the one that is gone first.
    new.push(Expr::Remember { set: AFFINITY, key, action: Remember::Forget { data: filler } });
    new.extend([update, dnat]);
    [known, new]
}

struct Rules<'a> {
    config: &'a Config,
    family: Family,
}

impl Rules<'_> {
    fn all(&self) -> Vec<(&'static str, Vec<Expr>)> {
        let tcp = vec![
            Expr::Meta { key: Meta::Layer4, reg: 0 },
            Expr::Compare { reg: 0, equal: true, value: vec![6] },
            Expr::Reject(Refusal::TcpReset),
        ];
        let jump = vec![Expr::Verdict(Verdict::Jump(SERVICES_CHAIN.to_owned()))];
        let mut rules = vec![
            (REFUSE, tcp),
            (REFUSE, vec![Expr::Reject(Refusal::PortUnreachable)]),
            ("prerouting", jump.clone()),
            ("output", jump),
        ];
        rules.extend(self.guard().into_iter().map(|rule| ("guard", rule)));
        rules.extend(self.services().into_iter().map(|rule| (SERVICES_CHAIN, rule)));
        rules.extend(self.postrouting().into_iter().map(|rule| ("postrouting", rule)));
        rules
    }

    fn own<'a>(&self, cidrs: &'a [IpNet]) -> impl Iterator<Item = &'a IpNet> + use<'a> {
        let family = self.family;
        cidrs.iter().filter(move |cidr| Family::of(cidr.addr()) == family)
    }

    fn within(&self, load: Expr, cidr: &IpNet, inside: bool) -> Vec<Expr> {
        let zero = octets(self.family.unspecified());
        vec![
            load,
            Expr::Bitwise { reg: 0, mask: octets(cidr.netmask()), xor: zero },
            Expr::Compare { reg: 0, equal: inside, value: octets(cidr.network()) },
        ]
    }

    fn address_type_local(&self, source: bool, local: bool) -> Vec<Expr> {
        let rtn_local = 2u32.to_ne_bytes().to_vec();
        vec![Expr::AddressType { source, reg: 0 }, Expr::Compare { reg: 0, equal: local, value: rtn_local }]
    }

    /// The client is neither a pod nor the node itself.
    fn outside_client(&self) -> Vec<Expr> {
        let mut exprs: Vec<Expr> =
            self.own(&self.config.cluster_cidrs).flat_map(|cidr| self.within(source(self.family, 0), cidr, false)).collect();
        exprs.extend(self.address_type_local(true, false));
        exprs
    }

    /// route_localnet lets the host reach host ports by 127.0.0.1; pods must not reach the host's loopback by it.
    fn guard(&self) -> Option<Vec<Expr>> {
        let loopback = IpNet::new(IpAddr::from([127, 0, 0, 0]), 8).ok().filter(|_| self.family == Family::V4)?;
        let mut rule = self.interface(Meta::InputName, &self.config.bridge, true);
        rule.extend(self.within(destination(self.family, 0), &loopback, true));
        rule.push(Expr::Verdict(Verdict::Drop));
        Some(rule)
    }

    fn interface(&self, key: Meta, name: &str, equal: bool) -> Vec<Expr> {
        let mut value = name.as_bytes().to_vec();
        value.resize(16, 0);
        vec![Expr::Meta { key, reg: 0 }, Expr::Compare { reg: 0, equal, value }]
    }

    fn services(&self) -> Vec<Vec<Expr>> {
        let family = self.family;
        let to_node = self.address_type_local(false, true);
        let to_service = |cidr| self.within(destination(family, 0), cidr, true);
        let dispatch = |map: Map, any_address| {
            let mut exprs = load_key(family, 0, any_address);
            let filler = family.address_regs() + 2;
            let code = filler + 1;
            let decoys = [code, code + 1].map(|reg| Expr::Meta { key: Meta::Mark, reg });
            exprs.extend(lookup(map.name(), 0, filler, decoys));
            exprs.push(Expr::Dispatch { set: DISPATCH, reg: code });
            exprs
        };
        let host_port = |any_address| {
            let mut exprs = load_key(family, 0, any_address);
            exprs.push(Expr::Lookup { set: Map::HostPorts.name(), reg: 0, data: Some(0), invert: false });
            exprs.push(Expr::Dnat { address: 0, port: family.address_regs() });
            exprs
        };
        let service_cidrs: Vec<&IpNet> = self.own(&self.config.service_cidrs).collect();
        let mut rules = Vec::new();
        // A service address that the node itself has (cluster DNS) is served by the node.
        for cidr in &service_cidrs {
            rules.push([to_service(cidr), to_node.clone(), vec![Expr::Verdict(Verdict::Return)]].concat());
        }
        for port in &self.config.reserved_ports {
            let tcp = [Expr::Meta { key: Meta::Layer4, reg: 0 }, Expr::Compare { reg: 0, equal: true, value: vec![6] }];
            let port = Expr::Compare { reg: 0, equal: true, value: port.to_be_bytes().to_vec() };
            let to_port = [Expr::Transport { offset: 2, len: 2, reg: 0 }, port, Expr::Verdict(Verdict::Return)];
            rules.push([to_node.clone(), tcp.to_vec(), to_port.to_vec()].concat());
        }
        // A pod says which address its host port is at; only addresses of the node are for it to claim.
        rules.push([to_node.clone(), host_port(false)].concat());
        rules.push([to_node.clone(), host_port(true)].concat());
        rules.push([self.outside_client(), dispatch(Map::External, false)].concat());
        for cidr in &service_cidrs {
            rules.push([to_service(cidr), self.outside_client(), mark()].concat());
        }
        rules.push(dispatch(Map::Services, false));
        rules.push([to_node.clone(), self.outside_client(), dispatch(Map::External, true)].concat());
        rules.push([to_node, dispatch(Map::Services, true)].concat());
        for cidr in &service_cidrs {
            rules.push([to_service(cidr), vec![Expr::Verdict(Verdict::Goto(REFUSE.to_owned()))]].concat());
        }
        rules
    }

    fn postrouting(&self) -> Vec<Vec<Expr>> {
        let family = self.family;
        let bits = |mask: u32| Expr::Bitwise { reg: 0, mask: mask.to_ne_bytes().to_vec(), xor: vec![0; 4] };
        let translated = vec![
            Expr::ConnectionStatus { reg: 0 },
            bits(1 << 5), // IPS_DST_NAT
            Expr::Compare { reg: 0, equal: false, value: vec![0; 4] },
        ];
        let marked = vec![
            Expr::Meta { key: Meta::Mark, reg: 0 },
            bits(MARK),
            Expr::Compare { reg: 0, equal: false, value: vec![0; 4] },
            Expr::Meta { key: Meta::Mark, reg: 0 },
            bits(!MARK),
            Expr::SetMark { reg: 0 },
            Expr::Masquerade,
        ];
        let addresses = vec![source(family, 0), destination(family, family.address_regs())];
        let itself = Expr::Lookup { set: Map::Hairpin.name(), reg: 0, data: None, invert: false };
        let hairpin = [translated.clone(), addresses, vec![itself, Expr::Masquerade]].concat();
        let mut rules = vec![marked, hairpin];
        if let Some(loopback) = IpNet::new(IpAddr::from([127, 0, 0, 0]), 8).ok().filter(|_| family == Family::V4) {
            let from_loopback = self.within(source(family, 0), &loopback, true);
            let elsewhere = self.interface(Meta::OutputName, "lo", false);
            rules.push([translated, from_loopback, elsewhere, vec![Expr::Masquerade]].concat());
        }
        if self.config.masquerade {
            for cidr in self.own(&self.config.pod_cidrs) {
                let mut rule = self.within(source(family, 0), cidr, true);
                for inside in self.own(&self.config.cluster_cidrs) {
                    rule.extend(self.within(destination(family, 0), inside, false));
                }
                rule.extend(self.interface(Meta::OutputName, &self.config.bridge, false));
                rule.push(Expr::Masquerade);
                rules.push(rule);
            }
        }
        rules
    }
}

/// Everything that rules can contain, to find out whether the kernel takes it.
pub(crate) fn probe(config: &Config, family: Family) -> Vec<Op> {
    let code =
        Code { slots: 2, empty: Empty::Reject, sticky: 60, masquerade: true, any_address: false, local: false, restricted: true };
    let new_codes = [code, Code { sticky: 0, any_address: true, local: true, ..code }, Code { slots: 0, ..code }];
    let delta = Delta { new_codes: new_codes.map(Code::encode).to_vec(), ..Delta::default() };
    [create(config, family), update(family, delta)].concat()
}
