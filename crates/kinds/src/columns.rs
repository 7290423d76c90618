//! Table columns, as `kubectl get` shows them.

use jiff::Timestamp;
use serde_json::Value;

/// What upstream says of the name column.
pub const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const AGE_DESCRIPTION: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.";

/// Definition of one column.
#[derive(Clone, Copy, Debug)]
pub struct ColumnDef {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: &'static str,
    /// `name` for the name column, else empty.
    pub format: &'static str,
    /// Explanation.
    pub description: &'static str,
    /// 0 is always shown, more only in wide output.
    pub priority: i32,
}

impl ColumnDef {
    pub(crate) const NAME: Self =
        Self { name: "Name", kind: "string", format: "name", description: NAME_DESCRIPTION, priority: 0 };
    pub(crate) const AGE: Self = Self { name: "Age", kind: "string", format: "", description: AGE_DESCRIPTION, priority: 0 };
}

/// A column of a typed kind, with the function that fills its cell.
pub struct Column<K: 'static> {
    /// Definition.
    pub def: ColumnDef,
    /// The cell.
    pub cell: fn(&K, Timestamp) -> Value,
}

impl<K> Column<K> {
    /// A text column.
    pub const fn new(name: &'static str, description: &'static str, cell: fn(&K, Timestamp) -> Value) -> Self {
        Self { def: ColumnDef { name, kind: "string", format: "", description, priority: 0 }, cell }
    }

    /// A column of whole numbers.
    pub const fn integer(name: &'static str, description: &'static str, cell: fn(&K, Timestamp) -> Value) -> Self {
        Self { def: ColumnDef { name, kind: "integer", format: "", description, priority: 0 }, cell }
    }

    /// A text column that is shown in wide output only.
    pub const fn wide(name: &'static str, description: &'static str, cell: fn(&K, Timestamp) -> Value) -> Self {
        Self { def: ColumnDef { name, kind: "string", format: "", description, priority: 1 }, cell }
    }
}
