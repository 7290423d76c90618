#![allow(clippy::unwrap_used)]

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::*;
use crate::testing::{World, object};

#[tokio::test]
async fn a_namespace_gets_its_basics_and_goes_with_all_it_has() {
    let world = World::new();
    world.fake.put::<Namespace>(&object(json!({
        "metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    })));
    world.start(&["namespace", "serviceaccount", "root-ca"]);
    world.fake.until::<ServiceAccount>(|accounts| accounts.len() == 1).await;
    world.fake.until::<ConfigMap>(|maps| maps.len() == 1 && maps[0].data.as_ref().unwrap()["ca.crt"] == "PEM").await;

    let pods: Api<Pod> = Api::namespaced(world.fake.client(), "a");
    let held = object(json!({"metadata": {"name": "held", "finalizers": ["example.com/x"]}, "spec": {"containers": []}}));
    pods.create(&PostParams::default(), &held).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(world.fake.client());
    namespaces.delete("a", &DeleteParams::default()).await.unwrap();
    let waits = |namespaces: &[Namespace]| {
        let conditions = namespaces[0].status.as_ref().unwrap().conditions.iter().flatten();
        conditions.into_iter().any(|one| one.type_ == "NamespaceFinalizersRemaining" && one.status == "True")
    };
    world.fake.until::<Namespace>(waits).await;
    // Pods go first: the rest waits for them.
    assert_eq!(world.fake.all::<ConfigMap>().len(), 1);
    let free = json!({"metadata": {"finalizers": null}});
    pods.patch("held", &PatchParams::default(), &Patch::Merge(free)).await.unwrap();
    world.fake.until::<Namespace>(<[Namespace]>::is_empty).await;
    assert!(world.fake.all::<ConfigMap>().is_empty());
}

/// Whoever holds a pod that has ended may have to go first.
#[tokio::test]
async fn pods_that_have_ended_do_not_hold_up_the_rest() {
    let world = World::new();
    let meta = |name: &str| json!({"namespace": "a", "name": name, "finalizers": ["example.com/x"]});
    world.fake.put::<Pod>(&object(json!({"metadata": meta("ended"), "spec": {"containers": []}, "status": {"phase": "Failed"}})));
    world.fake.put::<ConfigMap>(&object(json!({"metadata": {"namespace": "a", "name": "m"}})));
    world.fake.put::<Namespace>(&object(json!({
        "metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    })));
    world.start(&["namespace"]);
    world.fake.until::<ConfigMap>(<[ConfigMap]>::is_empty).await;
    assert_eq!((world.fake.all::<Namespace>().len(), world.fake.all::<Pod>().len()), (1, 1));
}

/// A ReferenceGrant is served in another version than the one that its group prefers; one that stays would open the next tenant's namespace.
#[tokio::test]
async fn what_is_served_in_another_version_goes_too() {
    let world = World::new();
    const GROUP: &str = "gateway.networking.k8s.io";
    world.fake.serve(GROUP, "v1", "gateways", "Gateway", true);
    world.fake.serve(GROUP, "v1beta1", "referencegrants", "ReferenceGrant", true);
    let [group, version, kind, plural] = [GROUP, "v1beta1", "ReferenceGrant", "referencegrants"].map(str::to_owned);
    let resource = kube::core::ApiResource { api_version: format!("{group}/{version}"), group, version, kind, plural };
    let grants: kube::Api<kube::core::DynamicObject> = kube::Api::namespaced_with(world.fake.client(), "a", &resource);
    grants.create(&PostParams::default(), &object(json!({"metadata": {"name": "open"}}))).await.unwrap();
    world.fake.put::<Namespace>(&object(json!({
        "metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    })));
    world.start(&["namespace"]);
    world.fake.until::<Namespace>(<[Namespace]>::is_empty).await;
    assert!(grants.list(&Default::default()).await.unwrap().items.is_empty());
}

#[test]
fn what_a_namespace_waits_for_is_told() {
    let check = |failures: &[&str], undiscovered: &[&str], expected: Option<&str>| {
        let texts = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        let outcome = Outcome { failures: texts(failures), undiscovered: texts(undiscovered), ..Outcome::default() };
        assert_eq!(unfinished(&outcome).as_deref(), expected);
    };
    check(&[], &[], None);
    check(&["pods: denied"], &[], Some("pods: denied"));
    check(&[], &["a.io/v1", "b.io/v1"], Some("no answer from a.io/v1, b.io/v1"));
    check(&["pods: denied"], &["a.io/v1"], Some("pods: denied; no answer from a.io/v1"));
}
