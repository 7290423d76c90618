use super::*;
use crate::pod::outcome::Outcome;
use crate::pod::state::Evicted;
use crate::pod::testing::{self, at, container, ended, model};
use runtime::api::ContainerState::{Exited, Running};
use runtime::api::{Container, Image};
use serde_json::{Value, json};

/// A pod whose sandbox, volumes and images are there and whose containers are as given.
fn state(model: &Model, containers: Vec<Container>) -> State {
    let mut state = testing::state(containers);
    for member in model.members.iter() {
        state.slot(&member.spec.name).image = Step::Done(Image::default());
    }
    state
}

/// The plan at second 100 for these containers, in words.
#[track_caller]
fn check(spec: Value, containers: Vec<Container>, expected: &[&str]) {
    let model = model(spec);
    let mut state = state(&model, containers);
    advance(&model, &mut state, false, at(100));
    let words: Vec<String> = plan(&model, &state, at(100)).actions.iter().map(words).collect();
    assert_eq!(words, expected);
}

fn words(action: &Action) -> String {
    match action {
        Action::Start(name) => format!("start {name}"),
        Action::Stop { name, grace, .. } => format!("stop {name} {}s", grace.as_secs()),
        Action::EnsureImage(name) => format!("image {name}"),
        Action::PostStart(name) => format!("hook {name}"),
        other => format!("{other:?}").split(['(', '{']).next().unwrap().trim().to_owned(),
    }
}

#[test]
fn everything_begins_at_once() {
    let model = model(json!({"containers": [{"name": "a", "image": "img"}, {"name": "b", "image": "img"}]}));
    let mut state = State::default();
    let first = plan(&model, &state, at(0)).actions;
    assert_eq!(first.iter().map(words).collect::<Vec<_>>(), ["RunSandbox", "MountVolumes", "image a", "image b"]);
    begin(&mut state, &first, at(0));
    assert_eq!(plan(&model, &state, at(0)), Plan::default());
}

#[test]
fn init_containers_run_in_order() {
    let spec = json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i", "image": "img"}, {"name": "s", "image": "img", "restartPolicy": "Always"}, {"name": "j", "image": "img"}],
        "containers": [{"name": "a", "image": "img"}]});
    check(spec.clone(), vec![], &["start i"]);
    check(spec.clone(), vec![container("1", "i", 0, Running)], &[]);
    check(spec.clone(), vec![ended("1", "i", 0, 0)], &["start s"]);
    check(spec.clone(), vec![ended("1", "i", 0, 0), container("2", "s", 0, Running)], &["start j"]);
    let done = vec![ended("1", "i", 0, 0), container("2", "s", 0, Running), ended("3", "j", 0, 0)];
    check(spec.clone(), done, &["start a"]);
    check(spec.clone(), vec![ended("1", "i", 0, 1)], &["StopSandbox"]);
    let finished = vec![container("2", "s", 0, Running), ended("4", "a", 0, 0)];
    check(spec, finished, &["stop s 30s"]);
}

#[test]
fn containers_start_one_after_the_other() {
    let hook = json!({"postStart": {"exec": {"command": ["wait"]}}});
    let model = model(json!({"containers": [{"name": "proxy", "image": "img", "lifecycle": hook}, {"name": "a", "image": "img"},
        {"name": "b", "image": "img"}]}));
    let mut state = state(&model, vec![]);
    let step = |state: &mut State, second: i64| {
        settle_hooks(&model, state);
        let actions = plan(&model, state, at(second)).actions;
        begin(state, &actions, at(second));
        actions.iter().map(words).collect::<Vec<_>>()
    };
    let run = |state: &mut State, name: &str| {
        state.slot(name).starting = false;
        state.slot(name).observe(container(name, name, 0, Running));
    };
    assert_eq!(step(&mut state, 5), ["start proxy"]);
    assert_eq!(step(&mut state, 5), [""; 0]);
    run(&mut state, "proxy");
    assert_eq!(step(&mut state, 6), ["hook proxy"]);
    assert_eq!(step(&mut state, 6), [""; 0]);
    state.apply(Outcome::Hook("proxy".to_owned(), "proxy".to_owned(), Ok(())), at(9));
    assert_eq!(step(&mut state, 9), ["start a"]);
    // One that cannot be started holds nobody up; the image of a later one is fetched meanwhile.
    state.slot("b").image = Step::Idle;
    assert_eq!(step(&mut state, 9), ["image b"]);
    state.slot("b").image = Step::Done(Image::default());
    state.apply(Outcome::Started("a".to_owned(), Err(("RunContainerError".to_owned(), "no".to_owned(), None))), at(10));
    assert_eq!(step(&mut state, 10), ["start b"]);
}

