//! What the kubelet asks of a container runtime, in the shape of the Container Runtime Interface (CRI v1).

mod container;
mod edits;
mod hooks;
mod sandbox;
mod usage;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

pub use container::{
    AppArmor, Container, ContainerConfig, ContainerState, Features, ImageSource, MASKED_PATHS, Mount, ProcessUser, Propagation,
    READONLY_PATHS, Seccomp, SecurityContext, User,
};
pub(crate) use edits::RESERVED;
pub use edits::{ContainerEdits, Device, DeviceKind, DeviceNumbers};
pub use hooks::{HOOK_TIMEOUT, Hook, HookStage};
pub use sandbox::{Bandwidth, HostPort, IdRange, NamespaceMode, PodIdentity, Sandbox, SandboxConfig, SandboxState};
pub use usage::{CpuUsage, IoUsage, MemoryUsage, Pressure, ProcessUsage, Stall, Stalls, Ulimit, Usage, Usages};

use crate::disk::DiskUsage;

/// Why a runtime operation failed. The variants are those a user sees as a waiting reason or an event.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No such sandbox, container or image.
    #[error("{0} not found")]
    NotFound(String),
    /// The image is used by containers.
    #[error("{0}")]
    InUse(String),
    /// The image reference is not one.
    #[error("{0}")]
    InvalidImageName(String),
    /// The image could not be pulled (ErrImagePull); says what the registry said.
    #[error("{0}")]
    ImagePull(String),
    /// No registry has an image of this name: all say so, or nothing is where they should be (ErrImagePull).
    #[error("{0}")]
    ImageNotFound(String),
    /// The registry could not be reached.
    #[error("{0}")]
    RegistryUnavailable(String),
    /// The container could not be created (CreateContainerError).
    #[error("{0}")]
    Create(String),
    /// The process could not be started: no such command, not executable (RunContainerError; exit code 128 like runc).
    #[error("{0}")]
    Start(String),
    /// The operation did not end in time.
    #[error("timed out: {0}")]
    Timeout(String),
    /// The runtime or the kernel does not offer this.
    #[error("{0}")]
    Unsupported(String),
    /// Anything else.
    #[error("{0}")]
    Internal(String),
}

/// Result of a runtime operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Limits of a container or pod; none or 0 is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU time per period, microseconds.
    pub cpu_quota: Option<i64>,
    /// Period, microseconds.
    pub cpu_period: Option<u64>,
    /// Processors that it runs on, as the kernel writes them (`0-3,8`); all where nobody says. Of containers only.
    #[serde(default)]
    pub cpus: Option<String>,
    /// NUMA nodes whose memory it uses, written like [`Self::cpus`]; all where nobody says. Of containers only.
    #[serde(default)]
    pub memory_nodes: Option<String>,
    /// Relative weight, cgroup v1 scale (2 to 262144).
    pub cpu_shares: Option<u64>,
    /// Bytes of memory.
    pub memory_limit: Option<i64>,
    /// Most processes and threads.
    pub pids_limit: Option<i64>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Bytes of huge pages by page size, as the kernel writes it (`2MB`, `1GB`).
    #[serde(default)]
    pub huge_pages: BTreeMap<String, u64>,
}

/// An image on this node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its configuration, `sha256:...`.
    pub id: String,
    /// `repository:tag` names.
    pub tags: Vec<String>,
    /// `repository@digest` names.
    pub digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// The image's user without its group; none is root.
    pub user: Option<User>,
    /// Pinned images are never collected.
    pub pinned: bool,
    /// What a pull tells: the nodes that have given layers of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
}

/// Credentials for one registry.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

/// Standard streams of an exec or attach session. Dropping it detaches.
pub struct Streams {
    /// Writes to standard input.
    pub stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// Reads standard output (everything, with a terminal).
    pub stdout: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Reads standard error.
    pub stderr: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Terminal sizes, (columns, rows).
    pub resize: mpsc::Sender<(u16, u16)>,
    /// The exit code, 128 + signal when killed. Resolves with an error when the session was cut off. For an attach: when the container ends.
    pub exit: oneshot::Receiver<Result<i32>>,
}

/// What to execute in a running container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Command and arguments.
    pub command: Vec<String>,
    /// A terminal.
    pub tty: bool,
    /// Wants standard input.
    pub stdin: bool,
    /// Wants standard output.
    pub stdout: bool,
    /// Wants standard error.
    pub stderr: bool,
}

/// Output of a command that ran to its end, as much of it as was asked for.
#[derive(Clone, Debug, Default)]
pub struct ExecOutput {
    /// Exit code.
    pub exit_code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// Something happened to a container or sandbox: look again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// UID of the pod that it concerns.
    pub pod_uid: String,
}

