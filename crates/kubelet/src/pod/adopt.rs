//! A pod that ran before this kubelet started.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStatus;
use runtime::api::{Container, ContainerState, SandboxState};

use super::found::{Found, ended};
use super::state::{Cause, Ending, State, Step};
use super::status::{SCHEME, Times};
use crate::clock;
use crate::spec::Model;

/// The state of a pod that may have run before this kubelet started: nothing that runs is touched.
/// `longest` is the longest delay before a container is started again.
pub(super) fn adopt(model: &Model, found: Found, longest: Duration, Times { now, shown }: Times) -> State {
    let status = model.pod.status.clone().unwrap_or_default();
    let start_time = status.start_time.as_ref().map_or(shown, |time| time.0);
    let past = |time: Timestamp| clock::by(time, shown, now).min(now);
    let mut state =
        State { start_time: Some(start_time), begun: Some(past(start_time)), longest_delay: Some(longest), ..State::default() };
    let Found { mut sandboxes, mut containers, rounds } = found;
    sandboxes.sort_by_key(|sandbox| sandbox.attempt);
    state.attempt = sandboxes.last().map_or(0, |sandbox| sandbox.attempt + 1);
    let ready = sandboxes.pop();
    containers.sort_by_key(|container| container.attempt);
    let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    for told in lists.into_iter().flatten().flatten() {
        let slot = state.slot(&told.name);
        slot.inherited = Some(told.clone());
        let ran = told.container_id.as_deref().is_some_and(|id| !id.is_empty());
        slot.attempt = u32::try_from(told.restart_count).unwrap_or(0) + u32::from(ran);
    }
    for (name, first) in &rounds {
        state.slot(name).round = *first;
    }
    for container in containers {
        let is_of_round = rounds.get(&container.name).is_none_or(|first| container.attempt >= *first);
        let in_newest = is_of_round && ready.as_ref().is_none_or(|sandbox| sandbox.id == container.sandbox);
        let slot = state.slot(&container.name.clone());
        if in_newest {
            slot.observe(container);
        } else {
            slot.attempt = slot.attempt.max(container.attempt + 1);
            slot.previous = Some(container);
        }
        if slot.running() {
            // Its hook has run, and until a probe says otherwise it is what it was.
            slot.hook = Step::Done(());
            slot.started = slot.inherited.as_ref().is_some_and(|told| told.started == Some(true));
            slot.ready = slot.inherited.as_ref().is_some_and(|told| told.ready);
        }
    }
    if !ended(&status) {
        remember(&mut state, ready.is_some());
    }
    if let Some(sandbox) = ready {
        let mut told = status.conditions.iter().flatten();
        state.had_volumes = told.any(|told| told.type_ == "PodReadyToStartContainers" && told.status == "True");
        let serves = sandbox.state == SandboxState::Ready;
        state.sandbox = Step::Done(sandbox);
        if !serves && !ended(&status) {
            state.lose_sandbox();
        }
    }
    for slot in state.slots.values_mut() {
        slot.ended = slot.end().map(past);
        slot.previous_ended = slot.previous.as_ref().map(|previous| past(previous.finished.unwrap_or(previous.created)));
    }
    if ended(&status) {
        state.ending = Some(Ending::new(Cause::Completed, now));
    }
    state
}

/// After a restart of the machine there is no sandbox, and the runtime may know nothing: what the API was told of containers that ran takes its
/// place, unless the runtime knows how the same ones ended, or later ones.
fn remember(state: &mut State, has_sandbox: bool) {
    for (name, slot) in &mut state.slots {
        let known = slot.current.as_ref().or(slot.previous.as_ref()).map(|container| container.attempt);
        let told = slot.inherited.as_ref().and_then(|told| from_status(name, told));
        let told = told.filter(|told| known.is_none_or(|known| !has_sandbox && known < told.attempt));
        state.bereft |= told.is_some() || !has_sandbox && slot.current.is_some();
        if let Some(container) = told {
            slot.observe(container);
        }
    }
}

