#![allow(clippy::unwrap_used)]

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::*;
use crate::testing::{World, object};

fn set(replicas: i32) -> ReplicaSet {
    object(json!({
        "metadata": {"namespace": "a", "name": "web", "uid": "web-uid", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    }))
}

fn pod(name: &str, phase: &str, ready: bool) -> Member {
    let status = if ready { "True" } else { "False" };
    let pod = json!({
        "metadata": {"namespace": "a", "name": name, "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": []},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    Member::of(Entry::of_json(pod.to_string()).unwrap()).unwrap()
}

#[test]
fn steps_towards_the_wanted_number() {
    let check = |replicas, pods: &[Member], expected: &str| {
        let shown = match plan::step(&set(replicas), pods, |_| 1, Timestamp::now()) {
            Step::Keep => "keep".to_owned(),
            Step::Create(number) => format!("create {number}"),
            Step::Delete(pods) => {
                let names: Vec<&str> = pods.iter().map(|pod| pod.key().name.as_str()).collect();
                format!("delete {}", names.join(" "))
            }
        };
        assert_eq!(shown, expected);
    };
    check(2, &[], "create 2");
    check(1000, &[], "create 500");
    check(1, &[pod("p", "Running", true)], "keep");
    check(1, &[pod("ready", "Running", true), pod("not", "Running", false)], "delete not");
    check(0, &[pod("ready", "Running", true)], "delete ready");
}

#[test]
fn the_status_counts_pods() {
    let pods = [pod("a", "Running", true), pod("b", "Running", false), pod("c", "Failed", false)];
    let status = plan::status(&set(2), &pods, Some(("FailedCreate", "quota".into())), Timestamp::now());
    assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (2, Some(1), Some(1)));
    assert_eq!(status.fully_labeled_replicas, Some(2));
    assert_eq!(status.conditions.unwrap()[0].reason.as_deref(), Some("FailedCreate"));
}

#[test]
fn a_pod_is_available_after_its_time() {
    let mut set = set(1);
    set.spec.as_mut().unwrap().min_ready_seconds = Some(60);
    let at = |second: &str| format!("2026-01-01T00:00:{second}Z").parse::<Timestamp>().unwrap();
    let pods = [pod("a", "Running", true)];
    assert_eq!(plan::next_available(&set, &pods, at("20")), Some(std::time::Duration::from_secs(40)));
    assert_eq!(plan::status(&set, &pods, None, at("20")).available_replicas, None);
}

#[tokio::test]
async fn creates_adopts_releases_and_deletes() {
    let world = World::new();
    let orphan = json!({"metadata": {"namespace": "a", "name": "orphan", "labels": {"app": "web"}}, "spec": {"containers": []}});
    world.fake.put::<Pod>(&object(orphan));
    world.fake.put(&set(3));
    world.start(&["replicaset"]);
    let owned = |pods: &[Pod]| pods.iter().filter(|pod| meta::controller_of(*pod).is_some()).count();
    world.fake.until::<Pod>(|pods| owned(pods) == 3 && pods.len() == 3).await;
    world.fake.until::<ReplicaSet>(|sets| sets[0].status.as_ref().is_some_and(|status| status.replicas == 3)).await;

    let pods: Api<Pod> = Api::namespaced(world.fake.client(), "a");
    let relabel = json!({"metadata": {"labels": {"app": "other"}}});
    pods.patch("orphan", &PatchParams::default(), &Patch::Merge(relabel)).await.unwrap();
    world.fake.until::<Pod>(|pods| owned(pods) == 3 && pods.len() == 4).await;

    let sets: Api<ReplicaSet> = Api::namespaced(world.fake.client(), "a");
    let smaller = json!({"spec": {"replicas": 1}});
    sets.patch("web", &PatchParams::default(), &Patch::Merge(smaller)).await.unwrap();
    world.fake.until::<Pod>(|pods| owned(pods) == 1 && pods.len() == 2).await;
}

/// Upstream, replica_set.go, syncReplicaSet: `FilterActivePods` comes before `claimPods`. A pod of nobody that has done its work would else go with
/// the set.
#[tokio::test]
async fn pods_that_have_ended_stay_whose_they_are() {
    let world = World::new();
    let of_set = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "web-uid", "controller": true}]);
    for (name, phase, app, owners) in [
        ("done", "Succeeded", "web", json!([])),
        ("broken", "Failed", "web", json!([])),
        ("owned", "Succeeded", "other", of_set.clone()),
        ("relabelled", "Running", "other", of_set),
        ("orphan", "Running", "web", json!([])),
    ] {
        world.fake.put::<Pod>(&object(json!({
            "metadata": {"namespace": "a", "name": name, "uid": name, "labels": {"app": app}, "ownerReferences": owners},
            "spec": {"nodeName": "n", "containers": []}, "status": {"phase": phase},
        })));
    }
    world.fake.put(&set(2));
    world.start(&["replicaset"]);
    let count = |sets: &[ReplicaSet]| sets[0].status.as_ref().map(|status| status.replicas);
    world.fake.until::<ReplicaSet>(|sets| count(sets) == Some(2)).await;
    let pods = world.fake.all::<Pod>();
    let is_owned = |name: &str| meta::controller_of(pods.iter().find(|pod| meta::name(*pod) == name).unwrap()).is_some();
    assert_eq!(["done", "broken", "owned", "relabelled", "orphan"].map(is_owned), [false, false, true, false, true]);
    assert_eq!(pods.len(), 6);
}

