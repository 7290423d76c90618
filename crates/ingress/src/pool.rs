//! Connections to one endpoint that nobody uses: kept while they may be used again, closed with the endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::budgets::shares::{Share, Shares};
use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;

use crate::body::RequestBody;

/// Connections to one endpoint that nobody uses; those of more are closed.
const IDLE: usize = 64;
/// How long a connection may need to be ready again after an answer: only until its task runs.
const SETTLE: Duration = Duration::from_millis(20);

/// A connection's place among those that nobody uses and that are kept. Its task frees it when the other side has closed the connection:
/// what is closed is found only when somebody looks for a connection.
#[derive(Clone, Debug)]
pub(crate) struct Keep {
    all: Shares<()>,
    held: Arc<Mutex<Option<Share<()>>>>,
}

impl Keep {
    /// Not kept yet. `all` has a place for each that may be.
    pub(crate) fn new(all: Shares<()>) -> Self {
        Self { all, held: Arc::default() }
    }

    /// Takes a place. Whether there is one.
    pub(crate) fn take(&self) -> bool {
        let place = self.all.take(&());
        let is_there = place.is_some();
        *self.held.lock() = place;
        is_there
    }

    /// Frees the place.
    pub(crate) fn free(&self) {
        *self.held.lock() = None;
    }
}

/// A connection of HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Single {
    pub(crate) sender: http1::SendRequest<RequestBody>,
    pub(crate) keep: Keep,
}

/// Most requests under way on a connection of HTTP/2: what its window has room for.
pub(crate) const STREAMS: u32 = 100;

/// A connection of HTTP/2, for several requests.
#[derive(Clone, Debug)]
pub(crate) struct Several {
    pub(crate) sender: http2::SendRequest<RequestBody>,
    pub(crate) keep: Keep,
    pub(crate) streams: Arc<Streams>,
}

/// The requests under way on a connection of HTTP/2.
#[derive(Debug)]
pub(crate) struct Streams {
    open: AtomicUsize,
    /// As many as the other side takes.
    most: AtomicUsize,
}

impl Streams {
    /// One, until the other side says how many it takes.
    pub(crate) fn new() -> Self {
        Self { open: AtomicUsize::new(0), most: AtomicUsize::new(1) }
    }

    /// The other side takes so many.
    pub(crate) fn allow(&self, most: usize) {
        self.most.store(most.min(STREAMS as usize), Ordering::Relaxed);
    }

    fn is_idle(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// A place for one more, if there is one.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Stream> {
        let most = self.most.load(Ordering::Relaxed);
        let more = |open: usize| (open < most).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Stream(self.clone()))
    }
}

/// A request's place on a connection.
#[derive(Debug)]
pub(crate) struct Stream(Arc<Streams>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    /// Those of HTTP/2. Most endpoints have one: another is made when those that are there have all the requests that they take.
    pub(crate) shared: tokio::sync::Mutex<Vec<Several>>,
}

/// A connection that has room for one more request. Of those that nobody uses, one is kept.
pub(crate) fn with_room(shared: &mut Vec<Several>) -> Option<(Several, Stream)> {
    let mut idle = 0;
    shared.retain(|one| {
        idle += usize::from(one.streams.is_idle());
        !one.sender.is_closed() && (idle <= 1 || !one.streams.is_idle())
    });
    shared.iter().find_map(|one| Some((one.clone(), one.streams.enter()?)))
}

#[derive(Debug, Default)]
struct Idle {
    senders: Vec<Single>,
    closed: bool,
}

impl Pool {
    /// Closes what is idle, and what becomes idle.
    pub(crate) fn close(&self) {
        let mut idle = self.idle.lock();
        idle.closed = true;
        idle.senders.drain(..).for_each(|single| single.keep.free());
        if let Ok(mut shared) = self.shared.try_lock() {
            shared.clear();
        }
    }

    /// Keeps a connection whose answer was whole, if there is room.
    pub(crate) fn put(&self, single: Single) {
        let mut idle = self.idle.lock();
        if idle.senders.len() >= IDLE {
            idle.senders.retain(|single| !single.sender.is_closed());
        }
        if idle.closed || idle.senders.len() >= IDLE || !single.keep.take() {
            return;
        }
        // Looked at after the place was taken: its task frees that at the connection's end, and may have been before us.
        if single.sender.is_closed() {
            single.keep.free();
        } else {
            idle.senders.push(single);
        }
    }

    /// The connection that was used last: those that are not needed grow old and are closed by the other side.
    pub(crate) async fn take(&self) -> Option<Single> {
        loop {
            let mut single = self.idle.lock().senders.pop()?;
            single.keep.free();
            let sender = &mut single.sender;
            if sender.is_ready() {
                return Some(single);
            }
            if !sender.is_closed() && matches!(tokio::time::timeout(SETTLE, sender.ready()).await, Ok(Ok(()))) {
                return Some(single);
            }
        }
    }
}
