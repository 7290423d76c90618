//! What to do about a deployment. Pure: from what is observed to a list of changes and the status that follows.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::status::{self, PROGRESSING, new_condition, set_condition};
use super::{REVISION, revision, size};
use crate::meta;

/// What the caches say.
pub(super) struct Observed {
    pub(super) deployment: Deployment,
    /// The sets that the deployment controls.
    pub(super) sets: Vec<ReplicaSet>,
    /// Whether a pod of an old set still runs. Only asked for by Recreate.
    pub(super) old_pods_run: bool,
    pub(super) now: Timestamp,
}

/// One write. To be made in order, up to the first failure.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    /// With the event that tells of it.
    Create(Box<ReplicaSet>, Option<String>),
    Update(Box<ReplicaSet>, Option<String>),
    Delete(Box<ReplicaSet>),
}

pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    /// The value of the deployment's revision annotation.
    pub(super) revision: Option<String>,
    pub(super) status: DeploymentStatus,
    pub(super) after: Option<Duration>,
}

/// The sets as they will be, by age, and what leads there.
pub(super) struct Work<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) sets: Vec<ReplicaSet>,
    pub(super) new: Option<usize>,
    pub(super) changes: Vec<Change>,
    pub(super) status: DeploymentStatus,
    pub(super) revision: Option<String>,
    now: Timestamp,
}

pub(super) fn plan(observed: Observed) -> Plan {
    let Observed { deployment, mut sets, old_pods_run, now } = observed;
    sets.sort_by(by_age);
    let new = revision::find_new(&deployment, &sets);
    let status = deployment.status.clone().unwrap_or_default();
    let mut work = Work { deployment: &deployment, sets, new, changes: Vec::new(), status, revision: None, now };
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false);
    let rollout = if meta::ends(&deployment) {
        false
    } else {
        status::mark_paused(&deployment, &mut work.status, now);
        work.sync_new_set();
        if paused || work.is_scaling() {
            work.scale();
            if paused {
                work.clean_up();
            }
            false
        } else {
            work.roll_out(old_pods_run);
            true
        }
    };
    work.finish(rollout)
}

pub(super) fn by_age(a: &ReplicaSet, b: &ReplicaSet) -> std::cmp::Ordering {
    let age = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    age(a).cmp(&age(b)).then_with(|| meta::name(a).cmp(meta::name(b)))
}

