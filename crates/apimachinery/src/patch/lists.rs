//! How strategic merge patch merges lists.

use super::strategic::{Cursor, DIRECTIVE, StrategicError, merge_map};
use serde_json::{Map, Value};

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
        let mut merged = original.clone();
        patch.iter().for_each(|item| {
            if !merged.contains(item) {
                merged.push(item.clone())
            }
        });
        let mut seen = Vec::new();
        merged.retain(|item| {
            !seen.contains(item) && {
                seen.push(item.clone());
                true
            }
        });
        return order(merged, &patch, &original, None);
    }
    let key = merge_key.ok_or_else(|| StrategicError::NoMergeKeyDeclared(cursor.name()))?;
    let (original, patch) = apply_directives(original, patch, key)?;
    let mut merged = original.clone();
    for item in &patch {
        let value = key_of(item, key)?;
        match merged.iter_mut().find(|m| m.get(key) == Some(value)) {
            Some(Value::Object(found)) => *found = merge_map(cursor, std::mem::take(found), object(item)?.clone())?,
            _ => merged.push(item.clone()),
        }
    }
    order(merged, &patch, &original, Some(key))
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
    let mut replace = false;
    for item in patch {
        match item.get(DIRECTIVE) {
            None => plain.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let value = key_of(&item, key)?;
                    original.retain(|o| o.get(key) != Some(value));
                }
                Some("replace") => replace = true,
                Some("merge") => return Err(StrategicError::MergeInList),
                _ => {
                    return Err(StrategicError::UnknownDirective { directive: directive.clone(), map: item.clone() });
                }
            },
        }
    }
    // As upstream, the list is then replaced by nothing but the other elements.
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
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

fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    let wanted = identity(item, key)?;
    list.iter().position(|other| identity(other, key) == Some(wanted))
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
    let (mut patched, mut server): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(patch_order, item, key).is_some());
    patched.sort_by_key(|item| position(patch_order, item, key));
    server.sort_by_key(|item| position(server_order, item, key));
    let mut out = Vec::with_capacity(patched.len() + server.len());
    let (mut patched, mut server) = (patched.into_iter().peekable(), server.into_iter().peekable());
    while let (Some(left), Some(right)) = (server.peek(), patched.peek()) {
        let before = (position(server_order, left, key), position(server_order, right, key));
        let server_first = matches!(before, (Some(l), Some(r)) if l < r);
        out.extend(if server_first { server.next() } else { patched.next() });
    }
    out.extend(patched);
    out.extend(server);
    Ok(out)
}

/// The elements of a patch must be in the order that `$setElementOrder` gives, and be named there.
pub(super) fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), StrategicError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut remaining = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        if let Some(key) = key {
            key_of(item, key)?;
        }
        let wanted = identity(item, key);
        if !remaining.any(|other| identity(other, key) == wanted) {
            return Err(StrategicError::OrderMismatch { patch: patch.to_vec().into(), order: order.to_vec().into() });
        }
    }
    Ok(())
}
