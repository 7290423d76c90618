#![allow(clippy::unwrap_used)]

use super::*;

fn root(group: &str, version: &str, kind: &str) -> TypeId {
    Schema::builtin().kind(group, version, kind).unwrap()
}

fn check(definitions: &Map<String, Value>, name: &str, field: &str, expected: Value) {
    let mut actual = definitions[name]["properties"][field].clone();
    actual.as_object_mut().unwrap().remove("description");
    assert_eq!(actual, expected, "{name} {field}");
}

const CORE: &str = "io.k8s.api.core.v1";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

#[test]
fn v2_has_the_published_shape() {
    let all = v2_definitions(Schema::builtin(), &Docs::builtin(), &[root("", "v1", "Pod")]);
    let reference = |name: &str| json!({"$ref": format!("#/definitions/{name}")});
    check(&all, &format!("{CORE}.Pod"), "spec", reference(&format!("{CORE}.PodSpec")));
    check(
        &all,
        &format!("{CORE}.Container"),
        "ports",
        json!({
            "type": "array", "items": reference(&format!("{CORE}.ContainerPort")),
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
            "x-kubernetes-patch-merge-key": "containerPort", "x-kubernetes-patch-strategy": "merge"
        }),
    );
    check(
        &all,
        &format!("{CORE}.PodSpec"),
        "nodeSelector",
        json!({"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"}),
    );
    check(&all, &format!("{CORE}.ContainerPort"), "containerPort", json!({"type": "integer", "format": "int32"}));
    assert_eq!(all[&format!("{CORE}.PodSpec")]["required"], json!(["containers"]));
    assert_eq!(
        all[&format!("{CORE}.Pod")]["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    assert_eq!(all["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"], "int-or-string");
    assert_eq!(all[&format!("{CORE}.ObjectFieldSelector")]["x-kubernetes-map-type"], "atomic");
}

#[test]
fn v3_has_the_published_shape() {
    let all = v3_schemas(Schema::builtin(), &Docs::builtin(), &[root("", "v1", "Pod"), root("", "v1", "DeleteOptions")]);
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    check(&all, &format!("{CORE}.Pod"), "spec", json!({"allOf": [reference(&format!("{CORE}.PodSpec"))], "default": {}}));
    check(&all, &format!("{META}.ObjectMeta"), "creationTimestamp", json!({"allOf": [reference(&format!("{META}.Time"))]}));
    check(
        &all,
        &format!("{META}.ObjectMeta"),
        "labels",
        json!({"type": "object", "additionalProperties": {"type": "string", "default": ""}}),
    );
    check(
        &all,
        &format!("{CORE}.ContainerPort"),
        "protocol",
        json!({"type": "string", "default": "TCP", "enum": ["SCTP", "TCP", "UDP"]}),
    );
    check(
        &all,
        &format!("{CORE}.ResourceRequirements"),
        "limits",
        json!({"type": "object", "additionalProperties": reference("io.k8s.apimachinery.pkg.api.resource.Quantity")}),
    );
    check(
        &all,
        &format!("{META}.ObjectMeta"),
        "managedFields",
        json!({
            "type": "array", "x-kubernetes-list-type": "atomic",
            "items": {"allOf": [reference(&format!("{META}.ManagedFieldsEntry"))], "default": {}}
        }),
    );
    let groups = all[&format!("{META}.DeleteOptions")]["x-kubernetes-group-version-kind"].as_array().unwrap();
    assert!(groups.contains(&json!({"group": "apps", "version": "v1", "kind": "DeleteOptions"})));
}

/// Every reference leads somewhere, every kind has a definition, and nearly everything is described.
#[test]
fn documents_are_complete() {
    let (schema, docs) = (Schema::builtin(), Docs::builtin());
    let roots: Vec<_> = schema.kinds().map(|kind| kind.3).collect();
    for (all, base) in
        [(v2_definitions(schema, &docs, &roots), "#/definitions/"), (v3_schemas(schema, &docs, &roots), "#/components/schemas/")]
    {
        let text = serde_json::to_string(&all).unwrap();
        for part in text.split("\"$ref\":\"").skip(1) {
            let name = part.split('"').next().unwrap().strip_prefix(base).unwrap();
            assert!(all.contains_key(name), "{name}");
        }
        assert!(schema.kinds().all(|kind| all.contains_key(schema.get(kind.3).name)));
    }
    let fields: Vec<_> = schema.types().flat_map(|(_, ty)| ty.fields.iter().map(move |field| (ty.name, field.name))).collect();
    let bare = fields.iter().filter(|(ty, field)| docs.of(ty).unwrap().field(field).unwrap().description().is_empty()).count();
    assert!(bare < 60, "{bare} of {} fields have no description", fields.len());
}
