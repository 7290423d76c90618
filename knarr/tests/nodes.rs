//! Three nodes: a server with its own, and two agents on hosts of their own.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use testing::manifests::{WEB, web_pods};
use testing::{Cluster, Outcome, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

const NODES: [&str; 3] = ["n1", "n2", "n3"];

fn start_web(c: &Cluster) -> Vec<(String, String, String)> {
    c.k_with("apply -f -", WEB);
    c.k("rollout status daemonset/web --timeout=60s");
    let pods = web_pods(c);
    assert_eq!(pods.iter().map(|(node, ..)| node.as_str()).collect::<Vec<_>>(), NODES);
    pods
}

/// What a pod says of its node, through its kubelet; nothing when that is not reached.
fn node_of(c: &Cluster, pod: &str) -> String {
    c.try_kubectl(&["exec", pod, "--", "sh", "-c", "echo $NODE"]).stdout.trim().to_owned()
}

/// What a host gets of a URL.
fn fetch(c: &Cluster, host: u8, url: &str) -> Outcome {
    Outcome::of(c.on_host(host, "timeout").args(["10", "busybox", "wget", "-q", "-O", "-", url]))
}

/// Conformance: [sig-architecture] Conformance Tests should have at least two untainted nodes [Conformance]
/// Conformance: [sig-network] Networking Granular Checks: Pods should function for intra-pod communication: http [NodeConformance] [Conformance]
/// Conformance: [sig-network] Networking Granular Checks: Pods should function for node-pod communication: http [LinuxOnly] [NodeConformance] [Conformance]
#[test]
fn three_nodes_are_one_cluster() {
    let start = Instant::now();
    let mut c = Cluster::start_nodes(KNARR, 3);
    println!("three nodes ready after {:?}", start.elapsed());
    assert_eq!(c.k("get nodes -o jsonpath={.items[*].spec.taints}"), "");
    let pods = start_web(&c);
    every_pod_reaches_every_pod(&c, &pods);
    every_node_has_the_port(&c);
    every_node_leads_to_ingress(&c);
    every_node_and_pod_is_measured(&c);
    for (node, _, address) in &pods {
        assert_eq!(fetch(&c, 2, &format!("http://{address}:8080/")).stdout.trim(), node);
    }
    the_api_reaches_kubelets(&c, &pods[2].1);
    joined_by_certificates(&c);
    rules_come_back(&c);
    volumes_are_on_their_nodes(&c);
    for number in [2, 3] {
        let pid = c.agent_pid(number);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
        println!("agent n{number}: {}", line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}

fn every_pod_reaches_every_pod(c: &Cluster, pods: &[(String, String, String)]) {
    for (from, pod, _) in pods {
        // A node hears of what is new elsewhere a moment later.
        let get = |url: &str| {
            eventually(&format!("{from} gets {url}"), || {
                let got = c.try_kubectl(&["exec", pod, "--", "timeout", "10", "wget", "-q", "-O", "-", url]);
                (got.code == Some(0)).then(|| got.stdout.trim().to_owned())
            })
        };
        for (to, _, address) in pods {
            assert_eq!(get(&format!("http://{address}:8080/")), *to, "from {from}");
        }
        for url in ["http://web/", "http://web.default.svc.cluster.local/"] {
            assert!(NODES.contains(&get(url).as_str()), "{url} from {from}");
        }
        // By the service's address all are reached, whichever node asks.
        let mut seen = std::collections::BTreeSet::new();
        eventually("every node answers", || {
            seen.insert(get("http://web/"));
            (seen.len() == NODES.len()).then_some(())
        });
        // Packets as large as the network of pods lets through.
        let large = c.kubectl(&["exec", pod, "--", "sh", "-c", "cat /sys/class/net/eth0/mtu"]);
        assert_eq!(large.trim(), "1450", "{from}");
        let ping = ["exec", pod, "--", "ping", "-c", "1", "-W", "5", "-s", "1422", &pods[2].2];
        eventually(&format!("large packets from {from}"), || {
            c.try_kubectl(&ping).stdout.contains("1 packets received").then_some(())
        });
    }
}

fn every_node_has_the_port(c: &Cluster) {
    for host in [2, 3] {
        for address in ["192.168.77.1", "192.168.77.2", "192.168.77.3"] {
            eventually(&format!("{address} from host {host}"), || {
                NODES.contains(&fetch(c, host, &format!("http://{address}:30080/")).stdout.trim()).then_some(())
            });
        }
    }
}

/// Ingress listens on the server's node, and every node leads to it.
fn every_node_leads_to_ingress(c: &Cluster) {
    let ingress = r#"{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"},
        "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}}"#;
    c.k_with("apply -f -", ingress);
    for (from, to) in [(2, 1), (2, 3), (3, 2)] {
        eventually(&format!("n{to} leads to ingress"), || {
            let answer = fetch(c, from, &format!("http://192.168.77.{to}/"));
            NODES.contains(&answer.stdout.trim()).then_some(())
        });
    }
}

fn every_node_and_pod_is_measured(c: &Cluster) {
    let names = |table: String| {
        let lines = table.lines().map(|line| line.split_whitespace().next().unwrap_or_default().to_owned());
        lines.collect::<std::collections::BTreeSet<_>>()
    };
    let told = |line: &str, expected: std::collections::BTreeSet<String>| {
        eventually(line, || {
            let told = c.try_kubectl(&line.split(' ').collect::<Vec<_>>());
            (names(told.stdout) == expected).then_some(())
        });
    };
    told("top nodes --no-headers", NODES.map(str::to_owned).into());
    told("top pods -l app=web --no-headers", web_pods(c).into_iter().map(|(_, name, _)| name).collect());
}

fn the_api_reaches_kubelets(c: &Cluster, pod: &str) {
    assert_eq!(c.k(&format!("logs {pod}")).trim(), "serving");
    assert_eq!(node_of(c, pod), "n3");
    assert_eq!(c.k("get --raw /api/v1/nodes/n3/proxy/healthz"), "ok");
    assert!(c.k("get --raw /api/v1/nodes/n3/proxy/metrics").contains("rest_client_requests_total"));
    let forward = c.background(&format!("port-forward pod/{pod} 18080:8080"));
    forward.line("Forwarding from");
    let mut stream = TcpStream::connect("127.0.0.1:18080").unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("n3\n"), "{answer}");
}

/// A claim and its consumer, which must run on the third node.
const CLAIM: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: consumer}
spec:
  nodeSelector: {kubernetes.io/hostname: n3}
  terminationGracePeriodSeconds: 0
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "echo kept > /data/file; exec sleep 10000"]
      volumeMounts: [{name: data, mountPath: /data}]