/// A container runtime.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Name and version, for `Node.status.nodeInfo.containerRuntimeVersion`, such as `knarr://0.1.0`.
    fn version(&self) -> String;

    /// What containers can have here.
    fn features(&self) -> Features;

    /// Whether the handler (`spec.runtimeClassName`'s handler) is there; the error says what to install.
    async fn check_handler(&self, handler: &str) -> Result<()>;

    /// Makes a sandbox with its namespaces and network. Repeating it with the same pod and attempt gives the same one.
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox>;
    /// Kills what is left of its containers and releases the network. Idempotent.
    async fn stop_sandbox(&self, id: &str) -> Result<()>;
    /// Removes a stopped sandbox and its containers. Idempotent.
    async fn remove_sandbox(&self, id: &str) -> Result<()>;
    /// All sandboxes, also of pods that are long gone.
    async fn sandboxes(&self) -> Result<Vec<Sandbox>>;

    /// Changes the limits of the cgroup of a sandbox while its containers run. Fails, and changes nothing for good, where the pod uses
    /// more memory than it may from now on.
    async fn update_sandbox(&self, id: &str, resources: Resources) -> Result<()>;

    /// Sets limits of a cgroup above those of pods, such as `kubepods/burstable`; makes it when it is not there.
    async fn limit_group(&self, group: &str, limits: Resources) -> Result<()>;

    /// Makes a container.
    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<Container>;
    /// Starts it.
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Changes the limits of a running container, and what of its configuration the kubelet wants back. Fails where it uses more
    /// memory than it may from now on.
    async fn update_container(&self, id: &str, resources: Resources, annotations: BTreeMap<String, String>) -> Result<()>;
    /// Moves a container that was made, or runs, to other processors, as [`Resources::cpus`] writes them.
    async fn pin_container(&self, id: &str, cpus: &str) -> Result<()>;
    /// What a container changed of its image, on disk.
    async fn container_disk_usage(&self, id: &str) -> Result<DiskUsage>;
    /// Sends `signal`, or that of [`ContainerConfig::stop_signal`], or the image's; after `grace` SIGKILL; returns when the container has ended. Idempotent.
    async fn stop_container(&self, id: &str, grace: Duration, signal: Option<&str>) -> Result<()>;
    /// Opens the log of a running container again: its file was moved away.
    async fn reopen_log(&self, id: &str) -> Result<()>;
    /// What a container was made from, with the limits and annotations that it has now. Only the built-in runtime tells.
    async fn container_config(&self, id: &str) -> Result<ContainerConfig>;
    /// Removes an ended container. Idempotent.
    async fn remove_container(&self, id: &str) -> Result<()>;
    /// One container.
    async fn container(&self, id: &str) -> Result<Container>;
    /// The containers of one sandbox, or of all.
    async fn containers(&self, sandbox: Option<&str>) -> Result<Vec<Container>>;

    /// Containers that ran before the machine was started again, all of them ended, each with the UID of its pod. Their sandboxes are gone. They
    /// are told of until the pod has a sandbox again or [`Runtime::forget_past`] is called. Other runtimes keep sandboxes instead.
    async fn past_containers(&self) -> Result<Vec<(String, Container)>> {
        Ok(Vec::new())
    }
    /// Nobody asks any more for the pod's containers of before the machine was started again. Idempotent.
    async fn forget_past(&self, _pod_uid: &str) -> Result<()> {
        Ok(())
    }

    /// What pods and running containers have used, read now. What ends meanwhile is left out.
    async fn usages(&self) -> Result<Usages>;
    /// What all pods below a cgroup like that of [`Runtime::limit_group`] have used together, read now.
    async fn group_usage(&self, group: &str) -> Result<Usage>;
    /// What the processes of running containers have open, by container, read now. It takes a look at each open file.
    async fn process_usages(&self) -> Result<BTreeMap<String, ProcessUsage>>;
    /// A directory on the file system that holds images and what containers change of them.
    fn image_directory(&self) -> PathBuf;

    /// Runs a command to its end, for probes and hooks, whatever it leaves behind, and keeps the first `limit` bytes of each stream. On timeout it is killed.
    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration, limit: usize) -> Result<ExecOutput>;
    /// Runs a command with its streams. The session ends with the streams: children that the command has left may still write.
    async fn exec(&self, id: &str, request: ExecRequest) -> Result<Streams>;
    /// Attaches to the running container's streams.
    async fn attach(&self, id: &str, request: ExecRequest) -> Result<Streams>;
    /// A TCP connection to `port` on the pod's loopback address.
    async fn dial(&self, sandbox: &str, port: u16) -> Result<tokio::net::TcpStream>;

    /// Pulls an image and returns it. Layers already here are not fetched again; pulls of one digest are shared.
    async fn pull_image(&self, reference: &str, credentials: &[Credentials]) -> Result<Image>;
    /// Takes an image that was imported by this name on another node; none when no node has it. No registry is asked.
    async fn take_image(&self, reference: &str) -> Result<Option<Image>>;
    /// An image by reference, digest or identifier; none when it is not here.
    async fn image(&self, reference: &str) -> Result<Option<Image>>;
    /// All images.
    async fn images(&self) -> Result<Vec<Image>>;
    /// Removes an image. Fails while a container uses it.
    async fn remove_image(&self, id: &str) -> Result<()>;

    /// Container and sandbox changes from now on. A slow reader is told of the pods that it missed, it never blocks the runtime.
    fn events(&self) -> BoxStream<'static, RuntimeEvent>;
}

/// Connects sandboxes to the pod network; the built-in runtime calls it.
#[async_trait]
pub trait PodNetwork: Send + Sync {
    /// Sets up interfaces, addresses, routes, host ports and bandwidth in the namespace at `netns`, and the sysctls of these interfaces
    /// ([`SandboxConfig::sysctls`]; all others are set before). Idempotent for one `sandbox`.
    async fn attach(&self, sandbox: &str, netns: &Path, config: &SandboxConfig) -> Result<Vec<IpAddr>>;
    /// Releases everything of `sandbox`, also when the namespace is gone. Idempotent.
    async fn detach(&self, sandbox: &str) -> Result<()>;
}
