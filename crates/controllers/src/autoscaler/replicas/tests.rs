use super::*;
use crate::testing::object;
use serde_json::json;

fn now() -> Timestamp {
    Timestamp::from_second(100_000).unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    Timestamp::from_second(100_000 - seconds).unwrap()
}

/// Pods `p0`, `p1`... by words: `ready`, `starting` (unready since its start, a minute ago), `fresh` (ready for too short a time),
/// `lost` (unready after it was ready), `Pending`, `Failed`, `deleted`.
fn pods(words: &str, request: &str) -> Vec<Arc<Pod>> {
    let pod = |(index, word): (usize, &str)| {
        let (phase, ready, started, changed) = match word {
            "ready" => ("Running", "True", 3600, 3000),
            "starting" => ("Running", "False", 60, 60),
            "fresh" => ("Running", "True", 60, 5),
            "lost" => ("Running", "False", 3600, 10),
            "never" => ("Running", "False", 3600, 3590),
            "Pending" => ("Pending", "False", 10, 10),
            "Failed" => ("Failed", "False", 3600, 10),
            _ => ("Running", "True", 3600, 3000),
        };
        let deleted = (word == "deleted").then(|| ago(1));
        Arc::new(object(json!({
            "metadata": {"name": format!("p{index}"), "deletionTimestamp": deleted},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": request}}}]},
            "status": {"phase": phase, "startTime": ago(started),
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": ago(changed)}]}})))
    };
    words.split(' ').enumerate().map(pod).collect()
}

/// Of pods `p0`, `p1`...; what is negative is not known.
fn metrics(values: &[i64]) -> PodMetrics {
    let metric = |value| PodMetric { value, at: now(), window: SignedDuration::from_secs(30) };
    let known = values.iter().enumerate().filter(|(_, value)| **value >= 0);
    known.map(|(index, value)| (format!("p{index}"), metric(*value))).collect()
}

fn scaled(pods: &[Arc<Pod>], replicas: i32) -> Scaled<'_> {
    Scaled { pods, replicas, tolerances: Tolerances { up: 0.1, down: 0.1 }, now: now() }
}

/// Of pods that request a core: replicas, percent and average for a target in percent.
#[track_caller]
fn check(words: &str, values: &[i64], target: i32, expected: (i32, i32, i64)) {
    let pods = pods(words, "1");
    let result = scaled(&pods, pods.len() as i32).by_utilization(metrics(values), target, "cpu", None).unwrap();
    assert_eq!((result.replicas, result.utilization, result.average), expected, "{words} {values:?}");
}

/// Upstream's `TestReplicaCalc*`.
#[test]
fn utilization_of_ready_pods() {
    let three = "ready ready ready";
    check(three, &[300, 500, 700], 30, (5, 50, 500));
    check(three, &[300, 300, 300], 30, (3, 30, 300));
    check(three, &[320, 320, 320], 30, (3, 32, 320));
    check(three, &[340, 340, 340], 30, (4, 34, 340));
    check("ready ready ready ready ready", &[100, 300, 500, 250, 250], 50, (3, 28, 280));
    check(three, &[1010, 1030, 1020], 100, (3, 102, 1020));
}

#[test]
fn pods_that_start_hold_growth_back() {
    check("ready starting starting", &[700, 500, 700], 30, (3, 70, 700));
    check("ready ready starting", &[700, 500, 700], 30, (4, 60, 600));
    check("ready ready fresh", &[700, 500, 700], 30, (4, 60, 600));
    check("ready ready Pending", &[700, 500, -1], 30, (4, 60, 600));
    // They do not count when fewer are wanted.
    check("ready ready starting", &[100, 100, 900], 50, (1, 10, 100));
    // A pod that is unready now but was ready counts; one that never was does not.
    check("ready ready lost", &[600, 600, 600], 30, (6, 60, 600));
    check("ready ready never", &[600, 600, 600], 30, (4, 60, 600));
    check("ready ready ready Failed deleted", &[300, 500, 700, 900, 900], 30, (5, 50, 500));
}

#[test]
fn missing_pods_are_assumed_at_their_mildest() {
    // Fewer: as if they used all that they request.
    check("ready ready ready ready", &[100, 100, 100, -1], 50, (3, 10, 100));
    check("ready ready ready", &[400, 400, -1], 50, (3, 40, 400));
    // More: as if they used nothing.
    check("ready ready ready", &[900, 900, -1], 50, (4, 90, 900));
    check("ready ready ready", &[550, 570, -1], 50, (3, 56, 560));
    check("ready starting ready", &[1000, 900, -1], 20, (5, 100, 1000));
}

#[test]
fn what_is_not_known_is_told() {
    let check = |words: &str, values: &[i64], request: &str, expected: &str| {
        let pods = if words.is_empty() { Vec::new() } else { pods(words, request) };
        let result = scaled(&pods, 1).by_utilization(metrics(values), 50, "cpu", None);
        assert_eq!(result.map_err(|error| error.to_string()), Err(expected.to_owned()));
    };
    check("", &[], "1", "no pods returned by selector while calculating replica count");
    check("ready", &[], "1", "did not receive metrics for targeted pods (pods might be unready)");
    check("Pending", &[5], "1", "did not receive metrics for targeted pods (pods might be unready)");
    check("ready", &[5], "0", "no metrics returned matched known pods");
    let bare = [Arc::new(object(json!({"metadata": {"name": "p0"}, "spec": {"containers": [{"name": "c"}]}, "status": {
        "phase": "Running", "startTime": ago(3600), "conditions": [{"type": "Ready", "status": "True"}]}})))];
    let result = scaled(&bare, 1).by_utilization(metrics(&[5]), 50, "cpu", None);
    assert_eq!(result.unwrap_err().to_string(), "missing request for cpu in container c of Pod p0");
    let whole = [Arc::new(object(json!({"metadata": {"name": "p0"}, "status": bare[0].status, "spec": {
        "containers": [{"name": "c"}], "resources": {"requests": {"cpu": "100m"}}}})))];
    assert_eq!(scaled(&whole, 1).by_utilization(metrics(&[80]), 50, "cpu", None).unwrap().utilization, 80);
}

#[test]
fn averages_values_and_shares() {
    let (three, four) = (pods("ready ready ready", "1"), pods("ready ready Pending ready", "1"));
    let average = |values: &[i64], target| scaled(&three, 3).by_average(metrics(values), target, None).unwrap();
    assert_eq!(average(&[20_000, 10_000, 30_000], 15_000), (4, 20_000));
    assert_eq!(average(&[20_000, 20_000, 20_000], 19_000), (3, 20_000));
    assert_eq!(average(&[1000, 1000, -1], 10_000), (2, 1000));
    // Without CPU, a pod that starts is a pod like others.
    let starting = pods("ready starting", "1");
    assert_eq!(scaled(&starting, 2).by_average(metrics(&[100, 100]), 50, None), Ok((4, 100)));
    assert_eq!(scaled(&starting, 2).by_average(metrics(&[100, 100]), 50, Some("cpu")), Ok((2, 100)));

    let value = |pods: &[Arc<Pod>], replicas, usage, target| scaled(pods, replicas).by_value(usage, target);
    assert_eq!(value(&three, 3, 20_000, 15_000), Ok(4));
    assert_eq!(value(&four, 4, 20_000, 15_000), Ok(4));
    assert_eq!(value(&three, 3, 15_500, 15_000), Ok(3));
    // From nothing, and to nothing.
    assert_eq!(value(&[], 0, 20_000, 15_000), Ok(2));
    assert_eq!(value(&three, 3, 0, 15_000), Ok(0));
    assert_eq!(value(&[], 3, 30_000, 15_000), Err(Unknown::Unselected));

    let share = |replicas, usage, target| scaled(&three, replicas).by_share(usage, target);
    assert_eq!(share(3, 8_600, 2_000), (5, 2_867));
    assert_eq!(share(3, 6_200, 2_000), (3, 2_067));
    assert_eq!(share(0, 6_200, 2_000).0, 4);
}

/// KEP-4951: each direction has a tolerance of its own.
#[test]
fn tolerances_of_each_direction() {
    let pods = pods("ready ready", "1");
    let check = |up, down, value, expected| {
        let scaled = Scaled { tolerances: Tolerances { up, down }, ..scaled(&pods, 2) };
        assert_eq!(scaled.by_utilization(metrics(&[value, value]), 50, "cpu", None).unwrap().replicas, expected);
    };
    check(0.1, 0.1, 560, 3);
    check(0.2, 0.1, 560, 2);
    check(0.2, 0.1, 220, 1);
    check(0.2, 0.6, 220, 2);
    check(0.0, 0.0, 510, 3);
}

#[test]
fn one_container_of_a_pod() {
    let pod = [Arc::new(object(json!({"metadata": {"name": "p0"}, "status": pods("ready", "1")[0].status, "spec": {
        "containers": [{"name": "a", "resources": {"requests": {"cpu": "200m"}}}, {"name": "b"}],
        "initContainers": [{"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}}]}})))];
    let of = |container| scaled(&pod, 1).by_utilization(metrics(&[100]), 50, "cpu", container).map(|one| one.utilization);
    assert_eq!(of(Some("a")), Ok(50));
    assert_eq!(of(Some("side")), Ok(200));
    assert!(of(None).is_err());
}
