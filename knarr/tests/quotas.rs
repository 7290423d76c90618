//! Quotas and limits of namespaces.
#![allow(clippy::unwrap_used)]

use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

const HARD: &str = "configmaps=3,count/replicasets.apps=1,pods=2,replicationcontrollers=1,requests.cpu=1,secrets=1,services=2,services.nodeports=1,services.loadbalancers=1";

fn pod(name: &str, cpu: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: c, image: "127.0.0.1:5000/busybox:1.36", command: [sleep, "1000"], resources: {{requests: {{cpu: {cpu}}}}}}}]
---"#
    )
}

fn replicas(kind: &str, version: &str, selector: &str) -> String {
    format!(
        r#"
apiVersion: {version}
kind: {kind}
metadata: {{name: none}}
spec:
  replicas: 0
  selector: {selector}
  template:
    metadata: {{labels: {{app: none}}}}
    spec: {{containers: [{{name: c, image: none}}]}}
---"#
    )
}

/// Conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and ensure its status is promptly calculated. [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod. [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a configMap. [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a secret. [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a service. [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replica set. [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replication controller. [Conformance]
#[test]
fn a_quota_captures_lives() {
    let c = Cluster::start(KNARR);
    c.k("create namespace small");
    c.k("config set-context --current --namespace=small");
    c.k("wait --for=create configmap/kube-root-ca.crt --timeout=30s");
    c.k(&format!("create quota all --hard={HARD}"));
    let used = |resource: &str| {
        let path = resource.replace('.', "\\.");
        c.k(&format!("get quota all -o jsonpath={{.status.used.{path}}}"))
    };
    let until = |resource: &str, amount: &str| {
        eventually(&format!("{amount} {resource} are used"), || (used(resource) == amount).then_some(()));
    };
    until("configmaps", "1");
    assert_eq!((used("pods").as_str(), used("requests.cpu").as_str()), ("0", "0"));

    c.k_with("apply -f -", &pod("a", "600m"));
    // What is let in counts at once.
    assert_eq!((used("pods").as_str(), used("requests.cpu").as_str()), ("1", "600m"));
    let refused = c.try_k_with("apply -f -", &pod("b", "500m"));
    let why = "pods \"b\" is forbidden: exceeded quota: all, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1";
    assert!(refused.code == Some(1) && refused.stderr.contains(why), "{refused:?}");
    let silent = c.try_kubectl(&["run", "silent", "--image=none"]);
    assert!(silent.stderr.contains("must specify requests.cpu for: silent"), "{silent:?}");
    c.k("delete pod a");
    until("pods", "0");
    until("requests.cpu", "0");

    let objects = "{apiVersion: v1, kind: ConfigMap, metadata: {name: none}}\n---\n{apiVersion: v1, kind: Secret, metadata: {name: none}}\n---".to_owned()
        + &replicas("ReplicaSet", "apps/v1", "{matchLabels: {app: none}}")
        + &replicas("ReplicationController", "v1", "{app: none}");
    c.k_with("apply -f -", &objects);
    c.k("create service nodeport none --tcp=80");
    let counts = [
        ("configmaps", "2"),
        ("secrets", "1"),
        ("count/replicasets.apps", "1"),
        ("replicationcontrollers", "1"),
        ("services", "1"),
        ("services.nodeports", "1"),
    ];
    counts.iter().for_each(|(resource, amount)| assert_eq!(used(resource), *amount, "{resource}"));
    let second = c.try_kubectl(&"create secret generic second".split(' ').collect::<Vec<_>>()).stderr;
    assert!(second.contains("exceeded quota: all, requested: secrets=1, used: secrets=1, limited: secrets=1"), "{second}");
    let second = c.try_kubectl(&"create service nodeport second --tcp=80".split(' ').collect::<Vec<_>>()).stderr;
    assert!(second.contains("exceeded quota: all, requested: services.nodeports=1"), "{second}");
    // Nothing is lost for what was refused after all.
    assert!(c.try_kubectl(&"create configmap none".split(' ').collect::<Vec<_>>()).stderr.contains("already exists"));
    c.k("delete configmap,secret,replicaset,rc,service none");
    for (resource, amount) in [
        ("configmaps", "1"),
        ("secrets", "0"),
        ("count/replicasets.apps", "0"),
        ("replicationcontrollers", "0"),
        ("services", "0"),
        ("services.nodeports", "0"),
    ] {
        until(resource, amount);
    }
}

