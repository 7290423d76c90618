//! Calls about containers.

use std::collections::HashMap;
use std::time::Duration;

use grpc::Error;
use runtime::api;
use serde_json::json;

use super::{Server, config, errors, view};
use crate::messages::*;

/// Most bytes of both outputs of a command that are kept: "The runtime should cap the output of this response to 16MB" (`ExecSyncResponse`).
/// The kubelet and crictl take messages of 16 MiB, with what goes around the outputs.
const OUTPUT: usize = (16 << 20) - 1024;
/// How long a command may run that has no limit of its own.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

impl Server {
    /// The container with an identifier, or with the begin of one.
    pub(super) async fn container(&self, id: &str) -> Result<api::Container, Error> {
        let mut containers = self.containers().await?;
        let id = view::meant("container", id, containers.iter().map(|container| container.id.as_str()))?;
        let found = containers.iter().position(|container| container.id == id);
        found.map(|at| containers.swap_remove(at)).ok_or_else(|| errors::not_found("container", &id))
    }

    async fn containers(&self) -> Result<Vec<api::Container>, Error> {
        self.runtime.containers(None).await.map_err(errors::of)
    }

    /// Whose the sandboxes are, by identifier.
    pub(super) async fn pods(&self) -> Result<HashMap<String, api::PodIdentity>, Error> {
        Ok(self.sandboxes().await?.into_iter().map(|sandbox| (sandbox.id, sandbox.pod)).collect())
    }

    pub(super) async fn create_container(&self, request: CreateContainerRequest) -> Result<CreateContainerResponse, Error> {
        let mut asked = request.config.ok_or_else(|| errors::invalid("the container has no config"))?;
        let sandbox = self.sandbox(&request.pod_sandbox_id).await?;
        let image = self.image_of(asked.image.as_ref()).await?;
        for mount in asked.mounts.iter_mut().filter_map(|mount| mount.image.as_mut()) {
            mount.image = self.image_of(Some(mount)).await?.id;
        }
        for path in asked.mounts.iter().filter(|mount| mount.image.is_none()).map(|mount| &mount.host_path) {
            if !tokio::fs::try_exists(path).await.unwrap_or(false) {
                return Err(errors::invalid(format!("host_path {path:?} is not there")));
            }
        }
        let known = self.runtime.containers(Some(&sandbox.id)).await.map_err(errors::of)?;
        let target = target(&asked, &known)?;
        let image = config::Image { digest: image.digests.first().cloned().unwrap_or_default(), id: image.id };
        let config = config::container(asked, image, &sandbox, target)?;
        if let Some(same) = known.iter().find(|one| one.name == config.name && one.attempt == config.attempt) {
            return Err(errors::exists(format!(
                "the sandbox has the container {} of name {:?} and attempt {}",
                same.id, same.name, same.attempt
            )));
        }
        let made = self.runtime.create_container(&sandbox.id, config).await.map_err(errors::of)?;
        Ok(CreateContainerResponse { container_id: made.id })
    }

    pub(super) async fn start_container(&self, request: StartContainerRequest) -> Result<StartContainerResponse, Error> {
        let container = self.container(&request.container_id).await?;
        if container.state != api::ContainerState::Created {
            return Err(errors::precondition(format!(
                "container {} is {:?}: only a new one can be started",
                container.id, container.state
            )));
        }
        self.runtime.start_container(&container.id).await.map_err(errors::of)?;
        Ok(StartContainerResponse {})
    }

    pub(super) async fn stop_container(&self, request: StopContainerRequest) -> Result<StopContainerResponse, Error> {
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        if let Some(container) = errors::if_there(self.container(&request.container_id).await)? {
            errors::gone_is_fine(self.runtime.stop_container(&container.id, grace, None).await)?;
        }
        Ok(StopContainerResponse {})
    }

    /// "If the container is running, the container must be forcibly removed" (`RemoveContainer`).
    pub(super) async fn remove_container(&self, request: RemoveContainerRequest) -> Result<RemoveContainerResponse, Error> {
        if let Some(container) = errors::if_there(self.container(&request.container_id).await)? {
            if container.state == api::ContainerState::Running {
                errors::gone_is_fine(self.runtime.stop_container(&container.id, Duration::ZERO, None).await)?;
            }
            errors::gone_is_fine(self.runtime.remove_container(&container.id).await)?;
        }
        Ok(RemoveContainerResponse {})
    }

