//! Network policies: which connections pods may take and make.
//!
//! Two base chains see what the node forwards, after its destination was translated, one for each direction: what the first
//! accepts the second still looks at. An address in `isolated-ingress` or `isolated-egress` leads to the chain that all pods
//! with the same policies share; it goes through the chain of each policy and then drops. Policies of the cluster stand before and
//! behind these: the rules of all that concern the pod are one chain for each tier, in their order, and a rule that passes returns from it. The chains of policies change with the
//! policies only: pods come and go as elements of the sets of addresses that the rules look into.
//!
//! Packets that come back (of the reply direction) pass; all others are looked at each time, so that a change of a policy is a
//! change for connections that exist. What the node itself sends to pods is not forwarded and not looked at, and what pods
//! send to the node is not either, but for the service addresses that the node serves itself (cluster DNS): these stand
//! for pods.

use std::net::IpAddr;

use super::{Config, rules};
use crate::nft::batch::{Chain, Hook, Rule, Value};
use crate::nft::contents::Fragment;
use crate::nft::element::{Element, Key, Protocol};
use crate::nft::expr::{Connection, Expr, Is, Meta, Verdict};
use crate::nft::set::{Field, SetKind};
use crate::nft::{Family, octets};

/// Addresses of isolated pods of this node.
static ISOLATED_INGRESS: SetKind = SetKind::verdicts("isolated-ingress", &[Field::Address]);
static ISOLATED_EGRESS: SetKind = SetKind::verdicts("isolated-egress", &[Field::Address]);
/// Pairs of equal addresses: a pod cannot block access to itself.
static ITSELF: SetKind = SetKind::set("itself", &[Field::Address, Field::Address]);
/// Addresses of the pods that a peer selects.
static PEERS: SetKind = SetKind::set("peers", &[Field::Address]);
/// Where selected pods have a port of a name.
static NAMED: SetKind = SetKind::set("named-ports", rules::KEY);
/// Ranges of addresses, for all protocols: of a key of two fields the kernel is told each range as one element with both ends.
static BLOCKS: SetKind = SetKind::ranges("blocks", &[Field::Address, Field::Protocol]);
/// Ranges of ports of one protocol.
static PORTS: SetKind = SetKind::ranges("ports", &[Field::Port]);

/// Of a connection, as the isolated pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    /// It comes to the pod.
    Ingress,
    /// The pod makes it.
    Egress,
}

impl Direction {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As the API writes it, in small letters.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    fn isolated(self) -> &'static SetKind {
        match self {
            Self::Ingress => &ISOLATED_INGRESS,
            Self::Egress => &ISOLATED_EGRESS,
        }
    }

    fn own(self, family: Family) -> Expr {
        match self {
            Self::Ingress => rules::destination(family, 0),
            Self::Egress => rules::source(family, 0),
        }
    }

    fn peer(self, family: Family) -> Expr {
        match self {
            Self::Ingress => rules::source(family, 0),
            Self::Egress => rules::destination(family, 0),
        }
    }
}

/// The other side of an allowed connection. Numbers are those of sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Peers {
    /// Anybody.
    All,
    /// Selected pods.
    Pods(u32),
    /// Ranges of addresses.
    Blocks(u32),
}

/// Ports of an allowed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ports {
    /// Any of any protocol.
    All,
    /// Any of a protocol.
    Of(Protocol),
    /// From the first to the last.
    Range(Protocol, u16, u16),
    /// Of a protocol, in the set of ranges of this number.
    Ranges(Protocol, u32),
    /// Those of names, in the set of this number.
    Named(u32),
}

/// What is done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Action {
    /// It is allowed, and no other policy of the direction is asked.
    Accept,
    /// It is not.
    Deny,
    /// The next tier decides.
    Pass,
}

impl Action {
    fn verdict(self) -> Verdict {
        match self {
            Self::Accept => Verdict::Accept,
            Self::Deny => Verdict::Drop,
            Self::Pass => Verdict::Return,
        }
    }
}

/// Connections about which a policy says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Decision {
    /// What it says.
    pub(crate) action: Action,
    /// With whom.
    pub(crate) peers: Peers,
    /// At which ports.
    pub(crate) ports: Ports,
}

/// What is there as long as there is a policy.
pub(crate) fn base(config: &Config, family: Family) -> Fragment {
    let kinds = [&ISOLATED_INGRESS, &ISOLATED_EGRESS, &ITSELF];
    let filter = |number, priority| Hook { kind: "filter", number, priority };
    let look = |direction: Direction| vec![direction.own(family), Expr::Dispatch { set: direction.isolated().only(), reg: 0 }];
    let with =
        |first: Vec<Rule>, last: Vec<Vec<Expr>>| first.into_iter().chain(last.into_iter().map(Rule::new)).collect::<Vec<_>>();
    let own_services = Config::of_family(&config.service_cidrs, family).map(|cidr| {
        let from_pod = rules::interface(Meta::InputName, &config.bridge, true);
        [from_pod, rules::within(rules::destination(family, 0), cidr, true), look(Direction::Egress)].concat()
    });
    let chains = [
        Chain::base("policy-egress", filter(rules::FORWARD, 0), with(passing(family), vec![look(Direction::Egress)])),
        Chain::base("policy-ingress", filter(rules::FORWARD, 1), with(passing(family), vec![look(Direction::Ingress)])),
        Chain::base("policy-node", filter(rules::INPUT, 0), with(passing(family), own_services.collect())),
    ];
    Fragment {
        sets: kinds.map(|kind| (family, kind.only())).to_vec(),
        chains: chains.map(|chain| (family, chain)).to_vec(),
        ..Fragment::default()
    }
}

