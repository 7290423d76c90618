//! Network policies on a real cluster: who reaches whom, as people write it down.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use testing::manifests::{WEB, web_pods};
use testing::{Cluster, eventually, machine};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

/// A server with two ports, of which one has a name, clients in two namespaces, and a pod whose readiness the kubelet probes.
const PODS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: v1
kind: Namespace
metadata: {name: other, labels: {team: other}}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: shop, labels: {app: server}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "mkdir /w; echo hello > /w/index.html; httpd -p 8081 -h /w; exec httpd -f -p 8080 -h /w"]
      ports: [{name: web, containerPort: 8080}]
      readinessProbe: {httpGet: {path: /, port: web}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: shop}
spec: {selector: {app: server}, ports: [{name: web, port: 80, targetPort: web}, {name: second, port: 81, targetPort: 8081}]}
"#;

fn client(namespace: &str, name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: main, image: '127.0.0.1:5000/busybox:1.36', command: [sleep, '3600']}}]}}}}"
    )
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: shop}}, spec: {spec}}}"
    )
}

struct Shop {
    cluster: Cluster,
    server: String,
}

impl Shop {
    fn start() -> Self {
        let cluster = Cluster::start(KNARR);
        cluster.k_with("apply -f -", PODS);
        for (namespace, name) in [("shop", "front"), ("shop", "back"), ("other", "stranger")] {
            cluster.k_with("apply -f -", &client(namespace, name));
        }
        for pods in ["-n shop pod/server pod/front pod/back", "-n other pod/stranger"] {
            cluster.k(&format!("wait --for=condition=Ready {pods} --timeout=60s"));
        }
        let server = cluster.k("get pod server -n shop -o jsonpath={.status.podIP}");
        Self { cluster, server }
    }

    fn apply(&self, name: &str, spec: &str) {
        self.cluster.k_with("apply -f -", &policy(name, spec));
    }

    fn delete(&self, name: &str) {
        self.cluster.k(&format!("delete networkpolicy {name} -n shop"));
    }

    /// Whether a pod's shell command ends well.
    fn does(&self, pod: &str, command: &str) -> bool {
        let (namespace, name) = pod.split_once('/').unwrap();
        self.cluster.try_kubectl(&["exec", "-n", namespace, name, "--", "sh", "-c", command]).code == Some(0)
    }

    fn reaches(&self, pod: &str, url: &str) -> bool {
        self.does(pod, &format!("timeout 1 wget -q -O /dev/null http://{url}/"))
    }

    /// Who of front, back and stranger reaches the server's port.
    fn who(&self, port: u16) -> Vec<&'static str> {
        let all = ["shop/front", "shop/back", "other/stranger"];
        all.into_iter().filter(|pod| self.reaches(pod, &format!("{}:{port}", self.server))).collect()
    }

    /// Waits until a pod reaches something: a machine may be slower than the second that says that nobody answers.
    fn gets_through(&self, pod: &str, url: &str) {
        eventually(&format!("{pod} reaches {url}"), || self.reaches(pod, url).then_some(()));
    }

    fn expect(&self, what: &str, port: u16, expected: &[&str]) {
        eventually(what, || (self.who(port) == expected).then_some(()));
    }
}

const SERVER: &str = "podSelector: {matchLabels: {app: server}}";
const EVERYBODY: &[&str] = &["shop/front", "shop/back", "other/stranger"];

