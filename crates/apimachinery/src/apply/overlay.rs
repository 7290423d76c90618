//! A configuration laid over an object without owners, as mutating admission policies do (KEP-3962).

use super::merge::merge;
use super::shape::{Ref, Shape, Types};
use serde_json::Value;

/// Why a configuration cannot be laid over an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    /// A field that the type does not have.
    #[error("failed to convert patch object to typed object: {0}: field not declared in schema")]
    Undeclared(String),
    /// What can only be replaced as a whole: what is not said of it would be lost, which is hardly ever meant.
    #[error("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {0}")]
    Atomic(String),
}

/// The object with a configuration of the same type laid over it.
///
/// # Errors
/// The configuration has fields that the type does not have, or parts that can only be replaced as a whole.
pub fn overlay(types: Types<'_>, live: &Value, config: &Value) -> Result<Value, OverlayError> {
    let mut atomics = Vec::new();
    look(types.root(), "", config, &mut atomics)?;
    if !atomics.is_empty() {
        return Err(OverlayError::Atomic(atomics.join(", ")));
    }
    Ok(merge(types.root(), live, config))
}

/// Collects the paths of what can only be replaced as a whole.
fn look(ty: Ref<'_>, path: &str, value: &Value, atomics: &mut Vec<String>) -> Result<(), OverlayError> {
    match (ty.shape(value), value) {
        (Shape::Map(fields), Value::Object(map)) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                let of_type = path == ".apiVersion" || path == ".kind";
                match fields.declared(key) {
                    Some(ty) => look(ty, &path, value, atomics)?,
                    None if of_type => {}
                    None => return Err(OverlayError::Undeclared(path)),
                }
            }
        }
        (Shape::List(_, ty), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                look(ty, &format!("{path}[{index}]"), item, atomics)?;
            }
        }
        (Shape::Leaf, Value::Object(_) | Value::Array(_)) => atomics.push(path.to_owned()),
        _ => {}
    }
    Ok(())
}
