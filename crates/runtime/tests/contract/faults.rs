//! Restarts and deaths.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use runtime::api::{ContainerState, PodNetwork, Resources, Runtime, SandboxConfig, SandboxState};

use serde_json::json;

use crate::support::{LONG, Node, log_text, shim_of, until};

/// A limit that the kernel does not take, here of pages of a size that it does not have, is no limit.
#[tokio::test(flavor = "multi_thread")]
async fn huge_pages_that_cannot_be_limited_are_refused() {
    let Some(node) = Node::start().await else { return };
    let mut pod = node.pod("huge");
    pod.resources.huge_pages = [("3MB".to_owned(), 6 << 20)].into();
    let error = node.engine().run_sandbox(pod).await.unwrap_err().to_string();
    let told = ["hugetlb.3MB.", " to 6291456: "].iter().all(|words| error.contains(words));
    assert!(told, "{error}");
    assert!(node.engine().sandboxes().await.unwrap().is_empty());
    let mut pod = node.pod("none");
    pod.resources.huge_pages = [("3MB".to_owned(), 0)].into();
    node.engine().run_sandbox(pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_the_engine() {
    let Some(mut node) = Node::start().await else { return };
    let sandbox = node.sandbox("restart").await;
    let stays = node.run(&sandbox, "stays", "touch /ready; until test -e /go; do sleep 0.02; done; echo bye; exit 2").await;
    let ends =
        node.run(&sandbox, "ends", "touch /ready; until test -e /dev/shm/go; do sleep 0.02; done; echo late; exit 3").await;
    let created = node.engine().create_container(&sandbox, node.config("created", "exit 5")).await.unwrap().id;
    node.wait_ready(&stays).await;
    let pid = node.engine().container(&stays).await.unwrap().pid;
    let log = node.engine().container(&ends).await.unwrap().log_path;

    node.close().await;
    // One ends while nobody is there.
    let shm = node.dir.path().join("run/sandboxes").join(&sandbox).join("memory/shm/go");
    let state = node.dir.path().join("data/containers").join(&ends).join("state.json");
    std::fs::write(shm, "").unwrap();
    until("the shim records the end", || std::fs::read_to_string(&state).unwrap().contains("Error")).await;
    assert_eq!(log_text(&log), "late\n");

    node.open().await;
    assert_eq!(node.engine().sandboxes().await.unwrap()[0].state, SandboxState::Ready);
    assert_eq!(node.ended(&ends).await.exit_code, Some(3));
    let container = node.engine().container(&stays).await.unwrap();
    assert_eq!((container.state, container.pid), (ContainerState::Running, pid));
    assert_eq!(node.engine().container(&created).await.unwrap().state, ContainerState::Created);
    node.engine().start_container(&created).await.unwrap();
    assert_eq!(node.ended(&created).await.exit_code, Some(5));
    node.exec(&stays, "touch /go").await;
    let ended = node.ended(&stays).await;
    assert_eq!((ended.exit_code, log_text(&ended.log_path).as_str()), (Some(2), "bye\n"));
    node.engine().remove_sandbox(&sandbox).await.unwrap();
}

/// An upgrade puts another program in the place of this one, or none, while this one runs on: its pods go on to start, and containers
/// and commands in those that run.
#[tokio::test(flavor = "multi_thread")]
async fn pods_start_when_the_file_of_the_program_is_gone() {
    let Some(mut node) = Node::start().await else { return };
    let program = node.dir.path().join("program");
    std::fs::copy(&node.helper, &program).unwrap();
    node.close().await;
    node.helper = program.clone();
    node.open().await;
    let before = node.sandbox("before").await;
    std::fs::remove_file(&program).unwrap();
    for name in ["removed", "replaced"] {
        let sandbox = node.sandbox(name).await;
        for sandbox in [&before, &sandbox] {
            let container = node.run(sandbox, name, "touch /ready; until test -e /go; do sleep 0.02; done; exit 4").await;
            node.wait_ready(&container).await;
            node.exec(&container, "touch /go").await;
            assert_eq!(node.ended(&container).await.exit_code, Some(4));
        }
        std::fs::copy("/bin/false", &program).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_containers_along() {
    let Some(mut node) = Node::start().await else { return };
    for restart in [false, true] {
        let name = format!("killed-{restart}");
        let sandbox = node.sandbox(&name).await;
        let id = node.run(&sandbox, "main", "sleep 1000").await;
        let pid = node.engine().container(&id).await.unwrap().pid.unwrap();
        let mut events = node.engine().events();
        let shim = shim_of(&node, &sandbox);
        if restart {
            node.close().await;
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::SIGKILL).unwrap();
        if restart {
            node.open().await;
        } else {
            let event = tokio::time::timeout(LONG, events.next()).await.unwrap().unwrap();
            assert_eq!(event.pod_uid, format!("uid-{name}"));
        }
        let ended = node.ended(&id).await;
        assert_eq!((ended.exit_code, ended.message.as_str()), (Some(137), "the pod's shim was killed"));
        until("its process dies", || !Path::new(&format!("/proc/{pid}/root")).exists() || is_zombie(pid)).await;
        let states = node.engine().sandboxes().await.unwrap();
        assert!(states.iter().any(|s| s.id == sandbox && s.state == SandboxState::NotReady));
        node.engine().remove_sandbox(&sandbox).await.unwrap();
    }
}

/// The server can be killed between the two: the sandbox is recorded as lost, its containers are not.
#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_sandbox_that_is_known_to_be_lost_have_ended() {
    let Some(mut node) = Node::start().await else { return };
    let sandbox = node.sandbox("lost").await;
    let id = node.run(&sandbox, "main", "sleep 1000").await;
    let shim = shim_of(&node, &sandbox);
    node.close().await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::SIGKILL).unwrap();
    let record = node.dir.path().join("run/sandboxes").join(&sandbox).join("sandbox.json");
    let text = std::fs::read_to_string(&record).unwrap();
    assert!(text.contains("\"Ready\""), "{text}");
    std::fs::write(&record, text.replace("\"Ready\"", "\"NotReady\"")).unwrap();
    node.open().await;
    let ended = node.ended(&id).await;
    assert_eq!((ended.exit_code, ended.message.as_str()), (Some(137), "the pod's shim was killed"));
    node.engine().remove_sandbox(&sandbox).await.unwrap();
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_cut_off_is_not_begun_twice() {
    let Some(mut node) = Node::start().await else { return };
    let sandbox = node.sandbox("cut").await;
    for pause in [0, 2, 5, 10, 20] {
        let name = format!("main-{pause}");
        let id = node.engine().create_container(&sandbox, node.config(&name, "sleep 1000")).await.unwrap().id;
        // The request is on its way, or at the shim, or answered when the engine ends.
        let engine = node.engine().clone();
        let (runtime, asked) = (tokio::runtime::Handle::current(), id.clone());
        let start = runtime.spawn(async move { engine.start_container(&asked).await });
        tokio::time::sleep(Duration::from_millis(pause)).await;
        node.abandon().await;
        start.abort();
        node.open().await;
        node.engine().start_container(&id).await.unwrap();
        assert_eq!(node.engine().container(&id).await.unwrap().state, ContainerState::Running);
        let output = node.exec(&id, "ps | grep -c 'sleep 100[0]'").await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n");
    }
}

/// How a container ended is on disk before anybody hears of it, so that what is done is not done again.
#[tokio::test(flavor = "multi_thread")]
async fn ends_outlive_the_machine() {
    let Some(mut node) = Node::start().await else { return };
    let sandbox = node.sandbox("reboot").await;
    let done = node.run(&sandbox, "done", "exit 3").await;
    assert_eq!(node.ended(&done).await.exit_code, Some(3));
    let running = node.run(&sandbox, "running", "touch /ready; sleep 1000").await;
    node.wait_ready(&running).await;
    node.engine().create_container(&sandbox, node.config("made", "exit 5")).await.unwrap();
    node.reboot().await;
    let containers = node.dir.path().join("data/containers");
    // Told again until somebody has done something with it.
    for _ in 0..2 {
        node.open().await;
        assert!(node.engine().sandboxes().await.unwrap().is_empty() && node.engine().containers(None).await.unwrap().is_empty());
        assert_eq!(std::fs::read_dir(&containers).unwrap().count(), 0);
        let mut past = node.engine().past_containers().await.unwrap();
        past.sort_by_key(|(_, container)| container.name.clone());
        let told = |(uid, c): &(String, runtime::api::Container)| (uid.clone(), c.name.clone(), c.state, c.exit_code);
        let of = |name: &str, code: i32| ("uid-reboot".to_owned(), name.to_owned(), ContainerState::Exited, Some(code));
        assert_eq!(past.iter().map(told).collect::<Vec<_>>(), [of("done", 3), of("running", 255)]);
        node.close().await;
    }
    node.open().await;
    node.sandbox("reboot").await;
    assert!(node.engine().past_containers().await.unwrap().is_empty());
    assert_eq!(std::fs::read_dir(node.dir.path().join("data/past")).unwrap().count(), 0);
}

/// The pod network starts after the engine: until then nothing can be attached or released.
struct LateNetwork;

#[async_trait::async_trait]
impl PodNetwork for LateNetwork {
    async fn attach(&self, _: &str, _: &Path, _: &SandboxConfig) -> runtime::api::Result<Vec<IpAddr>> {
        std::future::pending().await
    }

    async fn detach(&self, _: &str) -> runtime::api::Result<()> {
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_made_things_are_removed_at_start() {
    let Some(mut node) = Node::start().await else { return };
    node.close().await;
    let sandbox = node.dir.path().join("run/sandboxes/half");
    let container = node.dir.path().join("data/containers/half");
    std::fs::create_dir_all(sandbox.join("memory")).unwrap();
    std::fs::create_dir_all(container.join("rootfs")).unwrap();
    std::fs::write(node.dir.path().join("run/netns/half"), "").unwrap();
    let group = format!("{}/kubepods/podhalf", node.cgroup_root);
    let shim = json!({"new_net": true, "new_ipc": true, "new_uts": true, "new_pid": false, "hostname": "h", "sysctls": {},
        "cgroup": group, "oci_root": "/", "runtime": null});
    std::fs::write(sandbox.join("shim.json"), shim.to_string()).unwrap();
    let hierarchies: &[&str] = if Path::new("/sys/fs/cgroup/cgroup.procs").exists() { &[""] } else { &["cpu", "memory"] };
    let groups: Vec<_> = hierarchies.iter().map(|name| Path::new("/sys/fs/cgroup").join(name).join(&group)).collect();
    groups.iter().for_each(|path| drop(std::fs::create_dir_all(path.join("container"))));
    node.network = Some(Arc::new(LateNetwork));
    tokio::time::timeout(LONG, node.open()).await.expect("the engine opens before the network is there");
    assert!(groups.iter().all(|path| !path.exists()), "its cgroup is gone, with that of a half-made container");
    assert!(!sandbox.exists() && !container.exists());
    assert!(!node.dir.path().join("run/netns/half").exists());
}

/// Killed processes need CPU time to die, of which a fork bomb leaves none.
#[tokio::test(flavor = "multi_thread")]
async fn processes_without_cpu_time_are_killed() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("bomb").await;
    let script = "for i in $(seq 200); do sleep 1000 & done; touch /ready; sleep 1000";
    let id = node.run(&sandbox, "main", script).await;
    node.wait_ready(&id).await;
    // A millisecond for all of them, in each second.
    let limits = Resources { cpu_quota: Some(1000), cpu_period: Some(1_000_000), ..Resources::default() };
    node.engine().update_sandbox(&sandbox, limits).await.unwrap();
    node.engine().stop_container(&id, Duration::ZERO, None).await.unwrap();
    assert_eq!(node.ended(&id).await.exit_code, Some(137));
    let group = format!("{}/kubepods/podbomb", node.cgroup_root);
    let files =
        ["cpu/GROUP/cpu.cfs_quota_us", "GROUP/cpu.max"].map(|file| format!("/sys/fs/cgroup/{}", file.replace("GROUP", &group)));
    let quota = files.iter().find_map(|file| std::fs::read_to_string(file).ok()).unwrap();
    assert!(quota.starts_with("1000"), "the pod's limit holds again: {quota}");
    node.engine().remove_sandbox(&sandbox).await.unwrap();
}
