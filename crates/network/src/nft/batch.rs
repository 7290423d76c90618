//! Encoding of table changes as one nfnetlink batch, which the kernel applies completely or not at all.

use crate::netlink::{ACK, APPEND, Buffer, CREATE, EXCL};

use super::Family;
use super::expr::{Expr, Verdict, data, encode_verdict};
use super::set::{Field, SetId, Values};

const SUBSYS: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYS;
const DEL_TABLE: u16 = SUBSYS | 2;
const NEW_CHAIN: u16 = SUBSYS | 3;
const DEL_CHAIN: u16 = SUBSYS | 5;
const NEW_RULE: u16 = SUBSYS | 6;
const DEL_RULE: u16 = SUBSYS | 8;
const NEW_SET: u16 = SUBSYS | 9;
const DEL_SET: u16 = SUBSYS | 11;
const NEW_ELEMENT: u16 = SUBSYS | 12;
const DEL_ELEMENT: u16 = SUBSYS | 14;

/// More elements in one message would overflow the 16-bit length of the attribute that holds them.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// NFT_SET_ELEM_INTERVAL_END
const INTERVAL_END: u32 = 1;

/// Most bytes of a comment.
const COMMENT: usize = 127;

/// Hook of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    /// "nat" or "filter".
    pub(crate) kind: &'static str,
    /// NF_INET_PRE_ROUTING 0, LOCAL_IN 1, FORWARD 2, LOCAL_OUT 3, POST_ROUTING 4.
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// The value of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    Data(Box<[u8]>),
    Verdict(Verdict),
}

impl Value {
    /// The data that a map has.
    pub(crate) fn data(&self) -> Option<&[u8]> {
        if let Self::Data(bytes) = self { Some(bytes) } else { None }
    }
}

/// A rule of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) exprs: Vec<Expr>,
    pub(crate) comment: Option<String>,
}

impl Rule {
    pub(crate) fn new(exprs: Vec<Expr>) -> Self {
        Self { exprs, comment: None }
    }

    /// The same rule with a comment, of which the kernel keeps the first 127 bytes.
    pub(crate) fn commented(self, text: &str) -> Self {
        Self { comment: Some(text[..text.floor_char_boundary(COMMENT)].to_owned()), ..self }
    }
}

/// A chain with all its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Rule>,
}

impl Chain {
    /// A chain that others jump to.
    pub(crate) fn regular(name: impl Into<String>, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), hook: None, rules }
    }

    /// A chain that packets begin with.
    pub(crate) fn base(name: &str, hook: Hook, rules: Vec<Rule>) -> Self {
        Self { name: name.to_owned(), hook: Some(hook), rules }
    }

    /// What its rules are made of.
    pub(crate) fn exprs(&self) -> impl Iterator<Item = &Expr> {
        self.rules.iter().flat_map(|rule| &rule.exprs)
    }
}

/// A key and its value.
pub(crate) type Pair = (Box<[u8]>, Value);

/// One change of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    NewTable {
        comment: Option<String>,
    },
    DelTable,
    NewChain {
        name: String,
        hook: Option<Hook>,
    },
    FlushChain {
        name: String,
    },
    DelChain {
        name: String,
    },
    NewRule {
        chain: String,
        rule: Rule,
    },
    NewSet(SetId),
    DelSet(SetId),
    Add {
        set: SetId,
        elements: Vec<Pair>,
    },
    /// As `Add`, to a set that may have some of them: those stay. One that a map has with another value keeps the others out, and has to be removed first.
    Lend {
        set: SetId,
        elements: Vec<Pair>,
    },
    Remove {
        set: SetId,
        keys: Vec<Box<[u8]>>,
    },
}

