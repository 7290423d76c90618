//! Errors in the words of Go's `encoding/json`.

use serde_json::Value;

use super::package;
use crate::path::Path;
use crate::types::{Alternative, Field, Schema, Type, TypeDef};

/// A value of the wrong type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// For instance `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
    #[error("json: cannot unmarshal {found} into Go struct field {field} of type {go}")]
    Field { found: String, field: String, go: String },
    #[error("json: cannot unmarshal {found} into Go value of type {go}")]
    Value { found: String, go: String },
    /// A type that reads itself (quantity, time, base64) refused the text.
    #[error("{0}")]
    Text(String),
}

impl TypeError {
    pub(super) fn mismatch(value: &Value, go: String, field: Option<String>) -> Self {
        let found = describe(value);
        match field {
            Some(field) => Self::Field { found, field, go },
            None => Self::Value { found, go },
        }
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
    .to_owned()
}

/// Where a value goes: what Go says about it is worked out only for an error.
pub(super) struct Target<'a> {
    pub(super) schema: &'a Schema,
    /// The innermost struct and its field.
    pub(super) owner: &'a TypeDef,
    pub(super) field: &'a Field,
    /// How many lists and maps lie between the field and the value.
    pub(super) depth: usize,
}

impl<'a> Target<'a> {
    pub(super) fn inner(&self) -> Target<'a> {
        Target { depth: self.depth + 1, ..*self }
    }

    pub(super) fn mismatch(&self, value: &Value, path: &Path<'_>) -> TypeError {
        TypeError::mismatch(value, self.go(), Some(self.name(path)))
    }

    /// A number that is no integer, or too large.
    pub(super) fn number(&self, value: &Value, path: &Path<'_>) -> TypeError {
        TypeError::Field { found: format!("number {value}"), field: self.name(path), go: self.go() }
    }

    fn name(&self, path: &Path<'_>) -> String {
        format!("{}.{}", self.owner.go, path.fields())
    }

    /// The Go type at this depth below the field's own.
    fn go(&self) -> String {
        let mut ty = &self.field.ty;
        let mut go = self.field.go.map_or_else(|| implied_go(self.schema, ty), str::to_owned);
        for _ in 0..self.depth {
            let (Type::List(inner) | Type::Map(inner)) = ty else { break };
            ty = inner;
            let element = match go.strip_prefix("[]") {
                Some(element) => Some(element),
                None => go.strip_prefix("map[").and_then(|rest| rest.split_once(']')).map(|(_, element)| element),
            };
            go = element.map_or_else(|| implied_go(self.schema, ty), |element| element.trim_start_matches('*').to_owned());
        }
        go
    }
}

/// The Go type that a table type stands for when the table does not name another.
pub(super) fn implied_go(schema: &Schema, ty: &Type) -> String {
    match ty {
        Type::Bool => "bool".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Float64 => "float64".to_owned(),
        Type::String => "string".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Duration => "v1.Duration".to_owned(),
        Type::RawExtension => "runtime.RawExtension".to_owned(),
        Type::FieldsV1 => "v1.FieldsV1".to_owned(),
        Type::Any => "interface {}".to_owned(),
        Type::Json => "v1.JSON".to_owned(),
        Type::SchemaOr(Alternative::Bool, _) => "v1.JSONSchemaPropsOrBool".to_owned(),
        Type::SchemaOr(Alternative::List, _) => "v1.JSONSchemaPropsOrArray".to_owned(),
        Type::SchemaOr(Alternative::Strings, _) => "v1.JSONSchemaPropsOrStringArray".to_owned(),
        Type::Struct(id) => format!("{}.{}", package(schema.get(*id)), schema.get(*id).go),
        Type::List(inner) => format!("[]{}", implied_go(schema, inner)),
        Type::Map(inner) => format!("map[string]{}", implied_go(schema, inner)),
    }
}
