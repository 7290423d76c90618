//! A node whose pod network is left to plugins: those of Debian's containernetworking-plugins.
#![allow(clippy::unwrap_used)]

use std::fs;

use serde_json::json;
use testing::manifests::ONE;
use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

const CLIENT: &str = r#"---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: 127.0.0.1:5000/busybox:1.36, command: [sleep, "10000"]}]
"#;

/// Pods wait until a network is installed, have addresses of its plugins, and give them back; services and names work as anywhere.
#[test]
fn plugins_make_the_pod_network() {
    let mut c = Cluster::prepare(KNARR);
    let directory = c.machine().directory().join("net.d");
    let options = ["--pod-network", "cni", "--cni-conf-dir", directory.to_str().unwrap()];
    c.start_api_with(&options);
    eventually("the node says what it waits for", || {
        let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}: {.status.conditions[?(@.type=='Ready')].message}";
        let node = c.try_kubectl(&["get", "node", "n1", "-o", ready]).stdout;
        let reason = "reason:NetworkPluginNotReady message:no network is configured in";
        (node.starts_with("False: container runtime network not ready") && node.contains(reason)).then_some(())
    });
    eventually("there is a namespace", || (c.try_kubectl(&["get", "serviceaccount", "default"]).code == Some(0)).then_some(()));
    c.k_with("apply -f -", &[ONE, CLIENT].concat());
    // Upstream: node.kubernetes.io/not-ready keeps away who does not tolerate it.
    eventually("pods say what they wait for", || {
        let events = c.k("get events --field-selector reason=FailedScheduling -o jsonpath={.items[*].message}");
        events.contains("had untolerated taint").then_some(())
    });
    let leases = c.machine().directory().join("leases");
    let ipam = json!({"type": "host-local", "dataDir": leases, "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": c.k("get node n1 -o jsonpath={.spec.podCIDR}")}]]});
    let plugins =
        json!([{"type": "ptp", "mtu": 1400, "ipam": ipam}, {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}]);
    fs::create_dir(&directory).unwrap();
    let network = json!({"cniVersion": "1.0.0", "name": "net", "plugins": plugins});
    fs::write(directory.join("10-net.conflist"), network.to_string()).unwrap();
    c.k("wait --for=condition=Ready pod/web pod/client --timeout=60s");

    let inside = |command: &str| c.kubectl(&["exec", "client", "--", "sh", "-c", command]).trim().to_owned();
    assert_eq!(inside("cat /sys/class/net/eth0/mtu /proc/sys/net/core/somaxconn"), "1400\n500");
    let address = c.k("get pod web -o jsonpath={.status.podIP}");
    assert!(leases.join("net").join(&address).exists(), "{address} is the plugins'");
    let reached = |c: &Cluster| {
        for url in [format!("http://{address}:8080/"), "http://web/".to_owned(), "http://192.168.77.1:8088/".to_owned()] {
            let get = ["exec", "client", "--", "timeout", "10", "wget", "-q", "-O", "-", &url];
            eventually(&format!("{url} answers"), || (c.try_kubectl(&get).stdout.trim() == "served").then_some(()));
        }
    };
    reached(&c);

    // What a server before has added stays, and goes with its pod.
    c.kill_server();
    c.start_server_with(&options);
    reached(&c);
    assert_eq!(
        c.k("get pod web -o jsonpath={.status.podIP}:{.status.containerStatuses[0].restartCount}"),
        format!("{address}:0")
    );
    c.k("delete pod web client");
    eventually("the addresses are free again", || {
        let left = fs::read_dir(leases.join("net")).unwrap().flatten().map(|entry| entry.file_name());
        (!left.into_iter().any(|name| name.to_string_lossy().starts_with("10."))).then_some(())
    });
}
