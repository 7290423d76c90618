//! Fair queuing of requests (KEP-1040, "Fair Queuing for Server Requests").
//!
//! A request takes seats as long as it is executed. Where there are none left it waits in one of the queues of its flow's hand. The next
//! one is taken from the queue whose oldest request would be finished first if all queues were served at once, each at the same rate,
//! seat by seat: that virtual time is measured in the seat-seconds that each active queue has got. Before a request has been executed its
//! duration is a guess, which is corrected when it is over.
//!
//! An answer that is sent holds its seats, because making it is work, but no longer than five seconds: its client may read slowly, or not at all.
//!
//! Nothing here knows what time it is, or waits: both come from outside.

use std::collections::VecDeque;

use slab::Slab;

use super::Seconds;
use super::config::{Queuing, Response};
use super::deal::{LARGEST_HAND, deal};
use super::demand::Integral;

/// How long a request is thought to take.
const GUESS: Seconds = 0.003;

/// How long the sending of an answer may hold seats.
pub(crate) const SENDING: Seconds = 5.0;

/// Who asks. It is told when it has its seats.
pub(crate) trait Guest {
    /// It has waited so long.
    fn seated(&mut self, waited: Seconds);
    /// It would be the next one, but needs more seats than there are.
    fn unaccommodated(&mut self);
}

/// What a request is thought to be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Work {
    pub(crate) seats: u32,
    /// Seat-seconds of work that it leaves behind, such as events for watchers.
    pub(crate) after: Seconds,
}

impl Work {
    fn total(&self) -> f64 {
        f64::from(self.seats) * GUESS + self.after
    }
}

/// A request that waits or is executed.
#[derive(Debug)]
pub(crate) struct Request<G> {
    pub(crate) guest: G,
    pub(crate) work: Work,
    /// None for one that no queue has led here.
    pub(crate) queue: Option<usize>,
    pub(crate) arrived: Seconds,
    arrived_r: f64,
    /// None as long as it waits.
    pub(crate) started: Option<Seconds>,
    /// Since when its answer is sent.
    sending: Option<Seconds>,
    /// Its seats are others' by now.
    pub(crate) released: bool,
}

/// Requests of some flows.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) waiting: VecDeque<usize>,
    pub(crate) executing: u32,
    pub(crate) seats: u32,
    /// Of those that wait.
    pub(crate) work: f64,
    /// The virtual time at which its next request is dispatched.
    pub(crate) next_dispatch: f64,
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.executing == 0
    }
}

/// What becomes of a request that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// It is executed at once. `length` is that of its queue, with itself; 0 where there is none.
    Seated {
        key: usize,
        length: usize,
    },
    /// It waits, until its guest is seated.
    Waits {
        key: usize,
        length: usize,
    },
    Refused(Reason),
}

/// Why a request is not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    QueueFull,
    ConcurrencyLimit,
}

/// How a request has left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Left {
    /// After it was executed for so long.
    Executed(Seconds),
    /// After it has waited in vain for so long.
    GaveUp(Seconds),
}

/// Sums of requests, for those who look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) waiting: usize,
    pub(crate) executing: usize,
    pub(crate) seats: u32,
    pub(crate) seats_waiting: u32,
    pub(crate) dispatched: u64,
    pub(crate) rejected: u64,
    pub(crate) gave_up: u64,
}

/// The requests of one priority level.
#[derive(Debug)]
pub(crate) struct Queues<G> {
    response: Response,
    limit: u32,
    requests: Slab<Request<G>>,
    queues: Vec<Queue>,
    /// Requests whose answers are sent, the first one first.
    sending: VecDeque<(Seconds, usize)>,
    /// The queue that was served last.
    robin: usize,
    enqueued: usize,
    /// Virtual time, and the real time up to which it is known.
    r: f64,
    at: Seconds,
    /// Queues that have requests.
    active: u32,
    counts: Counts,
    /// Seats that are in use or waited for.
    demand: Integral,
}

impl<G: Guest> Queues<G> {
    /// Nobody is there yet.
    pub(crate) fn new(now: Seconds) -> Self {
        let mut demand = Integral::default();
        demand.take(now);
        Self {
            response: Response::Reject,
            limit: 0,
            requests: Slab::new(),
            queues: Vec::new(),
            sending: VecDeque::new(),
            robin: 0,
            enqueued: 0,
            r: 0.0,
            at: now,
            active: 0,
            counts: Counts::default(),
            demand,
        }
    }

    /// From now on there are so many seats. Queues that are too many go when they are empty.
    pub(crate) fn configure(&mut self, now: Seconds, response: Response, limit: u32) {
        self.advance(now);
        (self.response, self.limit) = (response, limit);
        let wanted = self.wanted_queues();
        if wanted > self.queues.len() {
            self.queues.resize_with(wanted, Queue::default);
        }
        self.drop_queues();
        self.dispatch(now, None);
    }

    fn wanted_queues(&self) -> usize {
        match self.response {
            Response::Reject => 0,
            Response::Queue(queuing) => queuing.queues,
        }
    }

