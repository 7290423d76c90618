#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use client::events::Type;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::pods;
use crate::testing::{World, object, run_pods};

const START: &str = "2026-01-01T00:00:00Z";

fn job(spec: Value, status: Value) -> Job {
    let mut job = json!({
        "metadata": {"namespace": "a", "name": "work", "uid": "u", "generation": 1},
        "spec": {"parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
                 "selector": {"matchLabels": {"job": "work"}},
                 "template": {"metadata": {"labels": {"job": "work"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
        "status": status,
    });
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    object(job)
}

/// A pod in one word: its phase, then `/index`, `*` when its deletion was asked for, `-` when it was counted, `!n` failures
/// before it, `=code` its exit code.
fn pod(text: &str, number: usize) -> Arc<Pod> {
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    let part = |mark: char| {
        let rest = text.split_once(mark)?.1;
        Some(rest.chars().take_while(char::is_ascii_digit).collect::<String>())
    };
    let mut annotations = serde_json::Map::new();
    annotations.extend(part('/').map(|index| (member::INDEX.to_owned(), index.into())));
    annotations.extend(part('!').map(|count| (member::FAILURES.to_owned(), count.into())));
    let code: i32 = part('=').map_or(1, |code| code.parse().unwrap());
    let deletion = text.contains('*').then_some("2026-01-01T00:00:30Z");
    let finalizers = if text.contains('-') { json!([]) } else { json!([TRACKING]) };
    let finished = matches!(&text[..end], "Failed" | "Succeeded");
    let state = if finished { json!({"terminated": {"exitCode": code, "finishedAt": START}}) } else { json!({"running": {}}) };
    Arc::new(object(json!({
        "metadata": {"namespace": "a", "name": format!("p{number}"), "uid": format!("p{number}"), "annotations": annotations,
                     "deletionTimestamp": deletion, "deletionGracePeriodSeconds": deletion.map(|_| 30), "finalizers": finalizers},
        "spec": {"nodeName": "n", "containers": []},
        "status": {"phase": &text[..end], "containerStatuses": [
            {"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]},
    })))
}

/// What a job with these pods does `seconds` after [`START`].
fn settled(job: &Job, pods: &str, seconds: i64) -> (String, Settled) {
    let pods: Vec<_> = pods.split_whitespace().enumerate().map(|(number, text)| pod(text, number)).collect();
    let now = Timestamp::from_second(START.parse::<Timestamp>().unwrap().as_second() + seconds).unwrap();
    let observed = Observed { job, terms: Terms::of(job).unwrap(), pods: &pods, record: Record::default(), now };
    let decision = plan::decide(&observed);
    let names = |pods: &[Arc<Pod>]| pods.iter().map(|pod| meta::name(pod.as_ref())).collect::<Vec<_>>().join(" ");
    let mut shown = match &decision.act {
        Act::Nothing => "nothing".to_owned(),
        Act::End(pods) => format!("end {}", names(pods)),
        Act::Delete(pods) => format!("delete {}", names(pods)),
        Act::Create(new) => {
            let one = |new: &template::New| match (new.index, new.failures) {
                (None, _) => "+".to_owned(),
                (Some(index), None) => index.to_string(),
                (Some(index), Some((counted, ignored))) => format!("{index}!{counted},{ignored}"),
            };
            format!("create {}", new.iter().map(one).collect::<Vec<_>>().join(" "))
        }
    };
    if let Some(again) = decision.again {
        shown += &format!(" again {}", again.as_secs());
    }
    let done = match &decision.act {
        Act::End(pods) | Act::Delete(pods) => Done { deleted: pods.clone(), ..Done::default() },
        Act::Create(new) => Done { created: new.len(), ..Done::default() },
        Act::Nothing => Done::default(),
    };
    (shown.trim_end().to_owned(), settle::settle(&observed, decision, &done))
}

#[track_caller]
fn check(spec: Value, status: Value, pods: &str, expected: &str) {
    assert_eq!(settled(&job(spec.clone(), status), pods, 3).0, expected, "{spec} {pods}");
}

#[test]
fn keeps_up_the_number_of_pods() {
    let five = json!({"completions": 5, "parallelism": 2});
    check(five.clone(), json!({}), "", "create + +");
    check(five.clone(), json!({}), "Running Running", "nothing");
    check(five.clone(), json!({"succeeded": 4}), "", "create +");
    check(five.clone(), json!({"succeeded": 3}), "Succeeded Running", "nothing");
    check(five.clone(), json!({"succeeded": 4}), "Running Pending", "delete p1");
    check(five.clone(), json!({}), "Running* Running", "nothing again 7");
    check(json!({"parallelism": 3}), json!({}), "Running", "create + +");
    check(json!({"parallelism": 3}), json!({}), "Succeeded Running", "nothing");
    check(json!({"completions": 5, "parallelism": 0}), json!({}), "Running", "delete p0");
    check(json!({"completions": 5, "suspend": true}), json!({}), "Running Pending", "delete p1 p0");
    check(json!({"completions": 1, "activeDeadlineSeconds": 60}), json!({"startTime": START}), "Running", "nothing again 57");
}

/// KEP-3939: with `Failed`, a pod is replaced only when it has failed, not when its deletion begins.
#[test]
fn replaces_what_has_gone_or_failed() {
    let job = |policy: &str| json!({"completions": 1, "podReplacementPolicy": policy, "backoffLimit": 0});
    check(job("Failed"), json!({}), "Running*", "nothing");
    check(
        json!({"completions": 1, "podReplacementPolicy": "TerminatingOrFailed"}),
        json!({"startTime": START}),
        "Running*",
        "nothing again 7",
    );
    check(job("TerminatingOrFailed"), json!({}), "Running*", "end");
}

#[test]
fn backs_off() {
    check(json!({"completions": 1}), json!({}), "Failed", "nothing again 7");
    check(json!({"completions": 1}), json!({}), "Failed Failed", "nothing again 17");
    // Failures that were counted before the process began are not known any more.
    check(json!({"completions": 1}), json!({"failed": 2}), "", "create +");
}

#[test]
fn indexes_get_their_pods() {
    let indexed = |more: Value| {
        let mut spec = json!({"completions": 5, "parallelism": 3, "completionMode": "Indexed"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    check(indexed(json!({})), json!({}), "", "create 0 1 2");
    check(indexed(json!({})), json!({"completedIndexes": "0,2"}), "Running/1", "create 3 4");
    check(indexed(json!({})), json!({}), "Succeeded/0 Running/1 Running/1 Running/7 Running", "delete p3 p4 p1");
    check(indexed(json!({"completions": 2, "parallelism": 2})), json!({"completedIndexes": "0,1,3,4"}), "", "nothing");
    let limited = indexed(json!({"backoffLimitPerIndex": 1, "backoffLimit": i32::MAX}));
    check(limited.clone(), json!({}), "Running/1", "create 0!0,0 2!0,0");
    // Index 1 waits for its back-off; the others do not.
    check(limited.clone(), json!({}), "Failed/1", "create 0!0,0 2!0,0 again 7");
    check(limited.clone(), json!({"failedIndexes": "0", "completedIndexes": "2,3,4"}), "Failed/1", "nothing again 7");
    assert_eq!(settled(&job(limited.clone(), json!({"completedIndexes": "0,2-4"})), "Failed/1", 30).0, "create 1!1,0");
    check(limited, json!({"completedIndexes": "0,2,3"}), "Failed/1!1", "create 4!0,0");
}

/// How a job ends: reason of its target and the status that is written before pods lose their finalizer.
#[track_caller]
fn check_end(spec: Value, status: Value, pods: &str, seconds: i64, reason: &str, expected: Value) {
    let (_, Settled { status, end, .. }) = settled(&job(spec.clone(), status), pods, seconds);
    let found = end.as_ref().map(|end| format!("{} {}", end.type_, end.reason.as_deref().unwrap_or_default()));
    assert_eq!(found.unwrap_or_default(), reason, "{spec} {pods}");
    let status = serde_json::to_value(status).unwrap();
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(status.get(key).unwrap_or(&Value::Null), value, "{key} of {spec} {pods}");
    }
}

#[test]
fn ends() {
    let one = json!({"completions": 1});
    check_end(one.clone(), json!({}), "Running", 3, "", json!({"active": 1}));
    let uncounted = json!({"succeeded": ["p0"]});
    let done = json!({"active": null, "terminating": 0, "uncountedTerminatedPods": uncounted});
    check_end(one, json!({}), "Succeeded", 3, "Complete CompletionsReached", done);
    check_end(json!({"parallelism": 2}), json!({}), "Succeeded Running", 3, "", json!({"active": 1}));
    check_end(json!({"parallelism": 2}), json!({}), "Succeeded Failed", 3, "Complete CompletionsReached", json!({}));
    let all = json!({"active": null, "terminating": 1, "uncountedTerminatedPods": {"failed": ["p0", "p1"]}});
    check_end(json!({"completions": 2, "backoffLimit": 0}), json!({}), "Failed Running", 3, "Failed BackoffLimitExceeded", all);
    let late = json!({"completions": 1, "activeDeadlineSeconds": 10});
    check_end(late.clone(), json!({"startTime": START}), "Running", 9, "", json!({"active": 1}));
    check_end(late, json!({"startTime": START}), "Running", 10, "Failed DeadlineExceeded", json!({"terminating": 1}));
    // A resumed job begins anew.
    let suspended = json!({"startTime": START, "conditions": [{"type": "Suspended", "status": "True"}]});
    let anew = json!({"startTime": "2026-01-01T01:00:00Z"});
    check_end(json!({"completions": 1, "activeDeadlineSeconds": 10}), suspended, "", 3600, "", anew);
    // "startTime is required for finished job", also for one that ends while it is suspended and has none.
    let spec = json!({"completions": 1, "backoffLimit": 0, "suspend": true});
    let late = json!({"startTime": "2026-01-01T00:00:05Z"});
    check_end(spec, json!({}), "Failed", 5, "Failed BackoffLimitExceeded", late);
    let none = json!({"startTime": null});
    check_end(json!({"completions": 0, "suspend": true}), json!({}), "", 5, "Complete CompletionsReached", none);
}

/// Conformance: [sig-apps] Job should terminate job execution when the number of failed indexes exceeds maxFailedIndexes [Conformance]
/// Conformance: [sig-apps] Job should mark indexes as failed when the FailIndex action is matched in podFailurePolicy [Conformance]
#[test]
fn ends_by_indexes() {
    let spec = |more: Value| {
        let mut spec = json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 0, "backoffLimit": i32::MAX});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let failed = json!({"failedIndexes": "0", "completedIndexes": "1-3", "succeeded": 3, "active": null});
    check_end(spec(json!({})), json!({}), "Failed/0 Succeeded/1 Succeeded/2 Succeeded/3", 3, "Failed FailedIndexes", failed);
    let some = json!({"failedIndexes": "0", "completedIndexes": "1", "active": 2});
    check_end(spec(json!({})), json!({}), "Failed/0 Succeeded/1 Running/2 Running/3", 3, "", some);
    let many = json!({"failedIndexes": "0,1", "completedIndexes": null, "terminating": 2});
    check_end(
        spec(json!({"maxFailedIndexes": 1})),
        json!({}),
        "Failed/0 Failed/1 Running/2 Running/3",
        3,
        "Failed MaxFailedIndexesExceeded",
        many,
    );
    let policy = json!({"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]});
    let by_policy = spec(json!({"backoffLimitPerIndex": 5, "podFailurePolicy": policy}));
    check_end(by_policy.clone(), json!({}), "Failed/0=42 Succeeded/1 Running/2 Running/3", 3, "", json!({"failedIndexes": "0"}));
    check_end(by_policy, json!({}), "Failed/0=1 Succeeded/1 Running/2 Running/3", 3, "", json!({"failedIndexes": ""}));
}

/// Conformance: [sig-apps] Job with successPolicy succeededIndexes rule should succeeded even when some indexes remain pending [Conformance]
/// Conformance: [sig-apps] Job with successPolicy succeededCount rule should succeeded even when some indexes remain pending [Conformance]
#[test]
fn ends_by_success_policy() {
    let spec = |rule: Value| json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed", "successPolicy": {"rules": [rule]}});
    let pods = "Succeeded/0 Running/1 Running/2 Running/3";
    // Pods that still ran do not count as failed.
    let met = json!({"active": null, "terminating": 3, "completedIndexes": "0", "uncountedTerminatedPods": {}});
    check_end(spec(json!({"succeededIndexes": "0"})), json!({}), pods, 3, "Complete SuccessPolicy", met.clone());
    check_end(spec(json!({"succeededCount": 1})), json!({}), pods, 3, "Complete SuccessPolicy", met);
    check_end(spec(json!({"succeededCount": 2})), json!({}), pods, 3, "", json!({"active": 3}));
}

/// Conformance: [sig-apps] Job should allow to use the pod failure policy on exit code to fail the job early [Conformance]
#[test]
fn ends_by_failure_policy() {
    let policy = |action: &str| json!({"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": [42]}}]});
    let spec = |action: &str| json!({"completions": 2, "backoffLimit": 0, "podFailurePolicy": policy(action)});
    check_end(spec("FailJob"), json!({}), "Failed=42 Running", 3, "Failed PodFailurePolicy", json!({"terminating": 1}));
    check_end(spec("Ignore"), json!({}), "Failed=42 Running", 3, "", json!({"failed": null, "uncountedTerminatedPods": {}}));
    check_end(spec("Ignore"), json!({}), "Failed=1 Running", 3, "Failed BackoffLimitExceeded", json!({}));
}

#[test]
fn is_told_of_its_suspension() {
    let check = |suspend: bool, before: Option<&str>, expected: Option<(&str, &str)>| {
        let conditions = before.map(|status| {
            json!([{"type": "Suspended", "status": status, "reason": if status == "True" { "JobSuspended" } else { "JobResumed" },
            "message": if status == "True" { "Job suspended" } else { "Job resumed" }}])
        });
        let status = json!({"startTime": START, "conditions": conditions});
        let (_, Settled { status, events, .. }) = settled(&job(json!({"completions": 1, "suspend": suspend}), status), "", 60);
        let told = events.first().map(|(kind, reason, _)| (*kind, *reason));
        assert_eq!(told, expected.map(|(reason, _)| (Type::Normal, reason)));
        if let Some((_, state)) = expected {
            assert_eq!(status.conditions.unwrap()[0].status, state);
        }
        // KEP-5440: a suspended job has no start; a resumed one starts now.
        let start = |seconds: &str| Some(format!("2026-01-01T00:{seconds}Z"));
        let started = match (suspend, before) {
            (true, _) => None,
            (false, Some("True")) => start("01:00"),
            (false, _) => start("00:00"),
        };
        assert_eq!(status.start_time.map(|time| time.0.to_string()), started, "{suspend} {before:?}");
    };
    check(true, None, Some(("Suspended", "True")));
    check(true, Some("True"), None);
    check(true, Some("False"), Some(("Suspended", "True")));
    check(false, Some("True"), Some(("Resumed", "False")));
    check(false, None, None);
    check(false, Some("False"), None);
}

/// KEP-2307: whenever the controller stops, no pod is lost or counted twice.
#[test]
fn every_pod_counts_once() {
    let check = |status: Value, pods: &str, untracked: &[&str], expected: Value| {
        let job = job(json!({"completions": 9, "parallelism": 9}), status.clone());
        let (_, Settled { mut status, untrack, mut tracked, .. }) = settled(&job, pods, 3);
        tracked.retain(|uid| !untracked.contains(&uid.as_str()));
        settle::clear_counted(&mut status, &tracked);
        let names: HashSet<_> = untrack.iter().map(|pod| meta::name(pod.as_ref())).collect();
        assert!(untracked.iter().all(|uid| names.contains(uid)), "{names:?}");
        let found = json!([status.succeeded, status.failed, status.uncounted_terminated_pods]);
        assert_eq!(found, expected, "{pods}");
    };
    // Before the status is written, after, when the finalizer is gone, and after that.
    check(json!({}), "Succeeded Failed", &[], json!([null, null, {"succeeded": ["p0"], "failed": ["p1"]}]));
    let known = json!({"uncountedTerminatedPods": {"succeeded": ["p0"], "failed": ["p1"]}});
    check(known.clone(), "Succeeded Failed", &["p0"], json!([1, null, {"failed": ["p1"]}]));
    check(known.clone(), "Succeeded- Failed-", &[], json!([1, 1, {}]));
    check(known.clone(), "", &[], json!([1, 1, {}]));
    // A phase that changes after all: the pod counts as what the status says of it, and once.
    check(known, "Failed Succeeded", &[], json!([null, null, {"succeeded": ["p0"], "failed": ["p1"]}]));
    let succeeded = json!({"uncountedTerminatedPods": {"succeeded": ["p0"]}});
    assert_eq!(settled(&job(json!({"completions": 2, "backoffLimit": 0}), succeeded), "Failed", 3).0, "create +");
    check(json!({"succeeded": 1, "failed": 1}), "Succeeded- Failed-", &[], json!([1, 1, {}]));
}

/// Runs one job on the API until `until` holds for it; pods end as `end` says of their index or number.
async fn run(spec: Value, end: impl Fn(&Pod) -> Option<Value>, until: impl Fn(&Job) -> bool) -> World {
    let world = World::new();
    world.fake.put(&job(spec, json!({})));
    world.start(&["job", "job-orphaned-pods"]);
    let ended = world.fake.until::<Job>(|jobs| jobs.iter().any(&until));
    tokio::select! {
        () = ended => {}
        () = run_pods(&world, |pod| if pods::is_finished(pod) { None } else { end(pod) }) => {}
    }
    world
}

fn exits(code: i32) -> Option<Value> {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let state = json!({"terminated": {"exitCode": code, "finishedAt": START}});
    Some(json!({"phase": phase, "containerStatuses": [
        {"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]}))
}

fn is(job: &Job, condition: &str) -> bool {
    conditions::holds(job.status.as_ref(), condition).is_some()
}

#[tokio::test]
async fn no_pods_are_made_while_too_many_wait() {
    let world = World::new();
    world.fake.put(&job(json!({"completions": 2, "parallelism": 2}), json!({})));
    world.put_waiting("first", None);
    world.put_waiting("second", None);
    let options = world.options();
    let mut jobs = Jobs::new(&options.informers);
    jobs.room = jobs.room.limited(2);
    world.launch(&options, jobs);
    world.until_paused("work", 2).await;
    let active = |jobs: &[Job], active: Option<i32>| jobs[0].status.as_ref().is_some_and(|status| status.active == active);
    world.fake.until::<Job>(|jobs| active(jobs, None)).await;
    assert_eq!(world.fake.all::<Pod>().len(), 2);
    // As many as there is room for, and then the others.
    world.put_waiting("first", Some("n"));
    world.fake.until::<Pod>(|pods| pods.len() == 3).await;
    world.put_waiting("second", Some("n"));
    world.fake.until::<Job>(|jobs| active(jobs, Some(2))).await;
    assert_eq!(world.fake.all::<Pod>().len(), 4);
}

#[tokio::test]
async fn a_job_completes_and_frees_its_pods() {
    let world = run(json!({"completions": 7, "parallelism": 3}), |_| exits(0), |job| is(job, "Complete")).await;
    let job = &world.fake.all::<Job>()[0];
    let status = job.status.as_ref().unwrap();
    assert_eq!((status.succeeded, status.failed, status.active), (Some(7), None, None));
    assert!(is(job, "SuccessCriteriaMet") && status.completion_time.is_some());
    let pods = world.fake.all::<Pod>();
    assert!(pods.len() == 7 && !pods.iter().any(member::is_tracked));
}

#[tokio::test]
async fn a_job_fails_with_its_pods() {
    let spec = json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 0, "backoffLimit": i32::MAX});
    let end = |pod: &Pod| exits(i32::from(member::index(pod) == Some(2)));
    let world = run(spec, end, |job| is(job, "Failed")).await;
    let status = world.fake.all::<Job>()[0].status.clone().unwrap();
    assert_eq!((status.completed_indexes.as_deref(), status.failed_indexes.as_deref()), (Some("0,1,3"), Some("2")));
    assert_eq!((status.succeeded, status.failed, status.uncounted_terminated_pods), (Some(3), Some(1), Some(Default::default())));
}

/// A pod may lose its job before the job is seen to end: then it looks as if the job would adopt it again.
#[tokio::test]
async fn what_a_job_would_adopt_is_freed_when_it_goes() {
    let world = World::new();
    let job = job(json!({"completions": 1}), json!({}));
    let labels = job.spec.as_ref().unwrap().selector.as_ref().unwrap().match_labels.clone();
    world.fake.put(&job);
    for (name, labels) in [("selected", json!(labels)), ("other", json!({}))] {
        world.fake.put::<Pod>(&object(json!({
            "metadata": {"namespace": "a", "name": name, "uid": name, "labels": labels, "finalizers": [member::TRACKING]},
            "spec": {"containers": []}, "status": {"phase": "Succeeded"},
        })));
    }
    world.start(&["job-orphaned-pods"]);
    let tracked = |pods: &[Pod]| {
        pods.iter().filter(|pod| member::is_tracked(pod)).map(|pod| meta::name(pod).to_owned()).collect::<Vec<_>>()
    };
    world.fake.until::<Pod>(|pods| tracked(pods) == ["selected"]).await;
    let api: Api<Job> = Api::namespaced(world.fake.client(), "a");
    api.delete(meta::name(&job), &Default::default()).await.unwrap();
    world.fake.until::<Pod>(|pods| tracked(pods).is_empty()).await;
}

/// Conformance: [sig-apps] Job should adopt matching orphans and release non-matching pods [Conformance]
#[tokio::test]
async fn pods_are_adopted_and_let_go() {
    let world = World::new();
    world.fake.put(&job(json!({"completions": 2, "parallelism": 2}), json!({})));
    world.start(&["job", "job-orphaned-pods"]);
    let owned = |pod: &Pod| meta::controller_of(pod).is_some() && member::is_tracked(pod);
    world.fake.until::<Pod>(|pods| pods.len() == 2 && pods.iter().all(owned)).await;
    let api: Api<Pod> = Api::namespaced(world.fake.client(), "a");
    let patch = |name: String, meta: Value| {
        let api = api.clone();
        async move {
            let patch = kube::api::Patch::Merge(json!({"metadata": meta}));
            api.patch(&name, &Default::default(), &patch).await.unwrap();
        }
    };
    let name = world.fake.all::<Pod>()[0].metadata.name.clone().unwrap();
    patch(name.clone(), json!({"ownerReferences": null})).await;
    world.fake.until::<Pod>(|pods| pods.len() == 2 && pods.iter().all(owned)).await;
    patch(name.clone(), json!({"labels": null})).await;
    let free = |pod: &&Pod| meta::name(*pod) == name && !owned(pod) && !member::is_tracked(pod);
    world.fake.until::<Pod>(|pods| pods.iter().any(|pod| free(&pod)) && pods.iter().filter(|pod| owned(pod)).count() == 2).await;
}

#[tokio::test]
async fn pods_of_a_job_that_is_gone_are_freed() {
    let world =
        run(json!({"completions": 1}), |_| None, |job| job.status.as_ref().is_some_and(|status| status.active == Some(1))).await;
    let api: Api<Job> = Api::namespaced(world.fake.client(), "a");
    api.delete("work", &Default::default()).await.unwrap();
    world.fake.until::<Pod>(|pods| pods.iter().all(|pod| !member::is_tracked(pod))).await;
}

#[tokio::test]
async fn other_managers_are_left_alone() {
    let world = World::new();
    let mut other = job(json!({"completions": 1, "managedBy": "example.com/other"}), json!({}));
    world.fake.put(&other);
    other.metadata.name = Some("own".to_owned());
    other.metadata.uid = Some("own".to_owned());
    other.spec.as_mut().unwrap().managed_by = Some(NAME.to_owned());
    world.fake.put(&other);
    world.start(&["job"]);
    let runs = |job: &Job| job.status.as_ref().is_some_and(|status| status.active == Some(1));
    world.fake.until::<Job>(|jobs| jobs.iter().any(runs)).await;
    assert!(!world.fake.all::<Job>().iter().any(|job| meta::name(job) == "work" && runs(job)));
    assert_eq!(world.fake.all::<Pod>().len(), 1);
}
