//! Objects within objects, and the object itself: their type and metadata (upstream: `schema/objectmeta`).

use std::sync::LazyLock;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{meta, names};
use schema::{Schema, TypeError, TypeId};
use serde_json::Value;

use crate::node::Node;

/// The type of metadata.
static OBJECT_META: LazyLock<Option<TypeId>> =
    LazyLock::new(|| Schema::builtin().named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));

/// Gives metadata their types; the paths of their unknown fields.
pub(crate) fn coerce(root: &Node, object: &mut Value) -> Result<Vec<String>, TypeError> {
    let mut unknown = Vec::new();
    walk_mut(root, object, &Path::root(), &mut unknown)?;
    Ok(unknown)
}

fn walk_mut(node: &Node, value: &mut Value, path: &Path, unknown: &mut Vec<String>) -> Result<(), TypeError> {
    match value {
        Value::Object(map) => {
            if node.embeds
                && let Some(metadata) = map.get_mut("metadata").filter(|metadata| !metadata.is_null())
            {
                coerce_metadata(metadata, &path.child("metadata"), unknown)?;
            }
            for (key, value) in map.iter_mut() {
                if let Some(node) = node.field(key).filter(|node| node.has_embedded) {
                    walk_mut(node, value, &path.child(key), unknown)?;
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = node.items.as_deref().filter(|node| node.has_embedded) {
                for (index, item) in items.iter_mut().enumerate() {
                    walk_mut(node, item, &path.index(index), unknown)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn coerce_metadata(metadata: &mut Value, path: &Path, unknown: &mut Vec<String>) -> Result<(), TypeError> {
    let Some(ty) = *OBJECT_META else { return Ok(()) };
    let found = schema::decode(Schema::builtin(), ty, metadata)?;
    unknown.extend(found.into_iter().map(|field| path.child(&field).as_str().to_owned()));
    // Go writes the time of creation also when there is none; it was not in the object.
    if let Some(map) = metadata.as_object_mut()
        && map.get("creationTimestamp").is_some_and(Value::is_null)
    {
        map.remove("creationTimestamp");
    }
    Ok(())
}

/// Rules for the type and metadata of objects within the object.
pub(crate) fn validate(root: &Node, object: &Value) -> Errors {
    let mut errors = Errors::new();
    // The registry checks those of the object itself.
    below(root, object, &Path::root(), &mut errors);
    errors
}

/// The same of a part of an object, which may be an object itself.
pub(crate) fn validate_all(node: &Node, value: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if node.has_embedded {
        walk(node, value, path, &mut errors);
    }
    errors
}

fn walk(node: &Node, value: &Value, path: &Path, errors: &mut Errors) {
    if node.embeds && value.is_object() {
        check(value, path, errors);
    }
    below(node, value, path, errors);
}

fn below(node: &Node, value: &Value, path: &Path, errors: &mut Errors) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(property) = node.field(key).filter(|node| node.has_embedded) {
                    let path = if node.properties.contains_key(key) { path.child(key) } else { path.key(key) };
                    walk(property, value, &path, errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = node.items.as_deref().filter(|node| node.has_embedded) {
                for (index, item) in items.iter().enumerate() {
                    walk(node, item, &path.index(index), errors);
                }
            }
        }
        _ => {}
    }
}

fn check(object: &Value, path: &Path, errors: &mut Errors) {
    let text = |name: &str, errors: &mut Errors| {
        let at = path.child(name);
        match object.get(name) {
            None => errors.push(Error::required(&at, "")),
            Some(Value::String(text)) if text.is_empty() => errors.push(Error::invalid(&at, "", "must not be empty")),
            Some(Value::String(text)) => return Some((at, text.clone())),
            Some(other) => errors.push(Error::invalid(&at, other.clone(), "must be a string")),
        }
        None
    };
    if let Some((at, version)) = text("apiVersion", errors)
        && version.matches('/').count() > 1
    {
        let detail = format!("unexpected GroupVersion string: {version}");
        errors.push(Error::invalid(&at, version, detail));
    }
    if let Some((at, kind)) = text("kind", errors) {
        let found = names::name_is_1035_label(&kind.to_lowercase(), false);
        if !found.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", found.join(","));
            errors.push(Error::invalid(&at, kind, detail));
        }
    }
    if object.get("metadata").is_some_and(Value::is_object) {
        let mut named = object.clone();
        if meta::name(&named).is_empty() {
            meta::set_name(&mut named, "fakename");
        }
        let namespaced = !meta::namespace(&named).is_empty();
        errors.extend(meta::validate_object_meta(&named, namespaced, names::name_is_path_segment, &path.child("metadata")));
    }
}
