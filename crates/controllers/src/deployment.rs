//! Deployments: a rollout is a new replica set that grows while the old ones shrink.

mod plan;
mod revision;
mod rolling;
mod size;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use apimachinery::labels::Selector;
use client::Api;
use client::events::Type;
use client::kube;
use client::kube::api::{DeleteParams, PostParams, Preconditions};
use client::{Informer, Informers, Key};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;

use crate::adopt;
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::expectations::Expectations;
use crate::{meta, pods};
use plan::{Change, Observed, Plan};

const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const HASH: &str = "pod-template-hash";

pub(crate) struct Deployments {
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    expectations: Expectations,
}

impl Deployments {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { deployments: informers.of(), sets: informers.of(), pods: informers.of(), expectations: Expectations::default() }
    }
}

impl Controller for Deployments {
    const NAME: &'static str = "deployment";
    const ACCOUNT: &'static str = "deployment-controller";

    fn sources(&self) -> Vec<Source> {
        let (owners, sets) = (self.deployments.clone(), self.sets.clone());
        let of_set = Source::stepped(&self.sets, move |step, queue| adopt::owners(step, &owners, "Deployment", selects, queue));
        let of_pod = Source::stepped(&self.pods, move |step, queue| {
            // Recreate waits for old pods to go; nothing else here looks at pods.
            let Some(change) = step.old.as_ref().map(|_| step.change()) else { return };
            let Some(owner) = change.old.as_deref().filter(|_| gone(change.new.as_deref())).and_then(meta::controller_of) else {
                return;
            };
            if let Some(set) = sets.get(change.key.namespace.as_deref(), &owner.name)
                && let Some(owner) = meta::controller_of(set.as_ref())
            {
                queue.add(Key { namespace: change.key.namespace.clone(), name: owner.name.clone() });
            }
        });
        vec![Source::own(&self.deployments), of_set, of_pod]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(deployment) = self.deployments.by_key(key) else {
            self.expectations.forget(key);
            return Ok(Action::Done);
        };
        let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
        let Ok(selector) = Selector::from_label_selector(selector) else { return Ok(Action::Done) };
        if selector.is_everything() {
            return Ok(Action::Done);
        }
        if !self.expectations.seen(key, &self.sets) {
            return Ok(Action::UNSEEN);
        }
        let sets = adopt::claim(cx, deployment.as_ref(), &selector, &self.sets).await?;
        let plan = plan::plan(self.observe(&deployment, &sets));
        self.apply(cx, key, &deployment, plan).await
    }
}

fn selects(deployment: &Deployment) -> Option<Selector> {
    Selector::from_label_selector(Some(&deployment.spec.as_ref()?.selector)).ok()
}

fn gone(pod: Option<&Pod>) -> bool {
    pod.is_none_or(pods::is_finished)
}

