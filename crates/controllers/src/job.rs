//! Jobs: pods that run until enough of them have succeeded.
//!
//! A look at a job has three pure parts with effects between them: [`plan::decide`] says which pods to make or delete,
//! [`settle::settle`] what the status then is, and [`settle::finish`] whether the job has ended once its pods are counted.

mod backoff;
mod conditions;
mod indexes;
mod member;
mod metrics;
mod orphans;
mod plan;
mod policy;
mod settle;
mod surplus;
mod template;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::labels::Selector;
use client::Api;
use client::events::Type;
use client::kube;
use client::kube::api::PostParams;
use client::{Informer, Informers, Key};
use futures::future::join_all;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::adopt;
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::expectations::Expectations;
use crate::meta;
use crate::pod_control::PodControl;
use crate::room::Room;
use backoff::Record;
use member::{TRACKING, Terms};
use plan::{Act, Observed};
use settle::{Done, Settled};

pub(crate) use conditions::end;
pub(crate) use orphans::Orphans;

/// The controller that `spec.managedBy` names when it means this one.
const NAME: &str = "kubernetes.io/job-controller";

pub(crate) struct Jobs {
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    /// Pods written for a job.
    of_pods: Expectations,
    /// Statuses written.
    of_jobs: Expectations,
    /// Failures of jobs by their uid. They are forgotten with the process, as upstream does.
    records: Mutex<HashMap<Key, (String, Record)>>,
    room: Room,
}

impl Jobs {
    pub(crate) fn new(informers: &Informers) -> Self {
        let pods = informers.of();
        Self {
            jobs: informers.of(),
            room: Room::new(&pods),
            pods,
            of_pods: Expectations::default(),
            of_jobs: Expectations::default(),
            records: Mutex::default(),
        }
    }
}

fn selector(job: &Job) -> Option<Selector> {
    Selector::from_label_selector(job.spec.as_ref()?.selector.as_ref()).ok()
}

/// Whether somebody else runs the job (KEP-4368).
fn is_foreign(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref()).is_some_and(|manager| manager != NAME)
}

impl Controller for Jobs {
    const NAME: &'static str = "job";
    const ACCOUNT: &'static str = "job-controller";
    const RETRY_MAX: Duration = crate::queue::PODS_RETRY_MAX;

    fn sources(&self) -> Vec<Source> {
        let jobs = self.jobs.clone();
        let of_pod = Source::stepped(&self.pods, move |step, queue| adopt::owners(step, &jobs, "Job", selector, queue));
        vec![Source::own(&self.jobs), of_pod]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let job = self.jobs.by_key(key).filter(|job| !is_foreign(job) && end(job).is_none());
        let Some((job, selector)) = job.and_then(|job| selector(&job).map(|selector| (job, selector))) else {
            self.forget(key);
            return Ok(Action::Done);
        };
        // What counts pods must not count before it sees what it wrote. The caches tell of that, which leads here again.
        if !self.of_pods.seen(key, &self.pods) || !self.of_jobs.seen(key, &self.jobs) {
            return Ok(Action::UNSEEN);
        }
        let pods = adopt::claim_tracked(cx, job.as_ref(), &selector, &self.pods, TRACKING).await?;
        let Some(terms) = Terms::of(&job) else { return Ok(Action::Done) };
        let record = self.record(key, meta::uid(job.as_ref()));
        self.look(cx, key, &Observed { job: &job, terms, pods: &pods, record, now: cx.clock.now() }).await
    }
}

impl Jobs {
    fn record(&self, key: &Key, uid: &str) -> Record {
        let records = self.records.lock();
        records.get(key).filter(|(owner, _)| owner == uid).map(|(_, record)| record.clone()).unwrap_or_default()
    }

    fn forget(&self, key: &Key) {
        self.of_pods.forget(key);
        self.of_jobs.forget(key);
        self.records.lock().remove(key);
    }

    async fn look(&self, cx: &Cx, key: &Key, observed: &Observed<'_>) -> Result<Action, Error> {
        let (began, decision) = (Instant::now(), plan::decide(observed));
        let mut action = metrics::action(&decision.act);
        let looked = self.carry_out(cx, key, observed, decision, &mut action).await;
        metrics::synced(observed.job, action, looked.is_ok(), began.elapsed());
        looked
    }

    async fn carry_out(
        &self,
        cx: &Cx,
        key: &Key,
        observed: &Observed<'_>,
        decision: plan::Decision,
        action: &mut &'static str,
    ) -> Result<Action, Error> {
        let job = observed.job;
        let (mut again, record) = (decision.again, decision.record.clone());
        let (done, failure) = self.act(cx, key, observed, &decision.act).await;
        if let Act::Create(new) = &decision.act
            && done.created < new.len()
        {
            again = Some(again.map_or(self.room.again, |again| again.min(self.room.again)));
        }
        let settled = settle::settle(observed, decision, &done);
        if *action == metrics::RECONCILING && !settled.untrack.is_empty() {
            *action = metrics::TRACKING;
        }
        let written = self.write_status(cx, key, job, settled.status.clone()).await?;
        self.records.lock().insert(key.clone(), (meta::uid(job).to_owned(), record));
        self.track(cx, key, &written, settled).await?;
        match failure {
            Some(error) => Err(error),
            None => Ok(Action::after(again)),
        }
    }

