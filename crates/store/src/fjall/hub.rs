//! Who hears of commits: sinks, in order, before the commit is acknowledged; and readers, who wait for them.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Error, Event, Revision, Sink};

/// The subscribers of an engine.
pub(super) struct Hub {
    sinks: Mutex<Vec<Arc<dyn Sink>>>,
    published: watch::Sender<Published>,
}

/// What every sink has seen.
#[derive(Clone, Copy, Debug, Default)]
struct Published {
    revision: Revision,
    /// Nothing more comes.
    closed: bool,
}

impl Hub {
    pub(super) fn new(revision: Revision) -> Self {
        Self { sinks: Mutex::default(), published: watch::Sender::new(Published { revision, closed: false }) }
    }

    /// The revision of the last published commit.
    pub(super) fn revision(&self) -> Revision {
        self.published.borrow().revision
    }

    /// Hands a batch to every sink.
    pub(super) fn publish(&self, events: &[Event], revision: Revision) {
        let sinks = self.sinks.lock();
        for sink in sinks.iter() {
            sink.apply(events);
        }
        // Still under the lock: who subscribes gets the revision of the batch that it did not get.
        self.published.send_modify(|published| published.revision = revision);
    }

    /// Adds a sink for everything after the returned revision.
    pub(super) fn subscribe(&self, sink: Arc<dyn Sink>) -> Revision {
        let mut sinks = self.sinks.lock();
        sinks.push(sink);
        self.revision()
    }

    /// Waits until everything up to `revision` is published. An error when that never happens.
    pub(super) async fn reached(&self, revision: Revision) -> Result<(), Error> {
        if self.revision() >= revision {
            return Ok(());
        }
        let mut published = self.published.subscribe();
        let reached = published.wait_for(|published| published.revision >= revision || published.closed).await;
        if reached.is_ok_and(|published| published.revision >= revision) { Ok(()) } else { Err(super::closed()) }
    }

    /// Lets nobody wait any more.
    pub(super) fn close(&self) {
        self.published.send_modify(|published| published.closed = true);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    #[test]
    fn readers_wait_for_what_is_published_and_not_for_ever() {
        let hub = Hub::new(7);
        assert_eq!(hub.reached(7).now_or_never(), Some(Ok(())));
        let (mut eight, mut nine) = (Box::pin(hub.reached(8)), Box::pin(hub.reached(9)));
        assert_eq!(eight.as_mut().now_or_never(), None);
        assert_eq!(nine.as_mut().now_or_never(), None);
        hub.publish(&[], 8);
        assert_eq!(eight.now_or_never(), Some(Ok(())));
        assert_eq!(nine.as_mut().now_or_never(), None);
        hub.close();
        assert_eq!(nine.now_or_never(), Some(Err(super::super::closed())));
        assert_eq!(hub.reached(8).now_or_never(), Some(Ok(())));
    }
}
