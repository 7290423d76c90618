//! What the API says of the Node when a pod does not fit the object that this node has seen (upstream: `getNodeSync`). The manager goes on meanwhile,
//! and the pods that wait share an answer: anybody can make pods that fit no node, as many as they like.

use std::sync::Arc;
use std::time::Duration;

use client::Api;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use tokio::sync::oneshot;

use super::room::Admission;
use super::{Manager, goes, uid};
use crate::spec::Model;

/// How long the API has to answer before it is asked again.
const ANSWER: Duration = Duration::from_secs(5);
/// Delay before it is asked again after a failure, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A pod whose admission waits for the answer.
pub(super) struct Undecided {
    decision: oneshot::Sender<Admission>,
    /// How many questions had been begun when it came: the Node as it was before is not the newest for this pod.
    since: u64,
}

/// Questions for the Node object, one at a time.
#[derive(Default)]
pub(super) struct Asking {
    /// How many have been begun.
    begun: u64,
    question: Option<BoxFuture<'static, Option<Node>>>,
    /// Delay of the next one.
    delay: Duration,
    /// The last answer.
    pub(super) node: Option<Arc<Node>>,
}

impl Asking {
    /// The answer to the question that is under way, none after a failure. Safe to drop and call again.
    pub(super) async fn told(&mut self) -> Option<Node> {
        match &mut self.question {
            Some(question) => question.await,
            None => std::future::pending().await,
        }
    }

    fn ask(&mut self, client: kube::Client, name: String) {
        if self.question.is_some() {
            return;
        }
        self.begun += 1;
        let (api, delay) = (Api::<Node>::all(client), self.delay);
        let question = async move {
            tokio::time::sleep(delay).await;
            match tokio::time::timeout(ANSWER, api.get(&name)).await {
                Ok(Ok(node)) => return Some(node),
                Ok(Err(error)) => {
                    tracing::warn!(error = client::why(&error), "the API does not say what the Node is, trying again")
                }
                Err(_) => tracing::warn!("the API has not said in time what the Node is, trying again"),
            }
            None
        };
        self.question = Some(question.boxed());
    }

    /// Takes in an answer, or that there was none.
    fn take(&mut self, told: Option<Node>) -> bool {
        self.question = None;
        self.delay = if told.is_some() { Duration::ZERO } else { (self.delay * 2).clamp(RETRY.0, RETRY.1) };
        let is_told = told.is_some();
        self.node = told.map(Arc::new).or(self.node.take());
        is_told
    }
}

impl Manager {
    /// Asks the API about a pod, whose admission is decided with the answer.
    pub(super) fn doubt(&mut self, decision: oneshot::Sender<Admission>) -> Undecided {
        let since = self.asking.begun;
        self.asking.ask(self.cx.options.client.clone(), self.cx.options.node_name.clone());
        Undecided { decision, since }
    }

    /// Decides on the pods that were here when the API was asked, in the order of their creation, and asks again for the others.
    pub(super) fn node_told(&mut self, told: Option<Node>) {
        if self.asking.take(told) {
            let begun = self.asking.begun;
            let waits = self.handles.values().filter(|handle| handle.undecided.as_ref().is_some_and(|one| one.since < begun));
            let mut pods: Vec<_> = waits.map(|handle| handle.desired.borrow().pod.clone()).collect();
            pods.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
            for pod in pods {
                // Who goes needs nothing of the node.
                let admission = if goes(&pod) { Ok(Vec::new()) } else { self.judge(&Model::new(pod.clone())).0 };
                self.decide(uid(&pod), admission);
            }
        }
        if self.handles.values().any(|handle| handle.undecided.is_some()) {
            self.asking.ask(self.cx.options.client.clone(), self.cx.options.node_name.clone());
        }
    }

    fn decide(&mut self, uid: &str, admission: Admission) {
        let Some(handle) = self.handles.get_mut(uid) else { return };
        handle.rejected = admission.as_ref().err().cloned();
        if let Some(undecided) = handle.undecided.take() {
            // A pod that was deleted meanwhile has not waited for it.
            let _ = undecided.decision.send(admission);
        }
    }
}
