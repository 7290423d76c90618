use super::*;
use crate::pod::outcome::Outcome;
use crate::pod::plan::advance;
use crate::pod::state::{Ending, Failure};
use crate::pod::testing::{self, at, container, ended, model};
use runtime::api::ContainerState::Running;
use runtime::api::ProcessUser;
use serde_json::{Value, json};

fn times(now: Timestamp) -> Times {
    Times { now, shown: now }
}

fn state(containers: Vec<Container>) -> State {
    let mut state = testing::state(containers);
    state.slots.values_mut().for_each(|slot| slot.ready = slot.running());
    state
}

/// `PHASE container=STATE... Ready=STATUS reason`.
fn summary(status: &PodStatus) -> String {
    let mut words = vec![status.phase.clone().unwrap()];
    for container in status.init_container_statuses.iter().chain(&status.container_statuses).flatten() {
        let state = container.state.clone().unwrap();
        let told =
            state.waiting.and_then(|w| w.reason).or(state.terminated.and_then(|t| t.reason)).unwrap_or("running".to_owned());
        words.push(format!("{}={told}/{}", container.name, container.restart_count));
    }
    let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready").unwrap();
    words.push(format!("{} {}", ready.status, ready.reason.clone().unwrap_or_default()));
    words.join(" ").trim().to_owned()
}

#[track_caller]
fn check(spec: Value, containers: Vec<Container>, expected: &str) {
    let model = model(spec);
    let mut state = state(containers);
    advance(&model, &mut state, false, at(4));
    let status = generate(&model, &state, &PodStatus::default(), &["10.1.0.1".parse().unwrap()], times(at(4)));
    assert_eq!(summary(&status), expected);
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "img"}]})
}

#[test]
fn phases_and_states() {
    check(one("Always"), vec![], "Pending a=ContainerCreating/0 False ContainersNotReady");
    check(one("Always"), vec![container("1", "a", 0, Running)], "Running a=running/0 True");
    check(one("Always"), vec![ended("1", "a", 0, 1)], "Running a=Error/0 False ContainersNotReady");
    check(one("Never"), vec![ended("1", "a", 0, 0)], "Succeeded a=Completed/0 False PodCompleted");
    check(one("Never"), vec![ended("1", "a", 0, 3)], "Failed a=Error/0 False PodFailed");
}

#[test]
fn a_pod_runs_when_its_containers_are_shown_as_running() {
    let model = model(one("Always"));
    let mut state = state(vec![container("1", "a", 0, Running)]);
    let told = |state: &State| summary(&generate(&model, state, &PodStatus::default(), &[], times(at(4))));
    state.slot("a").hook = Step::Idle;
    assert_eq!(told(&state), "Pending a=ContainerCreating/0 False ContainersNotReady");
    state.slot("a").hook = Step::Done(());
    assert_eq!(told(&state), "Running a=running/0 True");
    // The conformance test "Pods should run through the lifecycle of Pods and PodStatus" waits for the phase and expects readiness then.
    (state.slot("a").ready, state.slot("a").unsteady) = (false, true);
    assert_eq!(told(&state), "Pending a=ContainerCreating/0 False ContainersNotReady");
}

/// Upstream's node e2e tests of PodReadyToStartContainers: "a pod failing to mount volumes ... should report just the scheduled condition set".
#[test]
fn containers_may_start_once_sandbox_and_volumes_are_there() {
    let model = model(one("Always"));
    let check = |state: &State, expected: &str| {
        let status = generate(&model, state, &PodStatus::default(), &[], times(at(4)));
        let conditions = status.conditions.unwrap();
        assert_eq!(conditions.iter().find(|c| c.type_ == "PodReadyToStartContainers").unwrap().status, expected);
    };
    let mut state = state(vec![]);
    let no_volume = || Outcome::Volumes(Default::default(), Err("no such volume".to_owned()));
    state.volumes = Step::Busy;
    check(&state, "False");
    state.apply(no_volume(), at(3));
    check(&state, "False");
    state.apply(Outcome::Volumes(Default::default(), Ok(None)), at(3));
    check(&state, "True");
    state.apply(no_volume(), at(4));
    check(&state, "True");
    // A kubelet that starts has not looked at them yet.
    (state.volumes, state.had_volumes) = (Step::Busy, true);
    check(&state, "True");
    state.lose_sandbox();
    state.apply(Outcome::Sandbox(Ok(testing::sandbox())), at(5));
    check(&state, "False");
}

