//! Programs of the node that run at points of a container's life (OCI runtime specification, config.md "POSIX-platform Hooks"), which a
//! device of the Container Device Interface may ask for.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a hook may take that names no time, and the longest that one may name: the start of a container waits for it.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookStage {
    /// As `createRuntime`, of which it is the old name.
    #[serde(rename = "prestart")]
    Prestart,
    /// The container's namespaces are there; in those of the node.
    CreateRuntime,
    /// The same, in the container's namespaces, with the node's files.
    CreateContainer,
    /// Before the container's program runs, in its root file system.
    StartContainer,
    /// Once it runs; in the namespaces of the node.
    #[serde(rename = "poststart")]
    Poststart,
    /// Once it has ended, or was not started for a hook that failed; in the namespaces of the node.
    #[serde(rename = "poststop")]
    Poststop,
}

impl HookStage {
    /// In their order.
    pub const ALL: [Self; 6] =
        [Self::Prestart, Self::CreateRuntime, Self::CreateContainer, Self::StartContainer, Self::Poststart, Self::Poststop];

    /// As in the specifications.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// A program that gets the container's state on its standard input. When it fails, the container is not started, or killed after
/// `poststart`; after `poststop` that is only told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// When it runs.
    pub stage: HookStage,
    /// The program, absolute.
    pub path: PathBuf,
    /// Its arguments, the name that it is called by first; empty is its path.
    pub args: Vec<String>,
    /// Its environment, `NAME=value`. That of `startContainer` is the container's where this is empty.
    pub env: Vec<String>,
    /// How long it may take before it is killed, whole seconds.
    pub timeout: Duration,
}
