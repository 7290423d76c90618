//! Definitions of the types that read and write themselves.

use serde_json::{Value, json};

use super::Dialect;
use crate::types::{Alternative, Type};

/// The OpenAPI name and the definition of a special type.
pub(super) fn definition(ty: &Type, dialect: Dialect) -> (&'static str, Value) {
    let v3 = dialect == Dialect::V3;
    match ty {
        Type::Quantity => {
            let text = "A fixed-point number with an optional unit: a decimal suffix (n, u, m, k, M, G, T, P, E), a binary one (Ki, \
                        Mi, Gi, Ti, Pi, Ei) or a decimal exponent (e3). It is returned in canonical form: no fraction, and the \
                        largest suffix that loses no precision.";
            let schema = if v3 {
                json!({"description": text, "oneOf": [{"type": "string"}, {"type": "number"}]})
            } else {
                json!({"description": text, "type": "string"})
            };
            ("io.k8s.apimachinery.pkg.api.resource.Quantity", schema)
        }
        Type::IntOrString => {
            let text = "Either a 32-bit integer or a string, for instance a port number or the name of a port.";
            let schema = if v3 {
                json!({"description": text, "format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            } else {
                json!({"description": text, "format": "int-or-string", "type": "string"})
            };
            ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", schema)
        }
        Type::Time => (
            "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
            json!({"description": "A time in RFC 3339 form, with seconds.", "format": "date-time", "type": "string"}),
        ),
        Type::MicroTime => (
            "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
            json!({"description": "A time in RFC 3339 form, with microseconds.", "format": "date-time", "type": "string"}),
        ),
        Type::Duration => (
            "io.k8s.apimachinery.pkg.apis.meta.v1.Duration",
            json!({"description": "A duration such as 1h30m or 100ms.", "type": "string"}),
        ),
        Type::FieldsV1 => (
            "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
            json!({
                "description": "A set of fields as a tree. A key is 'f:<name>' for a field, 'k:<keys>' for a list element by its keys, \
                                'v:<value>' for an element of a set, 'i:<index>' for one by position, or '.' for the parent itself.",
                "type": "object"
            }),
        ),
        Type::Json => (
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
            json!({"description": "Any JSON value: a boolean, a number, a string, a list, an object or null."}),
        ),
        Type::SchemaOr(Alternative::Bool, _) => (
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
            json!({"description": "A JSON schema, or a boolean: whether anything is allowed."}),
        ),
        Type::SchemaOr(Alternative::List, _) => (
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
            json!({"description": "A JSON schema, or a list of them. Mainly for the elements of lists."}),
        ),
        Type::SchemaOr(Alternative::Strings, _) => (
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
            json!({"description": "A JSON schema, or a list of strings."}),
        ),
        _ => (
            "io.k8s.apimachinery.pkg.runtime.RawExtension",
            json!({"description": "An object of any kind, or any other JSON object.", "type": "object"}),
        ),
    }
}
