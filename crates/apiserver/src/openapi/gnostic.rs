//! The OpenAPI 2.0 document in protobuf, as clients before 1.27 read it (`openapi.v2` of gnostic).

use schema::protobuf::put_message;
use serde_json::{Map, Value};

/// Fields of a message: number, JSON name, what it is.
type Fields = &'static [(u32, &'static str, Kind)];

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    Flag,
    /// A message.
    Message(fn(&Value) -> Vec<u8>),
    /// A list of messages.
    Messages(fn(&Value) -> Vec<u8>),
    /// Any value, as YAML, of which JSON is a part.
    Any,
    /// A list of those.
    Anys,
}

/// Numbers of the fields that documents are put together of.
pub(super) const PATHS: u32 = 8;
pub(super) const DEFINITIONS: u32 = 9;

/// The document without those.
const DOCUMENT: Fields = &[
    (1, "swagger", Kind::Text),
    (2, "info", Kind::Message(|info| message(info, INFO, 0))),
    (
        12,
        "security",
        Kind::Messages(|one| named(one, 1, |scopes| message(&wrapped("value", scopes), &[(1, "value", Kind::Texts)], 0))),
    ),
    (13, "securityDefinitions", Kind::Message(|all| named(all, 1, |one| put(2, &message(one, API_KEY, 5))))),
];

const INFO: Fields = &[(1, "title", Kind::Text), (2, "version", Kind::Text)];

const API_KEY: Fields =
    &[(1, "type", Kind::Text), (2, "name", Kind::Text), (3, "in", Kind::Text), (4, "description", Kind::Text)];

const PATH_ITEM: Fields = &[
    (2, "get", Kind::Message(operation)),
    (3, "put", Kind::Message(operation)),
    (4, "post", Kind::Message(operation)),
    (5, "delete", Kind::Message(operation)),
    (6, "options", Kind::Message(operation)),
    (7, "head", Kind::Message(operation)),
    (8, "patch", Kind::Message(operation)),
    (9, "parameters", Kind::Messages(parameter)),
];

const OPERATION: Fields = &[
    (1, "tags", Kind::Texts),
    (3, "description", Kind::Text),
    (5, "operationId", Kind::Text),
    (6, "produces", Kind::Texts),
    (7, "consumes", Kind::Texts),
    (8, "parameters", Kind::Messages(parameter)),
    (9, "responses", Kind::Message(|all| named(all, 1, |one| put(1, &message(one, RESPONSE, 5))))),
    (10, "schemes", Kind::Texts),
];

const RESPONSE: Fields = &[(1, "description", Kind::Text), (2, "schema", Kind::Message(|one| put(1, &schema(one))))];

const BODY: Fields = &[
    (1, "description", Kind::Text),
    (2, "name", Kind::Text),
    (3, "in", Kind::Text),
    (4, "required", Kind::Flag),
    (5, "schema", Kind::Message(schema)),
];

const QUERY: Fields = &[
    (1, "required", Kind::Flag),
    (2, "in", Kind::Text),
    (3, "description", Kind::Text),
    (4, "name", Kind::Text),
    (6, "type", Kind::Text),
    (20, "uniqueItems", Kind::Flag),
];

const PATH: Fields = &[
    (1, "required", Kind::Flag),
    (2, "in", Kind::Text),
    (3, "description", Kind::Text),
    (4, "name", Kind::Text),
    (5, "type", Kind::Text),
    (19, "uniqueItems", Kind::Flag),
];

const SCHEMA: Fields = &[
    (1, "$ref", Kind::Text),
    (2, "format", Kind::Text),
    (4, "description", Kind::Text),
    (5, "default", Kind::Any),
    (16, "uniqueItems", Kind::Flag),
    (19, "required", Kind::Texts),
    (20, "enum", Kind::Anys),
    (21, "additionalProperties", Kind::Message(|one| put(1, &schema(one)))),
    (
        22,
        "type",
        Kind::Message(|one| message(&wrapped("value", &Value::from(vec![one.clone()])), &[(1, "value", Kind::Texts)], 0)),
    ),
    (23, "items", Kind::Message(|one| put(1, &schema(one)))),
    (24, "allOf", Kind::Messages(schema)),
    (25, "properties", Kind::Message(|all| named(all, 1, schema))),
];

/// Fields of the document.
pub(super) fn fields(document: &Value) -> Vec<u8> {
    message(document, DOCUMENT, 0)
}

