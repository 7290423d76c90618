#![allow(clippy::unwrap_used)]
use super::*;
use apimachinery::patch;

fn scaler(spec: &Value) -> Value {
    let base = json!({"metadata": {"name": "web"}, "spec": {"maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    let mut object = patch::merge(&base, &json!({"spec": spec})).unwrap();
    HorizontalPodAutoscaler::apply_defaults(&mut object);
    object
}

#[track_caller]
fn check(spec: Value, expected: &[&str]) {
    let mut errors = Errors::new();
    serde_json::from_value::<HorizontalPodAutoscaler>(scaler(&spec)).unwrap().validate_create(&mut errors);
    let expected: Vec<_> = expected.iter().map(|text| format!("spec.{text}")).collect();
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{spec}");
}

#[track_caller]
fn check_metric(metric: Value, expected: &[&str]) {
    let expected: Vec<_> = expected.iter().map(|text| format!("metrics[0].{text}")).collect();
    check(json!({"metrics": [metric]}), &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn defaults() {
    let spec = scaler(&json!({}))["spec"].take();
    assert_eq!((&spec["minReplicas"], &spec["metrics"], spec.get("behavior")), (&json!(1), &json!([default_metric()]), None));
    let spec = scaler(
        &json!({"behavior": {"scaleUp": {"selectPolicy": "Min"}, "scaleDown": {"stabilizationWindowSeconds": 60}}}),
    )["spec"]
        .take();
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    assert_eq!(
        spec["behavior"],
        json!({
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, percent]},
            "scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max", "policies": [percent]},
        })
    );
}

#[test]
fn sizes_and_targets() {
    check(json!({}), &[]);
    check(
        json!({"minReplicas": -1, "maxReplicas": -2}),
        &[
            "minReplicas: Invalid value: -1: must be greater than or equal to 1",
            "maxReplicas: Invalid value: -2: must be greater than 0",
            "maxReplicas: Invalid value: -2: must be greater than or equal to `minReplicas`",
        ],
    );
    check(json!({"minReplicas": 7}), &["maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`"]);
    check(
        json!({"scaleTargetRef": {"kind": "", "name": "a/b"}}),
        &["scaleTargetRef.kind: Required value", "scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'"],
    );
    check(
        json!({"minReplicas": 0}),
        &[
            "minReplicas: Invalid value: 0: must be greater than or equal to 1",
            "metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
        ],
    );
}

/// Upstream's `TestValidationOptionsForHorizontalPodAutoscaler`: a reference says a group and a version, and one from before may stay.
#[test]
fn versions_of_references() {
    let target = |version: Value, kind: &str| json!({"scaleTargetRef": {"apiVersion": version, "kind": kind}});
    let metric = |version: &str| {
        let object = json!({"describedObject": {"apiVersion": version, "kind": "Service", "name": "s"}, "metric": {"name": "m"},
            "target": {"type": "Value", "value": "1"}});
        json!({"metrics": [{"type": "Object", "object": object}]})
    };
    let (group, odd) = ("apiVersion must specify API group", "unexpected GroupVersion string: apps/v1/v2");
    let at_target = |value: &str, detail: &str| format!("scaleTargetRef.apiVersion: Invalid value: \"{value}\": {detail}");
    let of_metric = format!("metrics[0].object.describedObject.apiVersion: Invalid value: \"apps/v1/v2\": {odd}");
    check(target(json!("sea.example/v1"), "Ship"), &[]);
    check(target(json!(null), "Deployment"), &[&at_target("", group)]);
    check(target(json!("v1"), "Deployment"), &[&at_target("v1", group)]);
    check(target(json!(null), "ReplicationController"), &[]);
    check(target(json!("v1"), "ReplicationController"), &[]);
    for kind in ["Deployment", "ReplicationController"] {
        check(target(json!("apps/v1/v2"), kind), &[&at_target("apps/v1/v2", odd)]);
    }
    check(metric(""), &[]);
    check(metric("v1"), &[]);
    check(metric("apps/v1/v2"), &[&of_metric]);

    let changed = |old: Value, new: Value, expected: &[&str]| {
        let expected: Vec<_> = expected.iter().map(|text| format!("spec.{text}")).collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        crate::testing::check_update::<HorizontalPodAutoscaler>(scaler(&old), scaler(&new), &expected);
    };
    let with = |spec: Value, max: i32| patch::merge(&spec, &json!({"maxReplicas": max})).unwrap();
    let bare = target(json!(null), "Deployment");
    changed(bare.clone(), with(bare.clone(), 7), &[]);
    changed(bare.clone(), target(json!(null), "StatefulSet"), &[&at_target("", group)]);
    changed(bare, target(json!("v1"), "Deployment"), &[&at_target("v1", group)]);
    changed(metric("apps/v1/v2"), with(metric("apps/v1/v3"), 7), &[]);
    changed(metric("v1"), metric("apps/v1/v2"), &[&of_metric]);
}

#[test]
fn behaviors() {
    check(
        json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": -1, "selectPolicy": "Median", "policies": [],
            "tolerance": "-1"}}}),
        &[
            "behavior.scaleUp.stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero",
            "behavior.scaleUp.selectPolicy: Unsupported value: \"Median\": supported values: \"Disabled\", \"Max\", \"Min\"",
            "behavior.scaleUp.policies: Required value: must specify at least one Policy",
            "behavior.scaleUp.tolerance: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    check(
        json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 3601, "policies": [
            {"type": "Few", "value": 0, "periodSeconds": 1801}]}}}),
        &[
            "behavior.scaleDown.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
            "behavior.scaleDown.policies[0].type: Unsupported value: \"Few\": supported values: \"Percent\", \"Pods\"",
            "behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero",
            "behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
        ],
    );
}

