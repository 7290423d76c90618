//! Containers: what they are made from, and what they are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Device, Hook, Resources};

/// Kernel files that containers do not see, by the default of `securityContext.procMount`.
pub const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Kernel files that containers cannot change, by the same default.
pub const READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

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

/// What of an image of this node a mount shows, to be read and executed, and not written (KEP-4639).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSource {
    /// Image identifier, as [`super::Image::id`].
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
    /// [`super::SandboxConfig::users`]
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
    /// AppArmor profile; none is the runtime's own where the machine has AppArmor and can load it.
    #[serde(default)]
    pub app_armor: Option<AppArmor>,
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

/// A profile of AppArmor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppArmor {
    /// The runtime's own; none for privileged containers.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// The one of this name, which is loaded in the node's kernel.
    Localhost(String),
}

/// What a container is made from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Name in the pod.
    pub name: String,
    /// Restart count.
    pub attempt: u32,
    /// Image identifier, as [`super::Image::id`].
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
    /// The signal that stops it, such as `SIGTERM` or `SIGRTMIN+3`; none is the image's.
    #[serde(default)]
    pub stop_signal: Option<String>,
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
    /// The signal that stops it, by its name in the API; none where the runtime does not say (KEP-4960).
    #[serde(default)]
    pub stop_signal: Option<String>,
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
