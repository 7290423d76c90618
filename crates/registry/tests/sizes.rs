//! Objects have a largest size, whoever writes them in whatever way, and who falls behind large ones goes on from history.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apimachinery::{Reason, Status, meta};
use common::{Directory, Hooked, config_map, config_maps, create, cx, open};
use futures::FutureExt;
use registry::{Context, DeleteOptions, EventType, ListOptions, Patch, Registry, Watch};
use serde_json::{Value, json};
use store::{Change, Engine, Expect, Lane, Write};

/// Upstream's etcd takes 1.5 MiB (`DefaultMaxRequestBytes`).
const MOST: usize = 3 << 19;

#[track_caller]
fn refused<T>(result: Result<T, Status>) {
    let status = result.map(drop).unwrap_err();
    assert_eq!((status.code, status.reason, &status.message[..]), (500, Reason::from(""), "etcdserver: request is too large"));
}

/// A config map whose data are of that size as protobuf. Its kind's own limit of 1 MiB is for data; annotations have theirs, and managed fields none.
fn large(name: &str, managed: usize) -> Value {
    let mut object = config_map(name, "");
    let fields: serde_json::Map<String, Value> = (0..managed / 100).map(|at| (format!("f:{at:090}"), json!({}))).collect();
    object["metadata"]["managedFields"] = json!([{
        "manager": "other", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": fields},
    }]);
    object["data"] = json!({"k": "x".repeat(1 << 19)});
    object
}

fn applying() -> Context {
    Context { force: true, ..cx() }
}

/// 9,000 fields with long names: as many in the record of who has set them.
fn wide(name: &str) -> Value {
    let mut object = config_map(name, "");
    object["data"] = (0..9_000).map(|at| (format!("{at:0100}"), json!(""))).collect::<serde_json::Map<_, _>>().into();
    object
}

/// `isTooLargeError`: what a client does not ask for, the record of who has set what, gives way; what it applies does not.
#[tokio::test]
async fn managed_fields_give_way() {
    let directory = Directory::new();
    let registry = open(directory.engine().await).await;
    let maps = config_maps(&registry);
    let managed = |object: &Value| object.pointer("/metadata/managedFields").is_some();
    let made = registry.create(&cx(), &maps, "ns", None, wide("a")).await.unwrap().value();
    assert!(!managed(&made) && made["data"].as_object().unwrap().len() == 9_000);
    let put = registry.update(&cx(), &maps, "", "ns", "a", wide("a")).await.unwrap().entry.value();
    assert!(!managed(&put));
    let small = registry.create(&cx(), &maps, "ns", None, config_map("b", "")).await.unwrap().value();
    assert!(managed(&small));
    let merge = json!({"data": wide("b")["data"]}).to_string();
    let patched = registry.patch(&cx(), &maps, "", "ns", "b", Patch::Merge(merge.into())).await.unwrap().entry.value();
    assert!(!managed(&patched));
    refused(registry.patch(&applying(), &maps, "", "ns", "new", Patch::Apply(wide("new"))).await);
    create(&registry, "c", "").await;
    refused(registry.patch(&applying(), &maps, "", "ns", "c", Patch::Apply(wide("c"))).await);
}

/// Lists, tables, watch events and reviews are some levels deeper than what is in them, and are read by parsers with a bound.
#[tokio::test]
async fn no_verb_stores_what_is_too_deep() {
    let directory = Directory::new();
    let registry = open(directory.engine().await).await;
    let nested = |depth: usize| (0..depth).fold(json!({}), |inner, _| json!({"f:a": inner}));
    let revisions = registry.resource("apps", "v1", "controllerrevisions").unwrap();
    let revision = |name: &str, depth: usize| {
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": name, "namespace": "ns"},
            "revision": 1, "data": nested(depth)})
    };
    registry.create(&cx(), &revisions, "ns", None, revision("a", 118)).await.unwrap();
    let status = registry.create(&cx(), &revisions, "ns", None, revision("b", 119)).await.unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (400, "the object nests deeper than 120 levels"));
    // What the client did not come for gives way.
    let maps = config_maps(&registry);
    let deep = || {
        let mut object = config_map("a", "");
        object["metadata"]["managedFields"] = json!([{"manager": "other", "operation": "Update", "apiVersion": "v1",
            "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": nested(118)}]);
        object
    };
    let managed = |object: &Value| object.pointer("/metadata/managedFields").is_some();
    assert!(!managed(&registry.create(&cx(), &maps, "ns", None, deep()).await.unwrap().value()));
    assert!(!managed(&registry.update(&cx(), &maps, "", "ns", "a", deep()).await.unwrap().entry.value()));
}

