//! How server-side apply merges lists and maps: `x-kubernetes-list-type`, `x-kubernetes-list-map-keys`, `x-kubernetes-map-type`.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
use serde_json::json;

use crate::rules::{self, list, text};

const LIST_TYPE: &str = "x-kubernetes-list-type";
const LIST_KEYS: &str = "x-kubernetes-list-map-keys";
const MAP_TYPE: &str = "x-kubernetes-map-type";

pub(super) fn validate(schema: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
    let (list_type, map_type) = (schema.x_kubernetes_list_type.as_deref(), schema.x_kubernetes_map_type.as_deref());
    if map_type.is_some() {
        must_be(schema, "object", MAP_TYPE, path, errors);
    }
    rules::supported(&path.child(MAP_TYPE), map_type, &["atomic", "granular"], errors);
    if list_type.is_some()
        && must_be(schema, "array", LIST_TYPE, path, errors)
        && let (Some("set"), Some(items)) = (list_type, items(schema))
    {
        validate_set(items, &path.child("items"), errors);
    }
    rules::supported(&path.child(LIST_TYPE), list_type, &["atomic", "set", "map"], errors);
    if !list(&schema.x_kubernetes_list_map_keys).is_empty() {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list_type {
            None => errors.push(Error::required(&path.child(LIST_TYPE), detail)),
            Some("map") => {}
            Some(other) => errors.push(Error::invalid(&path.child(LIST_TYPE), other, detail)),
        }
    }
    if list_type == Some("map") {
        validate_map(schema, path, errors);
    }
    if let (Some(kind @ ("set" | "map")), Some(items)) = (list_type, items(schema)) {
        validate_elements(schema, items, kind, &path.child("items"), errors);
    }
}

fn items(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(items),
        _ => None,
    }
}

/// Whether the type is the one that an extension needs.
fn must_be(schema: &JSONSchemaProps, wanted: &str, extension: &str, path: &Path, errors: &mut Errors) -> bool {
    let (at, detail) = (path.child("type"), format!("must be {wanted} if {extension} is specified"));
    match text(&schema.type_) {
        "" => errors.push(Error::required(&at, detail)),
        kind if kind == wanted => return true,
        kind => errors.push(Error::invalid(&at, kind, detail)),
    }
    false
}

/// Elements of a set are compared as a whole.
fn validate_set(items: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let kind = items.x_kubernetes_list_type.clone();
    match text(&items.type_) {
        "array" if kind.as_deref().is_some_and(|kind| kind != "atomic") => {
            errors.push(Error::invalid(&path.child(LIST_TYPE), kind, detail));
        }
        "object" if items.x_kubernetes_map_type.as_deref() != Some("atomic") => {
            errors.push(Error::invalid(&path.child(MAP_TYPE), kind, detail));
        }
        _ => {}
    }
}

/// Elements of a map are objects, and their keys are scalars.
fn validate_map(schema: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
    let keys = list(&schema.x_kubernetes_list_map_keys);
    let at = path.child(LIST_KEYS);
    if keys.is_empty() {
        errors.push(Error::required(&at, "must not be empty if x-kubernetes-list-type is map"));
    }
    let items = match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => items,
        Some(other) => {
            let detail = "must only have a single schema if x-kubernetes-list-type is map";
            return errors.push(Error::invalid(&path.child("items"), json!(other), detail));
        }
        None => {
            let detail = "must have a schema if x-kubernetes-list-type is map";
            return errors.push(Error::required(&path.child("items"), detail));
        }
    };
    let (path, kind) = (path.child("items"), text(&items.type_));
    if kind != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        return errors.push(Error::invalid(&path.child("type"), kind, detail));
    }
    for (index, key) in keys.iter().enumerate() {
        match items.properties.as_ref().and_then(|properties| properties.get(key)).map(|property| text(&property.type_)) {
            Some("array" | "object") => {
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.push(Error::invalid(&path.child("properties").key(key).child("type"), kind, detail));
            }
            Some(_) => {}
            None => errors.push(Error::invalid(&at, keys, "entries must all be names of item properties")),
        }
        if keys[..index].contains(key) {
            errors.push(Error::invalid(&at, keys, "must not contain duplicate entries"));
        }
    }
}

/// Elements can be told apart: they are never null, and their keys are always there.
fn validate_elements(schema: &JSONSchemaProps, items: &JSONSchemaProps, kind: &str, path: &Path, errors: &mut Errors) {
    if items.nullable == Some(true) {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
        errors.push(Error::forbidden(&path.child("nullable"), detail));
    }
    for key in list(&schema.x_kubernetes_list_map_keys).iter().filter(|_| kind == "map") {
        let Some(property) = items.properties.as_ref().and_then(|properties| properties.get(key)) else { continue };
        let path = path.child("properties").key(key);
        if !list(&items.required).contains(key) && property.default.is_none() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(Error::required(&path.child("default"), detail));
        }
        if property.nullable == Some(true) {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(Error::forbidden(&path.child("nullable"), detail));
        }
    }
}
