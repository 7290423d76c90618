#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::testing::{World, object};

fn node(ready: Option<&str>, more: Value) -> Node {
    let conditions =
        ready.map(|status| json!([{"type": "Ready", "status": status, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]));
    object(json!({
        "metadata": {"name": "n", "uid": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": more, "status": {"conditions": conditions},
    }))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap().as_second() + second).unwrap()
}

#[test]
fn taints_follow_conditions() {
    let check = |node: Node, expected: &str| {
        let taints = plan::taints(&node, true, at(0)).map(|taints| {
            let each =
                taints.iter().map(|taint| format!("{}:{}", taint.key.trim_start_matches("node.kubernetes.io/"), taint.effect));
            each.collect::<Vec<_>>().join(" ")
        });
        assert_eq!(taints.as_deref().unwrap_or("same"), expected);
    };
    check(node(Some("True"), json!({})), "same");
    check(node(Some("False"), json!({})), "not-ready:NoSchedule not-ready:NoExecute");
    check(node(Some("Unknown"), json!({})), "unreachable:NoSchedule unreachable:NoExecute");
    check(node(None, json!({})), "not-ready:NoSchedule");
    check(node(Some("True"), json!({"unschedulable": true})), "unschedulable:NoSchedule");
    let mixed = json!([{"key": "mine", "effect": "NoSchedule"}, {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]);
    check(node(Some("True"), json!({"taints": mixed})), "mine:NoSchedule");
    // Where no node is ready, nobody is driven out.
    let kept = plan::taints(&node(Some("False"), json!({})), false, at(0)).unwrap();
    assert_eq!(kept.iter().map(|taint| taint.effect.as_str()).collect::<Vec<_>>(), ["NoSchedule"]);
}

#[test]
fn pods_go_after_what_they_tolerate() {
    let check = |tolerations: Value, second: i64, expected: Option<u64>| {
        let taints = json!([{"key": "k", "effect": "NoExecute"}]);
        let pod: Pod = object(json!({"metadata": {"name": "p", "creationTimestamp": at(-50)},
            "spec": {"containers": [], "tolerations": tolerations}}));
        // The taint was there before the pod when `second` is negative.
        let since = |_: &Taint| if second < 0 { at(-100) } else { at(0) };
        let left = plan::eviction_in(&pod, &node(Some("False"), json!({"taints": taints})), since, at(second));
        assert_eq!(left.map(|left| left.as_secs()), expected);
    };
    let toleration =
        |seconds: Value| json!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
    check(json!([]), 0, Some(0));
    check(json!([toleration(json!(null))]), 1000, None);
    check(json!([toleration(json!(300))]), 100, Some(200));
    check(json!([toleration(json!(300)), toleration(json!(60))]), 100, Some(0));
    check(json!([toleration(json!(300))]), -10, Some(260));
}

#[test]
fn silence_makes_conditions_unknown_once() {
    let mut node = node(Some("True"), json!({}));
    let conditions = plan::unknown_conditions(&node, at(41)).unwrap();
    assert_eq!((conditions.len(), conditions[0].reason.as_deref()), (4, Some("NodeStatusUnknown")));
    assert_eq!(conditions[1].reason.as_deref(), Some("NodeStatusNeverUpdated"));
    node.status.as_mut().unwrap().conditions = Some(conditions);
    assert_eq!(plan::unknown_conditions(&node, at(42)), None);
}

/// A lease that a node has renewed, by a clock that is years behind.
fn renewal(second: u32) -> Lease {
    object(
        json!({"metadata": {"namespace": LEASES, "name": "n"}, "spec": {"renewTime": format!("2001-01-01T00:00:{second:02}.000000Z")}}),
    )
}

/// The clocks of nodes need not agree with the server's: what counts is when a renewal is seen.
#[test]
fn a_node_is_silent_when_nothing_is_heard_of_it() {
    let (heard, start) = (Heard::default(), Instant::now());
    let at = |second: u64| start + Duration::from_secs(second);
    let key = || Key::cluster("n");
    let lease = |old: Option<Lease>, new: Option<Lease>| Change { key: key(), old: old.map(Arc::new), new: new.map(Arc::new) };
    let check = |second: u64, expected: u64| assert_eq!(heard.silence("n", at(second)).as_secs(), expected, "at {second} s");
    check(5, 0);
    let there = node(Some("True"), json!({}));
    heard.node(&Change { key: key(), old: None, new: Some(Arc::new(there.clone())) }, at(10));
    check(15, 5);
    heard.lease(&lease(None, Some(renewal(0))), true, at(20));
    heard.lease(&lease(Some(renewal(0)), Some(renewal(10))), true, at(30));
    check(35, 5);
    // Somebody else writes to the lease, or to the node: that is nothing of the node.
    heard.lease(&lease(Some(renewal(10)), Some(renewal(10))), true, at(40));
    let cordoned = Node { spec: None, ..there.clone() };
    heard.node(&Change { key: key(), old: Some(Arc::new(there.clone())), new: Some(Arc::new(cordoned)) }, at(40));
    check(45, 15);
    heard.node(&Change { key: key(), old: Some(Arc::new(there)), new: None }, at(50));
    heard.lease(&lease(Some(renewal(10)), Some(renewal(20))), false, at(51));
    heard.lease(&lease(Some(renewal(20)), None), false, at(52));
    assert!(heard.0.lock().is_empty());
}

/// Another node, which is ready: there is a better place.
fn other_node() -> Node {
    let mut other = node(Some("True"), json!({}));
    other.metadata.name = Some("other".to_owned());
    other.metadata.uid = Some("other".to_owned());
    other
}

/// Only the controller's own taints say when they were added.
#[tokio::test]
async fn a_taint_without_a_time_counts_from_when_it_was_seen() {
    let world = World::new();
    let tainted = json!({"taints": [{"key": "k", "effect": "NoExecute"}]});
    world.fake.put(&node(Some("True"), tainted));
    world.fake.put::<Lease>(&object(json!({"metadata": {"namespace": LEASES, "name": "n"},
        "spec": {"renewTime": "2100-01-01T00:00:00.000000Z"}})));
    let soon = json!([{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]);
    world.fake.put::<Pod>(&object(json!({
        "metadata": {"namespace": "a", "name": "p", "uid": "p"},
        "spec": {"nodeName": "n", "containers": [], "tolerations": soon},
    })));
    world.start(&["node-lifecycle"]);
    world.fake.until::<Pod>(<[Pod]>::is_empty).await;
}

#[tokio::test]
async fn a_node_that_is_not_ready_loses_its_pods() {
    let world = World::new();
    world.fake.put(&node(Some("False"), json!({})));
    world.fake.put(&other_node());
    for (name, tolerations) in [("goes", json!([])), ("stays", json!([{"operator": "Exists"}]))] {
        world.fake.put::<Pod>(&object(json!({
            "metadata": {"namespace": "a", "name": name, "uid": name},
            "spec": {"nodeName": "n", "containers": [], "tolerations": tolerations},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        })));
    }
    world.start(&["node-lifecycle"]);
    world.fake.until::<Pod>(|pods| pods.len() == 1 && meta::name(&pods[0]) == "stays" && !pods::is_ready(&pods[0])).await;
}
