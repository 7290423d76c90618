//! What the kubelet asks of a container runtime, in the shape of the Container Runtime Interface (CRI v1).

mod edits;
mod hooks;
mod usage;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

pub(crate) use edits::RESERVED;
pub use edits::{ContainerEdits, Device, DeviceKind, DeviceNumbers};
pub use hooks::{HOOK_TIMEOUT, Hook, HookStage};
pub use usage::{CpuUsage, MemoryUsage, Usage, Usages};

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

/// Where a namespace of a container comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// Shared by the containers of the pod.
    #[default]
    Pod,
    /// Private to each container (the default for pid).
    Container,
    /// The host's.
    Node,
}

/// Identity of a pod sandbox; also the labels by which it is found again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentity {
    /// Pod name.
    pub name: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod UID.
    pub uid: String,
}

/// A port on the host that leads to the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the host.
    pub host_port: u16,
    /// Host address, all when none.
    pub host_ip: Option<IpAddr>,
}

/// How much a pod may send and receive, bits a second; none is as much as the links carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// What the pod receives.
    pub ingress: Option<u64>,
    /// What the pod sends.
    pub egress: Option<u64>,
}

/// What a sandbox is made from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Whose sandbox it is.
    pub pod: PodIdentity,
    /// How often the sandbox of this pod was made anew.
    pub attempt: u32,
    /// The pod's host name.
    pub hostname: String,
    /// Directory of the pod's log files, `/var/log/pods/NAMESPACE_NAME_UID` by convention.
    pub log_directory: PathBuf,
    /// Contents of the pod's /etc/resolv.conf; none leaves the image's.
    pub resolv_conf: Option<String>,
    /// Host network: no network namespace of its own.
    pub host_network: bool,
    /// Ids of the node that are the pod's users from 0 on; none without a user namespace of its own (KEP-127).
    #[serde(default)]
    pub users: Option<IdRange>,
    /// Host ports that lead to the pod.
    pub host_ports: Vec<HostPort>,
    /// How much the pod may send and receive.
    #[serde(default)]
    pub bandwidth: Bandwidth,
    /// Where the pid namespace comes from.
    pub pid: NamespaceMode,
    /// Where the ipc namespace comes from.
    pub ipc: NamespaceMode,
    /// Namespaced sysctls.
    pub sysctls: BTreeMap<String, String>,
    /// Cgroup of the pod, relative to the runtime's root, such as `kubepods/burstable/podUID`. Its limits are `resources`.
    pub cgroup_parent: String,
    /// Limits of the pod's cgroup.
    pub resources: Resources,
    /// Name of the OCI runtime: empty for the built-in one, else a program such as `runc`.
    pub runtime_handler: String,
    /// Pod labels.
    pub labels: BTreeMap<String, String>,
    /// Pod annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A range of user and group ids of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// Whether a sandbox serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    /// Its namespaces are held.
    Ready,
    /// It was stopped or its shim is gone.
    NotReady,
}

/// A sandbox as the runtime sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sandbox {
    /// Runtime-wide identifier.
    pub id: String,
    /// Whose it is.
    pub pod: PodIdentity,
    /// See [`SandboxConfig::attempt`].
    pub attempt: u32,
    /// State.
    pub state: SandboxState,
    /// When it was made.
    pub created: Timestamp,
    /// Pod addresses, the first is the primary one. Empty on the host network.
    pub ips: Vec<IpAddr>,
    /// Path of the network namespace, none on the host network.
    pub netns: Option<PathBuf>,
    /// See [`SandboxConfig::runtime_handler`].
    pub runtime_handler: String,
    /// Limits of the pod's cgroup, as they are now.
    #[serde(default)]
    pub resources: Resources,
}

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

/// Mount propagation, as in the Pod API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// None.
    #[default]
    Private,
    /// Mounts of the host appear in the container.
    HostToContainer,
    /// And the other way round.
    Bidirectional,
}

/// What of an image of this node a mount shows, to be read and not executed (KEP-4639).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSource {
    /// Image identifier, as [`Image::id`].
    pub id: String,
    /// The part of it; empty is all. Links in the image lead nowhere else.
    pub sub_path: String,
}

/// A file or directory of the host, seen in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the host. It exists. Not used for an image.
    pub host_path: PathBuf,
    /// In the container.
    pub container_path: PathBuf,
    /// Read-only.
    pub readonly: bool,
    /// And what is mounted below it, too (KEP-3857).
    #[serde(default)]
    pub recursive_readonly: bool,
    /// Propagation.
    pub propagation: Propagation,
    /// An image in place of a path of the host.
    #[serde(default)]
    pub image: Option<ImageSource>,
}

/// What of the API depends on the runtime and its kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// [`Mount::recursive_readonly`]
    pub recursive_readonly: bool,
    /// [`SandboxConfig::users`]
    pub user_namespaces: bool,
}

/// Who the process is and what it may do; names as in the Pod API's SecurityContext.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityContext {
    /// All capabilities, devices and host views.
    pub privileged: bool,
    /// Capabilities to add, without `CAP_`; `ALL` for all.
    pub add_capabilities: Vec<String>,
    /// Capabilities to drop.
    pub drop_capabilities: Vec<String>,
    /// User; none is the image's.
    pub run_as_user: Option<i64>,
    /// The user, whoever names it, must not be root by its uid.
    #[serde(default)]
    pub run_as_non_root: bool,
    /// Group; none is the image's.
    pub run_as_group: Option<i64>,
    /// Supplemental groups (fsGroup included).
    pub supplemental_groups: Vec<i64>,
    /// Only these groups, not also those that the image's /etc/group has for the user (supplementalGroupsPolicy Strict).
    #[serde(default)]
    pub strict_groups: bool,
    /// The root file system cannot be written.
    pub readonly_rootfs: bool,
    /// Sets no_new_privs.
    pub no_new_privs: bool,
    /// System call filter; none is unconfined.
    pub seccomp: Option<Seccomp>,
    /// /proc is not masked.
    pub unmasked_proc: bool,
}

