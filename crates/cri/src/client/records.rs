//! What the interface does not give back: with what a sandbox was made, which each container of it has to be told again, and limits and
//! annotations that have changed since. A file for each, so that a kubelet that starts again knows them; all of them are in memory, too.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;

use parking_lot::Mutex;
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
    /// Its log, and when that is rotated.
    pub(super) log: Option<Log>,
    /// Its limits, as they are now.
    pub(super) resources: Resources,
}

/// A log that is rotated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Log {
    /// On the node, absolute.
    pub(super) path: PathBuf,
    /// Most bytes of a file.
    pub(super) bytes: u64,
    /// Most files.
    pub(super) files: u32,
}

/// What is kept of all.
pub(super) struct Records {
    pub(super) sandboxes: Kind<SandboxConfig>,
    pub(super) containers: Kind<ContainerRecord>,
}

impl Records {
    /// Reads what a run before has kept. Blocks.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let sandboxes = Kind::open("sandbox", directory.clone())?;
        Ok(Self { sandboxes, containers: Kind::open("container", directory)? })
    }
}

/// Records of one kind, by identifier.
pub(super) struct Kind<R> {
    name: &'static str,
    directory: PathBuf,
    known: Mutex<HashMap<String, R>>,
    /// Files change in the order in which `known` does.
    changing: tokio::sync::Mutex<()>,
}

/// Identifiers are the runtime's: no more of them than a file's name gets there.
fn plain(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

impl<R: Clone + Serialize + DeserializeOwned> Kind<R> {
    fn open(name: &'static str, directory: PathBuf) -> io::Result<Self> {
        let mut known = HashMap::new();
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let Some(id) = stem.and_then(|stem| stem.strip_prefix(name)?.strip_prefix('-')) else { continue };
            // One that cannot be read is as one that is not there.
            if let Some(record) = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                known.insert(id.to_owned(), record);
            }
        }
        Ok(Self { name, directory, known: Mutex::new(known), changing: tokio::sync::Mutex::default() })
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{}-{}.json", self.name, plain(id)))
    }

    pub(super) fn get(&self, id: &str) -> Option<R> {
        self.known.lock().get(&plain(id)).cloned()
    }

    pub(super) async fn keep(&self, id: &str, record: R) -> Result<()> {
        let text = serde_json::to_vec(&record).map_err(internal)?;
        let path = self.path(id);
        let _changing = self.changing.lock().await;
        let write = move || base::tls::write_private(&path, &text).map_err(internal);
        tokio::task::spawn_blocking(write).await.map_err(internal)??;
        self.known.lock().insert(plain(id), record);
        Ok(())
    }

    pub(super) async fn forget(&self, id: &str) {
        let _changing = self.changing.lock().await;
        self.known.lock().remove(&plain(id));
        // Nothing comes of a file that is left: its identifier is never used again.
        let _ = tokio::fs::remove_file(self.path(id)).await;
    }
}

pub(super) fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}