"#;

fn volumes_are_on_their_nodes(c: &Cluster) {
    c.k_with("apply -f -", CLAIM);
    c.k("wait --for=condition=Ready pod/consumer --timeout=60s");
    let directory = c.agent_dir(3).join("volumes").join(c.k("get pvc data -o jsonpath={.spec.volumeName}"));
    eventually("the file is there", || (std::fs::read_to_string(directory.join("file")).ok()? == "kept\n").then_some(()));
    c.k("delete pod/consumer pvc/data");
    eventually("the volume goes with its claim", || (!directory.exists() && c.k("get pv -o name").is_empty()).then_some(()));
}

/// Somebody takes a node's rules away, as scripts of firewalls do; other tables are theirs.
fn rules_come_back(c: &Cluster) {
    let nft = |line: &str| Outcome::of(c.on_host(2, "nft").args(line.split(' ')));
    let mut times = Vec::new();
    for line in ["flush ruleset", "delete table ip knarr", "flush table ip knarr"] {
        let start = Instant::now();
        assert_eq!(nft(line).code, Some(0), "{line}");
        eventually(&format!("the rules come back after {line}"), || {
            let listed = nft("list chain ip knarr service-ports");
            listed.stdout.contains("goto").then_some(())
        });
        times.push(start.elapsed());
        let answer = fetch(c, 2, "http://192.168.77.2:30080/");
        assert!(NODES.contains(&answer.stdout.trim()), "{line}: {answer:?}");
    }
    println!("rules were back after {times:?}");
    // The kernel tells of it: that is no matter of the next change or of a look in a while. What others do on the machine may hold up one of them.
    assert!(times.iter().min() < Some(&Duration::from_secs(10)), "{times:?}");
}

