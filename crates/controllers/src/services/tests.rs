#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Node};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::slices::{Change, Frame};
use super::*;
use crate::testing::{World, object};

fn service(more: Value) -> Service {
    let mut spec = json!({"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "web"}]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    object(json!({"metadata": {"namespace": "a", "name": "web", "uid": "s"}, "spec": spec}))
}

fn pod(number: usize, ready: bool, port: i32) -> Arc<Pod> {
    let status = if ready { "True" } else { "False" };
    Arc::new(object(json!({
        "metadata": {"namespace": "a", "name": format!("p{number}"), "uid": format!("u{number}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "hostname": "h", "subdomain": "web",
                 "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIP": format!("10.1.0.{number}"),
                   "podIPs": [{"ip": format!("10.1.0.{number}")}, {"ip": format!("fd00::{number}")}],
                   "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    })))
}

fn shown(slice: &EndpointSlice) -> String {
    let endpoints = slice.endpoints.iter().flatten().map(|one| {
        let ready = if one.conditions.as_ref().unwrap().ready == Some(true) { "" } else { "!" };
        format!("{ready}{}", one.addresses[0])
    });
    let ports = slice.ports.iter().flatten().map(|port| port.port.unwrap().to_string());
    format!("{}[{}]:{}", slice.address_type, endpoints.collect::<Vec<_>>().join(" "), ports.collect::<Vec<_>>().join(","))
}

fn frame(limit: usize) -> Frame {
    let owner = crate::meta::controller_ref(&service(json!({})));
    Frame { namespace: "a".into(), name: "web".into(), labels: BTreeMap::new(), annotations: None, owner, limit }
}

fn check(service: &Service, pods: &[Arc<Pod>], existing: &[Arc<EndpointSlice>], expected: &str) -> Vec<Arc<EndpointSlice>> {
    let groups = endpointslices::groups(service, pods, |_| Some(None));
    let changes = slices::plan(&frame(2), existing, groups);
    let each = changes.iter().map(|change| match change {
        Change::Create(slice) => format!("+{}", shown(slice)),
        Change::Update(slice) => format!("={}", shown(slice)),
        Change::Delete(slice) => format!("-{}", shown(slice)),
    });
    assert_eq!(each.collect::<Vec<_>>().join(" | "), expected);
    let mut result = Vec::new();
    for (index, change) in changes.into_iter().enumerate() {
        if let Change::Create(mut slice) | Change::Update(mut slice) = change {
            slice.metadata.name = Some(format!("web-{index}"));
            slice.metadata.labels = Some(BTreeMap::new());
            result.push(Arc::from(slice));
        }
    }
    result
}

#[test]
fn slices_follow_pods_with_few_writes() {
    let s = service(json!({}));
    let p = |number| pod(number, true, 8080);
    check(&s, &[], &[], "+IPv4[]:");
    let first = check(&s, &[p(1), pod(2, false, 8080), p(3)], &[], "+IPv4[10.1.0.1 !10.1.0.2]:8080 | +IPv4[10.1.0.3]:8080");
    check(&s, &[p(1), pod(2, false, 8080), p(3)], &first, "");
    check(&s, &[p(1), p(2), p(3)], &first, "=IPv4[10.1.0.1 10.1.0.2]:8080");
    // The freed place is used before another slice is touched.
    check(&s, &[p(1), p(3), p(4)], &first, "=IPv4[10.1.0.1 10.1.0.4]:8080");
    check(&s, &[p(3)], &first, "-IPv4[10.1.0.1 !10.1.0.2]:8080");
    check(&s, &[pod(1, true, 9090)], &first, "+IPv4[10.1.0.1]:9090 | -IPv4[10.1.0.1 !10.1.0.2]:8080 | -IPv4[10.1.0.3]:8080");
    let dual = service(json!({"ipFamilies": ["IPv4", "IPv6"]}));
    check(&dual, &[p(1)], &[], "+IPv4[10.1.0.1]:8080 | +IPv6[fd00::1]:8080");
    check(&service(json!({"publishNotReadyAddresses": true})), &[pod(1, false, 1)], &[], "+IPv4[10.1.0.1]:1");
}

/// Slices that mirror Endpoints have their annotations, and no others; those of other slices are nobody's.
#[test]
fn annotations_follow_those_of_endpoints() {
    let all = |names: &[&str]| -> BTreeMap<String, String> { names.iter().map(|name| ((*name).into(), "x".into())).collect() };
    let check = |wanted: Option<&[&str]>, there: &[&str], expected: Option<&[&str]>| {
        let groups = || endpointslices::groups(&service(json!({})), &[pod(1, true, 8080)], |_| Some(None));
        let Change::Create(mut slice) = slices::plan(&frame(2), &[], groups()).remove(0) else { panic!("a slice is made") };
        slice.metadata.annotations = Some(all(there)).filter(|all| !all.is_empty());
        let frame = Frame { annotations: wanted.map(all), ..frame(2) };
        let changes = slices::plan(&frame, &[Arc::from(slice)], groups());
        let changed = changes.first().map(|change| match change {
            Change::Update(slice) => slice.metadata.annotations.clone().unwrap_or_default(),
            other => panic!("{other:?}"),
        });
        assert_eq!(changed, expected.map(all), "{wanted:?} {there:?}");
    };
    check(Some(&["a"]), &["a"], None);
    check(Some(&["a"]), &["a", "b"], Some(&["a"]));
    check(Some(&[]), &["b"], Some(&[]));
    check(Some(&[]), &[], None);
    check(Some(&["a"]), &[triggers::ANNOTATION, "b"], Some(&["a", triggers::ANNOTATION]));
    check(Some(&["a"]), &[triggers::ANNOTATION, "a"], None);
    check(None, &["b"], None);
}

#[test]
fn subsets_share_ports() {
    let pods = [pod(2, true, 8080), pod(1, true, 8080), pod(3, false, 8080), pod(4, true, 9090)];
    let (subsets, truncated) = endpoints::subsets(&service(json!({})), &pods);
    let shown = subsets.iter().map(|subset| {
        let list = |all: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
            all.iter().flatten().map(|one| one.ip.clone()).collect::<Vec<_>>().join(" ")
        };
        let port = subset.ports.as_ref().unwrap()[0].port;
        format!("{port}: {} / {}", list(&subset.addresses), list(&subset.not_ready_addresses))
    });
    assert_eq!(shown.collect::<Vec<_>>(), ["8080: 10.1.0.1 10.1.0.2 / 10.1.0.3", "9090: 10.1.0.4 / "]);
    assert!(!truncated);
}

#[tokio::test]
async fn services_get_endpoints_and_users_endpoints_get_slices() {
    let world = World::new();
    world.fake.put(&service(json!({})));
    world.fake.put(pod(1, true, 8080).as_ref());
    world.fake.put::<Node>(&object(json!({"metadata": {"name": "n"}})));
    world.fake.put::<Service>(&object(json!({"metadata": {"namespace": "a", "name": "manual", "uid": "m"}, "spec": {}})));
    world.fake.put::<Endpoints>(&object(json!({
        "metadata": {"namespace": "a", "name": "manual", "uid": "e"},
        "subsets": [{"addresses": [{"ip": "1.2.3.4"}], "ports": [{"port": 80}]}],
    })));
    world.start(&["endpoints", "endpointslice", "endpointslicemirroring"]);
    world.fake.until::<Endpoints>(|all| all.iter().any(|one| crate::meta::name(one) == "web" && one.subsets.is_some())).await;
    let has = |slices: &[EndpointSlice], expected: &str| slices.iter().any(|slice| shown(slice) == expected);
    world.fake.until::<EndpointSlice>(|slices| has(slices, "IPv4[10.1.0.1]:8080") && has(slices, "IPv4[1.2.3.4]:80")).await;
}

/// kubernetes#110639: "update the EndpointSlice without the Pods that reference non-existing Nodes, and keep retrying until all Pods reference
/// existing Nodes. However, if service.Spec.PublishNotReadyAddresses is set, all the Pods are published".
#[tokio::test]
async fn pods_without_their_node_are_left_out() {
    let world = World::new();
    let node: Node = object(json!({"metadata": {"name": "n"}}));
    let mut all = service(json!({"publishNotReadyAddresses": true}));
    (all.metadata.name, all.metadata.uid) = (Some("all".into()), Some("all".into()));
    world.fake.put(&service(json!({})));
    world.fake.put(&all);
    world.fake.put(pod(1, true, 8080).as_ref());
    world.start(&["endpointslice"]);
    let until = async |web: &str| {
        let is = |slices: &[EndpointSlice], name: &str, expected: &str| {
            let mut of = slices.iter().filter(|slice| slice.metadata.labels.as_ref().unwrap()[slices::SERVICE_NAME] == name);
            of.next().is_some_and(|slice| shown(slice) == expected) && of.next().is_none()
        };
        let there = |slices: &[EndpointSlice]| is(slices, "web", web) && is(slices, "all", "IPv4[10.1.0.1]:8080");
        world.fake.until::<EndpointSlice>(there).await;
    };
    until("IPv4[]:").await;
    world.fake.put(&node);
    until("IPv4[10.1.0.1]:8080").await;
    let nodes: client::Api<Node> = client::Api::all(world.fake.client());
    nodes.delete("n", &Default::default()).await.unwrap();
    until("IPv4[]:").await;
}

/// Changes are told as what came of them: who was told of a node and then of another one of its name has not seen that there was none.
#[test]
fn services_are_looked_at_when_a_node_comes_goes_or_is_another_one() {
    let check = |old: Option<&str>, new: Option<&str>, expected: bool| {
        let node = |uid: &str| object::<Node>(json!({"metadata": {"name": "n", "uid": uid}}));
        let (old, new) = (old.map(node), new.map(node));
        assert_eq!(endpointslices::is_another(old.as_ref(), new.as_ref()), expected, "{old:?} {new:?}");
    };
    check(None, Some("a"), true);
    check(Some("a"), None, true);
    check(Some("a"), Some("b"), true);
    check(Some("a"), Some("a"), false);
}

#[test]
fn traffic_stays_near_when_it_should() {
    let check = |wish: Value, ready: bool, expected: &str| {
        let groups = endpointslices::groups(&service(json!({"trafficDistribution": wish})), &[pod(1, ready, 80)], |_| {
            Some(Some("z".into()))
        });
        let hints = groups["IPv4"][0].endpoints[0].hints.clone();
        let shown = hints.map(|hints| {
            let zones = hints.for_zones.into_iter().flatten().map(|zone| zone.name);
            let nodes = hints.for_nodes.into_iter().flatten().map(|node| node.name);
            zones.chain(nodes).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(shown.unwrap_or_default(), expected);
    };
    check(json!(null), true, "");
    check(json!("PreferClose"), true, "z");
    check(json!("PreferSameZone"), true, "z");
    check(json!("PreferSameNode"), true, "z n");
    check(json!("PreferSameNode"), false, "");
}
