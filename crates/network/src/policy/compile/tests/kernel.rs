//! What the kernel makes of the table's policies: an interpreter of the few expressions that they use.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::nft::batch::{Chain, Hook, Op, Pair, Value};
use crate::nft::contents::Contents;
use crate::nft::expr::{Connection, Expr, Is, Meta, Verdict};
use crate::nft::set::SetId;
use crate::nft::{Family, octets};

/// What a packet is to its connection, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The first of a connection, forwarded.
    First,
    /// One that comes back, forwarded.
    Back,
    /// Of no connection, forwarded.
    Untracked,
    /// The first of a connection from a pod to the node.
    ToNode,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) protocol: u8,
    pub(super) port: u16,
    pub(super) side: Side,
}

struct Table {
    chains: HashMap<String, Chain>,
    elements: HashMap<SetId, Vec<Pair>>,
}

/// The registers of a rule.
struct Registers([u8; 128]);

impl Registers {
    fn load(&mut self, reg: u32, bytes: &[u8]) {
        let at = reg as usize * 4;
        self.0[at..at + bytes.len().next_multiple_of(4)].fill(0);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn from(&self, reg: u32) -> &[u8] {
        &self.0[reg as usize * 4..]
    }
}

/// Whether every base chain of the packet's hook lets it pass.
pub(super) fn admits(contents: &Contents, packet: Packet) -> bool {
    let mut table = Table { chains: HashMap::new(), elements: HashMap::new() };
    let delta = contents.everything().remove(&Family::of(packet.to)).unwrap_or_default();
    for op in delta.ops() {
        match op {
            Op::NewChain { name, hook } => {
                table.chains.insert(name.clone(), Chain { name, hook, rules: Vec::new() });
            }
            Op::NewRule { chain, rule } => {
                let chain = table.chains.get_mut(&chain);
                chain.expect("a rule's chain comes before it").rules.push(rule);
            }
            Op::Add { set, elements } => table.elements.entry(set).or_default().extend(elements),
            _ => (),
        }
    }
    let number = if packet.side == Side::ToNode { 1 } else { 2 };
    let hooked = |chain: &'_ Chain| chain.hook.filter(|hook| hook.number == number);
    let mut base: Vec<(Hook, &Chain)> = table.chains.values().filter_map(|chain| Some((hooked(chain)?, chain))).collect();
    base.sort_by_key(|(hook, _)| hook.priority);
    base.into_iter().all(|(_, chain)| table.chain(chain, &packet) != Some(Verdict::Drop))
}

impl Table {
    /// The verdict of a chain; None at its end.
    fn chain(&self, chain: &Chain, packet: &Packet) -> Option<Verdict> {
        for rule in &chain.rules {
            match self.rule(&rule.exprs, packet) {
                Some(Verdict::Jump(to)) => {
                    if let Some(verdict) = self.chain(&self.chains[&to], packet) {
                        return Some(verdict);
                    }
                }
                Some(Verdict::Return) => return None,
                Some(Verdict::Goto(to)) => return self.chain(&self.chains[&to], packet),
                Some(verdict) => return Some(verdict),
                None => (),
            }
        }
        None
    }

    /// The verdict of a rule; None when it does not match.
    fn rule(&self, exprs: &[Expr], packet: &Packet) -> Option<Verdict> {
        let mut now = Registers([0; 128]);
        for expr in exprs {
            match expr {
                Expr::Network { offset: 12 | 8, reg, .. } => now.load(*reg, &octets(packet.from)),
                Expr::Network { reg, .. } => now.load(*reg, &octets(packet.to)),
                Expr::Transport { reg, .. } => now.load(*reg, &packet.port.to_be_bytes()),
                Expr::Meta { key: Meta::Layer4, reg } => now.load(*reg, &[packet.protocol]),
                Expr::Meta { key: Meta::InputName, reg } => now.load(*reg, b"knarr0\0\0\0\0\0\0\0\0\0\0"),
                Expr::Connection { what: Connection::Direction, .. } if packet.side == Side::Untracked => return None,
                Expr::Connection { what: Connection::Direction, reg } => now.load(*reg, &[u8::from(packet.side == Side::Back)]),
                // Never related.
                Expr::Connection { reg, .. } => now.load(*reg, &[0; 4]),
                Expr::Bitwise { reg, mask, xor } => {
                    let masked = now.from(*reg).iter().zip(mask).zip(xor).map(|((byte, mask), xor)| byte & mask ^ xor);
                    let masked: Vec<u8> = masked.collect();
                    now.load(*reg, &masked);
                }
                Expr::Compare { reg, is, value } => {
                    let found = &now.from(*reg)[..value.len()];
                    let holds = match is {
                        Is::Equal => found == &value[..],
                        Is::Unequal => found != &value[..],
                        Is::AtMost => found <= &value[..],
                        Is::AtLeast => found >= &value[..],
                    };
                    if !holds {
                        return None;
                    }
                }
                Expr::Lookup { set, reg, data: None, invert: false } => drop(self.find(*set, now.from(*reg))?),
                Expr::Dispatch { set, reg } => match self.find(*set, now.from(*reg))? {
                    Value::Verdict(verdict) => return Some(verdict),
                    other => panic!("{other:?} is no verdict"),
                },
                Expr::Verdict(verdict) => return Some(verdict.clone()),
                other => panic!("policies do not use {other:?}"),
            }
        }
        None
    }

    /// The value of the element with the key that `registers` begin with.
    fn find(&self, set: SetId, registers: &[u8]) -> Option<Value> {
        let matches = |key: &[u8]| match set.kind.ranges {
            true => {
                let (first, last) = key.split_at(key.len() / 2);
                let within =
                    |from: usize, to: usize| first[from..to] <= registers[from..to] && registers[from..to] <= last[from..to];
                // A port, or an address and then a protocol.
                match set.has_range_elements() {
                    false => within(0, first.len()),
                    true => within(0, first.len() - 4) && within(first.len() - 4, first.len() - 3),
                }
            }
            false => registers.starts_with(key),
        };
        self.elements.get(&set)?.iter().find(|(key, _)| matches(key)).map(|(_, value)| value.clone())
    }
}
