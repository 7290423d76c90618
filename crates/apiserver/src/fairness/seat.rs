//! Requests in their levels: who enters gets a [`Seat`], and leaves when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use http::{HeaderValue, Uri};
use parking_lot::Mutex;
use registry::User;
use tokio::sync::{Notify, oneshot};

use super::config::LevelConfig;
use super::demand::{Demand, Found};
use super::dropped::Dropped;
pub(crate) use super::queues::SENDING;
use super::queues::{self, Entered, Left, Queues};
use super::rules::{Distinguisher, Rules};
use super::shares::Bounds;
use super::stats::{Stats, Timing};
use super::work::{self, Kind};
use super::{Seconds, now};

/// A flow schema, compiled.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) name: String,
    /// UIDs of the schema and of its level, as the headers of an answer tell them.
    pub(crate) uid: HeaderValue,
    pub(crate) level_uid: HeaderValue,
    pub(crate) level: Arc<Level>,
    pub(crate) rules: Rules,
    pub(crate) distinguisher: Distinguisher,
    /// The most seats of one request.
    pub(crate) widest: u32,
    /// They outlive changes of the schema.
    pub(crate) stats: Arc<Mutex<Stats>>,
}

/// A priority level. It lives as long as it has requests.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) name: String,
    /// What is exempt is only counted.
    pub(crate) exempt: Option<Exempt>,
    pub(crate) state: Mutex<State>,
    /// Its object is gone: it goes, too, when its last request has left.
    pub(crate) quiescing: AtomicBool,
    /// Told of that.
    emptied: Arc<Notify>,
}

/// Requests of the exempt level.
#[derive(Debug, Default)]
pub(crate) struct Exempt {
    pub(crate) executing: AtomicU32,
    most: AtomicU32,
}

impl Exempt {
    /// The most at once since this was asked last.
    pub(crate) fn take(&self) -> Found {
        let now = self.executing.load(Ordering::Relaxed);
        Found { most: f64::from(self.most.swap(now, Ordering::Relaxed).max(now)), ..Found::default() }
    }
}

/// What changes in a level.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: LevelConfig,
    pub(crate) bounds: Bounds,
    pub(crate) queues: Queues<Guest>,
    pub(crate) demand: Demand,
    pub(crate) target: f64,
    pub(crate) dropped: Dropped,
    pub(crate) use_of: Use,
}

/// How much of it is in use, over time.
#[derive(Debug)]
pub(crate) struct Use {
    pub(crate) seats: Timing,
    pub(crate) executing: Timing,
    pub(crate) waiting: Timing,
    pub(crate) demand: Timing,
}

const SEAT_USE: [f64; 13] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
const REQUEST_USE: [f64; 10] = [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0];
const DEMANDS: [f64; 12] = [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0];

impl State {
    fn new(now: Seconds) -> Self {
        Self {
            config: LevelConfig::default(),
            bounds: Bounds::default(),
            queues: Queues::new(now),
            demand: Demand::default(),
            target: 0.0,
            dropped: Dropped::default(),
            use_of: Use {
                seats: Timing::new(&SEAT_USE, now),
                executing: Timing::new(&REQUEST_USE, now),
                waiting: Timing::new(&REQUEST_USE, now),
                demand: Timing::new(&DEMANDS, now),
            },
        }
    }

    /// After each change.
    fn note_use(&mut self, now: Seconds) {
        let (counts, limit) = (self.queues.counts(), f64::from(self.queues.limit()));
        self.use_of.seats.set(now, f64::from(counts.seats), limit);
        self.use_of.executing.set(now, counts.executing as f64, limit);
        self.use_of.waiting.set(now, counts.waiting as f64, self.queues.room() as f64);
        self.use_of.demand.set(now, f64::from(counts.seats + counts.seats_waiting), limit);
    }
}

impl Level {
    pub(crate) fn new(name: &str, config: &LevelConfig, emptied: Arc<Notify>) -> Self {
        Self {
            name: name.to_owned(),
            exempt: config.exempt.then(Exempt::default),
            state: Mutex::new(State::new(now())),
            quiescing: AtomicBool::new(false),
            emptied,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        match &self.exempt {
            Some(exempt) => exempt.executing.load(Ordering::Relaxed) == 0,
            None => self.state.lock().queues.is_idle(),
        }
    }
}

/// A request of a limited level.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) flow: Arc<Flow>,
    pub(crate) user: Arc<User>,
    pub(crate) uri: Uri,
    pub(crate) verb: &'static str,
    wake: Option<oneshot::Sender<()>>,
}

impl queues::Guest for Guest {
    fn seated(&mut self, waited: Seconds) {
        let mut stats = self.flow.stats.lock();
        stats.dispatched += 1;
        stats.waited.observe(waited);
        if let Some(wake) = self.wake.take() {
            // Who is gone leaves when its seat is dropped.
            let _ = wake.send(());
        }
    }