#[test]
fn containers_restart_by_policy() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "img"}]});
    check(spec("Always"), vec![ended("1", "a", 0, 0)], &["start a"]);
    check(spec("OnFailure"), vec![ended("1", "a", 0, 1)], &["start a"]);
    check(spec("OnFailure"), vec![ended("1", "a", 0, 0)], &["StopSandbox"]);
    check(spec("Never"), vec![ended("1", "a", 0, 1)], &["StopSandbox"]);
}

#[test]
fn crash_loops_wait() {
    let model = model(json!({"containers": [{"name": "a", "image": "img"}]}));
    let mut state = state(&model, vec![ended("1", "a", 0, 1)]);
    let first = plan(&model, &state, at(4));
    assert_eq!(first.actions, [Action::Start("a".to_owned())]);
    begin(&mut state, &first.actions, at(4));
    let slot = state.slot("a");
    slot.starting = false;
    slot.observe(ended("2", "a", 1, 1));
    assert_eq!(plan(&model, &state, at(5)), Plan { actions: vec![], wake: Some(at(13)) });
    assert_eq!(plan(&model, &state, at(13)).actions, [Action::EnsureImage("a".to_owned())]);
}

/// A hook that fails and a program that is not there end a container like a crash: the first restart comes at once, the second after 10 s
/// (Pod Lifecycle, "Container restart policy").
#[test]
fn failed_starts_wait_like_crashes() {
    let model = model(json!({"containers": [{"name": "a", "image": "img"}]}));
    let failed = |made: Container| Err(("RunContainerError".to_owned(), "no such file".to_owned(), Some(Box::new(made))));
    let mut state = state(&model, vec![]);
    let mut start = |made: Container, second: i64| {
        let actions = plan(&model, &state, at(second)).actions;
        assert_eq!(actions, [Action::Start("a".to_owned())], "second {second}");
        begin(&mut state, &actions, at(second));
        state.apply(Outcome::Started("a".to_owned(), failed(made)), at(second));
        state.slot("a").image = Step::Done(Image::default());
        plan(&model, &state, at(second)).wake
    };
    let created = |id: &str, attempt| container(id, "a", attempt, runtime::api::ContainerState::Created);
    assert_eq!(start(created("1", 0), 5), None);
    assert_eq!(start(created("2", 1), 5), Some(at(15)));
    assert_eq!(start(created("3", 2), 15), Some(at(35)));
}

/// Upstream's e2e test: "should have their auto-restart back-off timer reset on image update".
#[test]
fn back_off_belongs_to_what_failed() {
    let spec = |image: &str| model(json!({"containers": [{"name": "a", "image": image}]}));
    let (old, new) = (spec("img"), spec("img2"));
    let mut state = state(&old, vec![ended("1", "a", 3, 1)]);
    advance(&old, &mut state, false, at(4));
    state.slot("a").restarts.next(at(3));
    assert_eq!(plan(&old, &state, at(5)).actions, []);
    advance(&new, &mut state, false, at(5));
    let begun = plan(&new, &state, at(5)).actions;
    assert_eq!(begun, [Action::EnsureImage("a".to_owned())]);
    begin(&mut state, &begun, at(5));
    // The pull of the old image ends late, and fails: that says nothing of the new one.
    let failed = || Err(("ErrImagePull".to_owned(), "no such image".to_owned()));
    state.apply(Outcome::Image("a".to_owned(), Some("img".to_owned()), failed()), at(5));
    assert_eq!(plan(&new, &state, at(5)).actions, begun);
    begin(&mut state, &begun, at(5));
    state.apply(Outcome::Image("a".to_owned(), Some("img2".to_owned()), failed()), at(5));
    assert_eq!(plan(&new, &state, at(6)).actions, []);
    advance(&old, &mut state, false, at(6));
    assert_eq!(plan(&old, &state, at(6)).wake, Some(at(13)));
    assert_eq!(state.slot("a").pulls, Default::default());
}

