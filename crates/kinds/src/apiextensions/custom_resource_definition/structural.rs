//! Structural schemas: every field has a type outside of `allOf`, `anyOf`, `oneOf` and `not` (KEP-1693, "structural schema").

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use super::parts;
use crate::rules::{list, text};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Why the schema cannot be read as a structural one.
pub(super) fn unsupported(root: &JSONSchemaProps) -> Option<String> {
    let mut found = None;
    parts::any(root, &mut |schema| {
        let not_empty = |set: Option<bool>| set == Some(false);
        let fields = [
            ("id", !text(&schema.id).is_empty()),
            ("schema", !text(&schema.schema).is_empty()),
            ("$ref", !text(&schema.ref_path).is_empty()),
            ("patternProperties", not_empty(schema.pattern_properties.as_ref().map(|map| map.is_empty()))),
            ("dependencies", not_empty(schema.dependencies.as_ref().map(|map| map.is_empty()))),
            ("additionalItems", schema.additional_items.is_some()),
            ("definitions", not_empty(schema.definitions.as_ref().map(|map| map.is_empty()))),
        ];
        found = fields.iter().find(|(_, set)| *set).map(|(field, _)| format!("OpenAPIV3Schema '{field}' is not supported"));
        if let Some(JSONSchemaPropsOrArray::Schemas(all)) = &schema.items
            && !all.is_empty()
        {
            found.get_or_insert_with(|| "OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
        }
        if schema.x_kubernetes_preserve_unknown_fields == Some(false) {
            let detail = "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined";
            found.get_or_insert_with(|| detail.to_owned());
        }
        found.is_some()
    });
    found
}

/// Whether the schema is structural; errors in the order of their texts.
pub(super) fn validate(schema: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
    let mut found = Errors::new();
    validate_invariants(schema, Level::Root, path, &mut found);
    complete(schema, Some(schema), path, path, &mut found);
    found.0.sort_by_cached_key(ToString::to_string);
    errors.0.append(&mut found.0);
}

fn items(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(items),
        _ => None,
    }
}

fn is(flag: Option<bool>) -> bool {
    flag == Some(true)
}

fn validate_invariants(schema: &JSONSchemaProps, level: Level, path: &Path, errors: &mut Errors) {
    if text(&schema.type_) == "array" && items(schema).is_none() {
        errors.push(Error::required(&path.child("items"), "must be specified"));
    }
    if let Some(items) = items(schema) {
        validate_invariants(items, Level::Item, &path.child("items"), errors);
    }
    for (name, property) in schema.properties.iter().flatten() {
        validate_invariants(property, Level::Field, &path.child("properties").key(name), errors);
    }
    if let Some(additional) = &schema.additional_properties {
        let at = path.child("additionalProperties");
        if level == Level::Root {
            errors.push(Error::forbidden(&at, "must not be used at the root"));
        }
        if let JSONSchemaPropsOrBool::Schema(inner) = additional {
            validate_invariants(inner, Level::Field, &at, errors);
        }
    }
    validate_extensions(schema, path, errors);
    validate_values(schema, is_int_or_string(list(&schema.any_of)), first_is_int_or_string(schema), path, errors);
    validate_type(schema, level, path, errors);
    validate_meta(schema, level, path, errors);
}

fn validate_extensions(schema: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
    let excluded = [
        ("x-kubernetes-preserve-unknown-fields", is(schema.x_kubernetes_preserve_unknown_fields)),
        ("x-kubernetes-embedded-resource", is(schema.x_kubernetes_embedded_resource)),
    ];
    for (field, _) in excluded.into_iter().filter(|(_, set)| *set && is(schema.x_kubernetes_int_or_string)) {
        errors.push(Error::invalid(&path.child(field), true, "must be false if x-kubernetes-int-or-string is true"));
    }
}

fn validate_type(schema: &JSONSchemaProps, level: Level, path: &Path, errors: &mut Errors) {
    let (at, kind) = (path.child("type"), text(&schema.type_));
    let (embeds, preserves) = (is(schema.x_kubernetes_embedded_resource), is(schema.x_kubernetes_preserve_unknown_fields));
    if embeds && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        let missing = kind.is_empty();
        errors.push(if missing { Error::required(&at, detail) } else { Error::invalid(&at, kind, detail) });
    } else if kind.is_empty() && !is(schema.x_kubernetes_int_or_string) && !preserves {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(Error::required(&at, detail));
    }
    if embeds && schema.additional_properties.is_some() {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(Error::forbidden(&path.child("additionalProperties"), detail));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(Error::invalid(&at, kind, "must be object at the root"));
    }
}

/// The type and metadata of objects are Kubernetes' own: a schema may at most restrict names.
fn validate_meta(schema: &JSONSchemaProps, level: Level, path: &Path, errors: &mut Errors) {
    let embeds = is(schema.x_kubernetes_embedded_resource);
    let property = |name: &str| schema.properties.as_ref().and_then(|properties| properties.get(name));
    let checked = level == Level::Root || embeds;
    for name in ["kind", "apiVersion"] {
        if let Some(kind) = property(name).map(|property| text(&property.type_)).filter(|kind| checked && *kind != "string") {
            errors.push(Error::invalid(&path.child("properties").key(name).child("type"), kind, "must be string"));
        }
    }
    if let Some(metadata) = property("metadata") {
        let (at, kind) = (path.child("properties").key("metadata"), text(&metadata.type_));
        if checked && kind != "object" {
            errors.push(Error::invalid(&at.child("type"), kind, "must be object"));
        }
        if level == Level::Root && !restricts_names_only(metadata) {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(Error::forbidden(&at, detail));
        }
    }
    let is_empty = schema.properties.as_ref().is_none_or(|properties| properties.is_empty());
    if embeds && !is(schema.x_kubernetes_preserve_unknown_fields) && is_empty {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(Error::required(&path.child("properties"), detail));
    }
}

