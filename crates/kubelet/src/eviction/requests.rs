//! What the eviction manager asks of the manager of pods.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::spec::Model;

/// The end of a pod that the node cannot keep.
#[derive(Clone, Debug)]
pub struct Eviction {
    /// For its status and an event.
    pub message: String,
    /// Longest time that it has to end.
    pub grace: Duration,
    /// Cancelled when nothing of it runs and its volumes are gone.
    pub done: CancellationToken,
}

/// Something to ask.
pub enum Request {
    /// The pods that take something of the node.
    Active(oneshot::Sender<Vec<Model>>),
    /// To end the pod with this UID.
    Evict(String, Arc<Eviction>),
}

/// Where to ask.
#[derive(Clone)]
pub struct Requests(mpsc::Sender<Request>);

impl Requests {
    /// The two ends.
    pub fn channel() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(4);
        (Self(sender), receiver)
    }

    /// The pods that take something of the node; none when the kubelet stops.
    pub async fn active(&self) -> Vec<Model> {
        let (sender, receiver) = oneshot::channel();
        // Both fail only when nobody answers any more.
        let _ = self.0.send(Request::Active(sender)).await;
        receiver.await.unwrap_or_default()
    }

    /// Begins the end of a pod.
    pub async fn evict(&self, uid: &str, message: String, grace: Duration) -> Arc<Eviction> {
        let eviction = Arc::new(Eviction { message, grace, done: CancellationToken::new() });
        if self.0.send(Request::Evict(uid.to_owned(), eviction.clone())).await.is_err() {
            eviction.done.cancel();
        }
        eviction
    }
}
