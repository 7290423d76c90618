//! What the scheduler writes: bindings, and why a pod has no node.

use std::sync::Arc;

use client::Client;
use client::kube;
use client::kube::api::{Patch, PatchParams, PostParams};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status, Time};
use serde_json::json;

use crate::pod::PodInfo;

/// A write that has ended.
pub(crate) enum Written {
    Bound { pod: Arc<PodInfo>, node: String, result: kube::Result<()> },
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
    pub(crate) fn bind(&self, pod: Arc<PodInfo>, node: String) -> BoxFuture<'static, Written> {
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
            Written::Bound { pod, node, result: result.map(|_| ()) }
        }
        .boxed()
    }

    /// Writes the condition that says why the pod has no node. Nothing when it says so already.
    pub(crate) fn report(&self, pod: &PodInfo, message: String) -> Option<BoxFuture<'static, Written>> {
        const KIND: &str = "PodScheduled";
        const REASON: &str = "Unschedulable";
        let conditions = pod.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let old = conditions.into_iter().flatten().find(|condition| condition.type_ == KIND);
        let same = |old: &PodCondition| {
            old.status == "False" && old.reason.as_deref() == Some(REASON) && old.message.as_deref() == Some(&message)
        };
        if old.is_some_and(same) {
            return None;
        }
        let since = old.filter(|old| old.status == "False").and_then(|old| old.last_transition_time.clone());
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let condition = PodCondition {
            type_: KIND.to_owned(),
            status: "False".to_owned(),
            reason: Some(REASON.to_owned()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(now))),
            observed_generation: pod.pod.metadata.generation,
            ..PodCondition::default()
        };
        let (api, name) = (self.pods(pod), pod.key().name);
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
        let write = async move {
            if let Err(error) = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                tracing::debug!(pod = name, %error, "the reason is not in the status");
            }
            Written::Reported
        };
        Some(write.boxed())
    }
}
