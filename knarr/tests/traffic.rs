//! What clients of a service notice while its pods, its nodes and the server come and go: nothing.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use testing::steady::{Patience, Report, Steady};
use testing::{Background, Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

/// A program that ends as programs are advised to: it goes on for as long as others may still lead requests to it, then finishes those that
/// it has.
const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 40
      topologySpreadConstraints:
        - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      containers:
        - name: main
          image: 127.0.0.1:5000/nginx:1.27
          lifecycle: {preStop: {sleep: {seconds: 10}}}
          readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, nodePort: 30080}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
"#;

/// Requests a second by the cluster address, by a node's port, and by ingress.
const RATES: [u32; 3] = [500, 250, 250];

fn told(way: &str, report: &Report, least: u64) {
    let Report { answered, failures, closed, again, slowest } = report;
    let failed = failures.len();
    println!(
        "{way}: {answered} requests, {failed} failures, {closed} connections closed, {again} asked again, slowest {slowest:?}"
    );
    assert!(failures.is_empty(), "{way}: {failures:#?}");
    assert!(*answered > least, "{way}: {answered} requests are too few to tell");
}

/// Where the service is: its own address, and its port on other nodes than the server's.
fn ways(c: &Cluster) -> [SocketAddr; 3] {
    let service = format!("{}:80", c.k("get service web -o jsonpath={.spec.clusterIP}"));
    let ways: [SocketAddr; 3] = [service.as_str(), "192.168.77.2:30080", "192.168.77.3:30080"].map(|way| way.parse().unwrap());
    for way in ways {
        eventually(&format!("{way} leads to the pods"), || testing::http::get(&way.to_string(), "/").ok());
    }
    ways
}

fn rolled_out(c: &Cluster, pods: usize) {
    c.k("rollout status deployment/web --timeout=120s");
    // Those that leave have left.
    eventually("so many pods", || (c.k("get pods -l app=web -o name").lines().count() == pods).then_some(()));
}

#[test]
fn no_request_fails_while_pods_and_nodes_come_and_go() {
    let mut c = Cluster::start_nodes(KNARR, 3);
    c.k_with("apply -f -", WEB);
    rolled_out(&c, 3);
    let address: SocketAddr = format!("{}:80", c.k("get service web -o jsonpath={.spec.clusterIP}")).parse().unwrap();
    let (node, door): (SocketAddr, SocketAddr) = ("192.168.77.3:30080".parse().unwrap(), "192.168.77.2:80".parse().unwrap());
    for way in [address, node, door] {
        eventually(&format!("{way} leads to the pods"), || testing::http::get(&way.to_string(), "/").ok());
    }
    let [service, port, ingress] =
        [(address, RATES[0]), (node, RATES[1]), (door, RATES[2])].map(|(way, rate)| Steady::start(way, rate));

    c.k("set env deployment/web ROUND=2");
    rolled_out(&c, 3);
    c.k("scale deployment/web --replicas=1");
    rolled_out(&c, 1);
    c.k("scale deployment/web --replicas=3");
    rolled_out(&c, 3);
    c.k("drain n2 --ignore-daemonsets --timeout=120s");
    rolled_out(&c, 3);
    c.k("uncordon n2");
    told("by ingress", &ingress.stop(), 1000);

    // Services go on without the server and without the agent of the node that is asked.
    c.kill_server();
    c.start_server();
    c.kill_agent(3);
    c.start_agent(3);
    c.wait_nodes(3);
    c.k("set env deployment/web ROUND=3");
    rolled_out(&c, 3);
    told("by the cluster address", &service.stop(), 1000);
    told("by a node's port", &port.stop(), 1000);
}

/// The containers of the pods, and how often each was started again.
fn containers(c: &Cluster) -> String {
    c.k("get pods -l app=web -o jsonpath={range.items[*]}{.metadata.name},{.status.containerStatuses[0].containerID},{.status.containerStatuses[0].restartCount};{end}")
}

