//! Nodes that their server cannot dial: what it has to do with them goes through tunnels that their agents open.
#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use testing::manifests::ONE;
use testing::{Cluster, Outcome, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

/// A server without pods, and an agent behind a wall: nobody opens a connection to its host.
fn start() -> Cluster {
    let mut c = Cluster::prepare(KNARR);
    c.add_host(2);
    let wall = "table inet wall { chain input { type filter hook input priority 0; iifname node0 ct state new drop; }; }";
    let made = Outcome::of(c.on_host(2, "nft").arg(wall));
    assert_eq!(made.code, Some(0), "{made:?}");
    c.spawn_server(&["--no-agent"]);
    let (token, kubeconfig) = (c.token_file(), c.kubeconfig());
    eventually("the server serves", || kubeconfig.exists().then_some(()));
    c.connect();
    c.start_agent_with(2, &token, &["--node-name", "n2", "--node-ip", "192.168.77.2"]);
    c.wait_nodes(1);
    c
}

#[test]
fn a_node_behind_a_wall() {
    let mut c = start();
    let dialled = Outcome::of(
        c.machine()
            .command(std::path::Path::new("busybox"))
            .args(["nc", "-w", "1", "192.168.77.2", "10250"])
            .stdin(Stdio::null()),
    );
    assert_ne!(dialled.code, Some(0), "there is no wall");
    c.k_with("apply -f -", ONE);
    c.k("wait --for=condition=Ready pod/web --timeout=60s");
    reached(&c);
    // The agent comes back, and so does its tunnel.
    c.kill_agent(2);
    let token = c.token_file();
    c.start_agent_with(2, &token, &["--node-name", "n2", "--node-ip", "192.168.77.2"]);
    eventually("the new agent is reached", || {
        (c.try_kubectl(&["exec", "web", "--", "echo", "again"]).stdout == "again\n").then_some(())
    });
    // And so it does when the server was away.
    c.kill_server();
    c.spawn_server(&["--no-agent"]);
    eventually("the new server reaches the agent", || {
        (c.try_kubectl(&["exec", "web", "--", "echo", "again"]).stdout == "again\n").then_some(())
    });
    reached(&c);
    webhooks_are_called(&c);
    // What is asked of a node that has just gone fails when nothing acknowledges it, before HTTP/2's own question is due and unanswered.
    c.plug(2, false);
    let asked = Instant::now();
    let lost = c.try_kubectl(&["logs", "web"]);
    assert!(lost.code != Some(0) && asked.elapsed() < Duration::from_secs(10), "{:?}: {lost:?}", asked.elapsed());
    println!("the node was given up after {:?}", asked.elapsed());
    // An attempt by a tunnel that is there takes five seconds.
    eventually("the tunnel has ended", || {
        let asked = Instant::now();
        let told = c.try_kubectl(&["logs", "web"]).stderr;
        (told.contains("i/o timeout") && asked.elapsed() < Duration::from_secs(4)).then_some(())
    });
    // Once the tunnel has ended, each attempt of kubectl (there are two, of two protocols) takes two seconds.
    let asked = Instant::now();
    let lost = c.try_kubectl(&["exec", "web", "--", "true"]);
    assert!(lost.code != Some(0) && asked.elapsed() < Duration::from_secs(12), "{:?}: {lost:?}", asked.elapsed());
}

/// Logs, commands, ports, and the proxies of node, pod and service.
fn reached(c: &Cluster) {
    assert_eq!(c.k("logs web"), "serving\n");
    assert_eq!(c.kubectl(&["exec", "web", "--", "cat", "/www/index.html"]), "served\n");
    for path in ["pods/web:8080", "services/web:80"] {
        let answer = c.k(&format!("get --raw /api/v1/namespaces/default/{path}/proxy/"));
        assert_eq!(answer, "served\n", "{path}");
    }
    assert_eq!(c.k("get --raw /api/v1/nodes/n2/proxy/healthz"), "ok");
    // Much at once, and all of it.
    let large = c.kubectl(&["exec", "web", "--", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"]);
    assert_eq!(large.len(), 3_000_000);
}

/// What the API server calls itself is behind the wall, too: a webhook that nobody serves is reached, and refuses the connection.
fn webhooks_are_called(c: &Cluster) {
    let webhook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "refuses"}, "webhooks": [{"name": "refuses.example.com", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "timeoutSeconds": 5, "failurePolicy": "Fail",
            "clientConfig": {"service": {"namespace": "default", "name": "web", "port": 80}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]}]});
    c.k_with("apply -f -", &webhook.to_string());
    let refused = c.try_kubectl(&["create", "configmap", "x"]);
    // It speaks no TLS: it was reached, which a dialled address would not have been.
    assert!(refused.stderr.contains("failed calling webhook") && !refused.stderr.contains("deadline"), "{}", refused.stderr);
    c.k("delete validatingwebhookconfiguration refuses");
}
