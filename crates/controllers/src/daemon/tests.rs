#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::testing::{World, object};

const NEW: &str = "new";

fn set(strategy: Value, spec: Value) -> DaemonSet {
    let mut pod = json!({"containers": [{"name": "c", "image": "a"}]});
    pod.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object(json!({
        "metadata": {"namespace": "a", "name": "agent", "uid": "agent-uid", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "updateStrategy": strategy, "minReadySeconds": 10,
                 "template": {"metadata": {"labels": {"app": "agent"}}, "spec": pod}},
    }))
}

fn rolling(unavailable: Value, surge: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}})
}

fn node(name: &str, taints: Value) -> Arc<Node> {
    Arc::new(object(json!({"metadata": {"name": name, "labels": {"kind": name}}, "spec": {"taints": taints}})))
}

/// A pod named `NODE-HASH-STATE`.
fn pod(node: &str, hash: &str, state: &str) -> Arc<Pod> {
    let phase = match state {
        "failed" => "Failed",
        "succeeded" => "Succeeded",
        "waiting" => "Pending",
        _ => "Running",
    };
    let since = if state == "fresh" { "2026-01-01T00:00:55Z" } else { "2026-01-01T00:00:00Z" };
    let ready = if matches!(state, "ready" | "fresh") { "True" } else { "False" };
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
        [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}}});
    let bound = if state == "waiting" { "" } else { node };
    Arc::new(object(json!({
        "metadata": {"namespace": "a", "name": format!("{node}-{hash}-{state}"), "uid": format!("{node}{hash}{state}"),
                     "labels": {"app": "agent", HASH: hash}, "deletionTimestamp": (state == "ending").then_some("2026-01-01T00:00:00Z")},
        "spec": {"nodeName": bound, "affinity": affinity, "containers": []},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]},
    })))
}