#[test]
fn no_request_fails_while_every_agent_starts_again() {
    let mut c = Cluster::start_nodes(KNARR, 3);
    c.k_with("apply -f -", WEB);
    rolled_out(&c, 3);
    let before = containers(&c);
    let load = ways(&c).map(|way| Steady::start(way, RATES[1]));
    let ends: [fn(&mut Cluster, u8); 2] = [Cluster::kill_agent, Cluster::stop_agent];
    for end in ends {
        for number in [2, 3] {
            end(&mut c, number);
            c.start_agent(number);
            // The log of a pod comes from the agent of its node.
            let pods = c.k(&format!("get pods -l app=web -o name --field-selector spec.nodeName=n{number}"));
            let pod = pods.lines().next().expect("a pod on each node");
            eventually("the new agent is there", || (c.try_kubectl(&["exec", pod, "--", "true"]).code == Some(0)).then_some(()));
        }
    }
    // The server's own node.
    c.kill_server();
    c.start_server();
    c.stop_server();
    c.start_server();
    c.wait_nodes(3);
    for (way, load) in ["by the cluster address", "by the port of n2", "by the port of n3"].into_iter().zip(load) {
        told(way, &load.stop(), 200);
    }
    assert_eq!(containers(&c), before, "the same containers, none of them started again");
    assert_eq!(c.k("get events --field-selector reason=Killing -o name"), "");
}

/// What changes of pods, until the last one has gone: `TYPE,UID,ADDRESS,PHASE`. No two pods have an address at the same time.
fn no_address_is_used_twice(watch: &Background) {
    let mut holders = BTreeMap::<String, String>::new();
    let mut seen = BTreeSet::new();
    while let Some(line) = watch.next_line() {
        let [kind, uid, address, phase] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        seen.insert(uid.to_owned());
        if kind == "DELETED" || ["Succeeded", "Failed"].contains(&phase) {
            holders.retain(|_, holder| holder != uid);
        } else if !address.is_empty() {
            let holder = holders.entry(address.to_owned()).or_insert_with(|| uid.to_owned());
            assert_eq!(holder, uid, "{address} has two pods");
        }
        if holders.is_empty() && kind == "DELETED" {
            break;
        }
    }
    assert!(seen.len() > 6, "pods have come and gone: {seen:?}");
}

/// A network that is bad is no network that is away: nodes stay what they are, and what is asked for happens, later.
#[test]
fn traffic_and_rollouts_come_through_the_loss_of_packets() {
    let c = Cluster::start_nodes(KNARR, 3);
    // All at once: a connection that has lost the same packet five times waits for ten seconds, and pods one after the other add that up.
    c.k_with("apply -f -", &WEB.replace("maxSurge: 1", "maxSurge: 3"));
    rolled_out(&c, 3);
    let ready = "get nodes -o jsonpath={.items[*].status.conditions[?(@.type=='Ready')].lastTransitionTime}";
    let since = c.k(ready);
    let columns = "{.type},{.object.metadata.uid},{.object.status.podIP},{.object.status.phase}{'\\n'}";
    let watch = c.background(&format!("get pods -l app=web --watch --output-watch-events -o jsonpath={columns}"));
    let load = ways(&c).map(|way| Steady::with_patience(way, 20, Patience::LONG));
    c.lose_packets(30);
    c.k("set env deployment/web ROUND=2");
    c.k("rollout status deployment/web --timeout=120s");
    c.lose_packets(0);
    rolled_out(&c, 3);
    let new = |line: &str| c.k(line).split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(new("get pods -l app=web -o jsonpath={.items[*].spec.containers[0].env[0].value}"), ["2".to_owned()].into());
    c.k("scale deployment/web --replicas=4");
    rolled_out(&c, 4);
    for (way, load) in ["by the cluster address", "by the port of n2", "by the port of n3"].into_iter().zip(load) {
        let report = load.stop();
        assert!(report.again + report.closed > 0 || report.slowest.as_millis() > 150, "no packet was lost: {report:?}");
        told(way, &report, 50);
    }
    assert_eq!(c.k(ready), since, "no node was thought to be away");
    assert_eq!(c.k("get nodes -o jsonpath={.items[*].spec.taints}"), "");
    assert_eq!(c.k("get events --field-selector reason=TaintManagerEviction -o name"), "");
    c.k("scale deployment/web --replicas=0");
    no_address_is_used_twice(&watch);
}
