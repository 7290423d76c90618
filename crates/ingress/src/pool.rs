//! Connections to one endpoint that nobody uses: kept while they may be used again, closed with the endpoint.

use std::time::Duration;

use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;

use crate::body::RequestBody;

/// Connections to one endpoint that nobody uses; those of more are closed.
const IDLE: usize = 64;
/// How long a connection may need to be ready again after an answer: only until its task runs.
const SETTLE: Duration = Duration::from_millis(20);

/// The connections of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    /// Of HTTP/2 there is one for all requests.
    pub(crate) shared: tokio::sync::Mutex<Option<http2::SendRequest<RequestBody>>>,
}

#[derive(Debug, Default)]
struct Idle {
    senders: Vec<http1::SendRequest<RequestBody>>,
    closed: bool,
}

impl Pool {
    /// Closes what is idle, and what becomes idle.
    pub(crate) fn close(&self) {
        let mut idle = self.idle.lock();
        idle.closed = true;
        idle.senders.clear();
        if let Ok(mut shared) = self.shared.try_lock() {
            *shared = None;
        }
    }

    /// Keeps a connection whose answer was whole.
    pub(crate) fn put(&self, sender: http1::SendRequest<RequestBody>) {
        let mut idle = self.idle.lock();
        if idle.senders.len() >= IDLE {
            idle.senders.retain(|sender| !sender.is_closed());
        }
        if !idle.closed && idle.senders.len() < IDLE && !sender.is_closed() {
            idle.senders.push(sender);
        }
    }

    /// The connection that was used last: those that are not needed grow old and are closed by the other side.
    pub(crate) async fn take(&self) -> Option<http1::SendRequest<RequestBody>> {
        loop {
            let mut sender = self.idle.lock().senders.pop()?;
            if sender.is_ready() {
                return Some(sender);
            }
            if !sender.is_closed() && matches!(tokio::time::timeout(SETTLE, sender.ready()).await, Ok(Ok(()))) {
                return Some(sender);
            }
        }
    }
}
