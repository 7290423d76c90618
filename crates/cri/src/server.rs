//! The engine for clients of the Container Runtime Interface such as crictl, at a socket for root only. Who may open it could do
//! everything on this machine anyway; connections, calls and messages are bounded so that a broken client harms nobody else.
//!
//! | module | what |
//! |---|---|
//! | `config` | what clients ask for, as the engine has it, or why it is not offered; pure |
//! | `view` | what the engine has, as clients see it; pure |
//! | `sandboxes`, `containers`, `images`, `stats` | the calls |
//! | `events` | what has happened to containers, from one look to the next |
//! | `streams` | where sessions that were asked for are found |

mod config;
mod containers;
mod errors;
mod events;
mod images;
mod sandboxes;
mod stats;
mod streams;
mod view;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use grpc::Error;
use grpc::server::{Limits, Messages, decode, unimplemented};
use prost::Message;
use runtime::api::Runtime;
use serde_json::json;
use tokio::net::UnixListener;

use crate::messages::calls::{Call, StreamCall};
use crate::messages::*;

/// What a client can have.
const LIMITS: Limits = Limits { connections: 64, calls: 64, request: 4 << 20, life: Duration::from_secs(24 * 3600) };
/// Most items of a part of a list that is answered in parts (KEP-5825).
const PART: usize = 100;

/// The runtime behind the socket.
#[derive(Clone)]
struct Server {
    runtime: Arc<dyn Runtime>,
    tasks: Tasks,
    streams: Arc<streams::Sessions>,
    images_changed: Changed,
}

/// Called after images have come or gone.
pub type Changed = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Serves `runtime` at `socket` from now on.
///
/// # Errors
/// The socket cannot be made.
pub fn start(socket: &Path, runtime: Arc<dyn Runtime>, images_changed: Changed, tasks: &Tasks) -> io::Result<()> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    let streams = Arc::new(streams::Sessions::new(runtime.clone(), tasks.clone()));
    let server = Arc::new(Server { runtime, tasks: tasks.clone(), streams, images_changed });
    tasks.spawn_until_cancelled("container runtime interface", OnFailure::Log, async move {
        // It never ends.
        Err::<(), _>(grpc::server::serve(listener, server, LIMITS).await)
    });
    Ok(())
}

/// Answers `method` by the function of the request that has it.
macro_rules! answered {
    ($server:ident, $method:ident, $message:ident, $($request:ident $function:ident,)*) => {
        $(if $method == $request::METHOD {
            let answer: <$request as Call>::Answer = $server.$function(decode::<$request>($message)?).await?;
            return Ok(answer.encode_to_vec());
        })*
    };
}

impl grpc::server::Service for Server {
    async fn call(&self, method: &str, message: Bytes) -> Result<Vec<u8>, Error> {
        answered! { self, method, message,
            VersionRequest version,
            StatusRequest status,
            RuntimeConfigRequest runtime_config,
            UpdateRuntimeConfigRequest update_runtime_config,
            RunPodSandboxRequest run_sandbox,
            StopPodSandboxRequest stop_sandbox,
            RemovePodSandboxRequest remove_sandbox,
            PodSandboxStatusRequest sandbox_status,
            ListPodSandboxRequest list_sandboxes,
            CreateContainerRequest create_container,
            StartContainerRequest start_container,
            StopContainerRequest stop_container,
            RemoveContainerRequest remove_container,
            ListContainersRequest list_containers,
            ContainerStatusRequest container_status,
            UpdateContainerResourcesRequest update_container,
            ReopenContainerLogRequest reopen_log,
            ExecSyncRequest exec_sync,
            ExecRequest exec,
            AttachRequest attach,
            PortForwardRequest port_forward,
            ContainerStatsRequest container_stats,
            ListContainerStatsRequest list_container_stats,
            PodSandboxStatsRequest sandbox_stats,
            ListPodSandboxStatsRequest list_sandbox_stats,
            ListImagesRequest list_images,
            ImageStatusRequest image_status,
            PullImageRequest pull_image,
            RemoveImageRequest remove_image,
            ImageFsInfoRequest image_fs_info,
        }
        Err(match method {
            CheckpointContainerRequest::METHOD => errors::unsupported("checkpoints of containers"),
            _ => unimplemented(method),
        })
    }

