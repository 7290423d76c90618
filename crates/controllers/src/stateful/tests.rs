#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;

use super::*;
use crate::history::HASH;
use crate::pod_control::BURST;
use crate::testing::{World, object};

fn set(spec: Value) -> StatefulSet {
    let mut set = json!({
        "metadata": {"namespace": "a", "name": "web", "uid": "web-uid", "generation": 1},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "serviceName": "peers", "minReadySeconds": 10,
                 "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "a"}]}}},
    });
    set["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object(set)
}

/// `NUMBER REVISION STATE`: the pod web-NUMBER.
fn pod(text: &str) -> Arc<Pod> {
    let parts: Vec<&str> = text.split(' ').collect();
    let (name, state) = (format!("web-{}", parts[0]), parts[2]);
    let phase = match state {
        "failed" => "Failed",
        "succeeded" => "Succeeded",
        "pending" => "Pending",
        _ => "Running",
    };
    let since = if state == "fresh" { "2026-01-01T00:00:55Z" } else { "2026-01-01T00:00:00Z" };
    let ready = if matches!(state, "ready" | "fresh" | "ending") { "True" } else { "False" };
    let labels = json!({"app": "web", HASH: parts[1], "statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": parts[0]});
    Arc::new(object(json!({
        "metadata": {"namespace": "a", "name": name, "uid": name, "labels": labels,
                     "deletionTimestamp": (state == "ending").then_some("2026-01-01T00:00:00Z")},
        "spec": {"nodeName": "n", "containers": []},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]},
    })))
}

fn version(name: &str) -> Version {
    Version {
        name: name.to_owned(),
        template: object(json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}})),
    }
}

type Claims = BTreeMap<String, Arc<PersistentVolumeClaim>>;

fn make(set: &StatefulSet, pods: &[&str], claims: &Claims) -> Plan {
    let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    let now = "2026-01-01T00:01:00Z".parse().unwrap();
    let claims = |name: &str| claims.get(name).cloned();
    let (current, update) = (version("old"), version("new"));
    plan::plan(&Observed { set, pods: &pods, current: &current, update: &update, claims: &claims, collisions: 0, now })
}

