//! The expressions of nf_tables rules that the data plane uses, and their encoding.
//!
//! Constants are those of linux/netfilter/nf_tables.h. Registers are the 16 four-byte ones; a concatenation
//! occupies consecutive registers.

use crate::netlink::Buffer;

use super::Family;
use super::set::SetId;

/// Index of a 32-bit register, 0 to 15.
pub(crate) type Reg = u32;

const VERDICT_REG: u32 = 0;
const FIRST_REG32: u32 = 8;

/// Where a packet goes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ends this base chain; later ones still see the packet.
    Accept,
    Drop,
    Jump(String),
    Goto(String),
    /// Back to the rule after the jump.
    Return,
}

/// How a refused connection learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    TcpReset,
    PortUnreachable,
}

/// What a dynamic set update does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remember {
    Update { data: Reg, seconds: u32 },
    Forget { data: Reg },
}

/// How a register is compared with a value, byte by byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    Equal = 0,
    Unequal = 1,
    AtMost = 3,
    AtLeast = 5,
}

/// What is asked of a packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// Bits of what the packet is to it (one word).
    State = 0,
    /// Whether the packet goes the way of the first one: 0, or comes back: 1 (one byte). Without a connection the rule ends.
    Direction = 1,
    /// Status bits (one word).
    Status = 2,
}

