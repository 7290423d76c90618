//! Jobs and CronJobs on real containers.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

/// A job whose pods run `script`; `spec` is more of its specification, `pod` of its pods'.
fn job(name: &str, spec: &str, pod: &str, script: &str) -> String {
    format!(
        r#"
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  {spec}
  template:
    spec:
      {pod}
      terminationGracePeriodSeconds: 1
      containers:
        - {{name: c, image: "127.0.0.1:5000/busybox:1.36", command: [sh, -c, "{script}"], volumeMounts: [{{name: data, mountPath: /data}}]}}
      volumes: [{{name: data, emptyDir: {{}}}}]
---"#
    )
}

fn get(c: &Cluster, what: &str) -> Value {
    serde_json::from_str(&c.k(&format!("get {what} -o json"))).unwrap()
}

/// The items of a list of pods.
fn pods(c: &Cluster, job: &str) -> Vec<Value> {
    get(c, &format!("pods -l job-name={job}"))["items"].as_array().unwrap().clone()
}

/// Checks parts of a job's status.
#[track_caller]
fn check_status(c: &Cluster, name: &str, expected: &[(&str, Value)]) {
    let job = get(c, &format!("job {name}"));
    for (field, value) in expected {
        assert_eq!(job["status"].get(field).unwrap_or(&Value::Null), value, "{field} of {job}");
    }
}

/// The reason of a condition of a job.
fn reason(c: &Cluster, name: &str, condition: &str) -> String {
    c.k(&format!("get job {name} -o jsonpath={{.status.conditions[?(@.type==\"{condition}\")].reason}}"))
}

/// Conformance: [sig-apps] Job should run a job to completion when tasks sometimes fail and are locally restarted [Conformance]
/// Conformance: [sig-apps] Job should create pods for an Indexed job with completion indexes and specified hostname [Conformance]
/// Conformance: [sig-apps] Job with successPolicy should succeeded when all indexes succeeded [Conformance]
#[test]
fn jobs_complete() {
    let c = Cluster::start(KNARR);
    let restarted = "if test -r /data/foo; then exit 0; else touch /data/foo; exit 1; fi";
    let policy =
        "completions: 2\n  parallelism: 2\n  completionMode: Indexed\n  successPolicy: {rules: [{succeededIndexes: '0-1'}]}";
    let jobs = job("local", "completions: 4\n  parallelism: 2", "restartPolicy: OnFailure", restarted)
        + &job(
            "indexed",
            "completions: 4\n  parallelism: 2\n  completionMode: Indexed",
            "restartPolicy: Never",
            "echo $JOB_COMPLETION_INDEX $(hostname)",
        )
        + &job("policy", policy, "restartPolicy: Never", "exit 0")
        + &job("short", "completions: 1\n  ttlSecondsAfterFinished: 1", "restartPolicy: Never", "exit 0");
    c.k_with("apply -f -", &jobs);
    c.k("wait --for=condition=Complete job/local job/indexed job/policy --timeout=55s");
    check_status(&c, "local", &[("succeeded", 4.into()), ("failed", Value::Null), ("active", Value::Null), ("ready", 0.into())]);
    let finished = pods(&c, "local");
    assert!(finished.len() == 4 && finished.iter().all(|pod| pod["status"]["phase"] == "Succeeded"), "{finished:?}");
    assert!(finished.iter().all(|pod| pod["metadata"].get("finalizers").is_none()), "{finished:?}");

    check_status(&c, "indexed", &[("succeeded", 4.into()), ("completedIndexes", "0-3".into())]);
    let mut said: Vec<_> = pods(&c, "indexed")
        .iter()
        .map(|pod| {
            let index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].as_str().unwrap().to_owned();
            assert_eq!(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"], index);
            assert_eq!(pod["spec"]["hostname"], format!("indexed-{index}"));
            c.k(&format!("logs {}", pod["metadata"]["name"].as_str().unwrap()))
        })
        .collect();
    said.sort();
    assert_eq!(said.concat(), "0 indexed-0\n1 indexed-1\n2 indexed-2\n3 indexed-3\n");

    assert_eq!(
        (reason(&c, "policy", "SuccessCriteriaMet"), reason(&c, "policy", "Complete")),
        ("SuccessPolicy".into(), "SuccessPolicy".into())
    );
    assert_eq!(reason(&c, "local", "Complete"), "CompletionsReached");
    c.k("wait --for=delete job/short --timeout=30s");
    eventually("the pods go with the job", || pods(&c, "short").is_empty().then_some(()));
    let table = c.k("get job local --no-headers");
    assert!(table.contains("Complete") && table.contains("4/4"), "{table}");
    c.told("--field-selector involvedObject.name=local,involvedObject.kind=Job", &["SuccessfulCreate", "Job completed"]);
}

