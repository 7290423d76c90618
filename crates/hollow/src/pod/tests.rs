#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;

const START: i64 = 1_000_000;

fn pod(meta: Value, spec: Value, status: Value) -> Pod {
    serde_json::from_value(json!({"metadata": meta, "spec": spec, "status": status})).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

fn started() -> Value {
    json!({"phase": "Running", "startTime": at(0), "conditions": [{"type": "Ready", "status": "True"}]})
}

#[test]
fn steps_follow_from_the_pod() {
    let once = || json!({"restartPolicy": "Never", "containers": []});
    let long = || json!({"annotations": {RUNS: "90s"}});
    let ends = |grace: i64| json!({"deletionTimestamp": at(0), "deletionGracePeriodSeconds": grace});
    let check = |meta: Value, spec: Value, status: Value, after: i64, expected: Step| {
        let pod = pod(meta.clone(), spec.clone(), status.clone());
        assert_eq!(step(&pod, at(after)), expected, "{meta} {spec} {status} after {after} s");
    };
    let always = || json!({"containers": []});
    check(json!({}), always(), json!({"phase": "Pending"}), 0, Step::Run);
    check(json!({}), always(), started(), 9999, Step::Nothing);
    check(json!({}), always(), json!({"phase": "Running"}), 1, Step::Run);
    check(json!({}), once(), started(), 0, Step::Wait(Duration::from_secs(1)));
    check(json!({}), once(), started(), 1, Step::Finish);
    check(long(), once(), started(), 10, Step::Wait(Duration::from_secs(80)));
    check(long(), once(), started(), 90, Step::Finish);
    check(long(), always(), started(), 90, Step::Nothing);
    check(ends(30), always(), started(), 0, Step::Stop);
    check(ends(30), always(), json!({"phase": "Pending"}), 0, Step::Stop);
    check(ends(30), once(), json!({"phase": "Failed"}), 0, Step::Remove);
    check(ends(0), once(), json!({"phase": "Failed"}), 0, Step::Nothing);
    check(json!({}), once(), json!({"phase": "Succeeded"}), 99, Step::Nothing);
    let gated = || json!({"containers": [], "readinessGates": [{"conditionType": "gate"}]});
    check(json!({}), gated(), started(), 0, Step::Run);
    let open = json!({"phase": "Running", "conditions": [{"type": "gate", "status": "True"}]});
    check(json!({}), gated(), open, 0, Step::Run);
}

#[test]
fn what_is_reported_leads_to_rest() {
    let place = Place { node: Ipv4Addr::new(198, 18, 0, 1), pod: Ipv4Addr::new(100, 64, 0, 1) };
    let spec = json!({"containers": [{"name": "a", "image": "i"}], "initContainers": [{"name": "b", "image": "i"}]});
    let mut one = pod(json!({"generation": 3}), spec, json!({"phase": "Pending"}));
    let status = running(&one, &place, at(0));
    let ready = |all: &Option<Vec<ContainerStatus>>| all.iter().flatten().map(|one| one.ready).collect::<Vec<_>>();
    assert_eq!((ready(&status.container_statuses), ready(&status.init_container_statuses)), (vec![true], vec![true]));
    assert_eq!((status.observed_generation, status.pod_ip.as_deref()), (Some(3), Some("100.64.0.1")));
    one.status = Some(status);
    assert_eq!(step(&one, at(99)), Step::Nothing);
    let ended = over(&one, &place, at(99), TERMINATED);
    assert_eq!((ended.phase.as_deref(), ended.start_time.as_ref().map(|time| time.0)), (Some("Failed"), Some(at(0))));
    assert_eq!((ready(&ended.container_statuses), ready(&ended.init_container_statuses)), (vec![false], vec![true]));
    one.status = Some(ended);
    assert_eq!(step(&one, at(99)), Step::Nothing);
}
