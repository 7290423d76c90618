//! A pod's task, from its admission on.

use std::sync::Arc;

use tokio::sync::{Notify, oneshot, watch};

use super::TellEnd;
use super::room::{Admission, Leaving};
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
    /// Tells whether the pod may run here, as soon as that is known.
    pub(super) admission: oneshot::Receiver<Admission>,
    pub(super) _end: TellEnd,
}

impl Task {
    /// Runs until nothing is left of the pod, or the kubelet stops.
    pub(super) async fn run(self, found: Found) {
        let Self { cx, desired, runtime_changed, model, admission, _end } = self;
        let (mut going, token) = (desired.clone(), cx.tasks.token());
        let comes = comes(&model, &found);
        let admitted = async {
            // Nobody decides any more: the kubelet stops.
            let Ok(admission) = admission.await else { return std::future::pending().await };
            let leaving = admission?;
            if comes { settle_in(&cx, &model, &desired, leaving).await } else { Ok(()) }
        };
        let rejected = tokio::select! {
            biased;
            admitted = admitted => admitted.err(),
            // Who is deleted meanwhile needs nothing of the node.
            _ = going.wait_for(|desired| desired.removed || desired.pod.metadata.deletion_timestamp.is_some()) => None,
            () = token.cancelled() => return,
        };
        Worker::new(cx, desired, runtime_changed, found, rejected).await.run().await;
    }
}

/// Whether the pod is to run and does not yet: what runs, or will never run again, is not asked for its devices.
fn comes(model: &Model, found: &Found) -> bool {
    let pod = &model.pod;
    found.sandboxes.is_empty() && pod.metadata.deletion_timestamp.is_none() && !pod.status.as_ref().is_some_and(ended)
}

/// Waits for those who make room, and takes what the pod has of the node for itself.
async fn settle_in(
    cx: &Arc<Context>,
    model: &Model,
    desired: &watch::Receiver<Desired>,
    leaving: Vec<Leaving>,
) -> Result<(), Rejection> {
    futures::future::join_all(leaving.into_iter().map(Leaving::gone)).await;
    // It may have waited for its admission, and ask for something else by now.
    let newest = model.renewed(desired.borrow().pod.clone());
    affinity::admit(cx, &newest).await
}