fn show(plan: &Plan) -> String {
    let creations = plan.create.iter().map(|one| format!("+{}:{}", meta::name(one.pod.as_ref()), identity::revision(&one.pod)));
    let deletions = plan.delete.iter().map(|pod| format!("-{}", meta::name(pod.as_ref())));
    creations.chain(deletions).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check(spec: Value, pods: &[&str], expected: &str) {
    assert_eq!(show(&make(&set(spec.clone()), pods, &Claims::new())), expected, "{spec} {pods:?}");
}

/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Scaling should happen in predictable order and halt if any stateful pod is unhealthy [Slow] [Conformance]
#[test]
fn scales_in_order() {
    check(json!({}), &[], "+web-0:new");
    check(json!({}), &["0 new pending"], "");
    check(json!({}), &["0 new fresh"], "");
    check(json!({}), &["0 new ending"], "");
    check(json!({}), &["0 new ready"], "+web-1:new");
    check(json!({}), &["0 new ready", "2 new ready"], "+web-1:new");
    check(json!({}), &["0 new failed", "1 new ready"], "-web-0");
    let one = || json!({"replicas": 1});
    check(one(), &["0 new ready", "1 new ready", "2 new ready"], "-web-2");
    check(one(), &["0 new ready", "1 new ready", "2 new ending"], "");
    check(one(), &["0 new not", "1 new ready", "2 new ready"], "");
    // Of those that go, the lowest that does not serve goes before the others wait for it.
    check(one(), &["0 new ready", "1 new not", "2 new ready"], "-web-2");
    check(one(), &["0 new ready", "1 new not", "2 new not"], "");
    check(one(), &["0 new ready", "1 new ready", "2 new not"], "-web-2");
    check(json!({"replicas": 2, "ordinals": {"start": 5}}), &["5 new ready"], "+web-6:new");
    check(json!({"replicas": 1, "ordinals": {"start": 1}}), &["0 new ready", "1 new ready"], "-web-0");
}

#[test]
fn parallel_sets_do_not_wait() {
    let parallel = |replicas: i32| json!({"podManagementPolicy": "Parallel", "replicas": replicas});
    check(parallel(3), &[], "+web-0:new +web-1:new +web-2:new");
    check(parallel(3), &["0 new not"], "+web-1:new +web-2:new");
    check(parallel(1), &["0 new not", "1 new not", "2 new ready"], "-web-2 -web-1");
    check(parallel(2), &["0 new failed"], "+web-1:new -web-0");
    check(parallel(2), &["0 old ready", "1 old ready", "2 old ready"], "-web-2 -web-1");
}

/// What is not there yet costs nothing: a number of replicas is a number that somebody has written.
#[test]
fn sets_without_end_come_in_parts() {
    let most = |policy: &str| json!({"podManagementPolicy": policy, "replicas": i32::MAX});
    check(most("OrderedReady"), &["0 new ready"], "+web-1:new");
    let plan = make(&set(most("Parallel")), &["1 new not", "2147483646 new failed"], &Claims::new());
    let last = |all: &[plan::Create]| all.last().map(|one| meta::name(one.pod.as_ref()).to_owned());
    assert_eq!((plan.create.len(), last(&plan.create)), (BURST, Some("web-500".to_owned())));
    // Those that are there are looked at wherever they are.
    assert_eq!(plan.delete.len(), 1);
}

/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform canary updates and phased rolling updates of template modifications [Conformance]
#[test]
fn updates_from_the_highest_down() {
    let old = ["0 old ready", "1 old ready", "2 old ready"];
    check(json!({}), &old, "-web-2");
    check(json!({}), &["0 old ready", "1 old ready", "2 new pending"], "");
    check(json!({}), &["0 old ready", "1 old ready", "2 new fresh"], "");
    check(json!({}), &["0 old ready", "1 old ready", "2 new ready"], "-web-1");
    // Stuck: an old pod that does not serve stops the rollout before it.
    check(json!({}), &["0 old ready", "1 old not", "2 old ready"], "");
    let partition = |number: i32| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": number}}});
    check(partition(2), &old, "-web-2");
    check(partition(2), &["0 old ready", "1 old ready", "2 new ready"], "");
    check(partition(3), &old, "");
    check(partition(2), &["0 old ready"], "+web-1:old");
    check(partition(2), &["0 old ready", "1 old ready"], "+web-2:new");
    check(json!({"updateStrategy": {"type": "OnDelete"}}), &old, "");
    check(json!({"updateStrategy": {"type": "OnDelete"}}), &["0 old ready", "1 old ready"], "+web-2:new");
}

#[test]
fn a_pod_has_its_identity_and_its_claims() {
    let templates = json!([{"metadata": {"name": "data", "labels": {"tier": "db"}}, "spec": {}}]);
    let volumes = json!([{"name": "data", "emptyDir": {}}, {"name": "other", "emptyDir": {}}]);
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [], "volumes": volumes}});
    let set = set(json!({"volumeClaimTemplates": templates, "template": template}));
    let pod = identity::pod(&set, &set.spec.as_ref().unwrap().template, "new", 4);
    assert_eq!((pod.metadata.name.as_deref(), pod.metadata.generate_name.as_deref()), (Some("web-4"), Some("web-")));
    let spec = pod.spec.unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-4"), Some("peers")));
    let volumes = json!(spec.volumes);
    let claim = json!({"name": "data", "persistentVolumeClaim": {"claimName": "data-web-4"}});
    assert_eq!(volumes, json!([claim, {"name": "other", "emptyDir": {}}]));
    let labels = json!(pod.metadata.labels);
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-4");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "4");
    let (name, claim) = claims::of_pod(&set, 4).next().unwrap();
    assert_eq!((name, claim.metadata.name.as_deref()), ("data", Some("data-web-4")));
    assert_eq!(json!(claim.metadata.labels), json!({"app": "web", "tier": "db"}));
    assert!(claims::is_of(&set, "data-web-12") && !claims::is_of(&set, "data-other-1"));
}