/// Conformance: [sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded quota [Conformance]
/// Conformance: [sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied. [Conformance]
#[test]
fn limits_are_kept() {
    let c = Cluster::start(KNARR);
    c.k("create quota pods --hard=pods=2");
    c.k("wait --for=jsonpath={.status.hard.pods}=2 quota/pods --timeout=30s");
    c.k_with(
        "apply -f -",
        &(replicas("ReplicaSet", "apps/v1", "{matchLabels: {app: none}}")
            + &replicas("ReplicationController", "v1", "{app: none}"))
            .replace("replicas: 0", "replicas: 3"),
    );
    for kind in ["rs", "rc"] {
        c.k(&format!("wait --for=jsonpath={{.status.conditions[0].reason}}=FailedCreate {kind}/none --timeout=30s"));
        c.k(&format!("scale {kind} none --replicas=0"));
        eventually("the condition goes", || {
            c.k(&format!("get {kind} none -o jsonpath={{.status.conditions}}")).is_empty().then_some(())
        });
    }
    c.k("delete quota pods");

    let range = "{apiVersion: v1, kind: LimitRange, metadata: {name: range}, spec: {limits: [{type: Container, default: {cpu: 500m}, defaultRequest: {cpu: 100m}, max: {cpu: 600m}, min: {cpu: 50m}}]}}";
    c.k_with("apply -f -", range);
    c.kubectl(&["run", "plain", "--image=none"]);
    assert_eq!(
        c.k("get pod plain -o jsonpath={.spec.containers[0].resources}"),
        r#"{"limits":{"cpu":"500m"},"requests":{"cpu":"100m"}}"#
    );
    let low = c.try_k_with("apply -f -", &pod("low", "10m"));
    assert!(low.stderr.contains("minimum cpu usage per Container is 50m, but request is 10m"), "{low:?}");
    let note = c.k("get pod plain -o jsonpath={.metadata.annotations.kubernetes\\.io/limit-ranger}");
    assert_eq!(note, "LimitRanger plugin set: cpu request for container plain; cpu limit for container plain");
}

