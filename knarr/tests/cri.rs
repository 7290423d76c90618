//! The node's runtime at a socket of the Container Runtime Interface, as crictl uses it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use base::tasks::Tasks;
use cri::messages::calls::Call;
use cri::messages::*;
use grpc::{Channel, Code, Endpoint, Error};
use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const IMAGE: &str = "127.0.0.1:5000/busybox:1.36";

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "127.0.0.1:5000/busybox:1.36", command: [sleep, "1000"]}]
"#;

/// A client with a runtime of its own.
struct Client {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Client {
    fn new(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let channel = Channel::new(Endpoint::new(socket.to_str().unwrap()), 4 << 20, Tasks::root().0);
        Self { runtime, channel }
    }

    fn ask<C: Call>(&self, request: &C) -> Result<C::Answer, Error> {
        self.runtime.block_on(self.channel.call(C::METHOD, request, Duration::from_secs(30)))
    }

    fn say<C: Call>(&self, request: &C) -> C::Answer {
        self.ask(request).unwrap()
    }

    fn containers(&self, name: &str) -> Vec<Container> {
        let filter = ContainerFilter {
            label_selector: [("io.kubernetes.container.name".into(), name.into())].into(),
            ..Default::default()
        };
        self.say(&ListContainersRequest { filter: Some(filter) }).containers
    }
}

fn image() -> Option<ImageSpec> {
    Some(ImageSpec { image: IMAGE.into(), ..Default::default() })
}

fn sandbox(logs: &Path) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata { name: "own".into(), uid: "own-1".into(), namespace: "default".into(), attempt: 1 }),
        hostname: "named".into(),
        log_directory: logs.to_str().unwrap().into(),
        labels: [("a".into(), "b".into())].into(),
        annotations: [("x".into(), "y".into())].into(),
        ..Default::default()
    }
}

