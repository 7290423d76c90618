//! DaemonSets: a pod on every node that is meant (Kubernetes documentation, "DaemonSet"). The scheduler binds each pod to the one node
//! that its affinity names.

mod place;
mod plan;
mod rolling;
mod spread;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::labels::Selector;
use client::Api;
use client::events::Type;
use client::kube;
use client::kube::api::{Patch, PatchParams, PostParams};
use client::{Change, Informer, Informers, Key};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use tokio::time::Instant;

use crate::adopt;
use crate::backoff::Backoff;
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::expectations::Expectations;
use crate::history::{self, Current, HASH, Keeper, Wanted};
use crate::{meta, write};
use place::Place;
use plan::{Delete, Observed, Plan, Why};

pub(crate) struct DaemonSets {
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    expectations: Expectations,
    backoff: Backoff,
}

impl DaemonSets {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self {
            sets: informers.of(),
            pods: informers.of(),
            nodes: informers.of(),
            revisions: informers.of(),
            expectations: Expectations::default(),
            backoff: Backoff::new(Duration::from_secs(15 * 60)),
        }
    }
}

impl Controller for DaemonSets {
    const NAME: &'static str = "daemonset";
    const ACCOUNT: &'static str = "daemon-set-controller";
    const RETRY_MAX: Duration = crate::queue::PODS_RETRY_MAX;

    fn sources(&self) -> Vec<Source> {
        let owners = self.sets.clone();
        let of_pod = Source::stepped(&self.pods, move |step, queue| adopt::owners(step, &owners, "DaemonSet", selector, queue));
        let owners = self.sets.clone();
        // A revision that is owned already is no reason to look: nothing follows from it until the template changes.
        let of_revision = Source::stepped(&self.revisions, move |step, queue| adopt::adopters(step, &owners, selector, queue));
        let sets = self.sets.clone();
        let of_node = Source::mapped(&self.nodes, move |change, queue| {
            if !matters(change) {
                return;
            }
            for set in sets.list() {
                let place = Place::of(set.as_ref());
                let suits = |node: &Option<Arc<Node>>| node.as_ref().map(|node| place.suits(node));
                if suits(&change.old) != suits(&change.new) {
                    queue.add(Key::of(set.as_ref()));
                }
            }
        });
        vec![Source::own(&self.sets), of_pod, of_revision, of_node]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(set) = self.sets.by_key(key) else {
            self.expectations.forget(key);
            self.backoff.forget(key);
            return Ok(Action::Done);
        };
        let Some(selector) = selector(&set) else { return Ok(Action::Done) };
        if selector.is_everything() {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            cx.events.about(set.as_ref(), Type::Warning, "SelectingAll", text);
            return Ok(Action::Done);
        }
        if meta::ends(set.as_ref()) {
            return Ok(Action::Done);
        }
        self.sync(cx, key, &set, &selector).await
    }
}

fn selector(set: &DaemonSet) -> Option<Selector> {
    Selector::from_label_selector(Some(&set.spec.as_ref()?.selector)).ok()
}

/// Whether a change of a node can make it suit other sets than before. Heartbeats cannot.
fn matters(change: &Change<Node>) -> bool {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => old.metadata.labels != new.metadata.labels || old.spec != new.spec,
        _ => true,
    }
}

impl DaemonSets {
    async fn sync(&self, cx: &Cx, key: &Key, set: &Arc<DaemonSet>, selector: &Selector) -> Result<Action, Error> {
        // Before the pods are read, so that what is seen of our writes is there when they are.
        let seen = self.expectations.seen(key, &self.pods);
        let mut pods = adopt::claim(cx, set.as_ref(), selector, &self.pods).await?;
        let mut revisions = adopt::claim(cx, set.as_ref(), selector, &self.revisions).await?;
        revisions.sort_by(history::by_age);
        let current = self.current(cx, set, &mut revisions, &mut pods).await?;
        let hash = current.revision.metadata.labels.as_ref().and_then(|labels| labels.get(HASH)).cloned().unwrap_or_default();
        let nodes = self.nodes.list();
        let at = Instant::now();
        let wait = |node: &str| self.backoff.left(key, node, at);
        let observed = Observed { set, nodes: &nodes, pods: &pods, hash: &hash, wait: &wait, now: Timestamp::now() };
        let plan = plan::plan(&observed);
        let after = plan.after;
        let done = if seen { self.apply(cx, key, set, &hash, plan).await } else { Ok(()) };
        if seen && done.is_ok() {
            self.clean_up(cx, set, &revisions, &current, &pods).await?;
        }
        let mut status = status::status(&observed);
        let before = set.status.as_ref().and_then(|status| status.collision_count);
        status.collision_count = before.max(Some(current.collisions).filter(|count| *count > 0));
        if !seen {
            // What the set says now has not been done yet.
            status.observed_generation = set.status.as_ref().and_then(|status| status.observed_generation);
        }
        write_status(cx, key, set, status).await?;
        done?;
        Ok(if seen { Action::after(after) } else { Action::UNSEEN })
    }

