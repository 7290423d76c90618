//! Pods that no job counts any more: their finalizer goes, so that they can.

use std::sync::Arc;

use apimachinery::labels::Selector;
use client::Api;
use client::kube;
use client::kube::api::{Patch, PatchParams};
use client::{Entry, Informer, Informers, Key};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::member::{self, TRACKING};
use super::{end, is_foreign, selector};
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::meta;

/// Takes the finalizer of jobs from pods whose job is gone or has ended. Keys are those of pods.
pub(crate) struct Orphans {
    jobs: Informer<Job>,
    pods: Informer<Pod>,
}

impl Orphans {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { jobs: informers.of(), pods: informers.of() }
    }
}

/// Whether no job counts this pod.
fn is_left(pod: &Pod, jobs: &Informer<Job>) -> bool {
    if !member::is_tracked(pod) {
        return false;
    }
    let Some(owner) = meta::controller_of(pod) else {
        // A job that selects it adopts it.
        return !jobs.in_namespace(meta::namespace(pod)).iter().any(|job| adopts(job, pod));
    };
    if owner.kind != "Job" || !owner.api_version.starts_with("batch/") {
        return false;
    }
    let job = jobs.get(Some(meta::namespace(pod)), &owner.name).filter(|job| meta::uid(job.as_ref()) == owner.uid);
    job.is_none_or(|job| !is_foreign(&job) && end(&job).is_some())
}

fn adopts(job: &Job, pod: &Pod) -> bool {
    let selects = |selector: Selector| selector.matches(&pod.metadata.labels);
    !is_foreign(job) && end(job).is_none() && !meta::ends(job) && !meta::ends(pod) && selector(job).is_some_and(selects)
}

impl Controller for Orphans {
    const NAME: &'static str = "job-orphaned-pods";
    const ACCOUNT: &'static str = "job-controller";

    fn sources(&self) -> Vec<Source> {
        let (jobs, pods) = (self.jobs.clone(), self.pods.clone());
        let of_pods = Source::stepped(&self.pods, move |step, queue| {
            let tracked = step.new.as_ref().filter(|pod| pod.mentions(member::TRACKING)).and_then(Entry::get);
            if tracked.is_some_and(|pod| is_left(&pod, &jobs)) {
                queue.add(step.key().clone());
            }
        });
        let of_jobs = Source::mapped(&self.jobs, move |change, queue| {
            let ends = |job: &&Arc<Job>| change.new.is_none() || end(job).is_some() || meta::ends(job.as_ref());
            let Some(job) = change.object().filter(ends) else { return };
            // Those that it owns, and those that it would have adopted: they may have lost it before it was seen to end.
            let owned = pods.owned_by(meta::uid(job.as_ref()));
            let selected = selector(job)
                .map(|selector| pods.orphans(meta::namespace(job.as_ref()), |labels| selector.matches(&meta::Labels(labels))));
            let tracked = |pod: &Arc<Pod>| member::is_tracked(pod);
            for pod in owned.into_iter().chain(selected.into_iter().flatten()).filter(tracked) {
                queue.add(Key::of(pod.as_ref()));
            }
        });
        vec![of_pods, of_jobs]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        if let Some(pod) = self.pods.by_key(key).filter(|pod| is_left(pod, &self.jobs)) {
            untrack(&Api::namespaced(cx.client.clone(), key.ns()), &pod).await?;
        }
        Ok(Action::Done)
    }
}

/// Takes the finalizer from a pod. None when the pod had none, is gone or is another.
pub(super) async fn untrack(api: &Api<Pod>, pod: &Pod) -> kube::Result<Option<Pod>> {
    if !member::is_tracked(pod) {
        return Ok(None);
    }
    let patch = json!({"metadata": {"uid": meta::uid(pod), "$deleteFromPrimitiveList/finalizers": [TRACKING]}});
    match api.patch(meta::name(pod), &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(pod) => Ok(Some(pod)),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(None),
        Err(error) => Err(error),
    }
}
