//! StatefulSets: pods with names that stay, made and ended in order, and claims that outlive them
//! (Kubernetes documentation, "StatefulSets").

mod claims;
mod identity;
mod observed;
mod plan;
mod range;
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
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use serde_json::json;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::expectations::Expectations;
use crate::history::{self, Current, Keeper, Wanted};
use crate::queue::Queue;
use crate::room::Room;
use crate::{adopt, meta, write};
use plan::{Create, Observed, Plan, Version};

/// The label of a revision that holds its hash.
const REVISION_HASH: &str = "controller.kubernetes.io/hash";
const POST: PostParams = PostParams { dry_run: false, field_manager: None };

pub(crate) struct StatefulSets {
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    revisions: Informer<ControllerRevision>,
    expectations: Expectations,
    /// Of pods that their node has refused.
    refusals: Backoff,
    room: Room,
}

impl StatefulSets {
    pub(crate) fn new(informers: &Informers) -> Self {
        let pods = informers.of();
        Self {
            sets: informers.of(),
            room: Room::new(&pods),
            pods,
            claims: informers.of(),
            revisions: informers.of(),
            expectations: Expectations::default(),
            refusals: Backoff::new(crate::pods::REFUSED_LONGEST),
        }
    }
}

impl Controller for StatefulSets {
    const NAME: &'static str = "statefulset";
    const ACCOUNT: &'static str = "statefulset-controller";
    const RETRY_MAX: std::time::Duration = crate::queue::PODS_RETRY_MAX;

    fn sources(&self) -> Vec<Source> {
        let owners = self.sets.clone();
        let of_pod = Source::stepped(&self.pods, move |step, queue| adopt::owners(step, &owners, "StatefulSet", selector, queue));
        let owners = self.sets.clone();
        // A revision that is owned already is no reason to look: nothing follows from it until the template changes.
        let of_revision = Source::stepped(&self.revisions, move |step, queue| adopt::adopters(step, &owners, selector, queue));
        let sets = self.sets.clone();
        let of_claim = Source::mapped(&self.claims, move |change, queue| claim_gone(change, &sets, queue));
        vec![Source::own(&self.sets), of_pod, of_revision, of_claim]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(set) = self.sets.by_key(key) else {
            self.expectations.forget(key);
            self.refusals.forget(key);
            return Ok(Action::Done);
        };
        let Some(selector) = selector(&set).filter(|selector| !selector.is_everything()) else { return Ok(Action::Done) };
        // The pod that we wait for comes with a change, which leads to the next look.
        if !self.expectations.seen(key, &self.pods) {
            return Ok(Action::UNSEEN);
        }
        let member = |pod: &Pod| identity::is_member(&set, pod);
        let pods = adopt::claim_where(cx, set.as_ref(), &selector, &self.pods, member).await?;
        let mut revisions = adopt::claim(cx, set.as_ref(), &selector, &self.revisions).await?;
        revisions.sort_by(history::by_age);
        self.sync(cx, key, &set, &pods, &revisions).await
    }
}

fn selector(set: &StatefulSet) -> Option<Selector> {
    Selector::from_label_selector(Some(&set.spec.as_ref()?.selector)).ok()
}

/// A claim that is gone lets its set make another.
fn claim_gone(change: &Change<PersistentVolumeClaim>, sets: &Informer<StatefulSet>, queue: &Queue) {
    if change.new.is_some() {
        return;
    }
    let of_set = |set: &Arc<StatefulSet>| claims::is_of(set, &change.key.name);
    sets.in_namespace(change.key.ns()).iter().filter(|set| of_set(set)).for_each(|set| queue.add(Key::of(set.as_ref())));
}

impl StatefulSets {
    async fn sync(
        &self,
        cx: &Cx,
        key: &Key,
        set: &Arc<StatefulSet>,
        pods: &[Arc<Pod>],
        revisions: &[Arc<ControllerRevision>],
    ) -> Result<Action, Error> {
        let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let wanted = Wanted::new(&template, &self.revisions);
        let keeper = Keeper { owner: set.as_ref(), template: &template, wanted, label: REVISION_HASH, collisions };
        let Current { revision, collisions } = keeper.current(cx, revisions).await?;
        let update = Version { name: meta::name(revision.as_ref()).to_owned(), template };
        let current = current(set, revisions).unwrap_or_else(|| update.clone());
        let claims = |name: &str| self.claims.get(key.namespace.as_deref(), name);
        let observed =
            Observed { set, pods, current: &current, update: &update, claims: &claims, collisions, now: Timestamp::now() };
        let plan = plan::plan(&observed);
        let (mut status, after) = (plan.status.clone(), plan.after);
        let done = self.apply(cx, key, set, plan).await;
        status::complete(set, &mut status);
        write_status(cx, key, set, status).await?;
        let wait = done?;
        for revision in plan::surplus(set, revisions, &[&current.name, &update.name], pods) {
            history::forget(cx, revision).await?;
        }
        Ok(Action::after(after.into_iter().chain(wait).min()))
    }