    /// The revision of the present template. Of several the newest stays, and the pods of the others become its own.
    async fn current(
        &self,
        cx: &Cx,
        set: &DaemonSet,
        revisions: &mut Vec<Arc<ControllerRevision>>,
        pods: &mut [Arc<Pod>],
    ) -> Result<Current, Error> {
        let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let wanted = Wanted::new(&template, &self.revisions);
        let keeper = Keeper { owner: set, template: &template, wanted, label: HASH, collisions };
        let current = keeper.current(cx, revisions).await?;
        let name = meta::name(current.revision.as_ref());
        let is_twin = |one: &Arc<ControllerRevision>| meta::name(one.as_ref()) != name && keeper.wanted.is_kept_by(one);
        let (twins, others): (Vec<_>, Vec<_>) = revisions.drain(..).partition(is_twin);
        *revisions = others;
        for twin in twins {
            let hash = |revision: &ControllerRevision| revision.metadata.labels.as_ref()?.get(HASH).cloned();
            let (before, after) = (hash(&twin), hash(&current.revision));
            let api: Api<Pod> = Api::namespaced(cx.client.clone(), meta::namespace(set));
            for pod in pods.iter_mut().filter(|pod| plan::hash_of(pod) == before.as_deref()) {
                let labels = json!({"metadata": {"labels": {HASH: after}, "uid": meta::uid(pod.as_ref())}});
                // With its old label it would be replaced in this very look.
                *pod = Arc::new(api.patch(meta::name(pod.as_ref()), &PatchParams::default(), &Patch::Merge(labels)).await?);
            }
            history::forget(cx, &twin).await?;
        }
        Ok(current)
    }

    async fn apply(&self, cx: &Cx, key: &Key, set: &DaemonSet, hash: &str, plan: Plan) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(cx.client.clone(), key.ns());
        let place = Place::of(set);
        let template = place.template(set, hash);
        let mut outcome = Ok(());
        let create = async |node: String| {
            let mut pod = write::pod_of(set, &template);
            place::aim(&mut pod, &node);
            api.create(&PostParams::default(), &pod).await
        };
        for result in write::in_batches(plan.create, create).await {
            match result {
                Ok(pod) => {
                    self.expectations.written(key, &pod);
                    let message = format!("Created pod: {}", meta::name(&pod));
                    cx.events.about(set, Type::Normal, "SuccessfulCreate", message);
                }
                Err(error) if write::namespace_ends(&error) => {}
                Err(error) => outcome = Err(failed(cx, set, "FailedCreate", "creating", error)),
            }
        }
        let delete = async |delete: Delete| (write::delete(&api, delete.pod.as_ref()).await, delete);
        for (result, Delete { pod, node, why }) in join_all(plan.delete.into_iter().map(delete)).await {
            self.tell(cx, key, set, &pod, &node, why);
            match result {
                Ok(false) => {}
                Ok(true) => {
                    self.expectations.deleted(key, Key::of(pod.as_ref()), meta::uid(pod.as_ref()));
                    let message = format!("Deleted pod: {}", meta::name(pod.as_ref()));
                    cx.events.about(set, Type::Normal, "SuccessfulDelete", message);
                }
                Err(error) => outcome = Err(failed(cx, set, "FailedDelete", "deleting", error)),
            }
        }
        outcome
    }

    /// Says why a pod goes that has ended by itself.
    fn tell(&self, cx: &Cx, key: &Key, set: &DaemonSet, pod: &Pod, node: &str, why: Why) {
        let pod = Key::of(pod);
        match why {
            Why::Surplus => {}
            Why::Failed => {
                self.backoff.failed(key, node, Instant::now());
                let message = format!("Found failed daemon pod {pod} on node {node}, will try to kill it");
                cx.events.about(set, Type::Warning, "FailedDaemonPod", message);
            }
            Why::Succeeded => {
                let message = format!("Found succeeded daemon pod {pod} on node {node}, will try to delete it");
                cx.events.about(set, Type::Normal, "SucceededDaemonPod", message);
            }
        }
    }

    /// Deletes the oldest revisions beyond the limit that no pod has.
    async fn clean_up(
        &self,
        cx: &Cx,
        set: &DaemonSet,
        revisions: &[Arc<ControllerRevision>],
        current: &Current,
        pods: &[Arc<Pod>],
    ) -> Result<(), Error> {
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let old = revisions.iter().filter(|one| meta::name(one.as_ref()) != meta::name(current.revision.as_ref()));
        for revision in plan::surplus(old, usize::try_from(limit).unwrap_or(0), pods) {
            history::forget(cx, revision).await?;
        }
        Ok(())
    }
}

fn failed(cx: &Cx, set: &DaemonSet, reason: &str, verb: &str, error: kube::Error) -> Error {
    cx.events.about(set, Type::Warning, reason, format!("Error {verb}: {}", client::why(&error)));
    error.into()
}

async fn write_status(cx: &Cx, key: &Key, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), Error> {
    if set.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let next = DaemonSet { status: Some(status), ..set.clone() };
    let api: Api<DaemonSet> = Api::namespaced(cx.client.clone(), key.ns());
    api.replace_status(&key.name, &PostParams::default(), &next).await?;
    Ok(())
}

/// The earlier of two waits.
fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    [a, b].into_iter().flatten().min()
}
