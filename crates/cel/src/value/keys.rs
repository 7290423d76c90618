//! Values as keys of tables, so that lists and maps are looked through once, and what comparing the rest costs.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use crate::budget::Budget;
use crate::error::Error;
use crate::value::{Shape, Value};

/// A value that equals another one exactly when their keys are the same. What has no key is compared one by one.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key<'v> {
    Null,
    Bool(bool),
    Number(i128),
    Text(&'v str),
    Bytes(&'v [u8]),
    Duration(SignedDuration),
    Time(Timestamp),
}

/// Whole numbers below this are what they are as doubles, too.
const EXACT: f64 = 9_007_199_254_740_992.0;

pub(crate) fn key<'v>(value: &'v Value<'_>) -> Option<Key<'v>> {
    Some(match value {
        Value::Null => Key::Null,
        Value::Bool(value) => Key::Bool(*value),
        Value::Int(value) => Key::Number((*value).into()),
        Value::Uint(value) => Key::Number((*value).into()),
        Value::Double(value) if value.fract() == 0.0 && value.abs() < EXACT => Key::Number(*value as i128),
        Value::Text(text) => Key::Text(text),
        Value::Bytes(bytes) => Key::Bytes(bytes),
        Value::Duration(value) => Key::Duration(*value),
        Value::Time(value) => Key::Time(*value),
        _ => return None,
    })
}

/// The keys of all values, if each has one that says all. A double among others may equal several whole numbers, which are not equal.
pub(crate) fn keys<'v>(values: &'v [Value<'_>]) -> Option<Vec<Key<'v>>> {
    let is_exact = |key: &Key<'_>| !matches!(key, Key::Number(number) if number.unsigned_abs() >= EXACT as u128);
    let has_doubles = values.iter().any(|value| matches!(value, Value::Double(_)));
    let keys: Vec<Key<'v>> = values.iter().map(key).collect::<Option<_>>()?;
    (!has_doubles || keys.iter().all(is_exact)).then_some(keys)
}

/// Comparisons of two single values that one unit of a budget pays for.
const VISITS: u64 = 8;
/// Bytes that are compared as fast as a single value.
const BYTES: usize = 64;

/// How much may be compared, and has been.
pub(crate) struct Work {
    /// Units of a budget.
    most: u64,
    /// Comparisons.
    done: u64,
}

impl Work {
    /// As much as so many units of a budget pay for.
    fn of(units: u64) -> Self {
        Self { most: units, done: 0 }
    }

    /// As much as it takes.
    pub(crate) fn any() -> Self {
        Self::of(u64::MAX)
    }

    /// Two values are compared, of which so many bytes have to be looked at. Says whether that is too much.
    pub(crate) fn add(&mut self, bytes: usize) -> bool {
        self.done = self.done.saturating_add(1 + (bytes / BYTES) as u64);
        self.is_over()
    }

    /// Whether it was too much: what has been found then means nothing.
    fn is_over(&self) -> bool {
        self.done / VISITS > self.most
    }

    /// What it costs beyond the `charged` cost.
    fn beyond(&self, charged: u64) -> u64 {
        (self.done / VISITS).saturating_sub(charged)
    }
}

/// What a comparison finds, for which `charged` has been spent already: that pays for its first part, the rest of the budget for what goes
/// beyond it. A comparison that runs out of work has found nothing, whatever it answers.
pub(crate) fn paid<T>(
    budget: &mut Budget,
    charged: u64,
    compare: impl FnOnce(&mut Work) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut work = Work::of(budget.left().saturating_add(charged));
    let found = compare(&mut work);
    if work.is_over() {
        return Err(Error::Budget);
    }
    budget.spend(work.beyond(charged))?;
    found
}

/// Whether all of a part are in a set.
pub(crate) fn has_all(set: &[Value<'_>], part: &[Value<'_>], work: &mut Work) -> bool {
    match (keys(set), keys(part)) {
        (Some(set), Some(part)) if pays(&set, &part, work) => {
            let set: HashSet<Key<'_>> = set.into_iter().collect();
            part.iter().all(|key| set.contains(key))
        }
        _ => part.iter().all(|item| set.iter().any(|known| known.equals_within(item, work))),
    }
}

/// Whether any of a part is in a set.
pub(crate) fn has_any(set: &[Value<'_>], part: &[Value<'_>], work: &mut Work) -> bool {
    match (keys(set), keys(part)) {
        (Some(set), Some(part)) if pays(&set, &part, work) => {
            let set: HashSet<Key<'_>> = set.into_iter().collect();
            part.iter().any(|key| set.contains(key))
        }
        _ => part.iter().any(|item| set.iter().any(|known| known.equals_within(item, work))),
    }
}

/// Whether keys of both lists say all that there is to compare. A double of the one may equal several numbers of the other.
fn pays(set: &[Key<'_>], part: &[Key<'_>], work: &mut Work) -> bool {
    work.add((set.len() + part.len()) * BYTES / VISITS as usize);
    let is_exact = |key: &Key<'_>| !matches!(key, Key::Number(number) if number.unsigned_abs() >= EXACT as u128);
    set.iter().chain(part).all(is_exact)
}

/// Those that equal none before them.
pub(crate) fn distinct<'a>(values: Vec<Value<'a>>, work: &mut Work) -> Vec<Value<'a>> {
    let first: Option<Vec<bool>> = keys(&values).map(|keys| {
        let mut seen = HashSet::new();
        keys.into_iter().map(|key| seen.insert(key)).collect()
    });
    if let Some(first) = first {
        work.add(values.len() * BYTES / VISITS as usize);
        return values.into_iter().zip(first).filter_map(|(value, first)| first.then_some(value)).collect();
    }
    let mut out: Vec<Value<'a>> = Vec::new();
    for value in values {
        if !out.iter().any(|known| known.equals_within(&value, work)) {
            out.push(value);
        }
    }
    out
}

