//! What writes promise about each other: versions, preconditions, finalizers, and one winner.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use apimachinery::{GroupResource, Reason, Status, meta};
use async_trait::async_trait;
use common::{Directory, config_map, config_maps, create, cx, open, open_with};
use futures::future::join_all;
use registry::{Admission, Context, DeleteOptions, Deleted, ListOptions, Operation, Patch, Registry, Request};
use serde_json::{Value, json};
use store::memory::{Memory, Reliable};

async fn update(registry: &Registry, object: Value) -> Result<Value, Reason> {
    let name = meta::name(&object).to_owned();
    let written = registry.update(&cx(), &config_maps(registry), "", "ns", &name, object).await;
    written.map(|written| written.entry.value()).map_err(|status| status.reason)
}

async fn delete(registry: &Registry, options: DeleteOptions) -> Result<bool, Reason> {
    let deleted = registry.delete(&cx(), &config_maps(registry), "ns", "a", options).await;
    deleted.map(|deleted| matches!(deleted, Deleted::Now(_))).map_err(|status| status.reason)
}

async fn registry(directory: &Directory) -> std::sync::Arc<Registry> {
    open(directory.engine().await).await
}

/// KEP-555: apply is create-or-update, whoever deletes the object meanwhile.
#[tokio::test]
async fn applies_create_what_others_delete() {
    let directory = Directory::new();
    let registry = registry(&directory).await;
    let apply = |number: usize| {
        let config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": number.to_string()}});
        let (registry, cx) = (registry.clone(), Context { force: true, ..cx() });
        async move {
            for _ in 0..20 {
                let applied = registry.patch(&cx, &config_maps(&registry), "", "ns", "a", Patch::Apply(config.clone())).await;
                // Who loses against others again and again is told of a conflict, but that it is gone is no answer.
                assert!(!applied.is_err_and(|status| status.is(Reason::NotFound)));
            }
        }
    };
    let applies = join_all((0..4).map(apply));
    let deletes = async {
        loop {
            let _ = delete(&registry, DeleteOptions::default()).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = applies => {}
        () = deletes => {}
    }
}

/// Upstream's `EnsureObjectNamespaceMatchesRequestNamespace`: the path says the namespace; a body may leave it out, and one of what is in
/// no namespace may say any.
#[tokio::test]
async fn the_path_says_the_namespace() {
    let directory = Directory::new();
    let registry = registry(&directory).await;
    let roles = registry.resource("rbac.authorization.k8s.io", "v1", "clusterroles").unwrap();
    let cases = [
        (config_maps(&registry), "ns", "", Ok("ns")),
        (config_maps(&registry), "ns", "ns", Ok("ns")),
        (config_maps(&registry), "ns", "other", Err(Reason::BadRequest)),
        (roles.clone(), "", "", Ok("")),
        (roles, "", "other", Ok("")),
    ];
    for (number, (res, namespace, said, expected)) in cases.into_iter().enumerate() {
        let name = format!("n{number}");
        let mut object = json!({"metadata": {"name": &name}});
        meta::set_namespace(&mut object, said);
        let created = registry.create(&cx(), &res, namespace, None, object.clone()).await;
        let found = created.map(|entry| meta::namespace(&entry.value()).to_owned()).map_err(|status| status.reason);
        assert_eq!(found, expected.clone().map(str::to_owned), "created with {said:?}");
        meta::set_annotation(&mut object, "changed", "yes");
        let updated = registry.update(&cx(), &res, "", namespace, &name, object).await;
        let found = updated.map(|written| meta::namespace(&written.entry.value()).to_owned()).map_err(|status| status.reason);
        assert_eq!(found, expected.map(str::to_owned), "updated with {said:?}");
    }
}

/// Upstream's `checkName` and `EnsureObjectNamespaceMatchesRequestNamespace`, of patches.
#[tokio::test]
async fn patches_move_nothing() {
    let directory = Directory::new();
    let registry = registry(&directory).await;
    create(&registry, "a", "n=0").await;
    let check = async |metadata: Value, expected: Result<(), &str>| {
        let patch = Patch::Merge(json!({"metadata": &metadata}).to_string().into());
        let patched = registry.patch(&cx(), &config_maps(&registry), "", "ns", "a", patch).await;
        let found = patched.map(|written| assert_eq!(meta::namespace(&written.entry.value()), "ns"));
        let expected = expected.map_err(|text| (400, text.to_owned()));
        assert_eq!(found.map_err(|status| (status.code, status.message)), expected, "{metadata}");
    };
    check(json!({"namespace": null, "labels": {"n": "1"}}), Ok(())).await;
    let moved = "the namespace of the provided object does not match the namespace sent on the request";
    check(json!({"namespace": "other"}), Err(moved)).await;
    check(json!({"name": "b"}), Err("the name of the object (b) does not match the name on the URL (a)")).await;
    let nameless = "the name of the object (a based on URL) was undeterminable: name must be provided";
    check(json!({"name": null}), Err(nameless)).await;
    check(Value::Null, Err(nameless)).await;
}

/// The same of what replaces an object.
#[tokio::test]
async fn updates_move_nothing() {
    let directory = Directory::new();
    let registry = registry(&directory).await;
    create(&registry, "a", "n=0").await;
    let check = async |name: &str, expected: &str| {
        let mut object = config_map(name, "n=1");
        if name.is_empty() {
            meta::remove(&mut object, "name");
        }
        let refused = registry.update(&cx(), &config_maps(&registry), "", "ns", "a", object).await.map(drop).unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (400, expected));
    };
    check("b", "the name of the object (b) does not match the name on the URL (a)").await;
    check("", "the name of the object (a based on URL) was undeterminable: name must be provided").await;
}

