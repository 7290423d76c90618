//! What the engine knows of sandboxes and containers, in memory and on disk.

use base::files::{self, Outlives};
use base::records;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::signals;
use crate::api::{Container, ContainerConfig, ContainerState, ProcessUser, Sandbox, SandboxConfig, SandboxState};
use crate::images::manifest::ImageConfig;
#[cfg(doc)]
use crate::shim::protocol::ShimState;
use crate::shim::protocol::{RECORD, STATE, TaskState};

/// What changes of a sandbox; with the rest in `sandbox.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub(super) id: String,
    pub(super) config: SandboxConfig,
    pub(super) created: Timestamp,
    pub(super) state: SandboxState,
    pub(super) ips: Vec<IpAddr>,
    pub(super) netns: Option<PathBuf>,
    pub(super) shim: u32,
    pub(super) pod_init: Option<u32>,
    /// See [`ShimState::holder`].
    #[serde(default)]
    pub(super) holder: Option<u32>,
}

impl SandboxRecord {
    /// The process that is in the pod's namespaces.
    pub(super) fn holder(&self) -> u32 {
        self.holder.unwrap_or(self.shim)
    }
}

/// A sandbox.
pub(super) struct SandboxEntry {
    pub(super) dir: PathBuf,
    pub(super) record: Mutex<SandboxRecord>,
}

impl SandboxEntry {
    pub(super) fn record(&self) -> SandboxRecord {
        self.record.lock().clone()
    }

    pub(super) fn pod_uid(&self) -> String {
        self.record.lock().config.pod.uid.clone()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.record.lock().state == SandboxState::Ready
    }

    /// Changes the state, also on disk. False when it was that already.
    pub(super) fn set_state(&self, state: SandboxState) -> io::Result<bool> {
        let mut record = self.record.lock();
        if record.state == state {
            return Ok(false);
        }
        record.state = state;
        write_json(&self.dir.join("sandbox.json"), &*record)?;
        Ok(true)
    }

    pub(super) fn view(&self) -> Sandbox {
        let record = self.record.lock();
        Sandbox {
            id: record.id.clone(),
            pod: record.config.pod.clone(),
            attempt: record.config.attempt,
            state: record.state,
            created: record.created,
            ips: record.ips.clone(),
            netns: record.netns.clone(),
            runtime_handler: record.config.runtime_handler.clone(),
            resources: record.config.resources.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            host_network: record.config.host_network,
            pid: record.config.pid,
            ipc: record.config.ipc,
            log_directory: record.config.log_directory.clone(),
        }
    }
}

/// What a container was made from; `container.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub(super) id: String,
    pub(super) sandbox: String,
    pub(super) pod_uid: String,
    pub(super) config: ContainerConfig,
    pub(super) image: ImageConfig,
    pub(super) created: Timestamp,
    pub(super) log_path: PathBuf,
    /// Relative to the root of every hierarchy.
    pub(super) cgroup: String,
    /// It shares its pid namespace, so its end does not end everything in it.
    pub(super) shared_pid: bool,
    /// See [`Container::user`]; it is known once the root file system is there.
    #[serde(default)]
    pub(super) user: Option<ProcessUser>,
}

/// A container.
pub(super) struct ContainerEntry {
    pub(super) dir: PathBuf,
    pub(super) record: ContainerRecord,
    /// See [`ContainerConfig::annotations`]; those of the record are from the time when it was made.
    pub(super) annotations: Mutex<BTreeMap<String, String>>,
    pub(super) state: watch::Sender<TaskState>,
    /// See [`ContainerRecord::user`].
    pub(super) user: OnceLock<ProcessUser>,
}

impl ContainerEntry {
    pub(super) fn new(dir: PathBuf, record: ContainerRecord, state: TaskState) -> Self {
        let annotations = Mutex::new(record.config.annotations.clone());
        let user = record.user.clone().map_or_else(OnceLock::new, OnceLock::from);
        Self { dir, record, annotations, state: watch::Sender::new(state), user }
    }

    pub(super) fn phase(&self) -> ContainerState {
        phase(&self.state.borrow())
    }

    /// Takes what the shim wrote; true when that is news. An end is final.
    pub(super) fn refresh(&self) -> bool {
        let Ok(state) = read_json::<TaskState>(&self.dir.join(STATE)) else { return false };
        self.advance(state)
    }

    /// Takes a state unless the container has ended already; true when it is news.
    pub(super) fn advance(&self, state: TaskState) -> bool {
        self.state.send_if_modified(|known| {
            let news = known.finished.is_none() && *known != state;
            if news {
                *known = state;
            }
            news
        })
    }

    /// What it was made from, with what has changed since: see `update_container`. Blocking.
    pub(super) fn config(&self) -> io::Result<ContainerConfig> {
        Ok(read_json::<ContainerRecord>(&self.dir.join(RECORD))?.config)
    }

    pub(super) fn view(&self) -> Container {
        let (record, state) = (&self.record, self.state.borrow());
        let phase = phase(&state);
        Container {
            id: record.id.clone(),
            sandbox: record.sandbox.clone(),
            name: record.config.name.clone(),
            attempt: record.config.attempt,
            state: phase,
            created: record.created,
            started: state.started,
            finished: state.finished,
            exit_code: state.exit_code,
            signal: state.signal,
            reason: state.reason.clone(),
            message: state.message.clone(),
            image: record.config.image.clone(),
            image_reference: record.config.image_reference.clone(),
            image_digest: record.config.image_digest.clone(),
            log_path: record.log_path.clone(),
            annotations: self.annotations.lock().clone(),
            pid: state.pid.filter(|_| phase == ContainerState::Running),
            user: self.user.get().cloned(),
            stop_signal: signals::shown(record.config.stop_signal.as_deref(), &record.image.stop_signal),
        }
    }
}

/// How far a container is.
pub(super) fn phase(state: &TaskState) -> ContainerState {
    match (state.finished, state.started) {
        (Some(_), _) => ContainerState::Exited,
        (None, Some(_)) => ContainerState::Running,
        (None, None) => ContainerState::Created,
    }
}

/// Replaces the file. Nothing in it matters after a crash of the machine.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    files::replace(path, &serde_json::to_vec(value)?, Outlives::Process)
}

/// Reads the file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    records::read_json(path)?.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{} is missing", path.display())))
}
