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
use serde_json::Value;
use structural::{JsonPath, Structural};

pub use acceptance::{accept, conditions, finish, has_its_names, is_accepted, is_kept, set_terminating};
use columns::Columns;
pub use names::AcceptedNames;
pub use version::{CustomVersion, DefinitionError, version_priority, versions};

use crate::def::{KindDef, Names};
use crate::strategy::{Fields, Strategy};
use crate::sub::ScalePaths;

/// One version of a custom resource.
pub struct CustomKind {
    def: KindDef,
    schema: Arc<Structural>,
    columns: Columns,
    selectable: Names,
    fields: Vec<JsonPath>,
}

impl CustomKind {
    /// Counts are small enough, and not negative (upstream: `registry/customresource/validator.go`).
    fn validate_scale(&self, object: &Value, paths: &ScalePaths, errors: &mut Errors) {
        for pointer in [&paths.replicas, &paths.status_replicas] {
            let Some(count) = object.pointer(pointer).and_then(Value::as_i64) else { continue };
            let path = Path::new(&pointer.trim_start_matches('/').replace('/', "."));
            if count < 0 {
                errors.push(Error::invalid(&path, count, "should be a non-negative integer"));
            } else if count > i64::from(i32::MAX) {
                errors.push(Error::invalid(&path, count, format!("should be less than or equal to {}", i32::MAX)));
            }
        }
    }

    fn validate_common(&self, object: &Value, errors: &mut Errors) {
        if let Some(paths) = self.def.scale() {
            self.validate_scale(object, paths, errors);
        }
    }
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
        self.validate_common(object, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &mut Vec<String>) -> Errors {
        let mut errors = self.schema.validate_update(object, old);
        self.validate_common(object, &mut errors);
        errors
    }

    fn validate_sub(&self, sub: &str, object: &Value, old: &Value, _: &mut Vec<String>) -> Errors {
        let is_status = self.def.subresource(sub).is_some_and(|sub| matches!(sub.behaviour, crate::Behaviour::Status));
        if is_status { self.schema.validate_field("status", object, old) } else { self.schema.validate_update(object, old) }
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
