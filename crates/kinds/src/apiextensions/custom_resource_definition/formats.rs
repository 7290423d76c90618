//! Formats of values that the API server knows. Others are ignored, which the writer is told.

use std::collections::HashSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinitionSpec, JSONSchemaProps};

use super::{parts, versions};
use crate::rules::text;

/// Formats of texts, without their dashes.
const TEXT: &[&str] = &[
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

fn is_known(kind: &str, format: &str) -> bool {
    match kind {
        "" | "string" => TEXT.contains(&format.replace('-', "").as_str()),
        "integer" => ["int32", "int64"].contains(&format),
        "number" => ["float", "double"].contains(&format),
        _ => false,
    }
}

fn unknown(spec: &CustomResourceDefinitionSpec) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |schema: &JSONSchemaProps| {
        let format = text(&schema.format);
        if !format.is_empty() && !is_known(text(&schema.type_), format) {
            found.push(format.to_owned());
        }
        false
    };
    for version in versions::schemas(spec, &apimachinery::field::Path::root()) {
        parts::any(version.schema, &mut look);
    }
    found
}

/// One warning for each format that is new and unknown.
pub(super) fn warnings(spec: &CustomResourceDefinitionSpec, old: Option<&CustomResourceDefinitionSpec>) -> Vec<String> {
    let before: HashSet<String> = old.map(unknown).unwrap_or_default().into_iter().collect();
    let new = unknown(spec).into_iter().filter(|format| !before.contains(format));
    new.map(|format| format!("unrecognized format {format:?}")).collect()
}