/// What no policy is asked about: packets that come back, errors about a connection, and a pod's packets to itself.
fn passing(family: Family) -> Vec<Rule> {
    const REPLY: u8 = 1;
    const RELATED: u32 = 1 << 2;
    let accept = Expr::Verdict(Verdict::Accept);
    let direction = Expr::Connection { what: Connection::Direction, reg: 0 };
    let back = vec![direction, rules::equals([REPLY]), accept.clone()];
    let icmp = rules::of_protocol(if family == Family::V4 { 1 } else { 58 });
    let mut error = icmp.to_vec();
    error.push(Expr::Connection { what: Connection::State, reg: 0 });
    error.extend(rules::any_bit(RELATED));
    error.push(accept.clone());
    let pair = vec![rules::source(family, 0), rules::destination(family, family.address_regs())];
    let itself = [pair, vec![rules::contained(ITSELF.only(), 0), accept]].concat();
    [back, error, itself].map(Rule::new).to_vec()
}

/// The chain of a policy: what it allows in one direction.
pub(crate) fn policy(direction: Direction, family: Family, number: u32, name: &str, allowed: &[Decision]) -> Chain {
    Chain::regular(policy_chain(direction, number), allowed.iter().map(|one| decide(direction, family, one, name)).collect())
}

fn decide(direction: Direction, family: Family, decision: &Decision, name: &str) -> Rule {
    let mut exprs = peers(direction, family, decision.peers);
    exprs.extend(ports(family, decision.ports));
    exprs.push(Expr::Verdict(decision.action.verdict()));
    Rule::new(exprs).commented(name)
}

fn policy_chain(direction: Direction, number: u32) -> String {
    format!("allow-{}-{number}", direction.name())
}

fn peers(direction: Direction, family: Family, peers: Peers) -> Vec<Expr> {
    let peer = direction.peer(family);
    match peers {
        Peers::All => Vec::new(),
        Peers::Pods(number) => vec![peer, rules::contained(PEERS.numbered(number), 0)],
        Peers::Blocks(number) => {
            let protocol = Expr::Meta { key: Meta::Layer4, reg: family.address_regs() };
            vec![peer, protocol, rules::contained(BLOCKS.numbered(number), 0)]
        }
    }
}

fn ports(family: Family, ports: Ports) -> Vec<Expr> {
    let compare = |is, port: u16| Expr::Compare { reg: 0, is, value: port.to_be_bytes().to_vec() };
    match ports {
        Ports::All => Vec::new(),
        Ports::Of(protocol) => rules::of_protocol(protocol.number()).to_vec(),
        Ports::Range(protocol, first, last) => {
            let mut exprs = rules::of_protocol(protocol.number()).to_vec();
            exprs.push(rules::destination_port(0));
            match first == last {
                true => exprs.push(compare(Is::Equal, first)),
                false => exprs.extend([compare(Is::AtLeast, first), compare(Is::AtMost, last)]),
            }
            exprs
        }
        Ports::Ranges(protocol, number) => {
            let mut exprs = rules::of_protocol(protocol.number()).to_vec();
            exprs.extend([rules::destination_port(0), rules::contained(PORTS.numbered(number), 0)]);
            exprs
        }
        Ports::Named(number) => {
            let mut exprs = rules::load_key(family, 0, false);
            exprs.push(rules::contained(NAMED.numbered(number), 0));
            exprs
        }
    }
}

