//! What the API server asks of a kubelet: logs, exec, attach, port forwarding.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::Informer;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::StatusCode;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use parking_lot::Mutex;
use runtime::api::{
    Container, ContainerState as RuntimeState, Credentials, Error as RuntimeError, ExecRequest, PodIdentity, Sandbox, Streams,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::sharing::Serving;
use crate::Options;
use crate::context::Context;
use crate::images;
use crate::local_volumes;
use crate::logs::{self, LogOptions};
use crate::metrics::{Claims, State};
use crate::shutdown::{self, Periods};
use crate::spec::Model;
use crate::stats::details::Processes;
use crate::stats::disks::Disks;
use crate::stats::paced::Paced;
use crate::stats::volumes::Sums;
use crate::stats::{self, Details, Earlier, Snapshot};

/// How long a scrape waits for the file systems of volumes.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a request to the kubelet fails; the text is for the user.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No such pod or container.
    #[error("{0}")]
    NotFound(String),
    /// The request does not fit the container's state.
    #[error("{0}")]
    BadRequest(String),
    /// The node or its runtime failed.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<RuntimeError> for ApiError {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::NotFound(what) => Self::NotFound(format!("{what} not found")),
            other => Self::Internal(other.to_string()),
        }
    }
}

impl From<io::Error> for ApiError {
    fn from(error: io::Error) -> Self {
        Self::Internal(error.to_string())
    }
}

/// The kubelet's services for the API server. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub(crate) cx: Arc<Context>,
    pods: Informer<Pod>,
    /// The CPU times of the last summary: the next one tells rates.
    earlier: Arc<Mutex<Option<Earlier>>>,
    /// What containers had on disk when that was measured last.
    disks: Disks,
    /// What their processes had open.
    processes: Paced<Processes>,
    /// What was in volumes when that was added up last.
    sums: Sums,
    /// What other nodes are given of the images.
    serving: Option<Arc<Serving>>,
    /// Held while file systems of volumes are asked for a summary: one that hangs has one thread wait, not one for each request.
    summary_turn: Turn,
    /// The same for the kubelet's page.
    page_turn: Turn,
}

impl Api {
    /// Images of the node have come or gone, not by the kubelet: the Node object is to list them, and nothing is remembered of those that
    /// are gone.
    pub async fn images_changed(&self) {
        if let Err(error) = images::settle(&self.cx).await {
            tracing::warn!(%error, "the records of pulled images are not up to date");
        }
        self.cx.node_changed.notify_one();
    }

    /// Ends all pods in these periods, as before the machine shuts down. None is admitted any more.
    pub async fn drain(&self, periods: &Periods) {
        shutdown::manager::drain(&self.cx, periods).await;
    }

    /// Credentials for an image that is pulled by hand: those that the node's providers give, and what those say that have failed.
    pub async fn image_credentials(&self, image: &str) -> (Vec<Credentials>, Vec<String>) {
        images::provided(&self.cx, image).await
    }

    /// Over the pods of this node.
    pub fn new(cx: Arc<Context>) -> Self {
        let pods = cx.options.informers.of_selected(&format!("spec.nodeName={}", cx.options.node_name));
        let serving = cx.options.sharing.clone().map(|sharing| Arc::new(Serving::new(sharing)));
        Self {
            cx,
            pods,
            serving,
            earlier: Arc::default(),
            disks: Disks::default(),
            processes: Paced::default(),
            sums: Sums::default(),
            summary_turn: Turn::default(),
            page_turn: Turn::default(),
        }
    }

