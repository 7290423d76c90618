//! The way out for addresses that only this machine knows: a table of its own with one rule.

use ipnet::IpNet;
use nix::sys::socket::SockProtocol;

use super::batch::{Hook, Op, Rule};
use super::expr::{Expr, Is};
use super::table::{Error, send};
use super::{Family, octets};
use crate::netlink::Socket;

/// Hides IPv4 addresses of `range` behind the machine's own when they talk to others. Replaces a table of this name.
pub(crate) fn masquerade(table: &str, range: IpNet) -> Result<(), Error> {
    let within = |offset, inside| {
        let mask = Expr::Bitwise { reg: 0, mask: octets(range.netmask()), xor: vec![0; 4] };
        let compare = Expr::Compare { reg: 0, is: inside, value: octets(range.network()) };
        [Expr::Network { offset, len: 4, reg: 0 }, mask, compare]
    };
    // Offsets of source and destination in the header.
    let exprs = [&within(12, Is::Equal)[..], &within(16, Is::Unequal), &[Expr::Masquerade]].concat();
    let chain = "postrouting".to_owned();
    let hook = Some(Hook { kind: "nat", number: 4, priority: 100 });
    let ops = vec![
        Op::NewTable { comment: None },
        Op::DelTable,
        Op::NewTable { comment: None },
        Op::NewChain { name: chain.clone(), hook },
        Op::NewRule { chain, rule: Rule::new(exprs) },
    ];
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).map_err(Error::Open)?;
    send(&mut socket, table, &[(Family::V4, ops)]).map_err(|source| Error::Batch { table: table.to_owned(), source })
}