/// A filter for system calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The runtime's own.
    RuntimeDefault,
    /// The one in this file of the node, in the form of the OCI runtime specification.
    Localhost(PathBuf),
}

/// What a container is made from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Name in the pod.
    pub name: String,
    /// Restart count.
    pub attempt: u32,
    /// Image identifier, as [`Image::id`].
    pub image: String,
    /// Image reference as the user wrote it.
    pub image_reference: String,
    /// The image's name by its digest, `REPOSITORY@sha256:...`, for `status`; empty where it has none.
    #[serde(default)]
    pub image_digest: String,
    /// Replaces the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Replaces the image's cmd when not empty (or when `command` is given).
    pub args: Vec<String>,
    /// Working directory; empty is the image's.
    pub working_dir: String,
    /// Environment, over the image's.
    pub env: Vec<(String, String)>,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Device nodes.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Programs of the node that run at points of its life.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// Log file, relative to the sandbox's log directory, `NAME/ATTEMPT.log` by convention.
    pub log_path: PathBuf,
    /// Keep standard input open for attach.
    pub stdin: bool,
    /// Close standard input after the first attach ends.
    pub stdin_once: bool,
    /// A terminal.
    pub tty: bool,
    /// Limits.
    pub resources: Resources,
    /// Security.
    pub security: SecurityContext,
    /// What the kubelet wants back, and, where the name does not begin with `knarr`, the annotations of the OCI configuration.
    pub annotations: BTreeMap<String, String>,
    /// The running container of the pod whose processes this one sees and is seen by; none where it has a process namespace
    /// of its own.
    #[serde(default)]
    pub target: Option<String>,
    /// Most bytes of a log file before it is rotated, and how many files are kept.
    pub log_limit: Option<(u64, u32)>,
}

/// The state of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Runs.
    Running,
    /// Ended.
    Exited,
}

/// A container as the runtime sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Container {
    /// Runtime-wide identifier.
    pub id: String,
    /// Its sandbox.
    pub sandbox: String,
    /// Name in the pod.
    pub name: String,
    /// See [`ContainerConfig::attempt`].
    pub attempt: u32,
    /// State.
    pub state: ContainerState,
    /// When made.
    pub created: Timestamp,
    /// When started.
    pub started: Option<Timestamp>,
    /// When ended.
    pub finished: Option<Timestamp>,
    /// Exit code, 128 + signal when killed.
    pub exit_code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`...
    pub reason: String,
    /// Detail for people.
    pub message: String,
    /// Image identifier.
    pub image: String,
    /// Image reference as the user wrote it.
    pub image_reference: String,
    /// See [`ContainerConfig::image_digest`].
    #[serde(default)]
    pub image_digest: String,
    /// Absolute path of the log file.
    pub log_path: PathBuf,
    /// See [`ContainerConfig::annotations`].
    pub annotations: BTreeMap<String, String>,
    /// Process id of the container's init on the host, while it runs.
    pub pid: Option<u32>,
    /// Who its first process begins as; none where that is not known.
    #[serde(default)]
    pub user: Option<ProcessUser>,
}

/// Who a process is, in the container's user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUser {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
}

/// A user or group, as images and pods name them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum User {
    /// A number that the kernel takes for one.
    Id(u32),
    /// A name, for /etc/passwd or /etc/group of the image.
    Name(String),
    /// A number that no user or group can have.
    OutOfRange(String),
}

impl User {
    /// Reads what stands for a user or group. Every integer is a number, also `00` and `+0`, and never a name.
    pub fn parse(text: &str) -> Self {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Self::Name(text.to_owned());
        }
        text.parse().ok().and_then(Self::id).unwrap_or_else(|| Self::OutOfRange(text.to_owned()))
    }

    /// A number, unless it is out of range. The highest one means "leave it as it is" to the kernel.
    pub fn id(number: i64) -> Option<Self> {
        u32::try_from(number).ok().filter(|id| *id != u32::MAX).map(Self::Id)
    }
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(text) | Self::OutOfRange(text) => text.fmt(f),
        }
    }
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
    /// Sends the image's stop signal (or `signal`), after `grace` SIGKILL; returns when the container has ended. Idempotent.
    async fn stop_container(&self, id: &str, grace: Duration, signal: Option<&str>) -> Result<()>;
    /// Removes an ended container. Idempotent.
    async fn remove_container(&self, id: &str) -> Result<()>;
    /// One container.
    async fn container(&self, id: &str) -> Result<Container>;
    /// The containers of one sandbox, or of all.
    async fn containers(&self, sandbox: Option<&str>) -> Result<Vec<Container>>;

    /// What pods and running containers have used, read now. What ends meanwhile is left out.
    async fn usages(&self) -> Result<Usages>;
    /// What all pods below a cgroup like that of [`Runtime::limit_group`] have used together, read now.
    async fn group_usage(&self, group: &str) -> Result<Usage>;
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
    /// Sets up interfaces, addresses, routes, host ports and bandwidth in the namespace at `netns`. Idempotent for one `sandbox`.
    async fn attach(&self, sandbox: &str, netns: &Path, config: &SandboxConfig) -> Result<Vec<IpAddr>>;
    /// Releases everything of `sandbox`, also when the namespace is gone. Idempotent.
    async fn detach(&self, sandbox: &str) -> Result<()>;
}