    /// Whether the manager of pods answers in time.
    pub(super) async fn looks_after_pods(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.cx.evictions.is_answered()).await.unwrap_or(false)
    }

    /// The kubelet's client of the API, and its node's name.
    pub(super) fn identity(&self) -> (kube::Client, String) {
        (self.cx.options.client.clone(), self.cx.options.node_name.clone())
    }

    /// What other nodes are given of the images, and what decides about it.
    pub(super) fn serving(&self) -> Option<(&Serving, &Context)> {
        Some((self.serving.as_deref()?, &self.cx))
    }

    /// Makes the directory of a persistent volume, or removes it with all that is in it.
    pub(super) async fn keep_volume(&self, name: &str, is_wanted: bool) -> Result<(), ApiError> {
        let root = &self.cx.options.volumes_dir;
        let done = if is_wanted { local_volumes::make(root, name).await } else { local_volumes::remove(root, name).await };
        done.map_err(|error| match error {
            local_volumes::Error::Name(_) => ApiError::BadRequest(error.to_string()),
            other => ApiError::Internal(other.to_string()),
        })
    }

    /// The pods of this node as they run.
    fn listed(&self) -> Vec<Arc<Pod>> {
        self.pods.list().into_iter().map(|pod| self.cx.statics.as_run(pod)).collect()
    }

    /// The pods that are bound to this node.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.listed()
    }

    /// What the kubelet goes by.
    pub(super) fn options(&self) -> &Options {
        &self.cx.options
    }

    /// The pods of which something runs, as the runtime knows them: names, and the containers that run.
    pub(super) async fn running_pods(&self) -> Result<Vec<Value>, ApiError> {
        let mut pods = Vec::new();
        for sandbox in self.cx.runtime().sandboxes().await? {
            let containers = self.cx.runtime().containers(Some(&sandbox.id)).await?;
            let running = containers.iter().filter(|container| container.state == RuntimeState::Running);
            let running: Vec<Value> = running
                .map(|container| json!({"name": container.name, "image": container.image_reference, "resources": {}}))
                .collect();
            if !running.is_empty() {
                let PodIdentity { name, namespace, uid } = &sandbox.pod;
                let metadata = json!({"name": name, "namespace": namespace, "uid": uid});
                pods.push(json!({"metadata": metadata, "spec": {"containers": running}, "status": {}}));
            }
        }
        Ok(pods)
    }

    /// What the node and its pods use now.
    pub(super) async fn usage(&self) -> Result<Snapshot, ApiError> {
        Ok(stats::collect(&self.cx, &self.listed()).await?)
    }

    /// The same as cAdvisor tells it, with what containers have on disk and their processes have open, as it was measured a short time ago.
    pub(super) async fn cadvisor(&self) -> Result<String, ApiError> {
        let mut snapshot = self.usage().await?;
        self.disks.complete(&self.cx, &mut snapshot).await;
        let details = Details::collect(&self.cx, &snapshot, &self.processes).await?;
        Ok(stats::cadvisor(&snapshot, &details))
    }

    /// What the kubelet's page tells of the present. Volumes are left out while one of them does not answer.
    pub(super) async fn state(&self) -> Result<State, ApiError> {
        let (sandboxes, containers) = (self.cx.runtime().sandboxes().await?, self.cx.runtime().containers(None).await?);
        let pods = self.listed();
        let (cx, of) = (self.cx.clone(), pods.clone());
        let claims = of_volumes(&self.page_turn, move || Claims::read(&of, |uid| cx.pod_dir(uid))).await;
        Ok(State::new(&self.cx.options.node_name, &pods, &sandboxes, &containers, claims))
    }

    /// The same as upstream's summary, with rates since the summary before. What containers and volumes have on disk is what was found last, as with
    /// upstream, which looks every minute.
    pub(super) async fn summary(&self, only_cpu_and_memory: bool) -> Result<Value, ApiError> {
        let mut snapshot = self.usage().await?;
        if !only_cpu_and_memory {
            let (cx, pods) = (self.cx.clone(), self.listed());
            let volumes = async {
                let read = move || stats::volumes::read(&pods, |uid| cx.pod_dir(uid));
                self.sums.complete(&self.cx, of_volumes(&self.summary_turn, read).await).await
            };
            let ((), mut volumes) = tokio::join!(self.disks.complete(&self.cx, &mut snapshot), volumes);
            for pod in &mut snapshot.pods {
                pod.volumes = volumes.remove(&pod.uid).unwrap_or_default();
            }
        }
        let earlier = self.earlier.lock().replace(Earlier::of(&snapshot));
        Ok(stats::summary(&snapshot, earlier.as_ref(), only_cpu_and_memory))
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, ApiError> {
        let missing = || ApiError::NotFound(format!("pod \"{name}\" not found"));
        self.pods.get(Some(namespace), name).map(|pod| self.cx.statics.as_run(pod)).ok_or_else(missing)
    }

    /// The pod's newest sandbox.
    async fn sandbox(&self, pod: &Pod) -> Result<Option<Sandbox>, ApiError> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let sandboxes = self.cx.runtime().sandboxes().await?;
        Ok(sandboxes.into_iter().filter(|sandbox| sandbox.pod.uid == uid).max_by_key(|sandbox| sandbox.attempt))
    }

    /// The containers of that name, newest first.
    async fn containers(&self, pod: &Pod, name: &str) -> Result<Vec<Container>, ApiError> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let sandboxes = self.cx.runtime().sandboxes().await?;
        let mut found = Vec::new();
        for sandbox in sandboxes.iter().filter(|sandbox| sandbox.pod.uid == uid) {
            let containers = self.cx.runtime().containers(Some(&sandbox.id)).await?;
            found.extend(containers.into_iter().filter(|container| container.name == name));
        }
        found.sort_by_key(|container| std::cmp::Reverse(container.attempt));
        Ok(found)
    }

    async fn running(&self, namespace: &str, pod: &str, container: &str) -> Result<Container, ApiError> {
        let pod = self.pod(namespace, pod)?;
        let found = self.containers(&pod, container).await?.into_iter().find(|c| c.state == RuntimeState::Running);
        found.ok_or_else(|| ApiError::NotFound(format!("container not found (\"{container}\")")))
    }

    /// The log of a container as bytes.
    pub async fn logs(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, ApiError> {
        let pod = self.pod(namespace, name)?;
        check_name(&pod, name, container)?;
        let found = self.containers(&pod, container).await?;
        let begun = found.into_iter().filter(|container| container.state != RuntimeState::Created).collect();
        let chosen = choose(begun, options.previous, last_terminated(&pod, container).as_deref());
        let Some(chosen) = chosen else {
            let path = kept_log(&pod, container, options.previous).map(|log| self.cx.log_dir(&Model::new(pod.clone())).join(log));
            if let Some(path) = path
                && tokio::fs::try_exists(&path).await?
            {
                let ended = futures::stream::once(std::future::ready(true)).boxed();
                return Ok(logs::read(path, options, ended).await?.boxed());
            }
            return Err(ApiError::BadRequest(without_log(&pod, container, options.previous)));
        };
        let ended = self.ended(&pod, &chosen);
        Ok(logs::read(chosen.log_path, options, ended).await?.boxed())
    }

    /// Whether the container has ended: now, and after each event of its pod.
    fn ended(&self, pod: &Pod, container: &Container) -> BoxStream<'static, bool> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let (runtime, id) = (self.cx.runtime().clone(), container.id.clone());
        let events = runtime.events().filter(move |event| std::future::ready(event.pod_uid == uid)).map(drop);
        let looks = futures::stream::once(std::future::ready(())).chain(events);
        let look = move |()| {
            let (runtime, id) = (runtime.clone(), id.clone());
            // A container that cannot be found any more writes no more either.
            async move { runtime.container(&id).await.map_or(true, |container| container.state == RuntimeState::Exited) }
        };
        looks.then(look).boxed()
    }

    /// Runs a command in a running container.
    pub async fn exec(&self, namespace: &str, pod: &str, container: &str, request: ExecRequest) -> Result<Streams, ApiError> {
        let container = self.running(namespace, pod, container).await?;
        Ok(self.cx.runtime().exec(&container.id, request).await?)
    }

    /// Attaches to a running container.
    pub async fn attach(&self, namespace: &str, pod: &str, container: &str, request: ExecRequest) -> Result<Streams, ApiError> {
        let container = self.running(namespace, pod, container).await?;
        Ok(self.cx.runtime().attach(&container.id, request).await?)
    }

    /// Whether a container runs, before a connection is taken over for it.
    pub async fn check_running(&self, namespace: &str, pod: &str, container: &str) -> Result<(), ApiError> {
        self.running(namespace, pod, container).await.map(drop)
    }

    /// Whether a pod is there, before a connection is taken over for it.
    pub fn check_pod(&self, namespace: &str, pod: &str) -> Result<(), ApiError> {
        self.pod(namespace, pod).map(drop)
    }

    /// Why there is no checkpoint of a container (KEP-2008): it is not there, or, in upstream's words for runtimes without them, which its
    /// tests know, the runtime makes none.
    pub fn no_checkpoint(&self, (namespace, name, container): (&str, &str, &str), timeout: Option<&str>) -> ApiError {
        let Ok(pod) = self.pod(namespace, name) else { return ApiError::NotFound("pod does not exist".to_owned()) };
        if check_name(&pod, name, container).is_err() {
            return ApiError::NotFound(format!("container {container} does not exist"));
        }
        if timeout.is_some_and(|seconds| seconds.parse::<i64>().is_err()) {
            return ApiError::NotFound("cannot parse value of timeout parameter".to_owned());
        }
        let why = "rpc error: code = Unimplemented desc = method CheckpointContainer not implemented";
        ApiError::Internal(format!(
            "checkpointing of {namespace}/{name}/{container} failed ({why}): this node makes no checkpoints"
        ))
    }

    /// A connection to a port on the pod's loopback address.
    pub async fn dial(&self, namespace: &str, name: &str, port: u16) -> Result<TcpStream, ApiError> {
        let pod = self.pod(namespace, name)?;
        let sandbox = self.sandbox(&pod).await?;
        let sandbox = sandbox.ok_or_else(|| ApiError::NotFound(format!("pod \"{name}\" has no sandbox yet")))?;
        Ok(self.cx.runtime().dial(&sandbox.id, port).await?)
    }
}

