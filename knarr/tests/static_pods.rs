//! Static pods: what a directory of the node says runs there, and the API shows it.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

fn manifest(name: &str, word: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
         - name: main\n    image: 127.0.0.1:5000/busybox:1.36\n    command: [sh, -c, 'echo {word}; echo {word} >/word; exec sleep 100000']\n{more}"
    )
}

/// Writes a file as editors do: whole, or not at all.
fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(".next"), text).unwrap();
    std::fs::rename(directory.join(".next"), directory.join(name)).unwrap();
}

fn ready(c: &Cluster, pod: &str) {
    eventually("the mirror pod is ready", || {
        let outcome = c.try_k_with(&format!("wait --for=condition=Ready pod/{pod} --timeout=5s"), "");
        (outcome.code == Some(0)).then_some(())
    });
}

fn field(c: &Cluster, pod: &str, path: &str) -> String {
    c.k(&format!("get pod {pod} -o jsonpath={{{path}}}"))
}

const CONTAINER: &str = ".status.containerStatuses[0].containerID";
const HASH: &str = r".metadata.annotations.kubernetes\.io/config\.mirror";

/// Static pods, and [sig-node] MirrorPod when create a mirror pod: "should be updated when static pod updated", "should be recreated when mirror
/// pod gracefully deleted", "should be recreated when mirror pod forcibly deleted".
#[test]
fn what_is_in_the_directory_runs() {
    let directory: PathBuf = tempfile::tempdir().unwrap().keep();
    write(&directory, "web.yaml", &manifest("web", "one", ""));
    let option = directory.display().to_string();
    let mut c = Cluster::prepare(KNARR);
    c.start_server_with(&["--pod-manifest-path", &option]);
    ready(&c, "web-n1");
    c.logged("web-n1", "one\n");
    eventually("its file", || (c.try_kubectl(&["exec", "web-n1", "--", "cat", "/word"]).stdout == "one\n").then_some(()));
    assert_eq!(field(&c, "web-n1", ".metadata.ownerReferences[0].kind"), "Node");
    assert_eq!(field(&c, "web-n1", ".spec.priorityClassName"), "system-node-critical");
    let (container, uid, hash) =
        (field(&c, "web-n1", CONTAINER), field(&c, "web-n1", ".metadata.uid"), field(&c, "web-n1", HASH));

    // The mirror is not the pod.
    for how in ["--grace-period=0 --force", "--wait=false"] {
        let before = field(&c, "web-n1", ".metadata.uid");
        c.k(&format!("delete pod web-n1 {how}"));
        eventually("another mirror", || {
            (c.try_k_with("get pod web-n1 -o jsonpath={.metadata.uid}", "").stdout.as_str() != before).then_some(())
        });
        ready(&c, "web-n1");
    }
    assert_ne!(field(&c, "web-n1", ".metadata.uid"), uid);
    assert_eq!((field(&c, "web-n1", CONTAINER), field(&c, "web-n1", HASH)), (container.clone(), hash.clone()), "it has run on");
    c.kill_server();
    c.start_server_with(&["--pod-manifest-path", &option]);
    ready(&c, "web-n1");
    assert_eq!(
        (field(&c, "web-n1", CONTAINER), field(&c, "web-n1", ".status.containerStatuses[0].restartCount")),
        (container.clone(), "0".into())
    );

    // Another text is another pod.
    write(&directory, "web.yaml", &manifest("web", "two", ""));
    eventually("the other text", || (c.try_k_with("logs web-n1", "").stdout.trim_end() == "two").then_some(()));
    ready(&c, "web-n1");
    assert_ne!(field(&c, "web-n1", HASH), hash);
    assert_ne!(field(&c, "web-n1", CONTAINER), container);

    // What is refused runs not, and takes nothing from the others. Nor does a mirror that somebody else makes.
    write(&directory, "secret.yaml", &manifest("secret", "x", "    envFrom: [{secretRef: {name: s}}]\n"));
    write(&directory, "second.yaml", &manifest("second", "second", ""));
    ready(&c, "second-n1");
    assert!(std::fs::read_to_string(c.log()).unwrap().contains("static pods may not reference secrets"));
    assert!(c.try_k_with("get pod secret-n1", "").code != Some(0));
    let own = field(&c, "web-n1", HASH);
    let forged = manifest("forged", "x", "  nodeName: n1\n").replace(
        "metadata: {name: forged,",
        &format!("metadata: {{name: forged, annotations: {{kubernetes.io/config.mirror: {own}}},"),
    );
    c.k_with("create -f -", &forged);
    c.k("wait --for=delete pod/forged --timeout=60s");

    std::fs::remove_file(directory.join("web.yaml")).unwrap();
    c.k("wait --for=delete pod/web-n1 --timeout=60s");
    assert_eq!(field(&c, "second-n1", ".status.phase"), "Running");
    base::trees::remove(&directory).unwrap();
}