fn show(plan: Plan) -> String {
    let creations = plan.create.iter().map(|node| format!("+{node}"));
    let deletions = plan.delete.iter().map(|delete| {
        let why = match delete.why {
            Why::Surplus => "",
            Why::Failed => "!",
            Why::Succeeded => ".",
        };
        format!("-{}{why}", meta::name(delete.pod.as_ref()))
    });
    let after = plan.after.map(|after| format!("@{}", after.as_secs()));
    creations.chain(deletions).chain(after).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check(strategy: &Value, nodes: &[&str], pods: &[(&str, &str, &str)], expected: &str) {
    let set = set(strategy.clone(), json!({"nodeSelector": null}));
    // The pod of a node whose name begins with x failed a moment ago.
    let nodes: Vec<_> = nodes.iter().map(|name| node(name, json!([]))).collect();
    let pods: Vec<_> = pods.iter().map(|(node, hash, state)| pod(node, hash, state)).collect();
    let wait = |node: &str| node.starts_with('x').then_some(Duration::from_secs(3));
    let now = "2026-01-01T00:01:00Z".parse().unwrap();
    let observed = Observed { set: &set, nodes: &nodes, pods: &pods, hash: NEW, wait: &wait, now };
    assert_eq!(show(plan::plan(&observed)), expected, "{strategy} {pods:?}");
}

#[test]
fn every_node_has_one_pod() {
    let one = rolling(json!(1), json!(0));
    check(&one, &["a", "b"], &[], "+a +b");
    check(&one, &["a", "b"], &[("a", NEW, "ready")], "+b");
    check(&one, &["a"], &[("a", NEW, "waiting")], "");
    // The place of a pod that goes is filled when it is gone.
    check(&one, &["a"], &[("a", NEW, "ending")], "");
    check(&one, &["a"], &[("a", NEW, "ready"), ("a", NEW, "not")], "-a-new-ready");
    check(&one, &["a"], &[("a", NEW, "failed")], "-a-new-failed!");
    check(&one, &["x"], &[("x", NEW, "failed")], "@3");
    check(&one, &["a"], &[("a", NEW, "succeeded")], "-a-new-succeeded.");
    // A node that is gone: the collector of pods removes what was bound to it.
    check(&one, &[], &[("a", NEW, "ready")], "");
    check(&one, &[], &[("a", NEW, "waiting")], "-a-new-waiting");
}

#[test]
fn old_pods_are_deleted_up_to_a_bound() {
    let (one, half) = (rolling(json!(1), json!(0)), rolling(json!("50%"), json!(0)));
    let nodes = ["a", "b", "c"];
    let old = [("a", "old", "ready"), ("b", "old", "ready"), ("c", "old", "ready")];
    check(&one, &nodes, &old, "-a-old-ready");
    check(&half, &nodes, &old, "-a-old-ready -b-old-ready");
    check(&json!({"type": "OnDelete"}), &nodes, &old, "");
    check(&one, &nodes, &[("a", NEW, "not"), old[1], old[2]], "");
    check(&one, &nodes, &[("a", NEW, "fresh"), old[1], old[2]], "@5");
    check(&one, &nodes, &[("a", NEW, "ready"), old[1], old[2]], "-b-old-ready");
    check(&one, &nodes, &[("a", NEW, "ending"), old[1], old[2]], "");
    // Pods that do not serve may always go.
    check(&one, &nodes, &[("a", NEW, "not"), ("b", "old", "not"), old[2]], "-b-old-not");
}

#[test]
fn new_pods_come_beside_old_ones() {
    let one = rolling(json!(0), json!(1));
    let nodes = ["a", "b"];
    let old = [("a", "old", "ready"), ("b", "old", "ready")];
    check(&one, &nodes, &old, "+a");
    check(&one, &nodes, &[old[0], ("a", NEW, "not"), old[1]], "");
    check(&one, &nodes, &[old[0], ("a", NEW, "fresh"), old[1]], "@5");
    check(&one, &nodes, &[old[0], ("a", NEW, "ready"), old[1]], "-a-old-ready");
    check(&one, &nodes, &[("a", "old", "not"), ("a", NEW, "not"), old[1]], "-a-old-not");
    check(&one, &nodes, &[("a", "old", "not"), old[1]], "+a +b");
    // Surging, nobody waits for a pod that has failed.
    check(&one, &["a"], &[("a", "old", "failed")], "+a -a-old-failed!");
    check(&one, &["a"], &[("a", "old", "ending")], "+a");
}

/// kubernetes#124388: a pod that the kubelet refuses fails at once, and so would the next.
#[test]
fn a_surging_set_makes_no_pod_beside_one_that_has_failed_a_moment_ago() {
    let one = rolling(json!(0), json!(1));
    check(&one, &["x"], &[("x", NEW, "failed")], "@3");
    check(&one, &["x"], &[("x", NEW, "failed"), ("x", NEW, "failed")], "@3");
    check(&one, &["x"], &[("x", "old", "ready"), ("x", NEW, "failed")], "@3");
    // Another template may do better.
    check(&one, &["x"], &[("x", "old", "failed")], "+x @3");
}

#[test]
fn nodes_suit_by_name_labels_and_taints() {
    let check = |spec: Value, taints: Value, run: bool, stay: bool| {
        let suits = Place::of(&set(json!({}), spec.clone())).suits(&node("a", taints.clone()));
        assert_eq!(suits, place::Suits { run, stay }, "{spec} {taints}");
    };
    let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
    check(json!({}), json!([]), true, true);
    check(json!({"nodeName": "b"}), json!([]), false, false);
    check(json!({"nodeSelector": {"kind": "a"}}), json!([]), true, true);
    check(json!({"nodeSelector": {"kind": "b"}}), json!([]), false, false);
    let name = |operator: &str| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
            [{"matchFields": [{"key": "metadata.name", "operator": operator, "values": ["a"]}]}]}}}})
    };
    check(name("In"), json!([]), true, true);
    check(name("NotIn"), json!([]), false, false);
    check(json!({}), taint("mine", "NoSchedule"), false, true);
    check(json!({}), taint("mine", "PreferNoSchedule"), true, true);
    check(json!({}), taint("mine", "NoExecute"), false, false);
    check(json!({"tolerations": [{"key": "mine", "operator": "Exists"}]}), taint("mine", "NoExecute"), true, true);
    check(json!({}), taint("node.kubernetes.io/unschedulable", "NoSchedule"), true, true);
    check(json!({}), taint("node.kubernetes.io/unreachable", "NoExecute"), true, true);
    check(json!({}), taint("node.kubernetes.io/network-unavailable", "NoSchedule"), false, true);
    check(json!({"hostNetwork": true}), taint("node.kubernetes.io/network-unavailable", "NoSchedule"), true, true);
}

