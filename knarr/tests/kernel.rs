//! What needs a kernel that has more than that of most machines that run the tests.
#![allow(clippy::unwrap_used)]

#[path = "kernel/nfs.rs"]
mod nfs;

use std::io::Write;
use std::process::{Command, Stdio};

use testing::manifests::{WEB, web_pods};
use testing::{Cluster, Outcome, eventually, eventually_or};

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
        eventually_or("pods of other nodes answer", || {
            // Debian's busybox crashes where wget itself is told how long to wait.
            let command = ["exec", from, "--", "timeout", "5", "wget", "-q", "-O", "-", &url];
            let answer = Outcome::of(&mut c.kubectl_command(&command));
            if answer.stdout.trim() == node { Ok(()) } else { Err(format!("{answer:?}")) }
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

/// Pods whose only container says by its files, hooks and probes what confines it: it is ready when the postStart hook and the probe have the
/// same profile as itself. NAME, METADATA and SECURITY are filled in.
const CONFINED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: NAME, METADATA}
spec:
  terminationGracePeriodSeconds: 0
  SECURITY
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "cat /proc/self/attr/current >/tmp/main; cat /tmp/main; exec sleep 100000"]
      CONTAINER
      lifecycle: {postStart: {exec: {command: [sh, -c, "cat /proc/self/attr/current >/tmp/hook"]}}}
      readinessProbe: {periodSeconds: 1, timeoutSeconds: 60, exec: {command: [sh, -c, "cat /proc/self/attr/current >/tmp/probe; cmp /tmp/main /tmp/hook && cmp /tmp/main /tmp/probe"]}}
"#;

fn confined(c: &Cluster, name: &str, annotation: Option<&str>, pod: &str, container: &str) {
    let annotation =
        annotation.map(|value| format!("annotations: {{container.apparmor.security.beta.kubernetes.io/main: {value}}}"));
    let pod = if pod.is_empty() { String::new() } else { format!("securityContext: {{{pod}}}") };
    let container = if container.is_empty() { String::new() } else { format!("securityContext: {{{container}}}") };
    let manifest = CONFINED.replace("NAME", name).replace("METADATA", &annotation.unwrap_or_default());
    c.k_with("apply -f -", &manifest.replace("SECURITY", &pod).replace("CONTAINER", &container));
}

/// Loads a profile, or several, into the kernel, as administrators do.
fn load_profiles(profiles: &str) {
    let mut parser = Command::new("apparmor_parser");
    let mut parser = parser.args(["--replace", "--skip-cache"]).stdin(Stdio::piped()).spawn().unwrap();
    parser.stdin.take().unwrap().write_all(profiles.as_bytes()).unwrap();
    assert!(parser.wait().unwrap().success());
}

/// KEP-24: "the AppArmor profile ... is applied to the container's processes", of the pod's and the container's fields and of annotations; what is
/// not loaded is an error of the container, and it starts when it has been loaded.
#[test]
#[ignore = "needs a kernel with AppArmor: `cargo xtask kernel`"]
fn containers_are_confined_by_app_armor() {
    const LOCAL: &str = "profile knarr-test-NAME { capability, file, network, signal, ptrace, deny /data/** w, }";
    load_profiles(&LOCAL.replace("NAME", "one"));
    let c = Cluster::start(KNARR);
    let (default, none) = ("knarr-default (enforce)", "unconfined");
    let local = |name: &str| format!("appArmorProfile: {{type: Localhost, localhostProfile: knarr-test-{name}}}");
    let (runtime, unconfined) = ("appArmorProfile: {type: RuntimeDefault}", "appArmorProfile: {type: Unconfined}");
    let pods = [
        ("unsaid", None, "", "capabilities: {add: [SYS_ADMIN]}", default),
        ("asked", None, runtime, "", default),
        ("free", None, runtime, unconfined, none),
        ("privileged", None, runtime, "privileged: true", none),
        ("annotated", Some("localhost/knarr-test-one"), runtime, "", "knarr-test-one (enforce)"),
        ("named", None, unconfined, &local("one"), "knarr-test-one (enforce)"),
        ("bare", Some("unconfined"), "", "allowPrivilegeEscalation: false, seccompProfile: {type: RuntimeDefault}", none),
        ("strict", None, "", "allowPrivilegeEscalation: false, seccompProfile: {type: RuntimeDefault}", default),
    ];
    for (name, annotation, pod, container, _) in &pods {
        confined(&c, name, *annotation, pod, container);
    }
    confined(&c, "missing", None, &local("two"), "");
    for (name, _, _, _, expected) in &pods {
        c.k(&format!("wait --for=condition=Ready pod/{name} --timeout=600s"));
        assert_eq!(c.k(&format!("logs {name}")).trim(), *expected, "{name}");
        let executed = c.k(&format!("exec {name} -- cat /proc/self/attr/current"));
        assert_eq!(executed.trim(), *expected, "{name}");
    }

    // With this capability, the profile alone is in the way.
    let inside = |name: &str, script: &str| c.try_kubectl(&["exec", name, "--", "sh", "-c", script]);
    assert!(inside("unsaid", "mkdir -p /mnt; mount -t tmpfs t /mnt").stderr.contains("Permission denied"));
    assert_eq!(inside("privileged", "mkdir -p /mnt; mount -t tmpfs t /mnt").code, Some(0));
    assert_eq!(inside("free", "mkdir /data; echo x >/data/file").code, Some(0));
    assert!(inside("named", "mkdir /data; echo x >/data/file").stderr.contains("Permission denied"));

    let waiting = "get pod missing -o jsonpath={.status.containerStatuses[0].state.waiting.reason}";
    eventually("a profile that is not there is told", || (c.k(waiting) == "CreateContainerError").then_some(()));
    let message = c.k("get pod missing -o jsonpath={.status.containerStatuses[0].state.waiting.message}");
    assert!(message.contains("AppArmor profile \"knarr-test-two\" is not loaded on this node"), "{message}");
    load_profiles(&LOCAL.replace("NAME", "two"));
    c.k("wait --for=condition=Ready pod/missing --timeout=600s");
    assert_eq!(c.k("logs missing").trim(), "knarr-test-two (enforce)");
    // Whoever takes a profile away does so for the containers to come: the runtime's own is loaded again.
    let mut remove = Command::new("apparmor_parser");
    let mut remove = remove.arg("--remove").stdin(Stdio::piped()).spawn().unwrap();
    remove.stdin.take().unwrap().write_all(b"profile knarr-default {}").unwrap();
    assert!(remove.wait().unwrap().success());
    confined(&c, "again", None, runtime, "");
    c.k("wait --for=condition=Ready pod/again --timeout=600s");
    assert_eq!(c.k("logs again").trim(), default);
}