/// While pods of the namespace wait for a node no more are made; the owner says so, and goes on when they have one.
async fn pauses<K>(owner: K)
where
    K: Replicated + kube::Resource<DynamicType = ()> + codec::Decode + serde::Serialize,
{
    let world = World::new();
    world.fake.put(&owner);
    world.put_waiting("first", None);
    world.put_waiting("second", None);
    let options = world.options();
    let mut replicas = Replicas::<K>::new(&options.informers);
    replicas.room = replicas.room.limited(2);
    world.launch(&options, replicas);
    world.until_paused("web", 2).await;
    let conditions = |owners: &[K]| owners[0].status().conditions.unwrap_or_default();
    let why = "no more pods are made while 2 of the namespace have no node";
    let is_paused = |one: &ReplicaSetCondition| {
        (one.type_.as_str(), one.status.as_str()) == ("ReplicaFailure", "True")
            && (one.reason.as_deref(), one.message.as_deref()) == (Some("CreationPaused"), Some(why))
    };
    world.fake.until::<K>(|owners| conditions(owners).iter().any(is_paused)).await;
    assert_eq!(world.fake.all::<Pod>().len(), 2);
    // As many as there is room for, and then the others.
    world.put_waiting("first", Some("n"));
    world.fake.until::<Pod>(|pods| pods.len() == 3).await;
    world.put_waiting("second", Some("n"));
    world.fake.until::<Pod>(|pods| pods.len() == 4).await;
    world.fake.until::<K>(|owners| conditions(owners).is_empty()).await;
}

#[tokio::test]
async fn no_pods_are_made_while_too_many_wait() {
    let metadata = json!({"namespace": "a", "name": "web", "uid": "web-uid", "generation": 1});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"replicas": 2, "selector": {"app": "web"}, "template": template});
    pauses::<ReplicaSet>(set(2)).await;
    pauses::<ReplicationController>(object(json!({"metadata": metadata, "spec": spec}))).await;
}

#[test]
fn only_owners_of_many_pods_rest() {
    let check = |pods: usize, millis: u64| assert_eq!(rest_of(pods), Duration::from_millis(millis), "{pods}");
    check(0, 0);
    check(99, 0);
    check(1000, 50);
    check(10_000, 500);
    check(1_000_000, 500);
}
