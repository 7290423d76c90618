//! Kinds of sets and maps, and their names in a table.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use super::Family;

/// A field of a key or value, padded to four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// An address of the table's family.
    Address,
    /// An address in a table of frames.
    V4,
    /// An address in a table of frames.
    V6,
    /// Number of a transport protocol.
    Protocol,
    /// Port of a transport protocol.
    Port,
    /// The nft program has no plain 32-bit type for maps; it prints marks as hexadecimal numbers.
    Word,
    /// Hardware address.
    Hardware,
    /// Name of a link.
    Link,
}

impl Field {
    /// The type number of the nft program, so that it can list the table.
    pub(crate) fn kind(self, family: Family) -> u32 {
        match self {
            Self::Address if family == Family::V6 => 8,
            Self::Address | Self::V4 => 7,
            Self::V6 => 8,
            Self::Hardware => 9,
            Self::Link => 41,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Word => 19,
        }
    }

    /// Bytes.
    pub(crate) fn len(self, family: Family) -> u32 {
        match self {
            Self::Address => family.address_len(),
            Self::V4 | Self::Word => 4,
            Self::V6 | Self::Link => 16,
            Self::Hardware => 6,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }
}

/// What a set maps its keys to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// A plain set.
    Nothing,
    /// A verdict map.
    Verdicts,
    /// A map.
    Data(&'static [Field]),
}

/// What all sets of one kind have in common. Every kind is a static of the feature that uses it.
#[derive(Debug)]
pub(crate) struct SetKind {
    /// Name in the kernel, with a number behind it where there are several.
    pub(crate) name: &'static str,
    pub(crate) key: &'static [Field],
    pub(crate) values: Values,
    /// Elements are ranges: their keys hold the first and then the last.
    pub(crate) ranges: bool,
    /// Elements are added by rules and expire; the most elements.
    pub(crate) dynamic: Option<u32>,
}

impl SetKind {
    /// A plain set.
    pub(crate) const fn set(name: &'static str, key: &'static [Field]) -> Self {
        Self { name, key, values: Values::Nothing, ranges: false, dynamic: None }
    }

    /// A map to `values`.
    pub(crate) const fn map(name: &'static str, key: &'static [Field], values: &'static [Field]) -> Self {
        Self { name, key, values: Values::Data(values), ranges: false, dynamic: None }
    }

    /// A map to verdicts.
    pub(crate) const fn verdicts(name: &'static str, key: &'static [Field]) -> Self {
        Self { name, key, values: Values::Verdicts, ranges: false, dynamic: None }
    }

    /// A set of ranges.
    pub(crate) const fn ranges(name: &'static str, key: &'static [Field]) -> Self {
        Self { name, key, values: Values::Nothing, ranges: true, dynamic: None }
    }

    /// The only set of this kind.
    pub(crate) const fn only(&'static self) -> SetId {
        SetId { kind: self, number: 0 }
    }

    /// One of many sets of this kind.
    pub(crate) const fn numbered(&'static self, number: u32) -> SetId {
        SetId { kind: self, number }
    }
}

/// One set of a table.
#[derive(Clone, Copy)]
pub(crate) struct SetId {
    pub(crate) kind: &'static SetKind,
    /// 0 for the only one.
    number: u32,
}

impl SetId {
    /// The name in the kernel.
    pub(crate) fn name(self) -> String {
        self.to_string()
    }

    /// Whether it is one of this kind.
    pub(crate) fn is(self, kind: &'static SetKind) -> bool {
        std::ptr::eq(self.kind, kind)
    }

    /// Whether elements are ranges of which the kernel is told both ends in one element. Of a key of one field it is told where they begin and where what
    /// follows them begins.
    pub(crate) fn has_range_elements(self) -> bool {
        self.kind.ranges && self.kind.key.len() > 1
    }

    fn identity(self) -> (&'static str, u32) {
        (self.kind.name, self.number)
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.identity() {
            (name, 0) => f.write_str(name),
            (name, number) => write!(f, "{name}-{number}"),
        }
    }
}

impl fmt::Debug for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for SetId {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for SetId {}

impl PartialOrd for SetId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SetId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl Hash for SetId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}