#[test]
fn who_gets_in() {
    let shop = Shop::start();
    shop.expect("without policies", 8080, EVERYBODY);
    shop.apply("deny", &format!("{{{SERVER}, policyTypes: [Ingress]}}"));
    shop.expect("nobody", 8080, &[]);
    // A connection is made to the server, whatever address it was to.
    assert!(!shop.reaches("shop/front", "server.shop.svc.cluster.local"), "through the service");
    // A pod reaches itself through its service.
    shop.gets_through("shop/server", "server.shop");
    let deny_all = "{podSelector: {}, policyTypes: [Ingress]}";
    shop.apply("deny", deny_all);
    shop.apply("front", &format!("{{{SERVER}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: front}}}}}}]}}]}}"));
    shop.expect("by its label", 8080, &["shop/front"]);
    shop.gets_through("shop/front", "server:81");
    let namespaced = "ingress: [{from: [{namespaceSelector: {matchLabels: {team: other}}}], ports: [{port: web}]}]";
    shop.apply("others", &format!("{{{SERVER}, {namespaced}}}"));
    shop.expect("policies add up", 8080, &["shop/front", "other/stranger"]);
    shop.expect("the named port only", 8081, &["shop/front"]);
    shop.apply("others", &format!("{{{SERVER}, ingress: [{{ports: [{{port: 8081, endPort: 8090}}]}}]}}"));
    shop.expect("a range, from anywhere", 8081, EVERYBODY);
    shop.expect("the range only", 8080, &["shop/front"]);
    shop.delete("others");
    // Labels decide, as soon as they change.
    shop.cluster.k("label pod back -n shop app=front --overwrite");
    shop.expect("a label comes", 8080, &["shop/front", "shop/back"]);
    shop.cluster.k("label pod back -n shop app=back --overwrite");
    shop.expect("a label goes", 8080, &["shop/front"]);
    shop.apply("others", &format!("{{{SERVER}, {namespaced}}}"));
    shop.expect("a namespace", 8080, &["shop/front", "other/stranger"]);
    shop.cluster.k("label namespace other team=gone --overwrite");
    shop.expect("the namespace's label goes", 8080, &["shop/front"]);
    // The kubelet's probes come from the node, which always gets in.
    let ready = shop.cluster.k("get pod server -n shop -o jsonpath={.status.conditions[?(@.type==\"Ready\")].status}");
    assert_eq!(ready, "True");
    // A pod that is made now is isolated from its first packet on.
    shop.cluster.k_with("apply -f -", &client("shop", "late"));
    shop.cluster.k("wait --for=condition=Ready pod/late -n shop --timeout=60s");
    let late = shop.cluster.k("get pod late -n shop -o jsonpath={.status.podIP}");
    let refused = format!("timeout 1 wget -q -O /dev/null http://{late}:1/ 2>&1 | grep -q refused");
    assert!(!shop.does("shop/front", &refused), "not even a refusal");
    for name in ["deny", "front", "others"] {
        shop.delete(name);
    }
    shop.expect("all is as before", 8080, EVERYBODY);
    eventually("a refusal", || shop.does("shop/front", &refused).then_some(()));
}

#[test]
fn what_gets_out() {
    let shop = Shop::start();
    let resolves = || shop.does("shop/front", "timeout 2 nslookup server.shop.svc.cluster.local");
    eventually("names are resolved without policies", || resolves().then_some(()));
    let front = "podSelector: {matchLabels: {app: front}}, policyTypes: [Egress]";
    shop.apply("out", &format!("{{{front}}}"));
    eventually("nothing gets out", || (!shop.reaches("shop/front", &format!("{}:8080", shop.server))).then_some(()));
    assert!(!resolves(), "not even a question to cluster DNS");
    let dns = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}";
    shop.apply("out", &format!("{{{front}, egress: [{dns}]}}"));
    eventually("names are resolved", || resolves().then_some(()));
    assert!(!shop.reaches("shop/front", "server"));
    shop.apply("out", &format!("{{{front}, egress: [{dns}, {{to: [{{{SERVER}}}], ports: [{{port: web}}]}}]}}"));
    eventually("the server by its name", || shop.reaches("shop/front", "server").then_some(()));
    assert!(!shop.reaches("shop/front", "server:81"), "not the other port");
    let block =
        |except: &str| format!("{{{front}, egress: [{dns}, {{to: [{{ipBlock: {{cidr: 10.42.0.0/16, except: [{except}]}}}}]}}]}}");
    shop.apply("out", &block(&format!("{}/32", shop.server)));
    eventually("an exception", || (!shop.reaches("shop/front", "server")).then_some(()));
    shop.apply("out", &block("10.42.255.0/24"));
    eventually("another exception", || shop.reaches("shop/front", "server").then_some(()));
    shop.delete("out");
    eventually("all is as before", || shop.reaches("shop/front", "server:81").then_some(()));
}

/// Pods with a label reach those of [`WEB`].
const FRONT: &str = r#"---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: front}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {role: front}}}]}]}
"#;

#[test]
fn policies_hold_between_nodes() {
    let c = Cluster::start_nodes(KNARR, 2);
    c.k_with("apply -f -", &[WEB, FRONT].concat());
    c.k("rollout status daemonset/web --timeout=60s");
    let pods = web_pods(&c);
    let [first, second] = &pods[..] else { panic!("{pods:?}") };
    type Pod = (String, String, String);
    let reaches = |(_, from, _): &Pod, (node, _, ip): &Pod| {
        let url = format!("http://{ip}:8080/");
        c.try_kubectl(&["exec", from, "--", "timeout", "1", "wget", "-q", "-O", "-", &url]).stdout.trim() == node
    };
    assert!(!reaches(first, second) && !reaches(second, first), "from node to node");
    c.k(&format!("label pod {} role=front", first.1));
    eventually("by the label of a pod of another node", || reaches(first, second).then_some(()));
    assert!(!reaches(second, first), "the pod's own label lets nobody in");
    // The node of a pod gets in, another node does not.
    let node = |host: u8, (name, _, ip): &Pod| {
        let url = format!("http://{ip}:8080/");
        let mut command = c.on_host(host, "timeout");
        testing::Outcome::of(command.args(["1", "busybox", "wget", "-q", "-O", "-", &url])).stdout.trim() == name
    };
    eventually("the node of the pod", || node(2, second).then_some(()));
    assert!(!node(2, first), "another node");
    c.k(&format!("label pod {} role-", first.1));
    eventually("the label goes", || (!reaches(first, second)).then_some(()));
}

