//! ReplicaSets and ReplicationControllers: a number of equal pods.

mod kind;
mod plan;
pub(crate) mod rank;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use client::Api;
use client::kube;
use client::kube::api::PostParams;
use client::{Entry, Informer, Informers, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use crate::adopt;
use crate::backoff::Backoff;
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::expectations::Expectations;
use crate::pod_control::{Failure, PodControl};
use crate::room::{self, Room};
use crate::{meta, write};
use kind::Replicated;
use plan::{Member, Step};

pub(crate) struct Replicas<K> {
    owners: Informer<K>,
    pods: Informer<Pod>,
    expectations: Expectations,
    /// Of pods that their node has refused.
    refusals: Backoff,
    room: Room,
}

impl<K: Replicated> Replicas<K> {
    pub(crate) fn new(informers: &Informers) -> Self {
        let pods = informers.of();
        Self {
            owners: informers.of(),
            room: Room::new(&pods),
            pods,
            expectations: Expectations::default(),
            refusals: Backoff::new(crate::pods::REFUSED_LONGEST),
        }
    }
}

impl<K: Replicated> Controller for Replicas<K> {
    const NAME: &'static str = K::NAME;
    const ACCOUNT: &'static str = K::ACCOUNT;
    const RETRY_MAX: Duration = crate::queue::PODS_RETRY_MAX;

    fn sources(&self) -> Vec<Source> {
        let owners = self.owners.clone();
        let of_pod = Source::stepped(&self.pods, move |step, queue| adopt::owners(step, &owners, K::KIND, K::selector, queue));
        vec![Source::own(&self.owners), of_pod]
    }

    fn rest(&self, key: &Key) -> Duration {
        self.owners.entry(key).map_or(Duration::ZERO, |owner| rest_of(self.pods.count_owned_by(owner.uid())))
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(owner) = self.owners.by_key(key) else {
            self.expectations.forget(key);
            self.refusals.forget(key);
            return Ok(Action::Done);
        };
        let Some(selector) = owner.selector().filter(|selector| !selector.is_everything()) else {
            return Ok(Action::Done);
        };
        let seen = self.expectations.seen(key, &self.pods);
        // As upstream, pods that have ended stay whose they are: a pod of nobody that has done its work is not to go with the owner.
        let has_ended = |pod: &Entry<Pod>| Member::of(pod.clone()).is_some_and(|pod| pod.facts.is_finished);
        let claimed = adopt::claim_entries(cx, owner.as_ref(), &selector, &self.pods, has_ended).await?;
        let pods: Vec<Member> = claimed.into_iter().filter_map(Member::of).collect();
        let result = if seen { self.act(cx, key, owner.as_ref(), &pods).await } else { Ok(Acted::default()) };
        let failure = match &result {
            Ok(acted) => acted.paused.clone(),
            Err((failure, _)) => Some(failure.clone()),
        };
        let now = Timestamp::now();
        let status = plan::status(owner.as_ref(), &pods, failure, now);
        write_status(cx, key, owner.as_ref(), status).await?;
        match result {
            Ok(_) if !seen => Ok(Action::UNSEEN),
            Ok(Acted { wait, .. }) => {
                Ok(Action::after(plan::next_available(owner.as_ref(), &pods, now).into_iter().chain(wait).min()))
            }
            Err((_, error)) => Err(error.into()),
        }
    }
}

/// What came of a look where nothing failed.
#[derive(Default)]
struct Acted {
    /// How long it waits with what is to be done.
    wait: Option<Duration>,
    /// Why it makes no pods at present, for the condition.
    paused: Option<Failure>,
}

impl<K: Replicated> Replicas<K> {
    /// Makes pods or deletes them.
    async fn act(&self, cx: &Cx, key: &Key, owner: &K, pods: &[Member]) -> Result<Acted, (Failure, kube::Error)> {
        let active: Vec<Member> = pods.iter().filter(|pod| pod.is_active()).cloned().collect();
        let has_surplus = active.len() > usize::try_from(owner.replicas()).unwrap_or(0);
        let family = if has_surplus { self.family(owner) } else { HashMap::new() };
        let neighbours = |node: &str| family.get(node).copied().unwrap_or(0);
        let control = PodControl { cx, key, owner, expectations: &self.expectations };
        let now = Timestamp::now();
        match plan::step(owner, &active, neighbours, now) {
            Step::Keep => Ok(Acted::default()),
            Step::Create(number) => {
                let Some(template) = owner.template() else { return Ok(Acted::default()) };
                // One that was refused long ago holds up nothing.
                let lately = |pod: &&Member| {
                    let age = pod.facts.created.map(|created| now.duration_since(created).unsigned_abs());
                    pod.facts.is_refused && age.is_some_and(|age| age < self.refusals.memory())
                };
                if pods.iter().any(|pod| lately(&pod))
                    && let Some(left) = self.refusals.wait(key, "", Instant::now())
                {
                    return Ok(Acted { wait: Some(left), paused: None });
                }
                let number = self.room.for_some(cx, owner, number);
                if number == 0 {
                    return Ok(Acted { wait: Some(self.room.again), paused: Some((room::PAUSED, self.room.why())) });
                }
                let pod = write::pod_of(owner, template);
                control.create_equal(number, &pod).await.failure.map_or(Ok(Acted::default()), Err)
            }
            Step::Delete(pods) => {
                let pods = pods.iter().filter_map(Entry::get);
                control.delete(pods).await.failure.map_or(Ok(Acted::default()), Err)
            }
        }
    }

    /// By node, how many active pods are there of all owners that share this one's controller, such as the sets of one deployment.
    fn family(&self, owner: &K) -> HashMap<Box<str>, usize> {
        let mut uids = vec![meta::uid(owner).to_owned()];
        if let Some(controller) = meta::controller_of(owner) {
            uids = self.owners.owned_by(&controller.uid).iter().map(|one| meta::uid(one.as_ref()).to_owned()).collect();
        }
        let pods = uids.iter().flat_map(|uid| self.pods.entries_owned_by(uid));
        plan::by_node(pods.filter_map(Member::of))
    }
}

/// How long an owner of so many pods rests after a look. Each of them may change at any time, a look goes through all of them, and the
/// status that it writes makes the owner's own controllers look. Owners of few pods do not rest.
fn rest_of(pods: usize) -> Duration {
    if pods < 100 { Duration::ZERO } else { Duration::from_micros(50 * pods as u64).min(Duration::from_millis(500)) }
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