#[test]
fn unhealthy_and_changed_containers_are_stopped() {
    let spec = json!({"terminationGracePeriodSeconds": 7, "containers": [{"name": "a", "image": "img2"}]});
    check(spec, vec![container("1", "a", 0, Running)], &["stop a 7s"]);
    let model = model(json!({"containers": [{"name": "a", "image": "img"}]}));
    let mut state = state(&model, vec![container("1", "a", 0, Running)]);
    state.slot("a").unhealthy = Some(("liveness", Some(3)));
    let actions = plan(&model, &state, at(5)).actions;
    assert_eq!(actions.iter().map(words).collect::<Vec<_>>(), ["stop a 3s"]);
    begin(&mut state, &actions, at(5));
    assert_eq!(plan(&model, &state, at(5)).actions, []);
}

fn deleted(grace: i64) -> Model {
    let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": grace}, "spec": {"containers": [{"name": "a", "image": "img"}]}});
    Model::new(std::sync::Arc::new(serde_json::from_value(pod).unwrap()))
}

/// What is begun in this second, in words.
fn step(model: &Model, second: i64, state: &mut State) -> Vec<String> {
    advance(model, state, false, at(second));
    let actions = plan(model, state, at(second)).actions;
    begin(state, &actions, at(second));
    actions.iter().map(words).collect()
}

#[test]
fn deletion_runs_to_its_end() {
    let model = deleted(20);
    let mut state = state(&model, vec![container("1", "a", 0, Running)]);
    let step = |second, state: &mut State| step(&model, second, state);
    assert_eq!(step(10, &mut state), ["stop a 20s"]);
    assert!(step(11, &mut state).is_empty());
    state.slot("a").observe(container("1", "a", 0, Exited));
    assert_eq!(step(12, &mut state), ["StopSandbox"]);
    state.ending.as_mut().unwrap().sandbox = Step::Done(());
    assert_eq!(step(12, &mut state), ["Unmount"]);
    state.ending.as_mut().unwrap().volumes = Step::Done(());
    assert!(step(12, &mut state).is_empty());
    state.ending.as_mut().unwrap().reported = true;
    assert_eq!(step(12, &mut state), ["Delete"]);
    assert!(step(12, &mut state).is_empty());
}

/// Upstream's `killPodWithSyncResult` stops the sandbox whatever came of the containers' stops.
#[test]
fn what_the_runtime_does_not_stop_ends_with_its_sandbox() {
    let model = deleted(20);
    let mut state = state(&model, vec![container("1", "a", 0, Running)]);
    let step = |second, state: &mut State| step(&model, second, state);
    let failed = || Outcome::Stopped("a".to_owned(), "1".to_owned(), Err("unknown".to_owned()));
    let fail = |second, state: &mut State| state.apply(failed(), at(second));
    assert_eq!(step(10, &mut state), ["stop a 20s"]);
    fail(11, &mut state);
    assert_eq!(step(15, &mut state), ["stop a 15s"]);
    fail(29, &mut state);
    assert_eq!(step(30, &mut state), ["stop a 0s", "StopSandbox"]);
    assert!(step(31, &mut state).is_empty());
}

