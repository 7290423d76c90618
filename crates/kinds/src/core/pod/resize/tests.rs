#![allow(clippy::unwrap_used)]
use super::*;
use crate::typed::Kind;
use apimachinery::patch;
use serde_json::json;

fn pod(change: &Value) -> Value {
    let resources = json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}});
    let base = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x:1", "resources": resources}],
        "initContainers": [{"name": "i", "image": "x:1"}]}});
    let mut pod = patch::merge(&base, change).unwrap();
    Pod::apply_defaults(&mut pod);
    pod
}

/// Sends `spec` to the sub-resource of a pod with `old` merged in.
#[track_caller]
fn check(old: Value, spec: Value, expected: &[&str]) {
    let old = pod(&old);
    let mut new = patch::merge(&old, &json!({"spec": spec})).unwrap();
    Pod::apply_defaults(&mut new);
    confine(&mut new, &old);
    let typed = |pod: Value| serde_json::from_value::<Pod>(pod).unwrap();
    let mut errors = Errors::new();
    validate(&typed(new), &typed(old), &mut errors);
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{spec}");
}

fn containers(resources: Value) -> Value {
    json!({"containers": [{"name": "c", "image": "x:1", "resources": resources}]})
}

#[test]
fn nothing_but_resources_changes() {
    let old = pod(&json!({"metadata": {"labels": {"a": "b"}}}));
    let more = json!({"requests": {"cpu": "200m", "memory": "64Mi"}});
    let mut sent = patch::merge(&old, &json!({"metadata": {"labels": {"a": "c"}}, "status": {"phase": "Running"}})).unwrap();
    (sent["spec"]["nodeName"], sent["spec"]["containers"][0]["image"]) = (json!("n"), json!("y:1"));
    sent["spec"]["containers"][0]["resources"] = more.clone();
    confine(&mut sent, &old);
    let mut expected = old.clone();
    expected["spec"]["containers"][0]["resources"] = more;
    assert_eq!(sent, expected);
}

#[test]
fn amounts() {
    let amounts = |requests: Value, limits: Value| containers(json!({"requests": requests, "limits": limits}));
    let all = json!({"cpu": "1", "memory": "128Mi"});
    check(json!({}), amounts(json!({"cpu": "200m", "memory": "32Mi"}), json!({"cpu": "2", "memory": "64Mi"})), &[]);
    check(
        json!({}),
        containers(json!({"requests": {"cpu": "100m", "memory": "64Mi"}})),
        &["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"],
    );
    check(
        json!({"spec": {"initContainers": null}}),
        amounts(all.clone(), all.clone()),
        &["spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing"],
    );
    let disk = json!({"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "1Gi"});
    check(json!({}), amounts(disk, all), &["spec: Forbidden: only cpu and memory resources are mutable"]);
}

#[test]
fn containers_stay() {
    check(
        json!({}),
        json!({"containers": [{"name": "c", "image": "x:1"}, {"name": "d", "image": "x:1"}]}),
        &[
            "spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing",
            "spec.containers: Forbidden: containers may not be added or removed on resize",
        ],
    );
    let mut other = containers(json!({"requests": {"cpu": "100m"}}));
    other["containers"][0]["name"] = json!("e");
    check(json!({}), other, &["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"]);
}

/// KEP-1287, v1.36: init containers that are no sidecars get other resources, too, while they run and before.
#[test]
fn init_containers() {
    let init = |resources: Value| json!({"initContainers": [{"name": "i", "image": "x:1", "resources": resources}]});
    let had = || json!({"spec": init(json!({"requests": {"cpu": "1"}}))});
    check(json!({}), init(json!({"requests": {"cpu": "1"}})), &[]);
    check(had(), init(json!({"requests": {"cpu": "2"}})), &[]);
    check(
        had(),
        init(json!({"requests": {"cpu": null, "memory": "1Mi"}})),
        &["spec.initContainers[0].resources.requests: Forbidden: resource requests cannot be removed"],
    );
    let disk = init(json!({"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}}));
    check(had(), disk, &["spec: Forbidden: only cpu and memory resources are mutable"]);
}

#[test]
fn pods_that_cannot_be_resized() {
    let more = containers(json!({"requests": {"cpu": "200m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}));
    let mirror = json!({"metadata": {"annotations": {MIRROR: "x"}}});
    check(mirror, more.clone(), &["<nil>: Forbidden: static pods cannot be resized"]);
    let running = |resources: Value| {
        json!({"status": {"containerStatuses": [{"name": "c", "image": "x", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {}}, "resources": resources}]}})
    };
    check(running(json!({})), more.clone(), &[]);
    check(running(Value::Null), more, &["spec: Forbidden: Pod running on node without support for resize"]);
}

#[test]
fn the_pod_as_a_whole() {
    let whole =
        |cpu: &str| json!({"resources": {"requests": {"cpu": cpu, "memory": "64Mi"}, "limits": {"cpu": "3", "memory": "1Gi"}}});
    check(json!({"spec": whole("500m")}), whole("2"), &[]);
    check(
        json!({"spec": whole("500m")}),
        json!({"resources": {"limits": {"cpu": null}}}),
        &["spec.resources.limits: Forbidden: resource limits cannot be removed"],
    );
}
