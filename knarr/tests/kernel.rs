//! What needs a kernel that has more than that of most machines that run the tests.
#![allow(clippy::unwrap_used)]

use testing::manifests::{WEB, web_pods};
use testing::{Cluster, Outcome, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

/// Node, name and address of a pod.
type Web = (String, String, String);

fn ip(c: &Cluster, line: &str) -> Outcome {
    Outcome::of(c.on_host(2, "ip").args(line.split(' ')))
}

/// Each pod reaches the other one by the device: packets of pods are nowhere else between the nodes.
fn reach(c: &Cluster, pods: &[Web]) {
    for ((_, from, _), (node, _, address)) in [(&pods[0], &pods[1]), (&pods[1], &pods[0])] {
        let url = format!("http://{address}:8080/");
        eventually("pods of other nodes answer", || {
            let answer = Outcome::of(&mut c.kubectl_command(&["exec", from, "--", "wget", "-q", "-T", "5", "-O", "-", &url]));
            (answer.stdout.trim() == node).then_some(())
        });
    }
}

/// `--pod-network wireguard`: nodes tell their public keys, what pods of different nodes send is encrypted, and a cluster may change over.
#[test]
#[ignore = "needs a kernel with WireGuard: `cargo xtask kernel`"]
fn nodes_encrypt_what_pods_send() {
    let mut c = Cluster::prepare(KNARR);
    c.add_host(2);
    c.start_server_with(&["--pod-network", "wireguard"]);
    c.start_agent(2);
    c.wait_nodes(2);
    c.k_with("apply -f -", WEB);
    c.k("rollout status daemonset/web --timeout=600s");
    let pods = web_pods(&c);
    assert_eq!(pods.len(), 2, "{pods:?}");
    reach(&c, &pods);
    let link = ip(&c, "-d link show knarr-wg").stdout;
    assert!(link.contains("wireguard") && link.contains("mtu 1440"), "{link}");
    assert_ne!(ip(&c, "link show knarr-vxlan").code, Some(0));
    assert!(ip(&c, "route").stdout.contains("dev knarr-wg"));
    assert_ne!(ip(&c, "route get 10.42.200.1").code, Some(0), "nothing leaves in the clear");
    let keys = c.k("get nodes -o jsonpath={.items[*].metadata.annotations.knarr\\.io/wireguard-public-key}");
    assert_eq!(keys.split(' ').filter(|key| key.len() == 44).count(), 2, "{keys}");

    // What is there stays where it is while the server is away, and afterwards.
    c.kill_server();
    c.start_server_with(&["--pod-network", "wireguard"]);
    reach(&c, &pods);
    assert_eq!(c.k("get nodes -o jsonpath={.items[*].metadata.annotations.knarr\\.io/wireguard-public-key}"), keys);
    assert_eq!(ip(&c, "link del knarr-wg").code, Some(0));
    eventually("the device comes back", || (ip(&c, "link show knarr-wg").code == Some(0)).then_some(()));
    reach(&c, &pods);

    c.kill_server();
    c.start_server_with(&[]);
    eventually("the agent has changed over", || {
        (ip(&c, "link show knarr-vxlan").code == Some(0) && ip(&c, "link show knarr-wg").code != Some(0)).then_some(())
    });
    reach(&c, &pods);
    assert_eq!(ip(&c, "route show type unreachable").stdout, "");
    eventually("nodes take their keys back", || {
        c.k("get nodes -o jsonpath={.items[*].metadata.annotations.knarr\\.io/wireguard-public-key}")
            .trim()
            .is_empty()
            .then_some(())
    });
}
