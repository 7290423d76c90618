//! A pod has its node: what it needs there is taken and written, and the pod is bound.

#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use base::budgets::shares::Share;
use pods::slices::Place;

use super::Scheduler;
use crate::api::{Binder, Needs};
use crate::attempt::Attempt;
use crate::binding::{CalledOff, PendingBinding};
use crate::cluster::Cluster;
use crate::devices::Reservation;
use crate::filtering::FitError;
use crate::framework::Event;
use crate::plugins::{DEVICES, PLUGINS, VOLUMES};
use crate::pod::PodInfo;
use crate::queue::Trial;
use crate::volumes::Step;
use crate::volumes::binding::Bindings;
use crate::waiting::Cache;

/// Bindings of one namespace that may wait at the same time. They take memory, and provisioners that make nothing keep them for minutes.
pub(super) const SHARE: usize = 1000;

impl Scheduler {
    /// Takes a node for a pod, and all that the pod needs there, and binds the pod.
    pub(super) fn place(&mut self, pod: Arc<PodInfo>, node: String, trial: Trial, attempt: &Attempt) {
        let devices = match self.devices_on(&pod, &node, attempt) {
            Ok(devices) => devices,
            Err(error) => return self.no_node(&pod, trial, attempt, error),
        };
        let volumes = self.volumes_on(&pod, &node, attempt);
        let needs = match self.needs(&pod, &node, volumes, devices.clone()) {
            Ok(needs) => needs,
            // There is a node: nobody has to make room, and a promise still holds.
            Err(error) => return self.refused(&pod, trial, error, None),
        };
        let given_up = self.cluster.nominations.withdraw(pod.uid());
        self.cluster.place(Arc::new(pod.placed()), &node);
        self.given_up(given_up);
        let binder = self.binder(&pod, &node, trial);
        let Some(needs) = needs else {
            // An extender may take its time, which keeps nobody else waiting.
            let writes = if binder.is_extender { &mut self.with_needs } else { &mut self.writes };
            return writes.push(self.api.bind(pod, node, trial, binder));
        };
        for one in &devices {
            if let Some(allocation) = &one.allocation {
                self.cluster.devices.ledger.choose(one.id(), allocation);
            }
        }
        if !devices.is_empty() {
            self.reserving.insert(pod.uid().to_owned(), devices);
        }
        self.waiting.bindings.insert(pod.uid().to_owned(), needs.pending.clone());
        self.with_needs.push(self.api.bind_with(pod, node, trial, needs, binder));
    }

    /// What has to be there before the pod is bound, if anything; or that as many pods of its namespace wait as may.
    fn needs(&self, pod: &PodInfo, node: &str, steps: Vec<Step>, devices: Vec<Reservation>) -> Result<Option<Needs>, FitError> {
        if steps.is_empty() && devices.is_empty() {
            return Ok(None);
        }
        let Some(share) = self.waiting.shares.take(pod.namespace()) else {
            return Err(self.no_share(if devices.is_empty() { VOLUMES } else { DEVICES }));
        };
        let volumes = Bindings {
            steps,
            cache: Cache { claims: self.cluster.volumes.claims.clone(), waiting: self.waiting.volumes.clone() },
            volumes: self.cluster.volumes.volumes.clone(),
            node: node.to_owned(),
            labels: self.cluster.node(node).and_then(|node| node.labels.clone()),
        };
        let claims = Cache { claims: self.cluster.devices.claims.clone(), waiting: self.waiting.devices.clone() };
        let events = self.events.get(pod.scheduler()).cloned();
        Ok(Some(Needs { volumes, devices, claims, events, share, pending: PendingBinding::default() }))
    }

    /// A node is gone: whoever waits for claims there waits for nothing, and is tried again (upstream's `checkBindings`: "failed to get node").
    pub(super) fn abandon(&self, node: &str) {
        let there = self.waiting.bindings.iter().filter(|(pod, _)| self.cluster.node_of(pod) == Some(node));
        there.for_each(|(_, binding)| {
            binding.call_off(CalledOff::NodeGone);
        });
    }

    /// Why a pod that will have to wait for claims is not tried: as many of its namespace wait as may. This is asked first, since a look at all
    /// nodes would be for nothing.
    pub(super) fn lacks_share(&self, pod: &PodInfo, attempt: &Attempt) -> Option<FitError> {
        let Cluster { devices, volumes, .. } = &self.cluster;
        if !self.waiting.shares.is_full(pod.namespace()) {
            return None;
        }
        if devices.concern(pod) && attempt.claims(pod, devices).is_ok_and(|claims| claims.any_named()) {
            return Some(self.no_share(DEVICES));
        }
        let has_open = !pod.claims.is_empty() && attempt.volumes(pod, volumes).is_ok_and(|claims| claims.any_open());
        has_open.then(|| self.no_share(VOLUMES))
    }

    fn no_share(&self, name: &str) -> FitError {
        let reason = format!("{} pods of the namespace wait for their volumes and devices already", self.waiting.shares.each());
        FitError::everywhere(self.cluster.len(), plugin(name), reason.into())
    }

    /// A binding waits no more, whatever became of it: another of its namespace may. Changes of claims do not tell, which come before.
    pub(super) fn leave(&mut self, share: Share) {
        let (was_full, namespace) = (self.waiting.shares.is_full(share.key()), share.key().clone());
        drop(share);
        // Else nobody was refused.
        if was_full {
            self.queue.happened_in(&namespace, &[Event::Volume, Event::Device], "BindingEnded");
        }
    }

    /// Who binds the pod, and how.
    fn binder(&mut self, pod: &Arc<PodInfo>, node: &str, trial: Trial) -> Binder {
        match self.extenders.binder(trial.lane) {
            None => Binder { bind: self.api.binding(pod, node), is_extender: false },
            Some(extender) => Binder { bind: self.api.bind_by(extender, pod, node), is_extender: true },
        }
    }

    /// The devices that the pod's claims get on the node that was chosen for it.
    fn devices_on(&self, pod: &PodInfo, node: &str, attempt: &Attempt) -> Result<Vec<Reservation>, FitError> {
        let known = &self.cluster.devices;
        let Some(node) = self.cluster.node(node).filter(|_| known.concern(pod)) else { return Ok(Vec::new()) };
        let found = attempt.reservations(pod, known, node);
        found.map_err(|reason| FitError::everywhere(self.cluster.len(), plugin(DEVICES), reason.into()))
    }

    /// What the pod's claims need before it can be bound to the node that was chosen for it.
    fn volumes_on(&self, pod: &PodInfo, node: &str, attempt: &Attempt) -> Vec<Step> {
        if pod.claims.is_empty() {
            return Vec::new();
        }
        let (claims, node) = (attempt.volumes(pod, &self.cluster.volumes).ok(), self.cluster.node(node));
        let place = node.map(|node| Place { name: &node.name, labels: &node.labels });
        let steps = claims.zip(place).map(|(claims, place)| self.cluster.volumes.steps(claims, place));
        steps.and_then(Result::ok).unwrap_or_default()
    }
}

/// The place of a plugin in the list.
fn plugin(name: &str) -> usize {
    PLUGINS.iter().position(|plugin| plugin.name() == name).unwrap_or_default()
}
