//! Staging and publishing of volumes, and the way back (CSI specification, "Volume Lifecycle").
//!
//! A record is written before a driver is asked for something, and removed after it has been undone. Every call may be repeated.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Api;
use csi::Driver;
use csi::messages::{
    Capability, NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
};
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};

use super::operations::operated;
use super::policy::Policy;
use super::records::{self, Record};
use super::source::{Context as Pairs, SecretName, Source};
use crate::context::Context;
use crate::pod::state::Evicted;
use crate::spec::Model;
use crate::volumes::failure::{Failure, Step};
use crate::volumes::groups::{Ownership, Progress, give};
use crate::volumes::tokens;

/// Key of the tokens of the pod's service account, in the context or among the secrets.
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// The code with which a driver says that a node can have no more of its volumes.
const RESOURCE_EXHAUSTED: i32 = 8;

/// How often an attachment is looked at before its pod is told that it waits, and how long is waited in between.
const LOOKS: u32 = 10;
const LOOK: Duration = Duration::from_millis(500);

/// How long the node's status may take to name a volume before the pod is told that it waits.
const REPORTED: Duration = Duration::from_secs(10);

/// Time until a volume is unstaged again that its driver has refused to, first and at most: doubled each time.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));

/// A volume that is shown to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Where.
    pub target: PathBuf,
    /// The driver wants to show it again from time to time.
    pub republish: bool,
    /// It may grow while it is used.
    pub grows: bool,
}

impl Mounted {
    /// The same, of a volume that may have been shown before: one that was found not to grow does not grow because it is shown once more.
    pub fn after(self, known: Option<&Self>) -> Self {
        Self { grows: self.grows && known.is_none_or(|known| known.grows), ..self }
    }
}

/// What is known before the driver is asked.
struct Plan {
    driver: Driver,
    policy: Policy,
    abilities: BTreeSet<Capability>,
    group: Option<u32>,
}

impl Plan {
    fn can(&self, ability: Capability) -> bool {
        self.abilities.contains(&ability)
    }

    fn capability(&self, source: &Source) -> csi::messages::VolumeCapability {
        let group = self.group.filter(|_| self.can(Capability::VolumeMountGroup));
        source.capability(self.can(Capability::SingleNodeMultiWriter), group)
    }
}

/// Stages and publishes a volume for a pod. Idempotent.
pub async fn set_up(cx: &Context, model: &Model, source: &Source) -> Result<Mounted, Failure> {
    let group = crate::volumes::group(model);
    // As upstream, who looks for the driver when it first needs it.
    let first = if source.ephemeral { Step::SetUp } else { Step::Stage };
    let driver = cx.drivers.find(&source.driver).map_err(|why| Failure::at(first, why))?;
    let policy = policy(cx, &source.driver).await?;
    source.refused_by(&policy)?;
    let context = match attachment(cx, source, &policy).await {
        Ok(context) => context,
        Err(Detached { why, no_room }) => {
            if no_room {
                cx.drivers.no_room();
                let message = format!("volume attachment limit exceeded on node {}: {why}", cx.options.node_name);
                cx.evictions.evict(model.uid(), Evicted::for_attachments(message)).await;
            }
            return Err(Failure::at(Step::Attach, why));
        }
    };
    let abilities = driver.capabilities().await.map_err(|error| error.to_string())?;
    let plan = Plan { driver, policy, abilities, group };
    let pod_dir = cx.pod_dir(model.uid());
    let (target, staging) = (records::target(&pod_dir, &source.name), staging(cx, source, &plan));
    let record = Record {
        driver_name: source.driver.clone(),
        volume_handle: source.handle.clone(),
        spec_name: source.name.clone(),
        volume_lifecycle_mode: if source.ephemeral { "Ephemeral" } else { "Persistent" }.to_owned(),
        staging: staging.clone().unwrap_or_default(),
    };
    let _one = cx.drivers.lock(lock_path(cx, source)).await;
    // The pod's record is there while the volume is staged: nobody takes the stage away meanwhile.
    write(target.clone(), record.clone()).await?;
    if !source.ephemeral && plan.policy.attach {
        reported_in_use(cx, source).await.map_err(|why| Failure::at(Step::Attach, why))?;
    }
    if let Some(staging) = &staging {
        stage(cx, source, &plan, staging, &record, &context).await.map_err(|why| Failure::at(Step::Stage, why))?;
    }
    publish(cx, model, source, &plan, &target, staging.as_deref(), context).await?;
    cx.node_changed.notify_one();
    // Who may open a device is decided by the container's rules, not by its group.
    let by_us =
        !source.block && plan.policy.gives_to_group(&source.fs_type, &source.modes) && !plan.can(Capability::VolumeMountGroup);
    if by_us && !source.read_only {
        let progress = Arc::new(Progress::default());
        let (own, root, seen) = (model.clone(), target.clone(), progress.clone());
        let work = move || Ownership::of(&own, &pod_dir, &seen).map_or(Ok(()), |owner| give(&root, &root, owner));
        progress.tell(cx, model, blocking(work)).await?;
    }
    let grows = !source.ephemeral && plan.can(Capability::ExpandVolume);
    Ok(Mounted { target, republish: plan.policy.republish, grows })
}

