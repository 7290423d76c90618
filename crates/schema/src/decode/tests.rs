#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn run(kind: (&str, &str, &str), value: &Value) -> (Value, Result<Vec<String>, String>) {
    let schema = Schema::builtin();
    let mut value = value.clone();
    let result = decode(schema, schema.kind(kind.0, kind.1, kind.2).unwrap(), &mut value);
    (value, result.map_err(|error| error.to_string()))
}

fn check_error(kind: (&str, &str, &str), value: &Value, expected: &str) {
    assert_eq!(run(kind, value).1, Err(expected.to_owned()));
}

const POD: (&str, &str, &str) = ("", "v1", "Pod");
const DEPLOYMENT: (&str, &str, &str) = ("apps", "v1", "Deployment");

#[test]
fn wrong_types_are_reported_as_go_does() {
    check_error(
        DEPLOYMENT,
        &json!({"spec": {"replicas": "1"}}),
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    check_error(
        POD,
        &json!({"spec": {"containers": [{"name": 1}]}}),
        "json: cannot unmarshal number into Go struct field Container.spec.containers.name of type string",
    );
    check_error(
        POD,
        &json!({"spec": {"containers": [{"imagePullPolicy": true}]}}),
        "json: cannot unmarshal bool into Go struct field Container.spec.containers.imagePullPolicy of type v1.PullPolicy",
    );
    check_error(
        POD,
        &json!({"spec": {"containers": {}}}),
        "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
    );
    check_error(
        POD,
        &json!({"spec": {"containers": [7]}}),
        "json: cannot unmarshal number into Go struct field PodSpec.spec.containers of type v1.Container",
    );
    check_error(
        POD,
        &json!({"metadata": {"labels": {"a": 1}}}),
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
    );
    check_error(
        POD,
        &json!({"spec": {"containers": [{"ports": [{"containerPort": 3_000_000_000u32}]}]}}),
        "json: cannot unmarshal number 3000000000 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
    );
    check_error(POD, &json!([]), "json: cannot unmarshal array into Go value of type v1.Pod");
}

#[test]
fn types_that_read_themselves() {
    let limits = |value: Value| json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": value}}}]}});
    check_error(
        POD,
        &limits(json!("x")),
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    for (given, canonical) in [(json!("1000m"), "1"), (json!(2), "2"), (json!(0.5), "500m"), (json!(null), "0")] {
        let (value, _) = run(POD, &limits(given));
        assert_eq!(value["spec"]["containers"][0]["resources"]["limits"]["cpu"], canonical);
    }
    check_error(
        POD,
        &json!({"metadata": {"deletionTimestamp": "x"}}),
        "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\"",
    );
    check_error(("", "v1", "Secret"), &json!({"data": {"a": "%"}}), "illegal base64 data at input byte 0");
    check_error(("", "v1", "Secret"), &json!({"data": {"a": "YQ"}}), "illegal base64 data at input byte 0");
    check_error(
        ("", "v1", "Service"),
        &json!({"spec": {"ports": [{"targetPort": true}]}}),
        "json: cannot unmarshal bool into Go value of type int32",
    );
}

#[test]
fn unknown_fields_are_named_and_dropped() {
    let (value, unknown) = run(
        POD,
        &json!({"spec": {"containers": [{"name": "a", "bar": 1}], "foo": {}}, "Metadata": {}, "metadata": {"labels": {"x": "y"}}}),
    );
    assert_eq!(unknown, Ok(vec!["Metadata".to_owned(), "spec.containers[0].bar".to_owned(), "spec.foo".to_owned()]));
    assert_eq!(value["spec"], json!({"containers": [{"name": "a", "resources": {}}]}));
}

#[test]
fn canonical_as_go_writes_it() {
    let given = json!({
        "metadata": {"name": "a", "namespace": "", "creationTimestamp": null, "labels": {}, "finalizers": []},
        "spec": {"replicas": 0, "minReadySeconds": 0, "selector": null, "paused": false},
        "status": null
    });
    let expected = json!({
        "metadata": {"name": "a"},
        "spec": {"replicas": 0, "selector": null, "strategy": {}, "template": {"metadata": {}, "spec": {"containers": null}}},
        "status": {}
    });
    assert_eq!(run(DEPLOYMENT, &given), (expected.clone(), Ok(Vec::new())));
    assert_eq!(run(DEPLOYMENT, &expected).0, expected);
}

#[test]
fn custom_resource_definitions() {
    let schema = |schema: Value| {
        json!({"spec": {"group": "a", "names": {"plural": "bs", "kind": "B"}, "scope": "Namespaced", "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}
        ]}})
    };
    let crd = ("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let given = json!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true, "default": {"a": null},
        "properties": {"a": {"maximum": 10.0, "minimum": 0.5, "additionalProperties": false, "items": {"type": "string"}, "required": []}}
    });
    let (value, unknown) = run(crd, &schema(given));
    assert_eq!(unknown, Ok(Vec::new()));
    assert_eq!(
        value["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        json!({
            "type": "object", "x-kubernetes-preserve-unknown-fields": true, "default": {"a": null},
            "properties": {"a": {"maximum": 10, "minimum": 0.5, "additionalProperties": false, "items": {"type": "string"}}}
        })
    );
    check_error(crd, &schema(json!({"additionalProperties": "x"})), "boolean or JSON schema expected");
}

#[test]
fn check_changes_nothing() {
    let schema = Schema::builtin();
    let value = json!({"spec": {"x": null}});
    assert_eq!(check(schema, schema.kind("", "v1", "Pod").unwrap(), &value), Ok(vec!["spec.x".to_owned()]));
}