    fn drop_queues(&mut self) {
        let wanted = self.wanted_queues();
        while self.queues.len() > wanted && self.queues.last().is_some_and(Queue::is_idle) {
            self.queues.pop();
        }
    }

    /// A request has come. `entropy` follows from its flow.
    pub(crate) fn enter(&mut self, now: Seconds, entropy: u64, work: Work, guest: G) -> Entered {
        self.advance(now);
        let entered = match self.response {
            Response::Reject if self.accommodates(work.seats) => {
                let key = self.insert(now, None, work, guest);
                self.start(now, key);
                Entered::Seated { key, length: 0 }
            }
            Response::Reject => self.refuse(Reason::ConcurrencyLimit),
            Response::Queue(queuing) => self.enqueue(now, queuing, entropy, work, guest),
        };
        self.note_demand(now);
        entered
    }

    fn refuse(&mut self, reason: Reason) -> Entered {
        self.counts.rejected += 1;
        Entered::Refused(reason)
    }

    fn insert(&mut self, now: Seconds, queue: Option<usize>, work: Work, guest: G) -> usize {
        let (started, sending, released) = (None, None, false);
        self.requests.insert(Request { guest, work, queue, arrived: now, arrived_r: self.r, started, sending, released })
    }

    fn enqueue(&mut self, now: Seconds, queuing: Queuing, entropy: u64, work: Work, guest: G) -> Entered {
        let at = self.choose(queuing, entropy);
        if self.counts.seats >= self.limit && self.queues[at].waiting.len() >= queuing.length {
            return self.refuse(Reason::QueueFull);
        }
        let key = self.insert(now, Some(at), work, guest);
        let queue = &mut self.queues[at];
        if queue.is_idle() {
            queue.next_dispatch = self.r;
            self.active += 1;
        }
        queue.waiting.push_back(key);
        queue.work += work.total();
        let length = queue.waiting.len();
        self.counts.waiting += 1;
        self.counts.seats_waiting += work.seats;
        self.bound(at);
        self.dispatch(now, Some(at));
        match self.requests.get(key).is_some_and(|request| request.started.is_some()) {
            true => Entered::Seated { key, length },
            false => Entered::Waits { key, length },
        }
    }

    /// The queue of a hand with the least work. The looking begins at another card each time, so that no card is preferred.
    fn choose(&mut self, queuing: Queuing, entropy: u64) -> usize {
        let (mut hand, mut size) = ([0; LARGEST_HAND], 0);
        for card in deal(entropy, queuing.queues, queuing.hand) {
            hand[size] = card;
            size += 1;
        }
        let offset = self.enqueued;
        self.enqueued = self.enqueued.wrapping_add(1);
        let (mut best, mut least) = (0, f64::INFINITY);
        for nth in 0..size {
            let at = hand[(offset + nth) % size];
            let work = self.queues[at].work;
            // Nothing is less than nothing.
            if work <= 0.0 {
                return at;
            }
            if work < least {
                (best, least) = (at, work);
            }
        }
        best
    }

    /// The answer to a request is ready, and is sent from now on.
    pub(crate) fn sends(&mut self, now: Seconds, key: usize) {
        if let Some(request) = self.requests.get_mut(key) {
            request.sending = Some(now);
            self.sending.push_back((now, key));
        }
    }

    /// Time has passed: what is sent may have held its seats for long enough.
    pub(crate) fn tick(&mut self, now: Seconds) {
        self.advance(now);
        self.dispatch(now, None);
        self.note_demand(now);
    }

    /// A request is over, or waits no longer.
    pub(crate) fn leave(&mut self, now: Seconds, key: usize) -> Option<(G, Left)> {
        self.advance(now);
        let left = match self.requests.get(key)?.started {
            Some(started) => {
                self.release(now, key);
                Left::Executed((now - started).max(0.0))
            }
            None => self.give_up(now, key),
        };
        let request = self.requests.try_remove(key)?;
        self.dispatch(now, None);
        self.note_demand(now);
        Some((request.guest, left))
    }

    /// The seats of a request are free.
    fn release(&mut self, now: Seconds, key: usize) {
        let Some(request) = self.requests.get_mut(key).filter(|request| !request.released) else { return };
        request.released = true;
        let (seats, queue, took) = (request.work.seats, request.queue, (now - request.started.unwrap_or(now)).max(0.0));
        self.counts.executing -= 1;
        self.counts.seats -= seats;
        if let Some(at) = queue {
            let queue = &mut self.queues[at];
            queue.executing -= 1;
            queue.seats -= seats;
            queue.next_dispatch -= f64::from(seats) * (GUESS - took);
            self.bound(at);
            self.left(at);
        }
    }

    fn give_up(&mut self, now: Seconds, key: usize) -> Left {
        let Some(request) = self.requests.get(key) else { return Left::GaveUp(0.0) };
        let (work, queue, waited) = (request.work, request.queue, (now - request.arrived).max(0.0));
        self.counts.waiting -= 1;
        self.counts.seats_waiting -= work.seats;
        self.counts.rejected += 1;
        self.counts.gave_up += 1;
        if let Some(at) = queue {
            let queue = &mut self.queues[at];
            queue.waiting.retain(|other| *other != key);
            queue.work = if queue.waiting.is_empty() { 0.0 } else { queue.work - work.total() };
            self.bound(at);
            self.left(at);
        }
        Left::GaveUp(waited)
    }

