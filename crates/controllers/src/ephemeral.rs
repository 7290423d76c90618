//! Generic ephemeral volumes: a claim for each volume of a pod that has a template for one. It belongs to the pod and goes with it.

use client::Api;
use client::events::Type;
use client::kube;
use client::kube::api::PostParams;
use client::{Entry, Informer, Informers, Key};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimTemplate, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::{meta, pods};

pub(crate) struct EphemeralVolumes {
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
}

impl EphemeralVolumes {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { pods: informers.of(), claims: informers.of() }
    }
}

/// The claims that a pod should have, with the names of their volumes and their templates.
fn templates(pod: &Pod) -> impl Iterator<Item = (String, &str, &PersistentVolumeClaimTemplate)> {
    pods::volumes(pod).filter_map(|volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        Some((pods::claim_of(pod, volume)?, volume.name.as_str(), template))
    })
}

impl Controller for EphemeralVolumes {
    const NAME: &'static str = "ephemeral-volume";
    const ACCOUNT: &'static str = "ephemeral-volume-controller";

    fn sources(&self) -> Vec<Source> {
        let of_pods = Source::stepped(&self.pods, |step, queue| {
            let pod = step.new.as_ref().filter(|pod| pods::may_have_claims(pod)).and_then(Entry::get);
            if pod.is_some_and(|pod| templates(&pod).next().is_some()) {
                queue.add(step.key().clone());
            }
        });
        let of_claims = Source::mapped(&self.claims, |change, queue| {
            let gone = change.old.as_deref().filter(|_| change.new.is_none());
            if let Some(owner) = gone.and_then(meta::controller_of).filter(|owner| owner.kind == "Pod") {
                queue.add(Key { namespace: change.key.namespace.clone(), name: owner.name.clone() });
            }
        });
        vec![of_pods, of_claims]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(pod) = self.pods.by_key(key).filter(|pod| !meta::ends(pod.as_ref())) else { return Ok(Action::Done) };
        let api: Api<PersistentVolumeClaim> = Api::namespaced(cx.client.clone(), key.ns());
        for (name, volume, template) in templates(&pod) {
            match self.claims.get(key.namespace.as_deref(), &name) {
                Some(claim) if is_of(&claim, &pod) => {}
                Some(_) => {
                    let why = format!("PVC {}/{name} was not created for pod {key} (pod is not owner)", key.ns());
                    cx.events.about(pod.as_ref(), Type::Warning, "FailedBinding", format!("ephemeral volume {volume}: {why}"));
                    return Err(Error::Other(why));
                }
                None => create(cx, &api, (&pod, volume), claim(&pod, name, template)).await?,
            }
        }
        Ok(Action::Done)
    }
}

/// Whether the claim was made for the pod.
fn is_of(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    meta::controller_of(claim).is_some_and(|owner| owner.uid == meta::uid(pod))
}

fn claim(pod: &Pod, name: String, template: &PersistentVolumeClaimTemplate) -> PersistentVolumeClaim {
    let meta = template.metadata.clone().unwrap_or_default();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: pod.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![meta::controller_ref(pod)]),
            ..Default::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    }
}

/// Creates the claim of a pod's volume.
async fn create(
    cx: &Cx,
    api: &Api<PersistentVolumeClaim>,
    (pod, volume): (&Pod, &str),
    claim: PersistentVolumeClaim,
) -> Result<(), Error> {
    match api.create(&PostParams::default(), &claim).await {
        Ok(_) => Ok(()),
        // The cache does not show it yet; when it does, its owner is looked at.
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => {
            let message = format!("ephemeral volume {volume}: create PVC {}: {}", meta::name(&claim), client::why(&error));
            cx.events.about(pod, Type::Warning, "FailedBinding", message);
            Err(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{World, object};

    fn pod(name: &str) -> Value {
        let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        let volumes =
            json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}, {"name": "other", "emptyDir": {}}]);
        json!({"metadata": {"namespace": "a", "name": name, "uid": name}, "spec": {"containers": [], "volumes": volumes}})
    }

    #[tokio::test]
    async fn makes_claims_that_belong_to_their_pods() {
        let world = World::new();
        let taken = json!({"metadata": {"namespace": "a", "name": "second-scratch", "uid": "x"}});
        world.fake.put::<PersistentVolumeClaim>(&object(taken));
        world.fake.put::<Pod>(&object(pod("first")));
        world.fake.put::<Pod>(&object(pod("second")));
        world.start(&["ephemeral-volume"]);
        world.fake.until::<PersistentVolumeClaim>(|claims| claims.len() == 2).await;
        let claims = world.fake.all::<PersistentVolumeClaim>();
        let made = claims.iter().find(|claim| meta::name(*claim) == "first-scratch").unwrap();
        assert_eq!(meta::controller_of(made).map(|owner| owner.uid.as_str()), Some("first"));
        assert_eq!(made.metadata.labels.as_ref().unwrap()["app"], "a");
        let told = |event: &k8s_openapi::api::core::v1::Event| {
            let why = "ephemeral volume scratch: PVC a/second-scratch was not created for pod a/second (pod is not owner)";
            event.message.as_deref() == Some(why)
        };
        world.fake.until::<k8s_openapi::api::core::v1::Event>(|events| events.iter().any(told)).await;
    }
}