/// Conformance: [sig-apps] Job should execute all indexes despite some failing when using backoffLimitPerIndex [Conformance]
/// Conformance: [sig-apps] Job should mark indexes as failed when the FailIndex action is matched in podFailurePolicy [Conformance]
/// Conformance: [sig-apps] Job should terminate job execution when the number of failed indexes exceeds maxFailedIndexes [Conformance]
/// Conformance: [sig-apps] Job should allow to use the pod failure policy on exit code to fail the job early [Conformance]
#[test]
fn jobs_fail() {
    let c = Cluster::start(KNARR);
    let odd = "exit $((JOB_COMPLETION_INDEX % 2))";
    let indexed = "parallelism: 2\n  completionMode: Indexed";
    let code = |action: &str, code: i32| {
        format!("podFailurePolicy: {{rules: [{{action: {action}, onExitCodes: {{operator: In, values: [{code}]}}}}]}}")
    };
    let never = "restartPolicy: Never";
    let jobs = job("odd", &format!("completions: 4\n  backoffLimitPerIndex: 1\n  {indexed}"), never, odd)
        + &job(
            "index",
            &format!("completions: 2\n  backoffLimitPerIndex: 1\n  {indexed}\n  {}", code("FailIndex", 1)),
            never,
            odd,
        )
        + &job(
            "most",
            &format!("completions: 10\n  backoffLimitPerIndex: 0\n  maxFailedIndexes: 0\n  {indexed}"),
            never,
            "exit 1",
        )
        + &job("early", &format!("completions: 2\n  parallelism: 2\n  {}", code("FailJob", 42)), never, "exit 42")
        + &job("late", "activeDeadlineSeconds: 1", never, "exec sleep 1000")
        + &job("limit", "backoffLimit: 0", never, "exit 1");
    c.k_with("apply -f -", &jobs);
    c.k("wait --for=condition=Failed job/index job/most job/early job/late job/limit job/odd --timeout=58s");
    check_status(
        &c,
        "odd",
        &[("failedIndexes", "1,3".into()), ("completedIndexes", "0,2".into()), ("failed", 4.into()), ("succeeded", 2.into())],
    );
    check_status(&c, "index", &[("failedIndexes", "1".into()), ("completedIndexes", "0".into()), ("failed", 1.into())]);
    let most = get(&c, "job most");
    assert!(most["status"]["failed"].as_i64().unwrap() <= 2 && most["status"].get("succeeded").is_none(), "{most}");
    for (name, expected) in [
        ("odd", "FailedIndexes"),
        ("index", "FailedIndexes"),
        ("most", "MaxFailedIndexesExceeded"),
        ("early", "PodFailurePolicy"),
        ("late", "DeadlineExceeded"),
        ("limit", "BackoffLimitExceeded"),
    ] {
        assert_eq!((reason(&c, name, "FailureTarget").as_str(), reason(&c, name, "Failed").as_str()), (expected, expected));
        check_status(
            &c,
            name,
            &[("active", Value::Null), ("terminating", 0.into()), ("uncountedTerminatedPods", serde_json::json!({}))],
        );
    }
    let message = c.k("get job early -o jsonpath={.status.conditions[?(@.type==\"Failed\")].message}");
    assert!(message.contains("failed with exit code 42 matching FailJob rule at index 0"), "{message}");
}

