//! A pod's task, from its admission on.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::TellEnd;
use super::room::Leaving;
use crate::affinity;
use crate::context::Context;
use crate::pod::found::{Found, ended};
use crate::pod::state::Rejection;
use crate::pod::worker::{Desired, Worker};
use crate::spec::Model;

/// What a pod's task has.
pub(super) struct Task {
    pub(super) cx: Arc<Context>,
    pub(super) desired: watch::Receiver<Desired>,
    pub(super) runtime_changed: Arc<Notify>,
    /// The pod as it was when the task was made.
    pub(super) model: Model,
    pub(super) _end: TellEnd,
}

impl Task {
    /// Runs until nothing is left of the pod, or the kubelet stops.
    pub(super) async fn run(self, found: Found, admission: Result<Vec<Leaving>, Rejection>) {
        let rejected = match admission {
            Ok(leaving) if self.comes(&found) => {
                let (mut going, token) = (self.desired.clone(), self.cx.tasks.token());
                tokio::select! {
                    admitted = self.settle_in(leaving) => admitted.err(),
                    // Who is deleted meanwhile needs nothing of the node.
                    _ = going.wait_for(|desired| desired.removed || desired.pod.metadata.deletion_timestamp.is_some()) => None,
                    () = token.cancelled() => return,
                }
            }
            admission => admission.err(),
        };
        Worker::new(self.cx, self.desired, self.runtime_changed, found, rejected).await.run().await;
    }

    /// Whether the pod is to run and does not yet: what runs, or will never run again, is not asked for its devices.
    fn comes(&self, found: &Found) -> bool {
        let pod = &self.model.pod;
        found.sandboxes.is_empty() && pod.metadata.deletion_timestamp.is_none() && !pod.status.as_ref().is_some_and(ended)
    }

    /// Waits for those who make room, and takes what the pod has of the node for itself.
    async fn settle_in(&self, leaving: Vec<Leaving>) -> Result<(), Rejection> {
        futures::future::join_all(leaving.into_iter().map(Leaving::gone)).await;
        affinity::admit(&self.cx, &self.model).await
    }
}
