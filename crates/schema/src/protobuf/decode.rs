//! Protobuf to JSON.

use std::cell::Cell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::envelope::{MAGIC, unwrap_envelope};
use super::wire::{Raw, Reader};
use super::{Error, MAX_DEPTH};
use crate::decode::{MAX_STRUCTS, fill, left_out, of_float};
use crate::quantity;
use crate::time::{self, Precision};
use crate::types::{Alternative, Field, Schema, Type, TypeDef, TypeId, Wire};

/// Seconds of Go's zero time, 1 January of the year 1, which JSON shows as null.
const ZERO_TIME: i64 = -62_135_596_800;

/// Decodes a message into the canonical JSON form that [`crate::decode()`] leaves. `apiVersion` and `kind` are not in the message
/// (they are in the envelope), so the result has none. Unknown fields are dropped, as upstream does.
///
/// # Errors
/// The bytes are not a message of this type, or hold values that it cannot have. Never panics, whatever the bytes.
pub fn decode(schema: &Schema, ty: TypeId, bytes: &[u8]) -> Result<Value, Error> {
    let mut map = Map::new();
    Decoder { schema, left: Cell::new(MAX_STRUCTS) }.structure(schema.get(ty), bytes, &mut map, 0)?;
    Ok(Value::Object(map))
}

struct Decoder<'s> {
    schema: &'s Schema,
    left: Cell<usize>,
}

