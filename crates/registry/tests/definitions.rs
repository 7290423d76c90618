//! What is served of custom resources, and what becomes of their objects.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::{Directory, Hooked, cx, open};
use kinds::CustomVersion;
use registry::{DeleteOptions, ListOptions, Registry, Served};
use serde_json::{Value, json};

fn definition(served: bool) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let names = json!({"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"});
    json!({
        "metadata": {"name": "foos.example.com", "uid": "u", "generation": 1},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names,
            "versions": [{"name": "v1", "served": served, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
        "status": {"acceptedNames": names},
    })
}

fn versions(served: bool) -> Vec<CustomVersion> {
    kinds::custom::versions(&definition(served), false).unwrap()
}

async fn define(registry: &Registry, served: bool) -> Result<(), registry::OpenError> {
    registry.define("example.com", "foos", versions(served), None).await.map(drop)
}

fn foos(registry: &Registry) -> Option<Arc<Served>> {
    registry.resource("example.com", "v1", "foos")
}

async fn names(registry: &Registry, foos: &Served) -> Vec<String> {
    let list = registry.list(foos, None, &ListOptions::default()).await.unwrap();
    list.entries.iter().map(|entry| entry.name().to_owned()).collect()
}

async fn make(registry: &Registry, name: &str) {
    let object = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": name}});
    registry.create(&cx(), &foos(registry).unwrap(), "ns", None, object).await.unwrap();
}

/// A storage that could not be read is read again, and does not stand there empty.
#[tokio::test]
async fn a_failed_load_leaves_nothing_behind() {
    let directory = Directory::new();
    let engine = directory.engine().await;
    let registry = open(engine.clone()).await;
    define(&registry, true).await.unwrap();
    make(&registry, "a").await;
    drop(registry);
    let hooked = Hooked::new(engine);
    let fails = hooked.fails.clone();
    let registry = open(hooked).await;
    for served in [true, false] {
        fails.store(true, Ordering::Relaxed);
        assert!(define(&registry, served).await.is_err());
        assert!(foos(&registry).is_none());
        let stored = versions(true).pop().unwrap();
        assert!(registry.stored_version("example.com", "foos", stored).await.is_err());
        fails.store(false, Ordering::Relaxed);
    }
    define(&registry, true).await.unwrap();
    assert_eq!(names(&registry, &foos(&registry).unwrap()).await, ["a"]);
    make(&registry, "b").await;
    assert_eq!(names(&registry, &foos(&registry).unwrap()).await, ["a", "b"]);
}

/// Objects whose definition serves no version are kept, can go, and come back only as they are in the store.
#[tokio::test]
async fn objects_that_nobody_sees_can_go() {
    let directory = Directory::new();
    let engine = directory.engine().await;
    let registry = open(engine.clone()).await;
    define(&registry, true).await.unwrap();
    for name in ["a", "b"] {
        make(&registry, name).await;
    }
    let before = foos(&registry).unwrap();
    define(&registry, false).await.unwrap();
    assert!(foos(&registry).is_none());
    let check = async |registry: &Registry, name: &str| {
        let stored = registry.stored_version("example.com", "foos", versions(true).pop().unwrap()).await.unwrap().unwrap();
        assert!(foos(registry).is_none());
        registry.delete(&cx(), &stored, "ns", name, DeleteOptions::default()).await.unwrap();
        assert!(!names(registry, &stored).await.contains(&name.to_owned()));
        // Who knows the kind from before cannot bring an object back.
        let object = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "late"}});
        assert_eq!(registry.create(&cx(), &before, "ns", None, object).await.unwrap_err().code, 404);
    };
    check(&registry, "a").await;
    // After a start nothing has been read of them, whether or not the definition can be served.
    drop(registry);
    let registry = open(engine.clone()).await;
    check(&registry, "b").await;
    registry.undefine("example.com", "foos").await;
    define(&registry, true).await.unwrap();
    assert!(names(&registry, &foos(&registry).unwrap()).await.is_empty());
    let pods = registry.stored_version("", "pods", versions(true).pop().unwrap()).await.unwrap();
    assert!(pods.is_none(), "what is part of the program is no custom resource");
}

/// A definition with other selectable fields: until its objects are renewed the index of each has those of before.
#[tokio::test]
async fn objects_from_before_a_change_are_selected_by_the_new_fields() {
    let directory = Directory::new();
    let registry = open(directory.engine().await).await;
    let with = |fields: &[&str]| {
        let mut definition = definition(true);
        let text = json!({"type": "string"});
        let schema = json!({"type": "object", "properties": {"a": text, "b": text, "c": {"type": "string", "default": "new"}}});
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema;
        let fields: Vec<Value> = fields.iter().map(|field| json!({"jsonPath": format!(".{field}")})).collect();
        definition["spec"]["versions"][0]["selectableFields"] = fields.into();
        kinds::custom::versions(&definition, false).unwrap()
    };
    registry.define("example.com", "foos", with(&["a", "b"]), None).await.unwrap();
    let object = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "x"}, "a": "one", "b": "two"});
    registry.create(&cx(), &foos(&registry).unwrap(), "ns", None, object).await.unwrap();
    let check = async |selector: &str, expected: &[&str]| {
        let fields = apimachinery::fields::Selector::parse(selector).ok();
        let options = ListOptions { fields, ..ListOptions::default() };
        let list = registry.list(&foos(&registry).unwrap(), Some("ns"), &options).await.unwrap();
        assert_eq!(list.entries.iter().map(|entry| entry.name()).collect::<Vec<_>>(), expected, "{selector}");
    };
    let renewal = registry.define("example.com", "foos", with(&["c", "b", "a"]), None).await.unwrap().unwrap();
    for _ in 0..2 {
        check("a=one", &["x"]).await;
        check("b=two,c=new", &["x"]).await;
        check("b=one", &[]).await;
    }
    renewal.run();
    check("a=one,b=two,c=new", &["x"]).await;
}
