//! The built-in engine: [`crate::api::Runtime`] over shims, the OCI helper and the image store.
//!
//! The engine keeps no process of its own alive for a pod. What it knows is on disk and in the shims, so a new server
//! process takes over where an old one stopped.

mod container;
mod events;
mod images;
mod limits;
mod past;
mod recover;
mod runtime;
mod sandbox;
mod sealed;
mod sessions;
mod signals;
mod state;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::tasks::{OnFailure, Tasks};
use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use self::events::Events;
use self::past::Past;
use self::sealed::Sealed;
pub(crate) use self::sessions::dial;
pub(crate) use self::signals::number as signal_number;
use self::state::{ContainerEntry, SandboxEntry};
use crate::api::{Credentials, Error, Image, PodNetwork, Result};
use crate::container::app_armor::Profiles;
use crate::container::caps::Available;
use crate::container::cgroup::Cgroups;
use crate::images::registry::Registries;
use crate::images::{Images, LayerStream, Observer, Peers, Shared, blocking};
use crate::keyed::Keyed;

/// How long the OCI runtime may take to start a container.
pub const START_LIMIT: Duration = Duration::from_secs(240);

/// What an engine is made from.
#[derive(Clone)]
pub struct Options {
    /// Images and containers. Absolute, on a file system that can hold an overlay's upper directory.
    pub dir: PathBuf,
    /// Sandboxes, sockets and namespaces: what does not outlive the machine's uptime. Absolute.
    pub run_dir: PathBuf,
    /// Cgroup below which all others are made, such as `knarr`.
    pub cgroup_root: String,
    /// The program whose `main` calls [`crate::dispatch`]; `/proc/self/exe` as a rule.
    pub helper: PathBuf,
    /// Where images come from.
    pub registries: Registries,
    /// Other nodes, which may have layers; without them all come from registries.
    pub peers: Option<Arc<dyn Peers>>,
    /// Connects sandboxes; without one they have a loopback interface only.
    pub network: Option<Arc<dyn PodNetwork>>,
    /// How long a container may take to start, [`START_LIMIT`] as a rule.
    pub start_limit: Duration,
    /// Supervises what the engine runs in the background.
    pub tasks: Tasks,
}

/// The built-in container runtime. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    options: Options,
    program: Sealed,
    images: Images,
    cgroups: Cgroups,
    available: Available,
    profiles: Profiles,
    /// Lowest OOM score adjustment of a container.
    oom_floor: i32,
    sandboxes: Mutex<BTreeMap<String, Arc<SandboxEntry>>>,
    containers: Mutex<BTreeMap<String, Arc<ContainerEntry>>>,
    past: Past,
    events: Events,
    busy: Keyed,
}

impl Engine {
    /// Opens the engine and finds the running pods again. One engine per directory.
    ///
    /// # Errors
    /// When the directories cannot be used, the program cannot be read or no cgroup hierarchy is mounted.
    pub async fn open(mut options: Options) -> Result<Self> {
        options.cgroup_root = options.cgroup_root.trim_matches('/').to_owned();
        let inner = blocking(move || Inner::open(options)).await??;
        inner.recover().await?;
        let preparing = inner.clone();
        inner.options.tasks.spawn("prepare the AppArmor profile", OnFailure::Log, async move {
            preparing.profiles.prepare().await;
            Ok::<_, Error>(())
        });
        Ok(Self(inner))
    }

    /// Imports the images of an archive, an OCI layout or what `docker save` writes, compressed or not. `name` is one more name for the only
    /// image of the archive.
    ///
    /// # Errors
    /// The archive is none, has parts with other digests than it says, or several images where there is a `name`.
    pub async fn import<E: std::fmt::Display>(
        &self,
        archive: impl Stream<Item = std::result::Result<Bytes, E>> + Unpin,
        name: Option<&str>,
    ) -> Result<Vec<Image>> {
        self.0.images.import(archive, name).await
    }

    /// Images as an archive, which is an OCI layout and what `docker load` reads. It ends without an error only when it is whole.
    ///
    /// # Errors
    /// An image is not here, or not kept as it was.
    pub async fn export(&self, references: Vec<String>) -> Result<mpsc::Receiver<io::Result<Bytes>>> {
        self.0.images.export(references).await
    }

    /// Pulls an image as [`Runtime::pull_image`](crate::api::Runtime::pull_image) does, and tells how far it is.
    ///
    /// # Errors
    /// As that.
    pub async fn pull(&self, reference: &str, credentials: &[Credentials], observer: &Observer) -> Result<Image> {
        self.0.images.pull(reference, credentials, Some(observer)).await
    }

    /// The pods that have containers of an image, as `NAMESPACE/NAME`, by the image's identifier.
    pub fn image_users(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.0.image_users()
    }

