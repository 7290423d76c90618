//! Room on a node: made for a pod by the end of less important ones, promised to it, and given up.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::events::Type;

use super::{Scheduler, causes};
use crate::binding::{CallOff, CalledOff};
use crate::nominations::GivenUp;
use crate::pod::PodInfo;
use crate::preemption::Preemption;

impl Scheduler {
    /// Has the victims go and promises their node to the pod. Promises that hold no more are given back.
    pub(super) fn make_room(&mut self, pod: &Arc<PodInfo>, Preemption { node, victims, .. }: Preemption) -> Vec<GivenUp> {
        tracing::info!(pod = %pod.key(), node, victims = victims.len(), "preempting less important pods");
        self.metrics.preempted(victims.len());
        for victim in victims.iter().filter(|victim| !victim.is_ending) {
            let text = format!("Preempted by pod {} on node {node}", pod.uid());
            let told = (Type::Normal, "Preempted");
            // It goes back to the queue, which leaves the room as well, and nobody loses a pod.
            match self.waiting.bindings.get(victim.uid()).map(|binding| binding.call_off(CalledOff::Preempted)) {
                Some(CallOff::Ends) => {
                    self.tell(pod, victim, told, text + " (in kube-scheduler memory).");
                    // Nobody needs another's room before it has left.
                    if self.cluster.node_of(victim.uid()) == Some(node.as_str()) {
                        self.cluster.place(Arc::new(victim.leaving()), &node);
                    }
                    continue;
                }
                Some(CallOff::EndsAlready) => continue,
                Some(CallOff::IsWritten) | None => self.tell(pod, victim, told, text),
            }
            let why = format!("{}: preempting to accommodate a higher priority pod", pod.scheduler());
            self.writes.push(self.api.evict(victim.clone(), why));
        }
        // Less important pods that wait for this node's room must look elsewhere.
        let waiting = self.cluster.nominations.on(&node).iter();
        let overtaken: Vec<Arc<PodInfo>> = waiting.filter(|other| other.priority < pod.priority).cloned().collect();
        let mut given_up = Vec::new();
        for other in overtaken {
            given_up.extend(self.cluster.nominations.withdraw(other.uid()));
            self.writes.push(self.api.withdraw(&other));
        }
        given_up.extend(self.cluster.nominations.set(pod.clone(), &node));
        given_up
    }

    /// Pods are promised a node no more: whoever was kept from their room may have it, but for those whose pod has come there itself.
    pub(super) fn given_up(&mut self, promises: impl IntoIterator<Item = GivenUp>) {
        for GivenUp { pod, node } in promises {
            if self.cluster.node_of(pod.uid()) != Some(node.as_str()) {
                self.queue.given_up(&pod, self.cluster.namespaces(), causes::POD[2]);
            }
        }
    }
}
