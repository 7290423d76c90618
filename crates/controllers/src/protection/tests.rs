#![allow(clippy::unwrap_used)]

use client::kube::api::DeleteParams;
use serde_json::{Value, json};

use super::*;
use crate::testing::{World, object};

#[test]
fn finalizers_come_and_go() {
    let check = |ends: bool, protected: bool, used: bool, expected: Change| assert_eq!(plan(ends, protected, used), expected);
    check(false, false, false, Change::Add);
    check(false, true, false, Change::Nothing);
    check(true, true, true, Change::Nothing);
    check(true, true, false, Change::Remove);
    check(true, false, false, Change::Nothing);
}

fn pod(node: Option<&str>, phase: &str, volume: Value) -> Pod {
    let spec = json!({"nodeName": node, "containers": [], "volumes": [volume]});
    object(json!({"metadata": {"name": "p", "namespace": "a"}, "spec": spec, "status": {"phase": phase}}))
}

fn named(claim: &str) -> Value {
    json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}})
}

#[test]
fn pods_use_claims() {
    let check = |pod: Pod, claim: &str, expected: bool| assert_eq!(uses(&pod, claim), expected);
    check(pod(Some("n"), "Running", named("c")), "c", true);
    check(pod(Some("n"), "Running", named("c")), "d", false);
    check(pod(None, "Pending", named("c")), "c", false);
    check(pod(Some("n"), "Succeeded", named("c")), "c", true);
    let own = || json!({"name": "v", "ephemeral": {}});
    check(pod(Some("n"), "Running", own()), "p-v", true);
    check(pod(Some("n"), "Succeeded", own()), "p-v", false);
}

/// Kubernetes documentation: "If a user deletes a PVC in active use by a Pod, the PVC is not removed immediately. PVC removal is
/// postponed until the PVC is no longer actively used by any Pods."
#[tokio::test]
async fn a_claim_stays_until_its_pod_is_gone() {
    let world = World::new();
    let claim: PersistentVolumeClaim = object(json!({"metadata": {"name": "c", "namespace": "a"}}));
    world.fake.put(&claim);
    world.fake.put(&pod(Some("n"), "Running", named("c")));
    world.start(&["persistentvolumeclaim-protection"]);
    let protected = |claims: &[PersistentVolumeClaim]| claims.iter().all(|claim| claim.metadata.finalizers.is_some());
    world.fake.until::<PersistentVolumeClaim>(protected).await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(world.fake.client(), "a");
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    assert!(claims.get("c").await.unwrap().metadata.deletion_timestamp.is_some());
    let pods: Api<Pod> = Api::namespaced(world.fake.client(), "a");
    pods.delete("p", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    world.fake.until::<PersistentVolumeClaim>(<[PersistentVolumeClaim]>::is_empty).await;
}

#[tokio::test]
async fn a_volume_stays_while_it_is_bound() {
    let world = World::new();
    let volume = |phase: &str| -> PersistentVolume {
        object(json!({"metadata": {"name": "v", "finalizers": [VOLUME_FINALIZER]}, "status": {"phase": phase}}))
    };
    world.fake.put(&volume("Bound"));
    world.start(&["persistentvolume-protection"]);
    let volumes: Api<PersistentVolume> = Api::all(world.fake.client());
    volumes.delete("v", &DeleteParams::default()).await.unwrap();
    let mut bound = volumes.get("v").await.unwrap();
    assert!(bound.metadata.deletion_timestamp.is_some());
    bound.status.as_mut().unwrap().phase = Some("Released".to_owned());
    volumes.replace_status("v", &PostParams::default(), &bound).await.unwrap();
    world.fake.until::<PersistentVolume>(<[PersistentVolume]>::is_empty).await;
}
