//! Memory of NUMA nodes that containers have for themselves.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

fn pod(name: &str, memory: &str) -> String {
    let amounts = format!("{{cpu: 10m, memory: {memory}}}");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: n1\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: main\n    \
         image: 127.0.0.1:5000/busybox:1.36\n    command: [sleep, '100000']\n    resources: {{limits: {amounts}, requests: {amounts}}}\n"
    )
}

/// KEP-1769: memory of guaranteed pods is pinned to NUMA nodes and accounted for in `memory_manager_state`, also over a restart of the kubelet.
/// What more than one node changes is proved by the tables of `kubelet::numa`.
#[test]
fn a_guaranteed_pod_has_memory_of_a_numa_node() {
    let nodes = std::fs::read_to_string("/sys/devices/system/node/has_memory").unwrap_or_default();
    if nodes.trim() != "0" {
        eprintln!("SKIPPED: this machine has not the one NUMA node that the options name: {nodes:?}");
        return;
    }
    let kept =
        ["--system-reserved", "memory=200Mi", "--kube-reserved", "memory=100Mi", "--eviction-hard", "memory.available<100Mi"];
    let policy = ["--memory-manager-policy", "Static", "--topology-manager-policy", "single-numa-node"];
    let options = |reserved: &'static str| [&kept[..], &policy[..], &["--reserved-memory", reserved][..]].concat();
    let mut c = Cluster::prepare(KNARR);
    c.spawn_server(&options("0:memory=300Mi"));
    assert!(!c.wait_server().success(), "what is reserved is not what pods do not get");
    let log = std::fs::read_to_string(c.log()).unwrap();
    let differs = "the total amount \"300Mi\" of type \"memory\" is not equal to the value \"400Mi\" determined by Node Allocatable feature";
    assert!(log.contains(differs) || log.contains(&differs.replace('"', "\\\"")), "{log}");

    c.start_server_with(&options("0:memory=400Mi"));
    let state = |c: &Cluster| -> Value {
        let text = std::fs::read(c.data_dir().join("kubelet/memory_manager_state")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    c.k_with("apply -f -", &pod("own", "64Mi"));
    c.k("wait --for=condition=Ready pod/own --timeout=60s");
    let uid = c.k("get pod own -o jsonpath={.metadata.uid}");
    let block = json!([{"numaAffinity": [0], "type": "memory", "size": 64 << 20}]);
    let told = state(&c);
    assert_eq!((&told["policyName"], &told["entries"][&uid]["main"]), (&json!("Static"), &block));
    assert_eq!(told["machineState"]["0"]["memoryMap"]["memory"]["systemReserved"], 400 << 20);
    let status = c.k("exec own -- cat /proc/1/status");
    let allowed = status.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:")).unwrap().trim();
    assert_eq!(allowed, "0");

    // A new kubelet knows; what the pod has is free when it is gone.
    c.kill_server();
    c.start_server_with(&options("0:memory=400Mi"));
    c.k_with("apply -f -", &pod("late", "32Mi"));
    c.k("wait --for=condition=Ready pod/late --timeout=60s");
    assert_eq!(state(&c)["entries"][&uid]["main"], block);
    let patch =
        r#"{"spec":{"containers":[{"name":"main","resources":{"limits":{"memory":"96Mi"},"requests":{"memory":"96Mi"}}}]}}"#;
    c.kubectl(&["patch", "pod", "own", "--subresource", "resize", "-p", patch]);
    eventually("the resize is infeasible", || {
        let pending = "jsonpath={.status.conditions[?(@.type==\"PodResizePending\")].reason}";
        (c.kubectl(&["get", "pod", "own", "-o", pending]) == "Infeasible").then_some(())
    });
    c.k("delete pod own late --wait=true");
    eventually("all memory is free", || state(&c)["entries"].is_null().then_some(()));
}
