//! Who wants to know of changes, and of which pods they have not been told yet.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::RuntimeEvent;

/// What one reader has still to read: a set, so that a slow one costs one entry per pod.
#[derive(Default)]
struct Pending {
    pods: Mutex<BTreeSet<String>>,
    changed: Notify,
}

/// The readers.
#[derive(Default)]
pub(super) struct Events(Mutex<Vec<Weak<Pending>>>);

impl Events {
    /// Tells every reader of the pod.
    pub(super) fn notify(&self, pod_uid: &str) {
        self.0.lock().retain(|reader| match reader.upgrade() {
            Some(pending) => {
                pending.pods.lock().insert(pod_uid.to_owned());
                pending.changed.notify_one();
                true
            }
            None => false,
        });
    }

    /// Changes from now on.
    pub(super) fn subscribe(&self) -> BoxStream<'static, RuntimeEvent> {
        let pending = Arc::new(Pending::default());
        self.0.lock().push(Arc::downgrade(&pending));
        Box::pin(futures::stream::unfold(pending, |pending| async move {
            loop {
                let next = pending.pods.lock().pop_first();
                if let Some(pod_uid) = next {
                    return Some((RuntimeEvent { pod_uid }, pending));
                }
                pending.changed.notified().await;
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    #[tokio::test]
    async fn a_slow_reader_is_told_of_each_pod_once() {
        let events = Events::default();
        events.notify("before");
        let stream = events.subscribe();
        for pod in ["a", "b", "a", "a"] {
            events.notify(pod);
        }
        let read: Vec<String> = stream.take(2).map(|event| event.pod_uid).collect().await;
        assert_eq!(read, ["a", "b"]);
        events.notify("c");
        assert!(events.0.lock().is_empty(), "a reader that is gone is forgotten");
    }
}