fn restricts_names_only(metadata: &JSONSchemaProps) -> bool {
    let names = metadata.properties.iter().flatten().all(|(name, _)| name == "name" || name == "generateName");
    // Left alone, and the default is refused elsewhere.
    let rest = JSONSchemaProps { properties: None, type_: None, default: None, ..metadata.clone() };
    names && rest == JSONSchemaProps::default()
}

/// Exactly `[{type: integer}, {type: string}]`.
fn is_int_or_string(any_of: &[JSONSchemaProps]) -> bool {
    let only = |kind: &str| JSONSchemaProps { type_: Some(kind.to_owned()), ..JSONSchemaProps::default() };
    any_of.len() == 2 && any_of[0] == only("integer") && any_of[1] == only("string")
}

fn first_is_int_or_string(schema: &JSONSchemaProps) -> bool {
    list(&schema.all_of).first().is_some_and(|first| is_int_or_string(list(&first.any_of)))
}

/// The junctors of a schema.
fn validate_values(schema: &JSONSchemaProps, skip_any: bool, skip_first: bool, path: &Path, errors: &mut Errors) {
    for (index, part) in list(&schema.any_of).iter().enumerate().filter(|_| !skip_any) {
        validate_nested(part, false, &path.child("anyOf").index(index), errors);
    }
    for (index, part) in list(&schema.all_of).iter().enumerate() {
        validate_nested(part, skip_first && index == 0, &path.child("allOf").index(index), errors);
    }
    for (index, part) in list(&schema.one_of).iter().enumerate() {
        validate_nested(part, false, &path.child("oneOf").index(index), errors);
    }
    if let Some(not) = &schema.not {
        validate_nested(not, false, &path.child("not"), errors);
    }
}

/// A schema below a junctor restricts values, and says nothing else.
fn validate_nested(schema: &JSONSchemaProps, skip_any: bool, path: &Path, errors: &mut Errors) {
    validate_values(schema, skip_any, false, path, errors);
    if let Some(items) = items(schema) {
        validate_nested(items, false, &path.child("items"), errors);
    }
    for (name, property) in schema.properties.iter().flatten() {
        validate_nested(property, false, &path.child("properties").key(name), errors);
    }
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let additional = !matches!(schema.additional_properties, None | Some(JSONSchemaPropsOrBool::Bool(false)));
    let (empty, undefined, off) =
        ("must be empty to be structural", "must be undefined to be structural", "must be false to be structural");
    let forbidden = [
        ("type", given(&schema.type_), empty),
        ("additionalProperties", additional, undefined),
        ("default", schema.default.is_some(), undefined),
        ("title", given(&schema.title), empty),
        ("description", given(&schema.description), empty),
        ("nullable", is(schema.nullable), off),
        ("x-kubernetes-preserve-unknown-fields", is(schema.x_kubernetes_preserve_unknown_fields), off),
        ("x-kubernetes-embedded-resource", is(schema.x_kubernetes_embedded_resource), off),
        ("x-kubernetes-int-or-string", is(schema.x_kubernetes_int_or_string), off),
        ("x-kubernetes-list-map-keys", !list(&schema.x_kubernetes_list_map_keys).is_empty(), empty),
        ("x-kubernetes-list-type", schema.x_kubernetes_list_type.is_some(), undefined),
        ("x-kubernetes-map-type", schema.x_kubernetes_map_type.is_some(), undefined),
        ("x-kubernetes-validations", !list(&schema.x_kubernetes_validations).is_empty(), empty),
    ];
    for (field, _, detail) in forbidden.into_iter().filter(|(_, set, _)| *set) {
        errors.push(Error::forbidden(&path.child(field), detail));
    }
    if schema.properties.as_ref().is_some_and(|properties| properties.contains_key("metadata")) {
        let detail = "must not be specified in a nested context";
        errors.push(Error::forbidden(&path.child("properties").key("metadata"), detail));
    }
}

/// What junctors speak of has a schema of its own outside of them.
fn complete(values: &JSONSchemaProps, own: Option<&JSONSchemaProps>, own_path: &Path, path: &Path, errors: &mut Errors) {
    if let Some(not) = &values.not {
        complete_nested(not, own, own_path, &path.child("not"), errors);
    }
    for (name, parts) in [("allOf", &values.all_of), ("anyOf", &values.any_of), ("oneOf", &values.one_of)] {
        for (index, part) in list(parts).iter().enumerate() {
            complete_nested(part, own, own_path, &path.child(name).index(index), errors);
        }
    }
}

fn complete_nested(values: &JSONSchemaProps, own: Option<&JSONSchemaProps>, own_path: &Path, path: &Path, errors: &mut Errors) {
    let Some(schema) = own else {
        return errors.push(Error::required(own_path, format!("because it is defined in {}", path.as_str())));
    };
    complete(values, own, own_path, path, errors);
    if let Some(inner) = items(values) {
        complete_nested(inner, items(schema), &own_path.child("items"), &path.child("items"), errors);
    }
    for (name, property) in values.properties.iter().flatten() {
        let known = schema.properties.as_ref().and_then(|properties| properties.get(name));
        let (own_path, path) = (own_path.child("properties").key(name), path.child("properties").key(name));
        complete_nested(property, known, &own_path, &path, errors);
    }
}