    /// Takes a name away from an image, which goes with its last one. Gives the image when it is gone.
    ///
    /// # Errors
    /// There is no such image, or containers use the last name that it has.
    pub async fn untag_image(&self, reference: &str) -> Result<Option<Image>> {
        let (inner, reference) = (self.0.clone(), reference.to_owned());
        let work = move || inner.images.store().untag(&reference, |image| inner.image_user(image));
        Ok(blocking(work).await??.map(|record| record.image()))
    }
}

#[async_trait]
impl Shared for Engine {
    async fn layers(&self, diff_ids: Vec<String>) -> Result<Vec<String>> {
        self.0.images.shared_layers(diff_ids).await
    }

    async fn layer(&self, diff_id: &str) -> Result<LayerStream> {
        self.0.images.shared_layer(diff_id).await
    }

    async fn imported(&self, name: &str) -> Result<Option<(Image, Bytes)>> {
        self.0.images.imported(name).await
    }
}

impl Inner {
    fn open(options: Options) -> Result<Arc<Self>> {
        let dir = options.dir.to_string_lossy();
        if !options.dir.is_absolute() || dir.contains([':', ',', '\\']) {
            return Err(Error::Internal(format!("data directory {dir:?} must be absolute and without ':', ',' and '\\'")));
        }
        let containers = options.dir.join("containers");
        let (sandboxes, netns) = (options.run_dir.join("sandboxes"), options.run_dir.join("netns"));
        for path in [&containers, &sandboxes, &netns, &options.run_dir.join("oci"), &options.run_dir.join("users")] {
            std::fs::create_dir_all(path).map_err(|error| Error::Internal(format!("{}: {error}", path.display())))?;
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o711)).map_err(internal)?;
        }
        let program = Sealed::new(&options.helper, &options.run_dir)
            .map_err(|error| Error::Internal(format!("program {}: {error}", options.helper.display())))?;
        let available = Available::detect();
        let cgroups = Cgroups::detect().map_err(internal)?;
        let missing = cgroups.missing();
        if !missing.is_empty() {
            tracing::warn!(
                controllers = missing.join(","),
                "cgroup controllers are missing: what they limit is refused, or has no limit"
            );
        }
        // Containers run in sandboxes, of which the machine forgets all when it starts again.
        let is_used = std::fs::read_dir(&sandboxes).map_err(internal)?.next().is_some();
        let (registries, peers) = (options.registries.clone(), options.peers.clone());
        Ok(Arc::new(Self {
            images: Images::open(&options.dir.join("images"), is_used, registries, peers)?,
            cgroups,
            program,
            available,
            profiles: Profiles::detect(),
            oom_floor: base::budgets::oom::lowest_of_containers(),
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            past: Past::load(options.dir.join("past")).map_err(internal)?,
            events: Events::default(),
            busy: Keyed::default(),
            options,
        }))
    }

    /// Runs `work` to its end also when the caller loses interest: half a sandbox is of no use to anybody.
    async fn finish<T, F, W>(self: &Arc<Self>, name: &'static str, work: W) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
        W: FnOnce(Arc<Self>) -> F + Send + 'static,
        F: 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let future = work(self.clone());
        self.options.tasks.spawn(name, OnFailure::Log, async move {
            let _ = sender.send(future.await);
            Ok::<_, Error>(())
        });
        receiver.await.map_err(|_| Error::Internal(format!("{name} ended early")))?
    }

    fn sandbox(&self, id: &str) -> Result<Arc<SandboxEntry>> {
        self.sandboxes.lock().get(id).cloned().ok_or_else(|| Error::NotFound(format!("sandbox {id}")))
    }

    fn container(&self, id: &str) -> Result<Arc<ContainerEntry>> {
        self.containers.lock().get(id).cloned().ok_or_else(|| Error::NotFound(format!("container {id}")))
    }

    fn containers_of(&self, sandbox: &str) -> Vec<Arc<ContainerEntry>> {
        self.containers.lock().values().filter(|entry| entry.record.sandbox == sandbox).cloned().collect()
    }

    fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.options.run_dir.join("sandboxes").join(id)
    }

    fn oci_root(&self) -> PathBuf {
        self.options.run_dir.join("oci")
    }

    /// A cgroup of ours, relative to the root of every hierarchy.
    fn group(&self, group: &str) -> String {
        format!("{}/{}", self.options.cgroup_root, group.trim_matches('/')).trim_matches('/').to_owned()
    }
}

/// The program of a runtime handler, none for the built-in runtime.
fn handler(name: &str) -> Result<Option<PathBuf>> {
    match name {
        "" | "knarr" => Ok(None),
        "runc" | "crun" => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
            found
                .map(Some)
                .ok_or_else(|| Error::Unsupported(format!("runtime handler {name:?}: install the program {name} on this node")))
        }
        other => Err(Error::Unsupported(format!(
            "no runtime handler {other:?} on this node: use \"runc\", \"crun\" or the built-in \"knarr\""
        ))),
    }
}

fn internal(error: std::io::Error) -> Error {
    Error::Internal(error.to_string())
}
