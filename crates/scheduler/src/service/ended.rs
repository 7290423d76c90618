//! What becomes of a write that has ended: a pod is bound, or is tried again.

use client::Key;
use client::events::Type;
use k8s_openapi::api::resource::v1::ResourceClaim;
use tokio::time::Instant;

use super::Scheduler;
use crate::api::{BindError, SCHEDULER_ERROR, Written};
use crate::binding::CalledOff;
use crate::framework::Event;
use crate::metrics::Outcome;
use crate::pod::PodInfo;
use crate::queue::Trial;

impl Scheduler {
    pub(super) fn written(&mut self, written: Written) {
        let (pod, node, trial, result) = match written {
            Written::Bound { pod, node, trial, claims, share, by_extender, result } => {
                self.waiting.bindings.remove(pod.uid());
                self.reserved(&pod, &claims);
                if let Some(share) = share {
                    self.leave(share);
                }
                if by_extender {
                    self.extenders.bound();
                    let waits = self.queue.get(&pod.key()).is_some_and(|tried| tried.uid() == pod.uid());
                    // What an extender says is true when the API shows it.
                    if waits && result.is_ok() {
                        return self.extenders.said(pod, node, trial);
                    }
                }
                (pod, node, trial, result)
            }
            Written::Evicted { victim, result: Err(error) } => {
                tracing::warn!(pod = %victim.key(), error = client::why(&error), "a pod cannot be preempted, looking again");
                return self.queue.happened(Event::PodRemoved, "PreemptionFailed");
            }
            Written::Deallocated { result: Ok(()), .. } => return,
            Written::Deallocated { pod, result: Err(error) } => {
                tracing::warn!(pod = %pod.key(), error = client::why(&error), "a claim keeps its devices, looking again");
                return self.queue.happened(Event::Device, "ResourceClaimUpdate");
            }
            Written::Discarded { pod, result } => {
                if let Err(error) = result {
                    tracing::warn!(pod = %pod.key(), %error, "a claim of an attempt that failed cannot be deleted, looking again");
                }
                self.cluster.devices.discarding.remove(pod.uid());
                return self.queue.happened(Event::Device, "ResourceClaimUpdate");
            }
            Written::Evicted { .. } | Written::Reported => return,
        };
        match result {
            Ok(()) => {
                self.bound(&pod, &node, trial);
                // Another of the same name may have come since.
                if self.queue.get(&pod.key()).is_some_and(|tried| tried.uid() == pod.uid()) {
                    self.queue.remove(&pod.key());
                }
            }
            Err(error) => self.binding_failed(&pod, &node, trial, &error),
        }
    }

    pub(super) fn bound(&self, pod: &PodInfo, node: &str, trial: Trial) {
        self.metrics.attempted(pod.scheduler(), Outcome::Scheduled, trial);
        let message = format!("Successfully assigned {} to {node}", pod.key());
        self.tell(pod, pod, (Type::Normal, "Scheduled"), message);
    }

    pub(super) fn binding_failed(&mut self, pod: &PodInfo, node: &str, trial: Trial, error: &BindError) {
        if matches!(error, BindError::CalledOff(CalledOff::Gone)) {
            // Nothing has failed: nobody wants it bound.
            tracing::debug!(pod = %pod.key(), node, "the pod is gone, it waits for nothing more");
            return;
        }
        self.metrics.attempted(pod.scheduler(), Outcome::Error, trial);
        let Some(tried) = self.queue.get(&pod.key()).filter(|tried| tried.uid() == pod.uid()).cloned() else {
            // It was bound all the same and only the answer was lost, or it is gone: its change has come before, and where it is, or
            // that it is nowhere, is known from there.
            tracing::info!(pod = %pod.key(), node, %error, "binding failed, and the pod needs none any more");
            return;
        };
        tracing::warn!(pod = %pod.key(), node, %error, "binding failed, again later");
        let message = format!("binding rejected: {error}");
        self.tell(pod, pod, (Type::Warning, "FailedScheduling"), message.as_str());
        // Where the pod waited, its status names the node, and what is queued is older than that.
        let version = |pod: &PodInfo| pod.object().map(client::resource_version::of);
        let latest: &PodInfo = if version(pod) > version(&tried) { pod } else { &tried };
        self.writes.extend(self.api.report(latest, SCHEDULER_ERROR, message, None));
        self.cluster.remove_pod(pod.uid());
        self.queue.failed(&pod.key(), 0, Instant::now());
        self.queue.moved(Event::PodRemoved, pod, self.cluster.namespaces(), super::causes::POD[2]);
    }

    /// The claims for devices have been written for a pod, or not.
    fn reserved(&mut self, pod: &PodInfo, written: &[ResourceClaim]) {
        let Some(reserving) = self.reserving.remove(pod.uid()) else { return };
        let devices = &mut self.cluster.devices;
        for one in reserving.iter().filter(|one| one.allocation.is_some()) {
            let latest = written.iter().find(|claim| one.led_to(claim, pod.uid()));
            let latest = latest.or((!one.is_new()).then_some(one.claim.as_ref()));
            let cached = latest.and_then(|latest| devices.claims.by_key(&Key::of(latest)));
            let cached = cached.filter(|cached| latest.is_some_and(|latest| latest.metadata.uid == cached.metadata.uid));
            let newest = latest.into_iter().chain(cached.as_deref()).max_by_key(|claim| client::resource_version::of(*claim));
            devices.ledger.settle(one.id(), newest);
        }
        self.queue.happened(Event::Device, "ResourceClaimUpdate");
    }
}