    fn messages(&self, method: &str, message: &Bytes) -> Option<Messages> {
        let (server, message) = (self.clone(), message.clone());
        Some(match method {
            GetEventsRequest::METHOD => events::follow(server),
            StreamPodSandboxesRequest::METHOD => parts(
                async move {
                    let StreamPodSandboxesRequest { filter } = decode(message)?;
                    Ok(server.list_sandboxes(ListPodSandboxRequest { filter }).await?.items)
                },
                |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes },
            ),
            StreamContainersRequest::METHOD => parts(
                async move {
                    let StreamContainersRequest { filter } = decode(message)?;
                    Ok(server.list_containers(ListContainersRequest { filter }).await?.containers)
                },
                |containers| StreamContainersResponse { containers },
            ),
            StreamContainerStatsRequest::METHOD => parts(
                async move {
                    let StreamContainerStatsRequest { filter } = decode(message)?;
                    Ok(server.list_container_stats(ListContainerStatsRequest { filter }).await?.stats)
                },
                |container_stats| StreamContainerStatsResponse { container_stats },
            ),
            StreamPodSandboxStatsRequest::METHOD => parts(
                async move {
                    let StreamPodSandboxStatsRequest { filter } = decode(message)?;
                    Ok(server.list_sandbox_stats(ListPodSandboxStatsRequest { filter }).await?.stats)
                },
                |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats },
            ),
            StreamImagesRequest::METHOD => parts(
                async move {
                    let StreamImagesRequest { filter } = decode(message)?;
                    Ok(server.list_images(ListImagesRequest { filter }).await?.images)
                },
                |images| StreamImagesResponse { images },
            ),
            _ => return None,
        })
    }
}

/// A list in parts, none of which is empty.
fn parts<T, A>(list: impl Future<Output = Result<Vec<T>, Error>> + Send + 'static, part: fn(Vec<T>) -> A) -> Messages
where
    T: Clone + Send + Sync + 'static,
    A: Message + 'static,
{
    let messages = async move {
        match list.await {
            Ok(items) => items.chunks(PART).map(|items| Ok(part(items.to_vec()).encode_to_vec())).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        }
    };
    futures::stream::once(messages).flat_map(futures::stream::iter).boxed()
}

impl Server {
    async fn version(&self, _request: VersionRequest) -> Result<VersionResponse, Error> {
        let version = self.runtime.version();
        let (name, number) = version.split_once("://").unwrap_or(("knarr", &version));
        Ok(VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: name.to_owned(),
            runtime_version: number.to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    async fn status(&self, request: StatusRequest) -> Result<StatusResponse, Error> {
        let ready = |name: &str| RuntimeCondition { r#type: name.to_owned(), status: true, ..Default::default() };
        let features = self.runtime.features();
        let mut handlers = Vec::new();
        for name in ["", "runc", "crun"] {
            if self.runtime.check_handler(name).await.is_ok() {
                let features = RuntimeHandlerFeatures {
                    recursive_read_only_mounts: features.recursive_readonly,
                    user_namespaces: features.user_namespaces,
                };
                handlers.push(RuntimeHandler { name: name.to_owned(), features: Some(features) });
            }
        }
        let info = || {
            let config = json!({ "version": self.runtime.version(), "root": self.runtime.image_directory() });
            [("config".to_owned(), config.to_string())].into()
        };
        Ok(StatusResponse {
            status: Some(RuntimeStatus { conditions: vec![ready("RuntimeReady"), ready("NetworkReady")] }),
            info: if request.verbose { info() } else { Default::default() },
            runtime_handlers: handlers,
            features: Some(RuntimeFeatures { supplemental_groups_policy: true, user_namespaces_host_network: false }),
        })
    }

    async fn runtime_config(&self, _request: RuntimeConfigRequest) -> Result<RuntimeConfigResponse, Error> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs.into() };
        Ok(RuntimeConfigResponse { linux: Some(linux) })
    }

    /// The node's range of pods is the node's to know.
    async fn update_runtime_config(&self, _request: UpdateRuntimeConfigRequest) -> Result<UpdateRuntimeConfigResponse, Error> {
        Ok(UpdateRuntimeConfigResponse {})
    }
}
