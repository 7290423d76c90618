//! What becomes of objects for clients that ask for tables or metadata.

use std::io::Write;

use apimachinery::status::Reason;
use apimachinery::table::{ColumnDefinition, IncludeObject, Row, Table, partial_object_metadata};
use apimachinery::{Status, meta};
use jiff::Timestamp;
use registry::Served;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::query::Query;

/// Bytes within which the metadata of an encoded object begin.
const HEAD: usize = 256;

/// The version of the kinds of `meta.k8s.io`.
pub(super) fn meta_version(beta: bool) -> &'static str {
    if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
}

/// The object's metadata alone.
pub(crate) fn metadata(object: &Value, beta: bool) -> Value {
    let mut partial = partial_object_metadata(object);
    partial["apiVersion"] = meta_version(beta).into();
    partial
}

/// The metadata alone of an encoded object, as JSON. Nothing else of the object is read: metadata stand at its beginning.
/// None when they are not there, as in a bookmark's object.
pub(crate) fn metadata_json(object: &[u8], beta: bool) -> Option<Vec<u8>> {
    const KEY: &[u8] = br#","metadata":"#;
    let at = memchr::memmem::find(object, KEY)?;
    // Before it are only apiVersion and kind, which are plain words.
    if at > HEAD || !(object.starts_with(br#"{"apiVersion":""#) || object.starts_with(br#"{"kind":""#)) {
        return None;
    }
    let rest = object.get(at + KEY.len()..)?;
    let own: &RawValue = serde_json::Deserializer::from_slice(rest).into_iter().next()?.ok()?;
    let version = meta_version(beta);
    let mut out = Vec::with_capacity(own.get().len() + 80);
    // Writing to a Vec cannot fail.
    let _ = write!(out, r#"{{"kind":"PartialObjectMetadata","apiVersion":"{version}","metadata":{}}}"#, own.get());
    Some(out)
}

/// What a table's rows carry of their objects (`includeObject`).
pub(crate) fn include(query: &str) -> Result<IncludeObject, Status> {
    let text = if query.contains("includeObject") { Query::parse(query).get("includeObject").map(str::to_owned) } else { None };
    IncludeObject::parse(&text.unwrap_or_default())
        .map_err(|error| Status::bad_request(format!("Unable to convert to Table as requested: {error}")))
}

/// 406 for metadata of one object where there is a list, and the other way round.
pub(super) fn mismatch(asked: &str, but: &str, kind: &str) -> Status {
    let message = format!("you requested {asked}, but the requested object {but} ({kind})");
    Status::new(406, Reason::NotAcceptable, message)
}

/// The columns of a resource's tables.
pub(super) fn columns(resource: &Served) -> Value {
    resource.strategy.columns().iter().map(ColumnDefinition::to_value).collect()
}

/// `meta.k8s.io` Table of objects.
pub(crate) fn table(
    resource: &Served,
    objects: Vec<Value>,
    own: Map<String, Value>,
    include: IncludeObject,
    beta: bool,
) -> Value {
    let now = Timestamp::now();
    let is_scale = objects.first().is_some_and(|object| meta::kind(object) == "Scale");
    let columns = if is_scale { kinds::scale_columns() } else { resource.strategy.columns() };
    let cells = |object: &Value| if is_scale { kinds::scale_row(object, now) } else { resource.strategy.row(object, now) };
    let conditions = |object: &Value| if is_scale { Vec::new() } else { resource.strategy.row_conditions(object) };
    let row = |object: Value| Row { cells: cells(&object), conditions: conditions(&object), object };
    let table = Table { columns, rows: objects.into_iter().map(row).collect(), metadata: own };
    let mut value = table.to_value(include);
    if beta {
        value["apiVersion"] = meta_version(beta).into();
        for row in value["rows"].as_array_mut().into_iter().flatten().filter(|_| include == IncludeObject::Metadata) {
            row["object"]["apiVersion"] = meta_version(beta).into();
        }
    }
    value
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check_cut(object: &str, cut: bool) {
        let found = metadata_json(object.as_bytes(), false).map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
        assert_eq!(found, cut.then(|| metadata(&serde_json::from_str(object).unwrap(), false)));
    }

    #[test]
    fn metadata_are_cut_out_of_encoded_objects() {
        check_cut(r#"{"apiVersion":"v1","kind":"Map","metadata":{"name":"a","labels":{"x":"}"}},"data":{"k":"v"}}"#, true);
        check_cut(r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#, true);
        check_cut(r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#, true);
        check_cut(r#"{"data":{},"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#, false);
        check_cut(r#"{"apiVersion":"v1","kind":"Pod"}"#, false);
    }
}
