//! Objects as text in the order of fields that Go writes, which is the order of its structs.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value};

use crate::types::{Schema, Type, TypeId};

/// A value that serialises in that order. What the schema does not know comes last, sorted by name.
#[derive(Clone, Copy)]
pub struct Ordered<'a> {
    schema: &'a Schema,
    ty: Shape<'a>,
    value: &'a Value,
}

/// What is known of a value.
#[derive(Clone, Copy)]
enum Shape<'a> {
    Type(&'a Type),
    /// Nothing; an object may name its kind.
    Unknown,
}

impl<'a> Ordered<'a> {
    /// An object that names its kind. One that does not, or whose kind the schema does not have, keeps its order.
    pub fn new(schema: &'a Schema, value: &'a Value) -> Self {
        Self { schema, ty: Shape::Unknown, value }
    }

    fn fields<S: Serializer>(&self, id: TypeId, object: &'a Map<String, Value>, serializer: S) -> Result<S::Ok, S::Error> {
        let def = self.schema.get(id);
        let mut fields: Vec<_> =
            object.iter().map(|(name, value)| (def.field_index(name).unwrap_or(usize::MAX), name, value)).collect();
        fields.sort_by_key(|(index, ..)| *index);
        let mut map = serializer.serialize_map(Some(fields.len()))?;
        for (index, name, value) in fields {
            let ty = def.fields.get(index).map_or(Shape::Unknown, |field| Shape::Type(&field.ty));
            map.serialize_entry(name, &Self { ty, value, ..*self })?;
        }
        map.end()
    }

    fn map<S: Serializer>(&self, ty: Shape<'a>, object: &'a Map<String, Value>, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(object.len()))?;
        for (name, value) in object {
            map.serialize_entry(name, &Self { ty, value, ..*self })?;
        }
        map.end()
    }

    /// The kind that an object says it is.
    fn own_type(&self, object: &Map<String, Value>) -> Option<TypeId> {
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let kind = text("kind")?;
        // `APIVersions` has no version in JSON.
        let version = text("apiVersion").unwrap_or("v1");
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        self.schema.kind(group, version, kind)
    }
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = match self.ty {
            Shape::Type(Type::List(inner) | Type::Map(inner)) => Shape::Type(inner),
            _ => Shape::Unknown,
        };
        match (self.value, self.ty) {
            (Value::Object(object), Shape::Type(Type::Struct(id) | Type::SchemaOr(_, id))) => {
                self.fields(*id, object, serializer)
            }
            (Value::Object(object), Shape::Unknown | Shape::Type(Type::RawExtension | Type::Any)) => {
                match self.own_type(object) {
                    Some(id) => self.fields(id, object, serializer),
                    None => self.map(Shape::Unknown, object, serializer),
                }
            }
            (Value::Object(object), _) => self.map(inner, object, serializer),
            (Value::Array(list), _) => {
                let mut seq = serializer.serialize_seq(Some(list.len()))?;
                for value in list {
                    seq.serialize_element(&Self { ty: inner, value, ..*self })?;
                }
                seq.end()
            }
            (scalar, _) => scalar.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(value: Value, expected: &str) {
        assert_eq!(serde_json::to_string(&Ordered::new(Schema::builtin(), &value)).unwrap(), expected);
    }

    #[test]
    fn fields_come_as_go_writes_them() {
        check(
            json!({"apiVersion": "v1", "kind": "Pod", "status": {}, "zzz": 1, "aaa": [{"b": 1, "a": 2}],
                "metadata": {"namespace": "n", "labels": {"b": "1", "a": "2"}, "name": "p"},
                "spec": {"nodeName": "x", "containers": [{"image": "i", "name": "c"}]}}),
            concat!(
                r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","namespace":"n","labels":{"a":"2","b":"1"}},"#,
                r#""spec":{"containers":[{"name":"c","image":"i"}],"nodeName":"x"},"status":{},"aaa":[{"a":2,"b":1}],"zzz":1}"#
            ),
        );
        check(json!({"versions": ["v1"], "kind": "APIVersions"}), r#"{"kind":"APIVersions","versions":["v1"]}"#);
        check(
            json!({"b": 1, "a": {"kind": "Unknown", "apiVersion": "v1"}}),
            r#"{"a":{"apiVersion":"v1","kind":"Unknown"},"b":1}"#,
        );
        check(
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table", "rows": [{"object": {"apiVersion": "v1", "kind": "Pod"}, "cells": [1]}], "metadata": {}}),
            r#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},"rows":[{"cells":[1],"object":{"kind":"Pod","apiVersion":"v1"}}]}"#,
        );
    }
}
