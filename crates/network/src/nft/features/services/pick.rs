//! The chain of a code: how an endpoint is chosen.

use super::super::rules;
use super::{AFFINE, AFFINITY, Code, LOCAL_OFFSET, SLOTS, SOURCES};
use crate::nft::Family;
use crate::nft::expr::{Expr, Meta, Remember, Verdict};
use crate::nft::set::SetId;

/// The rules of a code's chain.
pub(super) fn rules(family: Family, code: Code) -> Vec<Vec<Expr>> {
    let offset = if code.local { LOCAL_OFFSET } else { 0 };
    let mut all = Vec::new();
    if code.restricted {
        let mut stranger = rules::load_key(family, 0, code.any_address);
        stranger.push(rules::source(family, family.address_regs() + 2));
        stranger.push(Expr::Lookup { set: SOURCES.only(), reg: 0, data: None, invert: true });
        stranger.push(Expr::Verdict(Verdict::Drop));
        all.push(stranger);
    }
    if code.masquerade {
        all.push(rules::mark());
    }
    if code.sticky > 0 {
        all.extend(sticky(family, code, offset));
    }
    all.push(any(family, code, offset));
    all
}

/// Any endpoint: for who is not remembered, be it because there is no room for more. A rule that cannot remember its client ends there.
fn any(family: Family, code: Code, offset: u32) -> Vec<Expr> {
    let regs = family.address_regs();
    let (slot, filler, endpoint) = (regs + 2, regs + 3, regs + 4);
    let mut rule = rules::load_key(family, 0, code.any_address);
    rule.push(Expr::Random { reg: slot, modulus: code.slots, offset });
    rule.extend(rules::lookup(SLOTS.only(), 0, filler, rules::endpoint_decoys(family, endpoint)));
    rule.push(Expr::Dnat { address: endpoint, port: endpoint + regs });
    rule
}

/// The rules for clients that have an endpoint and for those that have none.
fn sticky(family: Family, code: Code, offset: u32) -> [Vec<Expr>; 2] {
    // filler, endpoint | address, protocol, port | client or slot: for IPv6 all 16 registers
    let regs = family.address_regs();
    let (filler, endpoint, key, client) = (0, 1, regs + 2, 2 * regs + 4);
    // The endpoint is remembered as a value: with a filler, which nft must not take for a map's value.
    let filled = Expr::Meta { key: Meta::Mark, reg: filler };
    let set = AFFINITY.numbered(code.affinity);
    let update = Expr::Remember { set, key, action: Remember::Update { data: filler, seconds: code.sticky } };
    let dnat = Expr::Dnat { address: endpoint, port: endpoint + regs };
    let find = |set: SetId| rules::lookup(set, key, filler, rules::endpoint_decoys(family, endpoint));
    let mut known = rules::load_key(family, key, code.any_address);
    known.push(rules::source(family, client));
    known.extend(find(set));
    known.push(rules::contained(AFFINE.only(), endpoint));
    known.extend([filled.clone(), update.clone(), dnat.clone()]);
    let mut new = rules::load_key(family, key, code.any_address);
    new.push(Expr::Random { reg: client, modulus: code.slots, offset });
    new.extend(find(SLOTS.only()));
    new.extend([rules::source(family, client), filled]);
    // An update leaves the endpoint of an element as it is: forget the one that is gone first.
    new.push(Expr::Remember { set, key, action: Remember::Forget { data: filler } });
    new.extend([update, dnat]);
    [known, new]
}