#[test]
fn a_shorter_grace_period_wins() {
    let mut state = state(&deleted(20), vec![container("1", "a", 0, Running)]);
    for (model, expected) in [(deleted(20), "stop a 20s"), (deleted(1), "stop a 1s")] {
        advance(&model, &mut state, false, at(10));
        let actions = plan(&model, &state, at(10)).actions;
        assert_eq!(actions.iter().map(words).collect::<Vec<_>>(), [expected]);
        begin(&mut state, &actions, at(10));
    }
}

/// "On the node, Pods that are set to terminate immediately will still be given a small grace period before being force killed" (Pod Lifecycle,
/// forced Pod termination; kubernetes/kubernetes#115819).
#[test]
fn who_is_forced_to_end_has_little_time() {
    let check = |uid: &str, is_deleted_before: bool, expected: &[&str]| {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": uid},
            "spec": {"terminationGracePeriodSeconds": 60, "containers": [{"name": "a", "image": "img"}]}});
        if is_deleted_before {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(60);
        }
        let model = Model::new(std::sync::Arc::new(serde_json::from_value(pod).unwrap()));
        let mut state = state(&model, vec![container("1", "a", 0, Running)]);
        let mut told = Vec::new();
        for removed in [false, true] {
            advance(&model, &mut state, removed, at(10));
            let actions = plan(&model, &state, at(10)).actions;
            begin(&mut state, &actions, at(10));
            told.extend(actions.iter().map(words));
        }
        assert_eq!(told, expected, "{uid}");
    };
    check("a-pod", false, &["stop a 2s"]);
    check("a-pod", true, &["stop a 60s", "stop a 2s"]);
    // The file of a static pod is gone: it ends as if it were deleted.
    check("static", false, &["stop a 60s"]);
}

/// KEP-753: "PreStop hooks will be sent to sidecars before terminating them", at the begin of the pod's termination.
#[test]
fn hooks_of_sidecars_run_while_others_are_stopped() {
    let sidecar =
        json!({"name": "s", "image": "img", "restartPolicy": "Always", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}});
    let plain = json!({"name": "t", "image": "img", "restartPolicy": "Always"});
    let spec = json!({"initContainers": [sidecar, plain], "containers": [{"name": "a", "image": "img"}]});
    let model = model(spec);
    let running = ["s", "t", "a"].into_iter().map(|name| container(name, name, 0, Running)).collect();
    let mut state = state(&model, running);
    state.ending = Some(Ending::new(Cause::Deleted, at(130)));
    let step = |state: &mut State| {
        let actions = plan(&model, state, at(100)).actions;
        begin(state, &actions, at(100));
        actions.iter().map(words).collect::<Vec<_>>()
    };
    assert_eq!(step(&mut state), ["stop a 30s", "PreStop"]);
    state.slot("a").observe(ended("a", "a", 0, 0));
    assert_eq!(step(&mut state), ["stop t 30s"]);
    state.slot("t").observe(ended("t", "t", 0, 0));
    assert_eq!(step(&mut state), [""; 0]);
    state.apply(Outcome::PreStop("s".to_owned(), "s".to_owned()), at(101));
    assert_eq!(step(&mut state), ["stop s 30s"]);
}

/// KEP-753: sidecars wait for their turn no longer than the pod's grace period; then each gets its signal and a last moment.
#[test]
fn sidecars_whose_turn_does_not_come_are_stopped_at_the_end_of_the_grace_period() {
    let sidecar = |name: &str| json!({"name": name, "image": "img", "restartPolicy": "Always"});
    let model = model(json!({"initContainers": [sidecar("s"), sidecar("t")], "containers": [{"name": "a", "image": "img"}]}));
    let mut state = state(&model, ["s", "t", "a"].into_iter().map(|name| container(name, name, 0, Running)).collect());
    state.ending = Some(Ending::new(Cause::Deleted, at(105)));
    let step = |second: i64, state: &mut State| {
        let plan = plan(&model, state, at(second));
        begin(state, &plan.actions, at(second));
        (plan.actions.iter().map(words).collect::<Vec<_>>(), plan.wake)
    };
    assert_eq!(step(100, &mut state), (vec!["stop a 5s".to_owned()], Some(at(105))));
    assert_eq!(step(104, &mut state), (vec![], Some(at(105))));
    assert_eq!(step(105, &mut state), (vec!["stop t 0s".to_owned(), "stop s 0s".to_owned()], None));
    assert_eq!(step(107, &mut state), (vec![], None), "none is stopped twice, however late it is");
}

