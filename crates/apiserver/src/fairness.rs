//! API priority and fairness (KEP-1040): which requests are executed, which wait, and which are refused.
//!
//! A request belongs to the first FlowSchema that matches it ([`rules`]), and with it to a PriorityLevelConfiguration, which has a share of the
//! server's seats ([`shares`]) and lends what it does not need. Inside of a level the flows take turns ([`queues`]), so that none can hold
//! up another: a flow is what one user asks, or what is asked about one namespace, as the schema says.
//!
//! | module | what it is |
//! |---|---|
//! | [`rules`], [`config`] | what the objects say |
//! | [`work`] | how many seats a request takes |
//! | [`queues`], [`deal`] | who is next, and who is refused |
//! | [`shares`], [`demand`] | the limits of levels |
//! | [`dropped`] | when who was refused should come again |
//! | [`digest`] | the snapshot of all objects by which requests are judged |
//! | [`seat`] | a request in its level |
//! | [`follow`] | the tasks: objects, conditions, adjustments |
//! | [`dump`] | the pages for administrators |
//!
//! All but the last four are functions over data, to which time is given.
//!
//! Components of this process do not come here: they bound themselves what they do at once, and nobody who waits for them should wait for a
//! seat. A watch holds its seats until it has begun, a list until it has been sent or five seconds of that have passed. Connections (exec, logs, proxies) take none, as upstream.

mod config;
mod deal;
mod demand;
mod digest;
mod dropped;
pub(crate) mod dump;
pub(crate) mod follow;
mod queues;
pub(crate) mod rules;
pub(crate) mod seat;
mod shares;
pub(crate) mod stats;
pub(crate) mod work;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use digest::{Objects, Snapshot};
use rules::Digest;
use seat::{Entry, Seat, Who};
use shares::Claim;
use work::Kind;

/// The schema of what no other one matches.
const CATCH_ALL: &str = "catch-all";
/// Seats of the server: upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight` together.
const SEATS: u32 = 600;

/// Time since the process has started.
pub(crate) type Seconds = f64;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(crate) fn now() -> Seconds {
    START.elapsed().as_secs_f64()
}

/// The levels and their requests.
#[derive(Debug)]
pub(crate) struct Fairness {
    snapshot: ArcSwap<Snapshot>,
    seats: u32,
    /// Makes hands of queues that nobody can foresee.
    entropy: RandomState,
    /// Since when the limits have not been adjusted, and the part of its target that each level got then.
    adjusted: Mutex<(Seconds, f64)>,
    /// Whether limits are adjusted.
    is_awake: AtomicBool,
    wake: Notify,
    /// A level without an object may have lost its last request.
    emptied: Arc<Notify>,
}

impl Default for Fairness {
    fn default() -> Self {
        Self::new(SEATS)
    }
}

impl Fairness {
    /// A server with so many seats, and the mandatory objects only.
    fn new(seats: u32) -> Self {
        let fairness = Self {
            snapshot: ArcSwap::default(),
            seats,
            entropy: RandomState::new(),
            adjusted: Mutex::new((now(), 0.0)),
            is_awake: AtomicBool::new(false),
            wake: Notify::new(),
            emptied: Arc::default(),
        };
        fairness.digest(Objects::default());
        fairness
    }

    /// These are the objects now.
    fn digest(&self, objects: Objects) {
        // An adjustment does not see half of it.
        let mut adjusted = self.adjusted.lock();
        let next = self.snapshot.load().next(objects, self.seats, now(), &self.emptied);
        self.redistribute(&next, &mut adjusted);
        self.snapshot.store(Arc::new(next));
    }

    /// A request comes. `kind` is asked of what is not exempt.
    pub(crate) fn enter(&self, asked: &Digest<'_>, who: Who<'_>, kind: impl FnOnce() -> Kind) -> Option<Entry> {
        let snapshot = self.snapshot.load();
        let flow = snapshot.flows.iter().find(|flow| flow.rules.matches(asked)).or_else(|| snapshot.fallback())?;
        if let Some(exempt) = &flow.level.exempt {
            return Some(Seat::take_exempt(flow, exempt, who));
        }
        if !self.is_awake.load(Ordering::Relaxed) && !self.is_awake.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
        let entropy = self.entropy.hash_one((flow.name.as_str(), flow.distinguisher.of(asked)));
        Some(Seat::take(flow, who, entropy, kind()))
    }

    /// Waits until the first request comes after a time without any, which has passed for the levels' demand, too.
    async fn awakened(&self, period: Duration) {
        self.wake.notified().await;
        let (mut adjusted, now) = (self.adjusted.lock(), now());
        let periods = ((now - adjusted.0) / period.as_secs_f64()).floor();
        for level in self.snapshot.load().levels.values() {
            let mut state = level.state.lock();
            state.demand.rest(periods);
            if periods > 0.0 {
                state.queues.demand().take(now);
            }
        }
        adjusted.0 = now;
    }

    /// Adjusts the limits to what is needed. Whether anything was.
    fn adjust(&self) -> bool {
        let mut adjusted = self.adjusted.lock();
        let is_used = self.redistribute(&self.snapshot.load(), &mut adjusted);
        if !is_used {
            self.is_awake.store(false, Ordering::Release);
        }
        is_used
    }

    fn redistribute(&self, snapshot: &Snapshot, adjusted: &mut (Seconds, f64)) -> bool {
        let now = now();
        let mut is_used = false;
        let claims: Vec<Claim> = snapshot
            .levels
            .values()
            .map(|level| {
                let mut state = level.state.lock();
                let found = match &level.exempt {
                    Some(exempt) => exempt.take(),
                    None => state.queues.demand().take(now),
                };
                state.demand.update(&found);
                is_used |= level.exempt.is_none() && state.demand.most > 0;
                let (bounds, most, smoothed) = (state.bounds, state.demand.most, state.demand.smoothed);
                Claim { exempt: level.exempt.is_some(), bounds, most, smoothed }
            })
            .collect();
        let found = shares::adjust(&claims);
        for ((level, limit), target) in snapshot.levels.values().zip(&found.limits).zip(&found.targets) {
            let mut state = level.state.lock();
            state.target = *target;
            let response = state.config.response;
            if let Some(limit) = limit {
                state.queues.configure(now, response, *limit);
            }
        }
        *adjusted = (now, found.fair);
        is_used
    }

    /// Returns when a level that is not configured any more may have lost its last request.
    async fn emptied(&self) {
        self.emptied.notified().await;
    }

    /// The levels and schemas as they are now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The part of its target that each level got at the last adjustment.
    pub(crate) fn fair_part(&self) -> f64 {
        self.adjusted.lock().1
    }
}

#[cfg(test)]
mod tests;
