//! Checks and canonicalises an object's JSON as a round trip through Go's typed structs would.

mod error;
mod scalar;
mod zero;

pub use error::TypeError;
pub use scalar::of_float;

use serde_json::{Map, Value};

use crate::path::{Path, Segment};
use crate::types::{Alternative, Field, Schema, Type, TypeDef, TypeId};
use error::Target;
pub(crate) use zero::{fill, of as zero};

/// Checks the types of an object as Go's JSON decoder does, and brings it into the form in which Go would write it again:
/// unknown fields and nulls are dropped, empty `omitempty` fields too, fields that Go always writes are added (`resources: {}`,
/// `status: {}`, null for a required list that is absent), quantities and times are canonical. Keys are case-sensitive.
///
/// Returns the paths of unknown fields, such as `spec.foo` and `spec.containers[0].bar`.
///
/// # Errors
/// The first value of a wrong type, in upstream's words. The value is then half done: throw it away.
pub fn decode(schema: &Schema, ty: TypeId, value: &mut Value) -> Result<Vec<String>, TypeError> {
    let mut decoder = Decoder { schema, unknown: Vec::new(), left: MAX_STRUCTS };
    let Value::Object(map) = value else {
        return Err(TypeError::mismatch(value, error::implied_go(schema, &Type::Struct(ty)), None));
    };
    decoder.structure(ty, map, &Path::ROOT)?;
    Ok(decoder.unknown)
}

/// As [`decode`], but changes nothing: for a partial object, such as what server-side apply is given.
///
/// # Errors
/// As for [`decode`].
pub fn check(schema: &Schema, ty: TypeId, value: &Value) -> Result<Vec<String>, TypeError> {
    decode(schema, ty, &mut value.clone())
}

/// Structs of one object. Two bytes of a body make one, which takes a thousand with the fields that are always there.
pub(crate) const MAX_STRUCTS: usize = 100_000;
/// What is said of more.
pub(crate) const TOO_MANY: &str = "the object has more than 100000 parts";

struct Decoder<'s> {
    schema: &'s Schema,
    unknown: Vec<String>,
    left: usize,
}

impl<'s> Decoder<'s> {
    fn structure(&mut self, id: TypeId, map: &mut Map<String, Value>, path: &Path<'_>) -> Result<(), TypeError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| TypeError::Text(TOO_MANY.to_owned()))?;
        let ty = self.schema.get(id);
        let mut dropped = 0;
        for (key, value) in map.iter_mut() {
            let Some(index) = ty.field_index(key) else {
                crate::strict::report(&mut self.unknown, || path.join(Segment::Key(key)).to_string());
                dropped += 1;
                continue;
            };
            let field = &ty.fields[index];
            if !value.is_null() {
                let at = path.join(Segment::Field(field.name));
                self.value(&field.ty, value, &Target { schema: self.schema, owner: ty, field, depth: 0 }, &at)?;
            }
            dropped += usize::from(left_out(field, value));
        }
        if dropped > 0 {
            map.retain(|key, value| ty.field(key).is_some_and(|field| !left_out(field, value)));
        }
        fill(self.schema, ty, map);
        Ok(())
    }

    fn value(&mut self, ty: &Type, value: &mut Value, target: &Target<'_>, path: &Path<'_>) -> Result<(), TypeError> {
        match (ty, &mut *value) {
            (Type::Struct(id), Value::Object(map)) => self.structure(*id, map, path),
            (Type::List(inner), Value::Array(items)) => {
                let target = target.inner();
                for (index, item) in items.iter_mut().enumerate() {
                    self.element(inner, item, &target, &path.join(Segment::Index(index)))?;
                }
                Ok(())
            }
            (Type::Map(inner), Value::Object(map)) => {
                if **inner == Type::String && map.values().all(Value::is_string) {
                    return Ok(());
                }
                let target = target.inner();
                map.iter_mut().try_for_each(|(key, item)| self.element(inner, item, &target, &path.join(Segment::Key(key))))
            }
            (Type::SchemaOr(alternative, id), _) => self.schema_or(*alternative, *id, value, target, path),
            (Type::Struct(_) | Type::List(_) | Type::Map(_), _) => Err(target.mismatch(value, path)),
            _ => scalar::check(ty, value, target, path),
        }
    }

    /// A JSON schema or its alternative. Go decodes these apart, so unknown fields in them are dropped without notice.
    fn schema_or(
        &mut self,
        alternative: Alternative,
        id: TypeId,
        value: &mut Value,
        target: &Target<'_>,
        path: &Path<'_>,
    ) -> Result<(), TypeError> {
        let known = self.unknown.len();
        match (alternative, &mut *value) {
            (_, Value::Object(map)) => self.structure(id, map, path)?,
            (Alternative::Bool, Value::Bool(_)) => {}
            (Alternative::Bool, _) => return Err(TypeError::Text("boolean or JSON schema expected".to_owned())),
            (Alternative::List, Value::Array(items)) if !items.is_empty() => {
                items.iter_mut().try_for_each(|item| self.element(&Type::Struct(id), item, target, path))?;
            }
            (Alternative::Strings, Value::Array(items)) if !items.is_empty() => {
                items.iter_mut().try_for_each(|item| self.element(&Type::String, item, target, path))?;
            }
            _ => *value = Value::Null,
        }
        self.unknown.truncate(known);
        Ok(())
    }

    /// An element of a list or a map: null stands for the zero value there.
    fn element(&mut self, ty: &Type, value: &mut Value, target: &Target<'_>, path: &Path<'_>) -> Result<(), TypeError> {
        if value.is_null() {
            *value = zero(self.schema, ty);
            return Ok(());
        }
        self.value(ty, value, target, path)
    }
}

/// Whether Go leaves the field out when it writes the struct.
pub(crate) fn left_out(field: &Field, value: &Value) -> bool {
    if value.is_null() {
        return true;
    }
    if !field.omit_empty || field.pointer {
        return false;
    }
    match value {
        Value::Bool(value) => !value,
        Value::Number(value) => field.ty != Type::IntOrString && value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty() && matches!(field.ty, Type::String | Type::Bytes),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && matches!(field.ty, Type::Map(_)),
        Value::Null => true,
    }
}

/// The name of a type's version as Go's package name: `v1` of `io.k8s.api.core.v1.Pod`.
pub(crate) fn package(ty: &TypeDef) -> &'static str {
    ty.name.rsplit('.').nth(1).unwrap_or_default()
}

#[cfg(test)]
mod tests;
