//! Volumes: each for itself, and only where and for whom they are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use client::Api;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::testing::{Cell, condition};

async fn told(cell: &Cell, words: &str) {
    told_as(cell, "FailedMount", words).await;
}

async fn told_as(cell: &Cell, reason: &str, words: &str) {
    let is_it = |event: &Event| {
        event.reason.as_deref() == Some(reason) && event.message.as_deref().is_some_and(|message| message.contains(words))
    };
    let told = cell.fake.until::<Event>(|events| events.iter().any(is_it));
    let told = tokio::time::timeout(Duration::from_secs(30), told).await;
    assert!(told.is_ok(), "{words}: {:?}", cell.fake.all::<Event>());
}

fn map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns"}, "data": {"K": value}})).unwrap()
}

async fn shows(file: &Path, value: &str) {
    let mut watch = base::directory::Watch::new(file.parent().unwrap()).unwrap();
    let updated = async {
        while std::fs::read_to_string(file).ok().as_deref() != Some(value) {
            watch.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), updated).await.expect("the file is not updated");
}

/// A pod with these volumes, whose container mounts those with these names.
fn mounting(volumes: &Value, names: &[&str]) -> Value {
    let mounts: Vec<_> = names.iter().map(|name| json!({"name": name, "mountPath": format!("/{name}")})).collect();
    json!({"containers": [{"name": "a", "volumeMounts": mounts}], "volumes": volumes})
}

/// Upstream's e2e tests "should not mount / map unused volumes in a pod": nothing holds the pod up that no container uses. Once an
/// ephemeral container does, it waits for it.
#[tokio::test]
async fn what_no_container_uses_is_not_made() {
    let cell = Cell::new();
    cell.start().await;
    let (none, made) = (cell.directory.path().join("none"), cell.directory.path().join("made"));
    let token = json!({"serviceAccountToken": {"path": "token"}});
    let certificate = json!({"podCertificate": {"signerName": "a.example/s", "keyType": "ED25519", "keyPath": "k"}});
    cell.fake.put(&map("there", "v1"));
    let volumes = json!([{"name": "map", "configMap": {"name": "later"}}, {"name": "secret", "secret": {"secretName": "none"}},
        {"name": "none", "hostPath": {"path": none, "type": "Directory"}},
        {"name": "made", "hostPath": {"path": made, "type": "DirectoryOrCreate"}},
        {"name": "claimed", "persistentVolumeClaim": {"claimName": "none"}}, {"name": "nfs", "nfs": {"server": "s", "path": "/"}},
        {"name": "token", "projected": {"sources": [token]}}, {"name": "certificate", "projected": {"sources": [certificate]}},
        {"name": "scratch", "emptyDir": {}}, {"name": "there", "configMap": {"name": "there"}}]);
    cell.put("p", mounting(&volumes, &["there"]));
    cell.ready("p").await;
    assert!(!made.exists() && !cell.fake.all::<Event>().iter().any(|event| event.reason.as_deref() == Some("FailedMount")));
    let of_pod = cell.directory.path().join("kubelet/pods/uid-p/volumes");
    let kinds: Vec<_> = std::fs::read_dir(&of_pod).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(kinds, ["kubernetes.io~configmap"]);
    let late = json!([{"name": "e", "volumeMounts": [{"name": "map", "mountPath": "/map"}]}]);
    let change = Patch::Merge(json!({"spec": {"ephemeralContainers": late}}));
    cell.pods().patch("p", &PatchParams::default(), &change).await.unwrap();
    told(&cell, "for volume \"map\" : configmap \"later\" not found").await;
    assert!(!cell.runtime.world.lock().calls.iter().any(|call| call == "start e"));
    cell.fake.put(&map("later", "v1"));
    cell.runtime.until(|world| world.calls.iter().any(|call| call == "start e")).await;
    assert_eq!(std::fs::read_to_string(of_pod.join("kubernetes.io~configmap/map/K")).unwrap(), "v1");
}

/// Volumes before it that cannot be refreshed any more leave the last one, where upstream has the token, as current as it was.
#[tokio::test]
async fn a_volume_that_fails_keeps_no_other_from_being_current() {
    let cell = Cell::new();
    cell.start().await;
    let (gone, host) = (cell.directory.path().join("socket"), cell.directory.path().join("directory"));
    std::fs::create_dir(&host).unwrap();
    std::fs::write(&gone, "").unwrap();
    for name in ["first", "last"] {
        cell.fake.put(&map(name, "v1"));
    }
    let volumes = json!([{"name": "first", "configMap": {"name": "first"}}, {"name": "file", "hostPath": {"path": gone, "type": "File"}},
        {"name": "last", "configMap": {"name": "last"}}]);
    cell.put("p", mounting(&volumes, &["first", "file", "last"]));
    cell.ready("p").await;
    // What a container has by now is its own, whatever becomes of the path.
    std::fs::remove_file(&gone).unwrap();
    let maps = Api::<ConfigMap>::namespaced(cell.fake.client(), "ns");
    maps.delete("first", &DeleteParams::default()).await.unwrap();
    told(&cell, "MountVolume.SetUp failed for volume \"first\" : configmap \"first\" not found").await;
    let plugin = cell.directory.path().join("kubelet/pods/uid-p/volumes/kubernetes.io~configmap");
    let change = Patch::Merge(json!({"data": {"K": "v2"}}));
    maps.patch("last", &PatchParams::default(), &change).await.unwrap();
    shows(&plugin.join("last/K"), "v2").await;
    assert_eq!(std::fs::read_to_string(plugin.join("first/K")).unwrap(), "v1", "it stays as it was");
    cell.until("p", |status| condition(status, "PodReadyToStartContainers") == "True").await;
    cell.fake.put(&map("first", "v3"));
    shows(&plugin.join("first/K"), "v3").await;
    let of_path = |event: &Event| event.message.as_deref().is_some_and(|message| message.contains("hostPath"));
    assert!(!cell.fake.all::<Event>().iter().any(of_path), "it is looked at again");
}

