//! Versions of a custom resource: their names, schemas, sub-resources and columns.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinitionSpec, CustomResourceDefinitionVersion, CustomResourceSubresources,
    JSONSchemaProps, SelectableField,
};
use serde_json::json;

use super::schema::Located;
use super::{names, parts, schema};
use crate::rules::{self, list};

const COLUMN_TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const MAX_WARNING: usize = 256;
const MAX_SELECTABLE: usize = 8;

/// What all versions have in common, if they do.
fn common<T: PartialEq>(spec: &CustomResourceDefinitionSpec, part: impl Fn(&CustomResourceDefinitionVersion) -> &T) -> bool {
    spec.versions.windows(2).all(|pair| part(&pair[0]) == part(&pair[1]))
}

fn has_status(version: &CustomResourceDefinitionVersion) -> bool {
    version.subresources.as_ref().is_some_and(|subresources| subresources.status.is_some())
}

fn open_api(version: &CustomResourceDefinitionVersion) -> Option<&JSONSchemaProps> {
    version.schema.as_ref()?.open_api_v3_schema.as_ref()
}

/// The schemas: one where all versions have the same, and then as part of the whole.
pub(super) fn schemas<'a>(spec: &'a CustomResourceDefinitionSpec, path: &Path) -> Vec<Located<'a>> {
    if common(spec, |version| &version.schema) {
        let has_status = spec.versions.iter().any(has_status);
        let schema = spec.versions.first().and_then(open_api);
        let path = path.child("validation").child("openAPIV3Schema");
        return schema.map(|schema| Located { path, schema, has_status }).into_iter().collect();
    }
    let path = path.child("versions");
    let each = spec.versions.iter().enumerate();
    each.filter_map(|(index, version)| {
        let path = path.index(index).child("schema").child("openAPIV3Schema");
        open_api(version).map(|schema| Located { path, schema, has_status: has_status(version) })
    })
    .collect()
}

/// The rules of the schemas, but for those that were there before.
pub(super) fn validate_rules(
    spec: &CustomResourceDefinitionSpec,
    old: Option<&CustomResourceDefinitionSpec>,
    path: &Path,
    errors: &mut Errors,
) {
    let known: Vec<&JSONSchemaProps> = old.map(|old| &old.versions).into_iter().flatten().filter_map(open_api).collect();
    for found in schemas(spec, path).iter().filter(|found| !known.contains(&found.schema)) {
        schema::validate_rules(found, errors);
    }
}

/// Rules for each version, and for all of them together.
pub(super) fn validate(spec: &CustomResourceDefinitionSpec, path: &Path, errors: &mut Errors) {
    let (path, versions) = (path.child("versions"), &spec.versions);
    for (index, _) in versions.iter().enumerate().filter(|(_, version)| open_api(version).is_none()) {
        errors.push(Error::required(&path.index(index).child("schema").child("openAPIV3Schema"), ""));
    }
    let same_subresources = common(spec, |version| &version.subresources);
    let same_columns = common(spec, |version| &version.additional_printer_columns);
    let same_fields = common(spec, |version| &version.selectable_fields);
    for (index, version) in versions.iter().enumerate() {
        let path = path.index(index);
        names::label(&path.child("name"), &version.name, errors);
        validate_warning(version, &path.child("deprecationWarning"), errors);
        if !same_subresources {
            validate_subresources(version.subresources.as_ref(), &path.child("subresources"), errors);
        }
        if !same_columns {
            validate_columns(version, &path, errors);
        }
        if !same_fields {
            validate_selectable(list(&version.selectable_fields), open_api(version), &path, errors);
        }
    }
    let mut seen = HashSet::new();
    if !versions.iter().all(|version| seen.insert(version.name.as_str())) {
        errors.push(Error::invalid(&path, json!(versions), "must contain unique version names"));
    }
    if versions.iter().filter(|version| version.storage).count() != 1 {
        errors.push(Error::invalid(&path, json!(versions), "must have exactly one version marked as storage version"));
    }
}

/// Rules for the parts that upstream checks once where all versions have the same.
pub(super) fn validate_common(spec: &CustomResourceDefinitionSpec, path: &Path, errors: &mut Errors) {
    for found in schemas(spec, path) {
        schema::validate(&found, errors);
    }
    let Some(version) = spec.versions.first() else { return };
    if common(spec, |version| &version.subresources) {
        validate_subresources(version.subresources.as_ref(), &path.child("subresources"), errors);
    }
    if common(spec, |version| &version.additional_printer_columns) {
        validate_columns(version, path, errors);
    }
    if common(spec, |version| &version.selectable_fields) {
        validate_selectable(list(&version.selectable_fields), open_api(version), path, errors);
    }
}