/// Waits until the API says that this node uses the volume, which its record does: whoever detaches volumes goes by that, and must not
/// while a driver stages it, which may take minutes. Upstream waits for the same (`ReportedInUse` of its volume manager).
async fn reported_in_use(cx: &Context, source: &Source) -> Result<(), String> {
    let (node, name) = (&cx.options.node_name, pods::csi::unique_name(&source.driver, &source.handle));
    let nodes = cx.options.informers.of_selected::<Node>(&format!("metadata.name={node}"));
    let mut changes = nodes.changes();
    let is_reported = || {
        let found = nodes.get(None, node);
        let used = found.as_ref().and_then(|node| node.status.as_ref()?.volumes_in_use.as_ref());
        used.is_some_and(|used| used.contains(&name))
    };
    let seen = async {
        while !is_reported() {
            cx.volume_waits.notify_one();
            changes.next().await;
        }
    };
    let why = || format!("volume {name} has not been added to the list of VolumesInUse in the node's volume status");
    tokio::time::timeout(REPORTED, seen).await.map_err(|_| why())
}

/// The directory that stands for the volume among those that wait for each other.
fn lock_path(cx: &Context, source: &Source) -> PathBuf {
    records::staging(&cx.options.data_dir, &source.driver, &source.handle)
}

fn staging(cx: &Context, source: &Source, plan: &Plan) -> Option<PathBuf> {
    (!source.ephemeral && plan.can(Capability::StageUnstageVolume)).then(|| lock_path(cx, source))
}

/// What a driver's object asks for.
pub(super) async fn policy(cx: &Context, driver: &str) -> Result<Policy, String> {
    let drivers = Api::<CSIDriver>::all(cx.options.client.clone());
    let object = drivers.get_opt(driver).await.map_err(|error| client::why(&error))?;
    Ok(Policy::of(object.as_ref()))
}

/// Why a volume is not attached to this node yet.
struct Detached {
    why: String,
    /// The node can have no more of the driver's volumes.
    no_room: bool,
}

impl From<String> for Detached {
    fn from(why: String) -> Self {
        Self { why, no_room: false }
    }
}