    /// Up to the first kind of change that fails: who cannot be made must not lead to deletions, nor who is not made yet. Tells how long what
    /// is left of the plan waits.
    async fn apply(&self, cx: &Cx, key: &Key, set: &StatefulSet, mut plan: Plan) -> Result<Option<Duration>, Error> {
        let (pods, claims): (Api<Pod>, Api<PersistentVolumeClaim>) =
            (Api::namespaced(cx.client.clone(), key.ns()), Api::namespaced(cx.client.clone(), key.ns()));
        for (pod, claim) in &plan.claims {
            make_claim(cx, &claims, set, pod, claim).await?;
        }
        for (pod, labels) in &plan.label {
            let patch = json!({"metadata": {"uid": meta::uid(pod.as_ref()), "labels": labels}});
            let result = pods.patch(meta::name(pod.as_ref()), &PatchParams::default(), &Patch::Merge(patch)).await;
            tell(cx, set, "update", "Update", meta::name(pod.as_ref()), result.as_ref().err());
            result?;
        }
        let (mut outcome, all) = (Ok(()), plan.create.len());
        plan.create.truncate(self.room.for_some(cx, set, all));
        let mut wait = (plan.create.len() < all).then_some(self.room.again);
        for result in
            write::in_batches(std::mem::take(&mut plan.create), async |create| self.create(cx, set, &pods, &claims, create).await)
                .await
        {
            match result {
                Ok(pod) => self.expectations.written(key, &pod),
                Err(error) => outcome = Err(error),
            }
        }
        outcome?;
        if wait.is_some() {
            plan.pause(set);
        }
        for claim in &plan.own {
            claims.replace(meta::name(claim), &POST, claim).await?;
        }
        for pod in &plan.delete {
            if crate::pods::is_refused(pod)
                && let Some(left) = self.refusals.wait(key, meta::name(pod.as_ref()), Instant::now())
            {
                wait = Some(wait.map_or(left, |wait| wait.min(left)));
                continue;
            }
            tell_of_end(cx, set, pod);
            let result = write::delete(&pods, pod.as_ref()).await;
            tell(cx, set, "delete", "Delete", meta::name(pod.as_ref()), result.as_ref().err());
            if result? {
                self.expectations.deleted(key, Key::of(pod.as_ref()), meta::uid(pod.as_ref()));
            }
        }
        Ok(wait)
    }

    async fn create(
        &self,
        cx: &Cx,
        set: &StatefulSet,
        pods: &Api<Pod>,
        claims: &Api<PersistentVolumeClaim>,
        Create { pod, claims: missing, ending }: Create,
    ) -> Result<Pod, Error> {
        let name = meta::name(pod.as_ref());
        if let Some(claim) = ending {
            let message = format!("pvc {claim} is being deleted");
            failed_to_create(cx, set, name, &message);
            return Err(Error::Other(message));
        }
        for claim in &missing {
            if let Err(error) = make_claim(cx, claims, set, name, claim).await {
                failed_to_create(cx, set, name, &format!("failed to create PVC {}: {error}", meta::name(claim)));
                return Err(error);
            }
        }
        let result = pods.create(&POST, &pod).await;
        if !matches!(&result, Err(kube::Error::Api(status)) if status.is_already_exists()) {
            tell(cx, set, "create", "Create", name, result.as_ref().err());
        }
        Ok(result?)
    }
}

/// The revision that the set came from, as its status names it.
fn current(set: &StatefulSet, revisions: &[Arc<ControllerRevision>]) -> Option<Version> {
    let name = set.status.as_ref()?.current_revision.as_ref()?;
    let revision = revisions.iter().find(|revision| meta::name(revision.as_ref()) == name)?;
    let template: PodTemplateSpec = history::template(revision)?;
    Some(Version { name: name.clone(), template })
}

async fn make_claim(
    cx: &Cx,
    api: &Api<PersistentVolumeClaim>,
    set: &StatefulSet,
    pod: &str,
    claim: &PersistentVolumeClaim,
) -> Result<(), Error> {
    let (name, owner) = (meta::name(claim), meta::name(set));
    match api.create(&POST, claim).await {
        Ok(_) => {
            let message = format!("create Claim {name} Pod {pod} in StatefulSet {owner} success");
            cx.events.about(set, Type::Normal, "SuccessfulCreate", message);
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => {
            let why = client::why(&error);
            let message = format!("create Claim {name} for Pod {pod} in StatefulSet {owner} failed error: {why}");
            cx.events.about(set, Type::Warning, "FailedCreate", message);
            Err(error.into())
        }
    }
}

fn failed_to_create(cx: &Cx, set: &StatefulSet, pod: &str, why: &str) {
    let message = format!("create Pod {pod} in StatefulSet {} failed error: {why}", meta::name(set));
    cx.events.about(set, Type::Warning, "FailedCreate", message);
}

/// Says that a pod goes because it has ended, and not because there is one too many or another version of it.
fn tell_of_end(cx: &Cx, set: &StatefulSet, pod: &Pod) {
    let stays = identity::ordinal(pod).is_some_and(|ordinal| identity::in_range(set, ordinal));
    if !stays || !status::has_ended(pod) {
        return;
    }
    let (kind, reason, how) = match crate::pods::phase(pod) {
        "Failed" => (Type::Warning, "RecreatingFailedPod", "failed"),
        _ => (Type::Normal, "RecreatingTerminatedPod", "terminated"),
    };
    let message = format!("StatefulSet {}/{} is recreating {how} Pod {}", meta::namespace(set), meta::name(set), meta::name(pod));
    cx.events.about(set, kind, reason, message);
}

fn tell(cx: &Cx, set: &StatefulSet, verb: &str, title: &str, pod: &str, error: Option<&kube::Error>) {
    let owner = meta::name(set);
    match error {
        None => {
            let message = format!("{verb} Pod {pod} in StatefulSet {owner} successful");
            cx.events.about(set, Type::Normal, &format!("Successful{title}"), message);
        }
        Some(error) => {
            let message = format!("{verb} Pod {pod} in StatefulSet {owner} failed error: {}", client::why(error));
            cx.events.about(set, Type::Warning, &format!("Failed{title}"), message);
        }
    }
}

async fn write_status(cx: &Cx, key: &Key, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), Error> {
    if set.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let next = StatefulSet { status: Some(status), ..set.clone() };
    let api: Api<StatefulSet> = Api::namespaced(cx.client.clone(), key.ns());
    api.replace_status(&key.name, &POST, &next).await?;
    Ok(())
}
