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
    // Nobody is driven out before it is the node's turn.
    let kept = plan::taints(&node(Some("False"), json!({})), false, at(0)).unwrap();
    assert_eq!(kept.iter().map(|taint| taint.effect.as_str()).collect::<Vec<_>>(), ["NoSchedule"]);
}

/// Tolerations of the taint `k` for so many seconds, none of them where `seconds` is empty; null has no end.
fn tolerations(seconds: &[Option<i64>]) -> Value {
    let each =
        |seconds: &Option<i64>| json!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
    seconds.iter().map(each).collect()
}

#[test]
fn pods_go_after_what_they_tolerate() {
    let check = |seconds: &[Option<i64>], second: u64, expected: Option<u64>| {
        let taints = json!([{"key": "k", "effect": "NoExecute"}]);
        let pod: Pod =
            object(json!({"metadata": {"name": "p"}, "spec": {"containers": [], "tolerations": tolerations(seconds)}}));
        let (since, now) = (Duration::from_secs(5000), Duration::from_secs(5000 + second));
        let left = plan::eviction_in(&pod, &node(Some("False"), json!({"taints": taints})), |_| since, now);
        assert_eq!(left.map(|left| left.as_secs()), expected, "{seconds:?} at {second}");
    };
    check(&[], 0, Some(0));
    check(&[None], 1000, None);
    check(&[Some(300)], 100, Some(200));
    check(&[Some(300), Some(60)], 100, Some(0));
    // Users may write any number: none and less are at once, and what no clock reaches is for ever.
    check(&[Some(0)], 0, Some(0));
    check(&[Some(-1)], 0, Some(0));
    check(&[Some(i64::MIN)], 0, Some(0));
    check(&[Some(i64::MAX)], 0, None);
    check(&[Some(i64::MAX / 1000 + 1)], 0, None);
    check(&[Some(i64::from(i32::MAX))], 0, Some(i32::MAX.unsigned_abs().into()));
}

/// Upstream's taint eviction counts from when it saw the pod beside the taint, whatever time the taint has.
#[test]
fn time_counts_from_when_this_process_saw_it() {
    let taint = |key: &str| json!({"key": key, "effect": "NoExecute", "timeAdded": at(-1_000_000)});
    let pod = |name: &str| -> Arc<Pod> { Arc::new(object(json!({"metadata": {"name": name, "uid": name}}))) };
    let mut seen = Seen::default();
    let mut look = |second: u64, taints: &[&str], pods: &[&str], expected: &[(&str, &str, u64)]| {
        let node = node(Some("True"), json!({"taints": taints.iter().map(|key| taint(key)).collect::<Vec<_>>()}));
        let pods: Vec<_> = pods.iter().map(|name| pod(name)).collect();
        seen.look(&node, &pods, Duration::from_secs(second));
        for (name, key, since) in expected {
            let taint = plan::evicting(&node).find(|taint| taint.key == *key).unwrap();
            assert_eq!(seen.since(&pod(name), taint), Some(Duration::from_secs(*since)), "{name} {key} at {second}");
        }
    };
    look(100, &["k"], &["a"], &[("a", "k", 100)]);
    look(200, &["k", "l"], &["a", "b"], &[("a", "k", 100), ("a", "l", 200), ("b", "k", 200)]);
    // A taint that goes and comes counts anew.
    look(300, &["l"], &["a", "b"], &[("a", "l", 200)]);
    look(400, &["k", "l"], &["a", "b"], &[("a", "k", 400), ("b", "l", 200)]);
}

/// After a restart, or a jump of the clock, nobody is evicted for the time before.
#[tokio::test]
async fn a_taint_that_was_there_before_gives_time() {
    let mut world = World::new();
    world.clock = crate::Clock::held(at(0));
    world.fake.put(&node(Some("True"), json!({"taints": [{"key": "k", "effect": "NoExecute", "timeAdded": at(-1_000_000)}]})));
    for (name, seconds) in [("tolerates", Some(300)), ("witness", None)] {
        let seconds: Vec<Option<i64>> = seconds.into_iter().map(Some).collect();
        world.fake.put::<Pod>(&object(json!({
            "metadata": {"namespace": "a", "name": name, "uid": name},
            "spec": {"nodeName": "n", "containers": [], "tolerations": tolerations(&seconds)},
        })));
    }
    world.start(&["node-lifecycle"]);
    world.fake.until::<Pod>(|pods| pods.iter().map(meta::name).eq(["tolerates"])).await;
    world.clock.set(at(300));
    let touched = Patch::Merge(json!({"metadata": {"labels": {"touched": "yes"}}}));
    Api::<Node>::all(world.fake.client()).patch("n", &PatchParams::default(), &touched).await.unwrap();
    world.fake.until::<Pod>(<[Pod]>::is_empty).await;
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

/// A user may write into a pod what no clock reaches, and may make the time of one that runs shorter.
#[tokio::test]
async fn tolerations_are_looked_at_when_they_change() {
    let world = World::new();
    world.fake.put(&node(Some("True"), json!({"taints": [{"key": "k", "effect": "NoExecute", "timeAdded": at(0)}]})));
    let pod = |name: &str, seconds: i64| -> Pod {
        object(json!({
            "metadata": {"namespace": "a", "name": name, "uid": name},
            "spec": {"nodeName": "n", "containers": [], "tolerations": tolerations(&[Some(seconds)])},
        }))
    };
    for (name, seconds) in [("ever", i64::MAX), ("goes", 1), ("long", 1_000_000_000)] {
        world.fake.put(&pod(name, seconds));
    }
    world.start(&["node-lifecycle"]);
    let until = async |names: &[&str]| {
        world.fake.until::<Pod>(|pods| pods.iter().map(meta::name).eq(names.iter().copied())).await;
    };
    until(&["ever", "long"]).await;
    world.fake.put(&pod("long", 1));
    until(&["ever"]).await;
}

/// A node of that name, with the taints that drive pods away where `left`.
fn named(name: &str, ready: &str, left: bool) -> Node {
    let taints = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]);
    let mut node = node(Some(ready), json!({"taints": if left { taints } else { json!([]) }}));
    node.metadata.name = Some(name.to_owned());
    node.metadata.uid = Some(name.to_owned());
    node
}

