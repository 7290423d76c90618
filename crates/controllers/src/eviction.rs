//! Deletes a pod that must go, after its status says why (the condition `DisruptionTarget`, KEP-3329).

use client::Api;
use client::events::Type;
use client::kube;
use client::kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use serde_json::json;

use crate::controller::{Cx, Error};
use crate::meta;

/// What a controller says of the pods that it evicts.
pub(crate) struct Eviction {
    /// The reason of the event.
    pub(crate) event: &'static str,
    /// The reason of the condition.
    pub(crate) reason: &'static str,
    /// The message of the condition.
    pub(crate) message: &'static str,
}

impl Eviction {
    /// Tells it by an event with this text, writes the condition and deletes the pod.
    pub(crate) async fn carry_out(&self, cx: &Cx, pod: &Pod, text: String) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(cx.client.clone(), meta::namespace(pod));
        cx.events.about(pod, Type::Normal, self.event, text);
        let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.retain(|condition| condition.type_ != "DisruptionTarget");
        conditions.push(PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some(self.reason.to_owned()),
            message: Some(self.message.to_owned()),
            last_transition_time: Some(meta::whole_seconds(Timestamp::now())),
            observed_generation: pod.metadata.generation,
            ..PodCondition::default()
        });
        let patch = json!({"metadata": {"uid": meta::uid(pod)}, "status": {"conditions": conditions}});
        forgive(api.patch_status(meta::name(pod), &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ()))?;
        let uid = pod.metadata.uid.clone();
        let params = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
        forgive(api.delete(meta::name(pod), &params).await.map(|_| ()))
    }
}

/// Gone or changed: the next look sees it.
pub(crate) fn forgive(result: kube::Result<()>) -> Result<(), Error> {
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => Ok(other?),
    }
}
