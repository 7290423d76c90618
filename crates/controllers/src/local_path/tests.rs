#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::testing::{World, object};

fn claim(annotations: Value, spec: Value) -> PersistentVolumeClaim {
    let mut whole =
        json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object(json!({"metadata": {"namespace": "a", "name": "data", "uid": "u", "annotations": annotations}, "spec": whole}))
}

#[test]
fn what_cannot_be_made_is_refused() {
    let of = |spec: Value| check(&claim(json!({}), spec));
    assert_eq!(of(json!({})), Ok(()));
    assert_eq!(of(json!({"accessModes": ["ReadWriteOncePod"]})), Ok(()));
    assert_eq!(of(json!({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]})), Err(Refusal::Modes));
    assert_eq!(of(json!({"volumeMode": "Block"})), Err(Refusal::Block));
    assert_eq!(of(json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "x"}})), Err(Refusal::Source));
}

#[test]
fn only_volumes_of_its_own_are_touched() {
    let check = |annotations: Value, path: &str, expected: Option<&str>| {
        let volume: PersistentVolume =
            object(json!({"metadata": {"name": "v", "annotations": annotations}, "spec": {"local": {"path": path}}}));
        assert_eq!(home(&volume), expected, "{path}");
    };
    let ours = || json!({PROVISIONED_BY: PROVISIONER, NODE: "n"});
    check(ours(), "/data/volumes/v", Some("n"));
    check(ours(), "/data/volumes/w", None);
    check(ours(), "/etc", None);
    check(json!({PROVISIONED_BY: "other", NODE: "n"}), "/data/volumes/v", None);
    check(json!({PROVISIONED_BY: PROVISIONER}), "/data/volumes/v", None);
}

fn node(name: &str, directory: Option<&str>) -> Node {
    let annotations = directory.map(|directory| json!({DIRECTORY: directory}));
    object(json!({"metadata": {"name": name, "annotations": annotations, "labels": {HOSTNAME: format!("host-{name}")}}}))
}

#[test]
fn places() {
    let check = |directory: Option<&str>, expected: Option<&str>| {
        assert_eq!(Place::of(&node("n", directory)).map(|place| place.root), expected.map(PathBuf::from));
    };
    check(Some("/data/volumes"), Some("/data/volumes"));
    check(Some("volumes"), None);
    check(None, None);
}

/// Others look at the labels of nodes alone (upstream's `CheckNodeAffinity`); a label that says another name says nothing.
#[test]
fn volumes_are_on_their_node() {
    let check = |labels: Value, expected: Value| {
        let mut node = node("n", Some("/data/volumes"));
        node.metadata.labels = object(labels);
        let term = on_node(&Place::of(&node).unwrap());
        assert_eq!(serde_json::to_value(term).unwrap(), expected, "{:?}", node.metadata.labels);
    };
    let of = |key: &str| json!([{"key": key, "operator": "In", "values": ["n"]}]);
    check(json!({HOSTNAME: "n"}), json!({"matchExpressions": of(HOSTNAME)}));
    for labels in [json!({HOSTNAME: "m"}), json!({}), Value::Null] {
        check(labels, json!({"matchFields": of("metadata.name")}));
    }
}

fn put_claim(world: &World, name: &str, selected: &str) {
    let mut claim = claim(json!({PROVISIONERS[0]: PROVISIONER, SELECTED_NODE: selected}), json!({}));
    (claim.metadata.name, claim.metadata.uid) = (Some(name.into()), Some(name.into()));
    world.fake.put(&claim);
}

fn call(method: &str, node: &str, volume: &str) -> client::fake::Call {
    client::fake::Call { method: method.into(), path: format!("/api/v1/nodes/{node}/proxy/knarr/volumes/{volume}") }
}

#[tokio::test]
async fn volumes_are_where_their_consumers_are() {
    let world = World::new();
    world.fake.put(&node("n", Some("/data/volumes")));
    world.fake.put(&node("m", Some("/other/volumes")));
    world.fake.put(&node("bare", None));
    world.fake.put::<StorageClass>(&object(
        json!({"metadata": {"name": "local"}, "provisioner": PROVISIONER, "reclaimPolicy": "Delete"}),
    ));
    for (name, selected) in [("a", "n"), ("b", "m"), ("c", "bare"), ("d", "gone")] {
        put_claim(&world, name, selected);
    }
    world.start(&["local-path-provisioner", "persistentvolume-binder"]);
    let bound = |volumes: &[PersistentVolume]| {
        let phase = |one: &PersistentVolume| one.status.as_ref().and_then(|status| status.phase.clone());
        volumes.iter().filter(|one| phase(one).as_deref() == Some("Bound")).count() == 2
    };
    world.fake.until::<PersistentVolume>(bound).await;
    let paths: Vec<_> =
        world.fake.all::<PersistentVolume>().into_iter().map(|volume| volume.spec.unwrap().local.unwrap().path).collect();
    assert_eq!(paths, ["/data/volumes/pvc-a", "/other/volumes/pvc-b"]);
    let volumes = world.fake.all::<PersistentVolume>();
    // Whose label says what does not count.
    let labels = |host: &str| Some([(HOSTNAME.to_owned(), host.to_owned())].into());
    assert!(
        volumes::is_reachable(&volumes[1], "m", &labels("host-n")) && !volumes::is_reachable(&volumes[1], "n", &labels("host-m"))
    );
    assert!(world.fake.writes().contains(&call("PUT", "m", "pvc-b")));
    let refused = |events: &[k8s_openapi::api::core::v1::Event]| {
        let told = |name: &str, why: &str| {
            events.iter().any(|event| {
                event.involved_object.name.as_deref() == Some(name)
                    && event.message.as_ref().is_some_and(|text| text.contains(why))
            })
        };
        told("c", "makes no volumes") && told("d", "is not there")
    };
    world.fake.until(refused).await;

    // What is in a volume goes before the volume does; with a node that is gone it went already.
    let nodes: Api<Node> = Api::all(world.fake.client());
    nodes.delete("m", &Default::default()).await.unwrap();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(world.fake.client(), "a");
    for name in ["a", "b"] {
        claims.delete(name, &Default::default()).await.unwrap();
    }
    world.fake.until::<PersistentVolume>(|volumes| volumes.is_empty()).await;
    assert!(world.fake.writes().contains(&call("DELETE", "n", "pvc-a")));
    assert!(!world.fake.writes().contains(&call("DELETE", "m", "pvc-b")));
}

