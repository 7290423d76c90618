//! What upstream's conformance tests of `[sig-cli]` do with kubectl, on real containers.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const NGINX: &str = "127.0.0.1:5000/nginx:1.27";
const BUSYBOX: &str = "127.0.0.1:5000/busybox:1.36";

/// A ReplicationController of nginx.
fn controller(name: &str, replicas: u8) -> String {
    format!(
        "{{apiVersion: v1, kind: ReplicationController, metadata: {{name: {name}}}, spec: {{replicas: {replicas}, selector: {{app: {name}}},
        template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{terminationGracePeriodSeconds: 0,
        containers: [{{name: main, image: '{NGINX}', ports: [{{containerPort: 80}}]}}]}}}}}}}}"
    )
}

/// Whether a text has all parts, which stand on one line with `|` between them.
fn has(text: &str, parts: &str) {
    for part in parts.split('|') {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

/// The names of a controller's pods, when as many run as there are.
fn running(c: &Cluster, count: usize) -> Vec<String> {
    eventually(&format!("{count} pods run"), || {
        let pods = c.k("get pods -l app=web --field-selector=status.phase=Running -o name");
        let all = c.k("get pods -l app=web -o name");
        (pods.lines().count() == count && all == pods).then(|| pods.lines().map(str::to_owned).collect())
    })
}

/// Conformance: [sig-cli] Kubectl client Update Demo should create and stop a replication controller [Conformance]
/// Conformance: [sig-cli] Kubectl client Update Demo should scale a replication controller [Conformance]
/// Conformance: [sig-cli] Kubectl client Kubectl patch should add annotations for pods in rc [Conformance]
/// Conformance: [sig-cli] Kubectl client Kubectl expose should create services for rc [Conformance]
#[test]
fn replication_controllers() {
    let c = Cluster::start(KNARR);
    c.k_with("create -f -", &controller("web", 2));
    running(&c, 2);
    c.k("scale rc web --replicas=1 --timeout=60s");
    running(&c, 1);
    c.k("scale rc web --replicas=2 --timeout=60s");
    for pod in running(&c, 2) {
        c.kubectl(&["patch", &pod, "-p", r#"{"metadata":{"annotations":{"x":"y"}}}"#]);
    }
    assert_eq!(c.k("get pods -l app=web -o jsonpath={.items[*].metadata.annotations.x}"), "y y");

    c.k("expose rc web --name=rm2 --port=1234 --target-port=80");
    c.k("expose service rm2 --name=rm3 --port=2345 --target-port=80");
    for (service, port) in [("rm2", 1234), ("rm3", 2345)] {
        let address = c.k(&format!("get service {service} -o jsonpath={{.spec.clusterIP}}"));
        let page = eventually(service, || testing::http::get(&format!("{address}:{port}"), "/").ok());
        has(&page, "Welcome to nginx!");
    }
    c.k_with("delete --grace-period=0 --force -f -", &controller("web", 2));
    eventually("all of the controller is gone", || c.k("get rc,pods -l app=web -o name").is_empty().then_some(()));
}

/// Conformance: [sig-cli] Kubectl client Kubectl describe should check if kubectl describe prints relevant information for rc and pods [Conformance]
#[test]
fn descriptions() {
    let c = Cluster::start(KNARR);
    c.k_with("create -f -", &controller("web", 1));
    c.k("expose rc web --name=web --port=6379");
    let pod = running(&c, 1).remove(0);
    c.told("--field-selector involvedObject.kind=ReplicationController", &["SuccessfulCreate"]);
    c.k("wait --for=jsonpath={.status.replicas}=1 rc/web --timeout=60s");
    let describe = |what: &str, parts: &str| has(&c.k(&format!("describe {what}")), parts);
    let containers = format!("Image:|{NGINX}|Image ID:|State:|Ready:|Restart Count:|Volumes:|Events:");
    describe(&pod, "Name:|Namespace:|Node:|n1/|Labels:|app=web|Annotations:|Status:|Running|IP:|Controlled By:");
    describe(&pod, &format!("ReplicationController/web|{containers}"));
    describe("rc web", "Name:|web|Namespace:|default|Selector:|app=web|Labels:|Annotations:|Replicas:|1 current|1 desired");
    describe("rc web", &format!("Pods Status:|Pod Template:|Image:|{NGINX}|Events:|SuccessfulCreate"));
    describe("service web", "Name:|Namespace:|Labels:|Selector:|app=web|Type:|ClusterIP|IP:|Port:|6379/TCP|Endpoints:");
    describe("service web", "Session Affinity:|None");
    describe("node n1", "Name:|n1|Labels:|Annotations:|CreationTimestamp:|Conditions:|Type|Status|LastHeartbeatTime|Reason");
    describe("node n1", "LastTransitionTime|Message|Addresses:|Capacity:|Version:|Kernel Version:|OS Image:|Architecture:");
    describe("node n1", "Container Runtime Version:|Kubelet Version:|Pods|Non-terminated Pods:");
    describe("namespace default", "Name:|default|Labels:|Annotations:|Status:|Active|No resource quota.|No LimitRange resource.");
}

/// Conformance: [sig-cli] Kubectl client Kubectl run pod should create a pod from an image when restart is Never [Conformance]
/// Conformance: [sig-cli] Kubectl client Kubectl label should update the label on a resource [Conformance]
/// Conformance: [sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods [Conformance]
/// Conformance: [sig-cli] Kubectl client Kubectl replace should update a single-container pod's image [Conformance]
#[test]
fn pods() {
    let c = Cluster::start(KNARR);
    let image = |pod: &str| c.k(&format!("get pod {pod} -o jsonpath={{.spec.containers[0].image}}"));
    c.kubectl(&["run", "web", &format!("--image={NGINX}"), "--restart=Never"]);
    assert_eq!((image("web").as_str(), c.k("get pod web -o jsonpath={.spec.restartPolicy}").as_str()), (NGINX, "Never"));
    c.k("wait --for=condition=Ready pod/web --timeout=60s");

    c.k("label pods web testing-label=testing-label-value");
    has(&c.k("get pod web -L testing-label"), "testing-label-value");
    c.k("label pods web testing-label-");
    assert!(!c.k("get pod web -L testing-label").contains("testing-label-value"));

    let patch = format!(r#"{{"spec":{{"containers":[{{"name":"web","image":"{BUSYBOX}"}}]}}}}"#);
    has(&c.kubectl(&["patch", "pod", "web", "-p", &patch, "--dry-run=server"]), "patched");
    assert_eq!(image("web"), NGINX);
    // Without a version it does not matter whether the kubelet has written meanwhile.
    let mut pod: serde_json::Value = serde_json::from_str(&c.k("get pod web -o json").replace(NGINX, BUSYBOX)).unwrap();
    pod["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    c.k_with("replace -f -", &pod.to_string());
    assert_eq!(image("web"), BUSYBOX);
}

/// Conformance: [sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments [Conformance]
#[test]
fn differences() {
    let c = Cluster::start(KNARR);
    let deployment = |image: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: d}}, spec: {{replicas: 0, selector: {{matchLabels: {{app: d}}}},
            template: {{metadata: {{labels: {{app: d}}}}, spec: {{containers: [{{name: main, image: '{image}'}}]}}}}}}}}"
        )
    };
    c.k_with("create -f -", &deployment(NGINX));
    let diff = c.try_k_with("diff -f -", &deployment(BUSYBOX));
    assert_eq!(diff.code, Some(1), "{diff:?}");
    let has_line = |sign: char, part: &str| diff.stdout.lines().any(|line| line.starts_with(sign) && line.contains(part));
    assert!(has_line('-', NGINX) && has_line('+', BUSYBOX), "{diff:?}");
    assert_eq!(c.k("get deployment d -o jsonpath={.spec.template.spec.containers[0].image}"), NGINX);
}

