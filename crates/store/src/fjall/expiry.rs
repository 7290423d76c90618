//! Deletes what has outlived its time. Sleeps until the next expiry; an idle store wakes nobody.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::writer::{Request, now};
use crate::{Change, Error, Expect, Lane, Revision, Write};

/// Deletions in flight.
const BATCH: usize = 64;

/// How long to leave a full disk alone.
const BACKOFF: Duration = Duration::from_secs(1);

/// Runs until the engine is closed.
pub(super) async fn run(shared: Arc<Shared>, queue: mpsc::WeakSender<Request>) -> Result<(), Error> {
    // Nothing that exists expires before: the search starts past what was deleted already.
    let mut floor = 0;
    loop {
        floor = shared.take_expiry().min(floor);
        let next = match shared.read(|database| database.expiries(floor, BATCH)) {
            Ok(next) => next,
            Err(_) if !shared.is_open() => return Ok(()),
            Err(error) => {
                // Descriptors may be short for a moment; what has outlived its time must not stay because of it.
                tracing::warn!(%error, "what expires cannot be read");
                tokio::time::sleep(BACKOFF).await;
                continue;
            }
        };
        let at = next.first().map_or(u64::MAX, |(expires, ..)| *expires);
        let Some(queue) = queue.upgrade().filter(|queue| !queue.is_closed()) else { return Ok(()) };
        if at > now() {
            drop(queue);
            shared.expect_expiry(at);
            // Woken early when a shorter life begins; the loop looks again in any case.
            let _ = tokio::time::timeout(until(at), shared.expiry.notified()).await;
        } else if expire(&queue, &next).await {
            tokio::time::sleep(BACKOFF).await;
        } else {
            floor = at;
        }
    }
}

/// How long until then. A year is long enough for a timer.
fn until(at: u64) -> Duration {
    Duration::from_millis(at.saturating_sub(now())).min(Duration::from_secs(365 * 86_400))
}

fn due(expires: &u64) -> bool {
    *expires <= now()
}

/// Deletes what is due, unless it was written again meanwhile. True when a deletion must be tried again.
async fn expire(queue: &mpsc::Sender<Request>, records: &[(u64, bytes::Bytes, Revision)]) -> bool {
    let deletions = records.iter().filter(|(expires, ..)| due(expires)).map(|(_, key, revision)| {
        let write = Write::new(key.clone(), Expect::At(*revision), Change::Delete, Lane::Ephemeral);
        submit(queue, write)
    });
    join_all(deletions).await.iter().any(|result| !matches!(result, Ok(_) | Err(Error::Conflict(_))))
}

/// Queues a write and waits for its answer.
pub(super) async fn submit(queue: &mpsc::Sender<Request>, write: Write) -> Result<Revision, Error> {
    let (answer, result) = oneshot::channel();
    queue.send(Request::Commit(write, answer)).await.map_err(|_| super::closed())?;
    result.await.map_err(|_| super::closed())?
}
