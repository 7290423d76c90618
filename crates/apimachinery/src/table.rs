//! `meta.k8s.io/v1` tables, which `kubectl get` prints.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// How much of an object a row carries (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// All of it.
    Object,
    /// Nothing.
    None,
}

impl IncludeObject {
    /// Reads the query parameter; the error is upstream's.
    pub fn parse(text: &str) -> Result<Self, crate::field::Error> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            "None" => Ok(Self::None),
            other => {
                let path = crate::field::Path::new("includeObject");
                Err(crate::field::Error::invalid(&path, other, "must be 'Metadata', 'Object', 'None', or empty"))
            }
        }
    }
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDefinition {
    /// The heading.
    pub name: String,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean` or `date`.
    pub ty: String,
    /// OpenAPI format; `name` marks the column that identifies the object.
    pub format: String,
    /// For people.
    pub description: String,
    /// 0 is always shown, more only in wide output.
    pub priority: i32,
}

impl ColumnDefinition {
    /// A text column.
    pub fn text(name: impl Into<String>, priority: i32, description: impl Into<String>) -> Self {
        let (name, description) = (name.into(), description.into());
        Self { name, ty: "string".to_owned(), format: String::new(), description, priority }
    }

    /// The column of names, which every table begins with.
    pub fn name_column() -> Self {
        let description = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
        Self { format: "name".to_owned(), ..Self::text("Name", 0, description) }
    }

    /// As an element of a table's `columnDefinitions`.
    pub fn to_value(&self) -> Value {
        json!({"name": self.name, "type": self.ty, "format": self.format, "description": self.description, "priority": self.priority})
    }
}

/// A row: cells in the order of the columns, and the object they were made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Text, numbers, booleans or null.
    pub cells: Vec<Value>,
    /// What there is to say of the row as a whole, in the form of `TableRowCondition`.
    pub conditions: Vec<Value>,
    /// The object; cut down on serialisation.
    pub object: Value,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Empty in a watch after its first event.
    pub columns: Vec<ColumnDefinition>,
    /// One per object.
    pub rows: Vec<Row>,
    /// `resourceVersion`, `continue` and `remainingItemCount` of the list.
    pub metadata: Map<String, Value>,
}

impl Table {
    /// As an object of kind `Table`.
    pub fn to_value(&self, include: IncludeObject) -> Value {
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": self.metadata,
            "columnDefinitions": self.columns.iter().map(ColumnDefinition::to_value).collect::<Vec<_>>(),
            "rows": self.rows.iter().map(|r| r.to_value(include)).collect::<Vec<_>>(),
        })
    }
}

impl Row {
    fn to_value(&self, include: IncludeObject) -> Value {
        let object = match include {
            IncludeObject::None => Value::Null,
            IncludeObject::Object => self.object.clone(),
            IncludeObject::Metadata => partial_object_metadata(&self.object),
        };
        let mut row = json!({"cells": self.cells, "object": object});
        if !self.conditions.is_empty() {
            row["conditions"] = self.conditions.clone().into();
        }
        row
    }
}

/// The metadata of an object as a `PartialObjectMetadata`.
pub fn partial_object_metadata(object: &Value) -> Value {
    let metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

/// Metadata of a list of objects as a `PartialObjectMetadataList`.
pub fn partial_object_metadata_list(items: &[Value], metadata: &Map<String, Value>) -> Value {
    let items: Vec<Value> = items.iter().map(partial_object_metadata).collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
}

/// Time since an RFC 3339 time as kubectl prints it; `<unknown>` for none.
pub fn age(since: &str, now: Timestamp) -> String {
    crate::time::seconds_since(since, now).map_or_else(|| "<unknown>".to_owned(), human_duration)
}

/// A duration in seconds with two or three significant figures: `45s`, `3m20s`, `5h`, `2d4h`, `3y`.
pub fn human_duration(seconds: i64) -> String {
    let two = |big: i64, unit: char, small: i64, part: char| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{part}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, 'd', hours % 24, 'h'),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |seconds: i64, expected: &str| assert_eq!(human_duration(seconds), expected, "{seconds}");
        check(-5, "<invalid>");
        check(-1, "0s");
        check(0, "0s");
        check(119, "119s");
        check(120, "2m");
        check(125, "2m5s");
        check(600, "10m");
        check(179 * 60, "179m");
        check(3 * 3600, "3h");
        check(3 * 3600 + 61, "3h1m");
        check(8 * 3600 + 60, "8h");
        check(48 * 3600, "2d");
        check(50 * 3600, "2d2h");
        check(8 * 86_400 + 3600, "8d");
        check(729 * 86_400, "729d");
        check(731 * 86_400, "2y1d");
        check(9 * 365 * 86_400, "9y");
    }

    #[test]
    fn ages() {
        let now = crate::time::parse("2026-01-01T00:01:00Z").unwrap_or_default();
        assert_eq!((age("2026-01-01T00:00:00Z", now), age("", now)), ("60s".to_owned(), "<unknown>".to_owned()));
    }

    #[test]
    fn tables() {
        let object = json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": {}});
        let table = Table {
            columns: vec![ColumnDefinition::text("Status", 1, "d")],
            rows: vec![Row { cells: vec!["x".into(), 1.into()], conditions: Vec::new(), object: object.clone() }],
            metadata: Map::new(),
        };
        let check = |include, expected: Value| {
            let got = table.to_value(include);
            assert_eq!(got["rows"], json!([{"cells": ["x", 1], "object": expected}]));
            assert_eq!(
                got["columnDefinitions"],
                json!([{"name": "Status", "type": "string", "format": "", "description": "d", "priority": 1}])
            );
        };
        check(IncludeObject::None, Value::Null);
        check(IncludeObject::Object, object);
        check(
            IncludeObject::Metadata,
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a"}}),
        );
        assert!(IncludeObject::parse("All").is_err());
    }
}
