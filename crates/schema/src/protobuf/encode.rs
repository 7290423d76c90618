//! JSON to protobuf.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::wire::{FIXED64, VARINT, put_bytes, put_nested, put_tag, put_varint};
use super::{Error, MAX_DEPTH};
use crate::time;
use crate::types::{Alternative, Field, Schema, Type, TypeDef, TypeId, Wire};

/// Encodes an object. It must be in the form that [`crate::decode()`] leaves, otherwise fields are refused or written as they are.
///
/// # Errors
/// A field has another JSON type than the schema says.
pub fn encode(schema: &Schema, ty: TypeId, value: &Value) -> Result<Vec<u8>, Error> {
    let map = value.as_object().ok_or(Error::Json("(object)"))?;
    let mut out = Vec::with_capacity(1024);
    let ty = schema.get(ty);
    Encoder { schema }.message(ty, &ty.wire, map, &mut out, 0)?;
    Ok(out)
}

struct Encoder<'s> {
    schema: &'s Schema,
}

/// What a field holds, for errors, and how deep it is.
#[derive(Clone, Copy)]
struct At<'a> {
    field: &'a Field,
    depth: usize,
}

impl At<'_> {
    fn wrong(&self) -> Error {
        Error::Json(self.field.name)
    }
}

impl Encoder<'_> {
    fn message(
        &self,
        ty: &TypeDef,
        wire: &[Wire],
        map: &Map<String, Value>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Depth);
        }
        for wire in wire {
            match wire {
                Wire::Field(number, index) => {
                    let field = &ty.fields[*index as usize];
                    let value = map.get(field.name).filter(|value| !value.is_null());
                    self.field(*number, value, out, At { field, depth })?;
                }
                Wire::Embedded(number, inner) => put_nested(out, *number, |out| self.message(ty, inner, map, out, depth + 1))?,
            }
        }
        Ok(())
    }

    fn field(&self, number: u32, value: Option<&Value>, out: &mut Vec<u8>, at: At<'_>) -> Result<(), Error> {
        let nullable = at.field.pointer || matches!(at.field.ty, Type::List(_) | Type::Map(_) | Type::Bytes);
        match (&at.field.ty, value) {
            (_, None) if nullable => Ok(()),
            (Type::List(inner), Some(value)) if at.field.wrapped => self.wrapped(number, inner, value, out, at),
            (Type::List(inner), Some(value)) => self.list(number, inner, value, out, at),
            (Type::Map(inner), Some(Value::Object(map))) => self.map(number, inner, map, out, at),
            (ty, value) => self.value(number, ty, value, out, at),
        }
    }

    fn list(&self, number: u32, inner: &Type, value: &Value, out: &mut Vec<u8>, at: At<'_>) -> Result<(), Error> {
        let items = value.as_array().ok_or_else(|| at.wrong())?;
        items.iter().try_for_each(|item| self.value(number, inner, Some(item).filter(|item| !item.is_null()), out, at))
    }

    /// A list type with a message of its own: `message Verbs { repeated string items = 1; }`.
    fn wrapped(&self, number: u32, inner: &Type, value: &Value, out: &mut Vec<u8>, at: At<'_>) -> Result<(), Error> {
        put_nested(out, number, |out| self.list(1, inner, value, out, at))
    }

    fn map(&self, number: u32, inner: &Type, map: &Map<String, Value>, out: &mut Vec<u8>, at: At<'_>) -> Result<(), Error> {
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_by_key(|entry| entry.0);
        entries.into_iter().try_for_each(|(key, value)| {
            put_nested(out, number, |out| {
                put_bytes(out, 1, key.as_bytes());
                match (inner, value) {
                    (Type::Bytes | Type::List(_), Value::Null) => Ok(()),
                    (Type::List(inner), value) => self.wrapped(2, inner, value, out, at),
                    (inner, value) => self.value(2, inner, Some(value).filter(|value| !value.is_null()), out, at),
                }
            })
        })
    }

    /// A JSON schema or its alternative: a message with a field for each.
    fn schema_or(
        &self,
        alternative: Alternative,
        id: TypeId,
        value: Option<&Value>,
        out: &mut Vec<u8>,
        at: At<'_>,
    ) -> Result<(), Error> {
        let schema = value.filter(|value| value.is_object());
        let mut number = 1;
        if alternative == Alternative::Bool {
            let allows = schema.is_some() || value.and_then(Value::as_bool).unwrap_or(false);
            put_number(out, 1, u64::from(allows));
            number = 2;
        }
        if schema.is_some() {
            self.value(number, &Type::Struct(id), schema, out, at)?;
        }
        match (alternative, value) {
            (Alternative::List, Some(list @ Value::Array(_))) => self.list(2, &Type::Struct(id), list, out, at),
            (Alternative::Strings, Some(list @ Value::Array(_))) => self.list(2, &Type::String, list, out, at),
            _ => Ok(()),
        }
    }

    /// A value that is written even when it is absent, then as zero.
    fn value(&self, number: u32, ty: &Type, value: Option<&Value>, out: &mut Vec<u8>, at: At<'_>) -> Result<(), Error> {
        match ty {
            Type::Bool => put_number(out, number, u64::from(get(value, false, Value::as_bool, at)?)),
            Type::Int32 | Type::Int64 => put_number(out, number, get(value, 0, Value::as_i64, at)? as u64),
            Type::Float64 => {
                put_tag(out, number, FIXED64);
                out.extend_from_slice(&get(value, 0.0, Value::as_f64, at)?.to_le_bytes());
            }
            Type::String => put_bytes(out, number, get(value, "", Value::as_str, at)?.as_bytes()),
            Type::Bytes => {
                let bytes = STANDARD.decode(get(value, "", Value::as_str, at)?).map_err(|_| at.wrong())?;
                put_bytes(out, number, &bytes);
            }
            Type::Struct(id) => {
                let empty = Map::new();
                let map = get(value, &empty, Value::as_object, at)?;
                let ty = self.schema.get(*id);
                put_nested(out, number, |out| self.message(ty, &ty.wire, map, out, at.depth + 1))?;
            }
            Type::SchemaOr(alternative, id) => put_nested(out, number, |out| self.schema_or(*alternative, *id, value, out, at))?,
            Type::List(_) | Type::Map(_) => return Err(at.wrong()),
            _ => put_nested(out, number, |out| special(ty, value, out, at))?,
        }
        Ok(())
    }
}

