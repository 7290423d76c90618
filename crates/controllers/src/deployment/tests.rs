#![allow(clippy::unwrap_used)]

use client::kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::*;
use crate::testing::{World, object};

fn deployment(replicas: i32, image: &str, strategy: Value) -> Deployment {
    object(json!({
        "metadata": {"namespace": "a", "name": "web", "uid": "d", "generation": 1},
        "spec": {"replicas": replicas, "strategy": strategy, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 1,
                 "selector": {"matchLabels": {"app": "web"}}, "template": template(image)},
    }))
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

/// A set: image, replicas, available, revision, desired at its last scaling, maximum then.
fn set(image: &str, replicas: i32, available: i32, revision: i64, desired: i32, max: i32) -> ReplicaSet {
    object(json!({
        "metadata": {"namespace": "a", "name": format!("web-{image}"), "uid": image, "generation": 1,
            "creationTimestamp": format!("2026-01-01T00:00:0{revision}Z"),
            "annotations": {REVISION: revision.to_string(), DESIRED: desired.to_string(), MAX: max.to_string()}},
        "spec": {"replicas": replicas, "selector": {}, "template": template(image)},
        "status": {"replicas": replicas, "availableReplicas": available, "observedGeneration": 1},
    }))
}

fn shown(plan: &Plan) -> String {
    let sizes = |set: &ReplicaSet| {
        let image = set.spec.as_ref().unwrap().template.as_ref().unwrap().spec.as_ref().unwrap().containers[0].image.clone();
        format!("{} {}", image.unwrap(), size::replicas(set))
    };
    let each = plan.changes.iter().map(|change| match change {
        Change::Create(set, _) => format!("+{}", sizes(set)),
        Change::Update(set, _) => format!("={}", sizes(set)),
        Change::Delete(set) => format!("-{}", sizes(set)),
    });
    each.collect::<Vec<_>>().join(", ")
}

fn observe(deployment: &Deployment, sets: Vec<ReplicaSet>, old_pods_run: bool) -> Plan {
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    plan::plan(Observed { deployment: deployment.clone(), sets, old_pods_run, now })
}

fn check(deployment: Deployment, sets: Vec<ReplicaSet>, expected: &str) {
    assert_eq!(shown(&observe(&deployment, sets, false)), expected);
}

#[test]
fn there_may_be_no_revision_behind_the_last_one() {
    let mut last = set("a", 4, 4, 1, 4, 5);
    last.metadata.annotations.as_mut().unwrap().insert(REVISION.to_owned(), i64::MAX.to_string());
    check(deployment(4, "b", rolling(json!("25%"), json!("25%"))), vec![last], "+b 1, =a 3");
}

#[test]
fn rolls_within_its_fence_posts() {
    let d = |replicas| deployment(replicas, "b", rolling(json!("25%"), json!("25%")));
    check(d(4), vec![], "+b 4");
    check(d(4), vec![set("a", 4, 4, 1, 4, 5)], "+b 1, =a 3");
    check(d(4), vec![set("a", 3, 3, 1, 4, 5), set("b", 1, 0, 2, 4, 5)], "=b 2");
    check(d(4), vec![set("a", 3, 3, 1, 4, 5), set("b", 2, 0, 2, 4, 5)], "");
    check(d(4), vec![set("a", 3, 3, 1, 4, 5), set("b", 2, 2, 2, 4, 5)], "=a 1");
    check(d(4), vec![set("a", 0, 0, 1, 4, 5), set("b", 4, 4, 2, 4, 5)], "");
    // Broken old replicas go first, and never hold up.
    check(d(4), vec![set("a", 4, 0, 1, 4, 5), set("b", 1, 0, 2, 4, 5)], "=a 3");
    // A set that was made smaller still counts the replicas that it is about to lose: they are available to nobody.
    let two = deployment(2, "b", rolling(json!(1), json!(1)));
    check(two, vec![set("a", 2, 5, 1, 2, 3), set("b", 1, 0, 2, 2, 3)], "=a 1");
    let one = deployment(1, "b", rolling(json!(0), json!("1%")));
    check(one, vec![set("a", 1, 1, 1, 1, 1)], "+b 0, =a 0");
}

#[test]
fn rolls_over_and_back() {
    let d = |image| deployment(4, image, rolling(json!(1), json!(1)));
    check(d("c"), vec![set("a", 3, 3, 1, 4, 5), set("b", 2, 0, 2, 4, 5)], "+c 0, =b 0");
    let plan = observe(&d("a"), vec![set("a", 0, 0, 1, 4, 5), set("b", 4, 4, 2, 4, 5)], false);
    let Change::Update(back, _) = &plan.changes[0] else { panic!("{:?}", plan.changes) };
    assert_eq!((meta::annotation(back.as_ref(), REVISION), meta::annotation(back.as_ref(), HISTORY)), (Some("3"), Some("1")));
    assert_eq!((plan.revision.as_deref(), size::replicas(back)), (Some("3"), 1));
}

#[test]
fn scales_proportionally() {
    let d = deployment(20, "b", rolling(json!(5), json!(0)));
    check(d, vec![set("a", 10, 10, 1, 10, 15), set("b", 5, 0, 2, 10, 15)], "=a 17, =b 8");
    let d = deployment(10, "b", rolling(json!(0), json!(1)));
    check(d, vec![set("b", 5, 5, 1, 5, 5)], "=b 10");
    let d = deployment(0, "b", rolling(json!(1), json!(1)));
    check(d, vec![set("a", 3, 3, 1, 5, 6), set("b", 3, 3, 2, 5, 6)], "=a 0, =b 0");
}

/// Sizes at the end of what the API takes: sums of them are more than a number of replicas can say.
#[test]
fn the_largest_sizes() {
    const MOST: i32 = i32::MAX;
    let d = |surge: i32| deployment(MOST, "b", rolling(json!(surge), json!(1)));
    check(d(1), vec![set("a", MOST, 0, 1, MOST, MOST)], "+b 1, =a 2147483646");
    check(d(MOST), vec![set("a", MOST, MOST, 1, MOST, MOST), set("b", MOST, MOST, 2, MOST, MOST)], "=a 0");
    check(d(MOST), vec![set("a", MOST, MOST, 1, 5, 6), set("b", MOST, 0, 2, 5, 6)], "=a 2147483647, =b 2147483647");
    check(d(MOST), vec![set("a", 3, 3, 1, 5, 6), set("b", 3, 0, 2, 5, 6)], "=b 2147483647, =a 6");
}

#[test]
fn recreates_after_everything_old_is_gone() {
    let d = deployment(2, "b", json!({"type": "Recreate"}));
    check(d.clone(), vec![set("a", 2, 2, 1, 2, 2)], "=a 0");
    let old = vec![set("a", 0, 0, 1, 2, 2)];
    assert_eq!(shown(&observe(&d, old.clone(), true)), "");
    assert_eq!(shown(&observe(&d, old, false)), "+b 2");
}

#[test]
fn forgets_old_revisions_when_complete() {
    let d = deployment(1, "d", rolling(json!(1), json!(0)));
    let done = [set("a", 0, 0, 1, 1, 2), set("b", 0, 0, 2, 1, 2), set("c", 0, 0, 3, 1, 2), set("d", 1, 1, 4, 1, 2)];
    check(d, done.to_vec(), "-a 0, -b 0");
}

#[test]
fn paused_deployments_only_scale() {
    let mut d = deployment(6, "b", rolling(json!(1), json!(1)));
    d.spec.as_mut().unwrap().paused = Some(true);
    check(d.clone(), vec![set("a", 4, 4, 1, 4, 5)], "=a 6");
    let plan = observe(&d, vec![set("a", 6, 6, 1, 6, 7)], false);
    let condition = status::condition(&plan.status, status::PROGRESSING).unwrap();
    assert_eq!((condition.reason.as_deref(), plan.after), (Some("DeploymentPaused"), None));
}

#[test]
fn conditions_tell_how_it_goes() {
    let d = deployment(2, "b", rolling(json!(1), json!(0)));
    let reason = |plan: &Plan| status::condition(&plan.status, status::PROGRESSING).unwrap().reason.clone().unwrap();
    let plan = observe(&d, vec![], false);
    assert_eq!(reason(&plan), "NewReplicaSetCreated");
    assert!(plan.after.is_some());
    let mut later = d.clone();
    later.status = Some(plan.status);
    let plan = observe(&later, vec![set("b", 2, 2, 1, 2, 3)], false);
    assert_eq!((reason(&plan).as_str(), plan.after), ("NewReplicaSetAvailable", None));
    let stuck = later.status.as_mut().unwrap();
    (stuck.replicas, stuck.updated_replicas) = (Some(2), Some(2));
    let stuck = stuck.conditions.as_mut().unwrap();
    let condition = stuck.iter_mut().find(|condition| condition.type_ == status::PROGRESSING).unwrap();
    condition.last_update_time = Some(object(json!("2026-01-01T00:00:00Z")));
    let plan = observe(&later, vec![set("b", 2, 0, 1, 2, 3)], false);
    assert_eq!(reason(&plan), "ProgressDeadlineExceeded");
}

/// The names of upstream's generateReplicaSetName: the hash is whole, the deployment's name is cut.
#[test]
fn the_set_of_a_long_name_has_a_name_that_is_allowed() {
    for length in [200, 242, 250, 253] {
        let mut d = deployment(1, "b", rolling(json!(1), json!(0)));
        d.metadata.name = Some("d".repeat(length));
        let set = revision::new_set(&d, 1);
        let hash = set.metadata.labels.as_ref().unwrap()["pod-template-hash"].clone();
        assert_eq!(set.metadata.name.unwrap(), format!("{}-{hash}", "d".repeat(length.min(253 - 1 - hash.len()))));
    }
}

#[tokio::test]
async fn a_rollout_ends_with_the_new_set() {
    let world = World::new();
    world.fake.put(&deployment(2, "a", rolling(json!(1), json!(0))));
    world.start(&["deployment", "replicaset"]);
    let kubelet = crate::testing::make_pods_ready(&world);
    let complete = |d: &[Deployment], revision: &str| {
        let status = d[0].status.clone().unwrap_or_default();
        meta::annotation(&d[0], REVISION) == Some(revision)
            && status.observed_generation == d[0].metadata.generation
            && (status.updated_replicas, status.available_replicas, status.replicas) == (Some(2), Some(2), Some(2))
    };
    let test = async {
        world.fake.until::<Deployment>(|d| complete(d, "1")).await;
        let api: Api<Deployment> = Api::namespaced(world.fake.client(), "a");
        let change = json!({"spec": {"template": template("b")}});
        api.patch("web", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
        world.fake.until::<Deployment>(|d| complete(d, "2")).await;
        // The revision is written with the status: who decides about changes of Deployments, and counts them, sees none.
        assert_eq!(world.fake.all::<Deployment>()[0].metadata.generation, Some(2));
        let sizes: Vec<i32> = world.fake.all::<ReplicaSet>().iter().map(size::replicas).collect();
        assert_eq!(sizes.iter().sum::<i32>(), 2);
        assert_eq!(sizes.len(), 2);
    };
    tokio::select! {
        () = kubelet => {}
        done = tokio::time::timeout(std::time::Duration::from_secs(60), test) => done.unwrap(),
    }
}