/// A pod that does nothing else than wait, on a node, with labels that policies let in.
fn caller(name: &str, node: &str, labels: &str, seconds: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {labels}}}, spec: {{nodeName: {node}, terminationGracePeriodSeconds: 0, containers: [{{name: main, image: '127.0.0.1:5000/busybox:1.36', command: [sleep, '{seconds}']}}]}}}}\n---\n"
    )
}

/// The process of a pod that waits for so long.
fn waiting(c: &Cluster, seconds: &str) -> i32 {
    let line = format!("sleep {seconds}");
    let mut processes = c.machine().processes().into_iter();
    processes.find(|(_, one)| one.trim() == line).expect("the pod's process").0
}

/// Has a connection served to its end: a server that has too many of them lets packets of new ones fall.
fn finish(mut stream: TcpStream, limit: Duration) {
    stream.set_read_timeout(Some(limit)).unwrap();
    // A policy may have cut it off by now.
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").and_then(|()| stream.read_to_end(&mut Vec::new()));
}

/// Connections that a pod tries to make, one after the other, until the end.
struct Calls {
    /// How many were let in, and how many were not.
    made: JoinHandle<(u32, u32)>,
    /// The pod's process.
    pid: i32,
}

impl Calls {
    fn start(c: &Cluster, seconds: &str, server: SocketAddr, limit: Duration, end: &Arc<AtomicBool>) -> Self {
        let (pid, end) = (waiting(c, seconds), end.clone());
        let made = machine::in_network_of(pid, move || {
            let (mut inside, mut outside) = (0, 0);
            while !end.load(Ordering::Relaxed) {
                match TcpStream::connect_timeout(&server, limit) {
                    Ok(stream) => {
                        inside += 1;
                        finish(stream, limit);
                    }
                    Err(_) => outside += 1,
                }
            }
            (inside, outside)
        });
        Self { made, pid }
    }

    /// First packets of connections that the pod had to send again, since it was made.
    fn lost(&self) -> u32 {
        let text = std::fs::read_to_string(format!("/proc/{}/net/netstat", self.pid)).unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:")).map(str::split_whitespace);
        let (mut names, mut values) = (lines.next().unwrap(), lines.next().unwrap());
        values.nth(names.position(|name| name == "TCPSynRetrans").unwrap()).unwrap().parse().unwrap()
    }
}

