#![allow(clippy::unwrap_used)]

use client::kube::{
    self,
    core::{ApiResource, DynamicObject},
};
use client::{Api, Entry};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::*;
use crate::Clock;
use crate::queue::{Queue, RETRY_MAX};
use crate::testing::{World, object};

fn used(quotas: &[ResourceQuota]) -> Value {
    serde_json::to_value(quotas[0].status.as_ref().and_then(|status| status.used.clone())).unwrap()
}

#[tokio::test]
async fn a_quota_follows_what_is_there() {
    let world = World::new();
    world.fake.serve("", "v1", "resourcequotas", "ResourceQuota", true);
    let containers = json!([{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]);
    for name in ["a", "b"] {
        world
            .fake
            .put::<Pod>(&object(json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"containers": containers}})));
        world.fake.put::<ConfigMap>(&object(json!({"metadata": {"namespace": "ns", "name": name}})));
    }
    world.fake.put::<ConfigMap>(&object(json!({"metadata": {"namespace": "other", "name": "c"}})));
    let hard = json!({"pods": "5", "requests.cpu": "2", "configmaps": "3", "count/configmaps": "3", "services": "1"});
    world.fake.put::<ResourceQuota>(&object(json!({"metadata": {"namespace": "ns", "name": "q"}, "spec": {"hard": hard}})));
    world.start(&["resourcequota"]);
    let full = json!({"pods": "2", "requests.cpu": "1", "configmaps": "2", "count/configmaps": "2", "services": "0"});
    world.fake.until::<ResourceQuota>(|quotas| used(quotas) == full).await;
    let (pods, maps): (Api<Pod>, Api<ConfigMap>) =
        (Api::namespaced(world.fake.client(), "ns"), Api::namespaced(world.fake.client(), "ns"));
    pods.delete("a", &Default::default()).await.unwrap();
    maps.delete("b", &Default::default()).await.unwrap();
    let less = json!({"pods": "1", "requests.cpu": "500m", "configmaps": "1", "count/configmaps": "1", "services": "0"});
    world.fake.until::<ResourceQuota>(|quotas| used(quotas) == less).await;
}

fn widgets(world: &World, version: &str) -> kube::Api<DynamicObject> {
    let [group, version, kind, plural] = ["example.com", version, "Widget", "widgets"].map(str::to_owned);
    let resource = ApiResource { api_version: format!("{group}/{version}"), group, version, kind, plural };
    kube::Api::namespaced_with(world.fake.client(), "ns", &resource)
}

/// What is not served counts as none, in whatever version it is served it is counted, and the rest of the quota follows meanwhile.
#[tokio::test]
async fn custom_resources_are_counted_in_the_version_that_is_served() {
    let world = World::new();
    let fake = &world.fake;
    fake.serve("", "v1", "resourcequotas", "ResourceQuota", true);
    fake.serve("example.com", "v1", "gadgets", "Gadget", true);
    fake.serve("example.com", "v1beta1", "widgets", "Widget", true);
    for name in ["a", "b"] {
        let widget = object(json!({"metadata": {"name": name}}));
        widgets(&world, "v1beta1").create(&Default::default(), &widget).await.unwrap();
    }
    let hard = json!({"count/widgets.example.com": "5", "configmaps": "5"});
    fake.put::<ResourceQuota>(&object(json!({"metadata": {"namespace": "ns", "name": "q"}, "spec": {"hard": hard}})));
    world.start(&["resourcequota"]);
    let shown = |widgets: &str, maps: &str| json!({"count/widgets.example.com": widgets, "configmaps": maps});
    fake.until::<ResourceQuota>(|quotas| used(quotas) == shown("2", "0")).await;
    fake.serve("example.com", "v1", "widgets", "Widget", true);
    fake.withdraw("example.com", "v1beta1", "widgets");
    widgets(&world, "v1").delete("a", &Default::default()).await.unwrap();
    fake.until::<ResourceQuota>(|quotas| used(quotas) == shown("1", "0")).await;
    fake.put::<ConfigMap>(&object(json!({"metadata": {"namespace": "ns", "name": "m"}})));
    fake.withdraw("example.com", "v1", "widgets");
    fake.until::<ResourceQuota>(|quotas| used(quotas) == shown("0", "1")).await;
}

