//! The types of custom resources, as their definitions describe them (upstream: `controller/openapi/builder`).

use registry::{Catalog, ObjectSchema, Served};
use serde_json::{Map, Value, json};

use super::operation::Dialect;
use super::prefix;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const LIST_METADATA: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// The types that custom resources need of the table.
pub(super) const NEEDED: [&str; 2] =
    ["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"];

/// The name of a custom resource's type: its group the other way round, version and kind.
pub(super) fn type_name((group, version, kind): (&str, &str, &str)) -> String {
    let group: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{kind}", group.join("."))
}

/// The types of the custom resources of a document; of all documents without a `key`.
pub(super) fn schemas(catalog: &Catalog, key: Option<&str>, dialect: Dialect) -> Map<String, Value> {
    let mut out = Map::new();
    let wanted = |served: &&std::sync::Arc<Served>| key.is_none_or(|key| prefix(&served.def.group, &served.def.version) == key);
    for served in catalog.iter().filter(wanted) {
        let ObjectSchema::Structural(schema) = &served.schema else { continue };
        let own = served.def.own_kind();
        let name = type_name(own);
        let list_kind = served.def.list_kind();
        out.insert(type_name((own.0, own.1, &list_kind)), list(&name, (own.0, own.1, &list_kind), &served.def.plural, dialect));
        out.insert(name, object(schema.source(), own, dialect));
    }
    out
}

fn described(name: &str, description: &str, dialect: Dialect) -> Value {
    let reference = dialect.reference(&format!("{META}.{name}"));
    match dialect {
        // Nothing may stand beside a reference there.
        Dialect::V3 => json!({"description": description, "allOf": [reference]}),
        Dialect::V2 => json!({"description": description, "$ref": reference["$ref"]}),
    }
}

fn text(description: &str) -> Value {
    json!({"description": description, "type": "string"})
}

fn of_kind((group, version, kind): (&str, &str, &str)) -> Value {
    json!([{"group": group, "version": version, "kind": kind}])
}

fn object(source: &Value, kind: (&str, &str, &str), dialect: Dialect) -> Value {
    let mut schema = source.clone();
    if dialect == Dialect::V2 {
        simplify(&mut schema);
    }
    let keeps_all = schema["x-kubernetes-preserve-unknown-fields"] == true;
    if dialect == Dialect::V3 || !keeps_all {
        let properties = &mut schema["properties"];
        if !properties.is_object() {
            *properties = json!({});
        }
        properties["apiVersion"] = text(API_VERSION);
        properties["kind"] = text(KIND);
        properties["metadata"] = described("ObjectMeta", METADATA, dialect);
    }
    schema["x-kubernetes-group-version-kind"] = of_kind(kind);
    schema
}

fn list(item: &str, kind: (&str, &str, &str), plural: &str, dialect: Dialect) -> Value {
    let documentation = "More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
    json!({
        "description": format!("{} is a list of {}", kind.2, kind.2.trim_end_matches("List")), "type": "object", "required": ["items"],
        "properties": {
            "apiVersion": text(API_VERSION), "kind": text(KIND), "metadata": described("ListMeta", LIST_METADATA, dialect),
            "items": {
                "description": format!("List of {plural}. {documentation}"), "type": "array", "items": dialect.reference(item),
            },
        },
        "x-kubernetes-group-version-kind": of_kind(kind),
    })
}

/// Leaves out what version 2 of the specification has not, and what its clients trip over (upstream:
/// `controller/openapi/v2/conversion.go`).
fn simplify(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for junctor in ["allOf", "anyOf", "oneOf", "not"] {
        map.remove(junctor);
    }
    let nullable = map.remove("nullable") == Some(Value::Bool(true));
    if nullable {
        map.remove("type");
    }
    if nullable || map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        map.remove("items");
        map.remove("properties");
    }
    for (name, value) in map.iter_mut() {
        match (name.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(simplify),
            ("items" | "additionalProperties", value) => simplify(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(type_name(("stable.example.com", "v1", "Foo")), "com.example.stable.v1.Foo");
    }

    /// Conformance: [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields in an embedded object [Conformance]
    #[test]
    fn version_2_says_less() {
        let schema = json!({"type": "object", "oneOf": [{}], "properties": {
            "a": {"type": "string", "nullable": true}, "b": {"type": "array", "items": {"type": "object", "anyOf": [{}]}},
            "c": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"x": {"type": "string"}}},
        }});
        let v2 = object(&schema, ("g.io", "v1", "K"), Dialect::V2);
        assert_eq!(v2["properties"]["a"], json!({}));
        assert_eq!(v2["properties"]["b"], json!({"type": "array", "items": {"type": "object"}}));
        assert_eq!(v2["properties"]["c"], json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
        assert_eq!(v2.get("oneOf"), None);
        assert_eq!(v2["properties"]["metadata"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
        let v3 = object(&schema, ("g.io", "v1", "K"), Dialect::V3);
        assert_eq!((v3["properties"]["a"]["nullable"].clone(), v3["oneOf"].is_array()), (json!(true), true));
        assert_eq!(v3["x-kubernetes-group-version-kind"], json!([{"group": "g.io", "version": "v1", "kind": "K"}]));
    }
}
