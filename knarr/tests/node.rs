//! What the node owes to its clients: readiness at once, a kubelet that knows tokens, port-forwards as browsers make them.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;

use testing::Cluster;

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

/// Its probes have a period of an hour, and its server listens a moment after its process began.
const SLOW: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: slow}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "sleep 0.3 & wait $!; mkdir /www; echo hello > /www/file; exec httpd -f -p 8080 -h /www"]
      startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 3600, failureThreshold: 2}
      readinessProbe: {httpGet: {path: /file, port: 8080}, periodSeconds: 3600}
"#;

const SYSCTLS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: sysctls}
spec:
  restartPolicy: Never
  securityContext:
    sysctls:
      - {name: net.ipv4.conf.eth0.log_martians, value: "1"}
      - {name: net/ipv4/conf/lo/log_martians, value: "0"}
      - {name: net.ipv4.tcp_keepalive_probes, value: "7"}
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, cd /proc/sys/net/ipv4; cat conf/eth0/log_martians conf/lo/log_martians tcp_keepalive_probes]
"#;

const MONITOR: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: monitor}
rules: [{apiGroups: [""], resources: [nodes/metrics, nodes/proxy], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: monitor}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: monitor}
subjects: [{kind: ServiceAccount, name: default, namespace: default}]
"#;

#[test]
fn the_kubelet_serves_its_clients() {
    let mut c = Cluster::prepare(KNARR);
    c.start_server_with(&["--enable-system-log-query", "--allowed-unsafe-sysctls", "net.ipv4.conf.*"]);
    c.k_with("apply -f -", SLOW);
    c.k("wait --for=condition=Ready pod/slow --timeout=60s");
    tokens(&c);
    node_logs(&c);
    port_forward(&c);
    sysctls(&c);
}

/// Using sysctls in a Kubernetes Cluster: those of a pod's device are set when it has one.
fn sysctls(c: &Cluster) {
    c.k_with("apply -f -", SYSCTLS);
    c.k("wait --for=jsonpath={.status.phase}=Succeeded pod/sysctls --timeout=60s");
    assert_eq!(c.k("logs sysctls").split_whitespace().collect::<Vec<_>>(), ["1", "0", "7"]);
}

/// "When the kubelet's HTTPS endpoint ... is enabled", a ServiceAccount's token is reviewed and its rights on the node's
/// sub-resources are asked for (docs, Kubelet authentication/authorization).
fn tokens(c: &Cluster) {
    let node = c.k("get nodes -o jsonpath={.items[0].metadata.name}");
    let address = c.k("get nodes -o jsonpath={.items[0].status.addresses[0].address}");
    let api = c.k("config view --minify -o jsonpath={.clusters[0].cluster.server}");
    let token = c.k("create token default").trim().to_owned();
    let get = |server: &str, path: &str| {
        let token = format!("--token={token}");
        let server = format!("--server={server}");
        c.try_kubectl(&["--kubeconfig=/dev/null", &server, "--insecure-skip-tls-verify", &token, "get", "--raw", path])
    };
    let kubelet = format!("https://{address}:10250");
    for path in ["/logs/", "/logs/?query=kubelet"] {
        let denied = get(&kubelet, path);
        assert!(denied.code != Some(0) && denied.stderr.contains("orbidden"), "{path}: {denied:?}");
    }
    let denied = get(&kubelet, "/metrics");
    assert!(denied.code != Some(0) && denied.stderr.contains("orbidden"), "{denied:?}");
    c.k_with("apply -f -", MONITOR);
    // Denied answers are remembered; another path is another question.
    assert_eq!(get(&kubelet, "/containerLogs/default/slow/main").code, Some(0));
    let healthz = get(&api, &format!("/api/v1/nodes/{node}/proxy/healthz"));
    assert_eq!(healthz.stdout, "ok", "{healthz:?}");
    for command in [format!("{kubelet} /exec"), format!("{api} /api/v1/nodes/{node}/proxy/exec")] {
        let (server, path) = command.split_once(' ').unwrap();
        let refused = get(server, &format!("{path}/default/slow/main?command=id&output=1"));
        assert!(refused.code != Some(0) && refused.stderr.contains("orbidden"), "{command}: {refused:?}");
    }
}

/// KEP-2258: logs of the node "via the kubelet API", by paths and by queries, for who may read nodes/log (the API server, after its own question
/// for nodes/proxy).
fn node_logs(c: &Cluster) {
    let get = |path: &str| c.try_kubectl(&["get", "--raw", &format!("/api/v1/nodes/n1/proxy/logs/{path}")]);
    let listed = get("");
    assert!(listed.stdout.starts_with("<!doctype html>"), "{listed:?}");
    let none = get("?query=no-such-service");
    assert_eq!(none.stdout, "\nlog not found for no-such-service\n", "{none:?}");
    for (query, expected) in [
        ("?query=/../../etc/shadow", "could not find the requested resource"),
        ("?query=a%20b", "input contains unsupported characters"),
        ("?query=kubelet&boot=1", "must be less than 1"),
    ] {
        let refused = get(query);
        assert!(refused.code != Some(0) && refused.stderr.contains(expected), "{query}: {refused:?}");
    }
}

/// A WebSocket client that names no subprotocol gets binary channels, and hears of the end of the pod's connection.
fn port_forward(c: &Cluster) {
    let mut proxy = c.background("proxy --port=18001");
    proxy.line("Starting to serve");
    let mut stream = TcpStream::connect("127.0.0.1:18001").unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let head = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let path = "/api/v1/namespaces/default/pods/slow/portforward?ports=8080";
    stream.write_all(format!("GET {path} HTTP/1.1\r\n{head}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.1 101") && !answer.contains("sec-websocket-protocol"), "{answer}");
    // One final binary frame of channel 0, with a mask of zeros.
    let request = b"\x00GET /file HTTP/1.0\r\n\r\n";
    stream.write_all(&[&[0x82, 0x80 | request.len() as u8, 0, 0, 0, 0], &request[..]].concat()).unwrap();
    let mut data = Vec::new();
    let closed = loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).unwrap();
        let mut length = usize::from(head[1]);
        if length == 126 {
            let mut long = [0; 2];
            stream.read_exact(&mut long).unwrap();
            length = usize::from(u16::from_be_bytes(long));
        }
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).unwrap();
        match (head[0], payload.split_first()) {
            (0x82, Some((0, rest))) => data.extend_from_slice(rest),
            (0x82, Some((1, rest))) => assert_eq!(rest, 8080_u16.to_le_bytes(), "nothing but the port"),
            (0x88, _) => break payload,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(closed, 1000_u16.to_be_bytes());
    let text = String::from_utf8_lossy(&data[2..]).into_owned();
    assert!(data.starts_with(&8080_u16.to_le_bytes()) && text.ends_with("hello\n"), "{text}");
    proxy.stop();
}