/// The API lets two templates have one name; a pod with two volumes of a name would be refused.
#[test]
fn of_templates_with_one_name_the_last_is_meant() {
    let template = |name: &str, class: &str| json!({"metadata": {"name": name}, "spec": {"storageClassName": class}});
    let templates = json!([template("data", "first"), template("logs", "only"), template("data", "last")]);
    let set = set(json!({"volumeClaimTemplates": templates}));
    let class = |claim: &PersistentVolumeClaim| claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone());
    let claims: Vec<_> = claims::of_pod(&set, 0).map(|(name, claim)| (name.to_owned(), class(&claim).unwrap())).collect();
    assert_eq!(claims, [("logs".to_owned(), "only".to_owned()), ("data".to_owned(), "last".to_owned())]);
    let pod = identity::pod(&set, &set.spec.as_ref().unwrap().template, "new", 0);
    let volumes: Vec<String> = pod.spec.unwrap().volumes.unwrap().into_iter().map(|volume| volume.name).collect();
    assert_eq!(volumes, ["logs", "data"]);
}

fn with_claims(deleted: &str, scaled: &str, replicas: i32) -> StatefulSet {
    set(json!({
        "replicas": replicas, "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled},
    }))
}

fn claim(ordinal: i32, owners: Value, ends: bool) -> PersistentVolumeClaim {
    let deletion = ends.then_some("2026-01-01T00:00:00Z");
    object(
        json!({"metadata": {"namespace": "a", "name": format!("data-web-{ordinal}"), "ownerReferences": owners, "deletionTimestamp": deletion}}),
    )
}

