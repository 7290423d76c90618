//! Processors that containers have for themselves.
#![allow(clippy::unwrap_used)]

use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

fn pod(name: &str, resources: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: main\n    \
         image: 127.0.0.1:5000/busybox:1.36\n    command: [sleep, '100000']\n    resources: {resources}\n"
    )
}

fn processors() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

/// "Control CPU Management Policies on the Node", static policy: "Only containers that are part of a Guaranteed pod with integer CPU requests are
/// assigned exclusive CPUs", and all others run in the shared pool.
#[test]
fn a_guaranteed_pod_has_processors_for_itself() {
    if processors() < 2 {
        eprintln!("SKIPPED: one processor cannot be shared and exclusive");
        return;
    }
    let options = ["--cpu-manager-policy", "static", "--reserved-cpus", "0", "--topology-manager-policy", "restricted"];
    let mut c = Cluster::prepare(KNARR);
    c.start_server_with(&options);
    let (all, rest) = match processors() {
        2 => ("0-1".to_owned(), "0".to_owned()),
        3 => ("0-2".to_owned(), "0,2".to_owned()),
        count => (format!("0-{}", count - 1), format!("0,2-{}", count - 1)),
    };
    let allowed = |c: &Cluster, pod: &str| {
        let status = c.kubectl(&["exec", pod, "--", "cat", "/proc/1/status"]);
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned()
    };
    c.k_with("apply -f -", &pod("shares", "{}"));
    c.k("wait --for=condition=Ready pod/shares --timeout=60s");
    assert_eq!(allowed(&c, "shares"), all);
    let amounts = "{limits: {cpu: '1', memory: 32Mi}, requests: {cpu: '1', memory: 32Mi}}";
    c.k_with("apply -f -", &pod("alone", amounts));
    c.k("wait --for=condition=Ready pod/alone --timeout=60s");
    let own = allowed(&c, "alone");
    assert_eq!((own.as_str(), allowed(&c, "shares")), ("1", rest.clone()), "the other one was moved before this one ran");
    let allocatable = c.k("get node n1 -o jsonpath={.status.allocatable.cpu}");
    assert_eq!(allocatable, (processors() - 1).to_string());

    // Who comes later shares the rest, and a new kubelet knows.
    c.kill_server();
    c.start_server_with(&options);
    c.k_with("apply -f -", &pod("late", "{limits: {memory: 32Mi}}"));
    c.k("wait --for=condition=Ready pod/late --timeout=60s");
    assert_eq!((allowed(&c, "alone"), allowed(&c, "late")), (own, rest));
    let patch =
        r#"{"spec":{"containers":[{"name":"main","resources":{"limits":{"memory":"64Mi"},"requests":{"memory":"64Mi"}}}]}}"#;
    c.kubectl(&["patch", "pod", "alone", "--subresource", "resize", "-p", patch]);
    eventually("the resize is infeasible", || {
        let pending = "jsonpath={.status.conditions[?(@.type==\"PodResizePending\")].reason}";
        (c.kubectl(&["get", "pod", "alone", "-o", pending]) == "Infeasible").then_some(())
    });
    // Who comes while the processors are on their way back waits for them, also where the topology manager is asked first.
    c.k("delete pod alone --wait=true");
    c.k_with("apply -f -", &pod("heir", amounts).replace("spec:\n", "spec:\n  nodeName: n1\n"));
    c.k("wait --for=condition=Ready pod/heir --timeout=60s");
    c.k("delete pod heir --wait=true");
    eventually("all processors are shared again", || (allowed(&c, "shares") == all && allowed(&c, "late") == all).then_some(()));
}