fn validate_warning(version: &CustomResourceDefinitionVersion, path: &Path, errors: &mut Errors) {
    let Some(warning) = version.deprecation_warning.as_deref() else { return };
    let mut refuse = |detail: String| errors.push(Error::invalid(path, warning, detail));
    if version.deprecated != Some(true) {
        return refuse("can only be set for deprecated versions".to_owned());
    }
    if warning.len() > MAX_WARNING {
        refuse(format!("must be <= {MAX_WARNING} characters long"));
    }
    if warning.is_empty() {
        refuse("must not be an empty string".to_owned());
    }
    if let Some((index, _)) = warning.char_indices().find(|(_, char)| char.is_control()) {
        refuse(format!("must only contain printable UTF-8 characters; non-printable character found at index {index}"));
    }
}

fn validate_subresources(subresources: Option<&CustomResourceSubresources>, path: &Path, errors: &mut Errors) {
    let Some(scale) = subresources.and_then(|subresources| subresources.scale.as_ref()) else { return };
    let path = path.child("scale");
    for (field, value, parent) in
        [("specReplicasPath", &scale.spec_replicas_path, ".spec"), ("statusReplicasPath", &scale.status_replicas_path, ".status")]
    {
        let at = path.child(field);
        if value.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if !is_simple_path(value) {
            errors.push(Error::invalid(&at, value.as_str(), "must be a simple json path starting with ."));
        } else if !value.starts_with(&format!("{parent}.")) {
            errors.push(Error::invalid(&at, value.as_str(), format!("should be a json path under {parent}")));
        }
    }
    let selector = scale.label_selector_path.as_deref().unwrap_or_default();
    let at = path.child("labelSelectorPath");
    if selector.is_empty() {
        return;
    }
    if !is_simple_path(selector) {
        errors.push(Error::invalid(&at, selector, "must be a simple json path starting with ."));
    } else if !selector.starts_with(".spec.") && !selector.starts_with(".status.") {
        errors.push(Error::invalid(&at, selector, "should be a json path under either .spec or .status"));
    }
}

fn is_simple_path(path: &str) -> bool {
    path.starts_with('.')
}

fn validate_columns(version: &CustomResourceDefinitionVersion, path: &Path, errors: &mut Errors) {
    for (index, column) in list(&version.additional_printer_columns).iter().enumerate() {
        validate_column(column, &path.child("additionalPrinterColumns").index(index), errors);
    }
}

fn validate_column(column: &CustomResourceColumnDefinition, path: &Path, errors: &mut Errors) {
    rules::required(&path.child("name"), &column.name, errors);
    let (at, detail) = (path.child("type"), format!("must be one of {}", COLUMN_TYPES.join(",")));
    if column.type_.is_empty() {
        errors.push(Error::required(&at, detail));
    } else if !COLUMN_TYPES.contains(&column.type_.as_str()) {
        errors.push(Error::invalid(&at, column.type_.as_str(), detail));
    }
    let format = column.format.as_deref().unwrap_or_default();
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        errors.push(Error::invalid(&path.child("format"), format, format!("must be one of {}", COLUMN_FORMATS.join(","))));
    }
    let at = path.child("JSONPath");
    if column.json_path.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if !is_simple_path(&column.json_path) {
        errors.push(Error::invalid(&at, column.json_path.as_str(), "must be a simple json path starting with ."));
    }
}

fn validate_selectable(fields: &[SelectableField], schema: Option<&JSONSchemaProps>, path: &Path, errors: &mut Errors) {
    let path = path.child("selectableFields");
    if !fields.is_empty() && schema.is_none() {
        let detail = "may only be set when `version.schema.openAPIV3Schema` is not included";
        return errors.push(Error::invalid(&path, "", detail));
    }
    let mut unique = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let (at, given) = (path.index(index).child("jsonPath"), field.json_path.as_str());
        if given.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        let Some(target) = schema.and_then(|schema| parts::at(schema, given)) else {
            errors.push(Error::invalid(&at, given, "is an invalid path: does not refer to a valid field"));
            continue;
        };
        if given == ".metadata" || given.starts_with(".metadata.") {
            errors.push(Error::invalid(&at, given, "must not point to fields in metadata"));
        }
        if !["string", "boolean", "integer"].contains(&target.type_.as_deref().unwrap_or_default()) {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(Error::invalid(&at, given, detail));
        }
        if unique.contains(&given) {
            errors.push(Error::duplicate(&at, given));
        } else {
            unique.push(given);
        }
    }
    if unique.len() > MAX_SELECTABLE {
        errors.push(Error::too_many(&path, unique.len(), MAX_SELECTABLE));
    }
}

/// Every version in which objects are stored is still there.
pub(super) fn validate_stored(stored: &[String], versions: &[CustomResourceDefinitionVersion], errors: &mut Errors) {
    let path = Path::new("status").child("storedVersions");
    if stored.is_empty() {
        return errors.push(Error::invalid(&path, json!(stored), "must have at least one stored version"));
    }
    for version in versions.iter().filter(|version| version.storage && !stored.contains(&version.name)) {
        errors.push(Error::invalid(&path, stored, format!("must have the storage version {}", version.name)));
    }
    for (index, name) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version.name == *name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(Error::invalid(&path.index(index), name.as_str(), detail));
        }
    }
}