#[test]
fn a_pod_aims_at_its_node_and_tolerates_it() {
    let mut set = set(
        json!({}),
        json!({"affinity": {"podAntiAffinity": {}, "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}}),
    );
    set.metadata.annotations = Some([(place::GENERATION.to_owned(), "7".to_owned())].into());
    let mut pod = write::pod_of(&set, &Place::of(&set).template(&set, "h"));
    assert_eq!(place::target(&pod), None);
    place::aim(&mut pod, "n");
    assert_eq!(place::target(&pod), Some("n"));
    let labels = pod.metadata.labels.clone().unwrap();
    let label = |key: &str| labels.get(key).map(String::as_str);
    assert_eq!((label(HASH), label(place::GENERATION_LABEL), label("app")), (Some("h"), Some("7"), Some("agent")));
    let spec = pod.spec.unwrap();
    assert_eq!(spec.tolerations.unwrap().len(), 6);
    assert!(spec.affinity.unwrap().pod_anti_affinity.is_some());
}

/// Page "DaemonSet", "Taints and tolerations": "DaemonSet Pods can be scheduled onto nodes that are not healthy" and "will not be evicted".
#[test]
fn no_seconds_of_a_template_evict_a_daemon() {
    let check = |own: Value, expected: Value| {
        let of_lost = |one: &k8s_openapi::api::core::v1::Toleration| one.effect.as_deref() == Some("NoExecute");
        let template = Place::of(&set(json!({}), json!({"tolerations": own}))).template(&set(json!({}), json!({})), "h");
        let found: Vec<_> = template.spec.unwrap().tolerations.unwrap().into_iter().filter(of_lost).collect();
        assert_eq!(json!(found), expected, "{own}");
    };
    let one = |key: &str, operator: &str| json!({"key": key, "operator": operator, "effect": "NoExecute"});
    let (not_ready, unreachable) =
        (one("node.kubernetes.io/not-ready", "Exists"), one("node.kubernetes.io/unreachable", "Exists"));
    let both = json!([not_ready, unreachable]);
    let for_seconds = |mut one: Value, seconds: i64| {
        one["tolerationSeconds"] = seconds.into();
        one
    };
    check(json!([]), both.clone());
    check(json!([for_seconds(not_ready.clone(), 5), for_seconds(unreachable.clone(), 5)]), both.clone());
    check(json!([not_ready.clone()]), both);
    // What says something else stays.
    let mine = for_seconds(one("mine", "Exists"), 5);
    check(json!([mine.clone()]), json!([mine, not_ready, unreachable]));
}

#[test]
fn the_status_counts_nodes() {
    let set = set(rolling(json!(1), json!(0)), json!({}));
    let nodes = [
        node("a", json!([])),
        node("b", json!([])),
        node("c", json!([{"key": "k", "effect": "NoSchedule"}])),
        node("d", json!([])),
    ];
    let pods = [pod("a", NEW, "ready"), pod("b", "old", "fresh"), pod("c", NEW, "ready"), pod("b", NEW, "waiting")];
    let now = "2026-01-01T00:01:00Z".parse().unwrap();
    let status = status::status(&Observed { set: &set, nodes: &nodes, pods: &pods, hash: NEW, wait: &|_| None, now });
    assert_eq!((status.desired_number_scheduled, status.current_number_scheduled, status.number_misscheduled), (3, 2, 1));
    assert_eq!((status.number_ready, status.number_available, status.number_unavailable), (2, Some(1), Some(2)));
    assert_eq!((status.updated_number_scheduled, status.observed_generation), (Some(1), Some(1)));
}

#[test]
fn old_revisions_go_that_no_pod_has() {
    let revision = |name: &str| {
        Arc::new(object::<ControllerRevision>(json!({"metadata": {"name": name, "labels": {HASH: name}}, "revision": 1})))
    };
    let old = [revision("a"), revision("b"), revision("c")];
    let check = |limit: usize, pods: &[Arc<Pod>], expected: &[&str]| {
        let names: Vec<&str> = plan::surplus(old.iter(), limit, pods).into_iter().map(|one| meta::name(one.as_ref())).collect();
        assert_eq!(names, expected);
    };
    check(3, &[], &[]);
    check(1, &[], &["a", "b"]);
    check(1, &[pod("n", "a", "ready")], &["b", "c"]);
    check(0, &[pod("n", "b", "ready")], &["a", "c"]);
}

/// A kubelet for all nodes that knows no image called `bad`.
async fn run_good_images(world: &World) {
    let mut changes = world.options().informers.of::<Pod>().changes();
    loop {
        let Some(pod) = changes.next().await.new else { continue };
        let bad = pod.spec.as_ref().is_some_and(|spec| spec.containers[0].image.as_deref() == Some("bad"));
        if bad || crate::pods::is_ready(&pod) {
            continue;
        }
        let mut pod = pod.as_ref().clone();
        pod.status = Some(object(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})));
        let api: Api<Pod> = Api::namespaced(world.fake.client(), "a");
        // Changed or gone meanwhile: the next change tells.
        let _ = api.replace_status(meta::name(&pod), &PostParams::default(), &pod).await;
    }
}

/// Conformance: [sig-apps] Daemon set [Serial] should rollback without unnecessary restarts [Conformance]
#[tokio::test]
async fn a_rollback_leaves_alone_what_was_not_rolled_out() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.fake.put(node(name, json!([])).as_ref());
    }
    let mut set = set(rolling(json!(1), json!(0)), json!({}));
    set.spec.as_mut().unwrap().min_ready_seconds = None;
    world.fake.put(&set);
    world.start(&["daemonset"]);
    let sets: Api<DaemonSet> = Api::namespaced(world.fake.client(), "a");
    let change = async |image: &str| {
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
        sets.patch("agent", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    let available = |sets: &[DaemonSet], number: i32, updated: i32| {
        let status = sets[0].status.clone().unwrap_or_default();
        status.observed_generation == sets[0].metadata.generation
            && (status.number_available, status.updated_number_scheduled) == (Some(number), Some(updated))
    };
    let uids = || -> Vec<String> { world.fake.all::<Pod>().into_iter().filter_map(|pod| pod.metadata.uid).collect() };
    let test = async {
        world.fake.until::<DaemonSet>(|sets| available(sets, 3, 3)).await;
        let before = uids();
        change("bad").await;
        world.fake.until::<DaemonSet>(|sets| available(sets, 2, 1)).await;
        change("a").await;
        world.fake.until::<DaemonSet>(|sets| available(sets, 3, 3)).await;
        assert_eq!(uids().iter().filter(|uid| before.contains(uid)).count(), 2);
        let mut numbers: Vec<i64> = world.fake.all::<ControllerRevision>().iter().map(|one| one.revision).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [2, 3]);
    };
    tokio::select! {
        () = run_good_images(&world) => {}
        done = tokio::time::timeout(Duration::from_secs(60), test) => done.unwrap(),
    }
}

