//! What clients of a service notice while its pods, its nodes and the server come and go: nothing.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use testing::steady::{Report, Steady};
use testing::{Cluster, eventually};

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
      terminationGracePeriodSeconds: 20
      topologySpreadConstraints:
        - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      containers:
        - name: main
          image: 127.0.0.1:5000/nginx:1.27
          lifecycle: {preStop: {sleep: {seconds: 3}}}
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

fn told(way: &str, report: &Report) {
    let Report { answered, failures, closed, slowest } = report;
    println!("{way}: {answered} requests, {} failures, {closed} connections closed, slowest {slowest:?}", failures.len());
    assert!(failures.is_empty(), "{way}: {failures:#?}");
    assert!(*answered > 1000, "{way}: {answered} requests are too few to tell");
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
    told("by ingress", &ingress.stop());

    // Services go on without the server and without the agent of the node that is asked.
    c.kill_server();
    c.start_server();
    c.kill_agent(3);
    c.start_agent(3);
    c.wait_nodes(3);
    c.k("set env deployment/web ROUND=3");
    rolled_out(&c, 3);
    told("by the cluster address", &service.stop());
    told("by a node's port", &port.stop());
}