/// The scheduler chooses again when the node that it chose is gone before there was a volume.
#[tokio::test]
async fn a_node_that_is_gone_is_chosen_no_more() {
    let world = World::new();
    world.fake.put(&node("n", Some("/data/volumes")));
    world.fake.put::<StorageClass>(&object(
        json!({"metadata": {"name": "local"}, "provisioner": PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer"}),
    ));
    put_claim(&world, "d", "gone");
    world.start(&["local-path-provisioner"]);
    let free = |claims: &[PersistentVolumeClaim]| meta::annotation(&claims[0], SELECTED_NODE).is_none();
    world.fake.until::<PersistentVolumeClaim>(free).await;
    assert!(world.fake.all::<PersistentVolume>().is_empty());
}

/// KEP-2644: a volume whose reclaim policy is Delete "will be deleted from the underlying storage" also where it is deleted before its
/// claim, and after the server was away; its object stays until the node has answered.
#[tokio::test]
async fn what_is_in_a_volume_goes_before_its_object() {
    let world = World::new();
    world.fake.put(&node("n", Some("/data/volumes")));
    let volume = |name: &str, policy: &str, finalizers: Value, deleted: Value, phase: &str| -> PersistentVolume {
        object(json!({"metadata": {"name": name, "uid": name, "annotations": {PROVISIONED_BY: PROVISIONER, NODE: "n"},
            "finalizers": finalizers, "deletionTimestamp": deleted}, "status": {"phase": phase},
            "spec": {"persistentVolumeReclaimPolicy": policy, "local": {"path": format!("/data/volumes/{name}")},
                "claimRef": {"namespace": "a", "name": name, "uid": name}}}))
    };
    let ours = || json!([reclaim::FINALIZER]);
    world.fake.put(&volume("deleted", "Delete", ours(), json!("2026-01-01T00:00:00Z"), "Bound"));
    world.fake.put(&volume("old", "Delete", json!(["kubernetes.io/pv-protection"]), Value::Null, "Bound"));
    world.fake.put(&volume("kept", "Retain", ours(), Value::Null, "Bound"));
    let api: Api<PersistentVolume> = Api::all(world.fake.client());
    world.start(&["local-path-provisioner"]);
    let held = |volumes: &[PersistentVolume], name: &str| {
        let volume = volumes.iter().find(|volume| meta::name(*volume) == name);
        volume.is_some_and(|volume| volume.metadata.finalizers.iter().flatten().any(|one| one == reclaim::FINALIZER))
    };
    world.fake.until::<PersistentVolume>(|all| held(all, "old") && !held(all, "kept") && held(all, "deleted")).await;
    // One that has to go is looked at after them.
    world.fake.put(&volume("other", "Delete", ours(), json!("2026-01-01T00:00:00Z"), "Released"));
    world.fake.until::<PersistentVolume>(|all| !all.iter().any(|volume| meta::name(volume) == "other")).await;
    let mut deletions = world.fake.writes();
    deletions.retain(|call| call.method == "DELETE");
    assert!(deletions.contains(&call("DELETE", "n", "other")));
    assert!(deletions.iter().all(|call| call.path.ends_with("/other")), "{deletions:?}");
    // The binder's look at a volume without its claim.
    let released = client::kube::api::Patch::Merge(json!({"status": {"phase": "Released"}}));
    api.patch_status("deleted", &Default::default(), &released).await.unwrap();
    world.fake.until::<PersistentVolume>(|all| !all.iter().any(|volume| meta::name(volume) == "deleted")).await;
    assert!(world.fake.writes().contains(&call("DELETE", "n", "deleted")));
    api.patch_status("old", &Default::default(), &released).await.unwrap();
    let ended = |all: &[PersistentVolume]| !held(all, "old") && all.iter().any(meta::ends);
    world.fake.until::<PersistentVolume>(ended).await;
    assert!(world.fake.writes().contains(&call("DELETE", "n", "old")));
    assert!(!world.fake.writes().contains(&call("DELETE", "n", "kept")));
}
