//! What the scheduler writes: bindings, and why a pod has no node.

use std::sync::Arc;

use client::Client;
use client::kube;
use client::kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status, Time};
use serde_json::json;

use crate::pod::PodInfo;
use crate::preemption;
use crate::queue::Trial;

/// A write that has ended.
pub(crate) enum Written {
    Bound {
        pod: Arc<PodInfo>,
        node: String,
        trial: Trial,
        result: kube::Result<()>,
    },
    /// A victim of preemption was told to go.
    Evicted {
        victim: Arc<PodInfo>,
        result: kube::Result<()>,
    },
    Reported,
}

pub(crate) struct Api {
    client: Client,
}

impl Api {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn pods(&self, pod: &PodInfo) -> kube::Api<Pod> {
        kube::Api::namespaced(self.client.clone(), pod.namespace())
    }

    /// Gives the pod its node.
    pub(crate) fn bind(&self, pod: Arc<PodInfo>, node: String, trial: Trial) -> BoxFuture<'static, Written> {
        let api = self.pods(&pod);
        async move {
            let meta = &pod.pod.metadata;
            let name = meta.name.clone().unwrap_or_default();
            let binding = Binding {
                metadata: ObjectMeta {
                    name: meta.name.clone(),
                    namespace: meta.namespace.clone(),
                    uid: meta.uid.clone(),
                    ..ObjectMeta::default()
                },
                target: ObjectReference { kind: Some("Node".to_owned()), name: Some(node.clone()), ..ObjectReference::default() },
            };
            let result = api.create_subresource::<_, Status>("binding", &name, &PostParams::default(), &binding).await;
            Written::Bound { pod, node, trial, result: result.map(|_| ()) }
        }
        .boxed()
    }

    /// Ends a pod whose room another needs.
    pub(crate) fn evict(&self, victim: Arc<PodInfo>, message: String) -> BoxFuture<'static, Written> {
        let api = self.pods(&victim);
        async move {
            let meta = &victim.pod.metadata;
            let name = meta.name.clone().unwrap_or_default();
            let condition = condition("DisruptionTarget", "True", preemption::REASON, message, meta.generation);
            let patch = json!({"metadata": {"uid": victim.uid()}, "status": {"conditions": [condition]}});
            let marked = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            let same = Preconditions { uid: meta.uid.clone(), resource_version: None };
            let deleted = match marked {
                Ok(_) => api.delete(&name, &DeleteParams::default().preconditions(same)).await.map(|_| ()),
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

    /// Takes back the node that a pod was promised.
    pub(crate) fn withdraw(&self, pod: &PodInfo) -> BoxFuture<'static, Written> {
        self.patch_status(pod, json!({"nominatedNodeName": null}))
    }

    /// Writes the condition that says why the pod has no node, and which node it is `promised`. Nothing when it says so
    /// already.
    pub(crate) fn report(&self, pod: &PodInfo, message: String, promised: Option<&str>) -> Option<BoxFuture<'static, Written>> {
        const KIND: &str = "PodScheduled";
        const REASON: &str = "Unschedulable";
        let status = pod.pod.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let old = conditions.into_iter().flatten().find(|condition| condition.type_ == KIND);
        let same = |old: &PodCondition| {
            old.status == "False" && old.reason.as_deref() == Some(REASON) && old.message.as_deref() == Some(&message)
        };
        if old.is_some_and(same) && status.and_then(|status| status.nominated_node_name.as_deref()) == promised {
            return None;
        }
        let mut condition = condition(KIND, "False", REASON, message, pod.pod.metadata.generation);
        if let Some(old) = old.filter(|old| old.status == "False") {
            condition.last_transition_time.clone_from(&old.last_transition_time);
        }
        Some(self.patch_status(pod, json!({"conditions": [condition], "nominatedNodeName": promised})))
    }

    fn patch_status(&self, pod: &PodInfo, status: serde_json::Value) -> BoxFuture<'static, Written> {
        let (api, name) = (self.pods(pod), pod.key().name);
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
        async move {
            if let Err(error) = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                tracing::debug!(pod = name, %error, "the reason is not in the status");
            }
            Written::Reported
        }
        .boxed()
    }
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
