//! Kinds that show the objects of another kind: one object, stored once, read and written through either API.
//!
//! Such an API has other names for some fields of the top level, and its own rules. Everything between the request and the
//! stored bytes works on the form that the client uses; only the registry, where it reads and writes bytes, changes names.
//! Managed fields change names too, so entries always carry the version in which the object is shown.

use apimachinery::meta;
use serde_json::{Map, Value};

use crate::strategy::Strategy;

/// How a kind shows the objects of another one.
pub struct View {
    /// The kind that is stored.
    pub stored: &'static dyn Strategy,
    /// Names of top-level fields: here, and in the stored kind.
    pub fields: &'static [(&'static str, &'static str)],
}

impl View {
    /// Turns an object, or a part of one, from the stored kind into the kind that `api_version` and `kind` name.
    pub fn show(&self, object: &mut Value, api_version: &str, kind: &str) {
        let names = self.fields.iter().map(|(own, stored)| (*stored, *own));
        convert(object, names, api_version, kind);
    }

    /// The same the other way round.
    pub fn store(&self, object: &mut Value) {
        let def = self.stored.def();
        convert(object, self.fields.iter().copied(), &def.api_version(), def.kind);
    }

    /// The stored kind's name for a field of a field selector, such as `involvedObject.name` for `regarding.name`.
    pub fn stored_field(&self, field: &str) -> String {
        let (first, rest) = field.split_at(field.find('.').unwrap_or(field.len()));
        let stored = self.fields.iter().find(|(own, _)| *own == first).map_or(first, |(_, stored)| *stored);
        format!("{stored}{rest}")
    }
}

fn convert<'a>(object: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)> + Clone, api_version: &str, kind: &str) {
    if let Some(fields) = object.as_object_mut() {
        rename(fields, names.clone());
    }
    let managed = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
    for entry in managed.into_iter().flatten() {
        entry["apiVersion"] = api_version.into();
        if let Some(fields) = entry.get_mut("fieldsV1").and_then(Value::as_object_mut) {
            let prefixed: Vec<(String, String)> =
                names.clone().map(|(from, to)| (format!("f:{from}"), format!("f:{to}"))).collect();
            rename(fields, prefixed.iter().map(|(from, to)| (from.as_str(), to.as_str())));
        }
    }
    meta::set_type(object, api_version, kind);
}

fn rename<'a>(fields: &mut Map<String, Value>, names: impl Iterator<Item = (&'a str, &'a str)>) {
    for (from, to) in names {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}
