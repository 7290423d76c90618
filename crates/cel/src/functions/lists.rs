//! Lists and sets.

use std::cmp::Ordering;

use super::{Function, Style, comparing, global, int, list, method, other};
use crate::error::Error;
use crate::value::keys::{self, Work};
use crate::value::{List, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    method("isSorted", 1, |a| {
        let items = list(&a[0])?;
        let mut sorted = true;
        for pair in items.windows(2) {
            sorted &= compare(&pair[0], &pair[1])? != Ordering::Greater;
        }
        Ok(Value::Bool(sorted))
    }),
    method("sum", 1, sum),
    method("min", 1, |a| extreme(a, Ordering::Less)),
    method("max", 1, |a| extreme(a, Ordering::Greater)),
    method("sort", 1, |a| {
        let mut items = list(&a[0])?;
        check_order(&items)?;
        items.sort_by(|a, b| a.order(b).unwrap_or(Ordering::Equal));
        Ok(Value::list(items))
    }),
    method("@sortByAssociatedKeys", 2, |a| {
        let (items, keys) = (list(&a[0])?, list(&a[1])?);
        check_order(&keys)?;
        let mut both: Vec<_> = keys.into_iter().zip(items).collect();
        both.sort_by(|a, b| a.0.order(&b.0).unwrap_or(Ordering::Equal));
        Ok(Value::list(both.into_iter().map(|(_, item)| item).collect()))
    }),
    comparing("distinct", Style::Method, 1, 1, |a, work| Ok(Value::list(keys::distinct(list(&a[0])?, work)))),
    method("slice", 3, |a| {
        let items = list(&a[0])?;
        let (start, end) = (int(&a[1])?, int(&a[2])?);
        let refuse = |why: &str| other(format!("cannot slice({start}, {end}), {why}"));
        match (usize::try_from(start), usize::try_from(end)) {
            (Ok(first), Ok(last)) if first > last => refuse("start index must be less than or equal to end index"),
            (Ok(first), Ok(last)) => match items.get(first..last) {
                Some(part) => Ok(Value::list(part.to_vec())),
                None => refuse(&format!("list is length {}", items.len())),
            },
            _ => refuse("negative indexes not supported"),
        }
    }),
    comparing("flatten", Style::Method, 1, 2, |a, work| {
        let depth = a.get(1).map_or(Ok(1), int)?;
        if depth < 0 {
            return other("level must be non-negative");
        }
        let mut out = Vec::new();
        flatten(list(&a[0])?, depth.clamp(0, 100), &mut out, work);
        Ok(Value::list(out))
    }),
    method("first", 1, |a| at(&a[0], |_| Some(0))),
    method("last", 1, |a| at(&a[0], |list| list.len().checked_sub(1))),
    global("lists.range", 1, |a| match int(&a[0])? {
        count @ 0..=100_000 => Ok(Value::list((0..count).map(Value::Int).collect())),
        count if count < 0 => other(format!("lists.range: size must be non-negative, got {count}")),
        count if count > 1_000_000 => other(format!("lists.range: size {count} exceeds maximum allowed (1000000)")),
        _ => Err(Error::Budget),
    }),
    comparing("sets.contains", Style::Global, 2, 2, |a, work| Ok(Value::Bool(keys::has_all(&list(&a[0])?, &list(&a[1])?, work)))),
    comparing("sets.equivalent", Style::Global, 2, 2, |a, work| {
        let (one, two) = (list(&a[0])?, list(&a[1])?);
        Ok(Value::Bool(keys::has_all(&one, &two, work) && keys::has_all(&two, &one, work)))
    }),
    comparing("sets.intersects", Style::Global, 2, 2, |a, work| {
        Ok(Value::Bool(keys::has_any(&list(&a[0])?, &list(&a[1])?, work)))
    }),
];

/// The element at a place, if there is one.
fn at<'a>(list: &Value<'a>, place: impl Fn(&List<'a>) -> Option<usize>) -> Result<Value<'a>, Error> {
    match list {
        Value::List(list) => Ok(super::optional(place(list).and_then(|at| list.get(at)))),
        _ => Err(Error::NoOverload),
    }
}

/// Refuses what has no total order, without which sorting panics: numbers of several types are compared as floating-point ones, of which two may
/// be equal to a third and not to each other (cel-go, `sortListByAssociatedKeys`).
fn check_order(items: &[Value<'_>]) -> Result<(), Error> {
    for pair in items.windows(2) {
        if pair[0].kind() != pair[1].kind() {
            return Err(Error::Other("list elements must have the same type".to_owned()));
        }
        compare(&pair[0], &pair[1])?;
    }
    Ok(())
}

fn compare(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, Error> {
    a.order(b).ok_or(Error::NoOverload)
}

fn sum<'a>(a: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let mut items = list(&a[0])?.into_iter();
    let Some(mut total) = items.next() else { return Ok(Value::Int(0)) };
    for item in items {
        total = match (&total, &item) {
            (Value::Int(a), Value::Int(b)) => a.checked_add(*b).map(Value::Int).ok_or(Error::Overflow("integer"))?,
            (Value::Uint(a), Value::Uint(b)) => a.checked_add(*b).map(Value::Uint).ok_or(Error::Overflow("unsigned integer"))?,
            (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
            (Value::Duration(a), Value::Duration(b)) => {
                a.checked_add(*b).map(Value::Duration).ok_or(Error::Overflow("duration"))?
            }
            _ => return Err(Error::NoOverload),
        };
    }
    Ok(total)
}

fn extreme<'a>(a: &[Value<'a>], wanted: Ordering) -> Result<Value<'a>, Error> {
    let mut items = list(&a[0])?.into_iter();
    let Some(mut best) = items.next() else {
        return other(format!("{} called on empty list", if wanted == Ordering::Less { "min" } else { "max" }));
    };
    for item in items {
        if compare(&item, &best)? == wanted {
            best = item;
        }
    }
    Ok(best)
}

/// What moving an element counts for: as much as comparing a text of so many bytes, a unit of the budget.
const MOVED: usize = 448;

/// A list that is in it many times is gone through each time, until that is too much work: then the answer means nothing.
fn flatten<'a>(items: Vec<Value<'a>>, depth: i64, out: &mut Vec<Value<'a>>, work: &mut Work) {
    for item in items {
        if work.add(MOVED) {
            return;
        }
        match item {
            Value::List(inner) if depth > 0 => flatten(inner.iter().collect(), depth - 1, out, work),
            item => out.push(item),
        }
    }
}
