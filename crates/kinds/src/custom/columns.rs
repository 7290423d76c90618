//! Columns that a definition names (upstream: `registry/customresource/tableconvertor`).

use apimachinery::table::{ColumnDefinition, age};
use jiff::Timestamp;
use serde_json::Value;
use structural::{JsonPath, PathError};

use crate::columns::AGE_DESCRIPTION;

/// The columns of a version, the name aside.
pub(super) struct Columns(Vec<Column>);

struct Column {
    definition: ColumnDefinition,
    path: JsonPath,
}

impl Columns {
    /// Of `additionalPrinterColumns`; without any, the age. When one of them is no path there are none, as upstream.
    pub(super) fn new(columns: Option<&Vec<Value>>) -> Self {
        let columns = columns.map(Vec::as_slice).unwrap_or_default();
        let columns: Result<_, _> = match columns {
            [] => Column::age().map(|age| vec![age]),
            columns => columns.iter().map(Column::new).collect(),
        };
        Self(columns.unwrap_or_default())
    }

    pub(super) fn definitions(&self) -> Vec<ColumnDefinition> {
        let own = self.0.iter().map(|column| column.definition.clone());
        std::iter::once(ColumnDefinition::name_column()).chain(own).collect()
    }

    pub(super) fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = apimachinery::meta::name(object).into();
        let own = self.0.iter().map(|column| column.path.first(object).map_or(Value::Null, |value| column.cell(value, now)));
        std::iter::once(name).chain(own).collect()
    }
}

impl Column {
    fn age() -> Result<Self, PathError> {
        let definition = ColumnDefinition::text("Age", 0, AGE_DESCRIPTION);
        let definition = ColumnDefinition { ty: "date".to_owned(), ..definition };
        Ok(Self { definition, path: JsonPath::parse(".metadata.creationTimestamp")? })
    }

    fn new(column: &Value) -> Result<Self, PathError> {
        let text = |key: &str| column[key].as_str().unwrap_or_default();
        let path = text("jsonPath");
        let description = match text("description") {
            "" => format!("Custom resource definition column (in JSONPath format): {path}"),
            given => given.to_owned(),
        };
        let priority = column["priority"].as_i64().and_then(|priority| i32::try_from(priority).ok()).unwrap_or(0);
        let definition = ColumnDefinition::text(text("name"), priority, description);
        let definition = ColumnDefinition { ty: text("type").to_owned(), format: text("format").to_owned(), ..definition };
        Ok(Self { definition, path: JsonPath::parse(path)? })
    }

    /// A value as the column's type; null when it is of another one.
    fn cell(&self, value: &Value, now: Timestamp) -> Value {
        match (self.definition.ty.as_str(), value) {
            ("string", Value::Null) => Value::Null,
            ("string", Value::String(text)) => text.as_str().into(),
            ("string", other) => other.to_string().into(),
            ("integer", Value::Number(number)) => {
                number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)).map_or(Value::Null, Value::from)
            }
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            ("date", Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(_) => age(text, now).into(),
                Err(_) => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}
