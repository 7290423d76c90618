//! Hooks of containers (OCI runtime specification, runtime.md "Lifecycle").

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::api::{ContainerConfig, Error, Hook, HookStage, Runtime};
use serde_json::Value;

use crate::support::{LONG, Node, shim_of, until};

/// A hook that runs this script by the node's shell.
fn hook(stage: HookStage, script: &str) -> Hook {
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    Hook { stage, path: "/bin/sh".into(), args, env: vec!["PATH=/usr/bin:/bin".into()], timeout: LONG }
}

/// Where each hook of the node adds its name, and leaves the state that it was given.
fn notes(node: &Node) -> PathBuf {
    node.dir.path().join("notes")
}

fn noting(node: &Node, stage: HookStage) -> Hook {
    let (notes, name) = (notes(node).display().to_string(), stage.name());
    hook(stage, &format!("cat > {notes}-{name}; echo {name} >> {notes}"))
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A container with a hook of each of these stages, and others.
fn config(node: &Node, name: &str, stages: &[HookStage], more: Vec<Hook>) -> ContainerConfig {
    let hooks = stages.iter().map(|stage| noting(node, *stage)).chain(more).collect();
    ContainerConfig { hooks, ..node.config(name, "cat /begun; test -e /end") }
}

/// The kubelet makes another one in its place: the two must not run together, however late the first one gets to its start.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_does_not_start_in_time_never_does() {
    let Some(mut node) = Node::start().await else { return };
    node.close().await;
    node.start_limit = Duration::from_secs(1);
    node.open().await;
    let sandbox = node.sandbox("late").await;
    let (go, gone) = (node.dir.path().join("go"), node.dir.path().join("gone"));
    let script = format!("until test -e {}; do sleep 0.02; done; touch {}", go.display(), gone.display());
    let late = ContainerConfig {
        hooks: vec![hook(HookStage::CreateRuntime, &script)],
        ..node.config("main", "touch /dev/shm/ran; sleep 1000")
    };
    let id = node.engine().create_container(&sandbox, late).await.unwrap().id;
    let error = node.engine().start_container(&id).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "{error}");
    assert_eq!(node.ended(&id).await.exit_code, Some(128));

    std::fs::write(&go, "").unwrap();
    let is_helper = |process: std::io::Result<std::fs::DirEntry>| {
        let command = std::fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        command.contains("oci-helper") && command.contains(&id)
    };
    until("the helper ends", || !std::fs::read_dir("/proc").unwrap().any(is_helper)).await;
    assert!(gone.exists(), "the hook has run to its end");
    // Others have the time that they need.
    node.close().await;
    node.start_limit = runtime::START_LIMIT;
    node.open().await;
    let next = node.run(&sandbox, "next", "ls /dev/shm").await;
    let ended = node.ended(&next).await;
    assert_eq!((ended.exit_code, crate::support::log_text(&ended.log_path).as_str()), (Some(0), ""));
    assert_eq!(node.ended(&id).await.exit_code, Some(128), "an end is final");
}

/// Each hook runs once, in the order of the lifecycle, in its namespaces, and "the state of the container MUST be passed to hooks over stdin".
/// When the container's end is told, those for it have run.
#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_in_order() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("hooks").await;
    let in_node =
        [HookStage::Prestart, HookStage::CreateRuntime, HookStage::CreateContainer, HookStage::Poststart, HookStage::Poststop];
    // The image's shell, in the container's root file system, with the container's environment.
    let mut inside = hook(HookStage::StartContainer, "echo $FROM > /begun");
    inside.env.clear();
    let id = node.start_with(&sandbox, config(&node, "all", &in_node, vec![inside])).await;
    let ended = node.ended(&id).await;
    assert_eq!(ended.exit_code, Some(1), "{}", ended.message);
    assert_eq!(crate::support::log_text(&ended.log_path), "image\n");
    let names: Vec<&str> = in_node.into_iter().map(HookStage::name).collect();
    assert_eq!(lines(&notes(&node)), names);
    let state = |stage: HookStage| -> Value {
        let text = std::fs::read(format!("{}-{}", notes(&node).display(), stage.name())).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    for stage in in_node {
        let state = state(stage);
        assert_eq!(state["id"], id, "{state}");
        assert!(Path::new(state["bundle"].as_str().unwrap()).join("config.json").exists(), "{state}");
    }
    assert_eq!(state(HookStage::Poststop)["status"], "stopped");
    assert!(state(HookStage::CreateRuntime)["pid"].as_i64().unwrap() > 1);
}

/// "If any createRuntime hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle" at its deletion: the
/// hooks for the end run, and nothing of the container's program.
#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_fails_stops_the_container() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("fails").await;
    for (number, stage) in HookStage::ALL.into_iter().filter(|stage| *stage != HookStage::Poststop).enumerate() {
        let mut failing = hook(stage, "exit 3");
        failing.timeout = Duration::from_secs(60);
        let made = config(&node, &format!("fails-{number}"), &[HookStage::Poststop], vec![failing]);
        let id = node.engine().create_container(&sandbox, made).await.unwrap().id;
        let error = node.engine().start_container(&id).await.unwrap_err().to_string();
        assert!(error.contains('3') && error.contains("hook"), "{}: {error}", stage.name());
        let ended = node.engine().container(&id).await.unwrap();
        assert_eq!((ended.exit_code, ended.reason.as_str()), (Some(128), "StartError"), "{}", stage.name());
        assert_eq!(lines(&notes(&node)).len(), number + 1, "{}", stage.name());
    }
    // A hook that takes too long is killed.
    let slow = Hook { timeout: Duration::from_secs(1), ..hook(HookStage::CreateRuntime, "exec sleep 100000") };
    let id = node.engine().create_container(&sandbox, config(&node, "slow", &[], vec![slow])).await.unwrap().id;
    let error = node.engine().start_container(&id).await.unwrap_err();
    assert!(matches!(&error, Error::Create(text) if text.contains("timeout")), "{error}");
}

/// Hooks for the end of a container whose shim was killed are run by the engine, and one that fails keeps no other from its work.
#[tokio::test(flavor = "multi_thread")]
async fn hooks_for_the_end_run_without_a_shim() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("killed").await;
    let mut made = config(&node, "stays", &[], vec![hook(HookStage::Poststop, "exit 1"), noting(&node, HookStage::Poststop)]);
    made.command = ["sleep", "100000"].map(str::to_owned).to_vec();
    let id = node.start_with(&sandbox, made).await;
    kill(Pid::from_raw(shim_of(&node, &sandbox)), Signal::SIGKILL).unwrap();
    assert_eq!(node.ended(&id).await.exit_code, Some(137));
    assert_eq!(lines(&notes(&node)), ["poststop"]);
}