impl Work<'_> {
    /// What all sets are asked for. Users choose these numbers, so their sum may be more than a number of replicas can say.
    pub(super) fn total(&self) -> i64 {
        self.sets.iter().map(|set| i64::from(size::replicas(set))).sum()
    }

    /// Indexes of the old sets, oldest first.
    pub(super) fn old(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|index| Some(*index) != self.new).collect()
    }

    /// Anybody may write any number into the annotation, so there may be none behind it.
    fn next_revision(&self) -> i64 {
        self.old().iter().map(|index| revision::revision(&self.sets[*index])).max().unwrap_or(0).saturating_add(1)
    }

    /// Keeps the annotations of an existing new set current.
    fn sync_new_set(&mut self) {
        let Some(new) = self.new else { return };
        let next = self.next_revision();
        let mut set = self.sets[new].clone();
        revision::annotate_new(self.deployment, &mut set, next);
        if let (Some(spec), Some(wanted)) = (&mut set.spec, &self.deployment.spec)
            && spec.min_ready_seconds.unwrap_or(0) != wanted.min_ready_seconds.unwrap_or(0)
        {
            spec.min_ready_seconds = wanted.min_ready_seconds;
        }
        self.replace(new, set, None);
        self.revision = meta::annotation(&self.sets[new], REVISION).map(str::to_owned);
        if status::condition(&self.status, PROGRESSING).is_none() && status::deadline(self.deployment).is_some() {
            let message = format!("Found new replica set {:?}", meta::name(&self.sets[new]));
            set_condition(&mut self.status, new_condition(PROGRESSING, "True", "FoundNewReplicaSet", message, self.now));
        }
    }

    /// The new set; made with as many replicas as it may have when there is none.
    pub(super) fn ensure_new(&mut self) -> usize {
        if let Some(new) = self.new {
            return new;
        }
        let revision = self.next_revision();
        let mut set = revision::new_set(self.deployment, revision);
        let replicas = size::next_new_size(self.deployment, self.total(), 0);
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(replicas);
        }
        let name = meta::name(&set).to_owned();
        let event = (replicas > 0).then(|| format!("Scaled up replica set {name} from 0 to {replicas}"));
        self.changes.push(Change::Create(Box::new(set.clone()), event));
        self.sets.push(set);
        self.revision = Some(revision.to_string());
        if status::deadline(self.deployment).is_some() {
            let message = format!("Created new replica set {name:?}");
            set_condition(&mut self.status, new_condition(PROGRESSING, "True", "NewReplicaSetCreated", message, self.now));
        }
        self.new = Some(self.sets.len() - 1);
        self.sets.len() - 1
    }

    /// Gives a set another size; false when it has it.
    pub(super) fn resize(&mut self, index: usize, replicas: i32) -> bool {
        let before = size::replicas(&self.sets[index]);
        let mut set = self.sets[index].clone();
        revision::annotate_size(self.deployment, &mut set);
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(replicas);
        }
        let direction = if before < replicas { "up" } else { "down" };
        let name = meta::name(&set);
        let event = (before != replicas).then(|| format!("Scaled {direction} replica set {name} from {before} to {replicas}"));
        self.replace(index, set, event);
        before != replicas
    }

    fn replace(&mut self, index: usize, set: ReplicaSet, event: Option<String>) {
        if set == self.sets[index] {
            return;
        }
        let same = |change: &&mut Change| matches!(change, Change::Update(other, _) | Change::Create(other, _) if meta::name(other.as_ref()) == meta::name(&set));
        match self.changes.iter_mut().find(same) {
            // One write for each set: the second would meet a conflict.
            Some(Change::Update(other, told) | Change::Create(other, told)) => {
                **other = set.clone();
                *told = event.or(told.take());
            }
            _ => self.changes.push(Change::Update(Box::new(set.clone()), event)),
        }
        self.sets[index] = set;
    }

    /// Whether the deployment's size changed since its sets were scaled.
    fn is_scaling(&self) -> bool {
        let wanted = size::wanted(self.deployment);
        let mut active = self.sets.iter().filter(|set| size::replicas(set) > 0);
        active.any(|set| size::desired_annotation(set).is_some_and(|desired| desired != wanted))
    }

    /// Deletes old sets beyond the history limit.
    pub(super) fn clean_up(&mut self) {
        let limit = self.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let mut old: Vec<usize> = self.old();
        old.retain(|index| !meta::ends(&self.sets[*index]));
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|index| (revision::revision(&self.sets[*index]), *index));
        for index in old.into_iter().take(surplus) {
            let set = &self.sets[index];
            let status = set.status.clone().unwrap_or_default();
            let unseen = set.metadata.generation > status.observed_generation;
            if status.replicas == 0 && size::replicas(set) == 0 && !unseen {
                self.changes.push(Change::Delete(Box::new(set.clone())));
            }
        }
    }

    fn finish(self, rollout: bool) -> Plan {
        let new = self.new.map(|index| &self.sets[index]);
        let mut status = status::count(self.deployment, &self.sets, new, self.status, self.now);
        if rollout {
            status::judge_progress(self.deployment, &self.sets, new, &mut status, self.now);
        }
        let paused = self.deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false);
        let after = if paused { None } else { status::check_after(self.deployment, &status, self.now) };
        Plan { changes: self.changes, revision: self.revision, status, after }
    }
}

/// Largest first; among equals the newer first when growing, the older first when shrinking.
pub(super) fn by_size(work: &Work<'_>, mut indexes: Vec<usize>, growing: bool) -> Vec<usize> {
    if growing {
        indexes.reverse();
    }
    indexes.sort_by_key(|index| Reverse(size::replicas(&work.sets[*index])));
    indexes
}
