//! The way out for addresses that only this machine knows: a table of its own with one rule.

use ipnet::IpNet;
use nix::sys::socket::SockProtocol;

use super::batch::{Hook, Op, Rule};
use super::expr::{Expr, Is};
use super::table::{Error, send};
use super::{Family, octets};
use crate::netlink::Socket;

/// Hides addresses of these ranges behind the machine's own when they talk to others. Replaces a table of this name.
pub(crate) fn masquerade(table: &str, ranges: &[IpNet]) -> Result<(), Error> {
    let ops: Vec<_> = ranges.iter().map(|range| (Family::of(range.addr()), of_range(*range))).collect();
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).map_err(Error::Open)?;
    send(&mut socket, table, &ops).map_err(|source| Error::Batch { table: table.to_owned(), source })
}

/// The table of one family.
fn of_range(range: IpNet) -> Vec<Op> {
    let len = Family::of(range.addr()).address_len();
    let within = |offset, inside| {
        let mask = Expr::Bitwise { reg: 0, mask: octets(range.netmask()), xor: vec![0; len as usize] };
        let compare = Expr::Compare { reg: 0, is: inside, value: octets(range.network()) };
        [Expr::Network { offset, len, reg: 0 }, mask, compare]
    };
    // Offsets of source and destination in the header.
    let (source, destination) = if len == 4 { (12, 16) } else { (8, 24) };
    let exprs = [&within(source, Is::Equal)[..], &within(destination, Is::Unequal), &[Expr::Masquerade]].concat();
    let chain = "postrouting".to_owned();
    let hook = Some(Hook { kind: "nat", number: 4, priority: 100 });
    vec![
        Op::NewTable { comment: None },
        Op::DelTable,
        Op::NewTable { comment: None },
        Op::NewChain { name: chain.clone(), hook },
        Op::NewRule { chain, rule: Rule::new(exprs) },
    ]
}