/// Of several revisions of the same template the newest stays, however they are written, and the pods of the others become its own
/// (upstream: `dedupCurHistories`).
#[tokio::test]
async fn one_revision_of_a_template_stays() {
    let world = World::new();
    world.fake.put(node("a", json!([])).as_ref());
    let set = set(rolling(json!(1), json!(0)), json!({}));
    for (hash, number, image) in [("older", 1, "b"), ("old", 2, "a"), ("new", 3, "a")] {
        let mut template = json!(set.spec.as_ref().unwrap().template);
        template["metadata"]["creationTimestamp"] = Value::Null;
        template["spec"]["containers"][0]["image"] = image.into();
        template["$patch"] = "replace".into();
        let metadata = json!({"namespace": "a", "name": hash, "uid": hash, "labels": {"app": "agent", HASH: hash}});
        let data = json!({"spec": {"template": template}});
        world.fake.put::<ControllerRevision>(&object(json!({"metadata": metadata, "revision": number, "data": data})));
    }
    world.fake.put(pod("a", "old", "ready").as_ref());
    world.fake.put(&set);
    world.start(&["daemonset"]);
    let names = |all: &[ControllerRevision]| all.iter().map(|one| meta::name(one).to_owned()).collect::<Vec<_>>();
    world.fake.until::<ControllerRevision>(|all| names(all) == ["new", "older"]).await;
    world.fake.until::<Pod>(|all| all.len() == 1 && plan::hash_of(&all[0]) == Some(NEW)).await;
    let updated = |set: &DaemonSet| set.status.as_ref().and_then(|status| status.updated_number_scheduled);
    world.fake.until::<DaemonSet>(|sets| updated(&sets[0]) == Some(1)).await;
    let uid = world.fake.all::<Pod>()[0].metadata.uid.clone();
    assert_eq!(uid.as_deref(), Some("aoldready"), "it is the same pod");
}