impl Decoder<'_> {
    fn structure(&self, ty: &TypeDef, bytes: &[u8], map: &mut Map<String, Value>, depth: usize) -> Result<(), Error> {
        self.left.set(self.left.get().checked_sub(1).ok_or(Error::TooMany)?);
        self.message(ty, &ty.wire, bytes, map, depth)?;
        fill(self.schema, ty, map);
        Ok(())
    }

    fn message(
        &self,
        ty: &TypeDef,
        wire: &[Wire],
        bytes: &[u8],
        map: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Depth);
        }
        let mut reader = Reader(bytes);
        while let Some((number, raw)) = reader.next()? {
            let Ok(at) = wire.binary_search_by_key(&number, Wire::number) else { continue };
            match (&wire[at], raw) {
                (Wire::Field(_, index), raw) => self.field(&ty.fields[*index as usize], raw, map, depth)?,
                (Wire::Embedded(_, inner), Raw::Bytes(bytes)) => self.message(ty, inner, bytes, map, depth + 1)?,
                (Wire::Embedded(..), raw) => return Err(Error::WireType { field: ty.go, wire: raw.wire() }),
            }
        }
        Ok(())
    }

    fn field(&self, field: &Field, raw: Raw<'_>, map: &mut Map<String, Value>, depth: usize) -> Result<(), Error> {
        // Only these add to what came before under the same number; of the others the last one wins.
        let adds = matches!(field.ty, Type::List(_) | Type::Map(_) | Type::Struct(_));
        let old = if adds { map.get_mut(field.name).map_or(Value::Null, Value::take) } else { Value::Null };
        let value = match &field.ty {
            Type::List(inner) if field.wrapped => self.wrapped(field, inner, raw, old, depth)?,
            Type::List(inner) => self.element(field, inner, raw, old, depth)?,
            Type::Map(inner) => self.entry(field, inner, raw, old, depth)?,
            ty => self.value(field, ty, raw, old, depth)?,
        };
        if left_out(field, &value) && !field.always_written() {
            map.remove(field.name);
        } else {
            map.insert(field.name.to_owned(), value);
        }
        Ok(())
    }

    /// Appends an element, or several if numbers come packed.
    fn element(&self, field: &Field, inner: &Type, raw: Raw<'_>, old: Value, depth: usize) -> Result<Value, Error> {
        let mut items = match old {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        match (inner, raw) {
            (Type::Bool | Type::Int32 | Type::Int64, Raw::Bytes(packed)) => {
                let mut reader = Reader(packed);
                while !reader.0.is_empty() {
                    items.push(self.value(field, inner, Raw::Varint(reader.varint()?), Value::Null, depth)?);
                }
            }
            _ => items.push(self.value(field, inner, raw, Value::Null, depth)?),
        }
        Ok(Value::Array(items))
    }

    /// A list in a message of its own, under number 1.
    fn wrapped(&self, field: &Field, inner: &Type, raw: Raw<'_>, old: Value, depth: usize) -> Result<Value, Error> {
        let mut list = if old.is_array() { old } else { Value::Array(Vec::new()) };
        let mut reader = Reader(bytes(field, raw)?);
        while let Some((number, raw)) = reader.next()? {
            if number == 1 {
                list = self.element(field, inner, raw, list, depth)?;
            }
        }
        Ok(list)
    }

    fn entry(&self, field: &Field, inner: &Type, raw: Raw<'_>, old: Value, depth: usize) -> Result<Value, Error> {
        let mut map = match old {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        let (mut key, mut value) = (String::new(), None);
        let mut reader = Reader(bytes(field, raw)?);
        while let Some((number, raw)) = reader.next()? {
            match (number, inner) {
                (1, _) => key = text(field, bytes(field, raw)?)?,
                (2, Type::List(inner)) => value = Some(self.wrapped(field, inner, raw, Value::Null, depth)?),
                (2, inner) => value = Some(self.value(field, inner, raw, Value::Null, depth)?),
                _ => {}
            }
        }
        map.insert(key, value.unwrap_or_else(|| crate::decode::zero(self.schema, inner)));
        Ok(Value::Object(map))
    }

    /// One value. A message that comes twice is merged into `old`.
    fn value(&self, field: &Field, ty: &Type, raw: Raw<'_>, old: Value, depth: usize) -> Result<Value, Error> {
        Ok(match (ty, raw) {
            (Type::Bool, Raw::Varint(value)) => Value::Bool(value != 0),
            (Type::Int32, Raw::Varint(value)) => Value::from(value as i32),
            (Type::Int64, Raw::Varint(value)) => Value::from(value as i64),
            (Type::Float64, Raw::Fixed64(value)) => of_float(f64::from_bits(value)),
            (Type::String, Raw::Bytes(bytes)) => Value::String(text(field, bytes)?),
            (Type::Bytes, Raw::Bytes(bytes)) => Value::String(STANDARD.encode(bytes)),
            (Type::Struct(id), Raw::Bytes(bytes)) => {
                let mut map = match old {
                    Value::Object(map) => map,
                    _ => Map::new(),
                };
                self.structure(self.schema.get(*id), bytes, &mut map, depth + 1)?;
                Value::Object(map)
            }
            (Type::SchemaOr(alternative, id), Raw::Bytes(body)) => self.schema_or(field, *alternative, *id, body, depth)?,
            (Type::RawExtension | Type::FieldsV1 | Type::Json, Raw::Bytes(bytes)) => self.embedded_json(field, bytes, depth)?,
            (Type::Quantity | Type::IntOrString | Type::Time | Type::MicroTime | Type::Duration, Raw::Bytes(bytes)) => {
                special(field, ty, bytes)?
            }
            (_, raw) => return Err(Error::WireType { field: field.name, wire: raw.wire() }),
        })
    }

    /// A JSON schema or its alternative: a message with a field for each.
    fn schema_or(&self, field: &Field, alternative: Alternative, id: TypeId, body: &[u8], depth: usize) -> Result<Value, Error> {
        let (mut schema, mut other) = (Value::Null, Value::Null);
        if alternative == Alternative::Bool {
            other = Value::Bool(false);
        }
        let mut reader = Reader(body);
        while let Some((number, raw)) = reader.next()? {
            match (alternative, number) {
                (Alternative::Bool, 1) => other = self.value(field, &Type::Bool, raw, Value::Null, depth)?,
                (Alternative::Bool, 2) | (Alternative::List | Alternative::Strings, 1) => {
                    schema = self.value(field, &Type::Struct(id), raw, schema, depth)?;
                }
                (Alternative::List, 2) => other = self.element(field, &Type::Struct(id), raw, other, depth)?,
                (Alternative::Strings, 2) => other = self.element(field, &Type::String, raw, other, depth)?,
                _ => {}
            }
        }
        Ok(if schema.is_null() || other.is_array() { other } else { schema })
    }

    /// Bytes under number 1: JSON, or an object in an envelope, as clients that speak protobuf put it into a list.
    fn embedded_json(&self, field: &Field, body: &[u8], depth: usize) -> Result<Value, Error> {
        let refuse = |message: String| Error::Value { field: field.name, message };
        let mut reader = Reader(body);
        let mut json: &[u8] = &[];
        while let Some((number, raw)) = reader.next()? {
            if number == 1 {
                json = bytes(field, raw)?;
            }
        }
        if json.is_empty() {
            return Ok(Value::Null);
        }
        if !json.starts_with(MAGIC) {
            return serde_json::from_slice(json).map_err(|error| refuse(error.to_string()));
        }
        let (api_version, kind, raw) = unwrap_envelope(json)?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let ty = self.schema.kind(group, version, kind).ok_or_else(|| refuse(format!("no kind {kind} in {api_version}")))?;
        let mut map = Map::new();
        self.structure(self.schema.get(ty), raw, &mut map, depth + 1)?;
        map.insert("apiVersion".to_owned(), api_version.into());
        map.insert("kind".to_owned(), kind.into());
        Ok(Value::Object(map))
    }
}

/// The types that are small messages of their own.
fn special(field: &Field, ty: &Type, body: &[u8]) -> Result<Value, Error> {
    let refuse = |message: String| Error::Value { field: field.name, message };
    if body.is_empty() && matches!(ty, Type::Time | Type::MicroTime) {
        return Ok(Value::Null);
    }
    // Every special type has numbers below 4: what came under each, the last one wins.
    let (mut numbers, mut strings) = ([0u64; 4], [&[][..]; 4]);
    let mut reader = Reader(body);
    while let Some((number, raw)) = reader.next()? {
        match (number as usize, raw) {
            (number @ 1..=3, Raw::Varint(value)) => numbers[number] = value,
            (number @ 1..=3, Raw::Bytes(bytes)) => strings[number] = bytes,
            (1..=3, raw) => return Err(Error::WireType { field: field.name, wire: raw.wire() }),
            _ => {}
        }
    }
    match ty {
        Type::Quantity => match text(field, strings[1])?.as_str() {
            "" => Ok(Value::from("0")),
            text => quantity::canonical(text).map(Value::from).map_err(|error| refuse(error.to_string())),
        },
        Type::IntOrString if numbers[1] == 0 => Ok(Value::from(numbers[2] as i32)),
        Type::IntOrString => text(field, strings[3]).map(Value::from),
        Type::Duration => Ok(Value::from(time::format_duration(numbers[1] as i64))),
        _ => {
            let seconds = numbers[1] as i64;
            let (precision, nanos) =
                if *ty == Type::Time { (Precision::Seconds, 0) } else { (Precision::Micros, numbers[2] as i32) };
            if seconds == ZERO_TIME && nanos == 0 {
                return Ok(Value::Null);
            }
            let at = Timestamp::new(seconds, nanos).map_err(|error| refuse(error.to_string()))?;
            if at < time::FIRST {
                return Err(refuse("the time is before the year 0".to_owned()));
            }
            Ok(Value::from(time::format(at, precision)))
        }
    }
}

fn bytes<'a>(field: &Field, raw: Raw<'a>) -> Result<&'a [u8], Error> {
    match raw {
        Raw::Bytes(bytes) => Ok(bytes),
        other => Err(Error::WireType { field: field.name, wire: other.wire() }),
    }
}

fn text(field: &Field, bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::Utf8(field.name))
}