/// What concerns pods with the same policies in one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Isolation<'a> {
    /// What the policies of the tier Admin say, each with the policy's name, in order.
    pub(crate) admin: Vec<(Decision, &'a str)>,
    /// The NetworkPolicies, with their numbers and names.
    pub(crate) policies: Vec<(u32, &'a str)>,
    /// What the policies of the tier Baseline say.
    pub(crate) baseline: Vec<(Decision, &'a str)>,
}

/// The chains of pods which these policies concern. A NetworkPolicy leaves nothing for the tier Baseline to decide; without one, what nobody
/// has decided passes.
pub(crate) fn isolation(direction: Direction, family: Family, number: u32, of: &Isolation<'_>) -> Vec<Chain> {
    let jump = |chain: String| Rule::new(rules::verdict(Verdict::Jump(chain)));
    let mut tiers = Vec::new();
    let mut tier = |name: &str, decisions: &[(Decision, &str)]| {
        let all: Vec<Rule> = decisions.iter().map(|(one, name)| decide(direction, family, one, name)).collect();
        (!all.is_empty()).then(|| {
            let name = format!("{name}-{}-{number}", direction.name());
            tiers.push(Chain::regular(name.clone(), all));
            jump(name)
        })
    };
    let mut all: Vec<Rule> = tier("admin", &of.admin).into_iter().collect();
    let of_policy = |(policy, name): &(u32, &str)| jump(policy_chain(direction, *policy)).commented(name);
    all.extend(of.policies.iter().map(of_policy));
    match of.policies.is_empty() {
        true => all.extend(tier("baseline", &of.baseline)),
        false => all.push(Rule::new(rules::verdict(Verdict::Drop))),
    }
    tiers.push(Chain::regular(isolation_chain(direction, number), all));
    tiers
}

fn isolation_chain(direction: Direction, number: u32) -> String {
    format!("{}-{number}", direction.isolated().name)
}

/// The pod with this address is isolated by the chain of this number.
pub(crate) fn isolated(direction: Direction, address: IpAddr, number: u32) -> Element {
    let verdict = Verdict::Goto(isolation_chain(direction, number));
    Element::new(Family::of(address), direction.isolated().only(), octets(address), Value::Verdict(verdict))
}

/// The pod with this address may talk to itself.
pub(crate) fn itself(address: IpAddr) -> Element {
    Element::new(Family::of(address), ITSELF.only(), octets(address).repeat(2), Value::None)
}

/// The set of a peer's pods.
pub(crate) fn peer_set(family: Family, number: u32) -> Fragment {
    Fragment { sets: vec![(family, PEERS.numbered(number))], ..Fragment::default() }
}

/// The set of ports of a name.
pub(crate) fn named_set(family: Family, number: u32) -> Fragment {
    Fragment { sets: vec![(family, NAMED.numbered(number))], ..Fragment::default() }
}

/// A pod of a peer.
pub(crate) fn peer(address: IpAddr, number: u32) -> Element {
    Element::new(Family::of(address), PEERS.numbered(number), octets(address), Value::None)
}

/// A pod's port of a name.
pub(crate) fn named_port(key: Key, number: u32) -> Element {
    Element::new(Family::of(key.address), NAMED.numbered(number), key.bytes(), Value::None)
}

/// A set of ranges of addresses of a family, each with its first and last, that do not overlap.
pub(crate) fn blocks(family: Family, number: u32, ranges: &[(IpAddr, IpAddr)]) -> Fragment {
    let set = BLOCKS.numbered(number);
    let end = |address: IpAddr, protocol: u8| [octets(address), vec![protocol, 0, 0, 0]].concat();
    let element =
        |(first, last): &(IpAddr, IpAddr)| Element::new(family, set, [end(*first, 0), end(*last, u8::MAX)].concat(), Value::None);
    Fragment { sets: vec![(family, set)], elements: ranges.iter().map(element).collect(), ..Fragment::default() }
}

/// A set of ranges of ports, each with its first and last, that do not overlap.
pub(crate) fn port_ranges(family: Family, number: u32, ranges: &[(u16, u16)]) -> Fragment {
    let set = PORTS.numbered(number);
    let element =
        |(first, last): &(u16, u16)| Element::new(family, set, [first.to_be_bytes(), last.to_be_bytes()].concat(), Value::None);
    Fragment { sets: vec![(family, set)], elements: ranges.iter().map(element).collect(), ..Fragment::default() }
}

/// Every kind of rule and element, to find out whether the kernel takes them.
pub(super) fn sample(config: &Config, family: Family) -> Fragment {
    let address = family.unspecified();
    let all = [
        Decision { action: Action::Accept, peers: Peers::Pods(1), ports: Ports::Range(Protocol::Tcp, 1, 2) },
        Decision { action: Action::Pass, peers: Peers::Blocks(1), ports: Ports::Named(1) },
        Decision { action: Action::Accept, peers: Peers::All, ports: Ports::Ranges(Protocol::Tcp, 1) },
    ];
    let ports = port_ranges(family, 1, &[(1, 2), (4, 4), (6, u16::MAX)]);
    let mut sample = base(config, family);
    for part in [peer_set(family, 1), named_set(family, 1), blocks(family, 1, &[(address, address)]), ports] {
        sample.extend(part);
    }
    for direction in Direction::ALL {
        let admin = all.map(|one| (one, "sample")).to_vec();
        let of = Isolation { admin, policies: vec![(1, "sample")], ..Isolation::default() };
        let mut chains = isolation(direction, family, 1, &of);
        chains.push(policy(direction, family, 1, "sample", &all));
        sample.chains.extend(chains.into_iter().map(|chain| (family, chain)));
        sample.elements.push(isolated(direction, address, 1));
    }
    sample
}
