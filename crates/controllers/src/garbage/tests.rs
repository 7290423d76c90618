#![allow(clippy::unwrap_used)]

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::testing::{World, object};

fn set(name: &str) -> ReplicaSet {
    object(json!({"metadata": {"namespace": "a", "name": name, "uid": name}}))
}

fn pod(name: &str, owners: &[&str]) -> Pod {
    let reference = |owner: &&str| -> Value {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "blockOwnerDeletion": true})
    };
    let owners: Vec<Value> = owners.iter().map(reference).collect();
    object(
        json!({"metadata": {"namespace": "a", "name": name, "uid": name, "ownerReferences": owners}, "spec": {"containers": []}}),
    )
}

fn names(pods: &[Pod]) -> Vec<&str> {
    pods.iter().map(crate::meta::name).collect()
}

#[tokio::test]
async fn dependents_go_with_their_last_owner() {
    let world = World::new();
    world.fake.put(&set("one"));
    world.fake.put(&set("two"));
    for (name, owners) in [("both", &["one", "two"][..]), ("first", &["one"]), ("lost", &["nobody"]), ("free", &[])] {
        world.fake.put(&pod(name, owners));
    }
    world.start(&["garbage-collector"]);
    world.fake.until::<Pod>(|pods| names(pods) == ["both", "first", "free"]).await;
    let api: Api<ReplicaSet> = Api::namespaced(world.fake.client(), "a");
    api.delete("one", &DeleteParams::background()).await.unwrap();
    world.fake.until::<Pod>(|pods| names(pods) == ["both", "free"]).await;
    let owners = |pods: &[Pod]| pods[0].metadata.owner_references.as_ref().map_or(0, Vec::len);
    api.delete("two", &DeleteParams::orphan()).await.unwrap();
    world.fake.until::<Pod>(|pods| names(pods) == ["both", "free"] && owners(pods) == 0).await;
    world.fake.until::<ReplicaSet>(<[ReplicaSet]>::is_empty).await;
}

#[tokio::test]
async fn a_foreground_deletion_waits_for_dependents() {
    let world = World::new();
    world.fake.put(&set("one"));
    let mut held = pod("held", &["one"]);
    held.metadata.finalizers = Some(vec!["example.com/x".to_owned()]);
    world.fake.put(&held);
    world.start(&["garbage-collector"]);
    let sets: Api<ReplicaSet> = Api::namespaced(world.fake.client(), "a");
    sets.delete("one", &DeleteParams::foreground()).await.unwrap();
    world.fake.until::<Pod>(|pods| pods[0].metadata.deletion_timestamp.is_some()).await;
    assert_eq!(world.fake.all::<ReplicaSet>().len(), 1);
    let pods: Api<Pod> = Api::namespaced(world.fake.client(), "a");
    let free = json!({"metadata": {"finalizers": null}});
    pods.patch("held", &PatchParams::default(), &Patch::Merge(free)).await.unwrap();
    world.fake.until::<ReplicaSet>(<[ReplicaSet]>::is_empty).await;
}
