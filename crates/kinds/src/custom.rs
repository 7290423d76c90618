//! Custom resources: the kinds that CustomResourceDefinitions make. They are kinds like any other; only their facts and rules come
//! from what a user has written.

mod acceptance;
mod columns;
mod names;
mod version;

use std::sync::Arc;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::table::ColumnDefinition;
use jiff::Timestamp;
use serde_json::{Value, json};
use structural::{JsonPath, Structural};

pub use acceptance::{accept, conditions, finish, has_its_names, is_established, is_kept, set_terminating};
use columns::Columns;
pub use names::AcceptedNames;
pub use version::{CustomVersion, DefinitionError, version_priority, versions};

use crate::def::{KindDef, Names};
use crate::strategy::{Fields, Strategy};

/// One version of a custom resource.
pub struct CustomKind {
    def: KindDef,
    schema: Arc<Structural>,
    columns: Columns,
    selectable: Names,
    fields: Vec<JsonPath>,
}

impl CustomKind {
    /// What the scale sub-resource reads is what it can show (upstream: `registry/customresource/validator.go`). A write of the status is asked of its
    /// own part alone.
    fn validate_scale(&self, object: &Value, is_status: bool, errors: &mut Errors) {
        let Some(paths) = self.def.scale() else { return };
        if !is_status {
            validate_count(object, &paths.replicas, errors);
        }
        validate_count(object, &paths.status_replicas, errors);
        if let Some(pointer) = &paths.selector
            && let Some(other) = object.pointer(pointer).filter(|selector| !selector.is_string())
        {
            refuse_type(pointer, other, json!(""), "string", errors);
        }
    }
}

/// A count of pods is a small number, and not negative.
fn validate_count(object: &Value, pointer: &str, errors: &mut Errors) {
    let Some(value) = object.pointer(pointer).filter(|_| !pointer.is_empty()) else { return };
    let path = Path::new(&written(pointer));
    match value.as_i64() {
        None => refuse_type(pointer, value, json!(0), "int64", errors),
        Some(count) if count < 0 => errors.push(Error::invalid(&path, count, "should be a non-negative integer")),
        Some(count) if count > i64::from(i32::MAX) => {
            errors.push(Error::invalid(&path, count, format!("should be less than or equal to {}", i32::MAX)));
        }
        Some(_) => {}
    }
}

/// What of another type stands where a sub-resource reads, in the words of `unstructured.NestedInt64`.
fn refuse_type(pointer: &str, found: &Value, shown: Value, wanted: &str, errors: &mut Errors) {
    let (text, kind) = match found {
        Value::Null => ("<nil>".to_owned(), "<nil>"),
        Value::Bool(value) => (value.to_string(), "bool"),
        Value::Number(value) if value.is_f64() => (value.to_string(), "float64"),
        Value::Number(value) => (value.to_string(), "int64"),
        Value::String(text) => (text.clone(), "string"),
        Value::Array(_) => (found.to_string(), "[]interface {}"),
        Value::Object(_) => (found.to_string(), "map[string]interface {}"),
    };
    let path = written(pointer);
    let detail = format!("{path} accessor error: {text} is of the type {kind}, expected {wanted}");
    errors.push(Error::invalid(&Path::new(&path), shown, detail));
}

/// A path as definitions write it.
fn written(pointer: &str) -> String {
    pointer.replace('/', ".").replace("~1", "/").replace("~0", "~")
}

impl Strategy for CustomKind {
    fn def(&self) -> &KindDef {
        &self.def
    }

    fn schema(&self) -> Option<&Arc<Structural>> {
        Some(&self.schema)
    }

    fn apply_defaults(&self, object: &mut Value) {
        self.schema.apply_defaults(object);
    }

    fn prepare_create(&self, _: &mut Value) {}

    fn prepare_update(&self, _: &mut Value, _: &Value) {}

    fn validate(&self, object: &Value, _: &mut Vec<String>) -> Errors {
        let mut errors = self.schema.validate(object);
        self.validate_scale(object, false, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &mut Vec<String>) -> Errors {
        let mut errors = self.schema.validate_update(object, old);
        self.validate_scale(object, false, &mut errors);
        errors
    }

    fn validate_sub(&self, sub: &str, object: &Value, old: &Value, _: &mut Vec<String>) -> Errors {
        let is_status = self.def.subresource(sub).is_some_and(|sub| matches!(sub.behaviour, crate::Behaviour::Status));
        let mut errors = match is_status {
            true => self.schema.validate_field("status", object, old),
            false => self.schema.validate_update(object, old),
        };
        self.validate_scale(object, is_status, &mut errors);
        errors
    }

    fn selectable(&self) -> &Names {
        &self.selectable
    }

    fn fields(&self, object: &Value) -> Fields {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let values = self.fields.iter().map(|path| path.first(object).map(text).unwrap_or_default());
        values.enumerate().filter(|(_, value)| !value.is_empty()).collect()
    }

    fn columns(&self) -> Vec<ColumnDefinition> {
        self.columns.definitions()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        self.columns.row(object, now)
    }
}

#[cfg(test)]
mod tests;
