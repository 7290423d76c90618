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
        let taints = plan::taints(&node, at(0)).map(|taints| {
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
}

#[test]
fn pods_go_after_what_they_tolerate() {
    let check = |tolerations: Value, second: i64, expected: Option<u64>| {
        let taints = json!([{"key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]);
        let pod: Pod = object(json!({"metadata": {"name": "p"}, "spec": {"containers": [], "tolerations": tolerations}}));
        let left = plan::eviction_in(&pod, &node(Some("False"), json!({"taints": taints})), at(second));
        assert_eq!(left.map(|left| left.as_secs()), expected);
    };
    let toleration =
        |seconds: Value| json!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
    check(json!([]), 0, Some(0));
    check(json!([toleration(json!(null))]), 1000, None);
    check(json!([toleration(json!(300))]), 100, Some(200));
    check(json!([toleration(json!(300)), toleration(json!(60))]), 100, Some(0));
}

#[test]
fn silence_makes_conditions_unknown_once() {
    let mut node = node(Some("True"), json!({}));
    assert_eq!(plan::reported(&node, Some(at(30))), at(30));
    let conditions = plan::unknown_conditions(&node, at(41)).unwrap();
    assert_eq!((conditions.len(), conditions[0].reason.as_deref()), (4, Some("NodeStatusUnknown")));
    assert_eq!(conditions[1].reason.as_deref(), Some("NodeStatusNeverUpdated"));
    node.status.as_mut().unwrap().conditions = Some(conditions);
    assert_eq!(plan::unknown_conditions(&node, at(42)), None);
}

#[tokio::test]
async fn a_node_that_is_not_ready_loses_its_pods() {
    let world = World::new();
    world.fake.put(&node(Some("False"), json!({})));
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
