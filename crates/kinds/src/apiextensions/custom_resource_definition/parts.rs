//! The parts of a schema.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use crate::rules::list;

/// Whether something holds of the schema or any part of it.
pub(super) fn any(schema: &JSONSchemaProps, holds: &mut impl FnMut(&JSONSchemaProps) -> bool) -> bool {
    if holds(schema) {
        return true;
    }
    let alternatives = [&schema.all_of, &schema.one_of, &schema.any_of];
    let mut parts: Vec<&JSONSchemaProps> = alternatives.into_iter().flat_map(list).collect();
    let maps = [&schema.properties, &schema.pattern_properties, &schema.definitions];
    parts.extend(maps.into_iter().flat_map(|map| map.iter().flat_map(|map| map.values())));
    parts.extend(schema.not.as_deref());
    if let Some(JSONSchemaPropsOrBool::Schema(inner)) = &schema.additional_properties {
        parts.push(inner);
    }
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => parts.push(items),
        Some(JSONSchemaPropsOrArray::Schemas(all)) => parts.extend(all),
        None => {}
    }
    parts.into_iter().any(|part| any(part, holds))
}

/// Whether there is a default anywhere.
pub(super) fn has_defaults(schema: &JSONSchemaProps) -> bool {
    any(schema, &mut |schema| schema.default.is_some())
}

/// The part of a schema at a path such as `.spec.size`.
pub(super) fn at<'a>(schema: &'a JSONSchemaProps, path: &str) -> Option<&'a JSONSchemaProps> {
    path.strip_prefix('.')?.split('.').try_fold(schema, |schema, name| schema.properties.as_ref()?.get(name))
}
