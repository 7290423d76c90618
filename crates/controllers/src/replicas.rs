//! ReplicaSets and ReplicationControllers: a number of equal pods.

mod kind;
mod plan;
pub(crate) mod rank;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::kube::api::PostParams;
use client::kube::{self, Api};
use client::{Informer, Informers, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::adopt;
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::expectations::Expectations;
use crate::pod_control::{Failure, PodControl};
use crate::{meta, pods, write};
use kind::Replicated;
use plan::Step;

pub(crate) struct Replicas<K> {
    owners: Informer<K>,
    pods: Informer<Pod>,
    expectations: Expectations,
}

impl<K: Replicated> Replicas<K> {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { owners: informers.of(), pods: informers.of(), expectations: Expectations::default() }
    }
}

impl<K: Replicated> Controller for Replicas<K> {
    const NAME: &'static str = K::NAME;
    const ACCOUNT: &'static str = K::ACCOUNT;
    const RETRY_MAX: std::time::Duration = crate::queue::PODS_RETRY_MAX;

    fn sources(&self) -> Vec<Source> {
        let owners = self.owners.clone();
        let of_pod = Source::mapped(&self.pods, move |change, queue| adopt::owners(change, &owners, K::KIND, K::selector, queue));
        vec![Source::own(&self.owners), of_pod]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(owner) = self.owners.by_key(key) else {
            self.expectations.forget(key);
            return Ok(Action::Done);
        };
        let Some(selector) = owner.selector().filter(|selector| !selector.is_everything()) else {
            return Ok(Action::Done);
        };
        let seen = self.expectations.seen(key, &self.pods);
        let pods = adopt::claim(cx, owner.as_ref(), &selector, &self.pods).await?;
        let result = if seen { self.act(cx, key, owner.as_ref(), &pods).await } else { Ok(()) };
        let failure = result.as_ref().err().map(|(failure, _)| failure.clone());
        let now = Timestamp::now();
        let status = plan::status(owner.as_ref(), &pods, failure, now);
        write_status(cx, key, owner.as_ref(), status).await?;
        match result {
            Ok(()) if !seen => Ok(Action::UNSEEN),
            Ok(()) => Ok(Action::after(plan::next_available(owner.as_ref(), &pods, now))),
            Err((_, error)) => Err(error.into()),
        }
    }
}

impl<K: Replicated> Replicas<K> {
    async fn act(&self, cx: &Cx, key: &Key, owner: &K, pods: &[Arc<Pod>]) -> Result<(), (Failure, kube::Error)> {
        let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        let family = if active.len() > usize::try_from(owner.replicas()).unwrap_or(0) { self.family(owner) } else { Vec::new() };
        let neighbours = |node: &str| family.iter().filter(|pod| pods::node(pod) == node).count();
        let control = PodControl { cx, key, owner, expectations: &self.expectations };
        match plan::step(owner, &active, neighbours, Timestamp::now()) {
            Step::Keep => Ok(()),
            Step::Create(number) => {
                let Some(template) = owner.template() else { return Ok(()) };
                let pod = write::pod_of(owner, template);
                control.create(number, |_| pod.clone()).await.failure.map_or(Ok(()), Err)
            }
            Step::Delete(pods) => control.delete(pods).await.failure.map_or(Ok(()), Err),
        }
    }

    /// The active pods of all owners that share this one's controller, such as the sets of one deployment.
    fn family(&self, owner: &K) -> Vec<Arc<Pod>> {
        let mut uids = vec![meta::uid(owner).to_owned()];
        if let Some(controller) = meta::controller_of(owner) {
            uids = self.owners.owned_by(&controller.uid).iter().map(|one| meta::uid(one.as_ref()).to_owned()).collect();
        }
        let pods = uids.iter().flat_map(|uid| self.pods.owned_by(uid));
        pods.filter(|pod| pods::is_active(pod)).collect()
    }
}

const POST: PostParams = PostParams { dry_run: false, field_manager: None };

async fn write_status<K: Replicated>(
    cx: &Cx,
    key: &Key,
    owner: &K,
    status: k8s_openapi::api::apps::v1::ReplicaSetStatus,
) -> Result<(), Error> {
    let mut next = owner.clone();
    next.set_status(status);
    // Compared in the kind's own form, which may hold less.
    if next.status() == owner.status() {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(cx.client.clone(), key.ns());
    api.replace_status(&key.name, &POST, &next).await?;
    Ok(())
}
