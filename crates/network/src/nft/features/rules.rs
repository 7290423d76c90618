//! What rules of several features are made of.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::nft::expr::{Connection, Expr, Is, Meta, Reg, Verdict};
use crate::nft::set::{Field, SetId};
use crate::nft::{Family, octets};

/// The bit of the packet mark that asks for masquerading, the same that kube-proxy uses.
pub(crate) const MARK: u32 = 0x4000;

/// Values that rules look further up begin with it.
pub(crate) const FILLER: [u8; 4] = [0; 4];

/// Where clients connect to.
pub(crate) const KEY: &[Field] = &[Field::Address, Field::Protocol, Field::Port];

/// The filter and NAT hooks of the IP families.
pub(crate) const PREROUTING: u32 = 0;
pub(crate) const INPUT: u32 = 1;
pub(crate) const FORWARD: u32 = 2;
pub(crate) const OUTPUT: u32 = 3;
pub(crate) const POSTROUTING: u32 = 4;

pub(crate) fn destination(family: Family, reg: Reg) -> Expr {
    Expr::Network { offset: if family == Family::V6 { 24 } else { 16 }, len: family.address_len(), reg }
}

pub(crate) fn source(family: Family, reg: Reg) -> Expr {
    Expr::Network { offset: if family == Family::V6 { 8 } else { 12 }, len: family.address_len(), reg }
}

/// The port that a packet goes to.
pub(crate) fn destination_port(reg: Reg) -> Expr {
    Expr::Transport { offset: 2, len: 2, reg }
}

/// Loads (destination or unspecified address, protocol, port) from `reg` on.
pub(crate) fn load_key(family: Family, reg: Reg, any_address: bool) -> Vec<Expr> {
    let address =
        if any_address { Expr::Immediate { reg, value: octets(family.unspecified()) } } else { destination(family, reg) };
    let next = reg + family.address_regs();
    vec![address, Expr::Meta { key: Meta::Layer4, reg: next }, destination_port(next + 1)]
}

/// Looks the key at `key` up for a value that begins with a filler, which goes to `filler`. `decoys` load what the nft
/// program is to see in the registers after it.
pub(crate) fn lookup(set: SetId, key: Reg, filler: Reg, decoys: impl IntoIterator<Item = Expr>) -> Vec<Expr> {
    let value = Expr::Lookup { set, reg: key, data: Some(filler), invert: false };
    decoys.into_iter().chain([value]).collect()
}

/// Something of the types of an endpoint.
pub(crate) fn endpoint_decoys(family: Family, reg: Reg) -> [Expr; 2] {
    [destination(family, reg), destination_port(reg + family.address_regs())]
}

/// Continues when the key from `reg` on is in the set.
pub(crate) fn contained(set: SetId, reg: Reg) -> Expr {
    Expr::Lookup { set, reg, data: None, invert: false }
}

/// Continues when register 0 has the value.
pub(crate) fn equals(value: impl Into<Vec<u8>>) -> Expr {
    Expr::Compare { reg: 0, is: Is::Equal, value: value.into() }
}

/// Continues with packets of a transport protocol.
pub(crate) fn of_protocol(number: u8) -> [Expr; 2] {
    [Expr::Meta { key: Meta::Layer4, reg: 0 }, equals([number])]
}

/// Asks for masquerading.
pub(crate) fn mark() -> Vec<Expr> {
    vec![
        Expr::Meta { key: Meta::Mark, reg: 0 },
        Expr::Bitwise { reg: 0, mask: (!MARK).to_ne_bytes().to_vec(), xor: MARK.to_ne_bytes().to_vec() },
        Expr::SetMark { reg: 0 },
    ]
}

/// Continues when one of the bits of the word in register 0 is set.
pub(crate) fn any_bit(mask: u32) -> [Expr; 2] {
    [
        Expr::Bitwise { reg: 0, mask: mask.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expr::Compare { reg: 0, is: Is::Unequal, value: vec![0; 4] },
    ]
}

/// Continues when what `load` puts into register 0 is in the range, or when it is not.
pub(crate) fn within(load: Expr, cidr: &IpNet, inside: bool) -> Vec<Expr> {
    let zero = octets(Family::of(cidr.addr()).unspecified());
    let is = if inside { Is::Equal } else { Is::Unequal };
    vec![
        load,
        Expr::Bitwise { reg: 0, mask: octets(cidr.netmask()), xor: zero },
        Expr::Compare { reg: 0, is, value: octets(cidr.network()) },
    ]
}

/// Continues when the source or destination is an address of the node, or when it is not.
fn address_type_local(source: bool, local: bool) -> Vec<Expr> {
    let rtn_local = 2u32.to_ne_bytes().to_vec();
    let is = if local { Is::Equal } else { Is::Unequal };
    vec![Expr::AddressType { source, reg: 0 }, Expr::Compare { reg: 0, is, value: rtn_local }]
}

/// The packet goes to an address of the node.
pub(crate) fn to_node() -> Vec<Expr> {
    address_type_local(false, true)
}

/// The client is neither in one of the ranges nor the node itself.
pub(crate) fn outside_client<'a>(cluster_cidrs: impl Iterator<Item = &'a IpNet>, family: Family) -> Vec<Expr> {
    let mut exprs: Vec<Expr> = cluster_cidrs.flat_map(|cidr| within(source(family, 0), cidr, false)).collect();
    exprs.extend(address_type_local(true, false));
    exprs
}

/// Continues when the link that the packet came by or leaves by has the name, or when it has not.
pub(crate) fn interface(key: Meta, name: &str, equal: bool) -> Vec<Expr> {
    let mut value = name.as_bytes().to_vec();
    value.resize(16, 0);
    let is = if equal { Is::Equal } else { Is::Unequal };
    vec![Expr::Meta { key, reg: 0 }, Expr::Compare { reg: 0, is, value }]
}

/// Continues when the packet's destination was translated.
pub(crate) fn translated() -> Vec<Expr> {
    const IPS_DST_NAT: u32 = 1 << 5;
    let mut exprs = vec![Expr::Connection { what: Connection::Status, reg: 0 }];
    exprs.extend(any_bit(IPS_DST_NAT));
    exprs
}

/// Continues when the packet is no part of its connection.
pub(crate) fn invalid() -> Vec<Expr> {
    const INVALID: u32 = 1;
    let mut exprs = vec![Expr::Connection { what: Connection::State, reg: 0 }];
    exprs.extend(any_bit(INVALID));
    exprs
}

/// The addresses of the host's loopback interface that other machines could be led to.
pub(crate) fn loopback(family: Family) -> Option<IpNet> {
    IpNet::new(IpAddr::from([127, 0, 0, 0]), 8).ok().filter(|_| family == Family::V4)
}

pub(crate) fn verdict(verdict: Verdict) -> Vec<Expr> {
    vec![Expr::Verdict(verdict)]
}