/// Who holds it asks the file systems of volumes.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// What `read` finds in volumes; nothing when one of them does not answer in time.
async fn of_volumes<T: Default + Send + 'static>(turn: &Turn, read: impl FnOnce() -> T + Send + 'static) -> T {
    let work = async {
        let turn = turn.clone().lock_owned().await;
        let read = move || {
            let _turn = turn;
            read()
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_default()
}

/// Of the containers that began, newest first: the newest, or the previous one. That is the one of `lastState`, which is the
/// newest while a crashed container waits for its restart.
fn choose(mut begun: Vec<Container>, previous: bool, last_terminated: Option<&str>) -> Option<Container> {
    let told = begun.iter().position(|container| previous && last_terminated == Some(container.id.as_str()));
    let index = told.unwrap_or(usize::from(previous));
    (index < begun.len()).then(|| begun.swap_remove(index))
}

/// The runtime's identifier of the container in `lastState`.
fn last_terminated(pod: &Pod, container: &str) -> Option<String> {
    let status = container_status(pod, container)?;
    let id = status.last_state?.terminated?.container_id?;
    id.strip_prefix(crate::pod::status::SCHEME).map(str::to_owned)
}

fn container_status(pod: &Pod, container: &str) -> Option<ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == container).cloned()
}

fn check_name(pod: &Arc<Pod>, name: &str, container: &str) -> Result<(), ApiError> {
    let known = Model::new(pod.clone()).member(container).is_some();
    if known { Ok(()) } else { Err(ApiError::BadRequest(format!("container {container} is not valid for pod {name}"))) }
}

