use std::sync::Arc;

use client::Api;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use serde_json::{Value, json};

use super::plan::{self, Expected, Outcome};
use super::scale::Unknown;
use crate::testing::{World, object};

fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
    object(json!({"metadata": {"name": "b", "namespace": "ns", "generation": 3}, "spec": spec, "status": status}))
}

fn pod(name: &str, ready: bool) -> Arc<Pod> {
    let status = if ready { "True" } else { "False" };
    Arc::new(object(json!({"metadata": {"name": name, "namespace": "ns"},
        "status": {"conditions": [{"type": "Ready", "status": status}]}})))
}

#[test]
fn what_is_expected() {
    let check = |spec: Value, scale: Result<i64, Unknown>, expected: Result<(i64, i64), &str>| {
        let found = plan::expected(&budget(spec, json!({})), 4, scale.as_ref());
        let found = found.map(|Expected { pods, healthy }| (pods, healthy)).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned));
    };
    let unknown = || Err(Unknown::NoScale { resource: "jobs".to_owned(), group: "batch".to_owned() });
    check(json!({"minAvailable": 3}), Ok(10), Ok((4, 3)));
    check(json!({"minAvailable": 3}), unknown(), Ok((4, 3)));
    check(json!({"minAvailable": "28%"}), Ok(10), Ok((10, 3)));
    check(json!({"maxUnavailable": 1}), Ok(10), Ok((10, 9)));
    check(json!({"maxUnavailable": "25%"}), Ok(10), Ok((10, 7)));
    check(json!({"maxUnavailable": 20}), Ok(10), Ok((10, 0)));
    check(json!({"maxUnavailable": 1}), unknown(), Err("jobs.batch does not implement the scale subresource"));
}