/// Keys of the meta expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meta {
    /// The type of a frame, in network order.
    Protocol = 1,
    Mark = 3,
    InputName = 6,
    OutputName = 7,
    Layer4 = 16,
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expr {
    /// Bytes of the link header.
    Frame {
        offset: u32,
        len: u32,
        reg: Reg,
    },
    /// Bytes of the network header.
    Network {
        offset: u32,
        len: u32,
        reg: Reg,
    },
    /// Bytes of the transport header.
    Transport {
        offset: u32,
        len: u32,
        reg: Reg,
    },
    Meta {
        key: Meta,
        reg: Reg,
    },
    SetMark {
        reg: Reg,
    },
    /// Continues when the register is so.
    Compare {
        reg: Reg,
        is: Is,
        value: Vec<u8>,
    },
    /// reg = (reg & mask) ^ xor.
    Bitwise {
        reg: Reg,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Immediate {
        reg: Reg,
        value: Vec<u8>,
    },
    Verdict(Verdict),
    /// Continues when the key in `reg` is in the set (or when not); `data` receives a map's value.
    Lookup {
        set: SetId,
        reg: Reg,
        data: Option<Reg>,
        invert: bool,
    },
    /// Looks the key up in a verdict map and takes its verdict.
    Dispatch {
        set: SetId,
        reg: Reg,
    },
    /// reg = random number modulo `modulus`, plus `offset`; host byte order.
    Random {
        reg: Reg,
        modulus: u32,
        offset: u32,
    },
    /// reg = type of the source or destination address as the routing table sees it (RTN_LOCAL is 2).
    AddressType {
        source: bool,
        reg: Reg,
    },
    /// reg = something of the connection.
    Connection {
        what: Connection,
        reg: Reg,
    },
    Dnat {
        address: Reg,
        port: Reg,
    },
    Masquerade,
    Reject(Refusal),
    Remember {
        set: SetId,
        key: Reg,
        action: Remember,
    },
}

impl Expr {
    /// The set that it looks into.
    pub(crate) fn set(&self) -> Option<SetId> {
        match self {
            Self::Lookup { set, .. } | Self::Dispatch { set, .. } | Self::Remember { set, .. } => Some(*set),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Frame { .. } | Self::Network { .. } | Self::Transport { .. } => "payload",
            Self::Meta { .. } | Self::SetMark { .. } => "meta",
            Self::Compare { .. } => "cmp",
            Self::Bitwise { .. } => "bitwise",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Lookup { .. } | Self::Dispatch { .. } => "lookup",
            Self::Random { .. } => "numgen",
            Self::AddressType { .. } => "fib",
            Self::Connection { .. } => "ct",
            Self::Dnat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Reject(_) => "reject",
            Self::Remember { .. } => "dynset",
        }
    }

    /// Appends the expression as a list element of NFTA_RULE_EXPRESSIONS.
    pub(crate) fn encode(&self, family: Family, b: &mut Buffer) {
        b.nested(1, |b| {
            b.string(1, self.name());
            b.nested(2, |b| self.encode_data(family, b));
        });
    }

    fn encode_data(&self, family: Family, b: &mut Buffer) {
        match self {
            Self::Frame { offset, len, reg } => payload(b, 0, *offset, *len, *reg),
            Self::Network { offset, len, reg } => payload(b, 1, *offset, *len, *reg),
            Self::Transport { offset, len, reg } => payload(b, 2, *offset, *len, *reg),
            Self::Meta { key, reg } => {
                b.be32(1, FIRST_REG32 + reg);
                b.be32(2, *key as u32);
            }
            Self::SetMark { reg } => {
                b.be32(2, Meta::Mark as u32);
                b.be32(3, FIRST_REG32 + reg);
            }
            Self::Compare { reg, is, value } => {
                b.be32(1, FIRST_REG32 + reg);
                b.be32(2, *is as u32);
                data(b, 3, value);
            }
            Self::Bitwise { reg, mask, xor } => {
                b.be32(1, FIRST_REG32 + reg);
                b.be32(2, FIRST_REG32 + reg);
                b.be32(3, mask.len() as u32);
                data(b, 4, mask);
                data(b, 5, xor);
            }
            Self::Immediate { reg, value } => {
                b.be32(1, FIRST_REG32 + reg);
                data(b, 2, value);
            }
            Self::Verdict(verdict) => {
                b.be32(1, VERDICT_REG);
                b.nested(2, |b| encode_verdict(b, verdict));
            }
            Self::Lookup { set, reg, data, invert } => lookup(b, *set, *reg, data.map(|reg| FIRST_REG32 + reg), *invert),
            Self::Dispatch { set, reg } => lookup(b, *set, *reg, Some(VERDICT_REG), false),
            Self::Random { reg, modulus, offset } => {
                b.be32(1, FIRST_REG32 + reg);
                b.be32(2, *modulus);
                b.be32(3, 1);
                b.be32(4, *offset);
            }
            Self::AddressType { source, reg } => {
                b.be32(1, FIRST_REG32 + reg);
                b.be32(2, 3);
                b.be32(3, if *source { 1 } else { 2 });
            }
            Self::Connection { what, reg } => {
                b.be32(1, FIRST_REG32 + reg);
                b.be32(2, *what as u32);
            }
            Self::Dnat { address, port } => {
                b.be32(1, 1);
                b.be32(2, u32::from(family.protocol()));
                b.be32(3, FIRST_REG32 + address);
                b.be32(5, FIRST_REG32 + port);
            }
            Self::Masquerade => b.be32(1, 1 << 4), // NF_NAT_RANGE_PROTO_RANDOM_FULLY
            Self::Reject(Refusal::TcpReset) => {
                b.be32(1, 1);
                b.attr(2, &[0]);
            }
            Self::Reject(Refusal::PortUnreachable) => {
                b.be32(1, 0);
                b.attr(2, &[if family == Family::V4 { 3 } else { 4 }]);
            }
            Self::Remember { set, key, action } => remember(b, *set, *key, *action),
        }
    }
}

fn payload(b: &mut Buffer, base: u32, offset: u32, len: u32, reg: Reg) {
    b.be32(1, FIRST_REG32 + reg);
    b.be32(2, base);
    b.be32(3, offset);
    b.be32(4, len);
}

fn lookup(b: &mut Buffer, set: SetId, reg: Reg, data: Option<u32>, invert: bool) {
    b.string(1, &set.name());
    b.be32(2, FIRST_REG32 + reg);
    if let Some(data) = data {
        b.be32(3, data);
    }
    if invert {
        b.be32(5, 1);
    }
}

fn remember(b: &mut Buffer, set: SetId, key: Reg, action: Remember) {
    b.string(1, &set.name());
    match action {
        Remember::Update { data, seconds } => {
            b.be32(3, 1);
            b.be32(4, FIRST_REG32 + key);
            b.be32(5, FIRST_REG32 + data);
            b.attr(6, &(u64::from(seconds) * 1000).to_be_bytes());
        }
        // The kernel wants the data of a map's element even to delete it.
        Remember::Forget { data } => {
            b.be32(3, 2);
            b.be32(4, FIRST_REG32 + key);
            b.be32(5, FIRST_REG32 + data);
        }
    }
}

/// NFTA_DATA_VALUE in an attribute of `kind`.
pub(super) fn data(b: &mut Buffer, kind: u16, value: &[u8]) {
    b.nested(kind, |b| b.attr(1, value));
}

/// NFTA_DATA_VERDICT, to be put into a data attribute.
pub(super) fn encode_verdict(b: &mut Buffer, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (1, None),
        Verdict::Drop => (0, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    b.nested(2, |b| {
        b.be32(1, i32::cast_unsigned(code));
        if let Some(chain) = chain {
            b.string(2, chain);
        }
    });
}
