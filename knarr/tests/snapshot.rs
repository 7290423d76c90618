//! What a cluster is after it was restored from a snapshot, as its users see it. Upstream's words on it are those of "Operating etcd clusters for
//! Kubernetes": objects of the time of the snapshot, and resource versions that have not been seen before.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use testing::{Cluster, Outcome};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const BUSYBOX: &str = "127.0.0.1:5000/busybox:1.36";

fn snapshot(c: &Cluster, arguments: &[&str]) -> Outcome {
    Outcome::of(&mut c.knarr(&[&["snapshot"], arguments].concat()))
}

fn done(c: &Cluster, arguments: &[&str]) -> String {
    let outcome = snapshot(c, arguments);
    assert_eq!(outcome.code, Some(0), "{arguments:?}: {outcome:?}");
    outcome.stdout
}

fn refused(c: &Cluster, arguments: &[&str], expected: &str) {
    let outcome = snapshot(c, arguments);
    assert!(outcome.code == Some(1) && outcome.stderr.contains(expected), "{arguments:?}: {outcome:?}");
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn a_cluster_comes_back_from_a_snapshot() {
    let mut c = Cluster::start(KNARR);
    let data = c.machine().path(&c.data_dir());
    let file = text(&c.data_dir().join("cluster.snapshot"));
    assert_eq!(encrypted(&c).code, Some(0));
    c.k("create secret generic kept --from-literal=text=kept");
    c.kubectl(&["create", "deployment", "web", "--image", BUSYBOX, "--replicas", "2", "--", "sleep", "100000"]);
    c.k("wait --for=condition=Available deployment/web --timeout=60s");
    let token = c.k("create token default --duration=1h");
    let uid = c.k("get deployment web -o jsonpath={.metadata.uid}");

    let said = done(&c, &["save", &file]);
    assert!(said.contains("objects at revision") && !data.join("cluster.snapshot.part").exists(), "{said}");
    assert_eq!(mode(&data.join("cluster.snapshot")), 0o600);
    assert_eq!(done(&c, &["status", &file]).split_once(": ").unwrap().1, said.split_once(": ").unwrap().1);

    // What happens after it is undone.
    c.k("delete secret kept");
    c.k("scale deployment web --replicas=3");
    c.k("create configmap late");
    c.k("wait --for=jsonpath={.status.readyReplicas}=3 deployment/web --timeout=60s");
    let late = c.k("get configmap late -o jsonpath={.metadata.resourceVersion}");
    refused(&c, &["restore", &file], "another process works with this data directory");
    c.stop_server();
    refused(&c, &["restore", &file], "there is a store already");
    fs::rename(data.join("store"), data.join("store.before")).unwrap();
    let said = done(&c, &["restore", &file]);
    assert!(said.contains("objects at revision"), "{said}");
    c.start_server();

    assert_eq!(c.k("get secret kept -o jsonpath={.data.text}"), "a2VwdA==");
    assert_eq!(c.k("get deployment web -o jsonpath={.metadata.uid}"), uid);
    assert_eq!(c.try_kubectl(&["get", "configmap", "late"]).code, Some(1));
    // Pods that the cluster does not know end, those that it knows go on.
    c.k("rollout status deployment/web --timeout=60s");
    testing::eventually("the third pod ends", || {
        let pods = c.k("get pods -l app=web -o jsonpath={.items[*].metadata.name}");
        (pods.split_whitespace().count() == 2).then_some(())
    });
    let restarts = c.k("get pods -l app=web -o jsonpath={.items[*].status.containerStatuses[0].restartCount}");
    assert_eq!(restarts, "0 0");
    // Who has a token of before is known still, and who followed the old cluster is told to begin anew.
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token.trim()}});
    let review = c.k_with("create -o jsonpath={.status.authenticated} -f -", &review.to_string());
    assert_eq!(review, "true");
    let watch =
        c.k(&format!("get --raw /api/v1/namespaces/default/configmaps?watch=true&resourceVersion={late}&timeoutSeconds=5"));
    assert!(watch.contains(r#""code":410"#), "{watch}");
    c.k("create configmap next");
    let next = c.k("get configmap next -o jsonpath={.metadata.resourceVersion}");
    assert!(next.parse::<u64>().unwrap() > late.parse::<u64>().unwrap() + 1000, "{next} after {late}");

    // Also without a server, and a damaged file is none.
    c.stop_server();
    let other = text(&c.data_dir().join("other.snapshot"));
    done(&c, &["save", &other]);
    let bytes = fs::read(data.join("other.snapshot")).unwrap();
    fs::write(data.join("other.snapshot"), &bytes[..bytes.len() - 2]).unwrap();
    refused(&c, &["status", &other], "damaged");
    refused(&c, &["restore", &other], "damaged");
}

/// A restoration may be cut off, and the unit of the server start it by itself afterwards: it refuses, and is not in the way of another restoration.
#[test]
fn a_server_makes_nothing_beside_half_a_snapshot() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("store")).unwrap();
    fs::write(home.path().join("store/restoring"), "").unwrap();
    let outcome = Outcome::of(Command::new(KNARR).args(["server", "--no-agent", "--data-dir"]).arg(home.path()));
    assert!(outcome.code == Some(1) && outcome.stderr.contains("not restored to its end"), "{outcome:?}");
    assert!(!home.path().join("pki").exists());
}

fn encrypted(c: &Cluster) -> Outcome {
    Outcome::of(&mut c.knarr(&["secrets-encryption", "enable"]))
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