/// Entries of the message `Paths`.
pub(super) fn paths(items: &Map<String, Value>) -> Vec<u8> {
    pairs(items, 2, |item| message(item, PATH_ITEM, 10))
}

/// Entries of the message `Definitions`.
pub(super) fn definitions(schemas: &Map<String, Value>) -> Vec<u8> {
    pairs(schemas, 1, schema)
}

/// What goes before so many bytes of a message, to make them a field.
pub(super) fn head(number: u32, length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, u64::from(number << 3 | 2));
    put_varint(&mut out, length as u64);
    out
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn schema(value: &Value) -> Vec<u8> {
    message(value, SCHEMA, 31)
}

fn operation(value: &Value) -> Vec<u8> {
    message(value, OPERATION, 13)
}

/// `ParametersItem`, which holds a `Parameter`, which holds one of its kinds.
fn parameter(value: &Value) -> Vec<u8> {
    let one = match value["in"].as_str() {
        Some("body") => put(1, &message(value, BODY, 6)),
        Some("path") => put(2, &put(4, &message(value, PATH, 22))),
        _ => put(2, &put(3, &message(value, QUERY, 23))),
    };
    put(1, &one)
}

fn put(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 6);
    put_message(&mut out, number, bytes);
    out
}

fn wrapped(key: &str, value: &Value) -> Value {
    Value::Object(Map::from_iter([(key.to_owned(), value.clone())]))
}

/// A map as a list of pairs: `additional_properties` under `number`.
fn named(map: &Value, number: u32, encode: impl Fn(&Value) -> Vec<u8>) -> Vec<u8> {
    map.as_object().map(|map| pairs(map, number, encode)).unwrap_or_default()
}

fn pairs(map: &Map<String, Value>, number: u32, encode: impl Fn(&Value) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in map {
        let pair = [put(1, name.as_bytes()), put(2, &encode(value))].concat();
        put_message(&mut out, number, &pair);
    }
    out
}

fn any(value: &Value) -> Vec<u8> {
    put(2, format!("{value}\n").as_bytes())
}

/// A message; what starts with `x-` goes into the field `extensions`, if that is not 0.
fn message(value: &Value, fields: Fields, extensions: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, name, kind) in fields {
        let Some(value) = value.get(*name).filter(|value| !value.is_null()) else { continue };
        field(&mut out, *number, *kind, value);
    }
    for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| extensions != 0 && name.starts_with("x-")) {
        let pair = [put(1, name.as_bytes()), put(2, &any(value))].concat();
        put_message(&mut out, extensions, &pair);
    }
    out
}

fn field(out: &mut Vec<u8>, number: u32, kind: Kind, value: &Value) {
    let list = || value.as_array().into_iter().flatten();
    match kind {
        Kind::Text => put_message(out, number, value.as_str().unwrap_or_default().as_bytes()),
        Kind::Texts => list().filter_map(Value::as_str).for_each(|text| put_message(out, number, text.as_bytes())),
        Kind::Flag if value == &Value::Bool(true) => {
            // Field number and wire type 0, then the one.
            put_varint(out, u64::from(number << 3));
            out.push(1);
        }
        Kind::Flag => {}
        Kind::Message(encode) => put_message(out, number, &encode(value)),
        Kind::Messages(encode) => list().for_each(|one| put_message(out, number, &encode(one))),
        Kind::Any => put_message(out, number, &any(value)),
        Kind::Anys => list().for_each(|one| put_message(out, number, &any(one))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages() {
        let check = |value: Value, expected: &[u8]| assert_eq!(schema(&value), expected, "{value}");
        check(json!({"$ref": "a"}), b"\x0a\x01a");
        check(json!({"type": "string"}), b"\xb2\x01\x08\x0a\x06string");
        check(json!({"uniqueItems": true, "required": ["a"]}), b"\x80\x01\x01\x9a\x01\x01a");
        check(json!({"items": {"$ref": "a"}}), b"\xba\x01\x05\x0a\x03\x0a\x01a");
        check(json!({"properties": {"p": {"$ref": "a"}}}), b"\xca\x01\x0a\x0a\x08\x0a\x01p\x12\x03\x0a\x01a");
        check(json!({"x-k": 1}), b"\xfa\x01\x0b\x0a\x03x-k\x12\x04\x12\x021\n");
    }
}
