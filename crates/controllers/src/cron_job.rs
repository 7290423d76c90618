//! CronJobs: jobs by the clock.

mod metrics;
mod plan;
mod starts;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use client::Api;
use client::events::Type;
use client::kube;
use client::kube::api::{DeleteParams, PostParams};
use client::{Informer, Informers, Key};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::clock::Clock;
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::expectations::Expectations;
use crate::{meta, write};
use starts::Timetable;

pub(crate) struct CronJobs {
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    clock: Clock,
    /// Jobs written for a CronJob.
    of_jobs: Expectations,
    /// Statuses written.
    of_crons: Expectations,
}

impl CronJobs {
    pub(crate) fn new(informers: &Informers, clock: Clock) -> Self {
        Self {
            crons: informers.of(),
            jobs: informers.of(),
            clock,
            of_jobs: Expectations::default(),
            of_crons: Expectations::default(),
        }
    }
}

impl Controller for CronJobs {
    const NAME: &'static str = "cronjob";
    const ACCOUNT: &'static str = "cronjob-controller";

    fn sources(&self) -> Vec<Source> {
        let clock = self.clock.clone();
        let own = Source::mapped(&self.crons, move |change, queue| {
            // A new schedule begins with its next time: what it would have missed before is not started.
            let timing = |cron: &Arc<CronJob>| (cron.spec.schedule.clone(), cron.spec.time_zone.clone());
            let later = match (&change.old, &change.new) {
                (Some(old), Some(new)) if timing(old) != timing(new) => {
                    Timetable::of(new).ok().and_then(|table| table.wait(new, clock.now()))
                }
                _ => None,
            };
            match later {
                Some(wait) => queue.add_after(change.key.clone(), wait),
                None => queue.add(change.key.clone()),
            }
        });
        let of_jobs = Source::mapped(&self.jobs, |change, queue| {
            for job in [&change.old, &change.new].into_iter().flatten() {
                if let Some(owner) = meta::controller_of(job.as_ref()).filter(|owner| owner.kind == "CronJob") {
                    queue.add(Key { namespace: change.key.namespace.clone(), name: owner.name.clone() });
                }
            }
        });
        vec![own, of_jobs]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(cron) = self.crons.by_key(key) else {
            self.of_jobs.forget(key);
            self.of_crons.forget(key);
            return Ok(Action::Done);
        };
        // The caches tell of what is not seen yet, which leads here again.
        if !self.of_jobs.seen(key, &self.jobs) || !self.of_crons.seen(key, &self.crons) {
            return Ok(Action::UNSEEN);
        }
        let look = Look { cx, key, cron: &cron, api: Api::namespaced(cx.client.clone(), key.ns()), controller: self };
        look.run().await
    }
}

/// One look at a CronJob.
struct Look<'a> {
    cx: &'a Cx,
    key: &'a Key,
    cron: &'a CronJob,
    api: Api<Job>,
    controller: &'a CronJobs,
}