/// Each agent asked for two certificates, and nobody had to approve them.
fn joined_by_certificates(c: &Cluster) {
    let columns = "-o custom-columns=A:.spec.signerName,B:.spec.username,C:.status.conditions[*].type --no-headers";
    let requests = c.k(&format!("get csr {columns}"));
    let count = |signer: &str, user: &str| {
        let all = requests.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        all.filter(|words| words[0] == signer && words[1].starts_with(user) && words[2] == "Approved").count()
    };
    assert_eq!(count("kubernetes.io/kube-apiserver-client-kubelet", "system:bootstrap:"), 2, "{requests}");
    assert_eq!(count("kubernetes.io/kubelet-serving", "system:node:n2"), 1, "{requests}");
    for file in ["kubelet-client.key", "kubelet-client.crt", "kubelet.key", "server-ca.crt"] {
        let path = c.agent_dir(2).join("pki").join(file);
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
    assert!(!c.agent_dir(2).join("pki/ca.key").exists(), "no agent holds the authority's key");
}

#[test]
fn nodes_go_on_without_the_server() {
    let mut c = Cluster::start_nodes(KNARR, 3);
    let before = start_web(&c);
    let ids = |c: &Cluster| c.k("get pods -l app=web -o jsonpath={.items[*].status.containerStatuses[*].containerID}");
    let containers = ids(&c);
    talk(&c);
    c.kill_server();
    for (node, _, address) in &before {
        let answer = fetch(&c, 2, &format!("http://{address}:8080/"));
        assert_eq!(answer.stdout.trim(), node, "{answer:?}");
    }
    let answer = fetch(&c, 3, "http://192.168.77.3:30080/");
    assert!(NODES.contains(&answer.stdout.trim()), "{answer:?}");
    // An agent that dies meanwhile takes nothing with it, and waits for the server when it comes back.
    c.kill_agent(2);
    assert_eq!(fetch(&c, 3, &format!("http://{}:8080/", before[1].2)).stdout.trim(), "n2");
    c.start_agent(2);
    c.start_server();
    c.wait_nodes(3);
    eventually("the agents' kubelets are reached", || (node_of(&c, &before[1].1) == "n2").then_some(()));
    assert_eq!(web_pods(&c), before);
    assert_eq!(ids(&c), containers, "the pods were adopted");
    still_talks(&c);
    // What is new reaches everybody.
    c.k("delete pod -l app=web");
    // Until its controller has seen that they are gone, the DaemonSet says that all are there.
    let after = eventually("others are ready", || {
        let ready = c.k("get pods -l app=web -o jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}");
        Some(web_pods(&c)).filter(|pods| ready == "True True True" && pods.iter().all(|pod| !before.contains(pod)))
    });
    every_pod_reaches_every_pod(&c, &after);
}

/// A pod that speaks without end to whoever connects, one that listens to it by its service from another node, and what was said.
const TALK: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: speaker, labels: {app: speaker}}
spec:
  nodeName: n2
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "exec nc -ll -p 9000 -e sh -c 'echo begin; n=0; while true; do n=$((n+1)); echo $n; sleep 0.1; done'"]
---
apiVersion: v1
kind: Service
metadata: {name: speaker}
spec:
  selector: {app: speaker}
  ports: [{port: 9000}]
---
apiVersion: v1
kind: Pod
metadata: {name: listener}
spec:
  nodeName: n3
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "until nc speaker 9000; do sleep 0.2; done; echo ended"]
"#;

fn talk(c: &Cluster) {
    c.k_with("apply -f -", TALK);
    c.k("wait --for=condition=Ready pod/speaker pod/listener --timeout=60s");
    eventually("the pods talk", || c.k("logs listener").contains("begin\n1\n").then_some(()));
}

/// It is still the same connection.
fn still_talks(c: &Cluster) {
    let words = || c.k("logs listener").lines().map(str::to_owned).collect::<Vec<_>>();
    let before = words().len();
    eventually("they go on", || (words().len() > before).then_some(()));
    let words = words();
    let from = words.iter().position(|word| word == "begin").unwrap();
    let numbers: Vec<usize> = words[from + 1..].iter().map(|word| word.parse().expect("one connection")).collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
}

#[test]
fn nodes_come_and_go() {
    let mut c = Cluster::start_nodes(KNARR, 3);
    refused(&mut c);
    c.plug(3, false);
    // A node may be silent for fifty seconds.
    c.k("wait --for=condition=Ready=Unknown node/n3 --timeout=120s");
    let taints = || c.k("get node n3 -o jsonpath={.spec.taints[*].effect}:{.spec.taints[*].key}");
    eventually("the node is tainted", || {
        let taints = taints();
        let unreachable = taints.contains("NoExecute") && taints.contains("node.kubernetes.io/unreachable");
        unreachable.then_some(())
    });
    c.plug(3, true);
    c.k("wait --for=condition=Ready node/n3 --timeout=60s");
    eventually("the taints go", || taints().eq(":").then_some(()));
    // What is removed leaves nothing at the others.
    let range = c.k("get node n3 -o jsonpath={.spec.podCIDR}");
    assert!(routes(&c).contains(&range), "{}", routes(&c));
    c.stop_agent(3);
    c.k("delete node n3");
    eventually("the route to the node goes", || (!routes(&c).contains(&range)).then_some(()));
    eventually("its lease goes", || {
        let outcome = c.try_kubectl(&["get", "lease", "-n", "kube-node-lease", "n3"]);
        (outcome.code != Some(0)).then_some(())
    });
    // The machine is still known by its certificate, and may come back. Its address is for it to find, and may change.
    let token = c.token_file();
    c.start_agent_with(3, &token, &["--node-name", "n3"]);
    c.wait_nodes(3);
    let address = || c.k("get node n3 -o jsonpath={.status.addresses[?(@.type=='InternalIP')].address}");
    assert_eq!(address(), "192.168.77.3");
    c.move_host(3, 3, 33);
    eventually("the node has its new address", || (address() == "192.168.77.33").then_some(()));
    let pods = start_web(&c);
    eventually("the kubelet is reached at its new address", || (node_of(&c, &pods[2].1) == "n3").then_some(()));
    every_pod_reaches_every_pod(&c, &pods);
}

