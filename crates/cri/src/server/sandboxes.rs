//! Calls about sandboxes.

use std::time::Duration;

use base::tasks::OnFailure;
use grpc::Error;
use jiff::Timestamp;
use runtime::api;
use serde_json::json;

use super::{Server, config, errors, view};
use crate::messages::*;

/// How long a sandbox lives that a client has made, and that it does not remove: upstream's kubelet, which removes it within seconds, leaves
/// no time to look at it.
const LIFE: Duration = Duration::from_secs(3600);

impl Server {
    pub(super) async fn sandboxes(&self) -> Result<Vec<api::Sandbox>, Error> {
        self.runtime.sandboxes().await.map_err(errors::of)
    }

    /// The sandbox with an identifier, or with the begin of one.
    pub(super) async fn sandbox(&self, id: &str) -> Result<api::Sandbox, Error> {
        let mut sandboxes = self.sandboxes().await?;
        let id = view::meant("sandbox", id, sandboxes.iter().map(|sandbox| sandbox.id.as_str()))?;
        let found = sandboxes.iter().position(|sandbox| sandbox.id == id);
        found.map(|at| sandboxes.swap_remove(at)).ok_or_else(|| errors::not_found("sandbox", &id))
    }

    pub(super) async fn run_sandbox(&self, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse, Error> {
        let asked = request.config.ok_or_else(|| errors::invalid("the sandbox has no config"))?;
        self.runtime.check_handler(&request.runtime_handler).await.map_err(errors::of)?;
        let resolv_conf = tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default();
        let config = config::sandbox(asked, request.runtime_handler, &resolv_conf)?;
        let same = |sandbox: &&api::Sandbox| sandbox.pod.uid == config.pod.uid && sandbox.attempt == config.attempt;
        if let Some(known) = self.sandboxes().await?.iter().find(same) {
            return Err(errors::exists(format!(
                "pod {} has the sandbox {} of attempt {}",
                known.pod.uid, known.id, known.attempt
            )));
        }
        let made = self.runtime.run_sandbox(config).await.map_err(errors::of)?;
        self.remove_later(made.id.clone());
        Ok(RunPodSandboxResponse { pod_sandbox_id: made.id })
    }

    /// "On a running Kubernetes cluster, the sandbox will eventually be stopped and deleted by the Kubelet" (kubernetes.io, "Debugging
    /// Kubernetes nodes with crictl"): what a client has forgotten does not stay. After a restart, the kubelet removes it at once.
    fn remove_later(&self, pod_sandbox_id: String) {
        let server = self.clone();
        self.tasks.spawn_until_cancelled(format!("sandbox {pod_sandbox_id} of a client"), OnFailure::Log, async move {
            tokio::time::sleep(LIFE).await;
            server.remove_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).await.map(drop)
        });
    }

    pub(super) async fn stop_sandbox(&self, request: StopPodSandboxRequest) -> Result<StopPodSandboxResponse, Error> {
        if let Some(sandbox) = errors::if_there(self.sandbox(&request.pod_sandbox_id).await)? {
            self.stop_all(&sandbox.id).await?;
        }
        Ok(StopPodSandboxResponse {})
    }

    /// "If there are any running containers in the sandbox, they must be forcibly terminated" (`StopPodSandbox`).
    async fn stop_all(&self, sandbox: &str) -> Result<(), Error> {
        for container in self.runtime.containers(Some(sandbox)).await.map_err(errors::of)? {
            if container.state == api::ContainerState::Running {
                errors::gone_is_fine(self.runtime.stop_container(&container.id, Duration::ZERO, None).await)?;
            }
        }
        errors::gone_is_fine(self.runtime.stop_sandbox(sandbox).await)
    }

    pub(super) async fn remove_sandbox(&self, request: RemovePodSandboxRequest) -> Result<RemovePodSandboxResponse, Error> {
        if let Some(sandbox) = errors::if_there(self.sandbox(&request.pod_sandbox_id).await)? {
            self.stop_all(&sandbox.id).await?;
            errors::gone_is_fine(self.runtime.remove_sandbox(&sandbox.id).await)?;
        }
        Ok(RemovePodSandboxResponse {})
    }

    pub(super) async fn sandbox_status(&self, request: PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse, Error> {
        let sandbox = self.sandbox(&request.pod_sandbox_id).await?;
        let containers = self.runtime.containers(Some(&sandbox.id)).await.map_err(errors::of)?;
        let info = || {
            let info = json!({ "netns": sandbox.netns, "runtimeHandler": sandbox.runtime_handler, "logDirectory": sandbox.log_directory });
            [("info".to_owned(), info.to_string())].into()
        };
        Ok(PodSandboxStatusResponse {
            status: Some(view::sandbox_status(&sandbox)),
            info: if request.verbose { info() } else { Default::default() },
            containers_statuses: containers.iter().map(|one| view::container_status(one, Some(&sandbox.pod))).collect(),
            timestamp: view::nanoseconds(Timestamp::now()),
        })
    }

    pub(super) async fn list_sandboxes(&self, request: ListPodSandboxRequest) -> Result<ListPodSandboxResponse, Error> {
        let filter = request.filter.unwrap_or_default();
        let fits = |sandbox: &PodSandbox| {
            sandbox.id.starts_with(&filter.id)
                && filter.state.as_ref().is_none_or(|wanted| wanted.state == sandbox.state)
                && view::selected(&sandbox.labels, &filter.label_selector)
        };
        Ok(ListPodSandboxResponse { items: self.sandboxes().await?.iter().map(view::sandbox).filter(fits).collect() })
    }
}
