//! The types of custom resources, as their definitions describe them (upstream: `controller/openapi/builder`).

mod v2;

use registry::{ObjectSchema, Served};
use serde_json::{Map, Value, json};

use super::operation::Dialect;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const EMBEDDED_API_VERSION: &str = "apiVersion defines the versioned schema of this representation of an object. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const EMBEDDED_KIND: &str = "kind is a string value representing the type of this object. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
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

/// The types of a custom resource: of its objects and of lists of them. None of a built-in kind, whose types are in the table.
pub(super) fn schemas(served: &Served, dialect: Dialect) -> Map<String, Value> {
    let ObjectSchema::Structural(schema) = &served.schema else { return Map::new() };
    let (own, list_kind) = (served.def.own_kind(), served.def.list_kind());
    let (name, of_list) = (type_name(own), (own.0, own.1, &*list_kind));
    let mut types = [object(schema.source(), own, dialect), list(&name, of_list, &served.def.plural, dialect)];
    if let Some(fields) = selectable(served) {
        types.iter_mut().for_each(|ty| ty["x-kubernetes-selectable-fields"] = fields.clone());
    }
    let [object, list] = types;
    Map::from_iter([(type_name(of_list), list), (name, object)])
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

fn is_true(schema: &Map<String, Value>, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

/// The fields that a custom resource can be selected by.
fn selectable(served: &Served) -> Option<Value> {
    let names = served.strategy.selectable();
    let fields: Vec<Value> = names.iter().map(|field| json!({"fieldPath": field})).collect();
    (!fields.is_empty()).then(|| fields.into())
}

fn object(source: &Value, kind: (&str, &str, &str), dialect: Dialect) -> Value {
    // Version 2 says nothing of a resource that keeps unknown fields: kubectl would refuse what stands beside the fields that are told.
    let keeps_all = source["x-kubernetes-preserve-unknown-fields"] == true;
    if dialect == Dialect::V2 && keeps_all {
        return json!({"type": "object", "x-kubernetes-group-version-kind": of_kind(kind)});
    }
    let mut schema = source.clone();
    match dialect {
        Dialect::V2 => v2::simplify(&mut schema),
        Dialect::V3 => unfold(&mut schema),
    }
    embed(&mut schema, dialect);
    let properties = &mut schema["properties"];
    if !properties.is_object() {
        *properties = json!({});
    }
    properties["apiVersion"] = text(API_VERSION);
    properties["kind"] = text(KIND);
    properties["metadata"] = described("ObjectMeta", METADATA, dialect);
    schema["x-kubernetes-group-version-kind"] = of_kind(kind);
    schema
}

/// The schemas within a schema of an object, an array or a map.
fn children(schema: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    schema.iter_mut().flat_map(|(name, value)| -> Box<dyn Iterator<Item = &mut Value>> {
        match (name.as_str(), value) {
            ("properties", Value::Object(properties)) => Box::new(properties.values_mut()),
            ("items" | "additionalProperties", value) => Box::new(std::iter::once(value)),
            _ => Box::new(std::iter::empty()),
        }
    })
}

/// Says of what is a number or a text that it is one of both, in words that clients know who do not know the extension.
fn unfold(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    let both = || json!([{"type": "integer"}, {"type": "string"}]);
    let said = map.get("anyOf") == Some(&both()) || map.get("allOf").is_some_and(|all| all[0]["anyOf"] == both());
    if is_true(map, "x-kubernetes-int-or-string") && !said {
        if map.contains_key("anyOf") {
            let mut all = vec![json!({"anyOf": both()})];
            all.extend(map.remove("allOf").as_ref().and_then(Value::as_array).into_iter().flatten().cloned());
            map.insert("allOf".into(), all.into());
        } else {
            map.insert("anyOf".into(), both());
        }
    }
    children(map).for_each(unfold);
}

/// Tells of the type and the metadata of resources that are embedded. In version 2 of those only that keep no unknown fields.
fn embed(schema: &mut Value, dialect: Dialect) {
    let Some(map) = schema.as_object_mut() else { return };
    children(map).for_each(|child| embed(child, dialect));
    let open = dialect == Dialect::V2 && is_true(map, "x-kubernetes-preserve-unknown-fields");
    if open || !is_true(map, "x-kubernetes-embedded-resource") {
        return;
    }
    let properties = map.entry("properties").or_insert_with(|| json!({}));
    properties["apiVersion"] = text(EMBEDDED_API_VERSION);
    properties["kind"] = text(EMBEDDED_KIND);
    properties["metadata"] = described("ObjectMeta", METADATA, dialect);
    if let Some(required) = map.entry("required").or_insert_with(|| json!([])).as_array_mut() {
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|other| other == name) {
                required.push(name.into());
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(type_name(("stable.example.com", "v1", "Foo")), "com.example.stable.v1.Foo");
    }

    #[test]
    fn each_dialect_says_what_it_can() {
        let schema = json!({"type": "object", "oneOf": [{}], "properties": {"a": {"type": "string", "nullable": true}}});
        let v2 = object(&schema, ("g.io", "v1", "K"), Dialect::V2);
        assert_eq!((&v2["properties"]["a"], v2.get("oneOf")), (&json!({}), None));
        assert_eq!(v2["properties"]["metadata"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
        let v3 = object(&schema, ("g.io", "v1", "K"), Dialect::V3);
        assert_eq!((v3["properties"]["a"]["nullable"].clone(), v3["oneOf"].is_array()), (json!(true), true));
        assert_eq!(v3["x-kubernetes-group-version-kind"], json!([{"group": "g.io", "version": "v1", "kind": "K"}]));
    }

    #[test]
    fn a_number_or_a_text_is_told_in_version_3() {
        let both = json!([{"type": "integer"}, {"type": "string"}]);
        let of = |port: Value| {
            object(&json!({"type": "object", "properties": {"port": port}}), ("g.io", "v1", "K"), Dialect::V3)["properties"]["port"].clone()
        };
        let plain = of(json!({"x-kubernetes-int-or-string": true}));
        assert_eq!(plain, json!({"x-kubernetes-int-or-string": true, "anyOf": both}));
        assert_eq!(of(plain.clone()), plain, "what says so already");
        let patterned = of(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"pattern": "a"}], "allOf": [{"maxLength": 3}]}));
        assert_eq!(patterned["allOf"], json!([{"anyOf": both}, {"maxLength": 3}]));
    }

    #[test]
    fn embedded_resources_have_a_type_and_metadata() {
        let embedded = |keeps: bool, dialect: Dialect| {
            let resource =
                json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": keeps});
            object(&json!({"type": "object", "properties": {"template": resource}}), ("g.io", "v1", "K"), dialect)["properties"]["template"].clone()
        };
        for (keeps, dialect) in [(false, Dialect::V2), (false, Dialect::V3), (true, Dialect::V3)] {
            let found = embedded(keeps, dialect);
            assert_eq!(found["required"], json!(["kind", "apiVersion"]), "{dialect:?}");
            assert!(
                found["properties"]["metadata"]["description"].is_string() && found["properties"]["kind"]["type"] == "string"
            );
        }
        assert_eq!(embedded(true, Dialect::V2).get("properties"), None, "kubectl would refuse the unknown fields");
    }
}
