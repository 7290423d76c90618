//! Strategic merge patch: a merge patch that knows how lists merge (upstream: `pkg/util/strategicpatch`).

use super::lists;
use crate::status::Status;
use crate::text::quote;
use schema::{Patch, Schema, Type, TypeDef, TypeId};
use serde_json::{Map, Value};
use std::collections::HashSet;

type Object = Map<String, Value>;

pub(super) const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";

/// Why a strategic merge patch cannot be applied. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum StrategicError {
    #[error("invalid JSON document")]
    BadDocument,
    #[error("lists of lists are not supported")]
    ListOfLists,
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("invalid patch format of setElementOrder list")]
    SetElementOrder,
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey { map: Value, key: String },
    #[error("expected a {expected}, but received a {received}")]
    WrongType { expected: &'static str, received: &'static str },
    #[error("unknown patch type: {directive} in map: {map}")]
    UnknownDirective { directive: Value, map: Value },
    #[error("merging lists cannot yet be specified in the patch")]
    MergeInList,
    #[error("list element types are not identical: {0}")]
    MixedList(Value),
    #[error("cannot merge lists without merge key for {0}")]
    NoMergeKeyDeclared(String),
    #[error("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n")]
    OrderMismatch { patch: Value, order: Value },
    #[error("unable to find api field in struct {ty} for the json field {}", quote(.field))]
    UnknownField { ty: String, field: String },
}

impl From<StrategicError> for Status {
    /// 400 for malformed directives, 422 for nested lists, else 500 without a reason, as upstream.
    fn from(error: StrategicError) -> Self {
        use StrategicError as E;
        match error {
            E::BadDocument | E::PrimitiveList | E::RetainKeys | E::SetElementOrder => Self::bad_request(error.to_string()),
            E::ListOfLists => super::unprocessable(),
            _ => Self::new(500, crate::Reason::Other("".into()), error.to_string()),
        }
    }
}

/// Applies a strategic merge patch to an object of a built-in kind. Custom resources take none: see [`super::CUSTOM_PATCHES`].
///
/// # Errors
/// 400 when the patch is not an object or a directive is malformed, 422 for lists of lists, 500 for the rest of what upstream
/// cannot merge; see [`StrategicError`].
pub fn strategic(schema: &Schema, ty: TypeId, original: &Value, patch: &Value) -> Result<Value, Status> {
    Ok(merge_object(schema, ty, original, patch)?)
}

fn merge_object(schema: &Schema, ty: TypeId, original: &Value, patch: &Value) -> Result<Value, StrategicError> {
    let (Value::Object(original), Value::Object(patch)) = (original.clone(), patch.clone()) else {
        return Err(StrategicError::BadDocument);
    };
    merge_map(Cursor { schema, ty: Some(CursorType::Struct(schema.get(ty))) }, original, patch).map(Value::Object)
}

/// The type at a place of the object.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'s> {
    schema: &'s Schema,
    /// `None` where types say nothing.
    ty: Option<CursorType<'s>>,
}

#[derive(Clone, Copy)]
enum CursorType<'s> {
    Struct(&'s TypeDef),
    Map(&'s Type),
}

impl<'s> Cursor<'s> {
    fn at(self, ty: &'s Type) -> Self {
        let ty = match ty {
            Type::Struct(id) => Some(CursorType::Struct(self.schema.get(*id))),
            Type::Map(element) => Some(CursorType::Map(element)),
            _ => None,
        };
        Self { schema: self.schema, ty }
    }

    /// Name of the type, for errors.
    pub(super) fn name(self) -> String {
        match self.ty {
            Some(CursorType::Struct(def)) => def.go.to_owned(),
            _ => "map".to_owned(),
        }
    }

    fn field(self, key: &str) -> Result<(&'s Type, Patch), StrategicError> {
        static ANY: Type = Type::Json;
        match self.ty {
            Some(CursorType::Struct(def)) => {
                let unknown = || StrategicError::UnknownField { ty: def.go.to_owned(), field: key.to_owned() };
                def.field(key).map(|f| (&f.ty, f.patch)).ok_or_else(unknown)
            }
            Some(CursorType::Map(element)) => Ok((element, Patch::default())),
            None => Ok((&ANY, Patch::default())),
        }
    }

    /// The type and merge rules of a field that holds a map.
    fn map_field(self, key: &str) -> Result<(Self, Patch), StrategicError> {
        self.field(key).map(|(ty, patch)| (self.at(ty), patch))
    }

    /// The type of the elements and the merge rules of a field that holds a list.
    fn list_field(self, key: &str) -> Result<(Self, Patch), StrategicError> {
        let (ty, patch) = self.field(key)?;
        match ty {
            Type::List(element) if matches!(**element, Type::List(_)) => Err(StrategicError::ListOfLists),
            Type::List(element) => Ok((self.at(element), patch)),
            other => Ok((self.at(other), patch)),
        }
    }
}

pub(super) fn merge_map(cursor: Cursor<'_>, mut original: Object, mut patch: Object) -> Result<Object, StrategicError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => Err(StrategicError::UnknownDirective { directive, map: Value::Object(patch) }),
        };
    }
    apply_retain_keys(&mut original, &mut patch)?;
    apply_element_orders(cursor, &mut original, &mut patch)?;
    for (key, value) in patch {
        match key.strip_prefix(DELETE_FROM_LIST) {
            Some(rest) => {
                let key = rest.strip_prefix('/').ok_or(StrategicError::PrimitiveList)?;
                delete_from_list(&mut original, key, &value)?;
            }
            None => merge_field(cursor, &mut original, key, value)?,
        }
    }
    Ok(original)
}