/// Encodes `ops` for the table `table` in each family. The messages of the n-th operation have sequence number n; the
/// one with sequence number `last` is acknowledged.
pub(crate) fn encode(table: &str, ops: &[(Family, Vec<Op>)], last: u32) -> Buffer {
    let mut encoder = Encoder { table, buffer: Buffer::default(), set_id: 0, seq: 0 };
    let begin = [0, 0, 0, 10]; // AF_UNSPEC, version 0, NFNL_SUBSYS_NFTABLES in network order
    encoder.buffer.message(BATCH_BEGIN, 0, 0, &begin, |_| ());
    for (family, ops) in ops {
        for op in ops {
            encoder.op(*family, op);
            encoder.seq += 1;
        }
    }
    // An acknowledged no-op: creating a table that exists. Kernels before 6.10 do not acknowledge the end of a batch.
    if let Some((family, _)) = ops.iter().rev().find(|(_, ops)| !matches!(ops.as_slice(), [] | [.., Op::DelTable])) {
        encoder.buffer.message(NEW_TABLE, CREATE | ACK, last, &fixed(*family), |b| b.string(1, table));
    } else if let Some((family, _)) = ops.first() {
        // Only deletions: acknowledge the re-deletion of a table made for it.
        encoder.buffer.message(NEW_TABLE, CREATE, 0, &fixed(*family), |b| b.string(1, table));
        encoder.buffer.message(DEL_TABLE, ACK, last, &fixed(*family), |b| b.string(1, table));
    }
    encoder.buffer.message(BATCH_END, 0, 0, &begin, |_| ());
    encoder.buffer
}

fn fixed(family: Family) -> [u8; 4] {
    [family.protocol(), 0, 0, 0]
}

struct Encoder<'a> {
    table: &'a str,
    buffer: Buffer,
    set_id: u32,
    seq: u32,
}

impl Encoder<'_> {
    fn message(&mut self, kind: u16, flags: u16, family: Family, body: impl FnOnce(&mut Buffer)) {
        let table = self.table;
        self.buffer.message(kind, flags, self.seq, &fixed(family), |b| {
            b.string(1, table);
            body(b);
        });
    }

    fn op(&mut self, family: Family, op: &Op) {
        match op {
            Op::NewTable { comment } => self.message(NEW_TABLE, CREATE, family, |b| {
                if let Some(text) = comment {
                    b.attr(6, &encode_comment(text));
                }
            }),
            Op::DelTable => self.message(DEL_TABLE, 0, family, |_| ()),
            Op::NewChain { name, hook } => self.message(NEW_CHAIN, CREATE, family, |b| encode_chain(b, name, *hook)),
            Op::FlushChain { name } => self.message(DEL_RULE, 0, family, |b| b.string(2, name)),
            Op::DelChain { name } => self.message(DEL_CHAIN, 0, family, |b| b.string(3, name)),
            Op::NewRule { chain, rule } => self.message(NEW_RULE, CREATE | APPEND, family, |b| {
                b.string(2, chain);
                b.nested(4, |b| rule.exprs.iter().for_each(|expr| expr.encode(family, b)));
                if let Some(text) = &rule.comment {
                    b.attr(7, &encode_comment(text));
                }
            }),
            Op::NewSet(set) => {
                self.set_id += 1;
                let id = self.set_id;
                self.message(NEW_SET, CREATE, family, |b| encode_set(b, family, *set, id));
            }
            Op::DelSet(set) => self.message(DEL_SET, 0, family, |b| b.string(2, &set.name())),
            Op::Add { set, elements } => {
                for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
                    self.message(NEW_ELEMENT, CREATE | EXCL, family, |b| encode_elements(b, *set, chunk.iter()));
                }
            }
            Op::Lend { set, elements } => {
                for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
                    self.message(NEW_ELEMENT, CREATE, family, |b| encode_elements(b, *set, chunk.iter()));
                }
            }
            Op::Remove { set, keys } => {
                for chunk in keys.chunks(ELEMENTS_PER_MESSAGE) {
                    let pairs: Vec<Pair> = chunk.iter().map(|key| (key.clone(), Value::None)).collect();
                    self.message(DEL_ELEMENT, 0, family, |b| encode_elements(b, *set, pairs.iter()));
                }
            }
        }
    }
}

