#![allow(clippy::unwrap_used)]

use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

use super::*;
use crate::Clock;
use crate::testing::{World, object};

fn cron(spec: Value, status: Value) -> CronJob {
    let mut cron = json!({
        "metadata": {"namespace": "a", "name": "tick", "uid": "u", "creationTimestamp": "2026-01-01T10:00:30Z"},
        "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Allow", "suspend": false, "successfulJobsHistoryLimit": 3,
                 "failedJobsHistoryLimit": 1, "jobTemplate": {"metadata": {"labels": {"l": "1"}}, "spec": {"template": {}}}},
        "status": status,
    });
    for (key, value) in spec.as_object().unwrap() {
        cron["spec"][key] = value.clone();
    }
    object(cron)
}

fn job(name: &str, condition: Option<&str>, start: Option<&str>) -> Arc<Job> {
    let conditions = condition.map(|condition| json!([{"type": condition, "status": "True"}]));
    let owner = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": "u", "controller": true}]);
    Arc::new(object(json!({
        "metadata": {"namespace": "a", "name": name, "uid": name, "ownerReferences": owner},
        "status": {"conditions": conditions, "startTime": start, "completionTime": start.filter(|_| condition == Some("Complete"))},
    })))
}

fn active(names: &[&str]) -> Value {
    json!(names.iter().map(|name| json!({"name": name, "uid": name})).collect::<Vec<_>>())
}

#[test]
fn starts_in_time() {
    let check = |spec: Value, status: Value, now: &str, start: Option<&str>, reasons: &[&str]| {
        let next = plan::next(&cron(spec.clone(), status), format!("2026-01-01T{now}Z").parse().unwrap());
        let found: Vec<_> = next.said.iter().map(|(_, reason, _)| *reason).collect();
        assert_eq!(found, reasons, "{spec} {now}");
        assert_eq!(next.start, start.map(|start| format!("2026-01-01T{start}Z").parse().unwrap()), "{spec} {now}");
        assert_eq!(next.again.is_some(), reasons != ["UnknownTimeZone"] && spec["suspend"] != true);
    };
    let forbid = json!({"concurrencyPolicy": "Forbid"});
    check(json!({}), json!({}), "10:00:50", None, &[]);
    check(json!({}), json!({}), "10:01:00", Some("10:01:00"), &[]);
    check(json!({}), json!({"lastScheduleTime": "2026-01-01T10:01:00Z"}), "10:01:10", None, &[]);
    check(json!({}), json!({"active": active(&["tick-29454361"])}), "10:01:10", None, &[]);
    check(json!({}), json!({"active": active(&["old"])}), "10:01:10", Some("10:01:00"), &[]);
    check(forbid.clone(), json!({"active": active(&["old"])}), "10:01:10", None, &["JobAlreadyActive"]);
    check(forbid, json!({}), "10:01:10", Some("10:01:00"), &[]);
    check(json!({"suspend": true}), json!({}), "10:01:10", None, &[]);
    check(json!({"startingDeadlineSeconds": 15}), json!({}), "10:01:10", Some("10:01:00"), &[]);
    check(json!({"startingDeadlineSeconds": 5}), json!({}), "10:01:10", None, &[]);
    check(json!({"startingDeadlineSeconds": i64::MAX}), json!({}), "10:01:10", Some("10:01:00"), &[]);
    check(json!({}), json!({}), "14:00:00", Some("14:00:00"), &["TooManyMissedTimes"]);
    check(json!({"timeZone": "No/Where"}), json!({}), "10:01:10", None, &["UnknownTimeZone"]);
    check(json!({"schedule": "TZ=UTC * * * * *"}), json!({}), "10:01:10", Some("10:01:00"), &["UnsupportedSchedule"]);
}

#[test]
fn jobs_are_named_by_the_minute() {
    let job = plan::job(&cron(json!({"timeZone": "Europe/Berlin"}), json!({})), "2026-01-01T10:01:00Z".parse().unwrap());
    assert_eq!(job.metadata.name.as_deref(), Some("tick-29454361"));
    assert_eq!(job.metadata.labels, Some([("l".to_owned(), "1".to_owned())].into()));
    let time = job.metadata.annotations.unwrap()["batch.kubernetes.io/cronjob-scheduled-timestamp"].clone();
    assert_eq!(time, "2026-01-01T11:01:00+01:00");
    assert_eq!(job.metadata.owner_references.unwrap()[0].controller, Some(true));
}

