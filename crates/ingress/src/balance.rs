//! Which endpoint gets a request.
//!
//! Endpoints that failed several times in a row are left out for a while, as long as there are others. A session or a hash is led to its
//! endpoint by rendezvous: when endpoints come or go, only those sessions move whose best endpoint changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::policy::Balance;

/// Failures in a row after which an endpoint is left out.
const FAILURES: u32 = 3;
/// For how long; twice as long after each further failure, up to the second value.
const OUT_MIN: Duration = Duration::from_secs(5);
const OUT_MAX: Duration = Duration::from_secs(60);

/// What can be chosen.
pub trait Member {
    /// Its number, the same as long as its address is.
    fn id(&self) -> u64;
    /// Its load and failures.
    fn load(&self) -> &Load;
}

/// Requests under way at one endpoint, and how the last ones ended.
#[derive(Debug)]
pub struct Load {
    active: AtomicUsize,
    failures: AtomicU32,
    /// Until when it is left out, milliseconds after `born`.
    out_until: AtomicU64,
    born: Instant,
}

impl Default for Load {
    fn default() -> Self {
        let zero = AtomicU64::new(0);
        Self { active: AtomicUsize::new(0), failures: AtomicU32::new(0), out_until: zero, born: Instant::now() }
    }
}

impl Load {
    /// A request begins.
    pub fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    /// It has ended.
    pub fn end(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Requests under way.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// It answered.
    pub fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.out_until.store(0, Ordering::Relaxed);
        }
    }

    /// It could not be reached, or did not answer. Whether it is left out from now on.
    pub fn failed(&self, now: Instant) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let Some(further) = failures.checked_sub(FAILURES) else { return false };
        let out = OUT_MIN.saturating_mul(1 << further.min(8)).min(OUT_MAX);
        self.out_until.store(self.millis(now + out), Ordering::Relaxed);
        true
    }

    fn is_out(&self, now: Instant) -> bool {
        let until = self.out_until.load(Ordering::Relaxed);
        until != 0 && self.millis(now) < until
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }
}

/// How one request's endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// By turns or load.
    Any(Balance),
    /// The same value leads to the same one.
    Hash(u64),
    /// This one, or any while it is not there.
    Pinned(u64),
}

/// The member for a request. `turn` gives a number that grows by one each time; `tried` were asked for it already and failed.
pub fn choose<'m, M: Member>(
    members: &'m [Arc<M>],
    choice: Choice,
    turn: impl Fn() -> usize,
    tried: &[u64],
    now: Instant,
) -> Option<&'m Arc<M>> {
    let untried = |member: &&Arc<M>| !tried.contains(&member.id());
    let well = |member: &&Arc<M>| untried(member) && !member.load().is_out(now);
    pick(members, choice, &turn, well).or_else(|| pick(members, choice, &turn, untried))
}

fn pick<'m, M: Member>(
    members: &'m [Arc<M>],
    choice: Choice,
    turn: &impl Fn() -> usize,
    fits: impl Fn(&&Arc<M>) -> bool,
) -> Option<&'m Arc<M>> {
    let from = |start: usize| {
        let start = start.checked_rem(members.len()).unwrap_or(0);
        let (behind, first) = members.split_at(start);
        first.iter().chain(behind).find(&fits)
    };
    match choice {
        Choice::Any(Balance::RoundRobin) => from(turn()),
        Choice::Any(Balance::LeastRequests) => {
            // Two of them by chance, the less busy one: nobody is flooded, and nobody has to look at all.
            let random = mix(turn() as u64);
            let (one, two) = (from(random as usize & 0xffff)?, from((random >> 32) as usize & 0xffff)?);
            Some(if two.load().active() < one.load().active() { two } else { one })
        }
        Choice::Hash(value) => members.iter().filter(fits).max_by_key(|member| mix(value ^ member.id())),
        Choice::Pinned(id) => members.iter().filter(&fits).find(|member| member.id() == id).or_else(|| from(turn())),
    }
}

/// Spreads a number over all bits (the finalizer of splitmix64).
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A number for a text, the same everywhere and always (FNV-1a, mixed).
pub fn hash(text: &str) -> u64 {
    mix(text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;

    use super::*;

    struct One(u64, Load);

    impl Member for One {
        fn id(&self) -> u64 {
            self.0
        }

        fn load(&self) -> &Load {
            &self.1
        }
    }

    fn members(count: u64) -> Vec<Arc<One>> {
        (0..count).map(|n| Arc::new(One(hash(&n.to_string()), Load::default()))).collect()
    }

    fn counts(members: &[Arc<One>], choice: impl Fn(usize) -> Choice, tried: &[u64]) -> HashMap<u64, usize> {
        let mut counts = HashMap::new();
        for turn in 0..300 {
            if let Some(member) = choose(members, choice(turn), || turn, tried, Instant::now()) {
                *counts.entry(member.0).or_default() += 1;
            }
        }
        counts
    }

    #[test]
    fn turns() {
        let all = members(3);
        let round = |_| Choice::Any(Balance::RoundRobin);
        assert!(all.iter().all(|member| counts(&all, round, &[])[&member.0] == 100));
        assert!(!counts(&all, round, &[all[1].0]).contains_key(&all[1].0));
        assert!(counts(&all, round, &all.iter().map(|member| member.0).collect::<Vec<_>>()).is_empty());
        assert!(counts(&[], round, &[]).is_empty());
    }

    #[test]
    fn the_less_busy_one() {
        let all = members(2);
        (0..5).for_each(|_| all[0].1.begin());
        let counts = counts(&all, |_| Choice::Any(Balance::LeastRequests), &[]);
        assert!(counts[&all[1].0] > 200, "{counts:?}");
    }

    #[test]
    fn sessions_stay() {
        let (ten, nine) = (members(10), members(9));
        let of = |members: &[Arc<One>], value: u64| choose(members, Choice::Hash(value), || 0, &[], Instant::now()).unwrap().0;
        let moved: Vec<u64> = (0..1000).filter(|value| of(&ten, *value) != of(&nine, *value)).collect();
        assert!(moved.iter().all(|value| of(&ten, *value) == ten[9].0), "only those of the tenth move");
        assert!((50..150).contains(&moved.len()), "{}", moved.len());
        let pinned = |tried: &[u64]| counts(&ten, |_| Choice::Pinned(ten[4].0), tried);
        assert_eq!(pinned(&[]), HashMap::from([(ten[4].0, 300)]));
        assert_eq!(pinned(&[ten[4].0]).len(), 9);
    }

    #[test]
    fn who_fails_is_left_out_for_a_while() {
        let (all, start) = (members(2), Instant::now());
        let used = |after: Duration| {
            (0..2).any(|turn| choose(&all, Choice::Any(Balance::RoundRobin), || turn, &[], start + after).unwrap().0 == all[0].0)
        };
        assert!(!all[0].1.failed(start) && !all[0].1.failed(start));
        assert!(used(Duration::ZERO));
        assert!(all[0].1.failed(start));
        assert!(!used(Duration::from_secs(4)) && used(Duration::from_secs(6)));
        assert!(all[0].1.failed(start));
        assert!(!used(Duration::from_secs(9)) && used(Duration::from_secs(11)));
        all[0].1.succeeded();
        assert!(used(Duration::ZERO));
        // When all fail, all are tried.
        for member in &all {
            assert_eq!((0..9).filter(|_| member.1.failed(start)).count(), 7);
        }
        assert!(used(Duration::ZERO) && !all[0].1.is_out(start + OUT_MAX * 2));
    }
}