/// A quota may come before what it counts, and is right as soon as that is served: it is not asked for again and again.
#[tokio::test]
async fn what_is_served_for_the_first_time_is_counted_at_once() {
    let world = World::new();
    let fake = &world.fake;
    fake.serve("", "v1", "resourcequotas", "ResourceQuota", true);
    let hard = json!({"count/widgets.example.com": "5"});
    fake.put::<ResourceQuota>(&object(json!({"metadata": {"namespace": "ns", "name": "q"}, "spec": {"hard": hard}})));
    world.start(&["resourcequota"]);
    let shown = |widgets: &str| json!({"count/widgets.example.com": widgets});
    fake.until::<ResourceQuota>(|quotas| used(quotas) == shown("0")).await;
    fake.serve("example.com", "v1", "widgets", "Widget", true);
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"}, "versions": []}});
    fake.put::<CustomResourceDefinition>(&object(definition));
    widgets(&world, "v1").create(&Default::default(), &object(json!({"metadata": {"name": "a"}}))).await.unwrap();
    let counted = fake.until::<ResourceQuota>(|quotas| used(quotas) == shown("1"));
    // Half the time after which it is asked again in any case.
    tokio::time::timeout(super::others::RETRY / 2, counted).await.unwrap();
}

/// The API server adds what is more, and the controller sees what is less.
#[tokio::test]
async fn what_becomes_less_is_given_back() {
    let world = World::new();
    world.fake.serve("", "v1", "resourcequotas", "ResourceQuota", true);
    let meta = |name: &str| json!({"namespace": "ns", "name": name});
    let service = |kind: &str| json!({"metadata": meta("s"), "spec": {"type": kind, "ports": [{"port": 80}]}});
    let pod = |spec: &str, status: &str| {
        let containers = json!([{"name": "c", "resources": {"requests": {"cpu": spec}}}]);
        let statuses = json!([{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "allocatedResources": {"cpu": status}}]);
        json!({"metadata": meta("p"), "spec": {"containers": containers}, "status": {"containerStatuses": statuses}})
    };
    world.fake.put::<Service>(&object(service("NodePort")));
    world.fake.put::<Pod>(&object(pod("2", "2")));
    let hard = json!({"requests.cpu": "2", "services.nodeports": "1"});
    world.fake.put::<ResourceQuota>(&object(json!({"metadata": meta("q"), "spec": {"hard": hard}})));
    world.start(&["resourcequota"]);
    let until = async |cpu: &str, ports: &str| {
        let expected = json!({"requests.cpu": cpu, "services.nodeports": ports});
        world.fake.until::<ResourceQuota>(|quotas| used(quotas) == expected).await;
    };
    until("2", "1").await;
    world.fake.put::<Service>(&object(service("ClusterIP")));
    until("2", "0").await;
    world.fake.put::<Pod>(&object(pod("1", "2")));
    world.fake.put::<Pod>(&object(pod("1", "1")));
    until("1", "0").await;
}

/// Upstream, evaluator/core/pods.go, QuotaV1Pod: "if pods are stuck terminating (for example, a node is lost), we do not want to charge the user". A
/// quota that is full would else stay so, and whatever takes the place of the pods of a lost node would not be made.
#[tokio::test]
async fn pods_of_lost_nodes_count_until_their_time_is_over() {
    let at = |time: &str| format!("2026-01-01T00:{time}Z").parse::<Timestamp>().unwrap();
    let world = World::new();
    world.fake.serve("", "v1", "resourcequotas", "ResourceQuota", true);
    let put = |name: &str, ends: Value| {
        let meta = json!({"namespace": "ns", "name": name, "deletionTimestamp": ends, "deletionGracePeriodSeconds": 30});
        world.fake.put::<Pod>(&object(json!({"metadata": meta, "spec": {"containers": []}})));
    };
    put("stays", Value::Null);
    put("first", json!(at("00:30")));
    put("second", json!(at("01:00")));
    let meta = json!({"namespace": "ns", "name": "q"});
    world.fake.put::<ResourceQuota>(&object(json!({"metadata": meta, "spec": {"hard": {"pods": "3"}}})));
    let options = world.options();
    let controller = ResourceQuotas::new(&options.informers, world.fake.client());
    controller.quotas.synced().await;
    controller.pods.synced().await;
    let spec = controller.quotas.list()[0].spec.clone().unwrap();
    for (now, pods, overdue) in
        [("00:00", 3, Some("01:00")), ("01:00", 3, Some("01:00")), ("01:01", 2, Some("01:30")), ("01:31", 1, None)]
    {
        let counted = controller.sized("ns", &spec, at(now));
        assert_eq!(counted.usage["pods"].to_string(), pods.to_string(), "{now}");
        assert_eq!(counted.overdue, overdue.map(at), "{now}");
    }
    let client = world.fake.client();
    let events = client::events::Recorder::new(client.clone(), "test", "", &world.tasks);
    let (cx, key) = (Cx { client, events, clock: Clock::held(at("00:00")) }, Key::namespaced("ns", "q"));
    assert_eq!(controller.reconcile(&cx, &key).await.unwrap(), Action::After(Duration::from_secs(61)));

    // Who begins to end later has it looked at, too.
    let queue = Queue::new("test", RETRY_MAX);
    let feed = (controller.ending().feed)(queue.clone());
    put("stays", json!(at("02:00")));
    tokio::select! {
        () = feed => panic!("it follows for ever"),
        next = queue.next() => assert_eq!(next, key),
    }
}

