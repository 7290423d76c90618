//! Manifests that several tests apply.

use crate::Cluster;

/// On each node a pod that says on which (at port 8080, path `/`), and a Service with the node port 30080 in front of them.
pub const WEB: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: main
          image: 127.0.0.1:5000/busybox:1.36
          command: [sh, -c, "mkdir /www; echo $NODE > /www/index.html; echo serving; exec httpd -f -p 8080 -h /www"]
          env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
"#;

/// One pod that says `served` (at port 8080, path `/`, and at port 8088 of its node) and prints `serving`, and a Service in front of it.
pub const ONE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "mkdir /www; echo served > /www/index.html; echo serving; exec httpd -f -p 8080 -h /www"]
      ports: [{containerPort: 8080, hostPort: 8088}]
      readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"#;

/// Node, name and address of each pod of [`WEB`].
///
/// # Panics
/// When they cannot be listed.
pub fn web_pods(c: &Cluster) -> Vec<(String, String, String)> {
    let columns = "-o custom-columns=A:.spec.nodeName,B:.metadata.name,C:.status.podIP";
    let lines = c.k(&format!("get pods -l app=web --no-headers {columns}"));
    let pod = |line: &str| {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        (words[0].clone(), words[1].clone(), words[2].clone())
    };
    let mut pods: Vec<_> = lines.lines().map(pod).collect();
    pods.sort();
    pods
}