/// Conformance: [sig-cli] Kubectl logs logs should be able to retrieve and filter logs [Conformance]
#[test]
fn logs() {
    let c = Cluster::start(KNARR);
    let script = "echo first line; echo second line; sleep 1; echo third line; exec sleep 1000";
    c.kubectl(&["run", "talk", &format!("--image={BUSYBOX}"), "--restart=Never", "--command", "--", "sh", "-c", script]);
    c.background("logs -f talk --pod-running-timeout=60s").line("third line");
    let logs = |options: &str| c.k(&format!("logs talk talk {options}"));
    assert_eq!(logs(""), "first line\nsecond line\nthird line\n");
    assert_eq!(logs("--tail=1"), "third line\n");
    assert_eq!(logs("--limit-bytes=1"), "f");
    let stamped = logs("--tail=1 --timestamps");
    let (time, line) = stamped.split_once(' ').unwrap();
    assert_eq!((time.len() > 20, time.ends_with('Z'), line), (true, true, "third line\n"));
    assert_eq!(logs("--since=24h").lines().count(), 3);
    // The third line came a second after the second one.
    assert_eq!(logs(&format!("--since-time={time}")), "third line\n");
}

/// One request over a connection, and all of the answer.
fn exchange(mut connection: impl Read + Write) -> String {
    connection.write_all(b"GET /api/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

/// Conformance: [sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions [Conformance]
/// Conformance: [sig-cli] Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info [Conformance]
/// Conformance: [sig-cli] Kubectl client Kubectl version should check is all data is printed [Conformance]
/// Conformance: [sig-cli] Kubectl client Proxy server should support --unix-socket=/path [Conformance]
/// Conformance: [sig-cli] Kubectl client Proxy server should support proxy with --port 0 [Conformance]
#[test]
fn the_cluster_and_its_proxy() {
    let c = Cluster::start(KNARR);
    assert!(c.k("api-versions").lines().any(|line| line == "v1"));
    has(&c.k("cluster-info"), "Kubernetes control plane|is running at");
    has(&c.k("version"), "Client Version: v1.36|Server Version: v1.36");

    let mut proxy = c.background("proxy -p 0 --disable-filter");
    let line = proxy.line("Starting to serve on ");
    let address = line.rsplit(' ').next().unwrap();
    has(&exchange(TcpStream::connect(address).unwrap()), "200 OK|APIVersions");
    proxy.stop();
    let path = c.scratch().join("proxy.sock");
    let mut proxy = c.background(&format!("proxy --unix-socket={}", path.display()));
    proxy.line("Starting to serve on ");
    has(&exchange(UnixStream::connect(path).unwrap()), "200 OK|APIVersions");
    proxy.stop();
}

/// Conformance: [sig-cli] Kubectl client Guestbook application should create and stop a working application [Conformance]
#[test]
fn a_guestbook() {
    let c = Cluster::start(KNARR);
    let manifests = include_str!("cli/guestbook.yaml");
    c.k_with("create -f -", manifests);
    for deployment in ["primary", "replica", "front"] {
        c.k(&format!("rollout status deployment/{deployment} --timeout=60s"));
    }
    let page = "/api/v1/namespaces/default/services/front/proxy/cgi-bin/guestbook";
    let ask = |query: &str| String::from_utf8_lossy(&c.api().get(&format!("{page}?{query}")).body).trim().to_owned();
    let answers = |query: &str, expected: &str| eventually(expected, || (ask(query) == expected).then_some(()));
    answers("cmd=get&key=messages", r#"{"data":""}"#);
    answers("cmd=set&key=messages&value=TestEntry", r#"{"message":"Updated"}"#);
    answers("cmd=get&key=messages", r#"{"data":"TestEntry"}"#);
    c.k_with("delete --grace-period=0 --force -f -", manifests);
    eventually("all of the guestbook is gone", || c.k("get all -l book=guest -o name").is_empty().then_some(()));
}