#[test]
fn init_containers() {
    let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "i", "image": "img"}],
        "containers": [{"name": "a", "image": "img"}]});
    let not_ready = "a=PodInitializing/0 False ContainersNotReady";
    check(spec.clone(), vec![], &format!("Pending i=PodInitializing/0 {not_ready}"));
    check(spec.clone(), vec![container("1", "i", 0, Running)], &format!("Pending i=running/0 {not_ready}"));
    check(spec.clone(), vec![ended("1", "i", 0, 1)], "Failed i=Error/0 a=PodInitializing/0 False PodFailed");
    check(spec, vec![ended("1", "i", 0, 0), container("2", "a", 0, Running)], "Running i=Completed/0 a=running/0 True");
}

/// Pod lifecycle, "Init containers": "If the Pod restarts, or is restarted, all init containers must execute again."
#[test]
fn what_has_to_run_again_is_named_as_long_as_its_last_end_is_shown() {
    let sidecar = json!({"name": "s", "image": "img", "restartPolicy": "Always"});
    let spec = json!({"initContainers": [{"name": "i", "image": "img"}, sidecar, {"name": "j", "image": "img"}],
        "containers": [{"name": "a", "image": "img"}]});
    let model = model(spec);
    let told = |state: &State| {
        let status = generate(&model, state, &PodStatus::default(), &[], times(at(4)));
        let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == "Initialized").cloned().unwrap();
        (status.init_container_statuses.unwrap()[0].ready, condition.status, condition.message.unwrap_or_default())
    };
    let check = |state: &State, ready: bool, incomplete: &str| {
        let message = format!("containers with incomplete status: {incomplete}");
        assert_eq!(told(state), (ready, "False".to_owned(), message));
    };
    let mut state = state(vec![ended("1", "i", 0, 0), ended("2", "j", 0, 0)]);
    check(&state, true, "[s]");
    for name in ["i", "j"] {
        state.slot(name).retire();
    }
    check(&state, true, "[i s j]");
    state.slot("i").observe(container("3", "i", 1, Running));
    state.slot("i").hook = Step::Done(());
    check(&state, false, "[i s j]");
    state.slot("i").observe(ended("3", "i", 1, 0));
    check(&state, true, "[s j]");
}

#[test]
fn a_crash_loop_shows_its_delay_and_the_last_end() {
    let model = model(one("Always"));
    let mut state = state(vec![ended("1", "a", 0, 1)]);
    let slot = state.slot("a");
    slot.restarts.next(at(2));
    slot.observe(ended("2", "a", 1, 7));
    let status = generate(&model, &state, &PodStatus::default(), &[], times(at(4)));
    let container = &status.container_statuses.unwrap()[0];
    let waiting = container.state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.message.unwrap(), "back-off 10s restarting failed container=a pod=p_n(u)");
    assert_eq!(container.last_state.clone().unwrap().terminated.unwrap().exit_code, 7);
    assert_eq!(container.restart_count, 1);
}