    fn unaccommodated(&mut self) {
        self.flow.stats.lock().unaccommodated += 1;
    }
}

/// Who enters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who<'a> {
    pub(crate) user: &'a Arc<User>,
    pub(crate) uri: &'a Uri,
    pub(crate) verb: &'static str,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Since so many microseconds after the start.
    Exempt(u64),
    Limited(usize),
    Left,
    /// It should come again in so many seconds.
    Refused(u64),
}

/// The seats of a request, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    flow: Arc<Flow>,
    place: Place,
    is_watch: bool,
}

/// What becomes of who comes.
#[derive(Debug)]
pub(crate) enum Entry {
    Seated(Seat),
    /// The seats are there when the receiver says so.
    Waits(Seat, oneshot::Receiver<()>),
    Refused(Seat),
}

impl Seat {
    fn new(flow: &Arc<Flow>, who: Who<'_>, place: Place) -> Self {
        Self { flow: flow.clone(), place, is_watch: who.verb == "watch" }
    }

    /// A place beside all seats.
    pub(super) fn take_exempt(flow: &Arc<Flow>, exempt: &Exempt, who: Who<'_>) -> Entry {
        let executing = exempt.executing.fetch_add(1, Ordering::Relaxed) + 1;
        exempt.most.fetch_max(executing, Ordering::Relaxed);
        Entry::Seated(Self::new(flow, who, Place::Exempt((now() * 1e6) as u64)))
    }

    /// Takes seats in the level of a flow.
    pub(super) fn take(flow: &Arc<Flow>, who: Who<'_>, entropy: u64, kind: Kind) -> Entry {
        let (work, now) = (work::estimate(kind, flow.widest), now());
        let guest = Guest { flow: flow.clone(), user: who.user.clone(), uri: who.uri.clone(), verb: who.verb, wake: None };
        let mut state = flow.level.state.lock();
        let entered = state.queues.enter(now, entropy, work, guest);
        state.note_use(now);
        flow.stats.lock().entered(&entered, kind, work.seats);
        match entered {
            Entered::Seated { key, .. } => Entry::Seated(Self::new(flow, who, Place::Limited(key))),
            Entered::Waits { key, .. } => {
                let (wake, turn) = oneshot::channel();
                if let Some(guest) = state.queues.guest_mut(key) {
                    guest.wake = Some(wake);
                }
                Entry::Waits(Self::new(flow, who, Place::Limited(key)), turn)
            }
            Entered::Refused(_) => Entry::Refused(Self::new(flow, who, Place::Refused(state.dropped.note(now as u64)))),
        }
    }

    /// The UIDs of its flow schema and its level.
    pub(crate) fn uids(&self) -> (HeaderValue, HeaderValue) {
        (self.flow.uid.clone(), self.flow.level_uid.clone())
    }

    /// The answer is ready, and is sent as long as this lives.
    pub(crate) fn sends(&self) {
        if let Place::Limited(key) = self.place {
            self.flow.level.state.lock().queues.sends(now(), key);
        }
    }

    /// It has waited for a while: seats may be free because time has passed.
    pub(crate) fn look_again(&self) {
        let (mut state, now) = (self.flow.level.state.lock(), now());
        state.queues.tick(now);
        state.note_use(now);
    }

    /// It does not wait any longer, and is refused.
    pub(crate) fn give_up(&mut self) {
        self.leave();
        self.place = Place::Refused(self.flow.level.state.lock().dropped.note(now() as u64));
    }

    /// After how many seconds it should come again, if it is refused.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match self.place {
            Place::Refused(seconds) => Some(seconds),
            _ => None,
        }
    }

    /// The seats are free.
    fn leave(&mut self) {
        let now = now();
        match std::mem::replace(&mut self.place, Place::Left) {
            Place::Left | Place::Refused(_) => return,
            Place::Exempt(started) => {
                self.count(Left::Executed((now - started as f64 / 1e6).max(0.0)), true);
                if let Some(exempt) = &self.flow.level.exempt {
                    exempt.executing.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Place::Limited(key) => {
                let mut state = self.flow.level.state.lock();
                let left = state.queues.leave(now, key);
                state.note_use(now);
                drop(state);
                // The guest is dropped without the lock.
                if let Some((_guest, left)) = left {
                    self.count(left, false);
                }
            }
        }
        if self.flow.level.quiescing.load(Ordering::Relaxed) {
            self.flow.level.emptied.notify_one();
        }
    }

    fn count(&self, left: Left, is_exempt: bool) {
        let mut stats = self.flow.stats.lock();
        // Exempt ones are counted when they leave: one lock less.
        stats.dispatched += u64::from(is_exempt);
        match left {
            Left::Executed(took) if self.is_watch => stats.watches.observe(took),
            Left::Executed(took) => stats.executed.observe(took),
            Left::GaveUp(waited) => {
                stats.timed_out += 1;
                stats.waited_in_vain.observe(waited);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}