/// Conformance: [sig-api-machinery] ResourceQuota should verify ResourceQuota with best effort scope. [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should verify ResourceQuota with terminating scopes. [Conformance]
#[test]
fn scopes_choose_pods() {
    let c = Cluster::start(KNARR);
    let scopes = ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating"];
    for scope in scopes {
        let name = scope.to_lowercase();
        c.k(&format!("create quota {name} --hard=pods=5 --scopes={scope}"));
        c.k(&format!("wait --for=jsonpath={{.status.hard.pods}}=5 quota/{name} --timeout=30s"));
    }
    let used = || {
        let of = |scope: &str| c.k(&format!("get quota {} -o jsonpath={{.status.used.pods}}", scope.to_lowercase()));
        scopes.map(of).join(" ")
    };
    c.kubectl(&["run", "plain", "--image=none"]);
    assert_eq!(used(), "1 0 0 1");
    let asks = r#"{"spec":{"activeDeadlineSeconds":3600,"containers":[{"name":"asks","image":"none","resources":{"requests":{"cpu":"1m"}}}]}}"#;
    c.kubectl(&["run", "asks", "--image=none", "--overrides", asks]);
    assert_eq!(used(), "1 1 1 1");
    // A deadline that comes later takes a pod from one scope to the other.
    c.k_with("patch pod plain --patch-file=/dev/stdin", r#"{"spec":{"activeDeadlineSeconds":3600}}"#);
    eventually("the pod has left its scope", || (used() == "1 1 2 0").then_some(()));
    c.k("delete pod plain asks --now");
    eventually("what has gone is given back", || (used() == "0 0 0 0").then_some(()));
}

fn device_claim(name: &str, count: u32) -> String {
    let exactly = format!("{{deviceClassName: gpu, allocationMode: ExactCount, count: {count}}}");
    let spec = format!("{{devices: {{requests: [{{name: r, exactly: {exactly}}}]}}}}");
    format!("{{apiVersion: resource.k8s.io/v1, kind: ResourceClaim, metadata: {{name: {name}}}, spec: {spec}}}\n---\n")
}

/// Docs "Resource Quotas", "Quota for DRA resource claims": devices count under each name of their class.
#[test]
fn devices_are_limited_by_class() {
    let c = Cluster::start(KNARR);
    let class = "{apiVersion: resource.k8s.io/v1, kind: DeviceClass, metadata: {name: gpu}, spec: {extendedResourceName: example.com/gpu}}";
    c.k_with("apply -f -", class);
    let names = [
        "gpu.deviceclass.resource.k8s.io/devices",
        "requests.deviceclass.resource.kubernetes.io/gpu",
        "requests.example.com/gpu",
        "count/resourceclaims.resource.k8s.io",
    ];
    let hard: Vec<String> = names.iter().map(|name| format!("{name}=3")).collect();
    c.k(&format!("create quota devices --hard={}", hard.join(",")));
    let used = || {
        let of = |name: &str| c.k(&format!("get quota devices -o jsonpath={{.status.used.{}}}", name.replace('.', "\\.")));
        names.map(of).join(" ")
    };
    eventually("the quota is counted", || (used() == "0 0 0 0").then_some(()));
    c.k_with("apply -f -", &device_claim("two", 2));
    assert_eq!(used(), "2 2 2 1");
    let over = c.try_k_with("apply -f -", &device_claim("more", 2));
    let requested = "exceeded quota: devices, requested: gpu.deviceclass.resource.k8s.io/devices=2,requests.deviceclass.resource.kubernetes.io/gpu=2,requests.example.com/gpu=2, used:";
    assert!(over.stderr.contains(requested), "{over:?}");
    // A pod that asks for the extended resource takes of it, too.
    let two = r#"{"spec":{"containers":[{"name":"pod","image":"none","resources":{"limits":{"example.com/gpu":"2"}}}]}}"#;
    let pod = c.try_k_with("create -f -", &two.replacen('{', r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"pod"},"#, 1));
    assert!(pod.stderr.contains("requested: requests.example.com/gpu=2, used: requests.example.com/gpu=2"), "{pod:?}");
    // Another name of the class counts for the claims that are there.
    c.k_with(
        "patch deviceclass gpu --type=merge --patch-file=/dev/stdin",
        r#"{"spec":{"extendedResourceName":"example.com/other"}}"#,
    );
    eventually("nothing has the old name", || (used() == "2 2 0 1").then_some(()));
    c.k("delete resourceclaim two");
    eventually("what has gone is given back", || (used() == "0 0 0 0").then_some(()));
}

/// KEP-3751: quotas may be about claims of volumes with a class of attributes.
#[test]
fn classes_of_attributes_are_scopes() {
    let c = Cluster::start(KNARR);
    let gold = "{scopeName: VolumeAttributesClass, operator: In, values: [gold]}";
    let quota = format!(
        "{{apiVersion: v1, kind: ResourceQuota, metadata: {{name: gold}}, spec: {{hard: {{persistentvolumeclaims: 1}}, scopeSelector: {{matchExpressions: [{gold}]}}}}}}"
    );
    c.k_with("apply -f -", &quota);
    let used = || c.k("get quota gold -o jsonpath={.status.used.persistentvolumeclaims}");
    eventually("the quota is counted", || (used() == "0").then_some(()));
    let claim = |name: &str, class: &str| {
        let spec = format!(
            "{{accessModes: [ReadWriteOnce], volumeAttributesClassName: {class}, resources: {{requests: {{storage: 1Mi}}}}}}"
        );
        format!("{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {spec}}}")
    };
    c.k_with("apply -f -", &claim("silver", "silver"));
    assert_eq!(used(), "0");
    c.k_with("apply -f -", &claim("gold", "gold"));
    assert_eq!(used(), "1");
    let over = c.try_k_with("apply -f -", &claim("more", "gold"));
    assert!(over.stderr.contains("exceeded quota: gold, requested: persistentvolumeclaims=1"), "{over:?}");
    c.k("delete pvc gold --now");
    eventually("what has gone is given back", || (used() == "0").then_some(()));
}