/// `kubectl get pods -w` of a crash loop: Error, CrashLoopBackOff, and never ContainerCreating.
#[test]
fn the_last_end_is_shown_until_the_next_start() {
    let model = model(one("Always"));
    let told = |state: &State| summary(&generate(&model, state, &PodStatus::default(), &[], times(at(4))));
    let mut state = state(vec![ended("1", "a", 0, 1), container("2", "a", 1, ContainerState::Created)]);
    assert_eq!(told(&state), "Running a=Error/0 False ContainersNotReady");
    state.slot("a").observe(container("2", "a", 1, Running));
    state.slot("a").hook = Step::Idle;
    let status = generate(&model, &state, &PodStatus::default(), &[], times(at(4)));
    let container = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(
        (summary(&status).as_str(), container.container_id.as_deref()),
        ("Running a=Error/0 False ContainersNotReady", Some("knarr://1"))
    );
    state.slot("a").hook = Step::Done(());
    assert!(told(&state).starts_with("Running a=running/1"), "{}", told(&state));
    let mut state = self::state(vec![ended("1", "a", 0, 1), self::container("2", "a", 1, ContainerState::Created)]);
    state.slot("a").failure = Some(Failure::new("RunContainerError".to_owned(), "no".to_owned(), at(4), at(9)));
    assert_eq!(told(&state), "Running a=RunContainerError/1 False ContainersNotReady");
}

/// KEP-4381 and KEP-5004: which claims a pod has is said by others, and the API lets no kubelet change it.
#[test]
fn claims_stay_as_others_say() {
    let claims = json!({"resourceClaimStatuses": [{"name": "a", "resourceClaimName": "b"}],
        "extendedResourceClaimStatus": {"resourceClaimName": "c", "requestMappings": []}});
    let old: PodStatus = serde_json::from_value(claims).unwrap();
    let model = model(one("Always"));
    let mut state = state(vec![container("1", "a", 0, Running)]);
    for refused in [false, true] {
        if refused {
            state.ending = Some(Ending::new(Cause::Rejected("OutOfcpu".to_owned(), String::new()), at(3)));
        }
        let status = generate(&model, &state, &old, &[], times(at(4)));
        assert_eq!(status.reason.is_some(), refused);
        assert_eq!(status.resource_claim_statuses, old.resource_claim_statuses);
        assert_eq!(status.extended_resource_claim_status, old.extended_resource_claim_status);
    }
}

#[test]
fn gates_and_foreign_conditions() {
    let gated = json!({"readinessGates": [{"conditionType": "x/y"}], "containers": [{"name": "a", "image": "img"}]});
    let model = model(gated);
    let state = state(vec![container("1", "a", 0, Running)]);
    let mut old = PodStatus::default();
    for (gate, expected) in [(None, "False"), (Some("False"), "False"), (Some("True"), "True")] {
        old.conditions = gate.map(|status| serde_json::from_value(json!([{"type": "x/y", "status": status}])).unwrap());
        let status = generate(&model, &state, &old, &[], times(at(4)));
        assert_eq!(status.conditions.iter().flatten().find(|c| c.type_ == "Ready").unwrap().status, expected);
        assert_eq!(status.conditions.iter().flatten().any(|c| c.type_ == "x/y"), gate.is_some());
    }
}

#[test]
fn transition_times_stay_while_nothing_changes() {
    let model = model(one("Always"));
    let state = state(vec![container("1", "a", 0, Running)]);
    let first = generate(&model, &state, &PodStatus::default(), &[], times(at(10)));
    let second = generate(&model, &state, &first, &[], times(at(20)));
    assert_eq!(first, second);
}

#[test]
fn a_container_that_never_ran_has_ended_with_its_pod() {
    let mut spec = one("Never");
    spec["activeDeadlineSeconds"] = json!(1);
    check(spec, vec![], "Failed a=ContainerStatusUnknown/0 False PodFailed");
}

/// Conformance: [sig-node] Pods should run through the lifecycle of Pods and PodStatus [Conformance]
#[test]
fn a_pod_stays_ready_while_its_container_is_replaced() {
    let model = model(json!({"containers": [{"name": "a", "image": "other"}]}));
    let mut state = state(vec![container("1", "a", 0, Running)]);
    let before = generate(&model, &state, &PodStatus::default(), &[], times(at(2)));
    let told = |state: &State, now: i64| summary(&generate(&model, state, &before, &[], times(at(now))));
    // Its container ends at second 3.
    state.slot("a").observe(ended("1", "a", 0, 2));
    assert_eq!(told(&state, 3), "Running a=running/0 True");
    assert_eq!(told(&state, 4), "Running a=Error/0 False ContainersNotReady", "the other one takes its time");
    state.slot("a").image =
        Step::Failed(Failure { reason: "ErrImagePull".into(), message: String::new(), at: at(3), retry: at(9) });
    assert_eq!(told(&state, 3), "Running a=ErrImagePull/0 False ContainersNotReady");
    state.slot("a").image = Step::Idle;
    state.slot("a").observe(container("2", "a", 1, Running));
    assert_eq!(told(&state, 3), "Running a=running/0 True", "its hook is not done");
    (state.slot("a").hook, state.slot("a").started) = (Step::Done(()), true);
    assert_eq!(told(&state, 3), "Running a=running/1 False ContainersNotReady", "its own probe counts");
}

