//! What the scheduler writes: bindings, and why a pod has no node.

use std::sync::Arc;
use std::time::Duration;

use base::budgets::shares::Share;
use client::events::{Recorder, Type};
use client::kube;
use client::kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use client::{Client, Informer, Key};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod, PodCondition};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status, Time};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::binding::{CalledOff, PendingBinding};
use crate::devices::{Reservation, binding, write};
use crate::extenders::call::CallError;
use crate::pod::{PREEMPTED, PodInfo};
use crate::queue::Trial;
use crate::volumes::binding::Bindings;
use crate::waiting::Cache;

/// A write that has ended.
pub(crate) enum Written {
    Bound {
        pod: Arc<PodInfo>,
        node: String,
        trial: Trial,
        /// The claims for devices that were written for it.
        claims: Vec<ResourceClaim>,
        /// That of a binding that waited for claims.
        share: Option<Share>,
        /// It was an extender's to bind it.
        by_extender: bool,
        result: Result<(), BindError>,
    },
    /// A victim of preemption was told to go.
    Evicted {
        victim: Arc<PodInfo>,
        result: kube::Result<()>,
    },
    /// The devices of a claim that nobody uses were to be taken away.
    Deallocated {
        pod: Arc<PodInfo>,
        result: kube::Result<()>,
    },
    /// Claims of an attempt that failed were to be deleted.
    Discarded {
        pod: Arc<PodInfo>,
        result: Result<(), crate::devices::write::Error>,
    },
    Reported,
}

impl Written {
    /// The pod that it was about, where that is known.
    pub(crate) fn pod(&self) -> Option<&PodInfo> {
        match self {
            Self::Bound { pod, .. }
            | Self::Discarded { pod, .. }
            | Self::Deallocated { pod, .. }
            | Self::Evicted { victim: pod, .. } => Some(pod),
            Self::Reported => None,
        }
    }
}