#[test]
fn the_deadline_fails_the_pod() {
    let model = model(json!({"activeDeadlineSeconds": 50, "containers": [{"name": "a", "image": "img"}]}));
    let mut state = state(&model, vec![container("1", "a", 0, Running)]);
    assert_eq!(plan(&model, &state, at(10)).wake, Some(at(50)));
    advance(&model, &mut state, false, at(50));
    assert!(matches!(&state.ending.as_ref().unwrap().cause, Cause::Failed(reason, _) if reason == "DeadlineExceeded"));
}

#[test]
fn ephemeral_containers_run_once_and_hold_up_nothing() {
    let spec = json!({"initContainers": [{"name": "i", "image": "img"}], "containers": [{"name": "a", "image": "img"}],
        "ephemeralContainers": [{"name": "e", "image": "img"}]});
    check(spec.clone(), vec![container("1", "i", 0, Running)], &["start e"]);
    check(spec.clone(), vec![container("1", "i", 0, Running), ended("2", "e", 0, 0)], &[]);
    check(spec, vec![ended("1", "i", 0, 0), container("2", "a", 0, Running), ended("3", "e", 0, 1)], &[]);
}

#[test]
fn a_stop_that_fails_is_not_repeated_at_once() {
    let model = deleted(20);
    let mut state = state(&model, vec![container("1", "a", 0, Running)]);
    advance(&model, &mut state, false, at(10));
    let actions = plan(&model, &state, at(10)).actions;
    begin(&mut state, &actions, at(10));
    state.apply(Outcome::Stopped("a".to_owned(), "1".to_owned(), Err("no shim".to_owned())), at(10));
    assert_eq!(plan(&model, &state, at(10)), Plan { actions: vec![], wake: Some(at(11)) });
    assert!(matches!(plan(&model, &state, at(11)).actions.as_slice(), [Action::Stop { stage: Stage::Shortened, .. }]));
}

#[test]
fn only_a_hook_takes_a_round_of_its_own() {
    let hook = json!({"postStart": {"exec": {"command": ["true"]}}});
    let model = model(json!({"containers": [{"name": "a", "image": "img"}, {"name": "b", "image": "img", "lifecycle": hook}]}));
    let mut state = state(&model, vec![container("1", "a", 0, Running), container("2", "b", 0, Running)]);
    state.slots.values_mut().for_each(|slot| slot.hook = Step::Idle);
    settle_hooks(&model, &mut state);
    assert_eq!((&state.slots["a"].hook, &state.slots["b"].hook), (&Step::Done(()), &Step::Idle));
    assert_eq!(plan(&model, &state, at(100)).actions.iter().map(words).collect::<Vec<_>>(), ["hook b"]);
}

/// A machine that shuts down does not wait for a pod that has to go anyway, and has longer.
#[test]
fn an_eviction_shortens_an_end_that_has_begun() {
    let model = model(json!({"terminationGracePeriodSeconds": 100, "containers": [{"name": "a", "image": "img"}]}));
    let mut state = State { evicted: Some(Evicted::for_critical_pod()), ..State::default() };
    let mut check = |later: Option<Evicted>, now: i64, deadline: i64| {
        state.evicted = Evicted::merge(state.evicted.take(), later);
        advance(&model, &mut state, false, at(now));
        let ending = state.ending.as_ref().unwrap();
        assert_eq!(ending.deadline, at(deadline));
        assert!(matches!(&ending.cause, Cause::Failed(reason, _) if reason == "Preempting"), "{:?}", ending.cause);
    };
    check(None, 0, 100);
    check(Some(Evicted::for_shutdown(std::time::Duration::from_secs(5))), 10, 15);
    check(None, 12, 15);
}
