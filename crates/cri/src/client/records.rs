//! What the interface does not give back: with what a sandbox was made, which each container of it has to be told again, and limits and
//! annotations that have changed since. A file for each, so that a kubelet that starts again knows them.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use runtime::api::{Error, Resources, Result, SandboxConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What is kept of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    /// Its sandbox.
    pub(super) sandbox: String,
    /// See [`runtime::api::ContainerConfig::annotations`].
    pub(super) annotations: BTreeMap<String, String>,
    /// See [`runtime::api::ContainerConfig::image_reference`].
    pub(super) image_reference: String,
    /// See [`runtime::api::ContainerConfig::image_digest`].
    pub(super) image_digest: String,
    /// See [`runtime::api::ContainerConfig::log_limit`].
    pub(super) log_limit: Option<(u64, u32)>,
    /// Its limits, as they are now.
    pub(super) resources: Resources,
}

/// The files.
#[derive(Clone, Debug)]
pub(super) struct Records(PathBuf);

impl Records {
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }

    fn path(&self, kind: &str, id: &str) -> PathBuf {
        // Identifiers are the runtime's: no more of them than a file's name gets there.
        let name: String = id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        self.0.join(format!("{kind}-{name}.json"))
    }

    fn write(&self, kind: &str, id: &str, record: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(io::Error::other);
        text.and_then(|text| base::tls::write_private(&self.path(kind, id), &text).map_err(io::Error::other)).map_err(internal)
    }

    fn read<R: DeserializeOwned>(&self, kind: &str, id: &str) -> Option<R> {
        serde_json::from_slice(&std::fs::read(self.path(kind, id)).ok()?).ok()
    }

    pub(super) fn sandbox(&self, id: &str) -> Option<SandboxConfig> {
        self.read("sandbox", id)
    }

    pub(super) fn keep_sandbox(&self, id: &str, config: &SandboxConfig) -> Result<()> {
        self.write("sandbox", id, config)
    }

    pub(super) fn container(&self, id: &str) -> Option<ContainerRecord> {
        self.read("container", id)
    }

    pub(super) fn keep_container(&self, id: &str, record: &ContainerRecord) -> Result<()> {
        self.write("container", id, record)
    }

    /// Forgets a sandbox; its containers are forgotten one by one.
    pub(super) fn forget_sandbox(&self, id: &str) {
        let _ = std::fs::remove_file(self.path("sandbox", id));
    }

    pub(super) fn forget_container(&self, id: &str) {
        let _ = std::fs::remove_file(self.path("container", id));
    }
}

pub(super) fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}