/// A pod that has not got all its volumes has those that can be had, and waits with its containers.
#[tokio::test]
async fn what_can_be_made_is_made_beside_what_cannot() {
    let cell = Cell::new();
    cell.start().await;
    cell.fake.put(&map("there", "v1"));
    let volumes = json!([{"name": "missing", "configMap": {"name": "missing"}}, {"name": "iscsi", "iscsi": {"targetPortal": "s", "iqn": "i", "lun": 0}},
        {"name": "claimed", "persistentVolumeClaim": {"claimName": "none"}}, {"name": "there", "configMap": {"name": "there"}}]);
    cell.put("p", mounting(&volumes, &["missing", "iscsi", "claimed", "there"]));
    told(&cell, "for volume \"missing\" : configmap \"missing\" not found").await;
    told(&cell, "for volume \"iscsi\" : volumes of type iscsi are not supported by this kubelet").await;
    told(&cell, "failed to process volumes=[claimed]: error processing PVC ns/none").await;
    let there = cell.directory.path().join("kubelet/pods/uid-p/volumes/kubernetes.io~configmap/there/K");
    assert_eq!(std::fs::read_to_string(there).unwrap(), "v1");
    assert!(!cell.runtime.world.lock().calls.iter().any(|call| call.starts_with("start")));
    cell.until("p", |status| status["podIP"].is_string() && condition(status, "PodReadyToStartContainers") == "False").await;
}

/// A claim with its volume, a directory of this machine.
fn claim(cell: &Cell, name: &str, path: &Path, mode: &str, host: &str) {
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]);
    let volume: PersistentVolume = serde_json::from_value(json!({"metadata": {"name": format!("pv-{name}")}, "spec": {
        "local": {"path": path}, "accessModes": [mode], "capacity": {"storage": "1Gi"},
        "claimRef": {"namespace": "ns", "name": name, "uid": "u"}, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}}))
    .unwrap();
    let annotations = json!({"pv.kubernetes.io/bind-completed": "yes"});
    let claim: PersistentVolumeClaim = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "ns", "uid": "u", "annotations": annotations},
        "spec": {"volumeName": format!("pv-{name}"), "accessModes": [mode]}, "status": {"phase": "Bound"}}))
    .unwrap();
    cell.fake.put(&volume);
    cell.fake.put(&claim);
}

fn user(claim: &str) -> Value {
    json!({"containers": [{"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]})
}

/// A kubelet whose node is registered, and a directory that stands for a disk; none where nobody may mount.
async fn with_disk() -> Option<(Cell, PathBuf)> {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("SKIPPED: mounting needs root");
        return None;
    }
    let cell = Cell::new();
    cell.start().await;
    cell.fake.until::<Node>(|nodes| !nodes.is_empty()).await;
    let disk = cell.directory.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    Some((cell, disk))
}

/// Upstream's `checkNodeAffinity`: a path that every node has is of one node's disk, and whoever names his node himself gets no other's.
#[tokio::test]
async fn a_volume_of_another_node_is_not_mounted() {
    let Some((cell, disk)) = with_disk().await else { return };
    claim(&cell, "theirs", &disk, "ReadWriteOnce", "n2");
    claim(&cell, "ours", &disk, "ReadWriteOnce", "n1");
    cell.put("p", user("theirs"));
    told(&cell, "MountVolume.NodeAffinity check failed for volume \"pv-theirs\" : no matching NodeSelectorTerms").await;
    assert!(!cell.directory.path().join("kubelet/pods/uid-p/volumes/kubernetes.io~local-volume/v").exists());
    cell.put("q", user("ours"));
    cell.ready("q").await;
}

/// KEP-2485: the scheduler and the kubelet both see to it that one pod has the volume.
#[tokio::test]
async fn a_volume_for_one_pod_is_not_mounted_for_two() {
    let Some((cell, disk)) = with_disk().await else { return };
    claim(&cell, "data", &disk, "ReadWriteOncePod", "n1");
    cell.put("p", user("data"));
    cell.ready("p").await;
    cell.put("q", user("data"));
    let words = "for volume \"pv-data\" : volume uses the ReadWriteOncePod access mode and is already in use by another pod";
    told(&cell, words).await;
    cell.pods().delete("p", &DeleteParams { grace_period_seconds: Some(0), ..Default::default() }).await.unwrap();
    cell.ready("q").await;
}

/// Upstream's e2e test "should not set different fsGroups for two pods simultaneously".
#[tokio::test]
async fn a_volume_stays_the_group_of_the_pod_that_has_it() {
    let Some((cell, disk)) = with_disk().await else { return };
    claim(&cell, "data", &disk, "ReadWriteOnce", "n1");
    for (name, group) in [("p", 1234), ("q", 4321)] {
        let mut spec = user("data");
        spec["securityContext"] = json!({"fsGroup": group});
        cell.put(name, spec);
        cell.ready(name).await;
    }
    let words = "The requested fsGroup is 4321, but the volume pv-data has GID 1234. The volume may not be shareable.";
    told_as(&cell, "AlreadyMountedVolume", words).await;
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&disk).unwrap()), 1234);
}