/// The container that a status tells of, ended. None when it tells of none, or of one that waits to be made again.
fn from_status(name: &str, told: &ContainerStatus) -> Option<Container> {
    let shown = told.state.as_ref()?;
    let id = told.container_id.as_deref()?.strip_prefix(SCHEME)?.to_owned();
    let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| time.as_ref().map(|time| time.0);
    let (started, finished, code, reason) = match (&shown.terminated, &shown.running) {
        (Some(end), _) => (time(&end.started_at), time(&end.finished_at), end.exit_code, end.reason.clone().unwrap_or_default()),
        // It ended with the machine; when nobody knows.
        (None, Some(running)) => (time(&running.started_at), time(&running.started_at), 255, "Unknown".to_owned()),
        (None, None) => return None,
    };
    Some(Container {
        id,
        sandbox: String::new(),
        name: name.to_owned(),
        attempt: u32::try_from(told.restart_count).unwrap_or(0),
        state: ContainerState::Exited,
        created: started.unwrap_or_default(),
        started,
        finished,
        exit_code: Some(code),
        signal: None,
        reason,
        message: shown.terminated.as_ref().and_then(|end| end.message.clone()).unwrap_or_default(),
        image: String::new(),
        image_digest: told.image_id.clone(),
        image_reference: told.image.clone(),
        log_path: Default::default(),
        annotations: Default::default(),
        pid: None,
        user: None,
        stop_signal: told.stop_signal.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::plan::{advance, plan};
    use crate::pod::testing::{at, container, sandbox};
    use serde_json::{Value, json};
    use std::sync::Arc;

    /// What a kubelet begins with when it finds a pod that was reported as running with container `a` in `state`.
    #[track_caller]
    fn check(policy: &str, told: Value, found: Found, expected: &[&str], attempt: u32) {
        let id = if told.get("waiting").is_none() { "knarr://1" } else { "" };
        let count = told.get("restartCount").cloned().unwrap_or(json!(0));
        let status = json!({"phase": "Running", "containerStatuses": [{"name": "a", "restartCount": count, "ready": false,
            "image": "img", "imageID": "", "containerID": id, "state": told}]});
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "status": status,
            "spec": {"restartPolicy": policy, "containers": [{"name": "a", "image": "img"}]}});
        let model = Model::new(Arc::new(serde_json::from_value(pod).unwrap()));
        let mut state = adopt(&model, found, crate::backoff::MAX, Times { now: at(100), shown: at(100) });
        advance(&model, &mut state, false, at(100));
        let actions = plan(&model, &state, at(100)).actions;
        let words: Vec<_> = actions.iter().map(|action| format!("{action:?}").split('(').next().unwrap().to_owned()).collect();
        assert_eq!(words, expected);
        assert_eq!(state.slots["a"].attempt, attempt);
    }

    #[test]
    fn a_restarted_machine_runs_what_the_policy_restarts() {
        let running = || json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        let ended = |code: i32| json!({"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:00:00Z"}});
        let begins = ["RunSandbox", "MountVolumes", "EnsureImage"];
        check("Always", running(), Found::default(), &begins, 1);
        check("OnFailure", running(), Found::default(), &begins, 1);
        check("OnFailure", ended(0), Found::default(), &["Unmount"], 1);
        check("Never", running(), Found::default(), &["Unmount"], 1);
    }

    #[test]
    fn what_was_told_of_volumes_holds_for_the_sandbox_that_is_there() {
        let check = |told: &str, sandboxes: Vec<runtime::api::Sandbox>, expected: bool| {
            let conditions = json!([{"type": "PodReadyToStartContainers", "status": told}]);
            let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [{"name": "a"}]},
                "status": {"phase": "Pending", "conditions": conditions}});
            let model = Model::new(Arc::new(serde_json::from_value(pod).unwrap()));
            let found = Found { sandboxes, ..Found::default() };
            let state = adopt(&model, found, crate::backoff::MAX, Times { now: at(100), shown: at(100) });
            assert_eq!(state.had_volumes, expected);
        };
        check("True", vec![sandbox()], true);
        check("False", vec![sandbox()], false);
        check("True", vec![], false);
        check("True", vec![runtime::api::Sandbox { state: SandboxState::NotReady, ..sandbox() }], false);
    }

    /// Pod Lifecycle: `OnFailure` "only restarts the container if it exits with an error".
    #[test]
    fn what_ended_before_the_machine_did_has_ended_as_it_did() {
        let running = || json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        let waits = || json!({"waiting": {"reason": "ContainerCreating"}});
        let past = |attempt: u32, code: i32| {
            let id = if attempt == 1 { "0" } else { "1" };
            let container = Container { sandbox: "gone".to_owned(), ..crate::pod::testing::ended(id, "a", attempt, code) };
            Found { containers: vec![container], ..Found::default() }
        };
        let begins = ["RunSandbox", "MountVolumes", "EnsureImage"];
        check("OnFailure", running(), past(0, 0), &["Unmount"], 1);
        check("Never", running(), past(0, 1), &["Unmount"], 1);
        check("OnFailure", running(), past(0, 1), &begins, 1);
        check("Always", running(), past(0, 0), &begins, 1);
        // The API was told of none yet, of an earlier one, of a later one.
        check("OnFailure", waits(), past(0, 0), &["Unmount"], 1);
        check("OnFailure", running(), past(3, 0), &["Unmount"], 4);
        let later = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}, "restartCount": 2});
        check("OnFailure", later, past(1, 0), &begins, 3);
    }

    #[test]
    fn a_dead_sandbox_runs_what_the_policy_restarts() {
        let running = || json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        let dead = || {
            let sandbox = runtime::api::Sandbox { state: SandboxState::NotReady, ..sandbox() };
            let killed = Container { exit_code: Some(137), ..container("1", "a", 0, ContainerState::Exited) };
            Found { sandboxes: vec![sandbox], containers: vec![killed], ..Found::default() }
        };
        check("Always", running(), dead(), &["RemoveLost", "MountVolumes", "EnsureImage"], 1);
        check("Never", running(), dead(), &["StopSandbox"], 1);
    }

    #[test]
    fn a_container_that_was_made_is_started_and_not_made_again() {
        let containers = vec![container("1", "a", 0, ContainerState::Created)];
        let made = Found { sandboxes: vec![sandbox()], containers, ..Found::default() };
        check("Always", json!({"waiting": {"reason": "ContainerCreating"}}), made, &["MountVolumes", "EnsureImage"], 0);
    }

    /// KEP-5532: "If kubelet restarted in the Startup Phase, it proceeds normally".
    #[test]
    fn what_ended_before_a_restart_of_all_is_not_taken_for_an_end_after_it() {
        let of_round = |first: Option<u32>| Found {
            sandboxes: vec![sandbox()],
            containers: vec![Container { exit_code: Some(137), ..container("1", "a", 0, ContainerState::Exited) }],
            rounds: first.map(|first| ("a".to_owned(), first)).into_iter().collect(),
        };
        let running = || json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        check("Never", running(), of_round(Some(1)), &["MountVolumes", "EnsureImage"], 1);
        check("Never", running(), of_round(Some(0)), &["StopSandbox"], 1);
        check("Never", running(), of_round(None), &["StopSandbox"], 1);
    }
}