    /// Makes or deletes pods: what was done, and what failed.
    async fn act(&self, cx: &Cx, key: &Key, observed: &Observed<'_>, act: &Act) -> (Done, Option<Error>) {
        let control = PodControl { cx, key, owner: observed.job, expectations: &self.of_pods };
        match act {
            Act::Nothing => (Done::default(), None),
            Act::Create(new) => {
                let common = template::common(observed.job, &observed.terms);
                let number = self.room.for_some(cx, observed.job, new.len());
                let outcome = control.create(number, |number| template::pod(observed.job, &common, &new[number])).await;
                (Done { created: outcome.done, ..Done::default() }, outcome.result().err())
            }
            Act::End(pods) => {
                let outcome = control.delete(pods.iter().cloned()).await;
                (Done { deleted: outcome.done.clone(), ..Done::default() }, outcome.result().err())
            }
            Act::Delete(pods) => {
                // They do not count: they lose the finalizer first.
                let (free, error) = self.untrack(cx, key, pods).await;
                let free = pods.iter().filter(|pod| free.contains(meta::uid(pod.as_ref())));
                let outcome = control.delete(free.cloned()).await;
                (Done { deleted: outcome.done.clone(), ..Done::default() }, outcome.result().err().or(error))
            }
        }
    }

    /// Lets pods go that the status knows, and ends the job when all are counted.
    async fn track(&self, cx: &Cx, key: &Key, job: &Job, settled: Settled) -> Result<(), Error> {
        let Settled { status: _, untrack, mut tracked, end, events } = settled;
        for (kind, reason, message) in events {
            cx.events.about(job, kind, reason, message);
        }
        let (free, error) = self.untrack(cx, key, &untrack).await;
        tracked.retain(|uid| !free.contains(uid));
        let mut status = job.status.clone().unwrap_or_default();
        settle::clear_counted(&mut status, &tracked);
        let ended = settle::finish(&mut status, end.as_ref());
        let job = self.write_status(cx, key, job, status).await?;
        if let Some(end) = end.filter(|_| ended) {
            metrics::finished(&job, &end);
            tell_end(cx, &job, &end);
        }
        error.map_or(Ok(()), Err)
    }

    /// Takes the finalizer from pods; returns the uids of those that are without it now.
    async fn untrack(&self, cx: &Cx, key: &Key, pods: &[Arc<Pod>]) -> (HashSet<String>, Option<Error>) {
        let api: Api<Pod> = Api::namespaced(cx.client.clone(), key.ns());
        let results = join_all(pods.iter().map(|pod| orphans::untrack(&api, pod))).await;
        let (mut free, mut failure) = (HashSet::new(), None);
        for (pod, result) in pods.iter().zip(results) {
            match result {
                Ok(patched) => {
                    if let Some(patched) = patched {
                        self.of_pods.written(key, &patched);
                    }
                    free.insert(meta::uid(pod.as_ref()).to_owned());
                }
                Err(error) => failure = Some(error.into()),
            }
        }
        (free, failure)
    }

    /// The job with that status, which is written unless it is there already.
    async fn write_status(&self, cx: &Cx, key: &Key, job: &Job, status: JobStatus) -> Result<Job, kube::Error> {
        if job.status.as_ref() == Some(&status) {
            return Ok(job.clone());
        }
        let next = Job { status: Some(status), ..job.clone() };
        let api: Api<Job> = Api::namespaced(cx.client.clone(), key.ns());
        let written = api.replace_status(&key.name, &PostParams::default(), &next).await?;
        metrics::counted(job, job.status.as_ref(), next.status.as_ref());
        self.of_jobs.written(key, &written);
        Ok(written)
    }
}

fn tell_end(cx: &Cx, job: &Job, end: &JobCondition) {
    if end.type_ != conditions::COMPLETE {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        return cx.events.about(job, Type::Warning, &text(&end.reason), text(&end.message));
    }
    let succeeded = job.status.as_ref().and_then(|status| status.succeeded).unwrap_or(0);
    if job.spec.as_ref().and_then(|spec| spec.completions).is_some_and(|completions| succeeded > completions) {
        let message = "Too many succeeded pods running after completion count reached";
        cx.events.about(job, Type::Warning, "TooManySucceededPods", message);
    }
    cx.events.about(job, Type::Normal, "Completed", "Job completed");
}
