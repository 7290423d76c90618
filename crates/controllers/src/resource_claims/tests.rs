#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::testing::{World, object};

fn claim(reserved: &[&str], allocated: bool, more: Value) -> ResourceClaim {
    let consumers: Vec<_> = reserved.iter().map(|uid| claims::consumer(uid, uid)).collect();
    let mut claim = json!({"metadata": {"namespace": "a", "name": "c", "uid": "c", "finalizers": [claims::FINALIZER]}, "spec": {},
        "status": {"reservedFor": consumers}});
    if allocated {
        claim["status"]["allocation"] = json!({});
    }
    for (field, value) in more.as_object().unwrap() {
        claim["metadata"][field] = value.clone();
    }
    object(claim)
}

/// KEP-4381: "a claim is deallocated when its last user has ended", and what is deallocated need not be kept.
#[test]
fn claims_follow_their_users() {
    use Consumer::{Done, Gone, Runs};
    let ends = || json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
    // (users left, allocated, unprotected, deleted)
    let check = |claim: ResourceClaim, users: &[Consumer], owner: Option<Consumer>, expected: (usize, bool, bool, bool)| {
        let plan = plan(&claim, users, owner);
        let next = plan.status.as_ref().unwrap_or(&claim);
        let found = (claims::consumers(next).len(), claims::is_allocated(next), plan.unprotect, plan.delete);
        assert_eq!(found, expected, "{users:?} {owner:?}");
    };
    check(claim(&["p"], true, json!({})), &[Runs], Some(Runs), (1, true, false, false));
    check(claim(&["p", "q"], true, json!({})), &[Gone, Runs], None, (1, true, false, false));
    check(claim(&["p", "q"], true, json!({})), &[Gone, Done], None, (0, false, true, false));
    check(claim(&["p"], true, json!({})), &[Done], Some(Done), (0, false, true, true));
    // What is allocated for nobody yet waits for its user, unless it is to go.
    check(claim(&[], true, json!({})), &[], None, (0, true, false, false));
    check(claim(&[], true, ends()), &[], None, (0, false, true, false));
    check(claim(&[], false, ends()), &[], None, (0, false, true, false));
    check(claim(&["p"], true, ends()), &[Runs], None, (1, true, false, false));
    // What others than this controller keep allocated stays so.
    check(claim(&["p"], true, json!({"finalizers": []})), &[Gone], None, (0, true, false, false));
}

#[test]
fn names_tell_pod_and_entry() {
    assert_eq!(base_name("pod", "gpu"), "pod-gpu-");
    let long = base_name(&"p".repeat(200), &"e".repeat(60));
    assert!(long.len() <= NAME && long.contains("p-e"), "{long}");
}

/// KEP-4381: a claim is made for each pod from the template, belongs to it, and its name stands in the pod's status.
#[tokio::test]
async fn claims_are_made_from_templates_and_go_with_their_pods() {
    let world = World::new();
    let requests = json!([{"name": "r", "exactly": {"deviceClassName": "d"}}]);
    let template = json!({"metadata": {"namespace": "a", "name": "t"},
        "spec": {"metadata": {"labels": {"app": "x"}}, "spec": {"devices": {"requests": requests}}}});
    let pod = |phase: &str, statuses: Value| {
        object::<Pod>(json!({"metadata": {"namespace": "a", "name": "p", "uid": "p"},
            "spec": {"containers": [], "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]},
            "status": {"phase": phase, "resourceClaimStatuses": statuses}}))
    };
    world.fake.put::<Pod>(&pod("Pending", json!([])));
    world.start(&["resource-claim-of-pod", "resource-claim"]);
    let told = |event: &k8s_openapi::api::core::v1::Event| {
        event.message.as_deref() == Some("PodResourceClaim gpu: resource claim template \"t\": not found")
    };
    world.fake.until::<k8s_openapi::api::core::v1::Event>(|events| events.iter().any(told)).await;
    world.fake.put::<ResourceClaimTemplate>(&object(template));
    world.fake.until::<ResourceClaim>(|claims| claims.len() == 1).await;
    let made = world.fake.all::<ResourceClaim>().remove(0);
    assert_eq!(claims::owner(&made), Some(("p", "p")));
    assert_eq!(made.metadata.owner_references.as_ref().unwrap()[0].block_owner_deletion, None);
    assert_eq!(meta::annotation(&made, claims::POD_CLAIM), Some("gpu"));
    assert_eq!(made.metadata.labels.as_ref().unwrap()["app"], "x");
    world.fake.until::<Pod>(|pods| claims::names(&pods[0]).next() == Some(meta::name(&made))).await;
    world.fake.put::<Pod>(&pod("Succeeded", json!([{"name": "gpu", "resourceClaimName": meta::name(&made)}])));
    world.fake.until::<ResourceClaim>(<[_]>::is_empty).await;
}

/// KEP-5004: the claim that the scheduler made for a pod's extended resources goes when the pod is done; that of a pod that waits or runs stays.
#[tokio::test]
async fn claims_for_extended_resources_go_with_their_pods() {
    let world = World::new();
    let pod = |name: &str, phase: &str| {
        let mapping = json!({"containerName": "c", "resourceName": "a/b", "requestName": "container-0-request-0"});
        object::<Pod>(
            json!({"metadata": {"namespace": "a", "name": name, "uid": name}, "spec": {"containers": [], "nodeName": "n"},
            "status": {"phase": phase, "extendedResourceClaimStatus": {"resourceClaimName": name, "requestMappings": [mapping]}}}),
        )
    };
    for name in ["stays", "goes"] {
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": name, "controller": true}]);
        let meta = json!({"name": name, "uid": name, "ownerReferences": owner, "annotations": {claims::EXTENDED: "true"}});
        world.fake.put::<ResourceClaim>(&claim(&[name], true, meta));
        world.fake.put::<Pod>(&pod(name, "Running"));
    }
    world.start(&["resource-claim-of-pod", "resource-claim"]);
    world.fake.put::<Pod>(&pod("goes", "Succeeded"));
    world.fake.until::<ResourceClaim>(|claims| claims.len() == 1).await;
    let left = world.fake.all::<ResourceClaim>().remove(0);
    assert_eq!(meta::name(&left), "stays");
    assert!(claims::is_allocated(&left) && claims::is_reserved_for(&left, "stays"));
}