/// The log, below those of the pod, of an ended container that the runtime does not know any more: it forgets them at a restart of the
/// machine, while their logs and what the API was told of them stay.
fn kept_log(pod: &Pod, container: &str, previous: bool) -> Option<PathBuf> {
    let status = container_status(pod, container)?;
    let newest = u32::try_from(status.restart_count).ok()?;
    let ended = |state: Option<ContainerState>| state.is_some_and(|state| state.terminated.is_some());
    let is_waiting = status.state.as_ref().is_some_and(|state| state.waiting.is_some());
    let attempt = match previous || is_waiting {
        // One that waits to be made again has its newest container as its last one.
        true => ended(status.last_state).then(|| newest.checked_sub(u32::from(!is_waiting)))??,
        false => ended(status.state).then_some(newest)?,
    };
    Some(Path::new(container).join(format!("{attempt}.log")))
}

/// Why there is no log.
fn without_log(pod: &Pod, container: &str, previous: bool) -> String {
    let title = format!("container \"{container}\" in pod \"{}\"", pod.metadata.name.as_deref().unwrap_or_default());
    if previous {
        return format!("previous terminated {title} not found");
    }
    let state = container_status(pod, container).and_then(|status| status.state).unwrap_or_default();
    if state.terminated.is_some() {
        return format!("{title} is terminated");
    }
    let reason = state.waiting.and_then(|waiting| waiting.reason);
    format!("{title} is waiting to start: {}", reason.as_deref().unwrap_or("ContainerCreating"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::{container, ended};
    use serde_json::json;

    /// The container whose log is shown, of `1` and `2`, the newest of which runs or has ended.
    #[track_caller]
    fn check(newest_ended: bool, last: Value, previous: bool, expected: &str) {
        let newest = if newest_ended { ended("2", "c", 1, 1) } else { container("2", "c", 1, RuntimeState::Running) };
        let pod = json!({"status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": 1, "lastState": last}]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let chosen = choose(vec![newest, ended("1", "c", 0, 1)], previous, last_terminated(&pod, "c").as_deref());
        assert_eq!(chosen.map(|container| container.id).as_deref(), Some(expected));
    }

    #[test]
    fn previous_is_the_container_of_the_last_state() {
        let last = |id: &str| json!({"terminated": {"exitCode": 1, "containerID": format!("knarr://{id}")}});
        check(false, last("1"), false, "2");
        check(false, last("1"), true, "1");
        check(true, last("2"), true, "2");
        check(true, last("2"), false, "2");
        check(false, json!({}), true, "1");
    }

    #[test]
    fn logs_of_containers_that_the_runtime_has_forgotten() {
        let check = |state: Value, last: Value, previous: bool, expected: Result<&str, &str>| {
            let pod = json!({"metadata": {"name": "p"}, "status": {"initContainerStatuses": [{"name": "c", "image": "", "imageID": "",
                "ready": false, "restartCount": 2, "state": state, "lastState": last}]}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let kept = kept_log(&pod, "c", previous).ok_or_else(|| without_log(&pod, "c", previous));
            assert_eq!(kept, expected.map(PathBuf::from).map_err(str::to_owned));
        };
        let ended = || json!({"terminated": {"exitCode": 0}});
        let running = || json!({"running": {}});
        let waiting = || json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let no_previous = Err("previous terminated container \"c\" in pod \"p\" not found");
        check(ended(), Value::Null, false, Ok("c/2.log"));
        check(ended(), Value::Null, true, no_previous);
        check(ended(), ended(), true, Ok("c/1.log"));
        check(running(), ended(), true, Ok("c/1.log"));
        check(waiting(), ended(), false, Ok("c/2.log"));
        check(waiting(), ended(), true, Ok("c/2.log"));
        check(waiting(), Value::Null, true, no_previous);
        check(waiting(), Value::Null, false, Err("container \"c\" in pod \"p\" is waiting to start: CrashLoopBackOff"));
        check(Value::Null, Value::Null, false, Err("container \"c\" in pod \"p\" is waiting to start: ContainerCreating"));
        let gone: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [{"name": "c",
            "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": ended()}]}}))
        .unwrap();
        assert_eq!(without_log(&gone, "c", false), "container \"c\" in pod \"p\" is terminated");
    }
}
