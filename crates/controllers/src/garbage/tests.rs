#![allow(clippy::unwrap_used)]

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
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

#[tokio::test]
async fn a_circle_of_owners_goes() {
    let world = World::new();
    for (name, owner) in [("one", "three"), ("two", "one"), ("three", "two")] {
        world.fake.put(&pod_of_pod(name, "a", owner));
    }
    world.start(&["garbage-collector"]);
    let pods: Api<Pod> = Api::namespaced(world.fake.client(), "a");
    pods.delete("one", &DeleteParams::foreground()).await.unwrap();
    world.fake.until::<Pod>(<[Pod]>::is_empty).await;
}

fn pod_of_pod(name: &str, namespace: &str, owner: &str) -> Pod {
    let mut pod = pod(name, &[owner]);
    pod.metadata.namespace = Some(namespace.to_owned());
    for reference in pod.metadata.owner_references.iter_mut().flatten() {
        (reference.api_version, reference.kind) = ("v1".to_owned(), "Pod".to_owned());
    }
    pod
}

#[tokio::test]
async fn an_owner_is_looked_for_in_the_own_namespace_only() {
    let world = World::new();
    world.fake.put(&pod("owner", &[]));
    world.fake.put(&pod_of_pod("stays", "a", "owner"));
    world.fake.put(&pod_of_pod("elsewhere", "b", "owner"));
    world.start(&["garbage-collector"]);
    world.fake.until::<Pod>(|pods| names(pods) == ["owner", "stays"]).await;
    world
        .fake
        .until::<Event>(|events| events.iter().any(|event| event.reason.as_deref() == Some("OwnerRefInvalidNamespace")))
        .await;
}

#[tokio::test]
async fn nothing_outside_of_namespaces_goes_for_an_owner_inside() {
    let world = World::new();
    let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "nobody", "uid": "nobody"}]);
    world.fake.put(&object::<Node>(json!({"metadata": {"name": "node", "uid": "node", "ownerReferences": owners}})));
    world.fake.put(&pod("lost", &["nobody"]));
    world.start(&["garbage-collector"]);
    world.fake.until::<Pod>(<[Pod]>::is_empty).await;
    // What comes later is looked at later: when it is gone, the node has been looked at.
    world.fake.put(&pod("late", &["nobody"]));
    world.fake.until::<Pod>(<[Pod]>::is_empty).await;
    assert_eq!(world.fake.all::<Node>().len(), 1);
}

/// Upstream's `reportInvalidNamespaceOwnerRef` (TestCrossNamespaceReferences): a cluster-scoped object whose owner is in a namespace is
/// kept, and an event tells of its reference, whichever of the two comes first.
#[tokio::test]
async fn an_owner_inside_a_namespace_is_reported_of_what_is_outside() {
    for owner_first in [true, false] {
        let world = World::new();
        let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "owner", "uid": "owner"}]);
        let node = object::<Node>(json!({"metadata": {"name": "node", "uid": "node", "ownerReferences": owners}}));
        if owner_first {
            world.fake.put(&pod("owner", &[]));
        } else {
            world.fake.put(&node);
        }
        world.start(&["garbage-collector"]);
        // When it is gone, all that was there before has been looked at.
        world.fake.put(&pod("lost", &["nobody"]));
        world.fake.until::<Pod>(|pods| !names(pods).contains(&"lost")).await;
        if owner_first {
            world.fake.put(&node);
        } else {
            world.fake.put(&pod("owner", &[]));
        }
        let tells = |event: &Event| {
            let about = (event.involved_object.kind.as_deref(), event.involved_object.name.as_deref());
            event.reason.as_deref() == Some("OwnerRefInvalidNamespace")
                && about == (Some("Node"), Some("node"))
                && event.message.as_deref()
                    == Some("ownerRef [v1/Pod, namespace: , name: owner, uid: owner] does not exist in namespace \"\"")
        };
        world.fake.until::<Event>(|events| events.iter().any(tells)).await;
        assert_eq!((world.fake.all::<Node>().len(), world.fake.all::<Pod>().len()), (1, 1));
    }
}