#[test]
fn claims_belong_to_whom_takes_them_along() {
    // Whether the set and the pod own the claim of a pod that stays, and of one that goes.
    let check = |deleted: &str, scaled: &str, stays: &str, goes: &str| {
        let set = with_claims(deleted, scaled, 1);
        for (ordinal, expected) in [(0, stays), (1, goes)] {
            let pod = pod(&format!("{ordinal} new ready"));
            let both = json!([meta::controller_ref(&set), {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c"}, meta::controller_ref(pod.as_ref())]);
            for before in [json!(null), both] {
                let claim = claim(ordinal, before, false);
                let after = claims::owned(&set, &pod, ordinal, &claim).unwrap_or(claim);
                let owners: Vec<OwnerReference> = after.metadata.owner_references.clone().unwrap_or_default();
                let kinds: Vec<&str> = owners.iter().map(|one| one.kind.as_str()).filter(|kind| *kind != "ConfigMap").collect();
                assert_eq!(kinds.join(" "), expected, "{deleted} {scaled} {ordinal}");
                assert!(claims::owned(&set, &pod, ordinal, &after).is_none());
            }
        }
    };
    check("Retain", "Retain", "", "");
    check("Delete", "Retain", "StatefulSet", "StatefulSet");
    check("Retain", "Delete", "", "Pod");
    check("Delete", "Delete", "StatefulSet", "Pod");
    let strange = json!([{"apiVersion": "v1", "kind": "Other", "name": "x", "uid": "x", "controller": true}]);
    assert!(claims::owned(&with_claims("Delete", "Delete", 1), &pod("0 new ready"), 0, &claim(0, strange, false)).is_none());
}

#[test]
fn claims_are_made_before_pods_and_waited_for() {
    let set = with_claims("Retain", "Delete", 2);
    let make = |pods: &[&str], claims: &[PersistentVolumeClaim]| {
        let claims = claims.iter().map(|claim| (meta::name(claim).to_owned(), Arc::new(claim.clone()))).collect();
        make(&set, pods, &claims)
    };
    let plan = make(&[], &[]);
    let names: Vec<&str> = plan.create[0].claims.iter().map(meta::name).collect();
    assert_eq!((names, &plan.create[0].ending), (vec!["data-web-0"], &None));
    let plan = make(&[], &[claim(0, json!([]), false)]);
    assert!(plan.create[0].claims.is_empty());
    let plan = make(&[], &[claim(0, json!([]), true)]);
    assert_eq!(plan.create[0].ending.as_deref(), Some("data-web-0"));
    // This one goes with the pod that was scaled away.
    let gone = json!([{"apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": "former", "controller": true}]);
    assert!(make(&[], &[claim(0, gone, false)]).create.is_empty());
    let plan = make(&["0 new pending"], &[]);
    let names: Vec<&str> = plan.claims.iter().map(|(_, claim)| meta::name(claim)).collect();
    assert_eq!(names, ["data-web-0"]);
    let plan = make(&["0 new ready", "1 new ready", "2 new ready"], &[claim(2, json!([]), false)]);
    assert_eq!((plan.own.len(), show(&plan).as_str()), (1, "-web-2"));
}

#[test]
fn the_status_counts_pods_and_revisions() {
    let check = |pods: &[&str], counts: [i32; 5], current: &str| {
        let set = set(json!({}));
        let mut status = make(&set, pods, &Claims::new()).status;
        status::complete(&set, &mut status);
        let number = |count: Option<i32>| count.unwrap_or(0);
        let of_revisions = [number(status.current_replicas), number(status.updated_replicas)];
        let seen =
            [status.replicas, number(status.ready_replicas), number(status.available_replicas), of_revisions[0], of_revisions[1]];
        assert_eq!((seen, status.current_revision.as_deref()), (counts, Some(current)), "{pods:?}");
        assert_eq!((status.update_revision.as_deref(), status.observed_generation), (Some("new"), Some(1)));
    };
    check(&[], [0, 0, 0, 0, 0], "old");
    check(&["0 new ready", "1 new fresh", "2 new pending"], [3, 2, 1, 0, 3], "old");
    // One of them is deleted in this look.
    check(&["0 old ready", "1 old ready", "2 new ready"], [3, 3, 3, 1, 1], "old");
    check(&["0 new ready", "1 new ready", "2 new ready"], [3, 3, 3, 3, 3], "new");
    check(&["0 new ready", "1 new ready", "2 new ending"], [3, 3, 3, 0, 2], "old");
}

#[test]
fn old_revisions_go_that_nobody_needs() {
    let set = set(json!({"revisionHistoryLimit": 1}));
    let revision = |name: &str| Arc::new(object::<ControllerRevision>(json!({"metadata": {"name": name}, "revision": 1})));
    let all: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().map(revision).collect();
    let gone: Vec<&str> =
        plan::surplus(&set, &all, &["d", "e"], &[pod("0 a ready")]).into_iter().map(|one| meta::name(one.as_ref())).collect();
    assert_eq!(gone, ["b"]);
    let keeps_all = super::tests::set(json!({"revisionHistoryLimit": -1}));
    assert!(plan::surplus(&keeps_all, &all, &[], &[]).is_empty());
}

/// Who is not made yet must not lead to deletions: nothing would be left of a set that is paused. A pod that has ended serves nobody,
/// nor does one without a node, which may be what leaves no room.
#[tokio::test]
async fn nothing_that_serves_goes_while_pods_are_paused() {
    let world = World::new();
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    let set =
        set(json!({"replicas": 2, "podManagementPolicy": "Parallel", "ordinals": {"start": 5}, "volumeClaimTemplates": claims,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}}));
    world.fake.put(&set);
    world.fake.put(&claim(0, json!([]), false));
    world.fake.put(&claim(6, json!([]), false));
    for (text, node) in [("0 new ready", "n"), ("1 new failed", "n"), ("2 new pending", ""), ("5 new failed", "n")] {
        let mut pod = pod(text).as_ref().clone();
        pod.spec.as_mut().unwrap().node_name = Some(node.to_owned());
        pod.metadata.owner_references = Some(vec![meta::controller_ref(&set)]);
        world.fake.put(&pod);
    }
    world.put_waiting("first", None);
    world.put_waiting("second", None);
    let options = world.options();
    let mut sets = StatefulSets::new(&options.informers);
    sets.room = sets.room.limited(2);
    world.launch(&options, sets);
    let names = |pods: &[Pod]| {
        let names = pods.iter().map(|pod| meta::name(pod).to_owned()).filter(|name| name.starts_with("web-"));
        names.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
    };
    world.until_paused("web", 2).await;
    world.fake.until::<Pod>(|pods| names(pods) == "web-0 web-1").await;
    // One that ended and stays is told of, and not the one that is one too many.
    let told = "StatefulSet a/web is recreating failed Pod web-5";
    let reason = |event: &Event| event.reason.as_deref() == Some("RecreatingFailedPod");
    world.fake.until::<Event>(|events| events.iter().any(|event| reason(event) && event.message.as_deref() == Some(told))).await;
    assert_eq!(world.fake.all::<Event>().iter().filter(|event| reason(event)).count(), 1);
    let owned = || {
        world
            .fake
            .all::<PersistentVolumeClaim>()
            .iter()
            .filter(|one| one.metadata.owner_references.iter().flatten().count() > 0)
            .count()
    };
    assert_eq!(owned(), 0);
    world.put_waiting("first", Some("n"));
    world.put_waiting("second", Some("n"));
    world.fake.until::<Pod>(|pods| names(pods) == "web-5 web-6").await;
    assert!(owned() > 0);
}

/// The event of a pod that is made again says how the one before ended.
#[tokio::test]
async fn pods_that_ended_are_made_again() {
    let world = World::new();
    let set = set(json!({"replicas": 2, "podManagementPolicy": "Parallel"}));
    world.fake.put(&set);
    for text in ["0 new failed", "1 new succeeded"] {
        let mut pod = pod(text).as_ref().clone();
        pod.metadata.owner_references = Some(vec![meta::controller_ref(&set)]);
        world.fake.put(&pod);
    }
    world.start(&["statefulset"]);
    for (kind, reason, text) in [
        ("Warning", "RecreatingFailedPod", "StatefulSet a/web is recreating failed Pod web-0"),
        ("Normal", "RecreatingTerminatedPod", "StatefulSet a/web is recreating terminated Pod web-1"),
    ] {
        let is_it = |event: &Event| {
            let said = [&event.type_, &event.reason, &event.message].map(|said| said.as_deref());
            said == [Some(kind), Some(reason), Some(text)]
        };
        world.fake.until::<Event>(|events| events.iter().any(is_it)).await;
    }
    let is_new = |pod: &Pod| pod.status.as_ref().is_none_or(|status| status.phase.is_none());
    world.fake.until::<Pod>(|pods| pods.len() == 2 && pods.iter().all(is_new)).await;
}

#[tokio::test]
async fn comes_rolls_back_and_goes_in_order() {
    let world = World::new();
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    let mut set = set(json!({"volumeClaimTemplates": claims, "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}));
    set.spec.as_mut().unwrap().min_ready_seconds = None;
    world.fake.put(&set);
    world.start(&["statefulset"]);
    let kubelet = crate::testing::make_pods_ready(&world);
    let api: Api<StatefulSet> = Api::namespaced(world.fake.client(), "a");
    let settled = |sets: &[StatefulSet], number: i32| {
        let status = sets[0].status.clone().unwrap_or_default();
        status.observed_generation == sets[0].metadata.generation
            && (status.replicas, status.available_replicas) == (number, Some(number))
            && (status.updated_replicas, status.current_replicas) == (Some(number), Some(number))
            && status.current_revision == status.update_revision
    };
    let change = async |patch: Value| api.patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    let test = async {
        world.fake.until::<StatefulSet>(|sets| settled(sets, 3)).await;
        let first = world.fake.all::<StatefulSet>()[0].status.clone().unwrap().current_revision;
        change(image("b")).await;
        world.fake.until::<StatefulSet>(|sets| settled(sets, 3)).await;
        change(image("a")).await;
        world.fake.until::<StatefulSet>(|sets| settled(sets, 3)).await;
        assert_eq!(world.fake.all::<StatefulSet>()[0].status.clone().unwrap().current_revision, first);
        let mut numbers: Vec<i64> = world.fake.all::<ControllerRevision>().iter().map(|one| one.revision).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [2, 3]);
        let deletions: Vec<String> =
            world.fake.writes().into_iter().filter(|call| call.method == "DELETE").map(|call| call.path).collect();
        let numbers: Vec<&str> = deletions.iter().filter_map(|path| path.rsplit('-').next()).collect();
        assert_eq!(numbers, ["2", "1", "0", "2", "1", "0"]);
        change(json!({"spec": {"replicas": 1}})).await;
        world.fake.until::<StatefulSet>(|sets| settled(sets, 1)).await;
        let owned =
            world.fake.all::<PersistentVolumeClaim>().into_iter().filter(|claim| claim.metadata.owner_references.is_some());
        let names: Vec<String> = owned.filter_map(|claim| claim.metadata.name).collect();
        assert_eq!(names, ["data-web-1", "data-web-2"]);
    };
    tokio::select! {
        () = kubelet => {}
        done = tokio::time::timeout(Duration::from_secs(60), test) => done.unwrap(),
    }
}