/// Every write ends in the same place: a kind without limits of its own, through every verb.
#[tokio::test]
async fn no_verb_stores_what_is_too_large() {
    let directory = Directory::new();
    let registry = open(directory.engine().await).await;
    let leases = registry.resource("apps", "v1", "controllerrevisions").unwrap();
    let object = |name: &str, size: usize| {
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": name, "namespace": "ns"},
            "revision": 1, "data": {"k": "x".repeat(size)}})
    };
    refused(registry.create(&cx(), &leases, "ns", None, object("a", MOST)).await);
    let made = registry.create(&cx(), &leases, "ns", None, object("a", MOST - 1000)).await.unwrap();
    // Ownership and all: what it grows by is too much.
    let more = json!({"x": "y".repeat(250 << 10)});
    let mut next = made.value();
    next["metadata"]["annotations"] = more.clone();
    refused(registry.update(&cx(), &leases, "", "ns", "a", next).await);
    let merge = json!({"metadata": {"annotations": more}}).to_string();
    refused(registry.patch(&cx(), &leases, "", "ns", "a", Patch::Merge(merge.clone().into())).await);
    refused(registry.patch(&cx(), &leases, "", "ns", "a", Patch::Strategic(merge.into())).await);
    let json = json!([{"op": "add", "path": "/metadata/annotations", "value": more}]).to_string();
    refused(registry.patch(&cx(), &leases, "", "ns", "a", Patch::Json(json.into())).await);
    refused(registry.patch(&applying(), &leases, "", "ns", "b", Patch::Apply(object("b", MOST))).await);
    let dry = Context { dry_run: true, ..cx() };
    refused(registry.create(&dry, &leases, "ns", None, object("b", MOST)).await);
    // Sub-resources, too.
    let pods = registry.resource("", "v1", "pods").unwrap();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = registry.create(&cx(), &pods, "ns", None, pod).await.unwrap();
    let mut told = made.value();
    told["status"]["message"] = "x".repeat(MOST).into();
    refused(registry.update(&cx(), &pods, "status", "ns", "p", told).await);
}

/// What was stored before there was a limit can be made smaller and deleted.
#[tokio::test]
async fn a_large_object_of_before_can_go() {
    let directory = Directory::new();
    let engine = directory.engine().await;
    for name in ["a", "b"] {
        let mut object = large(name, MOST);
        (object["metadata"]["namespace"], object["metadata"]["finalizers"]) = ("ns".into(), json!(["x.io/y"]));
        let key = format!("/registry/core/configmaps/ns/{name}");
        let change = Change::Put(object.to_string().into());
        let write = Write::new(key, Expect::Absent, change, Lane::Durable);
        engine.commit(write).await.unwrap();
    }
    let registry = open(engine).await;
    let maps = config_maps(&registry);
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"l": "1"}});
    refused(registry.patch(&Context { manager: "new".into(), ..applying() }, &maps, "", "ns", "a", Patch::Apply(config)).await);
    registry.delete(&cx(), &maps, "ns", "b", DeleteOptions::default()).await.unwrap();
    assert!(meta::is_deleting(&registry.get(&maps, "ns", "b", None).await.unwrap().value()));
    let free = json!({"metadata": {"finalizers": null}}).to_string();
    registry.patch(&cx(), &maps, "", "ns", "b", Patch::Merge(free.into())).await.unwrap();
    assert_eq!(registry.get(&maps, "ns", "b", None).await.unwrap_err().code, 404);
}

