//! Another program as the runtime of a node: [`::runtime::api::Runtime`] over the Container Runtime Interface.
//!
//! | module | what |
//! |---|---|
//! | [`requests`] | what pods and containers are made from, in the interface's messages |
//! | [`answers`] | the way back |
//! | [`records`] | what the interface does not give back, in files |
//! | [`follow`] | changes, and the rotation of logs |
//! | [`streams`] | sessions of exec and attach, at the runtime's streaming server |
//! | [`runtime`] | the calls of the kubelet |

mod answers;
mod follow;
mod records;
mod requests;
mod runtime;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::runtime::Groups;
use ::runtime::api::{Error, Features, Image, Result};
use base::tasks::{OnFailure, Tasks};
use futures::{StreamExt, TryStreamExt, stream};
use grpc::{Channel, Code, Endpoint};
use tokio::sync::{Notify, watch};

use self::follow::Seen;
use self::records::{Records, internal};
use crate::messages::calls::Call;
use crate::messages::*;

/// Time for a call that has no reason to take longer; upstream's `runtimeRequestTimeout`.
const LIMIT: Duration = Duration::from_secs(120);
/// Time for a pull: the runtime itself gives up when nothing comes any more.
const PULL: Duration = Duration::from_secs(3600);
/// Most bytes of an answer; upstream's.
const ANSWER: usize = 16 << 20;
/// Most calls side by side for one list.
const PARALLEL: usize = 8;

/// Where the runtime is, and what is kept beside it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its socket, as a path or a `unix://` URL.
    pub endpoint: String,
    /// Where is kept what the interface does not give back.
    pub directory: PathBuf,
    /// The cgroup of all pods, with no leading slash.
    pub cgroup_root: String,
}

/// A runtime behind a socket. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    channel: Channel,
    /// Sessions are among them.
    tasks: Tasks,
    records: Records,
    groups: Groups,
    version: String,
    features: Features,
    image_directory: PathBuf,
    seen: watch::Sender<Seen>,
    /// Something was done that changes what is there.
    acted: Notify,
}

impl Client {
    /// Connects, and follows the runtime from then on.
    ///
    /// # Errors
    /// Nobody answers, or the runtime has its cgroups made by systemd.
    pub async fn connect(options: Options, tasks: &Tasks) -> Result<Self> {
        let channel = Channel::new(Endpoint::new(&options.endpoint), ANSWER, tasks.clone());
        let told: VersionResponse = call(&channel, VersionRequest::default(), LIMIT).await.map_err(error)?;
        let status = call(&channel, StatusRequest::default(), LIMIT).await.map_err(error)?;
        check_driver(&channel).await?;
        let disks = call(&channel, ImageFsInfoRequest::default(), LIMIT).await.map_err(error)?;
        let mounted = disks.image_filesystems.into_iter().find_map(|disk| disk.fs_id).map(|disk| disk.mountpoint);
        let plain =
            status.runtime_handlers.iter().find(|handler| handler.name.is_empty()).and_then(|handler| handler.features.clone());
        let directory = options.directory;
        let records = tokio::task::spawn_blocking(|| Records::open(directory)).await.map_err(internal)?.map_err(internal)?;
        let inner = Arc::new(Inner {
            channel,
            tasks: tasks.clone(),
            records,
            groups: Groups::detect(options.cgroup_root).map_err(internal)?,
            version: format!("{}://{}", told.runtime_name, told.runtime_version),
            features: Features {
                recursive_readonly: plain.as_ref().is_some_and(|features| features.recursive_read_only_mounts),
                user_namespaces: plain.is_some_and(|features| features.user_namespaces),
            },
            image_directory: PathBuf::from(mounted.unwrap_or_else(|| "/var/lib".to_owned())),
            seen: watch::Sender::new(Seen::default()),
            acted: Notify::new(),
        });
        let following = inner.clone();
        tasks.spawn_until_cancelled("container runtime", OnFailure::Shutdown, async move {
            following.follow().await;
            Ok::<_, std::convert::Infallible>(())
        });
        Ok(Self(inner))
    }
}

async fn call<C: Call>(channel: &Channel, request: C, limit: Duration) -> std::result::Result<C::Answer, grpc::Error> {
    channel.call(C::METHOD, &request, limit).await
}