/// `kubectl delete --grace-period=30` after a deletion with an hour: the pod of a lost node counts no longer than it was to be there.
#[test]
fn deletions_that_begin_or_become_shorter() {
    let pod = |ends: &str, grace: i64| {
        let ends = Some(format!("2026-01-01T{ends}Z")).filter(|_| !ends.is_empty());
        let meta = json!({"namespace": "ns", "name": "p", "deletionTimestamp": ends, "deletionGracePeriodSeconds": ends.as_ref().map(|_| grace)});
        Entry::<Pod>::of_json(json!({"metadata": meta, "spec": {"containers": []}}).to_string()).unwrap()
    };
    #[track_caller]
    fn check(old: Option<&Entry<Pod>>, new: Option<&Entry<Pod>>, expected: bool) {
        assert_eq!(super::ends_sooner(old, new), expected);
    }
    let (stays, hour, soon) = (pod("", 0), pod("01:00:00", 3600), pod("00:10:00", 30));
    check(Some(&stays), Some(&hour), true);
    check(None, Some(&hour), true);
    check(Some(&hour), Some(&soon), true);
    check(Some(&hour), Some(&hour), false);
    check(Some(&soon), Some(&hour), false);
    check(Some(&stays), Some(&stays), false);
    check(Some(&hour), None, false);
}

/// The status of a pod changes often: it is decoded only where its amounts are written in another way.
#[test]
fn what_is_decoded_for_a_resize() {
    let pod = |asks: &str, has: &str, condition: &str, ip: &str| {
        let resources = json!({"requests": {"cpu": asks}});
        let status = json!([{"name": "c", "allocatedResources": {"cpu": has}, "resources": {"requests": {"cpu": has}}}]);
        let conditions = json!([{"type": "PodResizePending", "status": "True", "reason": condition}]);
        let whole = json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]},
            "status": {"podIP": ip, "conditions": conditions, "containerStatuses": status}});
        Entry::<Pod>::of_json(whole.to_string()).unwrap()
    };
    let old = pod("2", "2", "Deferred", "10.0.0.1");
    let check = |new: &Entry<Pod>, expected: bool| assert_eq!(super::may_be_resized(&old, new), expected);
    check(&pod("2", "2", "Deferred", "10.0.0.2"), false);
    check(&pod("1", "2", "Deferred", "10.0.0.1"), true);
    check(&pod("2", "1", "Deferred", "10.0.0.1"), true);
    check(&pod("2", "2", "Infeasible", "10.0.0.1"), true);
    let quota = |name: &str| object::<ResourceQuota>(json!({"metadata": {"name": "q"}, "spec": {"hard": {name: "1"}}}));
    for (name, expected) in [
        ("pods", false),
        ("count/pods", false),
        ("services", false),
        ("requests.storage", false),
        ("cpu", true),
        ("limits.memory", true),
        ("requests.example.com/card", true),
        ("hugepages-2Mi", true),
    ] {
        assert_eq!(super::counts_amounts(&quota(name)), expected, "{name}");
    }
}