/// Conformance: [sig-apps] Job with successPolicy succeededIndexes rule should succeeded even when some indexes remain pending [Conformance]
/// Conformance: [sig-apps] Job with successPolicy succeededCount rule should succeeded even when some indexes remain pending [Conformance]
/// Conformance: [sig-apps] Job should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition [Conformance]
#[test]
fn policies_decide() {
    let c = Cluster::start(KNARR);
    let first = "test $JOB_COMPLETION_INDEX = 0 || exec sleep 1000";
    let success = |rule: &str| {
        format!("completions: 5\n  parallelism: 2\n  completionMode: Indexed\n  successPolicy: {{rules: [{{{rule}}}]}}")
    };
    let ignore = "backoffLimit: 0\n  podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: DisruptionTarget}]}]}";
    let never = "restartPolicy: Never";
    let jobs = job("by-index", &success("succeededIndexes: '0'"), never, first)
        + &job("by-count", &success("succeededCount: 1"), never, first)
        + &job("evicted", ignore, never, "exec sleep 1000");
    c.k_with("apply -f -", &jobs);
    c.k("wait --for=condition=Complete job/by-index job/by-count --timeout=55s");
    for name in ["by-index", "by-count"] {
        check_status(&c, name, &[("completedIndexes", "0".into()), ("failed", Value::Null), ("terminating", 0.into())]);
        assert_eq!(reason(&c, name, "Complete"), "SuccessPolicy");
    }
    c.k("wait --for=jsonpath={.status.ready}=1 job/evicted --timeout=30s");
    let before = pods(&c, "evicted")[0].clone();
    let (name, uid) = (before["metadata"]["name"].as_str().unwrap(), before["metadata"]["uid"].clone());
    let eviction =
        format!(r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{name}","namespace":"default"}}}}"#);
    // It stays until the test has seen it.
    c.kubectl(&["patch", "pod", name, "-p", r#"{"metadata":{"finalizers":["example.com/seen"]}}"#]);
    c.k_with(&format!("create --raw /api/v1/namespaces/default/pods/{name}/eviction -f -"), &eviction);
    let condition = "{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}";
    assert_eq!(c.k(&format!("get pod {name} -o jsonpath={condition}")), "EvictionByEvictionAPI");
    let seen = r#"{"metadata":{"$deleteFromPrimitiveList/finalizers":["example.com/seen"]}}"#;
    c.kubectl(&["patch", "pod", name, "-p", seen]);
    eventually("another pod runs in its place", || {
        let running = |pod: &Value| pod["metadata"]["uid"] != uid && pod["status"]["phase"] == "Running";
        pods(&c, "evicted").iter().any(running).then_some(())
    });
    c.k("wait --for=jsonpath={.status.active}=1 job/evicted --timeout=60s");
    check_status(&c, "evicted", &[("failed", Value::Null)]);
    assert_eq!(reason(&c, "evicted", "FailureTarget"), "");
}

/// Conformance: [sig-apps] Job should adopt matching orphans and release non-matching pods [Conformance]
/// Conformance: [sig-apps] Job should delete a job [Conformance]
#[test]
fn pods_belong_to_their_job() {
    let c = Cluster::start(KNARR);
    let run = job("run", "completions: 4\n  parallelism: 2", "restartPolicy: Never", "exec sleep 1000");
    c.k_with("apply -f -", &run);
    c.k("wait --for=jsonpath={.status.ready}=2 job/run --timeout=30s");
    let name = pods(&c, "run")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let patch = |change: &str| c.kubectl(&["patch", "pod", &name, "--type=merge", "-p", change]);
    let owner = || c.k(&format!("get pod {name} -o jsonpath={{.metadata.ownerReferences[*].name}}"));
    patch(r#"{"metadata":{"ownerReferences":null}}"#);
    eventually("the job adopts its pod", || (owner() == "run").then_some(()));
    patch(r#"{"metadata":{"labels":null}}"#);
    eventually("the job lets the pod go", || owner().is_empty().then_some(()));
    assert_eq!(c.k(&format!("get pod {name} -o jsonpath={{.metadata.finalizers}}")), "");
    c.k("wait --for=jsonpath={.status.ready}=2 job/run --timeout=30s");

    c.kubectl(&["patch", "job", "run", "-p", r#"{"spec":{"suspend":true}}"#]);
    c.k("wait --for=condition=Suspended job/run --timeout=30s");
    eventually("a suspended job has no pods", || pods(&c, "run").is_empty().then_some(()));
    check_status(&c, "run", &[("active", Value::Null), ("failed", Value::Null)]);
    // While it has no pods, where they will run can change (KEP-2926).
    let node = r#"{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/os":"linux"}}}}}"#;
    c.kubectl(&["patch", "job", "run", "-p", node]);
    c.kubectl(&["patch", "job", "run", "-p", r#"{"spec":{"suspend":false}}"#]);
    c.k("wait --for=jsonpath={.status.ready}=2 job/run --timeout=30s");
    assert_eq!(reason(&c, "run", "Suspended"), "JobResumed");
    assert!(pods(&c, "run").iter().all(|pod| pod["spec"]["nodeSelector"]["kubernetes.io/os"] == "linux"));

    c.k("delete job run");
    eventually("the pods go with the job", || pods(&c, "run").is_empty().then_some(()));
    c.k(&format!("delete pod {name}"));
}

#[test]
fn cron_jobs_start_jobs() {
    let c = Cluster::start(KNARR);
    let image = "127.0.0.1:5000/busybox:1.36";
    c.kubectl(&["create", "cronjob", "tick", "--image", image, "--schedule", "0 0 1 1 *", "--", "echo", "tock"]);
    c.k("create job now --from=cronjob/tick");
    c.k("wait --for=condition=Complete job/now --timeout=30s");
    assert_eq!(c.k("logs job/now"), "tock\n");
    assert_eq!(c.k("get job now -o jsonpath={.metadata.annotations}"), r#"{"cronjob.kubernetes.io/instantiate":"manual"}"#);

    // It was due at every minute, and nobody was there to start it.
    let missed = r#"{"status":{"lastScheduleTime":"2026-01-01T00:00:00Z"}}"#;
    c.kubectl(&["patch", "cronjob", "tick", "-p", r#"{"spec":{"suspend":true}}"#]);
    c.kubectl(&["patch", "cronjob", "tick", "--subresource=status", "--type=merge", "-p", missed]);
    c.kubectl(&[
        "patch",
        "cronjob",
        "tick",
        "-p",
        r#"{"spec":{"schedule":"* * * * *","timeZone":"Europe/Berlin","successfulJobsHistoryLimit":1}}"#,
    ]);
    assert_eq!(c.k("get jobs -o name"), "job.batch/now\n");
    c.kubectl(&["patch", "cronjob", "tick", "-p", r#"{"spec":{"suspend":false}}"#]);
    // The job that was made by hand belongs to the CronJob too: the history keeps one, and it is the older one.
    c.k("wait --for=delete job/now --timeout=50s");
    let jobs = get(&c, "jobs")["items"].as_array().unwrap().clone();
    let started = jobs.iter().find(|job| job["metadata"]["name"].as_str().unwrap().starts_with("tick-")).unwrap();
    let scheduled = started["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"].as_str().unwrap();
    assert!(scheduled.ends_with("+01:00") || scheduled.ends_with("+02:00"), "{scheduled}");
    assert_eq!(started["metadata"]["ownerReferences"][0]["name"], "tick");
    let succeeded = "get cronjob tick -o jsonpath={.status.lastSuccessfulTime}";
    eventually("a success is told", || (!c.k(succeeded).is_empty()).then_some(()));
    let reasons = ["TooManyMissedTimes", "SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete"];
    c.told("--field-selector involvedObject.name=tick", &reasons);
    c.k("delete cronjob tick");
    eventually("the jobs go with the CronJob", || c.k("get jobs -o name").is_empty().then_some(()));
}