/// A node that does not reach its server starts what its directory says, on the pod network and on its own, and shows it when the server is back.
#[test]
fn static_pods_start_without_the_server() {
    let directory: PathBuf = tempfile::tempdir().unwrap().keep();
    let mut c = Cluster::start_nodes(KNARR, 2);
    let (manifests, token) = (directory.display().to_string(), c.token_file());
    let options = ["--node-name", "n2", "--node-ip", "192.168.77.2", "--pod-manifest-path", &manifests];
    c.stop_agent(2);
    c.kill_server();
    write(&directory, "lone.yaml", &manifest("lone", "alone", ""));
    write(&directory, "host.yaml", &manifest("host", "hosted", "  hostNetwork: true\n"));
    c.start_agent_with(2, &token, &options);
    let logs = c.agent_dir(2).join("logs");
    let said = |pod: &str, word: &str| {
        eventually("a static pod runs without the server", || {
            let of_pod =
                std::fs::read_dir(&logs).ok()?.flatten().find(|entry| entry.file_name().to_string_lossy().contains(pod))?;
            let log = std::fs::read_to_string(of_pod.path().join("main/0.log")).ok()?;
            log.contains(word).then_some(())
        });
    };
    said("host-n2", "hosted");
    said("lone-n2", "alone");
    // What changes meanwhile is followed.
    write(&directory, "late.yaml", &manifest("late", "later", "  hostNetwork: true\n"));
    said("late-n2", "later");
    c.start_server();
    for pod in ["lone-n2", "host-n2", "late-n2"] {
        ready(&c, pod);
    }
    assert_eq!(field(&c, "lone-n2", ".status.containerStatuses[0].restartCount"), "0", "it has run on");
    assert_eq!(c.k("logs lone-n2").trim_end(), "alone");
    c.stop_agent(2);
    base::trees::remove(&directory).unwrap();
}

/// Guaranteed Scheduling For Critical Add-On Pods: a node that is full makes room for a static pod, by the end of the pod that costs least. What
/// cannot be had at all is refused, and stays so.
#[test]
fn a_full_node_makes_room() {
    let directory: PathBuf = tempfile::tempdir().unwrap().keep();
    let option = directory.display().to_string();
    let mut c = Cluster::prepare(KNARR);
    let options = ["--pod-manifest-path", &option, "--max-pods", "2"];
    c.start_server_with(&options);
    let pod = |name: &str, requests: &str| {
        format!(
            "{}    resources: {{requests: {{{requests}}}}}\n  nodeName: n1\n",
            manifest(name, name, "").replace("spec:\n", "spec:\n  restartPolicy: Never\n")
        )
    };
    c.k_with("create -f -", &pod("asking", "cpu: 10m"));
    c.k_with("create -f -", &pod("best", ""));
    c.k("wait --for=condition=Ready pod/asking pod/best --timeout=60s");
    write(&directory, "static.yaml", &manifest("static", "static", ""));
    ready(&c, "static-n1");
    c.k("wait --for=jsonpath={.status.phase}=Failed pod/best --timeout=60s");
    assert_eq!(field(&c, "best", ".status.reason"), "Preempting");
    assert_eq!(field(&c, "best", ".status.conditions[?(@.type=='DisruptionTarget')].reason"), "TerminationByKubelet");
    assert_eq!(field(&c, "asking", ".status.phase"), "Running");

    let greedy = manifest("greedy", "x", "    resources: {requests: {cpu: 10000}}\n");
    write(&directory, "greedy.yaml", &greedy);
    let refused = |c: &Cluster| {
        eventually("the mirror pod has failed", || {
            (c.try_k_with("get pod greedy-n1 -o jsonpath={.status.phase}", "").stdout == "Failed").then_some(())
        });
        (field(c, "greedy-n1", ".status.reason"), field(c, "greedy-n1", ".status.containerStatuses"))
    };
    assert_eq!(refused(&c), ("UnexpectedAdmissionError".to_owned(), String::new()));
    c.kill_server();
    c.start_server_with(&options);
    ready(&c, "static-n1");
    assert_eq!(refused(&c), ("UnexpectedAdmissionError".to_owned(), String::new()));
    assert_eq!(field(&c, "asking", ".status.phase"), "Running");
    base::trees::remove(&directory).unwrap();
}
