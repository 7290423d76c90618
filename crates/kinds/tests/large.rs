//! Objects as large as a body may be, with lists of as many elements as it holds. Whatever compares each element with all others does
//! not end within the time of a test.
#![allow(clippy::unwrap_used)]

use kinds::{KINDS, Strategy};
use serde_json::{Value, json};

const MANY: usize = 40_000;

fn strategy(kind: &str) -> &'static dyn Strategy {
    *KINDS.iter().find(|strategy| strategy.def().kind == kind && strategy.def().version == "v1").unwrap()
}

fn many(f: impl Fn(usize) -> Value) -> Value {
    (0..MANY).map(f).collect()
}

fn pod(field: &str, list: Value) -> Value {
    let mut spec = json!({"restartPolicy": "Never", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}]});
    match field.strip_prefix("container.") {
        Some(field) => spec["containers"][0][field] = list,
        None => spec[field] = list,
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": spec})
}

/// Validates a new object, and an update that turns each list around.
fn check(kind: &str, object: Value) {
    let mut warnings = Vec::new();
    let mut object = object;
    strategy(kind).apply_defaults(&mut object);
    let errors = strategy(kind).validate(&object, &mut warnings);
    assert!(warnings.len() < 64 * MANY, "{}", warnings.len());
    assert!(errors.to_string().len() < 64 << 20);
    strategy(kind).validate_update(&object, &object, &mut warnings);
    strategy(kind).row(&object, jiff::Timestamp::UNIX_EPOCH);
}

#[test]
fn lists_of_a_pod() {
    let name = |n: usize| json!({"name": format!("n{n}")});
    let toleration = |n: usize| json!({"key": format!("k{n}"), "operator": "Exists"});
    check("Pod", pod("tolerations", many(toleration)));
    check("Pod", pod("container.ports", many(|_| json!({"containerPort": 80, "protocol": "TCP"}))));
    check("Pod", pod("container.ports", many(|n| json!({"containerPort": 80, "protocol": "TCP", "hostPort": n + 1}))));
    check("Pod", pod("container.env", many(name)));
    check("Pod", pod("container.resources", json!({"claims": many(name)})));
    check("Pod", pod("resourceClaims", many(name)));
    check("Pod", pod("schedulingGates", many(name)));
    check("Pod", pod("imagePullSecrets", many(name)));
    check("Pod", pod("initContainers", many(|n| json!({"name": format!("n{n}"), "image": "i", "restartPolicy": "Always"}))));
    check("Pod", pod("ephemeralContainers", many(|n| json!({"name": format!("n{n}"), "image": "i"}))));
    let spread = |n: usize| json!({"topologyKey": format!("k{n}"), "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1});
    check("Pod", pod("topologySpreadConstraints", many(spread)));
    let keys = many(|n| json!(format!("k{n}")));
    let selector = json!({"matchExpressions": many(|n| json!({"key": format!("k{n}"), "operator": "Exists"}))});
    let term = json!({"topologyKey": "t", "labelSelector": selector, "matchLabelKeys": keys, "mismatchLabelKeys": keys});
    let affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
    check("Pod", pod("affinity", json!({"podAffinity": affinity})));
}

#[test]
fn volumes_of_a_pod() {
    let claim = |n: usize| json!({"name": format!("n{n}"), "persistentVolumeClaim": {"claimName": format!("p-n{n}")}});
    let empty = |n: usize| json!({"name": format!("n{n}"), "emptyDir": {}});
    check("Pod", pod("volumes", many(claim)));
    check("Pod", pod("volumes", many(empty)));
    let mut object = pod("container.volumeMounts", many(|n| json!({"name": format!("n{n}"), "mountPath": format!("/m{n}")})));
    object["spec"]["containers"][0]["volumeDevices"] = many(|n| json!({"name": format!("n{n}"), "devicePath": format!("/d{n}")}));
    object["spec"]["volumes"] = many(empty);
    check("Pod", object);
}

#[test]
fn annotations_and_status_of_a_pod() {
    let mut object = pod("initContainers", many(|n| json!({"name": format!("n{n}"), "image": "i"})));
    let key = |n: usize| format!("container.apparmor.security.beta.kubernetes.io/x{n}");
    object["metadata"]["annotations"] =
        (0..MANY).map(|n| (key(n), json!("runtime/default"))).collect::<serde_json::Map<_, _>>().into();
    let status = |n: usize| {
        json!({"name": format!("n{n}"), "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 1}}})
    };
    object["status"] = json!({"initContainerStatuses": many(status), "podIPs": many(|n| json!({"ip": format!("10.0.{}.{}", n / 256, n % 256)}))});
    check("Pod", object.clone());
    let old = object.clone();
    object["status"]["initContainerStatuses"] = many(|n| {
        json!({"name": format!("n{n}"), "image": "i", "imageID": "i",
        "ready": false, "restartCount": 0, "state": {"running": {}}})
    });
    strategy("Pod").validate_sub("status", &object, &old, &mut Vec::new());
}

#[test]
fn lists_of_other_kinds() {
    let taint = |n: usize| json!({"key": format!("k{n}"), "effect": "NoSchedule"});
    let address = |n: usize| json!({"type": "Hostname", "address": format!("h{n}")});
    check(
        "Node",
        json!({"metadata": {"name": "n"}, "spec": {"taints": many(taint), "podCIDRs": many(|n| json!(format!("10.{}.{}.0/24", n / 256, n % 256)))},
        "status": {"addresses": many(address)}}),
    );
    let toleration = |n: usize| json!({"key": format!("k{n}"), "operator": "Exists"});
    check("RuntimeClass", json!({"metadata": {"name": "r"}, "handler": "h", "scheduling": {"tolerations": many(toleration)}}));
    let port = |n: usize| json!({"name": format!("p{n}"), "port": n % 65_535 + 1, "protocol": "TCP", "targetPort": 1, "nodePort": 30_000});
    let addresses = many(|n| json!(format!("10.{}.{}.1", n / 256, n % 256)));
    check(
        "Service",
        json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"type": "NodePort", "ports": many(port),
        "externalIPs": addresses, "loadBalancerSourceRanges": addresses, "sessionAffinity": "None"}}),
    );
    let subset = json!({"addresses": many(|n| json!({"ip": format!("10.{}.{}.1", n / 256, n % 256)})), "ports": many(port)});
    check("Endpoints", json!({"metadata": {"name": "s", "namespace": "n"}, "subsets": [subset]}));
    check(
        "EndpointSlice",
        json!({"metadata": {"name": "s", "namespace": "n"}, "addressType": "IPv4", "ports": many(|n| json!({"name": format!("p{n}")})),
        "endpoints": many(|n| json!({"addresses": [format!("10.{}.{}.1", n / 256, n % 256)]}))}),
    );
    check(
        "Namespace",
        json!({"metadata": {"name": "n", "finalizers": many(|n| json!(format!("a/f{n}"))),
        "ownerReferences": many(|n| json!({"apiVersion": "v1", "kind": "Pod", "name": format!("p{n}"), "uid": format!("u{n}"), "controller": true}))},
        "spec": {"finalizers": many(|n| json!(format!("a/f{n}")))}}),
    );
    let rule = |n: usize| json!({"verbs": ["get"], "apiGroups": [""], "resources": [format!("r{n}")]});
    check("Role", json!({"metadata": {"name": "r", "namespace": "n"}, "rules": many(rule)}));
}