/// A machine was off and has another address, while another machine has got the one that it had: nobody sends that one what is for pods.
#[test]
fn a_node_comes_back_with_another_address() {
    let mut c = Cluster::start_nodes(KNARR, 3);
    let before = start_web(&c);
    let containers = "get pods -l app=web -o jsonpath={.items[*].status.containerStatuses[*].containerID}";
    let running = c.k(containers);
    c.kill_agent(3);
    c.move_host(3, 3, 33);
    c.add_host(4);
    c.move_host(4, 4, 3);
    let token = c.token_file();
    c.start_agent_with(3, &token, &["--node-name", "n3", "--node-ip", "192.168.77.33"]);
    let address = "get node n3 -o jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
    eventually("the node has its new address", || (c.k(address) == "192.168.77.33").then_some(()));
    c.wait_nodes(3);
    eventually("the kubelet is reached at its new address", || (node_of(&c, &before[2].1) == "n3").then_some(()));
    for (node, _, address) in &before {
        for from in [2, 3] {
            eventually(&format!("the pod of {node} is reached from n{from}"), || {
                (fetch(&c, from, &format!("http://{address}:8080/")).stdout.trim() == node).then_some(())
            });
        }
    }
    every_pod_reaches_every_pod(&c, &before);
    let answer = fetch(&c, 2, "http://192.168.77.33:30080/");
    assert!(NODES.contains(&answer.stdout.trim()), "{answer:?}");
    assert_eq!((web_pods(&c), c.k(containers)), (before, running), "the pods are the same");
    let entries = Outcome::of(c.on_host(2, "bridge").args(["fdb", "show", "dev", "knarr-vxlan"])).stdout;
    assert!(entries.contains("192.168.77.33") && !entries.contains("192.168.77.3 "), "{entries}");
}

/// The ways from the server's node to others.
fn routes(c: &Cluster) -> String {
    let mut command = c.machine().command(std::path::Path::new("ip"));
    Outcome::of(command.args(["route", "show", "dev", "knarr-vxlan"])).stdout
}

/// Who cannot join, and what is said.
fn refused(c: &mut Cluster) {
    c.add_host(4);
    let token = std::fs::read_to_string(c.token_file()).unwrap();
    join(c, "n2", &token, &["cannot join as node n2", "kubectl delete node n2"]);
    let (digest, rest) = token.split_once("::").unwrap();
    join(c, "n4", &format!("{digest}::zzzzzz.0123456789abcdef"), &["the server does not know the token zzzzzz"]);
    join(c, "n4", &format!("K10{}::{rest}", "0".repeat(64)), &["another authority than the token says"]);
    join(c, "n4", "abcdef.0123456789abcdef", &["must look like K10DIGEST::ID.SECRET"]);
    // Tokens of the command line: made, listed, worthless once deleted.
    let knarr = |arguments: &[&str]| Outcome::of(&mut c.knarr(arguments));
    let made = knarr(&["token", "create", "--ttl", "10m", "--description", "for n4"]).stdout;
    let id = made.split("::").nth(1).unwrap().split('.').next().unwrap().to_owned();
    assert!(knarr(&["token", "list"]).stdout.lines().any(|line| line.starts_with(&id) && line.ends_with("for n4")));
    assert_eq!(knarr(&["token", "delete", &id]).code, Some(0));
    assert!(!knarr(&["token", "list"]).stdout.contains(&id));
    join(c, "n4", &made, &[&format!("the server does not know the token {id}")]);
}

/// An agent that cannot join by this token ends, and says why.
fn join(c: &mut Cluster, name: &str, token: &str, expected: &[&str]) {
    let file = c.scratch().join("other");
    std::fs::write(&file, token).unwrap();
    let _ = base::trees::remove(&c.agent_dir(4));
    c.start_agent_with(4, &file, &["--node-name", name, "--node-ip", "192.168.77.4"]);
    let log = c.wait_agent(4);
    assert!(expected.iter().all(|part| log.contains(part)), "{log}");
}