/// What tells the elements of a list apart: themselves in a set, the values of their keys in a list by keys.
type Identity<'a> = Vec<Option<Value<'a>>>;

fn identity<'a>(value: &Value<'a>, shape: &dyn Shape) -> Identity<'a> {
    match value {
        Value::Map(map) if !shape.keys().is_empty() => shape.keys().iter().map(|key| map.select(key)).collect(),
        value => vec![Some(value.clone())],
    }
}

/// Where the elements of a set, or of a list by keys, stand.
pub(crate) struct Places<'v> {
    by_key: HashMap<Vec<Option<Key<'v>>>, usize>,
}

/// The identities of elements.
pub(crate) fn identities<'a>(values: &[Value<'a>], shape: &dyn Shape) -> Vec<Identity<'a>> {
    values.iter().map(|value| identity(value, shape)).collect()
}

impl<'v> Places<'v> {
    /// Of elements with these identities; none where one has no key.
    pub(crate) fn new(identities: &'v [Identity<'_>]) -> Option<Self> {
        let mut by_key = HashMap::with_capacity(identities.len());
        for (at, identity) in identities.iter().enumerate() {
            by_key.entry(exact(identity)?).or_insert(at);
        }
        Some(Self { by_key })
    }

    /// Where the element with an identity is, if there is one; the outer none where that has no key.
    pub(crate) fn find(&self, identity: &Identity<'_>) -> Option<Option<usize>> {
        let key = exact(identity)?;
        Some(self.by_key.get(&key).copied())
    }

    /// Adds an element unless it is there; where it stands then. None where it has no key.
    pub(crate) fn add(&mut self, identity: &'v Identity<'_>, at: usize) -> Option<usize> {
        Some(*self.by_key.entry(exact(identity)?).or_insert(at))
    }
}

/// The key of an identity. Doubles have none here, since they may equal several whole numbers.
fn exact<'v>(identity: &'v Identity<'_>) -> Option<Vec<Option<Key<'v>>>> {
    let exact = |part: &'v Option<Value<'_>>| match part {
        None => Some(None),
        Some(Value::Double(_)) => None,
        Some(value) => key(value).map(Some),
    };
    identity.iter().map(exact).collect()
}