    pub(super) async fn list_containers(&self, request: ListContainersRequest) -> Result<ListContainersResponse, Error> {
        let filter = request.filter.unwrap_or_default();
        let pods = self.pods().await?;
        let fits = |container: &Container| {
            container.id.starts_with(&filter.id)
                && container.pod_sandbox_id.starts_with(&filter.pod_sandbox_id)
                && filter.state.as_ref().is_none_or(|wanted| wanted.state == container.state)
                && view::selected(&container.labels, &filter.label_selector)
        };
        let containers = self.containers().await?;
        let seen = containers.iter().map(|container| view::container(container, pods.get(&container.sandbox)));
        Ok(ListContainersResponse { containers: seen.filter(fits).collect() })
    }

    pub(super) async fn container_status(&self, request: ContainerStatusRequest) -> Result<ContainerStatusResponse, Error> {
        let container = self.container(&request.container_id).await?;
        let pods = self.pods().await?;
        let info = || {
            let info = json!({ "sandboxID": container.sandbox, "pid": container.pid, "signal": container.signal });
            [("info".to_owned(), info.to_string())].into()
        };
        let made = self.runtime.container_config(&container.id).await.map_err(errors::of)?;
        Ok(ContainerStatusResponse {
            status: Some(view::made_from(made, view::container_status(&container, pods.get(&container.sandbox)))),
            info: if request.verbose { info() } else { Default::default() },
        })
    }

    pub(super) async fn update_container(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse, Error> {
        let container = self.container(&request.container_id).await?;
        let linux = request.linux.ok_or_else(|| errors::invalid("no limits are given"))?;
        let had = self.runtime.container_config(&container.id).await.map_err(errors::of)?.resources;
        let limits = config::updated(had, &linux)?;
        self.runtime.update_container(&container.id, limits, container.annotations).await.map_err(errors::of)?;
        Ok(UpdateContainerResourcesResponse {})
    }

    /// "If the container is not running, container runtime can choose to either create a new log file and return nil, or return an
    /// error" (`ReopenContainerLog`).
    pub(super) async fn reopen_log(&self, request: ReopenContainerLogRequest) -> Result<ReopenContainerLogResponse, Error> {
        let container = self.running(&request.container_id).await?;
        self.runtime.reopen_log(&container.id).await.map_err(errors::of)?;
        Ok(ReopenContainerLogResponse {})
    }

    /// A container that runs.
    pub(super) async fn running(&self, id: &str) -> Result<api::Container, Error> {
        let container = self.container(id).await?;
        match container.state {
            api::ContainerState::Running => Ok(container),
            state => Err(errors::precondition(format!("container {} is {state:?}: it does not run", container.id))),
        }
    }

    pub(super) async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse, Error> {
        let container = self.running(&request.container_id).await?;
        if request.cmd.is_empty() {
            return Err(errors::invalid("a command is required"));
        }
        let limit = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0).map_or(FOREVER, Duration::from_secs);
        let done = self.runtime.exec_sync(&container.id, &request.cmd, limit.min(FOREVER), OUTPUT).await.map_err(errors::of)?;
        Ok(capped(ExecSyncResponse { stdout: done.stdout, stderr: done.stderr, exit_code: done.exit_code }))
    }
}

/// Without the end of the longer output, or half of each, where both are too much for an answer.
fn capped(mut answer: ExecSyncResponse) -> ExecSyncResponse {
    let room = |other: usize| (OUTPUT - other.min(OUTPUT)).max(OUTPUT / 2);
    let (stdout, stderr) = (room(answer.stderr.len()), room(answer.stdout.len()));
    answer.stdout.truncate(stdout);
    answer.stderr.truncate(stderr);
    answer
}

/// The name of the container of the sandbox whose processes are to be seen.
fn target(asked: &ContainerConfig, known: &[api::Container]) -> Result<Option<String>, Error> {
    let security = asked.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let spaces = security.and_then(|security| security.namespace_options.as_ref());
    let Some(spaces) = spaces.filter(|spaces| spaces.pid() == NamespaceMode::Target) else { return Ok(None) };
    let id = view::meant("container", &spaces.target_id, known.iter().map(|container| container.id.as_str()))?;
    Ok(known.iter().find(|container| container.id == id).map(|container| container.name.clone()))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn answers_of_commands_fit_into_a_message() {
        let check = |outputs: [usize; 2], expected: [usize; 2]| {
            let [stdout, stderr] = outputs.map(|length| vec![b'x'; length]);
            let answer = capped(ExecSyncResponse { stdout, stderr, exit_code: -1 });
            assert_eq!([answer.stdout.len(), answer.stderr.len()], expected, "{outputs:?}");
            assert!(answer.encoded_len() <= 16 << 20);
        };
        check([5, 0], [5, 0]);
        check([OUTPUT, 0], [OUTPUT, 0]);
        check([OUTPUT, 10], [OUTPUT - 10, 10]);
        check([10, OUTPUT], [10, OUTPUT - 10]);
        check([OUTPUT, OUTPUT], [OUTPUT / 2, OUTPUT / 2]);
    }
}