/// Over a quota that was lowered everything can go, also what is marked first, and what says meanwhile how far it is.
#[tokio::test]
async fn what_a_lowered_quota_does_not_cover_can_go() {
    let directory = Directory::new();
    let engine = directory.engine().await;
    let registry = open(engine.clone()).await;
    let of = |group: &str, version: &str, plural: &str| registry.resource(group, version, plural).unwrap();
    let (pods, budgets) = (of("", "v1", "pods"), of("policy", "v1", "poddisruptionbudgets"));
    let kept = json!({"name": "a", "namespace": "ns", "finalizers": ["x.io/y", "x.io/z"]});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": kept});
    registry.create(&cx(), &config_maps(&registry), "ns", None, map).await.unwrap();
    for name in ["a", "b"] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns", "labels": {"app": "a"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
        let mut pod = registry.create(&cx(), &pods, "ns", None, pod).await.unwrap().value();
        pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        registry.update(&cx(), &pods, "status", "ns", name, pod).await.unwrap();
    }
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "a", "namespace": "ns"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    let mut budget = registry.create(&cx(), &budgets, "ns", None, budget).await.unwrap().value();
    budget["status"] =
        json!({"disruptionsAllowed": 1, "observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2});
    registry.update(&cx(), &budgets, "status", "ns", "a", budget).await.unwrap();
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}});
    registry.create(&cx(), &of("", "v1", "namespaces"), "", None, space).await.unwrap();
    drop(registry);
    engine.close().await;

    let registry = open(directory.engine_of(1).await).await;
    let maps = config_maps(&registry);
    let more = json!({"data": {"k": "x".repeat(1000)}}).to_string();
    let code = |done: Result<_, Status>| done.map_or_else(|status| status.code, |_| 0);
    assert_eq!(code(registry.patch(&cx(), &maps, "", "ns", "a", Patch::Merge(more.into())).await.map(drop)), 507);
    let new = registry.create(&cx(), &maps, "ns", None, config_map("new", "")).await;
    assert_eq!(code(new.map(drop)), 507);
    let of = |group: &str, version: &str, plural: &str| registry.resource(group, version, plural).unwrap();
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "b", "namespace": "ns"}});
    registry.create_sub(&cx(), &of("", "v1", "pods"), "eviction", "ns", "b", eviction).await.unwrap();
    for (plural, namespace, name) in [("configmaps", "ns", "a"), ("pods", "ns", "a"), ("namespaces", "", "ns")] {
        let orphaned = DeleteOptions { propagation: Some("Orphan".into()), ..DeleteOptions::default() };
        registry.delete(&cx(), &of("", "v1", plural), namespace, name, orphaned).await.unwrap();
    }
    for (plural, namespace, name) in
        [("configmaps", "ns", "a"), ("pods", "ns", "a"), ("pods", "ns", "b"), ("namespaces", "", "ns")]
    {
        let found = registry.get(&of("", "v1", plural), namespace, name, None).await.unwrap();
        assert!(meta::is_deleting(&found.value()), "{plural} {name}");
    }
    let free = json!({"metadata": {"finalizers": null}}).to_string();
    registry.patch(&cx(), &maps, "", "ns", "a", Patch::Merge(free.into())).await.unwrap();
    assert_eq!(registry.get(&maps, "ns", "a", None).await.unwrap_err().code, 404);
}

async fn watch(registry: &Registry, plural: &str) -> Watch {
    let resource = registry.resource("", "v1", plural).unwrap();
    let options = ListOptions { send_initial_events: Some(false), ..ListOptions::default() };
    registry.watch(&resource, None, &options).await.unwrap()
}

/// More than the rings of all kinds hold.
async fn flood(registry: &Registry, round: usize) {
    for at in 0..12 {
        let mut object = config_map(&format!("m{round}-{at:02}"), "");
        object["data"] = json!({"k": "x".repeat((1 << 20) - 1000)});
        registry.create(&cx(), &config_maps(registry), "ns", None, object).await.unwrap();
    }
}

/// Whoever reads too slowly misses nothing as long as the store has it, and the store is read once for all of them.
#[tokio::test]
async fn who_falls_out_of_the_ring_goes_on_from_history() {
    let directory = Directory::new();
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    let mut hooked = Hooked::new(directory.engine().await);
    hooked.before_changes = Some(Box::new(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        async {}.boxed()
    }));
    let engine = hooked.engine.clone();
    let registry = open(hooked).await;
    create(&registry, "before", "").await;
    let mut watches = Vec::new();
    for _ in 0..30 {
        watches.push(watch(&registry, "configmaps").await);
    }
    flood(&registry, 0).await;
    for watch in &mut watches {
        for at in 0..12 {
            let event = watch.next().await.unwrap();
            assert_eq!((event.kind, event.entry.name()), (EventType::Added, &format!("m0-{at:02}")[..]));
        }
        assert!(watch.next().now_or_never().is_none());
    }
    let count = reads.load(Ordering::Relaxed);
    assert!((1..=12).contains(&count), "{count} reads of history for 30 watches");
    // And again; this time the history is gone.
    flood(&registry, 1).await;
    engine.compact(engine.revision()).await.unwrap();
    for watch in &mut watches {
        let event = watch.next().await.unwrap();
        assert_eq!((event.kind, event.status.unwrap().code), (EventType::Error, 410));
        assert!(watch.next().await.is_none());
    }
}
