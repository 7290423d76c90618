//! Room for events that wait to be told. It is counted in bytes: an event may have the bodies of its request and its answer, so that the number
//! of events says nothing of the memory that they take.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of events that wait in one place.
const BYTES: usize = 64 << 20;
/// Bytes that an event takes beside its text.
const BESIDE: usize = 128;

/// Room for so many bytes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Room(Arc<Semaphore>);

/// An event that has room.
pub(super) struct Waiting {
    event: String,
    place: Place,
}

/// Room that an event takes, until this is dropped.
pub(super) struct Place {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BYTES)))
    }

    /// Takes an event that is there until then, and waits for its room.
    pub(super) async fn wait(&self, event: &mut Option<String>) -> Option<Waiting> {
        let bytes = event.as_deref().map_or(0, bytes);
        // It is never closed.
        let permit = self.0.clone().acquire_many_owned(bytes).await.ok();
        event.take().map(|event| Waiting { event, place: Place { _permit: permit } })
    }

    /// Takes an event if there is room; hands it back otherwise.
    pub(super) fn take(&self, event: String) -> Result<Waiting, String> {
        match self.0.clone().try_acquire_many_owned(bytes(&event)) {
            Ok(permit) => Ok(Waiting { event, place: Place { _permit: Some(permit) } }),
            Err(_) => Err(event),
        }
    }
}

impl Waiting {
    /// Bytes of its text.
    pub(super) fn len(&self) -> usize {
        self.event.len()
    }

    /// Its text, and its room, which is to be kept as long as there is any of the text.
    pub(super) fn into_parts(self) -> (String, Place) {
        (self.event, self.place)
    }
}

/// What an event takes. The largest one has room when nothing else waits.
fn bytes(event: &str) -> u32 {
    u32::try_from((event.len() + BESIDE).min(BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    #[test]
    fn the_largest_event_waits_for_all_others_and_no_longer() {
        let room = Room::new();
        let small = room.take("small".to_owned()).unwrap();
        let mut large = Some("x".repeat(2 * BYTES));
        assert!(room.take(large.clone().unwrap()).is_err());
        assert!(room.wait(&mut large).now_or_never().is_none() && large.is_some());
        drop(small);
        assert_eq!(room.wait(&mut large).now_or_never().unwrap().unwrap().len(), 2 * BYTES);
    }
}
