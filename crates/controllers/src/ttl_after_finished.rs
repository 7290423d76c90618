//! Jobs that have ended and whose time to stay is over (`ttlSecondsAfterFinished`, KEP-592).

use std::time::Duration;

use client::Api;
use client::kube::api::{DeleteParams, Preconditions, PropagationPolicy};
use client::{Informer, Informers, Key};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::{job, meta};

pub(crate) struct TtlAfterFinished {
    jobs: Informer<Job>,
}

impl TtlAfterFinished {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { jobs: informers.of() }
    }
}

/// How long a job is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// It runs, or nobody wants it removed, or it is being deleted already.
    Open,
    For(Duration),
    Over,
}

fn life(job: &Job, now: Timestamp) -> Life {
    let Some(expiry) = expiry(job).filter(|_| !meta::ends(job)) else { return Life::Open };
    match Duration::try_from(expiry.duration_since(now)) {
        Ok(left) if !left.is_zero() => Life::For(left),
        _ => Life::Over,
    }
}

fn expiry(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let ended = job::end(job)?.last_transition_time.as_ref()?.0;
    ended.checked_add(SignedDuration::from_secs(ttl.into())).ok()
}

impl Controller for TtlAfterFinished {
    const NAME: &'static str = "ttl-after-finished";
    const ACCOUNT: &'static str = "ttl-after-finished-controller";

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&self.jobs)]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let api: Api<Job> = Api::namespaced(cx.client.clone(), key.ns());
        let Some(cached) = self.jobs.by_key(key) else { return Ok(Action::Done) };
        let mut life = life_of(&cached, cx);
        if life == Life::Over {
            // The cache may be behind a job whose time was made longer.
            let Some(job) = api.get_opt(&key.name).await? else { return Ok(Action::Done) };
            life = life_of(&job, cx);
            if life == Life::Over {
                let meta = &job.metadata;
                let only_this = Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
                let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
                api.delete(&key.name, &params.preconditions(only_this)).await?;
            }
        }
        Ok(if let Life::For(left) = life { Action::After(left) } else { Action::Done })
    }
}

fn life_of(job: &Job, cx: &Cx) -> Life {
    life(job, cx.clock.now())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Clock;
    use crate::testing::{World, object};
    use serde_json::{Value, json};

    fn job(ttl: Option<i32>, condition: &str, deletion: Option<&str>) -> Job {
        let conditions = json!([{"type": condition, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        object(json!({
            "metadata": {"namespace": "a", "name": "j", "uid": "u", "deletionTimestamp": deletion},
            "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
            "status": {"conditions": conditions},
        }))
    }

    #[test]
    fn what_is_left() {
        let check = |job: Job, expected: Life| {
            let now = "2026-01-01T00:00:10Z".parse().unwrap();
            assert_eq!(life(&job, now), expected);
        };
        check(job(Some(100), "Complete", None), Life::For(Duration::from_secs(90)));
        check(job(Some(10), "Failed", None), Life::Over);
        check(job(Some(0), "Complete", None), Life::Over);
        check(job(Some(0), "Complete", Some("2026-01-01T00:00:05Z")), Life::Open);
        check(job(Some(0), "Suspended", None), Life::Open);
        check(job(None, "Complete", None), Life::Open);
    }

    #[tokio::test]
    async fn a_job_goes_when_its_time_is_over() {
        let mut world = World::new();
        world.clock = Clock::held("2026-01-01T00:00:59Z".parse().unwrap());
        world.fake.put(&job(Some(60), "Complete", None));
        world.start(&["ttl-after-finished"]);
        // It waits for what it owns, which is what deletion in the foreground means.
        let ends = |job: &Value| {
            !job["metadata"]["deletionTimestamp"].is_null() && job["metadata"]["finalizers"][0] == "foregroundDeletion"
        };
        let gone = world.fake.until::<Job>(|jobs| jobs.iter().any(|job| ends(&serde_json::to_value(job).unwrap())));
        world.clock.set("2026-01-01T00:01:00Z".parse().unwrap());
        gone.await;
    }
}