/// What came of the attachment to this node, empty when none is needed. It takes a few seconds, and a node may not watch it.
async fn attachment(cx: &Context, source: &Source, policy: &Policy) -> Result<Pairs, Detached> {
    if source.ephemeral || !policy.attach {
        return Ok(Pairs::new());
    }
    let mut looks = 0;
    loop {
        match attached(cx, source).await {
            Err(Detached { no_room: false, .. }) if looks < LOOKS => looks += 1,
            other => return other,
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn attached(cx: &Context, source: &Source) -> Result<Pairs, Detached> {
    let name = pods::csi::attachment_name(&source.driver, &source.handle, &cx.options.node_name);
    let attachments = Api::<VolumeAttachment>::all(cx.options.client.clone());
    let found = attachments.get_opt(&name).await.map_err(|error| client::why(&error))?;
    let waiting = |why: &str| Detached::from(format!("volume attachment is being waited for: {name}{why}"));
    let Some(found) = found else { return Err(waiting(" does not exist yet")) };
    if found.metadata.deletion_timestamp.is_some() {
        return Err(waiting(" is being deleted"));
    }
    match found.status {
        Some(status) if status.attached => Ok(status.attachment_metadata.unwrap_or_default().into_iter().collect()),
        Some(status) => {
            let error = status.attach_error.unwrap_or_default();
            let why = error.message.map(|message| format!(": {message}"));
            let no_room = error.error_code == Some(RESOURCE_EXHAUSTED);
            Err(Detached { no_room, ..waiting(&why.unwrap_or_default()) })
        }
        None => Err(waiting("")),
    }
}

async fn stage(
    cx: &Context,
    source: &Source,
    plan: &Plan,
    staging: &Path,
    record: &Record,
    context: &Pairs,
) -> Result<(), String> {
    let request = NodeStageVolumeRequest {
        volume_id: source.handle.clone(),
        publish_context: context.clone(),
        staging_target_path: staging.display().to_string(),
        volume_capability: Some(plan.capability(source)),
        secrets: secrets(cx, source.stage_secret.as_ref()).await?,
        volume_context: source.attributes.clone(),
    };
    write(staging.to_owned(), record.clone()).await?;
    let path = staging.to_owned();
    blocking(move || std::fs::create_dir_all(path)).await?;
    plan.driver.stage(&request).await.map_err(|error| error.to_string())
}

async fn publish(
    cx: &Context,
    model: &Model,
    source: &Source,
    plan: &Plan,
    target: &Path,
    staging: Option<&Path>,
    publish_context: Pairs,
) -> Result<(), String> {
    let mut volume_context = source.context(model, &plan.policy);
    let mut secrets = secrets(cx, source.publish_secret.as_ref()).await?;
    if !plan.policy.tokens.is_empty() {
        let all = tokens::for_driver(&cx.options.client, model, &plan.policy.tokens).await?;
        let place = if plan.policy.tokens_are_secret { &mut secrets } else { &mut volume_context };
        place.insert(TOKENS.to_owned(), all);
    }
    let request = NodePublishVolumeRequest {
        volume_id: source.handle.clone(),
        publish_context,
        staging_target_path: staging.map(|path| path.display().to_string()).unwrap_or_default(),
        target_path: target.display().to_string(),
        volume_capability: Some(plan.capability(source)),
        readonly: source.read_only,
        secrets,
        volume_context,
    };
    plan.driver.publish(&request).await.map_err(|error| error.to_string())
}

/// The contents of a Secret, none when no name is given.
pub(super) async fn secrets(cx: &Context, name: Option<&SecretName>) -> Result<Pairs, String> {
    let Some(SecretName { namespace, name }) = name else { return Ok(Pairs::new()) };
    let api = Api::<Secret>::namespaced(cx.options.client.clone(), namespace);
    let failed = |why: &str| format!("failed to get secret {namespace}/{name}: {why}");
    let secret = api.get(name).await.map_err(|error| failed(&client::why(&error)))?;
    let texts =
        secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()));
    Ok(texts.collect())
}

/// Takes the volumes of drivers from a pod, and their stages where no other pod has them. A driver that refuses, or is gone, keeps back no other one's:
/// the error is that of the first volume that stays. Idempotent.
pub async fn tear_down(cx: &Context, pod_dir: &Path) -> Result<(), String> {
    let directory = pod_dir.to_owned();
    let all = blocking(move || records::list(&directory)).await?;
    each(all, async |(target, record): (PathBuf, Record)| {
        let failed = |error: String| format!("UnmountVolume.TearDown failed for volume {:?} : {error}", record.spec_name);
        let started = Instant::now();
        let result = take_away(cx, target, &record).await;
        operated(&record.driver_name, "volume_unmount", started.elapsed(), &result);
        result.map_err(failed)?;
        cx.node_changed.notify_one();
        Ok(())
    })
    .await?;
    let directory = records::of_pod(pod_dir);
    blocking(move || match std::fs::remove_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
    .await
}

/// Does the same to all of them, all at once: one that is slow keeps back none of the others either. The error is that of the first that has one.
async fn each<T, F: Future<Output = Result<(), String>>>(all: Vec<T>, work: impl Fn(T) -> F) -> Result<(), String> {
    futures::future::join_all(all.into_iter().map(work)).await.into_iter().collect()
}

async fn take_away(cx: &Context, target: PathBuf, record: &Record) -> Result<(), String> {
    if record.driver_name.is_empty() {
        return blocking(move || records::remove(&target)).await;
    }
    let driver = cx.drivers.find(&record.driver_name)?;
    let staging = records::staging(&cx.options.data_dir, &record.driver_name, &record.volume_handle);
    let _one = cx.drivers.lock(staging).await;
    let request =
        NodeUnpublishVolumeRequest { volume_id: record.volume_handle.clone(), target_path: target.display().to_string() };
    driver.unpublish(&request).await.map_err(|error| error.to_string())?;
    blocking(move || records::remove(&target)).await?;
    // As upstream, the pod goes without its volume's stage, which is taken away for as long as it takes.
    if !record.staging.as_os_str().is_empty()
        && let Err(error) = unstage(cx, &driver, &record.staging, record).await
    {
        tracing::warn!(
            driver = record.driver_name,
            volume = record.volume_handle,
            error,
            "a volume that no pod has stays staged"
        );
        cx.drivers.stage_left();
    }
    Ok(())
}

/// Takes a stage away unless a pod has the volume. The caller holds the volume's lock.
async fn unstage(cx: &Context, driver: &Driver, staging: &Path, record: &Record) -> Result<(), String> {
    let data_dir = cx.options.data_dir.clone();
    let users = blocking(move || records::of_all_pods(&data_dir)).await?;
    let same = |other: &Record| (&other.driver_name, &other.volume_handle) == (&record.driver_name, &record.volume_handle);
    if users.iter().any(|(_, other)| same(other)) {
        return Ok(());
    }
    let request =
        NodeUnstageVolumeRequest { volume_id: record.volume_handle.clone(), staging_target_path: staging.display().to_string() };
    driver.unstage(&request).await.map_err(|error| format!("UnmountDevice failed: {error}"))?;
    let path = staging.to_owned();
    blocking(move || records::remove(&path)).await?;
    cx.node_changed.notify_one();
    Ok(())
}

/// Takes away the stages of a driver that no pod has, for as long as the driver is there: it has refused, or a process before was killed between
/// the two steps.
pub async fn keep_unstaging(cx: &Context, name: &str) {
    let (mut left, mut delay) = (cx.drivers.stages_left(), RETRY.0);
    loop {
        left.borrow_and_update();
        match unstage_unused(cx, name).await {
            Ok(()) => {
                delay = RETRY.0;
                if left.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(driver = name, error, "stages of volumes that nobody uses are left");
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY.1);
            }
        }
    }
}

/// Tries each stage of the driver once; the error is that of the last one that stays.
async fn unstage_unused(cx: &Context, name: &str) -> Result<(), String> {
    let (data_dir, driver) = (cx.options.data_dir.clone(), cx.drivers.find(name)?);
    let of_driver = name.to_owned();
    let mut all = Ok(());
    for (staging, record) in blocking(move || records::staged(&data_dir, &of_driver)).await? {
        let _one = cx.drivers.lock(staging.clone()).await;
        let unstaged = if record.driver_name.is_empty() {
            blocking(move || records::remove(&staging)).await
        } else {
            unstage(cx, &driver, &staging, &record).await
        };
        all = unstaged.and(all);
    }
    all
}

/// The volumes that this node uses, or has staged, for its status: who attaches volumes leaves them alone.
pub fn in_use(data_dir: &Path) -> Vec<String> {
    let all = records::readable(data_dir);
    let persistent = all.iter().filter(|record| record.volume_lifecycle_mode == "Persistent");
    let names: BTreeSet<String> =
        persistent.map(|record| pods::csi::unique_name(&record.driver_name, &record.volume_handle)).collect();
    names.into_iter().collect()
}

async fn write(path: PathBuf, record: Record) -> Result<(), String> {
    blocking(move || records::write(&path, &record)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    done.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pod has volumes of several drivers, one of which is uninstalled or hangs.
    #[tokio::test]
    async fn one_that_stays_keeps_back_no_other() {
        let (done, tried) = (tokio::sync::Notify::new(), parking_lot::Mutex::new(Vec::new()));
        let work = async |number: u32| {
            match number {
                // As long as the last one has not been tried.
                0 => done.notified().await,
                3 => done.notify_one(),
                _ => {}
            }
            tried.lock().push(number);
            if number == 3 || number == 2 { Ok(()) } else { Err(number.to_string()) }
        };
        assert_eq!(each(vec![0, 1, 2, 3], &work).await, Err("0".to_owned()));
        assert_eq!(*tried.lock(), [1, 2, 3, 0]);
        assert_eq!(each(vec![2, 3], &work).await, Ok(()));
    }

    /// A driver may ask for its volumes to be shown again every minute (`requiresRepublish`).
    #[test]
    fn a_volume_that_cannot_grow_is_not_asked_to_again_when_it_is_shown_again() {
        let mounted = |grows: bool| Mounted { target: "/t".into(), republish: true, grows };
        let check = |now: bool, known: Option<bool>, expected: bool| {
            assert_eq!(mounted(now).after(known.map(mounted).as_ref()), mounted(expected), "{now} {known:?}");
        };
        check(true, None, true);
        check(true, Some(true), true);
        check(true, Some(false), false);
        check(false, Some(true), false);
    }
}