#[tokio::test]
async fn follows_nodes_and_rolls_out() {
    let world = World::new();
    world.fake.put(node("a", json!([])).as_ref());
    world.fake.put(node("b", json!([])).as_ref());
    let mut set = set(rolling(json!(1), json!(0)), json!({}));
    set.spec.as_mut().unwrap().min_ready_seconds = None;
    world.fake.put(&set);
    world.start(&["daemonset"]);
    let kubelet = crate::testing::make_pods_ready(&world);
    let sets: Api<DaemonSet> = Api::namespaced(world.fake.client(), "a");
    let settled = |sets: &[DaemonSet], number: i32| {
        let status = sets[0].status.clone().unwrap_or_default();
        status.observed_generation == sets[0].metadata.generation
            && (status.desired_number_scheduled, status.updated_number_scheduled) == (number, Some(number))
            && status.number_available == Some(number)
    };
    let test = async {
        world.fake.until::<DaemonSet>(|sets| settled(sets, 2)).await;
        world.fake.put(node("c", json!([])).as_ref());
        world.fake.until::<DaemonSet>(|sets| settled(sets, 3)).await;
        let change = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "b"}]}}}});
        sets.patch("agent", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
        world.fake.until::<DaemonSet>(|sets| settled(sets, 3)).await;
        let revisions = world.fake.all::<ControllerRevision>();
        let mut numbers: Vec<i64> = revisions.iter().map(|one| one.revision).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2]);
        let current = revisions.iter().find(|one| one.revision == 2).unwrap();
        let hash = current.metadata.labels.as_ref().unwrap().get(HASH).map(String::as_str);
        assert!(world.fake.all::<Pod>().iter().all(|pod| plan::hash_of(pod) == hash));
        let change = json!({"spec": {"template": {"spec": {"nodeSelector": {"kind": "a"}}}}});
        sets.patch("agent", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
        world.fake.until::<Pod>(|pods| pods.len() == 1 && place::target(&pods[0]) == Some("a")).await;
    };
    tokio::select! {
        () = kubelet => {}
        done = tokio::time::timeout(Duration::from_secs(60), test) => done.unwrap(),
    }
}