/// Sandboxes and containers of clients live and end as those of containerd; those of pods are seen, and the kubelet starts again what a
/// client has stopped.
#[test]
fn clients_of_the_container_runtime_interface() {
    let c = Cluster::start(KNARR);
    let socket = c.machine().path(&c.run_dir().join("cri.sock"));
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let client = Client::new(&socket);
    let version = client.say(&VersionRequest::default());
    assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("knarr", "v1"));
    let conditions = client.say(&StatusRequest::default()).status.unwrap().conditions;
    assert!(conditions.len() == 2 && conditions.iter().all(|condition| condition.status), "{conditions:?}");

    client.say(&PullImageRequest { image: image(), ..Default::default() });
    let found = client.say(&ImageStatusRequest { image: image(), ..Default::default() }).image.unwrap();
    assert_eq!(found.repo_tags, [IMAGE]);

    let logs = c.scratch().join("logs");
    fs::create_dir_all(&logs).unwrap();
    let config = sandbox(&logs);
    let run = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
    let pod_sandbox_id = client.say(&run).pod_sandbox_id;
    assert!(client.ask(&run).is_err(), "the pod has a sandbox of this attempt");
    let of = |id: &str| PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: true };
    let status = client.say(&of(&pod_sandbox_id[..8])).status.unwrap();
    assert_eq!(
        (status.id.as_str(), &status.labels, &status.annotations),
        (pod_sandbox_id.as_str(), &config.labels, &config.annotations)
    );
    assert!(status.network.unwrap().ip.starts_with("10.42."));

    let script = "trap 'echo again' USR2; trap 'exit 4' USR1; echo $$ > /tmp/pid; echo $V $(hostname) $(id -u); while :; do sleep 1000 & wait; done";
    let mount = |host_path: &str| Mount {
        host_path: host_path.into(),
        container_path: "/m".into(),
        readonly: true,
        ..Default::default()
    };
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: image(),
        command: ["sh", "-c", script].map(str::to_owned).into(),
        envs: vec![KeyValue { key: "V".into(), value: "said".into() }],
        labels: [("l".into(), "1".into())].into(),
        log_path: "c.log".into(),
        mounts: vec![mount(logs.to_str().unwrap())],
        stop_signal: Signal::SigUsr1.into(),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                run_as_user: Some(Int64Value { value: 7 }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let create =
        CreateContainerRequest { pod_sandbox_id: pod_sandbox_id.clone(), config: Some(container), sandbox_config: Some(config) };
    let lacks = CreateContainerRequest {
        config: create.config.clone().map(|config| ContainerConfig { mounts: vec![mount("/no/such/path")], ..config }),
        ..create.clone()
    };
    assert_eq!(client.ask(&lacks).unwrap_err().code, Code::InvalidArgument);
    let container_id = client.say(&create).container_id;
    client.say(&StartContainerRequest { container_id: container_id.clone() });
    eventually("the container says something", || {
        fs::read_to_string(logs.join("c.log")).is_ok_and(|log| log.contains("stdout F said named 7")).then_some(())
    });
    let exec = |command: &[&str], timeout| ExecSyncRequest {
        container_id: container_id.clone(),
        cmd: command.iter().map(|word| (*word).to_owned()).collect(),
        timeout,
    };
    let answer = client.say(&exec(&["sh", "-c", "echo out; echo err >&2; exit 3"], 10));
    assert_eq!((&answer.stdout[..], &answer.stderr[..], answer.exit_code), (&b"out\n"[..], &b"err\n"[..], 3));
    assert_eq!(client.ask(&exec(&["sleep", "60"], 1)).unwrap_err().code, Code::DeadlineExceeded);
    let url = client
        .say(&ExecRequest { container_id: container_id.clone(), cmd: vec!["true".into()], stdout: true, ..Default::default() })
        .url;
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    let status = || client.say(&ContainerStatusRequest { container_id: container_id.clone(), verbose: false }).status.unwrap();
    let (mounts, limit) = (status().mounts, LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() });
    assert_eq!((mounts.len(), mounts[0].container_path.as_str(), mounts[0].readonly), (1, "/m", true));
    assert_eq!(status().stop_signal(), Signal::SigUsr1);
    client.say(&UpdateContainerResourcesRequest { container_id: container_id.clone(), linux: Some(limit), ..Default::default() });
    let limits = status().resources.unwrap().linux.unwrap();
    assert_eq!(limits.memory_limit_in_bytes, 64 << 20, "the one that it has now");
    let shares = LinuxContainerResources { cpu_shares: 300, ..Default::default() };
    client.say(&UpdateContainerResourcesRequest {
        container_id: container_id.clone(),
        linux: Some(shares),
        ..Default::default()
    });
    let limits = status().resources.unwrap().linux.unwrap();
    assert_eq!((limits.cpu_shares, limits.memory_limit_in_bytes), (300, 64 << 20), "what is not given stays");

    // Who moves a log away says so, and it goes on under its name.
    fs::rename(logs.join("c.log"), logs.join("c.old")).unwrap();
    client.say(&ReopenContainerLogRequest { container_id: container_id.clone() });
    client.say(&exec(&["sh", "-c", "kill -USR2 $(cat /tmp/pid)"], 10));
    eventually("the log goes on", || {
        fs::read_to_string(logs.join("c.log")).is_ok_and(|log| log.ends_with("stdout F again\n")).then_some(())
    });
    assert!(!fs::read_to_string(logs.join("c.old")).unwrap().contains("again"));
    let stats = client.say(&ContainerStatsRequest { container_id: container_id.clone() }).stats.unwrap();
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
    client.say(&StopContainerRequest { container_id: container_id.clone(), timeout: 60 });
    let ended = status();
    assert_eq!((ended.state(), ended.exit_code), (ContainerState::Exited, 4), "by its own signal");
    let reopen = ReopenContainerLogRequest { container_id: container_id.clone() };
    assert_eq!(client.ask(&reopen).unwrap_err().code, Code::Other(9), "what has ended writes no more");
    for _ in 0..2 {
        client.say(&RemoveContainerRequest { container_id: container_id.clone() });
        client.say(&StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() });
    }
    client.say(&RemovePodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() });
    client.say(&RemovePodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() });
    assert_eq!(client.ask(&of(&pod_sandbox_id)).unwrap_err().code, Code::NotFound);
    assert_eq!(client.ask(&CheckpointContainerRequest::default()).unwrap_err().code, Code::Unimplemented);

    c.k_with("apply -f -", POD);
    c.k("wait --for=condition=Ready pod/web --timeout=60s");
    let first = client.containers("main").pop().unwrap();
    assert_eq!(first.labels["io.kubernetes.pod.name"], "web");
    client.say(&StopContainerRequest { container_id: first.id.clone(), timeout: 0 });
    eventually("the kubelet starts it again", || {
        (c.k("get pod web -o jsonpath={.status.containerStatuses[0].restartCount}") == "1").then_some(())
    });
    c.k("wait --for=condition=Ready pod/web --timeout=60s");
    assert!(client.containers("main").iter().any(|one| one.id != first.id && one.state() == ContainerState::Running));
}
