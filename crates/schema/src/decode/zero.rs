//! What Go writes for a field that nobody set.

use serde_json::{Map, Value};

use crate::types::{Field, Schema, Type, TypeDef};

/// Adds the fields that Go writes even when they are zero.
pub(crate) fn fill(schema: &Schema, ty: &TypeDef, map: &mut Map<String, Value>) {
    for index in &ty.always {
        let field = &ty.fields[*index as usize];
        if !map.contains_key(field.name) {
            map.insert(field.name.to_owned(), of_field(schema, field));
        }
    }
}

fn of_field(schema: &Schema, field: &Field) -> Value {
    if field.pointer { Value::Null } else { of(schema, &field.ty) }
}

/// The zero value of a type as JSON. Nil lists, maps and bytes are null. Structs cannot contain themselves without a pointer,
/// so this ends.
pub(crate) fn of(schema: &Schema, ty: &Type) -> Value {
    match ty {
        Type::Bool => Value::Bool(false),
        Type::Int32 | Type::Int64 | Type::Float64 | Type::IntOrString => Value::from(0),
        Type::String => Value::String(String::new()),
        Type::Quantity => Value::String("0".to_owned()),
        Type::Duration => Value::String("0s".to_owned()),
        Type::Struct(id) => {
            let mut map = Map::new();
            fill(schema, schema.get(*id), &mut map);
            Value::Object(map)
        }
        Type::Bytes | Type::Time | Type::MicroTime | Type::RawExtension | Type::FieldsV1 => Value::Null,
        Type::Any | Type::Json | Type::SchemaOr(..) | Type::List(_) | Type::Map(_) => Value::Null,
    }
}
