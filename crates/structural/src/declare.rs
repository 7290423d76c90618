//! What a schema declares to expressions: types, and how large values can be (`k8s.io/apiserver/pkg/cel/common/schemas.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Declaration, Form, Type};
use serde_json::Value;

use crate::node::{Additional, Kind, Node};

/// The largest object that anybody can send.
const REQUEST: u64 = 3 << 20;
/// Of a text, without its quotes.
const TEXT: u64 = REQUEST - 2;
/// The longest and the shortest forms of times, with their quotes.
const LONGEST_TIME: u64 = 32;
const DATE: u64 = 12;

/// What a schema declares; none where it does not say enough. `root` is the root of a resource, also of one that another holds.
pub(crate) fn declare(node: &Node, root: bool, name: &str) -> Option<Arc<Declaration>> {
    let plain =
        |ty, most, least_bytes| Some(Arc::new(Declaration { name: String::new(), form: Form::Plain(ty), most, least_bytes }));
    let limits = node.limits.as_deref();
    match node.kind {
        // Such objects are always fields of resources, or resources.
        _ if root => Some(object(node, true, name)),
        Kind::IntOrString => {
            plain(Type::Dyn, limits.and_then(|limits| limits.max_length).map_or(TEXT, |most| most.saturating_mul(4)), 1)
        }
        Kind::Any => None,
        Kind::Boolean => plain(Type::Bool, 0, 4),
        Kind::Number => plain(Type::Double, 0, 1),
        Kind::Integer => plain(Type::Int, 0, 1),
        Kind::String => text(node),
        Kind::Array => {
            let items = node.items.as_deref()?;
            let element = declare(items, items.embeds, &format!("{name}.@idx"))?;
            let most = limits.and_then(|limits| limits.max_items).unwrap_or((REQUEST - 2) / (element.least_bytes + 1));
            Some(Arc::new(Declaration { name: String::new(), form: Form::List(element), most, least_bytes: 2 }))
        }
        Kind::Object => match &node.additional {
            Additional::Of(values) => {
                let value = declare(values, values.embeds, &format!("{name}.@elem"))?;
                let most = limits.and_then(|limits| limits.max_properties).unwrap_or((REQUEST - 2) / (value.least_bytes + 6));
                Some(Arc::new(Declaration { name: String::new(), form: Form::Map(value), most, least_bytes: 2 }))
            }
            _ => Some(object(node, false, name)),
        },
    }
}

/// Whether a resource's schema has fields for all that every resource has.
fn tells_its_metadata(node: &Node) -> bool {
    let is = |node: &Node, field: &str, kind| node.properties.get(field).is_some_and(|field| field.kind == kind);
    let metadata = node.properties.get("metadata").filter(|metadata| metadata.kind == Kind::Object);
    let named =
        metadata.is_some_and(|metadata| ["name", "generateName"].into_iter().all(|field| is(metadata, field, Kind::String)));
    named && is(node, "kind", Kind::String) && is(node, "apiVersion", Kind::String)
}

fn text(node: &Node) -> Option<Arc<Declaration>> {
    let limits = node.limits.as_deref();
    let given = limits.and_then(|limits| limits.max_length);
    let (ty, most, least_bytes) = match limits.and_then(|limits| limits.format).map_or("", |format| format.name()) {
        "byte" => (Type::Bytes, given.unwrap_or(TEXT), 2),
        "duration" => (Type::Duration, LONGEST_TIME, 3),
        "date" => (Type::Timestamp, DATE, DATE),
        "date-time" | "datetime" => (Type::Timestamp, LONGEST_TIME, 21),
        _ => {
            let values = limits.and_then(|limits| limits.values.as_ref());
            let longest = values.map(|values| values.iter().filter_map(Value::as_str).map(str::len).max().unwrap_or(0) as u64);
            // A character has four bytes at most.
            (Type::String, given.map(|most| most.saturating_mul(4)).or(longest).unwrap_or(TEXT), 2)
        }
    };
    Some(Arc::new(Declaration { name: String::new(), form: Form::Plain(ty), most, least_bytes }))
}

fn object(node: &Node, root: bool, name: &str) -> Arc<Declaration> {
    let required = node.limits.as_deref().map(|limits| limits.required.as_slice()).unwrap_or_default();
    let mut fields = BTreeMap::new();
    // An object is `{}` at least.
    let mut least_bytes = 2;
    for (field, schema) in &node.properties {
        let Some(declared) = declare(schema, schema.embeds, &format!("{name}.{field}")) else { continue };
        if required.contains(field) && schema.default.is_none() {
            least_bytes += field.len() as u64 + declared.least_bytes + 4;
        }
        fields.insert(field.clone(), declared);
    }
    if root && !tells_its_metadata(node) {
        // Every resource has these, whether they are declared or not.
        let text = || Arc::new(Declaration { name: String::new(), form: Form::Plain(Type::String), most: TEXT, least_bytes: 2 });
        for field in ["apiVersion", "kind"] {
            fields.insert(field.to_owned(), text());
        }
        let names = ["name", "generateName"].map(|field| (field.to_owned(), text()));
        fields.insert("metadata".to_owned(), Declaration::object(&format!("{name}.metadata"), names));
    }
    Declaration::object_of(name, fields, least_bytes)
}
