//! What the registry asks of any kind, built-in or defined by a user.

use std::sync::Arc;

use apimachinery::field::Errors;
use apimachinery::table::ColumnDefinition;
use jiff::Timestamp;
use serde_json::Value;
use structural::Structural;

use crate::conversion::Conversion;
use crate::def::{KindDef, Names};
use crate::typed::Requester;

/// Field selector values of an object: position in [`Strategy::selectable`], and the value.
pub type Fields = Vec<(usize, String)>;

/// An object-safe view of a kind. Objects are in their JSON form and schema-decoded.
pub trait Strategy: Send + Sync {
    /// Constant facts.
    fn def(&self) -> &KindDef;

    /// How this version becomes the stored one, none when it is the stored one.
    fn conversion(&self) -> Option<&'static Conversion> {
        None
    }

    /// The schema of a custom resource, none for a built-in kind, whose type is in the table.
    fn schema(&self) -> Option<&Arc<Structural>> {
        None
    }

    /// Fills in what the user left out.
    fn apply_defaults(&self, object: &mut Value);

    /// Clears what a creator may not set, beyond status.
    fn prepare_create(&self, object: &mut Value);

    /// Carries over what an update may not change silently, beyond status.
    fn prepare_update(&self, object: &mut Value, old: &Value);

    /// Carries over what an update of the status may not take away.
    fn prepare_status(&self, _object: &mut Value, _old: &Value) {}

    /// Notes who writes, and when, in a new object or (with `old`) in a changed one.
    fn record(&self, _object: &mut Value, _old: Option<&Value>, _by: &Requester<'_>) {}

    /// Seconds that the object is given to end when it is deleted; `asked` by whoever deletes it.
    fn grace_seconds(&self, _object: &Value, _asked: Option<i64>) -> i64 {
        0
    }

    /// Whether something besides finalizers keeps a deleted object.
    fn is_kept(&self, _object: &Value) -> bool {
        false
    }

    /// Changes an object that is marked as deleted.
    fn prepare_delete(&self, _object: &mut Value) {}

    /// Rules for a new object, beyond those for metadata, and what its creator should know besides.
    fn validate(&self, object: &Value, warnings: &mut Vec<String>) -> Errors;

    /// Rules for a changed object, beyond those for metadata, and what its writer should know besides.
    fn validate_update(&self, object: &Value, old: &Value, warnings: &mut Vec<String>) -> Errors;

    /// Rules for an update of a subresource, and what its writer should know besides.
    fn validate_sub(&self, sub: &str, object: &Value, old: &Value, warnings: &mut Vec<String>) -> Errors;

    /// Selectable fields beyond `metadata.name` and `metadata.namespace`: their names.
    fn selectable(&self) -> &Names;

    /// Those that have a value.
    fn fields(&self, object: &Value) -> Fields;

    /// Columns of the table form.
    fn columns(&self) -> Vec<ColumnDefinition>;

    /// One row of the table form.
    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value>;

    /// The `conditions` of a row.
    fn row_conditions(&self, _object: &Value) -> Vec<Value> {
        Vec::new()
    }
}

/// The rules of a kind: part of the program, or made of what a user has defined.
#[derive(Clone)]
pub enum Rules {
    /// A built-in kind.
    Builtin(&'static dyn Strategy),
    /// A kind of a user's own.
    Custom(Arc<dyn Strategy>),
}

impl std::ops::Deref for Rules {
    type Target = dyn Strategy;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Builtin(strategy) => *strategy,
            Self::Custom(strategy) => &**strategy,
        }
    }
}