#[test]
fn a_container_that_ends_by_itself_is_shown_at_once() {
    let model = model(one("Always"));
    let mut state = state(vec![container("1", "a", 0, Running)]);
    let before = generate(&model, &state, &PodStatus::default(), &[], times(at(2)));
    state.slot("a").observe(ended("1", "a", 0, 2));
    let status = generate(&model, &state, &before, &[], times(at(3)));
    assert_eq!(summary(&status), "Running a=Error/0 False ContainersNotReady");
}

/// Upstream's `UpdatePodStatus` says it of containers and init containers, of which probes may wait for the start.
#[test]
fn whether_it_has_started_is_not_told_of_an_ephemeral_container() {
    let spec = json!({"containers": [{"name": "a", "image": "img"}], "initContainers": [{"name": "i", "image": "img"}],
        "ephemeralContainers": [{"name": "e", "image": "img"}]});
    let state = state(vec![ended("1", "i", 0, 0), container("2", "a", 0, Running), container("3", "e", 0, Running)]);
    let status = generate(&model(spec), &state, &PodStatus::default(), &[], times(at(4)));
    let told = |statuses: &Option<Vec<ContainerStatus>>| statuses.as_ref().unwrap()[0].started.is_some();
    let told = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses].map(told);
    assert_eq!(told, [true, true, false]);
}

/// A registry says as much as it likes: a status that is too large would be written again and again, and never be taken.
#[test]
fn messages_are_bounded() {
    let model = model(json!({"containers": [{"name": "a", "image": "img"}]}));
    let long = || "ä".repeat(2 << 20);
    let size = |state: &State| {
        let status = generate(&model, state, &PodStatus::default(), &[], times(at(4)));
        serde_json::to_vec(&status.container_statuses).unwrap().len()
    };
    let mut state = state(vec![]);
    state.slot("a").reference = Some("img".to_owned());
    state.apply(Outcome::Image("a".to_owned(), Some("img".to_owned()), Err(("ErrImagePull".to_owned(), long()))), at(3));
    assert!((4096..6000).contains(&size(&state)), "a pull that fails");
    state.slot("a").image = Step::Idle;
    let refused = Err(("CreateContainerError".to_owned(), long(), None));
    state.apply(Outcome::Started("a".to_owned(), refused), at(4));
    assert!((4096..6000).contains(&size(&state)), "a start that fails");
    state.slot("a").observe(Container { message: long(), ..ended("1", "a", 3, 2) });
    assert!((4096..11_000).contains(&size(&state)), "a container that has ended");
}

/// Images may say `USER 3000000000`, and volumes may ask for such a group: the API takes neither for one, and takes no status that has it.
#[test]
fn users_beyond_the_api_are_not_told_of() {
    let check = |uid: u32, gid: u32, groups: &[u32], expected: Value| {
        let told = super::user(&ProcessUser { uid, gid, groups: groups.to_vec() });
        assert_eq!(serde_json::to_value(told).unwrap(), expected);
    };
    let linux = |groups: &[i64]| json!({"linux": {"uid": 2_147_483_647, "gid": 0, "supplementalGroups": groups}});
    check(2_147_483_647, 0, &[0, 2_147_483_648, 7], linux(&[0, 7]));
    check(3_000_000_000, 0, &[], json!(null));
    check(0, 2_147_483_648, &[], json!(null));
}