#[tokio::test]
async fn updates_by_version() {
    let directory = Directory::new();
    let registry = registry(&directory).await;
    let first = create(&registry, "a", "n=0").await;
    let with = |version: Option<&str>, labels: &str| {
        let mut object = config_map("a", labels);
        if let Some(version) = version {
            meta::set_resource_version(&mut object, version);
        }
        object
    };
    let version = |object: &Value| meta::resource_version(object).parse::<u64>().unwrap();
    let second = update(&registry, with(Some(&first.revision.to_string()), "n=1")).await.unwrap();
    assert_eq!(version(&second), first.revision + 1);
    assert_eq!(update(&registry, with(Some(&first.revision.to_string()), "n=2")).await, Err(Reason::Conflict));
    assert_eq!(update(&registry, with(Some("x"), "n=2")).await, Err(Reason::BadRequest));
    // What changes nothing is no change, whoever asks.
    assert_eq!(update(&registry, with(None, "n=1")).await.as_ref().map(version), Ok(version(&second)));
    assert_eq!(registry.revision(), version(&second));
    for (unset, labels) in [(None, "n=3"), (Some(""), "n=4"), (Some("0"), "n=5")] {
        let before = registry.revision();
        assert_eq!(update(&registry, with(unset, labels)).await.as_ref().map(version), Ok(before + 1), "{unset:?}");
    }
    // Without a version everybody wins, one after the other; with one, one does.
    let all = (0..10).map(|n| update(&registry, with(None, &format!("n=u{n}"))));
    assert!(join_all(all).await.iter().all(Result::is_ok));
    let now = registry.revision().to_string();
    let all = (0..10).map(|n| update(&registry, with(Some(&now), &format!("n=v{n}"))));
    let winners = join_all(all).await.into_iter().filter(|result| match result {
        Ok(_) => true,
        Err(reason) => {
            assert_eq!(*reason, Reason::Conflict);
            false
        }
    });
    assert_eq!(winners.count(), 1);
    let lease = &registry.resource("coordination.k8s.io", "v1", "leases").unwrap();
    let object = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}});
    assert!(registry.update(&cx(), lease, "", "ns", "l", object.clone()).await.unwrap().created);
    let refused = registry.update(&cx(), lease, "", "ns", "l", object).await.unwrap_err();
    assert_eq!((refused.code, refused.message.contains("metadata.resourceVersion: Invalid value")), (422, true), "{refused}");
}