/// A policy that changes all the time is at each moment the old one or the new one: who both let in is always let in, at once, and who
/// neither lets in never is.
#[test]
fn a_policy_changes_all_the_time() {
    const SHORT: Duration = Duration::from_millis(20);
    let c = Cluster::start_nodes(KNARR, 3);
    let server = PODS.replace("namespace: shop", "namespace: default");
    let pods = [
        ("both", "n3", "{front: in, back: in}", "31001"),
        ("front", "n3", "{front: in}", "31002"),
        ("stranger", "n3", "{other: in}", "31003"),
        ("neighbour", "n2", "{other: in}", "31004"),
    ];
    let callers: String = pods.iter().map(|(name, node, labels, seconds)| caller(name, node, labels, seconds)).collect();
    c.k_with(
        "apply -f -",
        &format!("{callers}{}", server.replace("spec:\n  terminationGrace", "spec:\n  nodeName: n2\n  terminationGrace")),
    );
    c.k("wait --for=condition=Ready pod --all --timeout=60s");
    assert_eq!(c.k("get pod server -o jsonpath={.spec.nodeName}"), "n2");
    let server: SocketAddr = format!("{}:8080", c.k("get pod server -o jsonpath={.status.podIP}")).parse().unwrap();
    let path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/turns";
    let put = |label: &str| {
        let spec = json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {label: "in"}}}]}]});
        let policy =
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "turns"}, "spec": spec});
        let answer = c.api().send(
            Method::PATCH,
            &format!("{path}?fieldManager=turns&force=true"),
            "application/apply-patch+yaml",
            policy.to_string(),
        );
        assert!(answer.status < 300, "{}: {}", answer.status, answer.json());
    };
    let within = |seconds: &str, limit: Duration| {
        machine::in_network_of(waiting(&c, seconds), move || TcpStream::connect_timeout(&server, limit).is_ok()).join().unwrap()
    };
    let reaches = |seconds: &str| within(seconds, Duration::from_millis(200));
    let gets_through = |seconds: &str| within(seconds, Duration::from_secs(10));
    put("back");
    eventually("the first policy holds", || {
        (!reaches("31002") && !reaches("31003") && !reaches("31004") && gets_through("31001")).then_some(())
    });
    let end = Arc::new(AtomicBool::new(false));
    let call = |seconds, limit| Calls::start(&c, seconds, server, limit, &end);
    // Who does not wait for answers has a program of the server for itself: connections that it leaves behind may fill the room there is for them.
    let front = Calls::start(&c, "31002", SocketAddr::new(server.ip(), 8081), SHORT, &end);
    let both = call("31001", Duration::from_secs(10));
    let strangers = [call("31003", SHORT), call("31003", SHORT), call("31004", SHORT), call("31004", SHORT)];
    let lost = both.lost();
    let (start, changes) = (Instant::now(), 1000);
    for turn in 0..changes {
        put(["front", "back"][turn % 2]);
    }
    println!("{changes} changes in {:?}", start.elapsed());
    put("front");
    eventually("the last policy holds", || reaches("31002").then_some(()));
    end.store(true, Ordering::Relaxed);
    assert_eq!(both.lost(), lost, "a policy was for a moment neither");
    let (inside, outside) = both.made.join().unwrap();
    assert!(inside > 100 && outside == 0, "who both let in: {inside} connections, {outside} failures");
    let (inside, outside) = front.made.join().unwrap();
    assert!(inside > 0 && outside > 0, "who one of them lets in: {inside} connections, {outside} failures");
    for stranger in strangers {
        let (inside, outside) = stranger.made.join().unwrap();
        assert!(inside == 0 && outside > 20, "who neither lets in: {inside} connections, {outside} failures");
    }
    // It is the last one that holds, and goes on to.
    put("back");
    eventually("the last policy holds", || (!reaches("31002")).then_some(()));
    assert!((0..20).all(|_| !reaches("31002") && !reaches("31003") && gets_through("31001")));
}

/// ClusterNetworkPolicies, once their definition is installed: tiers before and behind NetworkPolicies (network-policy-api.sigs.k8s.io), and an event
/// about what is not known here.
#[test]
fn policies_of_the_cluster() {
    let shop = Shop::start();
    let schema = "{openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}";
    let names = "{plural: clusternetworkpolicies, singular: clusternetworkpolicy, kind: ClusterNetworkPolicy}";
    let definition = format!(
        "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: clusternetworkpolicies.policy.networking.k8s.io, annotations: {{api-approved.kubernetes.io: 'https://github.com/kubernetes-sigs/network-policy-api/pull/30'}}}}, spec: {{group: policy.networking.k8s.io, scope: Cluster, names: {names}, versions: [{{name: v1alpha2, served: true, storage: true, schema: {schema}}}]}}}}"
    );
    shop.cluster.k_with("apply -f -", &definition);
    shop.cluster.k("wait --for=condition=Established crd/clusternetworkpolicies.policy.networking.k8s.io --timeout=60s");
    let apply = |name: &str, tier: &str, rules: &str| {
        let subject = "{namespaces: {matchLabels: {team: shop}}}";
        let policy = format!(
            "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: {name}}}, spec: {{tier: {tier}, priority: 10, subject: {subject}, ingress: [{rules}]}}}}"
        );
        shop.cluster.k_with("apply -f -", &policy);
    };
    let (shop_only, others) =
        ("{action: Pass, from: [{namespaces: {matchLabels: {team: shop}}}]}", "{action: Deny, from: [{namespaces: {}}]}");
    apply("default", "Baseline", others);
    shop.expect("the default is to deny", 8080, &[]);
    shop.apply("open", &format!("{{{SERVER}, ingress: [{{}}]}}"));
    shop.expect("a NetworkPolicy overrides the default", 8080, EVERYBODY);
    apply("strict", "Admin", &format!("{shop_only}, {others}"));
    shop.expect("and not what the administrator says", 8080, &["shop/front", "shop/back"]);
    shop.cluster.k("delete clusternetworkpolicy strict");
    shop.expect("as before", 8080, EVERYBODY);
    apply("strict", "Admin", "{name: far, action: Deny, from: [{planets: {}}]}");
    shop.expect("what is not known fails closed", 8080, &[]);
    shop.cluster
        .told("-A --field-selector involvedObject.kind=ClusterNetworkPolicy,reason=NotSupported", &["planets", "denies all"]);
    shop.cluster.k("delete crd clusternetworkpolicies.policy.networking.k8s.io");
    shop.expect("without the definition only NetworkPolicies are left", 8080, EVERYBODY);
}
