//! The memory that large answers share, of all targets.
//!
//! An answer takes its share as it comes, and nobody can hold up others with it: who finds too little left waits a moment for answers that
//! end, and then the largest one gives way. Neither the number of targets that do not end their answers nor how much they have sent keeps
//! an answer that is smaller than theirs from coming.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Error;

/// Shares grow by doubling from this on.
const FIRST: usize = 256 << 10;

/// What large answers take at most at once.
pub(super) struct Pool {
    size: usize,
    /// How long a share waits for others to end.
    patience: Duration,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    taken: usize,
    next: u64,
    holders: HashMap<u64, Holder>,
}

/// An answer that is read.
struct Holder {
    bytes: usize,
    /// It has to give way.
    ended: CancellationToken,
}

/// What one answer has of a pool.
pub(super) struct Share<'a> {
    pool: &'a Pool,
    id: u64,
    ended: CancellationToken,
}

impl Pool {
    /// Of so many bytes, in which a share waits so long for others to end.
    pub(super) fn new(size: usize, patience: Duration) -> Self {
        Self { size, patience, state: Mutex::default(), freed: Notify::new() }
    }

    /// A share of nothing yet.
    pub(super) fn share(&self) -> Share<'_> {
        let (mut state, ended) = (self.state.lock(), CancellationToken::new());
        state.next += 1;
        let id = state.next;
        state.holders.insert(id, Holder { bytes: 0, ended: ended.clone() });
        Share { pool: self, id, ended }
    }
}

impl State {
    /// Makes a share one of so many bytes, if they are there.
    fn take(&mut self, id: u64, bytes: usize, size: usize) -> bool {
        let Some(holder) = self.holders.get_mut(&id) else { return false };
        let more = bytes.saturating_sub(holder.bytes);
        if self.taken + more > size {
            return false;
        }
        holder.bytes += more;
        self.taken += more;
        true
    }

    /// Tells the largest share to give way, of equal ones the newest. None is larger than `bytes`: false.
    fn end_largest(&self, bytes: usize) -> bool {
        let largest =
            self.holders.iter().max_by_key(|(id, holder)| (holder.bytes, **id)).filter(|(_, holder)| holder.bytes > bytes);
        largest.inspect(|(_, holder)| holder.ended.cancel()).is_some()
    }
}

impl Share<'_> {
    /// Waits until the share has to give way.
    pub(super) async fn ended(&self) -> Error {
        self.ended.cancelled().await;
        Error::Crowded
    }

    /// Grows to at least so many bytes.
    ///
    /// # Errors
    /// There is no room, and no larger share that could make some.
    pub(super) async fn grow(&self, bytes: usize) -> Result<(), Error> {
        let bytes = bytes.next_power_of_two().clamp(FIRST.min(self.pool.size), self.pool.size);
        let mut until = Instant::now() + self.pool.patience;
        loop {
            let freed = self.pool.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.pool.state.lock().take(self.id, bytes, self.pool.size) {
                return Ok(());
            }
            tokio::select! {
                () = freed => {}
                why = self.ended() => return Err(why),
                () = tokio::time::sleep_until(until) => {
                    if !self.pool.state.lock().end_largest(bytes) {
                        return Err(Error::Crowded);
                    }
                    until = Instant::now() + self.pool.patience;
                }
            }
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        if let Some(holder) = state.holders.remove(&self.id) {
            state.taken -= holder.bytes;
        }
        drop(state);
        self.pool.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MIB: usize = 1 << 20;

    /// However many targets have filled the pool and do not end, a smaller answer comes after a moment, and a larger one does not.
    #[tokio::test]
    async fn the_largest_gives_way() {
        let pool = Pool::new(64 * MIB, Duration::from_millis(20));
        let check = async |held: &[usize], wanted: usize, expected: Option<usize>| {
            let shares: Vec<Share<'_>> = held.iter().map(|_| pool.share()).collect();
            for (share, bytes) in shares.iter().zip(held) {
                share.grow(bytes * MIB).await.unwrap();
            }
            let mut shares: Vec<Option<Share<'_>>> = shares.into_iter().map(Some).collect();
            let (own, begun) = (pool.share(), Instant::now());
            // Who has to give way does.
            let giving = async {
                let ends = shares.iter().map(|share| Box::pin(share.as_ref().unwrap().ended()));
                let (_, at, _) = futures::future::select_all(ends).await;
                shares[at] = None;
                at
            };
            let grown = async {
                let grown = own.grow(wanted * MIB).await;
                (grown.is_ok(), begun.elapsed() >= pool.patience)
            };
            let (grown, at) = match expected {
                Some(_) => {
                    let (grown, at) = tokio::join!(grown, giving);
                    (grown, Some(at))
                }
                None => (grown.await, None),
            };
            assert_eq!((grown, at), ((at.is_some(), true), expected), "{held:?} {wanted}");
        };
        check(&[32, 32], 16, Some(1)).await;
        check(&[16, 32, 16], 1, Some(1)).await;
        check(&[32, 32], 32, None).await;
        check(&[8; 8], 16, None).await;
        check(&[8, 8, 16, 8, 8, 16], 4, Some(5)).await;
        assert_eq!(pool.state.lock().taken, 0);
    }

    /// An answer waits for one that ends in time, and grows where there is room.
    #[tokio::test]
    async fn shares_of_answers_that_end() {
        let pool = Pool::new(64 * MIB, Duration::from_secs(600));
        let (first, second, third) = (pool.share(), pool.share(), pool.share());
        first.grow(1).await.unwrap();
        assert_eq!(pool.state.lock().taken, FIRST);
        first.grow(20 * MIB).await.unwrap();
        second.grow(32 * MIB).await.unwrap();
        assert_eq!(pool.state.lock().taken, 64 * MIB);
        let mut waits = Box::pin(third.grow(32 * MIB));
        assert!(futures::poll!(&mut waits).is_pending());
        drop(second);
        waits.await.unwrap();
        assert!(!first.ended.is_cancelled());
        // More than there is counts as all.
        drop((first, third));
        pool.share().grow(100 * MIB).await.unwrap();
        assert_eq!(pool.state.lock().taken, 0);
    }
}
