use super::*;
use crate::fake::Fake;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use serde_json::{Value, json};

const VERSIONS: &[&str] = &["v2", "v1"];

fn api(fake: &Fake, group: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    let [group, version, kind, plural] = [group, version, kind, plural].map(str::to_owned);
    let resource = ApiResource { api_version: format!("{group}/{version}"), group, version, kind, plural };
    Api::all_with(fake.client(), &resource)
}

fn definitions(fake: &Fake) -> Api<DynamicObject> {
    api(fake, "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
}

fn routes(fake: &Fake) -> Api<DynamicObject> {
    api(fake, "example.com", "v1", "Route", "routes")
}

fn serves(versions: &[&str]) -> Value {
    let one = |version: &&str| json!({"name": version, "served": versions.contains(version), "storage": *version == "v1"});
    let established = json!([{"type": "Established", "status": "True"}]);
    let versions: Vec<Value> = ["v1", "v2"].iter().map(one).collect();
    json!({"spec": {"versions": versions}, "status": {"conditions": established}})
}

async fn define(fake: &Fake, versions: &[&str]) {
    let mut definition = serves(versions);
    definition["metadata"] = json!({"name": "routes.example.com"});
    definitions(fake).create(&PostParams::default(), &serde_json::from_value(definition).unwrap()).await.unwrap();
}

async fn redefine(fake: &Fake, versions: &[&str]) {
    let patch = Patch::Merge(serves(versions));
    definitions(fake).patch("routes.example.com", &PatchParams::default(), &patch).await.unwrap();
}

async fn create(fake: &Fake, name: &str) {
    let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    routes(fake).create(&PostParams::default(), &object).await.unwrap();
}

/// The change as a word and the number of objects.
async fn next(changes: &mut (impl Stream<Item = Change> + Unpin)) -> (&'static str, usize) {
    match changes.next().await.unwrap() {
        Change::Served => ("served", 0),
        Change::All(all) => ("all", all.len()),
        Change::Set(_) => ("set", 1),
        Change::Gone(_) => ("gone", 1),
    }
}

fn follow_routes(fake: &Fake) -> Pin<Box<dyn Stream<Item = Change> + Send>> {
    Box::pin(follow(fake.client(), "example.com", "routes", VERSIONS))
}

#[tokio::test]
async fn what_is_not_defined_has_no_objects() {
    let fake = Fake::default();
    let mut changes = follow_routes(&fake);
    assert_eq!(next(&mut changes).await, ("all", 0));
    create(&fake, "a").await;
    define(&fake, &["v1"]).await;
    assert_eq!([next(&mut changes).await, next(&mut changes).await], [("served", 0), ("all", 1)]);
    definitions(&fake).delete("routes.example.com", &DeleteParams::default()).await.unwrap();
    assert_eq!(next(&mut changes).await, ("all", 0));
}

/// A definition that ceases to serve a version leads to another one, and nothing is gone meanwhile.
#[tokio::test]
async fn the_version_that_is_followed_is_one_that_is_served() {
    let fake = Fake::default();
    create(&fake, "a").await;
    define(&fake, &["v1"]).await;
    let mut changes = follow_routes(&fake);
    assert_eq!([next(&mut changes).await, next(&mut changes).await], [("served", 0), ("all", 1)]);
    // A better one.
    redefine(&fake, &["v1", "v2"]).await;
    assert_eq!([next(&mut changes).await, next(&mut changes).await], [("served", 0), ("all", 1)]);
    // The API serves it no more before the definition is seen to say so.
    fake.withdraw("example.com", "v2", "routes");
    let seen = async {
        // It asks a second time when it has seen the first answer.
        fake.until_refused(2).await;
        redefine(&fake, &["v1"]).await;
    };
    let (change, ()) = futures::future::join(next(&mut changes), seen).await;
    assert_eq!([change, next(&mut changes).await], [("served", 0), ("all", 1)]);
    create(&fake, "b").await;
    assert_eq!(next(&mut changes).await, ("set", 1));
    redefine(&fake, &[]).await;
    assert_eq!(next(&mut changes).await, ("all", 0));
    redefine(&fake, &["v1"]).await;
    assert_eq!([next(&mut changes).await, next(&mut changes).await], [("served", 0), ("all", 2)]);
}

/// What is defined and not served yet is asked for again soon.
#[tokio::test]
async fn the_definition_may_be_known_before_its_objects_are_served() {
    let fake = Fake::default();
    create(&fake, "a").await;
    fake.withdraw("example.com", "v1", "routes");
    define(&fake, &["v1"]).await;
    let mut changes = follow_routes(&fake);
    assert_eq!(next(&mut changes).await, ("served", 0));
    let again = async {
        fake.until_refused(1).await;
        fake.serve("example.com", "v1", "routes", "Route", true);
    };
    let all = tokio::time::timeout(Duration::from_secs(30), next(&mut changes));
    let (all, ()) = futures::future::join(all, again).await;
    assert_eq!(all.unwrap(), ("all", 1));
}

/// What is not served for long is asked for ever more seldom, and again when the definition changes.
#[tokio::test]
async fn what_is_not_served_is_not_asked_for_all_the_time() {
    let fake = Fake::default();
    fake.withdraw("example.com", "v1", "routes");
    define(&fake, &["v1"]).await;
    let mut changes = follow_routes(&fake);
    assert_eq!(next(&mut changes).await, ("served", 0));
    let begun = std::time::Instant::now();
    let change = {
        let mut change = std::pin::pin!(next(&mut changes));
        futures::future::select(&mut change, std::pin::pin!(fake.until_refused(5))).await;
        // After 100, 200, 400 and 800 ms.
        assert!(begun.elapsed() >= Duration::from_millis(1500), "{:?}", begun.elapsed());
        fake.serve("example.com", "v1", "routes", "Route", true);
        let touch = async {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"touched": "yes"}}}));
            definitions(&fake).patch("routes.example.com", &PatchParams::default(), &patch).await.unwrap();
        };
        let (change, ()) = futures::future::join(change, touch).await;
        change
    };
    assert_eq!(change, ("all", 0));
}