    /// One has left this queue.
    fn left(&mut self, at: usize) {
        self.active -= u32::from(self.queues[at].is_idle());
        self.drop_queues();
    }

    /// Takes the seats of those whose answers have been sent for too long.
    fn reclaim(&mut self, now: Seconds) {
        while let Some((since, key)) = self.sending.front().copied().filter(|(since, _)| now - since >= SENDING) {
            self.sending.pop_front();
            // Another one may have its key by now.
            if self.requests.get(key).is_some_and(|request| request.sending == Some(since)) {
                self.release(now, key);
            }
        }
    }

    /// Virtual time goes on as fast as every active queue gets seats.
    fn advance(&mut self, now: Seconds) {
        let passed = (now - self.at).max(0.0);
        self.at = self.at.max(now);
        if self.active > 0 {
            let seats = (self.counts.seats + self.counts.seats_waiting).min(self.limit);
            self.r += f64::from(seats) / f64::from(self.active) * passed;
        }
        self.reclaim(now);
    }

    /// No queue saves up time in which it had nothing to do: nothing is dispatched before it has come.
    fn bound(&mut self, at: usize) {
        let queue = &mut self.queues[at];
        if let Some(oldest) = queue.waiting.front().and_then(|key| self.requests.get(*key)) {
            queue.next_dispatch = queue.next_dispatch.max(oldest.arrived_r);
        }
    }

    fn accommodates(&self, seats: u32) -> bool {
        // One that is wider than the whole level is executed alone.
        if seats > self.limit { self.counts.executing == 0 } else { self.counts.seats + seats <= self.limit }
    }

    /// Gives seats to as many as there are seats for. `entered` is the queue of who has just come.
    fn dispatch(&mut self, now: Seconds, entered: Option<usize>) {
        while self.counts.waiting > 0 && self.counts.seats < self.limit {
            // Where one waits there is nothing to choose.
            let next = entered.filter(|_| self.counts.waiting == 1).or_else(|| self.next_queue());
            let Some((at, key)) = next.and_then(|at| Some((at, *self.queues[at].waiting.front()?))) else { return };
            let Some(work) = self.requests.get(key).map(|request| request.work) else { return };
            if !self.accommodates(work.seats) {
                if let Some(request) = self.requests.get_mut(key) {
                    request.guest.unaccommodated();
                }
                return;
            }
            self.robin = at;
            let queue = &mut self.queues[at];
            queue.waiting.pop_front();
            queue.work = if queue.waiting.is_empty() { 0.0 } else { queue.work - work.total() };
            queue.next_dispatch += work.total();
            queue.executing += 1;
            queue.seats += work.seats;
            self.counts.waiting -= 1;
            self.counts.seats_waiting -= work.seats;
            self.bound(at);
            self.start(now, key);
        }
    }

    /// The queue whose oldest request would be finished first; of those that are alike, the one that has waited longest for its turn.
    fn next_queue(&self) -> Option<usize> {
        let (mut best, mut first) = (None, f64::INFINITY);
        let count = self.queues.len();
        for nth in 1..=count {
            let at = (self.robin + nth) % count;
            let queue = &self.queues[at];
            let Some(oldest) = queue.waiting.front().and_then(|key| self.requests.get(*key)) else { continue };
            let finish = queue.next_dispatch + oldest.work.total();
            if finish < first {
                (best, first) = (Some(at), finish);
            }
        }
        best
    }

    fn start(&mut self, now: Seconds, key: usize) {
        if let Some(request) = self.requests.get_mut(key) {
            request.started = Some(now);
            self.counts.executing += 1;
            self.counts.seats += request.work.seats;
            self.counts.dispatched += 1;
            request.guest.seated((now - request.arrived).max(0.0));
        }
    }

    fn note_demand(&mut self, now: Seconds) {
        self.demand.set(now, f64::from(self.counts.seats + self.counts.seats_waiting));
    }

    /// Seats that were in use or waited for since this was asked last.
    pub(crate) fn demand(&mut self) -> &mut Integral {
        &mut self.demand
    }

    /// The guest of a request.
    pub(crate) fn guest_mut(&mut self, key: usize) -> Option<&mut G> {
        self.requests.get_mut(key).map(|request| &mut request.guest)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// The most that can wait.
    pub(crate) fn room(&self) -> usize {
        match self.response {
            Response::Reject => 1,
            Response::Queue(queuing) => queuing.queues.saturating_mul(queuing.length).max(1),
        }
    }

    /// Virtual time, as it was at the last change.
    pub(crate) fn virtual_time(&self) -> f64 {
        self.r
    }

    pub(crate) fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// All requests, by their keys.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (usize, &Request<G>)> {
        self.requests.iter()
    }

    pub(crate) fn request(&self, key: usize) -> Option<&Request<G>> {
        self.requests.get(key)
    }
}

#[cfg(test)]
mod tests;