#[tokio::test]
async fn deletions_by_precondition_and_finalizer() {
    let directory = Directory::new();
    let registry = registry(&directory).await;
    let mut object = create(&registry, "a", "").await.value();
    let (uid, stale) = (meta::uid(&object).to_owned(), meta::resource_version(&object).to_owned());
    meta::add_finalizer(&mut object, "x.y/z");
    let object = update(&registry, object).await.unwrap();
    let none = DeleteOptions::default;
    let other = DeleteOptions { uid: Some("other".into()), ..none() };
    assert_eq!(delete(&registry, other).await, Err(Reason::Conflict));
    let old = DeleteOptions { resource_version: Some(stale), ..none() };
    assert_eq!(delete(&registry, old).await, Err(Reason::Conflict));
    let this = DeleteOptions { uid: Some(uid), resource_version: Some(meta::resource_version(&object).into()), ..none() };
    assert_eq!(delete(&registry, this).await, Ok(false));
    let marked = registry.revision();
    assert_eq!(delete(&registry, none()).await, Ok(false));
    assert_eq!(registry.revision(), marked, "it is marked already");

    // The finalizer goes, and everybody deletes: it is gone once.
    let current = registry.get(&config_maps(&registry), "ns", "a", None).await.unwrap().value();
    let mut free = current.clone();
    meta::remove_finalizer(&mut free, "x.y/z");
    let deletions = (0..5).map(|_| delete(&registry, none()));
    let (last, deletions) = tokio::join!(update(&registry, free), join_all(deletions));
    assert!(last.is_ok(), "{last:?}");
    assert!(deletions.iter().all(|result| matches!(result, Ok(_) | Err(Reason::NotFound))), "{deletions:?}");
    assert_eq!(registry.revision(), marked + 1);
    assert_eq!(update(&registry, current).await, Err(Reason::NotFound));
    let cx = cx();
    let maps = config_maps(&registry);
    let races = join_all((0..8).map(|_| registry.create(&cx, &maps, "ns", None, config_map("a", "")))).await;
    assert_eq!(races.iter().filter(|result| result.is_ok()).count(), 1);
    let deletions = join_all((0..8).map(|_| delete(&registry, none()))).await;
    assert_eq!(deletions.iter().filter(|result| result.is_ok()).count(), 1, "{deletions:?}");
}