impl Deployments {
    fn observe(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Observed {
        let sets: Vec<ReplicaSet> = sets.iter().map(|set| set.as_ref().clone()).collect();
        let new = revision::find_new(deployment, &sets).map(|index| meta::uid(&sets[index]).to_owned());
        let old = sets.iter().filter(|set| Some(meta::uid(*set)) != new.as_deref());
        let old_pods_run = !size::is_rolling(deployment)
            && old.flat_map(|set| self.pods.owned_by(meta::uid(set))).any(|pod| !pods::is_finished(&pod));
        Observed { deployment: deployment.clone(), sets, old_pods_run, now: Timestamp::now() }
    }

    async fn apply(&self, cx: &Cx, key: &Key, deployment: &Deployment, plan: Plan) -> Result<Action, Error> {
        let sets: Api<ReplicaSet> = Api::namespaced(cx.client.clone(), key.ns());
        for change in &plan.changes {
            match change {
                Change::Create(set, event) => {
                    self.create(cx, key, deployment, &plan, set).await?;
                    tell(cx, deployment, event.as_deref());
                }
                Change::Update(set, event) => {
                    let changed = sets.replace(meta::name(set.as_ref()), &PostParams::default(), set).await?;
                    // How many there may be more is counted from the sizes of all.
                    self.expectations.written(key, &changed);
                    tell(cx, deployment, event.as_deref());
                }
                Change::Delete(set) => delete(&sets, set).await?,
            }
        }
        let api: Api<Deployment> = Api::namespaced(cx.client.clone(), key.ns());
        let revision = plan.revision.filter(|revision| meta::annotation(deployment, REVISION) != Some(revision));
        if revision.is_some() || deployment.status.as_ref() != Some(&plan.status) {
            let mut next = deployment.clone();
            // As upstream, with the status: it changes nothing of what is wanted, so neither generations nor who decides about Deployments see it.
            next.metadata.annotations.get_or_insert_default().extend(revision.map(|revision| (REVISION.to_owned(), revision)));
            next.status = Some(plan.status);
            api.replace_status(&key.name, &PostParams::default(), &next).await?;
        }
        Ok(Action::after(plan.after))
    }

    async fn create(&self, cx: &Cx, key: &Key, owner: &Deployment, plan: &Plan, set: &ReplicaSet) -> Result<(), Error> {
        let sets: Api<ReplicaSet> = Api::namespaced(cx.client.clone(), key.ns());
        match sets.create(&PostParams::default(), set).await {
            Ok(created) => {
                self.expectations.written(key, &created);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => self.collided(cx, owner, set).await,
            Err(error) => {
                self.report_failure(cx, owner, plan, set, &error).await;
                Err(error.into())
            }
        }
    }

    /// The name is taken: by our own set that the cache does not show yet, or by another template with the same hash.
    async fn collided(&self, cx: &Cx, owner: &Deployment, set: &ReplicaSet) -> Result<(), Error> {
        let namespace = meta::namespace(owner);
        let sets: Api<ReplicaSet> = Api::namespaced(cx.client.clone(), namespace);
        let there = sets.get(meta::name(set)).await?;
        let ours = meta::controller_of(&there).is_some_and(|owner_ref| owner_ref.uid == meta::uid(owner));
        if ours && revision::same_template(&revision::template_of(&there), &revision::template_of(set)) {
            return Ok(());
        }
        let mut next = owner.clone();
        let status = next.status.get_or_insert_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        let deployments: Api<Deployment> = Api::namespaced(cx.client.clone(), namespace);
        deployments.replace_status(meta::name(owner), &PostParams::default(), &next).await?;
        Err(Error::Other(format!("the name {} is taken by another template; trying another hash", meta::name(set))))
    }

    async fn report_failure(&self, cx: &Cx, owner: &Deployment, plan: &Plan, set: &ReplicaSet, error: &kube::Error) {
        let text = api_message(error);
        let message = format!("Failed to create new replica set {:?}: {text}", meta::name(set));
        cx.events.about(owner, Type::Warning, "ReplicaSetCreateError", message.clone());
        if status::deadline(owner).is_none() {
            return;
        }
        let mut next = owner.clone();
        let reason = "ReplicaSetCreateError";
        let condition = status::new_condition(status::PROGRESSING, "False", reason, message, Timestamp::now());
        let mut wanted = plan.status.clone();
        status::remove_condition(&mut wanted, status::PROGRESSING);
        status::set_condition(&mut wanted, condition);
        next.status = Some(wanted);
        let api: Api<Deployment> = Api::namespaced(cx.client.clone(), meta::namespace(owner));
        if let Err(error) = api.replace_status(meta::name(owner), &PostParams::default(), &next).await {
            tracing::debug!(%error, "the failure is not in the status");
        }
    }
}

/// What the API said, without the client's wrapping.
fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn tell(cx: &Cx, deployment: &Deployment, event: Option<&str>) {
    if let Some(event) = event {
        cx.events.about(deployment, Type::Normal, "ScalingReplicaSet", event);
    }
}

async fn delete(sets: &Api<ReplicaSet>, set: &ReplicaSet) -> Result<(), Error> {
    let uid = set.metadata.uid.clone();
    let params = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
    match sets.delete(meta::name(set), &params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}
