//! Table columns, as `kubectl get` shows them.

use apimachinery::table::ColumnDefinition;
use jiff::Timestamp;
use serde_json::Value;

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
    pub(crate) const AGE: Self = Self { name: "Age", kind: "string", format: "", description: AGE_DESCRIPTION, priority: 0 };

    /// In the form that tables are made of.
    pub(crate) fn definition(&self) -> ColumnDefinition {
        let text = ColumnDefinition::text(self.name, self.priority, self.description);
        ColumnDefinition { ty: self.kind.to_owned(), format: self.format.to_owned(), ..text }
    }
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