/// A comment as the nft program stores it: type 0, length, at most 128 bytes of text with its zero.
fn encode_comment(text: &str) -> Vec<u8> {
    [&[0, text.len() as u8 + 1], text.as_bytes(), &[0]].concat()
}

fn encode_chain(b: &mut Buffer, name: &str, hook: Option<Hook>) {
    b.string(3, name);
    if let Some(hook) = hook {
        b.nested(4, |b| {
            b.be32(1, hook.number);
            b.be32(2, hook.priority.cast_unsigned());
        });
        b.be32(5, 1); // policy accept
        b.string(7, hook.kind);
    }
}

fn encode_set(b: &mut Buffer, family: Family, set: SetId, id: u32) {
    const MAP: u32 = 0x8;
    const TIMEOUT: u32 = 0x10;
    const EVAL: u32 = 0x20;
    const INTERVAL: u32 = 0x4;
    const CONCATENATED: u32 = 0x80;
    let kind = set.kind;
    let mut flags = 0;
    if kind.values != Values::Nothing {
        flags |= MAP;
    }
    if kind.dynamic.is_some() {
        flags |= TIMEOUT | EVAL;
    }
    if kind.ranges {
        flags |= if set.has_range_elements() { INTERVAL | CONCATENATED } else { INTERVAL };
    }
    let (key_type, key_len) = concatenated(family, kind.key);
    b.string(2, &set.name());
    b.be32(3, flags);
    b.be32(4, key_type);
    b.be32(5, key_len);
    match kind.values {
        Values::Nothing => (),
        Values::Verdicts => b.be32(6, 0xffff_ff00),
        Values::Data(fields) => {
            let (data_type, data_len) = concatenated(family, fields);
            b.be32(6, data_type);
            b.be32(7, data_len);
        }
    }
    if let Some(size) = kind.dynamic {
        b.nested(9, |b| b.be32(1, size));
    } else if set.has_range_elements() {
        let field = |b: &mut Buffer, field: &Field| b.nested(1, |b| b.be32(1, field.len(family)));
        b.nested(9, |b| b.nested(2, |b| kind.key.iter().for_each(|one| field(b, one))));
    }
    b.be32(10, id);
}

/// Type (six bits per field, as the nft program does) and length of a concatenation.
fn concatenated(family: Family, fields: &[Field]) -> (u32, u32) {
    let kind = fields.iter().fold(0, |kind, field| kind << 6 | field.kind(family));
    match fields {
        [one] => (kind, one.len(family)),
        many => (kind, many.iter().map(|field| field.len(family).next_multiple_of(4)).sum()),
    }
}

/// The key after this one.
fn successor(key: &[u8]) -> Option<Vec<u8>> {
    let at = key.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = key.to_vec();
    next[at] += 1;
    next[at + 1..].fill(0);
    Some(next)
}

fn encode_elements<'a>(b: &mut Buffer, set: SetId, elements: impl Iterator<Item = &'a Pair>) {
    b.string(2, &set.name());
    b.nested(3, |b| {
        for (key, value) in elements {
            let (first, last) = key.split_at(if set.kind.ranges { key.len() / 2 } else { key.len() });
            b.nested(1, |b| {
                data(b, 1, first);
                if set.has_range_elements() {
                    data(b, 10, last);
                }
                match value {
                    Value::None => (),
                    Value::Data(bytes) => data(b, 2, bytes),
                    Value::Verdict(verdict) => b.nested(2, |b| encode_verdict(b, verdict)),
                }
            });
            // Of a range that nothing follows the end is not told.
            if let Some(next) = successor(last).filter(|_| set.kind.ranges && !set.has_range_elements()) {
                b.nested(1, |b| {
                    data(b, 1, &next);
                    b.be32(3, INTERVAL_END);
                });
            }
        }
    });
}