/// Why a pod was not bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("{}", client::why(.0))]
    Api(#[from] kube::Error),
    #[error("{0}")]
    Claim(#[from] crate::devices::write::Error),
    #[error("{0}")]
    Extender(#[from] CallError),
    #[error("an extender says that it has bound the pod, and the pod has no node")]
    NotShown,
    #[error("{0}")]
    Device(String),
    #[error("{0}")]
    CalledOff(#[from] CalledOff),
    #[error("device binding timeout")]
    DevicesLate,
    #[error("binding volumes: context deadline exceeded")]
    Late,
    #[error("binding volumes: {0}")]
    Volumes(#[from] crate::volumes::binding::Error),
}

/// A binding that is not under way yet.
pub(crate) type Bind = BoxFuture<'static, Result<(), BindError>>;

/// A binding, and who makes it.
pub(crate) struct Binder {
    pub(crate) bind: Bind,
    pub(crate) is_extender: bool,
}

/// Reasons of the condition PodScheduled.
pub(crate) const UNSCHEDULABLE: &str = "Unschedulable";
pub(crate) const SCHEDULER_ERROR: &str = "SchedulerError";

/// What a pod needs before it can be bound.
pub(crate) struct Needs {
    /// Of its claims for volumes.
    pub(crate) volumes: Bindings,
    /// Of its claims for devices.
    pub(crate) devices: Vec<Reservation>,
    pub(crate) claims: Cache<ResourceClaim>,
    /// Who tells what is waited for.
    pub(crate) events: Option<Recorder>,
    /// It is one of those that wait.
    pub(crate) share: Share,
    /// It may be called off meanwhile.
    pub(crate) pending: PendingBinding,
}

/// How long volumes may take.
const VOLUMES: Duration = Duration::from_secs(600);
/// How long devices may take to meet their conditions (upstream: `bindingTimeout` of the plugin).
const DEVICES: Duration = Duration::from_secs(600);

/// How long it may take to tell which node a pod will be bound to. It only helps others to choose.
const TOLD: Duration = Duration::from_secs(2);

pub(crate) struct Api {
    client: Client,
}

impl Api {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn pods(&self, pod: &PodInfo) -> client::Api<Pod> {
        client::Api::namespaced(self.client.clone(), pod.namespace())
    }

    /// Gives the pod its node.
    pub(crate) fn bind(&self, pod: Arc<PodInfo>, node: String, trial: Trial, binder: Binder) -> BoxFuture<'static, Written> {
        let Binder { bind, is_extender: by_extender } = binder;
        async move { Written::Bound { pod, node, trial, claims: Vec::new(), share: None, by_extender, result: bind.await } }
            .boxed()
    }

    /// Gives the pod its node when its claims have their volumes and their devices there.
    pub(crate) fn bind_with(
        &self,
        pod: Arc<PodInfo>,
        node: String,
        trial: Trial,
        needs: Needs,
        binder: Binder,
    ) -> BoxFuture<'static, Written> {
        let (client, nominated) = (self.client.clone(), self.nominate(&pod, &node));
        let Binder { bind, is_extender: by_extender } = binder;
        async move {
            let nominated = tokio::time::timeout(TOLD, nominated).await.ok().flatten();
            let (pod, mut claims) = (nominated.unwrap_or(pod), Vec::new());
            let result = bind_with(&client, &pod, &needs, &mut claims, bind).await;
            if result.is_err() {
                write::give_back(&client, &pod, &needs.devices, &mut claims).await;
            }
            Written::Bound { pod, node, trial, claims, share: Some(needs.share), by_extender, result }
        }
        .boxed()
    }

    /// Deletes claims that were made for a pod which was not bound in the end.
    pub(crate) fn discard(&self, pod: Arc<PodInfo>, claims: Vec<Arc<ResourceClaim>>) -> BoxFuture<'static, Written> {
        let client = self.client.clone();
        async move {
            let mut result = Ok(());
            for claim in &claims {
                result = result.and(write::discard(&client, &pod, claim).await);
            }
            Written::Discarded { pod, result }
        }
        .boxed()
    }

    /// Takes the devices of a claim away that nobody uses, so that the pod may get others.
    pub(crate) fn deallocate(&self, pod: Arc<PodInfo>, claim: Arc<ResourceClaim>) -> BoxFuture<'static, Written> {
        let client = self.client.clone();
        async move { Written::Deallocated { pod, result: write::deallocate(&client, &claim).await } }.boxed()
    }

    /// Binds the pod.
    pub(crate) fn binding(&self, pod: &Arc<PodInfo>, node: &str) -> Bind {
        let (api, pod, node) = (self.pods(pod), pod.clone(), node.to_owned());
        async move {
            let Key { namespace, name } = pod.key();
            let binding = Binding {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace,
                    uid: Some(pod.uid().to_owned()),
                    ..ObjectMeta::default()
                },
                target: ObjectReference { kind: Some("Node".to_owned()), name: Some(node.clone()), ..ObjectReference::default() },
            };
            let result = api.create_subresource::<_, Status>("binding", &name, &PostParams::default(), &binding).await;
            Ok(result.map(|_| ())?)
        }
        .boxed()
    }

    /// Ends a pod whose room another needs.
    pub(crate) fn evict(&self, victim: Arc<PodInfo>, message: String) -> BoxFuture<'static, Written> {
        let api = self.pods(&victim);
        async move {
            let name = victim.name();
            let condition = condition("DisruptionTarget", "True", PREEMPTED, message, victim.generation());
            let patch = json!({"metadata": {"uid": victim.uid()}, "status": {"conditions": [condition]}});
            let marked = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            let same = Preconditions { uid: Some(victim.uid().to_owned()), resource_version: None };
            let deleted = match marked {
                Ok(_) => api.delete(name, &DeleteParams::default().preconditions(same)).await.map(|_| ()),
                Err(error) => Err(error),
            };
            // Gone, or another of the same name: what was wanted.
            let result = match deleted {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                other => other,
            };
            Written::Evicted { victim, result }
        }
        .boxed()
    }

    /// Tells in the status of a pod which node it will be bound to, for those who would make room elsewhere meanwhile (KEP-5278,
    /// `NominatedNodeNameForExpectation`). Gives the pod as it is then; none where it is told already, or cannot be, which keeps no pod from its node.
    /// Of another version of the pod it is not told: whoever has given up waiting may have said meanwhile why the pod has no node.
    fn nominate(&self, pod: &PodInfo, node: &str) -> BoxFuture<'static, Option<Arc<PodInfo>>> {
        let status = pod.object().and_then(|pod| pod.status.as_ref());
        if status.and_then(|status| status.nominated_node_name.as_deref()) == Some(node) {
            return std::future::ready(None).boxed();
        }
        let (api, name) = (self.pods(pod), pod.key().name);
        let version = pod.object().and_then(|pod| pod.metadata.resource_version.as_deref());
        let patch = json!({"metadata": {"uid": pod.uid(), "resourceVersion": version}, "status": {"nominatedNodeName": node}});
        async move {
            match api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(pod) => Some(Arc::new(PodInfo::new(Arc::new(pod)))),
                Err(error) => {
                    tracing::debug!(pod = name, %error, "the node is not in the status");
                    None
                }
            }
        }
        .boxed()
    }

    /// Takes back the node that a pod was promised.
    pub(crate) fn withdraw(&self, pod: &PodInfo) -> BoxFuture<'static, Written> {
        self.patch_status(pod, None, json!({"nominatedNodeName": null}))
    }

    /// Writes the condition that says why the pod has no node, and which node it is `promised`. Nothing when it says so
    /// already.
    pub(crate) fn report(
        &self,
        pod: &PodInfo,
        reason: &str,
        message: String,
        promised: Option<&str>,
    ) -> Option<BoxFuture<'static, Written>> {
        const KIND: &str = "PodScheduled";
        let status = pod.object().and_then(|pod| pod.status.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let old = conditions.into_iter().flatten().find(|condition| condition.type_ == KIND);
        let same = |old: &PodCondition| {
            old.status == "False" && old.reason.as_deref() == Some(reason) && old.message.as_deref() == Some(&message)
        };
        if old.is_some_and(same) && status.and_then(|status| status.nominated_node_name.as_deref()) == promised {
            return None;
        }
        let mut condition = condition(KIND, "False", reason, message, pod.generation());
        if let Some(old) = old.filter(|old| old.status == "False") {
            condition.last_transition_time.clone_from(&old.last_transition_time);
        }
        // Where only the answer to a binding was lost, the pod is another version by now, and is not said to have no node.
        let version = pod.object().and_then(|pod| pod.metadata.resource_version.as_deref()).filter(|_| reason == SCHEDULER_ERROR);
        Some(self.patch_status(pod, version, json!({"conditions": [condition], "nominatedNodeName": promised})))
    }

    /// Changes the status of a pod, if it is still of that version where one is given.
    fn patch_status(&self, pod: &PodInfo, version: Option<&str>, status: serde_json::Value) -> BoxFuture<'static, Written> {
        let (api, name) = (self.pods(pod), pod.key().name);
        let mut patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
        if let Some(version) = version {
            patch["metadata"]["resourceVersion"] = version.into();
        }
        async move {
            if let Err(error) = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                tracing::debug!(pod = name, %error, "the reason is not in the status");
            }
            Written::Reported
        }
        .boxed()
    }
}