fn merge_field(cursor: Cursor<'_>, original: &mut Object, key: String, value: Value) -> Result<(), StrategicError> {
    if value.is_null() {
        original.remove(&key);
        return Ok(());
    }
    let merged = match (original.remove(&key), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            let (cursor, rules) = cursor.map_field(&key)?;
            Some(Value::Object(if rules.replace { new } else { merge_map(cursor, old, new)? }))
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            let (cursor, rules) = cursor.list_field(&key)?;
            Some(Value::Array(if rules.merge { lists::merge(cursor, old, new, rules.merge_key)? } else { new }))
        }
        (_, mut value) => {
            discard_nulls(&mut value);
            without_directives(value)
        }
    };
    if let Some(merged) = merged {
        original.insert(key, merged);
    }
    Ok(())
}

fn delete_from_list(original: &mut Object, key: &str, values: &Value) -> Result<(), StrategicError> {
    let Some(values) = values.as_array() else { return Err(StrategicError::PrimitiveList) };
    if let Some(Value::Array(list)) = original.get_mut(key) {
        let deleted: HashSet<&Value> = values.iter().collect();
        list.retain(|item| !deleted.contains(item));
    }
    Ok(())
}

/// `$retainKeys`: clears fields that the list does not name; the patch may set no others.
fn apply_retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), StrategicError> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let retained = retained.as_array().ok_or(StrategicError::RetainKeys)?;
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let is_retained = |key: &str| retained.contains(key);
    let is_directive = |key: &str| key.starts_with(DELETE_FROM_LIST) || key.starts_with(SET_ELEMENT_ORDER);
    if patch.iter().any(|(k, v)| !v.is_null() && !is_directive(k) && !is_retained(k)) {
        return Err(StrategicError::RetainKeys);
    }
    original.retain(|key, _| is_retained(key));
    Ok(())
}

/// `$setElementOrder/x`: merges the list `x` and brings it into this order.
fn apply_element_orders(cursor: Cursor<'_>, original: &mut Object, patch: &mut Object) -> Result<(), StrategicError> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let key = directive[SET_ELEMENT_ORDER.len()..].strip_prefix('/').ok_or(StrategicError::SetElementOrder)?;
        let order = list(patch.remove(&directive))?.unwrap_or_default();
        let old = list(original.get(key).cloned())?;
        let new = list(patch.get(key).cloned())?;
        let (cursor, rules) = cursor.list_field(key)?;
        lists::check_order(new.as_deref().unwrap_or_default(), &order, rules.merge_key)?;
        let server_order =
            lists::server_order(old.clone().unwrap_or_default(), new.as_deref().unwrap_or_default(), rules.merge_key);
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => new.into_iter().filter_map(without_directives).collect(),
            (Some(old), Some(new)) if rules.merge => lists::merge(cursor, old, new, rules.merge_key)?,
            (Some(_), Some(new)) => new,
        };
        let ordered = lists::order(merged, &order, &server_order, rules.merge_key)?;
        original.insert(key.to_owned(), Value::Array(ordered));
        patch.remove(key);
    }
    Ok(())
}

fn list(value: Option<Value>) -> Result<Option<Vec<Value>>, StrategicError> {
    match value {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(other) => {
            let received = if other.is_object() { "map[string]interface {}" } else { super::kind_of(&other) };
            Err(StrategicError::WrongType { expected: "[]interface {}", received })
        }
    }
}

/// Nulls of a patch delete; where there is nothing to delete they vanish.
fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// A value that is new to the object, without directives; `None` when it is one itself.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            Some(map.into_iter().filter_map(|(k, v)| Some((k, without_directives(v)?))).collect::<Object>().into())
        }
        Value::Array(items) => Some(items.into_iter().filter_map(without_directives).collect::<Vec<_>>().into()),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests;
