//! What others ask of the manager of pods: which pods there are, and the end of one.

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::pod::state::Evicted;
use crate::spec::Model;

/// Something to ask.
pub enum Request {
    /// The pods that take something of the node.
    Active(oneshot::Sender<Vec<Model>>),
    /// Nothing but an answer.
    Alive(oneshot::Sender<()>),
    /// To end the pod with this UID. The answer is cancelled when nothing of it runs and its volumes are gone.
    Evict(String, Evicted, oneshot::Sender<CancellationToken>),
}

/// What nobody has to wait for.
pub fn cancelled() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
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

    /// Whether somebody answers at all.
    pub async fn is_answered(&self) -> bool {
        let (sender, receiver) = oneshot::channel();
        self.0.send(Request::Alive(sender)).await.is_ok() && receiver.await.is_ok()
    }

    /// Begins the end of a pod. What is returned is cancelled when nothing of it runs and its volumes are gone.
    pub async fn evict(&self, uid: &str, evicted: Evicted) -> CancellationToken {
        let (sender, receiver) = oneshot::channel();
        // Both fail only when nobody answers any more.
        let _ = self.0.send(Request::Evict(uid.to_owned(), evicted, sender)).await;
        receiver.await.unwrap_or_else(|_| cancelled())
    }
}