/// The body of a type that is a small message of its own.
fn special(ty: &Type, value: Option<&Value>, out: &mut Vec<u8>, at: At<'_>) -> Result<(), Error> {
    match ty {
        Type::Quantity => put_bytes(out, 1, get(value, "0", Value::as_str, at)?.as_bytes()),
        Type::IntOrString => {
            let text = value.and_then(Value::as_str);
            let number = if text.is_some() { 0 } else { get(value, 0, Value::as_i64, at)? };
            put_number(out, 1, u64::from(text.is_some()));
            put_number(out, 2, number as u64);
            put_bytes(out, 3, text.unwrap_or_default().as_bytes());
        }
        Type::Time | Type::MicroTime => {
            let Some(value) = value else { return Ok(()) };
            let time = value.as_str().and_then(|text| time::parse(text).ok()).ok_or_else(|| at.wrong())?;
            let micros = if *ty == Type::MicroTime { time.subsec_nanosecond() / 1000 } else { 0 };
            // A time before 1970 counts its fraction forwards from the second before.
            let (seconds, micros) =
                if micros < 0 { (time.as_second() - 1, micros + 1_000_000) } else { (time.as_second(), micros) };
            let early = *ty == Type::Time && time.subsec_nanosecond() < 0;
            put_number(out, 1, (seconds - i64::from(early)) as u64);
            put_number(out, 2, (micros * 1000) as u64);
        }
        Type::Duration => {
            let nanos = time::parse_duration(get(value, "0s", Value::as_str, at)?).map_err(|_| at.wrong())?;
            put_number(out, 1, nanos as u64);
        }
        _ => {
            if let Some(value) = value {
                put_bytes(out, 1, &serde_json::to_vec(value).map_err(|_| at.wrong())?);
            }
        }
    }
    Ok(())
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, VARINT);
    put_varint(out, value);
}

fn get<'v, T>(value: Option<&'v Value>, absent: T, read: impl FnOnce(&'v Value) -> Option<T>, at: At<'_>) -> Result<T, Error> {
    match value {
        None => Ok(absent),
        Some(value) => read(value).ok_or_else(|| at.wrong()),
    }
}