/// The cgroups of pods are made by us, as directories: systemd would take them for nobody's.
async fn check_driver(channel: &Channel) -> Result<()> {
    let config = match call(channel, RuntimeConfigRequest::default(), LIMIT).await {
        // Runtimes before CRI-O 1.28 and containerd 2.0 do not tell.
        Err(error) if error.code == Code::Unimplemented => return Ok(()),
        config => config.map_err(error)?,
    };
    match config.linux.is_some_and(|linux| linux.cgroup_driver == CgroupDriver::Systemd as i32) {
        true => Err(Error::Unsupported(
            "the container runtime has its cgroups made by systemd: configure it for cgroupfs (containerd: SystemdCgroup = false, \
             CRI-O: cgroup_manager = \"cgroupfs\")"
                .to_owned(),
        )),
        false => Ok(()),
    }
}

/// An error of a call as the kubelet knows it.
fn error(error: grpc::Error) -> Error {
    match error.code {
        Code::NotFound => Error::NotFound(error.message),
        Code::DeadlineExceeded => Error::Timeout(error.message),
        Code::Unimplemented => Error::Unsupported(error.to_string()),
        _ => Error::Internal(error.to_string()),
    }
}

impl Inner {
    async fn call<C: Call>(&self, request: C) -> Result<C::Answer> {
        self.call_within(request, LIMIT).await
    }

    async fn call_within<C: Call>(&self, request: C, limit: Duration) -> Result<C::Answer> {
        call(&self.channel, request, limit).await.map_err(error)
    }

    /// A call that changes something: it is looked at again soon.
    async fn act<C: Call>(&self, request: C, limit: Duration) -> std::result::Result<C::Answer, grpc::Error> {
        let answer = call(&self.channel, request, limit).await;
        self.acted.notify_one();
        answer
    }

    fn is_ours(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(requests::ROOT).is_some_and(|root| root == self.groups.root())
    }

    /// The containers of a sandbox, or all of this node.
    async fn listed(&self, sandbox: Option<&str>) -> Result<Vec<Container>> {
        let filter = ContainerFilter { pod_sandbox_id: sandbox.unwrap_or_default().to_owned(), ..Default::default() };
        let answer = self.call(ListContainersRequest { filter: Some(filter) }).await?;
        Ok(answer.containers.into_iter().filter(|one| self.is_ours(&one.labels)).collect())
    }

    async fn status(&self, container: &str) -> Result<ContainerStatusResponse> {
        self.call(ContainerStatusRequest { container_id: container.to_owned(), verbose: true }).await
    }

    async fn container(&self, id: &str) -> Result<::runtime::api::Container> {
        let record = self.records.containers.get(id).unwrap_or_default();
        answers::container(self.status(id).await?, record).ok_or_else(|| Error::NotFound(format!("container {id}")))
    }

    async fn containers(&self, sandbox: Option<&str>) -> Result<Vec<::runtime::api::Container>> {
        let listed = self.listed(sandbox).await?;
        let one = |container: Container| async move {
            let mut found = self.container(&container.id).await?;
            found.sandbox = container.pod_sandbox_id;
            Ok(found)
        };
        there(stream::iter(listed).map(one).buffered(PARALLEL)).await
    }

    async fn sandbox(&self, id: &str) -> Result<::runtime::api::Sandbox> {
        let answer = self.call(PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true }).await?;
        let resources = self.records.sandboxes.get(id).map(|config| config.resources).unwrap_or_default();
        answers::sandbox(answer, resources).ok_or_else(|| Error::NotFound(format!("sandbox {id}")))
    }

    async fn listed_sandboxes(&self) -> Result<Vec<PodSandbox>> {
        let listed = self.call(ListPodSandboxRequest::default()).await?.items;
        Ok(listed.into_iter().filter(|sandbox| self.is_ours(&sandbox.labels)).collect())
    }

    async fn sandboxes(&self) -> Result<Vec<::runtime::api::Sandbox>> {
        let one = |sandbox: PodSandbox| async move { self.sandbox(&sandbox.id).await };
        there(stream::iter(self.listed_sandboxes().await?).map(one).buffered(PARALLEL)).await
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        let image = ImageSpec { image: reference.to_owned(), ..Default::default() };
        match self.call(ImageStatusRequest { image: Some(image), verbose: false }).await {
            Err(Error::NotFound(_)) => Ok(None),
            answer => Ok(answer?.image.map(answers::image)),
        }
    }
}

/// What is still there of a list.
async fn there<T>(found: impl stream::Stream<Item = Result<T>>) -> Result<Vec<T>> {
    let kept = found.filter_map(|one| async move {
        match one {
            Err(Error::NotFound(_)) => None,
            one => Some(one),
        }
    });
    kept.try_collect().await
}
