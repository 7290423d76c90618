//! How strategic merge patch merges lists. Every step takes time that is linear in both lists (sorting apart): elements are found by
//! what identifies them, in a hash table.

use super::strategic::{Cursor, DIRECTIVE, StrategicError, merge_map};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// Merges a list with the strategy `merge`.
pub(super) fn merge(
    cursor: Cursor<'_>,
    original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: Option<&str>,
) -> Result<Vec<Value>, StrategicError> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if !are_objects(&original, &patch)? {
        let mut seen = HashSet::with_capacity(original.len() + patch.len());
        let merged = original.iter().chain(&patch).filter(|item| seen.insert(*item)).cloned().collect();
        return order(merged, &patch, &original, None);
    }
    let key = merge_key.ok_or_else(|| StrategicError::NoMergeKeyDeclared(cursor.name()))?;
    let (original, patch) = apply_directives(original, patch, key)?;
    let merged = merge_objects(cursor, &original, &patch, key)?;
    order(merged, &patch, &original, Some(key))
}

/// The elements of the original, each merged with those of the patch that have its key, and then the others of the patch.
fn merge_objects(cursor: Cursor<'_>, original: &[Value], patch: &[Value], key: &str) -> Result<Vec<Value>, StrategicError> {
    let mut merged = original.to_vec();
    let mut at = Positions::of(original, Some(key)).0;
    for item in patch {
        let position = *at.entry(key_of(item, key)?).or_insert(merged.len());
        match merged.get_mut(position) {
            Some(Value::Object(found)) => *found = merge_map(cursor, std::mem::take(found), object(item)?.clone())?,
            _ => merged.push(item.clone()),
        }
    }
    Ok(merged)
}

/// Whether the elements are objects; an error when they are not all alike.
fn are_objects(original: &[Value], patch: &[Value]) -> Result<bool, StrategicError> {
    let mut all = original.iter().chain(patch);
    let Some(first) = all.next() else { return Ok(false) };
    if first.is_array() {
        return Err(StrategicError::ListOfLists);
    }
    if all.any(|item| std::mem::discriminant(item) != std::mem::discriminant(first)) {
        return Err(StrategicError::MixedList(Value::from(vec![original.to_vec(), patch.to_vec()])));
    }
    Ok(first.is_object())
}

/// Handles elements with `$patch`: what remains of both lists.
fn apply_directives(mut original: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), StrategicError> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut deleted = HashSet::new();
    let mut replace = false;
    for item in patch {
        match item.get(DIRECTIVE) {
            None => plain.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => drop(deleted.insert(key_of(&item, key)?.clone())),
                Some("replace") => replace = true,
                Some("merge") => return Err(StrategicError::MergeInList),
                _ => {
                    return Err(StrategicError::UnknownDirective { directive: directive.clone(), map: item.clone() });
                }
            },
        }
    }
    // As upstream, the list is then replaced by nothing but the other elements.
    if replace {
        return Ok((plain, Vec::new()));
    }
    if !deleted.is_empty() {
        original.retain(|item| item.get(key).is_none_or(|value| !deleted.contains(value)));
    }
    Ok((original, plain))
}

fn object(item: &Value) -> Result<&Map<String, Value>, StrategicError> {
    let wrong = StrategicError::WrongType { expected: "map[string]interface {}", received: super::kind_of(item) };
    item.as_object().ok_or(wrong)
}

fn key_of<'v>(item: &'v Value, key: &str) -> Result<&'v Value, StrategicError> {
    let missing = || StrategicError::NoMergeKey { map: item.clone(), key: key.to_owned() };
    object(item)?.get(key).ok_or_else(missing)
}

/// What identifies an element: its merge key, or the element itself.
fn identity<'v>(item: &'v Value, key: Option<&str>) -> Option<&'v Value> {
    match key {
        Some(key) => item.get(key),
        None => Some(item),
    }
}

/// Where elements first stand in a list.
struct Positions<'v>(HashMap<&'v Value, usize>);

impl<'v> Positions<'v> {
    fn of(list: &'v [Value], key: Option<&str>) -> Self {
        let mut all = HashMap::with_capacity(list.len());
        for (position, item) in list.iter().enumerate() {
            if let Some(identity) = identity(item, key) {
                all.entry(identity).or_insert(position);
            }
        }
        Self(all)
    }

    fn find(&self, item: &Value, key: Option<&str>) -> Option<usize> {
        self.0.get(identity(item, key)?).copied()
    }
}

/// Brings elements into the order of the patch, those that only the server has in the order of the server, and merges both orders
/// so that the patch's wins.
pub(super) fn order(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, StrategicError> {
    if let Some(key) = key {
        merged.iter().chain(patch_order).chain(server_order).try_for_each(|item| key_of(item, key).map(drop))?;
    }
    let (in_patch, in_server) = (Positions::of(patch_order, key), Positions::of(server_order, key));
    let (mut patched, mut server) = (Vec::new(), Vec::new());
    for item in merged {
        let on_server = in_server.find(&item, key);
        match in_patch.find(&item, key) {
            Some(at) => patched.push((at, on_server, item)),
            None => server.push((on_server, item)),
        }
    }
    patched.sort_by_key(|(at, ..)| *at);
    server.sort_by_key(|(on_server, _)| *on_server);
    let mut out = Vec::with_capacity(patched.len() + server.len());
    let (mut patched, mut server) = (patched.into_iter().peekable(), server.into_iter().peekable());
    while let (Some((left, _)), Some((_, right, _))) = (server.peek(), patched.peek()) {
        let server_first = matches!((left, right), (Some(l), Some(r)) if l < r);
        out.extend(if server_first { server.next().map(|(_, item)| item) } else { patched.next().map(|(.., item)| item) });
    }
    out.extend(patched.map(|(.., item)| item));
    out.extend(server.map(|(_, item)| item));
    Ok(out)
}

/// The order of the server that upstream goes by where a patch also deletes: it deletes in the list's own memory, where what the patch
/// adds then takes the places that became free.
pub(super) fn server_order(mut old: Vec<Value>, patch: &[Value], key: Option<&str>) -> Vec<Value> {
    let Some(key) = key else { return old };
    let deletions = patch.iter().filter(|item| is_deletion(item));
    let deleted: HashSet<&Value> = deletions.filter_map(|item| item.get(key)).collect();
    let places = old.len();
    old.retain(|item| item.get(key).is_none_or(|value| !deleted.contains(value)));
    let mut known: HashSet<Value> = old.iter().filter_map(|item| item.get(key).cloned()).collect();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        if old.len() < places && item.get(key).is_some_and(|value| known.insert(value.clone())) {
            old.push(item.clone());
        }
    }
    old
}

fn is_deletion(item: &Value) -> bool {
    item.get(DIRECTIVE).is_some_and(|directive| directive == "delete")
}

/// The elements of a patch must be in the order that `$setElementOrder` gives, and be named there.
pub(super) fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), StrategicError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut remaining = order.iter();
    for item in patch.iter().filter(|item| !is_deletion(item)) {
        if let Some(key) = key.filter(|_| item.get(DIRECTIVE).is_none()) {
            key_of(item, key)?;
        }
        let wanted = identity(item, key);
        if !remaining.any(|other| identity(other, key) == wanted) {
            return Err(StrategicError::OrderMismatch { patch: patch.to_vec().into(), order: order.to_vec().into() });
        }
    }
    Ok(())
}
