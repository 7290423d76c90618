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
    /// To end the pod with this UID.
    Evict(String, Evicted, oneshot::Sender<End>),
}

/// What tells of a pod's end.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// Cancelled when nothing of the pod runs any more and its volumes are gone.
    pub settled: CancellationToken,
    /// Cancelled when, in addition, the API has its final status.
    pub told: CancellationToken,
}

impl End {
    /// That of a pod that is gone: nobody has to wait for it.
    pub fn over() -> Self {
        let end = Self::default();
        end.settled.cancel();
        end.told.cancel();
        end
    }
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

    /// Begins the end of a pod, of which what is returned tells.
    pub async fn evict(&self, uid: &str, evicted: Evicted) -> End {
        let (sender, receiver) = oneshot::channel();
        // Both fail only when nobody answers any more.
        let _ = self.0.send(Request::Evict(uid.to_owned(), evicted, sender)).await;
        receiver.await.unwrap_or_else(|_| End::over())
    }
}
