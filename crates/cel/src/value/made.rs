//! What expressions make: texts that are copied at no cost, and maps in which keys are found without looking at all of them.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use crate::value::Value;
use crate::value::keys::{key, keys};

/// A text, as it stands in an object or as an expression made it.
#[derive(Clone)]
pub enum Text<'a> {
    /// Of an object.
    Of(&'a str),
    /// Made.
    Made(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Of(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text<'_> {}

impl std::hash::Hash for Text<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self::Of(text)
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::Made(text.into())
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// How deep the deepest of these values is.
fn deepest<'v, 'a: 'v>(values: impl Iterator<Item = &'v Value<'a>>) -> u32 {
    values.map(Value::depth).max().unwrap_or(0)
}

/// The elements of a list that an expression made.
#[derive(Debug)]
pub struct Items<'a> {
    all: Box<[Value<'a>]>,
    depth: u32,
}

impl<'a> Items<'a> {
    pub(crate) fn new(all: Vec<Value<'a>>) -> Arc<Self> {
        let depth = 1 + deepest(all.iter());
        Arc::new(Self { all: all.into(), depth })
    }

    pub(crate) fn depth(&self) -> u32 {
        self.depth
    }
}

impl<'a> Deref for Items<'a> {
    type Target = [Value<'a>];

    fn deref(&self) -> &[Value<'a>] {
        &self.all
    }
}

/// Maps of so many entries are looked through.
const FEW: usize = 8;

/// The entries of a map that an expression made, in the order in which they came.
#[derive(Debug)]
pub struct Made<'a> {
    all: Box<[(Value<'a>, Value<'a>)]>,
    /// Where the entries are in the order of their keys; none where some have no order.
    sorted: OnceLock<Option<Box<[u32]>>>,
    depth: u32,
}

impl<'a> Made<'a> {
    pub(crate) fn new(entries: Vec<(Value<'a>, Value<'a>)>) -> Arc<Self> {
        let depth = 1 + deepest(entries.iter().flat_map(|(key, value)| [key, value]));
        Arc::new(Self { all: entries.into(), sorted: OnceLock::new(), depth })
    }

    pub(crate) fn depth(&self) -> u32 {
        self.depth
    }

    pub(crate) fn all(&self) -> &[(Value<'a>, Value<'a>)] {
        &self.all
    }

    /// The value of a key.
    pub(crate) fn get(&self, wanted: &Value<'_>) -> Option<&Value<'a>> {
        let (Some(sorted), Some(wanted)) = (self.sorted(), key(wanted)) else {
            return self.all.iter().find(|(known, _)| known.is_key(wanted)).map(|(_, value)| value);
        };
        let of = |at: &u32| &self.all[*at as usize];
        let found = sorted.binary_search_by(|at| key(&of(at).0).as_ref().cmp(&Some(&wanted))).ok()?;
        Some(&of(&sorted[found]).1)
    }

    /// How many keys have to be looked at to find one.
    pub(crate) fn compared(&self, wanted: &Value<'_>) -> usize {
        if self.sorted().is_some() && key(wanted).is_some() { 0 } else { self.all.len() }
    }

    fn sorted(&self) -> Option<&[u32]> {
        if self.all.len() <= FEW {
            return None;
        }
        let sort = || {
            let known: Vec<Value<'a>> = self.all.iter().map(|(key, _)| key.clone()).collect();
            let keys = keys(&known)?;
            let mut order: Vec<u32> = (0..u32::try_from(keys.len()).ok()?).collect();
            order.sort_by(|a, b| keys[*a as usize].cmp(&keys[*b as usize]));
            Some(order.into())
        };
        self.sorted.get_or_init(sort).as_deref()
    }
}
