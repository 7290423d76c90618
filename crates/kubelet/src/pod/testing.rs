//! Builders for tests of the pod's pure core.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use runtime::api::{Container, ContainerState, PodIdentity, Sandbox, SandboxState};
use serde_json::{Value, json};

use crate::pod::state::{State, Step};
use crate::spec::Model;

/// A pod `p` in namespace `n` with this specification.
pub(crate) fn model(spec: Value) -> Model {
    let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1}, "spec": spec});
    Model::new(Arc::new(serde_json::from_value(pod).unwrap()))
}

/// A second of the test's clock.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A sandbox that serves.
pub(crate) fn sandbox() -> Sandbox {
    Sandbox {
        id: "sandbox".to_owned(),
        pod: PodIdentity::default(),
        attempt: 0,
        state: SandboxState::Ready,
        created: at(0),
        ips: vec!["10.0.0.2".parse().unwrap()],
        netns: None,
        runtime_handler: String::new(),
        ..Sandbox::default()
    }
}

/// A container made at second 1, started at 2, ended at 3 with code 0.
pub(crate) fn container(id: &str, name: &str, attempt: u32, state: ContainerState) -> Container {
    let exited = state == ContainerState::Exited;
    Container {
        id: id.to_owned(),
        sandbox: "sandbox".to_owned(),
        name: name.to_owned(),
        attempt,
        state,
        created: at(1),
        started: (state != ContainerState::Created).then(|| at(2)),
        finished: exited.then(|| at(3)),
        exit_code: exited.then_some(0),
        signal: None,
        reason: if exited { "Completed".to_owned() } else { String::new() },
        message: String::new(),
        image: "sha256:1".to_owned(),
        image_reference: "img".to_owned(),
        image_digest: String::new(),
        log_path: PathBuf::new(),
        annotations: Default::default(),
        pid: None,
        user: None,
        stop_signal: None,
    }
}

/// Like [`container`], ended with `code`.
pub(crate) fn ended(id: &str, name: &str, attempt: u32, code: i32) -> Container {
    let reason = if code == 0 { "Completed" } else { "Error" };
    let container = container(id, name, attempt, ContainerState::Exited);
    Container { exit_code: Some(code), reason: reason.to_owned(), ..container }
}

/// A pod that was begun at second 0, whose sandbox and volumes are there, with these containers. Hooks have run.
pub(crate) fn state(containers: Vec<Container>) -> State {
    let mut state = State {
        sandbox: Step::Done(sandbox()),
        volumes: Step::Done(()),
        start_time: Some(at(0)),
        begun: Some(at(0)),
        ..Default::default()
    };
    for container in containers {
        let slot = state.slot(&container.name.clone());
        slot.observe(container);
        (slot.hook, slot.started) = (Step::Done(()), slot.running());
    }
    state
}