impl Look<'_> {
    async fn run(&self) -> Result<Action, Error> {
        let jobs = self.controller.jobs.owned_by(meta::uid(self.cron));
        let gone = self.gone(&jobs).await?;
        let (mut status, said) = plan::review(self.cron, &jobs, &gone);
        self.tell(said);
        for job in plan::surplus(self.cron, &jobs) {
            self.delete(&mut status, &job).await;
        }
        let reviewed = CronJob { status: Some(status.clone()), ..self.cron.clone() };
        let next = plan::next(&reviewed, self.cx.clock.now());
        self.tell(next.said);
        let started = match next.start {
            Some(at) => self.start(&mut status, at).await,
            None => Ok(()),
        };
        self.write_status(status).await?;
        started.map(|()| Action::after(next.again))
    }

    fn tell(&self, said: Vec<plan::Said>) {
        for (kind, reason, message) in said {
            self.cx.events.about(self.cron, kind, reason, message);
        }
    }

    /// The uids of jobs that the status lists as running and that are not there. The cache may be behind: the API is asked.
    async fn gone(&self, jobs: &[Arc<Job>]) -> Result<HashSet<String>, Error> {
        let known: HashSet<&str> = jobs.iter().map(|job| meta::uid(job.as_ref())).collect();
        let mut gone = HashSet::new();
        for reference in self.cron.status.iter().flat_map(|status| status.active.iter().flatten()) {
            let (Some(name), Some(uid)) = (&reference.name, &reference.uid) else { continue };
            if !known.contains(uid.as_str()) && self.api.get_opt(name).await?.is_none() {
                gone.insert(uid.clone());
            }
        }
        Ok(gone)
    }

    /// Deletes a job with its pods; whether that was done.
    async fn delete(&self, status: &mut CronJobStatus, job: &Job) -> bool {
        match self.api.delete(meta::name(job), &DeleteParams::background()).await {
            Ok(_) => {
                self.controller.of_jobs.deleted(self.key, Key::of(job), meta::uid(job));
                plan::forget(status, meta::uid(job));
                self.tell(vec![(Type::Normal, "SuccessfulDelete", format!("Deleted job {}", meta::name(job)))]);
                true
            }
            Err(error) => {
                self.tell(vec![(Type::Warning, "FailedDelete", format!("Deleted job: {}", client::why(&error)))]);
                false
            }
        }
    }

    /// Starts the job for `at`, after those that it replaces are deleted.
    async fn start(&self, status: &mut CronJobStatus, at: jiff::Timestamp) -> Result<(), Error> {
        if self.cron.spec.concurrency_policy.as_deref() == Some("Replace") {
            self.replace(status).await?;
        }
        let job = plan::job(self.cron, at);
        let job = match self.api.create(&PostParams::default(), &job).await {
            Ok(job) => {
                self.controller.of_jobs.written(self.key, &job);
                metrics::started(at, self.cx.clock.now());
                self.tell(vec![(Type::Normal, "SuccessfulCreate", format!("Created job {}", meta::name(&job)))]);
                job
            }
            // It was made before, and then nothing could be written down.
            Err(kube::Error::Api(answer)) if answer.is_already_exists() => {
                let job = self.api.get(meta::name(&job)).await?;
                if meta::controller_of(&job).is_none_or(|owner| owner.uid != meta::uid(self.cron)) {
                    return Ok(());
                }
                job
            }
            Err(error) if write::namespace_ends(&error) => return Err(error.into()),
            Err(error) => {
                self.tell(vec![(Type::Warning, "FailedCreate", format!("Error creating job: {}", client::why(&error)))]);
                return Err(error.into());
            }
        };
        plan::forget(status, meta::uid(&job));
        status.active.get_or_insert_default().push(plan::reference(&job));
        status.last_schedule_time = Some(Time(at));
        Ok(())
    }

    async fn replace(&self, status: &mut CronJobStatus) -> Result<(), Error> {
        for reference in status.active.clone().unwrap_or_default() {
            let name = reference.name.unwrap_or_default();
            let job = match self.api.get(&name).await {
                Ok(job) => job,
                Err(error) => {
                    self.tell(vec![(Type::Warning, "FailedGet", format!("Get job: {}", client::why(&error)))]);
                    return Err(error.into());
                }
            };
            if !self.delete(status, &job).await {
                return Err(Error::Other(format!("could not replace job {}/{name}", self.key.ns())));
            }
        }
        Ok(())
    }

    async fn write_status(&self, status: CronJobStatus) -> Result<(), Error> {
        if self.cron.status.clone().unwrap_or_default() == status {
            return Ok(());
        }
        let next = CronJob { status: Some(status), ..self.cron.clone() };
        let api: Api<CronJob> = Api::namespaced(self.cx.client.clone(), self.key.ns());
        let written = api.replace_status(&self.key.name, &PostParams::default(), &next).await?;
        self.controller.of_crons.written(self.key, &written);
        Ok(())
    }
}