#[test]
fn metrics() {
    let target = json!({"type": "Value", "value": "10"});
    let hits = json!({"name": "hits"});
    check_metric(
        json!({"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "a"}, "metric": hits, "target": target}}),
        &[],
    );
    check_metric(
        json!({"type": "Resource"}),
        &["resource: Required value: must populate information for the given metric source"],
    );
    check_metric(
        json!({"type": "Other"}),
        &[
            "type: Unsupported value: \"Other\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
            "type: Unsupported value: \"Other\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
        ],
    );
    check_metric(
        json!({"type": "Resource", "resource": {"name": "", "target": {"type": "Utilization", "averageUtilization": 0, "averageValue": "-1"}}}),
        &[
            "resource.name: Required value: must specify a resource name",
            "resource.target.averageValue: Invalid value: \"-1\": must be positive",
            "resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
            "resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
        ],
    );
    check_metric(
        json!({"type": "Pods", "pods": {"metric": {"name": ""}, "target": {"type": ""}}}),
        &[
            "pods.metric.name: Required value: must specify a metric name",
            "pods.target.type: Required value: must specify a metric target type",
            "pods.target.type: Invalid value: \"\": must be either Utilization, Value, or AverageValue",
            "pods.target.averageValue: Required value: must specify a positive target averageValue",
        ],
    );
    check_metric(
        json!({"type": "External", "external": {"metric": hits, "target": {"type": "Value", "value": "1", "averageValue": "1"}},
            "pods": {"metric": hits, "target": target}}),
        &[
            "external.target.value: Forbidden: may not set both a target value for metric and a per-pod target",
            "pods: Forbidden: must populate the given metric source only",
        ],
    );
    check_metric(
        json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "", "target": {"type": "Utilization"}}}),
        &[
            "containerResource.container: Required value: must specify a container",
            "containerResource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
        ],
    );
}

#[test]
fn cells() {
    let check = |specs: Value, statuses: Value, expected: &str| {
        let metrics = columns::metrics(
            &serde_json::from_value::<Vec<_>>(specs).unwrap(),
            &serde_json::from_value::<Vec<_>>(statuses).unwrap(),
        );
        assert_eq!(metrics, expected);
    };
    let cpu =
        json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
    let pods =
        json!({"type": "Pods", "pods": {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "100m"}}});
    let external = json!({"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "5"}}});
    check(json!([]), json!([]), "<none>");
    check(json!([cpu]), json!([]), "cpu: <unknown>/80%");
    let read = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 50}}});
    check(json!([cpu]), json!([read]), "cpu: 50%/80%");
    check(json!([pods, external, cpu]), json!([]), "<unknown>/100m, <unknown>/5 (avg) + 1 more...");
}
