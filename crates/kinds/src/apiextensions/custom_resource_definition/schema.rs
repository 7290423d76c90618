//! Schemas of custom resources: what OpenAPI allows and what Kubernetes adds (upstream: `validation.go`).

mod lists;
mod rule;

use apimachinery::field::{Error, Errors, Path};
use codec::Encode;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, JSONSchemaPropsOrStringArray,
};

use super::structural as structure;
use crate::rules::{list, text};

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const META_FIELDS: &[&str] = &["metadata", "kind", "apiVersion"];
const ALLOWED_AT_ROOT: &str = "Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations";

/// A schema, where upstream reports what is wrong with it.
pub(super) struct Located<'a> {
    pub(super) path: Path,
    pub(super) schema: &'a JSONSchemaProps,
    /// The status is written through its own sub-resource.
    pub(super) has_status: bool,
}

/// Where in the schema a part stands.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    is_root: bool,
    /// Within the type or metadata of an object.
    in_meta: bool,
    /// Why there may be no default.
    no_defaults: Option<&'a str>,
}

/// The schema of a version.
pub(super) fn validate(located: &Located<'_>, errors: &mut Errors) {
    let (schema, path) = (located.schema, &located.path);
    let mut found = Errors::new();
    if located.has_status {
        validate_root(schema, path, &mut found);
    }
    if schema.nullable == Some(true) {
        found.push(Error::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    let unsupported = structure::unsupported(schema);
    if unsupported.is_none() {
        structure::validate(schema, path, &mut found);
    }
    validate_schema(schema, path, Place { is_root: true, ..Place::default() }, &mut found);
    if let (true, Some(why)) = (found.is_empty(), unsupported) {
        found.push(Error::invalid(path, "", why));
    }
    if found.is_empty() {
        compile(schema, path, &mut found);
    }
    errors.0.append(&mut found.0);
}

/// What is wrong only where the schema is used: what it cannot be compiled for, and defaults that it does not allow itself.
fn compile(schema: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
    let source = schema.to_tree().unwrap_or_default();
    match structural::Structural::compile(&source) {
        Ok(compiled) => {
            errors.extend(compiled.validate_default(path));
        }
        Err(error) => errors.push(Error::invalid(path, "", error.to_string())),
    }
}

/// What is wrong with the rules of a schema, whose types and costs follow from it, and with defaults that break them. It is looked at when it comes
/// or changes: what has been accepted stays.
pub(super) fn validate_rules(located: &Located<'_>, errors: &mut Errors) {
    let source = located.schema.to_tree().unwrap_or_default();
    let Ok(compiled) = structural::Structural::compile(&source) else { return };
    let mut found = compiled.validate_rules(&located.path);
    if found.is_empty() {
        found = compiled.validate_default_rules(&located.path);
    }
    errors.extend(found);
}

/// With a status of its own, only some fields may stand at the root: those that do not reach into the status.
fn validate_root(schema: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
    if text(&schema.type_) != "object" {
        let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return errors.push(Error::invalid(&path.child("type"), text(&schema.type_), detail));
    }
    let others = [
        schema.id.is_some(),
        schema.schema.is_some(),
        schema.ref_path.is_some(),
        schema.nullable == Some(true),
        schema.default.is_some(),
        !list(&schema.enum_).is_empty(),
        !list(&schema.all_of).is_empty(),
        !list(&schema.one_of).is_empty(),
        !list(&schema.any_of).is_empty(),
        schema.not.is_some(),
        schema.max_properties.is_some(),
        schema.min_properties.is_some(),
        schema.additional_properties.is_some(),
        schema.additional_items.is_some(),
        schema.pattern_properties.is_some(),
        schema.dependencies.is_some(),
        schema.definitions.is_some(),
        schema.x_kubernetes_embedded_resource == Some(true),
        schema.x_kubernetes_int_or_string == Some(true),
        !list(&schema.x_kubernetes_list_map_keys).is_empty(),
        schema.x_kubernetes_list_type.is_some(),
        schema.x_kubernetes_map_type.is_some(),
    ];
    if others.contains(&true) {
        let detail =
            format!("only [{ALLOWED_AT_ROOT}] fields are allowed at the root of the schema if the status subresource is enabled");
        let value = schema.to_tree().unwrap_or_default();
        errors.push(Error::invalid(path, value, detail));
    }
}

fn validate_schema(schema: &JSONSchemaProps, path: &Path, place: Place<'_>, errors: &mut Errors) {
    validate_standard(schema, path, place, errors);
    if schema.unique_items == Some(true) {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(Error::forbidden(&path.child("uniqueItems"), detail));
    }
    if let (Some(JSONSchemaPropsOrBool::Schema(_) | JSONSchemaPropsOrBool::Bool(false)), true) =
        (&schema.additional_properties, schema.properties.as_ref().is_some_and(|properties| !properties.is_empty()))
    {
        let detail = "additionalProperties and properties are mutual exclusive";
        errors.push(Error::forbidden(&path.child("additionalProperties"), detail));
    }
    validate_children(schema, path, Place { is_root: false, ..place }, place.is_root, errors);
    if schema.x_kubernetes_preserve_unknown_fields == Some(false) {
        let detail = "must be true or undefined";
        errors.push(Error::invalid(&path.child("x-kubernetes-preserve-unknown-fields"), false, detail));
    }
    lists::validate(schema, path, errors);
    for (index, rule) in list(&schema.x_kubernetes_validations).iter().enumerate() {
        rule::validate(rule, schema, &path.child("x-kubernetes-validations").index(index), errors);
    }
}

fn validate_children(schema: &JSONSchemaProps, path: &Path, place: Place<'_>, is_root: bool, errors: &mut Errors) {
    if let Some(JSONSchemaPropsOrBool::Schema(inner)) = &schema.additional_properties {
        let no_defaults = place.in_meta.then_some("inside additionalProperties applying to object metadata");
        let place = Place { no_defaults: no_defaults.or(place.no_defaults), ..place };
        validate_schema(inner, &path.child("additionalProperties"), place, errors);
    }
    let embeds = is_root || schema.x_kubernetes_embedded_resource == Some(true);
    for (name, property) in schema.properties.iter().flatten() {
        let path = path.child("properties").key(name);
        if !embeds || !META_FIELDS.contains(&name.as_str()) {
            validate_schema(property, &path, place, errors);
            continue;
        }
        let reason = format!("in top-level {name}");
        let no_defaults = if is_root { Some(reason.as_str()) } else { place.no_defaults };
        validate_schema(property, &path, Place { in_meta: true, no_defaults, ..place }, errors);
    }
    if let Some(not) = &schema.not {
        validate_schema(not, &path.child("not"), place, errors);
    }
    for (name, parts) in [("allOf", &schema.all_of), ("oneOf", &schema.one_of), ("anyOf", &schema.any_of)] {
        for (index, part) in list(parts).iter().enumerate() {
            validate_schema(part, &path.child(name).index(index), place, errors);
        }
    }
    for (name, definition) in schema.definitions.iter().flatten() {
        validate_schema(definition, &path.child("definitions").key(name), place, errors);
    }
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => validate_schema(items, &path.child("items"), place, errors),
        Some(JSONSchemaPropsOrArray::Schemas(all)) => {
            for (index, items) in all.iter().enumerate() {
                validate_schema(items, &path.child("items").index(index), place, errors);
            }
        }
        None => {}
    }
    for (name, dependency) in schema.dependencies.iter().flatten() {
        if let JSONSchemaPropsOrStringArray::Schema(dependency) = dependency {
            validate_schema(dependency, &path.child("dependencies").key(name), place, errors);
        }
    }
}

/// What of OpenAPI is not supported.
fn validate_standard(schema: &JSONSchemaProps, path: &Path, place: Place<'_>, errors: &mut Errors) {
    let kind = text(&schema.type_);
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(Error::not_supported(&path.child("type"), kind, TYPES));
    }
    if let (Some(_), Some(why)) = (&schema.default, place.no_defaults) {
        errors.push(Error::forbidden(&path.child("default"), format!("must not be set {why}")));
    }
    let not_empty =
        |map: &Option<std::collections::BTreeMap<String, JSONSchemaProps>>| map.as_ref().is_some_and(|m| !m.is_empty());
    let unsupported = [
        ("id", !text(&schema.id).is_empty()),
        ("additionalItems", schema.additional_items.is_some()),
        ("patternProperties", not_empty(&schema.pattern_properties)),
        ("definitions", not_empty(&schema.definitions)),
        ("dependencies", schema.dependencies.is_some()),
        ("$ref", schema.ref_path.is_some()),
    ];
    for (field, _) in unsupported.into_iter().filter(|(_, set)| *set) {
        errors.push(Error::forbidden(&path.child(field), format!("{field} is not supported")));
    }
    let pattern = text(&schema.pattern);
    if let (false, Err(error)) = (pattern.is_empty(), structural::check_pattern(pattern)) {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(Error::invalid(&path.child("pattern"), pattern, detail));
    }
    if kind == "null" {
        let detail = "type cannot be set to null, use nullable as an alternative";
        errors.push(Error::forbidden(&path.child("type"), detail));
    }
    if let Some(JSONSchemaPropsOrArray::Schemas(all)) = &schema.items
        && !all.is_empty()
    {
        errors.push(Error::forbidden(&path.child("items"), "items must be a schema object and not an array"));
    }
    if place.in_meta && schema.x_kubernetes_embedded_resource == Some(true) {
        let detail = "must not be used inside of resource meta";
        errors.push(Error::forbidden(&path.child("x-kubernetes-embedded-resource"), detail));
    }
}