#[test]
fn knows_its_jobs() {
    let jobs = [
        job("runs", None, None),
        job("done", Some("Complete"), Some("2026-01-01T11:00:00Z")),
        job("lost", Some("Failed"), None),
        job("new", None, None),
    ];
    let cron = cron(
        json!({}),
        json!({"active": active(&["runs", "done", "lost", "gone"]), "lastSuccessfulTime": "2026-01-01T10:00:00Z"}),
    );
    let (status, said) = plan::review(&cron, &jobs, &HashSet::from(["gone".to_owned()]));
    let names: Vec<_> = status.active.unwrap().into_iter().map(|reference| reference.name.unwrap()).collect();
    assert_eq!(
        (names, status.last_successful_time.unwrap().0.to_string()),
        (vec!["runs".to_owned()], "2026-01-01T11:00:00Z".to_owned())
    );
    let said: Vec<_> = said.into_iter().map(|(_, _, message)| message).collect();
    assert_eq!(
        said,
        [
            "Saw completed job: done, condition: Complete",
            "Saw completed job: lost, condition: Failed",
            "Saw a job that the controller did not create or forgot: new",
            "Active job went missing: gone",
        ]
    );
}

#[test]
fn the_history_has_limits() {
    let check = |spec: Value, expected: &[&str]| {
        let jobs = [
            job("c", Some("Complete"), Some("2026-01-01T03:00:00Z")),
            job("b", Some("Complete"), Some("2026-01-01T02:00:00Z")),
            job("a", Some("Complete"), Some("2026-01-01T02:00:00Z")),
            job("e", Some("Failed"), None),
            job("d", Some("Failed"), Some("2026-01-01T01:00:00Z")),
            job("f", None, None),
        ];
        let surplus = plan::surplus(&cron(spec, json!({})), &jobs);
        assert_eq!(surplus.iter().map(|job| meta::name(job.as_ref())).collect::<Vec<_>>(), expected);
    };
    check(json!({}), &["d"]);
    check(json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0}), &["a", "b", "d", "e"]);
    check(json!({"successfulJobsHistoryLimit": null, "failedJobsHistoryLimit": null}), &[]);
}

/// An API with the controller and this CronJob, and what the tests do to it.
struct Cluster {
    world: World,
}

impl Cluster {
    fn new(now: &str, cron: &CronJob) -> Self {
        let mut world = World::new();
        world.clock = Clock::held(now.parse().unwrap());
        world.fake.put(cron);
        world.start(&["cronjob"]);
        Self { world }
    }

    /// Lets it be `now`, and the controller look at the CronJob.
    async fn at(&self, now: &str) {
        self.world.clock.set(now.parse().unwrap());
        self.patch(json!({"metadata": {"annotations": {"now": now}}})).await;
    }

    async fn patch(&self, change: Value) {
        let api: Api<CronJob> = Api::namespaced(self.world.fake.client(), "a");
        api.patch("tick", &Default::default(), &kube::api::Patch::Merge(change)).await.unwrap();
    }

    /// Waits until there are just these jobs, and the status lists `active` of them.
    async fn until(&self, jobs: &[&str], active: usize) {
        self.world.fake.until::<Job>(|found| names(found) == jobs).await;
        let listed = |cron: &CronJob| cron.status.as_ref().and_then(|status| status.active.as_ref()).map_or(0, Vec::len);
        self.world.fake.until::<CronJob>(|crons| listed(&crons[0]) == active).await;
    }
}

fn names(jobs: &[Job]) -> Vec<&str> {
    let mut names: Vec<_> = jobs.iter().map(meta::name).collect();
    names.sort_unstable();
    names
}