#[tokio::test]
async fn collections_go_up_to_the_limit() {
    let directory = Directory::new();
    let registry = registry(&directory).await;
    for name in ["a", "b", "c", "d", "e"] {
        create(&registry, name, if name == "d" { "keep=yes" } else { "keep=no" }).await;
    }
    let selected = apimachinery::labels::Selector::parse("keep=no").unwrap();
    let list = ListOptions { limit: 2, labels: Some(selected.clone()), ..ListOptions::default() };
    let maps = &config_maps(&registry);
    let deleted = registry.delete_collection(&cx(), maps, Some("ns"), &list, DeleteOptions::default()).await.unwrap();
    assert_eq!(deleted.entries.len(), 2);
    let left = async || {
        let list = registry.list(maps, None, &ListOptions::default()).await.unwrap();
        list.entries.iter().map(|entry| entry.name()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(left().await, "c d e");
    let list = ListOptions { labels: Some(selected), ..ListOptions::default() };
    registry.delete_collection(&cx(), maps, Some("ns"), &list, DeleteOptions::default()).await.unwrap();
    assert_eq!(left().await, "d");
}

/// Lets deletions pass two by two.
struct Pairs(tokio::sync::Barrier);

#[async_trait]
impl Admission for Pairs {
    fn name(&self) -> &'static str {
        "Pairs"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation == Operation::Delete
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        self.0.wait().await;
        if request.name == "kept" { Err(Status::forbidden(&GroupResource::new("", "configmaps"), "kept", "no")) } else { Ok(()) }
    }
}

/// One after the other, the deletions of a large collection take longer than a request may: this test does not end then.
#[tokio::test]
async fn objects_of_a_collection_are_deleted_side_by_side() {
    let directory = Directory::new();
    let registry = open_with(directory.engine().await, vec![Box::new(Pairs(tokio::sync::Barrier::new(2)))]).await;
    let maps = &config_maps(&registry);
    let delete =
        async || registry.delete_collection(&cx(), maps, Some("ns"), &ListOptions::default(), DeleteOptions::default()).await;
    for number in 0..100 {
        create(&registry, &format!("m{number}"), "").await;
    }
    assert_eq!(delete().await.unwrap().entries.len(), 100);
    let left = async || registry.list(maps, None, &ListOptions::default()).await.unwrap().entries.len();
    assert_eq!(left().await, 0);
    for name in ["kept", "other"] {
        create(&registry, name, "").await;
    }
    assert_eq!(delete().await.unwrap_err().code, 403);
    assert!(left().await > 0);
}

/// "No two Services can collide" (documentation, "Cluster IP address allocation"): a write that is queued comes to be also when the request has
/// ended, and what its service is given stays its own. On one thread the writer comes when the test waits.
#[tokio::test]
async fn addresses_of_writes_that_nobody_waits_for() {
    let (tasks, _failures) = base::tasks::Tasks::root();
    let registry = &*open(Memory::open(Arc::default(), Arc::new(Reliable), &tasks)).await;
    let services = &*registry.resource("", "v1", "services").unwrap();
    let service = |name: &str, address: &str, port: u16| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "NodePort", "clusterIP": address, "ports": [{"port": 80, "nodePort": port}]}})
    };
    let create = async |name: &str, address: &str, port: u16| {
        let created = registry.create(&cx(), services, "ns", None, service(name, address, port)).await;
        created.map(drop).map_err(|status| status.message)
    };
    let is_there = async |name: &str, port: u64| {
        loop {
            let entry = registry.get(services, "ns", name, None).await;
            if entry.is_ok_and(|entry| entry.value()["spec"]["ports"][0]["nodePort"] == port) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let taken = async |address: &str, port: u16, why: &str| {
        let refused = create("other", address, port).await.unwrap_err();
        assert!(refused.contains(why), "{refused}");
    };
    let (of_cluster, of_nodes) = ("provided IP is already allocated", "provided port is already allocated");
    // A create that ends when it is queued.
    assert!(futures::poll!(std::pin::pin!(create("a", "10.43.0.10", 30_001))).is_pending());
    taken("10.43.0.10", 30_002, of_cluster).await;
    taken("10.43.0.11", 30_001, of_nodes).await;
    is_there("a", 30_001).await;
    taken("10.43.0.10", 30_002, of_cluster).await;
    taken("10.43.0.11", 30_001, of_nodes).await;
    // An update.
    {
        let change = Patch::Merge(json!({"spec": {"ports": [{"port": 80, "nodePort": 30_003}]}}).to_string().into());
        let (cx, update) = (cx(), "");
        let patched = registry.patch(&cx, services, update, "ns", "a", change);
        assert!(futures::poll!(std::pin::pin!(patched)).is_pending());
    }
    taken("10.43.0.11", 30_003, of_nodes).await;
    is_there("a", 30_003).await;
    taken("10.43.0.11", 30_003, of_nodes).await;
    // What is given up is free: by the update, and by a create that the store refuses.
    assert_eq!(create("b", "10.43.0.12", 30_001).await, Ok(()));
    let twice = async { tokio::join!(create("c", "10.43.0.13", 30_004), create("c", "10.43.0.14", 30_005)) };
    let (first, second) = twice.await;
    assert!(first.is_ok() && second.is_err());
    assert_eq!(create("d", "10.43.0.14", 30_005).await, Ok(()));
}