fn widgets(fake: &client::fake::Fake, version: &str) -> Api<client::kube::core::DynamicObject> {
    let [group, version, kind, plural] = ["example.com", version, "Widget", "widgets"].map(str::to_owned);
    let resource = client::kube::core::ApiResource { api_version: format!("{group}/{version}"), group, version, kind, plural };
    Api::namespaced_with(fake.client(), "a", &resource)
}

fn widget(name: &str, owner: &str) -> client::kube::core::DynamicObject {
    let owners = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner}]);
    object(json!({"metadata": {"namespace": "a", "name": name, "ownerReferences": owners}}))
}

/// A group need not serve all resources in the version that it prefers, nor in one version for ever.
#[tokio::test]
async fn resources_are_followed_from_version_to_version() {
    let world = World::new();
    let fake = &world.fake;
    fake.serve("example.com", "v1", "gadgets", "Gadget", true);
    fake.serve("example.com", "v1beta1", "widgets", "Widget", true);
    for name in ["one", "two"] {
        fake.put(&set(name));
    }
    let old = widgets(fake, "v1beta1");
    old.create(&Default::default(), &widget("first", "one")).await.unwrap();
    old.create(&Default::default(), &widget("second", "two")).await.unwrap();
    world.start(&["garbage-collector"]);
    let sets: Api<ReplicaSet> = Api::namespaced(fake.client(), "a");
    let left = async |version: &str, expected: usize| {
        let api = widgets(fake, version);
        while api.list(&Default::default()).await.unwrap().items.len() != expected {
            tokio::task::yield_now().await;
        }
    };
    sets.delete("one", &DeleteParams::background()).await.unwrap();
    left("v1beta1", 1).await;
    fake.serve("example.com", "v1", "widgets", "Widget", true);
    fake.withdraw("example.com", "v1beta1", "widgets");
    // The watch of the old version has ended, which leads to discovery.
    widgets(fake, "v1").create(&Default::default(), &widget("third", "two")).await.unwrap();
    sets.delete("two", &DeleteParams::background()).await.unwrap();
    left("v1", 0).await;
}

fn of_a_gadget(name: &str) -> Pod {
    let owners = json!([{"apiVersion": "example.com/v1", "kind": "Gadget", "name": "nobody", "uid": "nobody"}]);
    object(
        json!({"metadata": {"namespace": "a", "name": name, "uid": name, "ownerReferences": owners}, "spec": {"containers": []}}),
    )
}

/// Upstream's `attemptToDeleteWorker` tells of a `restMappingError` at verbosity 5 only: anybody may write such a reference.
#[tokio::test]
async fn an_owner_of_a_kind_that_nobody_serves_is_no_failure() {
    let world = World::new();
    world.fake.put(&of_a_gadget("pod"));
    let client = world.fake.client();
    let collector = GarbageCollector::new(client.clone());
    let number = collector.resources.lock().number(&Discovered::of("v1", "pods", "Pod"));
    let meta = of_a_gadget("pod").metadata;
    let owners = collector.resources.lock().owners(&meta);
    assert_eq!(collector.graph.lock().observe(number, &meta, owners), [uid("pod")]);
    let events = client::events::Recorder::new(client.clone(), "collector", "", &world.tasks);
    let cx = Cx { events, client, clock: world.clock.clone() };
    assert!(matches!(collector.reconcile(&cx, &key_of(uid("pod"))).await, Ok(Action::Done)));
    assert_eq!(world.fake.all::<Pod>().len(), 1);
}

#[tokio::test]
async fn dependents_of_a_kind_that_comes_late_are_looked_at_again() {
    let world = World::new();
    world.fake.serve("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", false);
    world.fake.put(&of_a_gadget("pod"));
    world.start(&["garbage-collector"]);
    // When it is gone, the other one has been looked at.
    world.fake.put(&pod("lost", &["nobody"]));
    world.fake.until::<Pod>(|pods| names(pods) == ["pod"]).await;
    world.fake.serve("example.com", "v1", "gadgets", "Gadget", true);
    let names = json!({"kind": "Gadget", "plural": "gadgets"});
    let spec = json!({"group": "example.com", "scope": "Namespaced", "names": names, "versions": []});
    world.fake.put(&object::<CustomResourceDefinition>(json!({"metadata": {"name": "gadgets.example.com"}, "spec": spec})));
    world.fake.until::<Pod>(<[Pod]>::is_empty).await;
}