/// Conformance: [sig-apps] CronJob should schedule multiple jobs concurrently [Conformance]
#[tokio::test]
async fn jobs_are_started_minute_by_minute() {
    let cluster = Cluster::new("2026-01-01T10:00:59Z", &cron(json!({}), json!({})));
    cluster.at("2026-01-01T10:01:00Z").await;
    cluster.until(&["tick-29454361"], 1).await;
    cluster.at("2026-01-01T10:02:03Z").await;
    cluster.until(&["tick-29454361", "tick-29454362"], 2).await;
    let status = cluster.world.fake.all::<CronJob>()[0].status.clone().unwrap();
    assert_eq!(status.last_schedule_time.unwrap().0.to_string(), "2026-01-01T10:02:00Z");
}

/// Conformance: [sig-apps] CronJob should replace jobs when ReplaceConcurrent [Conformance]
#[tokio::test]
async fn a_running_job_is_replaced() {
    let cluster = Cluster::new("2026-01-01T10:01:00Z", &cron(json!({"concurrencyPolicy": "Replace"}), json!({})));
    cluster.until(&["tick-29454361"], 1).await;
    cluster.at("2026-01-01T10:02:00Z").await;
    cluster.until(&["tick-29454362"], 1).await;
}

/// Conformance: [sig-apps] CronJob should not schedule new jobs when ForbidConcurrent [Slow] [Conformance]
#[tokio::test]
async fn nothing_is_started_beside_a_running_job() {
    let cluster = Cluster::new("2026-01-01T10:01:00Z", &cron(json!({"concurrencyPolicy": "Forbid"}), json!({})));
    cluster.until(&["tick-29454361"], 1).await;
    cluster.at("2026-01-01T10:02:00Z").await;
    let refused = |event: &Event| event.reason.as_deref() == Some("JobAlreadyActive");
    cluster.world.fake.until::<Event>(|events| events.iter().any(refused)).await;
    cluster.until(&["tick-29454361"], 1).await;
    // When the running job is gone, the last time that was due is made up for.
    let api: Api<Job> = Api::namespaced(cluster.world.fake.client(), "a");
    api.delete("tick-29454361", &DeleteParams::default()).await.unwrap();
    cluster.until(&["tick-29454362"], 1).await;
}

/// Conformance: [sig-apps] CronJob should not schedule jobs when suspended [Slow] [Conformance]
#[tokio::test]
async fn nothing_is_started_while_suspended() {
    let cluster = Cluster::new("2026-01-01T10:01:00Z", &cron(json!({"suspend": true}), json!({})));
    let mut other = cron(json!({}), json!({}));
    other.metadata.name = Some("other".to_owned());
    other.metadata.uid = Some("other".to_owned());
    cluster.at("2026-01-01T10:02:00Z").await;
    // The controller looks at one after the other.
    cluster.world.fake.put(&other);
    cluster.until(&["other-29454362"], 1).await;
    cluster.patch(json!({"spec": {"suspend": false}})).await;
    cluster.until(&["other-29454362", "tick-29454362"], 1).await;
}

/// What a new schedule would have missed is not started: the CronJob is looked at when it is due next.
#[tokio::test]
async fn a_new_schedule_begins_with_its_next_time() {
    let mut world = World::new();
    world.clock = Clock::held("2026-01-01T10:59:30Z".parse().unwrap());
    world.fake.put(&cron(json!({"schedule": "@daily"}), json!({})));
    let controller = CronJobs::new(&world.options().informers, world.clock.clone());
    let queue = crate::queue::Queue::new("test", crate::queue::RETRY_MAX);
    let feeds = futures::future::join_all(controller.sources().into_iter().map(|source| (source.feed)(queue.clone())));
    let cluster = Cluster { world };
    let look = async {
        let next = || async {
            let key = queue.next().await;
            queue.done(&key, std::time::Duration::ZERO);
            key.name
        };
        assert_eq!(next().await, "tick");
        cluster.patch(json!({"spec": {"schedule": "0 11 * * *"}})).await;
        let mut other = cron(json!({}), json!({}));
        other.metadata.name = Some("other".to_owned());
        cluster.world.fake.put(&other);
        assert_eq!(next().await, "other");
        cluster.patch(json!({"spec": {"suspend": true}})).await;
        assert_eq!(next().await, "tick");
    };
    tokio::select! { _ = feeds => {} () = look => {} }
}
