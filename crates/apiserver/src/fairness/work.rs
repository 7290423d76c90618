//! How much work a request is thought to be, before it is done.
//!
//! A list takes a seat for each 100 kB that it has in memory at once, as upstream's; all lists are read from the cache here, and their text is put
//! together while it is sent, so that it is never more than 1 MB. A watch is as wide as the list that it begins with. What is written is
//! sent to all who watch it: as upstream, each ten watchers are thought to be work of five milliseconds. That work is only counted in the
//! virtual time of the flow; upstream also keeps seats for it after the request has been answered, but the sending of an event costs two
//! orders of magnitude less here (it is encoded once), and nobody has to wait for seats that nobody uses.

use super::Seconds;
use super::queues::Work;

/// The most seats of any list.
const WIDEST: u32 = 100;
const BYTES_OF_SEAT: u64 = 100_000;
/// The most bytes that are held for one list at once.
const MOST_BYTES: u64 = 1_000_000;
const WATCHERS_OF_SEAT: u32 = 10;
const EVENT: Seconds = 0.005;

/// What is known of a request beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A list, or a watch that begins with one, of a resource with so many objects and bytes.
    List {
        objects: usize,
        bytes: usize,
        /// The most objects that are wanted; 0 for all.
        limit: u64,
        /// Whether it is about one object by its name.
        single: bool,
    },
    /// A write of what has so many watchers.
    Write {
        watchers: usize,
    },
    Other,
}

/// The work, in a level where one request has at most so many seats.
pub(crate) fn estimate(kind: Kind, widest: u32) -> Work {
    match kind {
        Kind::List { objects, bytes, limit, single } => {
            let size = (bytes as u64).div_ceil(objects.max(1) as u64);
            let wanted = match (single, limit) {
                (true, _) => 1,
                (false, 0) => objects as u64,
                (false, limit) => limit.min(objects as u64),
            };
            let seats = wanted.saturating_mul(size).min(MOST_BYTES).div_ceil(BYTES_OF_SEAT);
            Work { seats: u32::try_from(seats).unwrap_or(WIDEST).clamp(1, widest.clamp(1, WIDEST)), after: 0.0 }
        }
        Kind::Write { watchers } => {
            let watchers = u32::try_from(watchers).unwrap_or(u32::MAX);
            let seats = if watchers < WATCHERS_OF_SEAT { 0 } else { watchers.div_ceil(WATCHERS_OF_SEAT) };
            Work { seats: 1, after: f64::from(seats) * EVENT }
        }
        Kind::Other => Work { seats: 1, after: 0.0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates() {
        let check = |kind: Kind, widest: u32, seats: u32, milliseconds: f64| {
            let work = estimate(kind, widest);
            assert_eq!((work.seats, (work.after * 1e3).round()), (seats, milliseconds), "{kind:?}");
        };
        let list = |objects: usize, bytes: usize, limit: u64| Kind::List { objects, bytes, limit, single: false };
        check(Kind::Other, 10, 1, 0.0);
        check(list(0, 0, 0), 10, 1, 0.0);
        check(list(100, 100_000, 0), 10, 1, 0.0);
        check(list(100, 250_000, 0), 10, 3, 0.0);
        check(list(100, 250_000, 10), 10, 1, 0.0);
        check(list(100, 250_000, 1000), 10, 3, 0.0);
        check(list(100_000, 500_000_000, 0), 100, 10, 0.0);
        check(list(100_000, 500_000_000, 0), 8, 8, 0.0);
        check(Kind::List { objects: 100_000, bytes: 500_000_000, limit: 0, single: true }, 8, 1, 0.0);
        check(Kind::Write { watchers: 9 }, 8, 1, 0.0);
        check(Kind::Write { watchers: 10 }, 8, 1, 5.0);
        check(Kind::Write { watchers: 101 }, 8, 1, 55.0);
    }
}