/// How many nodes keep new pods away, and how many drive out those that they have.
fn tainted(nodes: &[Node]) -> (usize, usize) {
    let with = |node: &Node, effect: &str| {
        node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|one| one.effect == effect)
    };
    let count = |effect: &str| nodes.iter().filter(|node| with(node, effect)).count();
    (count("NoSchedule"), count("NoExecute"))
}

/// "Nodes", "Rate limits on eviction": "it won't evict pods from more than 1 node per 10 seconds".
#[tokio::test]
async fn nodes_that_fail_together_are_left_one_after_the_other() {
    let mut world = World::new();
    world.clock = crate::Clock::held(at(0));
    for (name, ready) in [("a", "False"), ("b", "False"), ("c", "True"), ("d", "True")] {
        world.fake.put(&named(name, ready, false));
    }
    world.start(&["node-lifecycle"]);
    world.fake.until::<Node>(|nodes| tainted(nodes) == (2, 1)).await;
    world.clock.set(at(10));
    let api = Api::<Node>::all(world.fake.client());
    for name in ["a", "b"] {
        let touched = Patch::Merge(json!({"metadata": {"labels": {"touched": "yes"}}}));
        api.patch(name, &PatchParams::default(), &touched).await.unwrap();
    }
    world.fake.until::<Node>(|nodes| tainted(nodes) == (2, 2)).await;
}

/// The same, without anything else that happens: the next one's turn is waited for.
#[tokio::test]
async fn who_is_next_is_looked_at_when_another_has_left() {
    let world = World::new();
    for (name, ready) in [("a", "False"), ("b", "False"), ("c", "True"), ("d", "True")] {
        world.fake.put(&named(name, ready, false));
    }
    let controller = NodeLifecycle::new(&world.options().informers);
    let queue = Queue::new("lines", Duration::from_secs(1));
    controller.queue.get_or_init(|| queue.clone());
    for name in ["a", "b"] {
        controller.lines.lock().turn(name, "", Duration::ZERO);
    }
    controller.leave_line("a");
    assert_eq!(queue.next().await, Key::cluster("b"));
}

/// "when all zones are completely unhealthy (none of the nodes in the cluster are healthy) [...] the node controller [...] doesn't perform any evictions", and
/// what it has begun is taken back. A small zone of which most nodes fail is not left, either.
#[tokio::test]
async fn nobody_is_driven_out_when_most_nodes_fail() {
    let check = async |nodes: &[(&str, bool)], kept_away: usize, driven_out: usize| {
        let world = World::new();
        for (number, (ready, left)) in nodes.iter().enumerate() {
            world.fake.put(&named(&number.to_string(), ready, *left));
        }
        world.start(&["node-lifecycle"]);
        world.fake.until::<Node>(|nodes| tainted(nodes) == (kept_away, driven_out)).await;
    };
    check(&[("Unknown", true), ("False", false)], 2, 0).await;
    check(&[("Unknown", true), ("False", false), ("False", false), ("True", false)], 3, 1).await;
    check(&[("Unknown", false), ("False", false), ("False", false), ("True", false)], 3, 0).await;
    check(&[("Unknown", false), ("True", false), ("True", false)], 1, 1).await;
}

/// Upstream, `RecordNodeEvent`: `kubectl describe node` shows when the controller began to know a node.
#[tokio::test]
async fn nodes_come_and_go_with_events() {
    let world = World::new();
    world.fake.put::<Node>(&object(json!({"metadata": {"name": "n", "uid": "u"}})));
    world.start(&["node-lifecycle"]);
    let told = |reason: &'static str, message: &'static str| {
        move |events: &[k8s_openapi::api::core::v1::Event]| {
            let is_it = |event: &&k8s_openapi::api::core::v1::Event| {
                event.reason.as_deref() == Some(reason) && event.message.as_deref() == Some(message)
            };
            events.iter().filter(is_it).any(|event| event.involved_object.uid.as_deref() == Some("u"))
        }
    };
    world.fake.until(told("RegisteredNode", "Node n event: Registered Node n in Controller")).await;
    let api: Api<Node> = Api::all(world.fake.client());
    api.delete("n", &Default::default()).await.unwrap();
    world.fake.until(told("RemovingNode", "Node n event: Removing Node n from Controller")).await;
}
