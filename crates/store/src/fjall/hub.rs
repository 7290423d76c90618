//! Who hears of commits: sinks and watchers, in order, before the commit is acknowledged.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{Error, Event, Revision, Sink};

/// Events that a watcher may be behind before it is ended.
const BACKLOG: usize = 4096;

#[derive(Default)]
struct State {
    revision: Revision,
    sinks: Vec<Arc<dyn Sink>>,
    watchers: Vec<Watcher>,
}

struct Watcher {
    prefix: Bytes,
    events: mpsc::Sender<Event>,
}

/// The subscribers of an engine.
#[derive(Default)]
pub(super) struct Hub(Mutex<State>);

impl Hub {
    /// The revision of the last published commit.
    pub(super) fn revision(&self) -> Revision {
        self.0.lock().revision
    }

    /// Hands a batch to everybody. A watcher with a full backlog is ended: it never holds up the writer.
    pub(super) fn publish(&self, events: &[Event], revision: Revision) {
        let mut state = self.0.lock();
        for sink in &state.sinks {
            sink.apply(events);
        }
        state.watchers.retain(|watcher| {
            let mut wanted = events.iter().filter(|event| event.key.starts_with(&watcher.prefix));
            !watcher.events.is_closed() && wanted.all(|event| watcher.events.try_send(event.clone()).is_ok())
        });
        state.revision = revision;
    }

    /// Adds a sink for everything after the returned revision.
    pub(super) fn subscribe(&self, sink: Arc<dyn Sink>) -> Revision {
        let mut state = self.0.lock();
        state.sinks.push(sink);
        state.revision
    }

    /// Adds a watcher for everything after the returned revision, which is not before `after`.
    pub(super) fn watch(&self, prefix: Bytes, after: Revision) -> Result<(Revision, mpsc::Receiver<Event>), Error> {
        let mut state = self.0.lock();
        if after > state.revision {
            return Err(Error::Future(state.revision));
        }
        let (events, receiver) = mpsc::channel(BACKLOG);
        state.watchers.push(Watcher { prefix, events });
        Ok((state.revision, receiver))
    }

    /// Ends every watcher.
    pub(super) fn close(&self) {
        self.0.lock().watchers.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Lane;

    fn event(revision: Revision, key: &'static str) -> Event {
        Event { revision, key: key.into(), value: None, previous: None, lane: Lane::Durable, note: None }
    }

    #[test]
    fn a_watcher_sees_its_prefix_until_its_backlog_is_full() {
        let hub = Hub::default();
        let (from, mut events) = hub.watch("/a/".into(), 0).unwrap();
        assert_eq!(from, 0);
        hub.publish(&[event(1, "/a/x"), event(2, "/b/x")], 2);
        assert_eq!(hub.watch("/a/".into(), 3).err(), Some(Error::Future(2)));
        let mut revision = 2;
        for _ in 0..BACKLOG {
            revision += 1;
            hub.publish(&[event(revision, "/a/x")], revision);
        }
        let seen: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).map(|event| event.revision).collect();
        let expected: Vec<_> = std::iter::once(1).chain(3..).take(BACKLOG).collect();
        assert_eq!(seen, expected);
        assert_eq!(events.try_recv().err(), Some(mpsc::error::TryRecvError::Disconnected));
    }
}