/// `pkg/controller/disruption/disruption.go`: a warning where pods without a controller are not counted.
#[test]
fn pods_of_nobody_are_told_of() {
    let owned = |uid: &str| {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": uid, "controller": true});
        Arc::new(object(json!({"metadata": {"name": uid, "namespace": "ns", "ownerReferences": [owner]}})))
    };
    let check = |spec: Value, pods: &[Arc<Pod>], expected: bool| {
        assert_eq!(plan::misses(&budget(spec.clone(), json!({})), pods), expected, "{spec}");
    };
    let mixed = [owned("a"), pod("b", true)];
    check(json!({"maxUnavailable": 0}), &mixed, true);
    check(json!({"minAvailable": "50%"}), &mixed, true);
    check(json!({"minAvailable": 1}), &mixed, false);
    check(json!({"maxUnavailable": 0}), &mixed[..1], false);
    check(json!({"maxUnavailable": 0}), &[], false);
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn shown(status: &PodDisruptionBudgetStatus) -> [Option<i32>; 4] {
    [status.current_healthy, status.desired_healthy, status.expected_pods, status.disruptions_allowed]
}

#[test]
fn what_is_allowed() {
    let check = |pods: &[Arc<Pod>], expected: Expected, counts: [i32; 4], reason: &str| {
        let Outcome { status, .. } = plan::status(&budget(json!({}), json!({})), pods, expected, at(0));
        let condition = status.conditions.as_ref().and_then(|conditions| conditions.first()).expect("a condition");
        assert_eq!((shown(&status), condition.reason.as_str()), (counts.map(Some), reason));
        assert_eq!(status.observed_generation, Some(3));
    };
    let pods = [pod("a", true), pod("b", true), pod("c", false)];
    check(&pods, Expected { pods: 3, healthy: 1 }, [2, 1, 3, 1], "SufficientPods");
    check(&pods, Expected { pods: 3, healthy: 2 }, [2, 2, 3, 0], "InsufficientPods");
    check(&pods, Expected { pods: 3, healthy: 5 }, [2, 5, 3, 0], "InsufficientPods");
    check(&[], Expected { pods: 0, healthy: 0 }, [0, 0, 0, 0], "InsufficientPods");
}

#[test]
fn evicted_pods_do_not_count_for_two_minutes() {
    let noted = json!({"disruptedPods": {"a": "1970-01-01T00:00:10Z", "gone": "1970-01-01T00:00:10Z"}});
    let check = |now: i64, healthy: i32, wait: Option<u64>| {
        let pods = [pod("a", true), pod("b", true)];
        let expected = Expected { pods: 2, healthy: 1 };
        let Outcome { status, recheck, undeleted } = plan::status(&budget(json!({}), noted.clone()), &pods, expected, at(now));
        let names = status.disrupted_pods.clone().unwrap_or_default().into_keys().collect::<Vec<_>>();
        assert_eq!(status.current_healthy, Some(healthy));
        assert_eq!((names.len(), recheck.map(|wait| wait.as_secs())), (usize::from(wait.is_some()), wait));
        // Upstream's event NotDeleted; of a pod that is gone nothing is said.
        let told: Vec<&str> = undeleted.iter().map(|pod| crate::meta::name(pod.as_ref())).collect();
        assert_eq!(told, if wait.is_some() { vec![] } else { vec!["a"] });
    };
    check(20, 1, Some(110));
    check(130, 2, None);
}

#[test]
fn a_failure_allows_nothing() {
    let before =
        json!({"disruptionsAllowed": 2, "currentHealthy": 3, "desiredHealthy": 1, "expectedPods": 3, "observedGeneration": 2});
    let status = plan::failed(&budget(json!({}), before), "why", at(0));
    let condition = status.conditions.as_ref().and_then(|conditions| conditions.first()).expect("a condition");
    assert_eq!(shown(&status), [3, 1, 3, 0].map(Some));
    assert_eq!(
        (condition.reason.as_str(), condition.message.as_str(), status.observed_generation),
        ("SyncFailed", "why", Some(2))
    );
}

fn world_of_budgets() -> World {
    let world = World::new();
    for (group, plural, kind) in [
        ("policy", "poddisruptionbudgets", "PodDisruptionBudget"),
        ("apps", "statefulsets", "StatefulSet"),
        ("", "replicationcontrollers", "ReplicationController"),
    ] {
        world.fake.serve(group, "v1", plural, kind, true);
    }
    world
}

/// Upstream's `getPdbForPod` (`pkg/controller/disruption/disruption.go`), which asks at each change of a pod.
#[tokio::test]
async fn pods_with_several_budgets_are_told_of() {
    let world = world_of_budgets();
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    for name in ["a", "b"] {
        let budget = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec});
        world.fake.put(&object::<PodDisruptionBudget>(budget));
    }
    world.start(&["disruption"]);
    // Once it has a status, the budgets are known.
    world.fake.until::<PodDisruptionBudget>(|all| all.iter().all(|budget| budget.status.is_some())).await;
    for app in ["db", "web"] {
        let labels = json!({"app": app});
        world.fake.put(&object::<Pod>(json!({"metadata": {"name": app, "namespace": "ns", "uid": app, "labels": labels}})));
    }
    let text = "Pod \"ns\"/\"web\" matches multiple PodDisruptionBudgets.  Chose \"a\" arbitrarily.";
    let about = |events: &[Event]| -> Vec<(Option<String>, Option<String>)> {
        let own = events.iter().filter(|event| event.reason.as_deref() == Some("MultiplePodDisruptionBudgets"));
        own.map(|event| (event.involved_object.name.clone(), event.message.clone())).collect()
    };
    world.fake.until::<Event>(|events| !about(events).is_empty()).await;
    assert_eq!(about(&world.fake.all::<Event>()), [(Some("web".to_owned()), Some(text.to_owned()))]);
}

#[tokio::test]
async fn a_budget_follows_its_pods() {
    let world = world_of_budgets();
    world.start(&["disruption"]);
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(world.fake.client(), "ns");
    let pods: Api<Pod> = Api::namespaced(world.fake.client(), "ns");
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    let made = object(json!({"metadata": {"name": "b", "namespace": "ns"}, "spec": spec}));
    budgets.create(&Default::default(), &made).await.expect("a budget");
    let mut changes = world.options().informers.of::<PodDisruptionBudget>().changes();
    for name in ["a", "b"] {
        let mut pod = pod(name, true).as_ref().clone();
        pod.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
        let made = pods.create(&Default::default(), &pod).await.expect("a pod");
        let status = Pod { status: pod.status.clone(), ..made };
        pods.replace_status(name, &Default::default(), &status).await.expect("a status");
    }
    loop {
        let Some(budget) = changes.next().await.new else { continue };
        if budget.status.as_ref().is_some_and(|status| status.disruptions_allowed == Some(1)) {
            break;
        }
    }
}
