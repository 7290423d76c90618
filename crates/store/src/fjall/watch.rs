//! A watch: history first, then live events, without gap or duplicate.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;

use super::Shared;
use crate::{Error, Event, Revision};

/// Events that are read from history at once.
const CHUNK: usize = 256;

struct Watch {
    shared: Arc<Shared>,
    prefix: Bytes,
    /// History up to here is handed out or pending.
    position: Revision,
    /// Where live events begin.
    upto: Revision,
    pending: VecDeque<Event>,
    live: mpsc::Receiver<Event>,
}

/// Opens a watch.
pub(super) fn open(shared: &Arc<Shared>, prefix: &[u8], after: Revision) -> Result<BoxStream<'static, Event>, Error> {
    let prefix = Bytes::copy_from_slice(prefix);
    let (upto, live) = shared.hub.watch(prefix.clone(), after)?;
    let oldest = shared.compacted();
    if after < oldest {
        return Err(Error::Compacted(oldest));
    }
    let watch = Watch { shared: shared.clone(), prefix, position: after, upto, pending: VecDeque::new(), live };
    Ok(stream::unfold(watch, |mut watch| async move { Some((watch.next().await?, watch)) }).boxed())
}

impl Watch {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.position >= self.upto {
                return self.live.recv().await;
            }
            if let Err(error) = self.replay().await {
                tracing::info!(%error, prefix = ?self.prefix, "a watch ends in its replay");
                return None;
            }
        }
    }

    async fn replay(&mut self) -> Result<(), Error> {
        let (shared, prefix, position, upto) = (self.shared.clone(), self.prefix.clone(), self.position, self.upto);
        let read = move || shared.read(|database| database.history(&prefix, position, upto, CHUNK));
        let chunk = tokio::task::spawn_blocking(read).await.map_err(|error| Error::Failed(error.to_string()))?;
        // Compaction may have overtaken the read: then the chunk has gaps.
        let oldest = self.shared.compacted();
        if position < oldest {
            return Err(Error::Compacted(oldest));
        }
        let chunk = chunk?;
        self.position = chunk.position;
        self.pending = chunk.events.into();
        Ok(())
    }
}