/// Reserves devices, then waits for them and for volumes, then binds. `claims` gets the claims for devices that were written.
async fn bind_with(
    client: &Client,
    pod: &PodInfo,
    needs: &Needs,
    claims: &mut Vec<ResourceClaim>,
    bind: Bind,
) -> Result<(), BindError> {
    write::reserve(client, pod, &needs.devices, claims).await?;
    if let Some(events) = needs.events.as_ref().filter(|_| claims.iter().any(binding::has_conditions)) {
        let message = format!("waiting for binding conditions for device on node {}", needs.volumes.node);
        events.event(&pod.reference(), Type::Normal, "BindingConditionsPending", message);
    }
    let devices = tokio::time::timeout(DEVICES, devices_ready(&needs.claims, claims));
    needs.pending.unless_called_off(devices).await?.map_err(|_| BindError::DevicesLate)??;
    let due = Instant::now() + VOLUMES;
    let open = timeout_at(due, needs.volumes.begin(client)).await.map_err(|_| BindError::Late)??;
    let volumes = timeout_at(due, needs.volumes.until_bound(&open));
    needs.pending.unless_called_off(volumes).await?.map_err(|_| BindError::Late)??;
    needs.pending.write()?;
    bind.await
}

/// Waits until the devices of the claims that were written meet their conditions (KEP-5007).
async fn devices_ready(cache: &Cache<ResourceClaim>, written: &[ResourceClaim]) -> Result<(), BindError> {
    let open: Vec<&ResourceClaim> = written.iter().filter(|claim| binding::has_conditions(claim)).collect();
    if open.is_empty() {
        return Ok(());
    }
    let waiter = cache.waiting.wait(open.iter().map(|claim| Key::of(*claim)).collect());
    while !all_ready(&cache.claims, &open)? {
        waiter.changed().await;
    }
    Ok(())
}

fn all_ready(cache: &Informer<ResourceClaim>, open: &[&ResourceClaim]) -> Result<bool, BindError> {
    let mut ready = true;
    for claim in open {
        let key = Key::of(*claim);
        let version = client::resource_version::of(*claim);
        let Some(seen) = cache.by_key(&key) else {
            // One that has just been made may not be seen yet.
            return if cache.observed() < version { Ok(false) } else { Err(write::Error::Gone(key).into()) };
        };
        if client::resource_version::of(seen.as_ref()) < version {
            return Ok(false);
        }
        if seen.metadata.uid != claim.metadata.uid || !pods::claims::is_allocated(&seen) {
            return Err(write::Error::Deallocated(key).into());
        }
        ready &= binding::is_ready(&seen).map_err(BindError::Device)?;
    }
    Ok(ready)
}

fn condition(kind: &str, status: &str, reason: &str, message: String, generation: Option<i64>) -> PodCondition {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(Time(now)),
        observed_generation: generation,
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use client::fake::Fake;

    use super::*;

    /// A nomination that nobody waits for any more may reach the API after what came next: where the pod's binding has failed, it is not promised a node again.
    #[tokio::test]
    async fn a_nomination_that_comes_late_is_none() {
        let fake = Fake::default();
        fake.put(&crate::testing::pod("p", json!({})));
        let api = Api::new(fake.client());
        let now = || PodInfo::new(Arc::new(fake.all::<Pod>().remove(0)));
        let promised = || now().object().and_then(|pod| pod.status.as_ref()?.nominated_node_name.clone());
        let tried = now();
        let late = api.nominate(&tried, "n");
        api.report(&tried, SCHEDULER_ERROR, "binding rejected: why".to_owned(), None).unwrap().await;
        assert!(late.await.is_none());
        assert_eq!(promised(), None);
        assert!(api.nominate(&now(), "n").await.is_some());
        assert_eq!(promised().as_deref(), Some("n"));
        assert!(api.nominate(&now(), "n").await.is_none(), "it is told already");
    }
}
