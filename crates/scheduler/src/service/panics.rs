//! What becomes of a scheduler that panics: it begins anew, from what the caches have, and leaves the pod that it was about alone for a while. A
//! pod can be made by anybody, and must not take the cluster with it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use base::tasks::panic_message;
use futures::FutureExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a pod waits on which the scheduler has panicked, doubling each time up to the second value.
const HOLD: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(3600));
/// Delay before the scheduler begins anew. It doubles up to the second value while the scheduler soon panics again and there is no pod that it could
/// leave alone, as with an object of another kind.
pub(crate) const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A scheduler that panics within this time of its beginning does so soon.
const SOON: Duration = Duration::from_secs(60);

/// What the scheduler does about a pod when it panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It reads what the pod says: one that is held is not read.
    Read,
    /// It looks for a node, or writes what was decided: one that is held is not tried.
    Tried,
}

/// A pod by its uid, and what is done about it.
type About = (String, Stage);

/// Which pods are held.
#[derive(Default)]
pub(crate) struct Panics(Mutex<State>);

#[derive(Default)]
struct State {
    /// What is under way.
    current: Option<About>,
    held: HashMap<String, Held>,
}

struct Held {
    stage: Stage,
    hold: Hold,
    next: Duration,
}

/// That a pod is left alone.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) until: Instant,
    /// The same for people.
    shown: Timestamp,
    /// Nobody has been told yet.
    pub(super) is_news: bool,
}

impl Hold {
    /// What is told of the pod. It is the same each time.
    pub(super) fn reason(&self) -> String {
        format!("the scheduler has failed on this pod, and tries it again after {}", self.shown)
    }
}

impl Panics {
    /// Does something about a pod.
    pub(super) fn about<T>(&self, uid: &str, stage: Stage, work: impl FnOnce() -> T) -> T {
        let before = self.0.lock().current.replace((uid.to_owned(), stage));
        let done = work();
        self.0.lock().current = before;
        done
    }

    /// What is under way.
    pub(super) fn current(&self) -> Option<About> {
        self.0.lock().current.clone()
    }

    /// The panic that follows is about this.
    pub(super) fn blame(&self, about: Option<About>) {
        self.0.lock().current = about;
    }

    /// That nothing of the kind is done about a pod for now, if it is held. Whoever asks tells of it if that is news.
    pub(super) fn held(&self, uid: &str, stage: Stage, now: Instant) -> Option<Hold> {
        let mut state = self.0.lock();
        if state.held.is_empty() {
            return None;
        }
        let held = state.held.get_mut(uid).filter(|held| held.stage == stage && held.hold.until > now)?;
        let told = Hold { is_news: false, ..held.hold };
        Some(std::mem::replace(&mut held.hold, told))
    }

    /// Holds the pod that something was done about. Says which one that is.
    pub(super) fn hold(&self, now: Instant) -> Option<String> {
        let mut state = self.0.lock();
        let (uid, stage) = state.current.take()?;
        state.held.retain(|_, held| held.hold.until + held.next > now);
        let time = state.held.get(&uid).map_or(HOLD.0, |held| held.next);
        let shown = Timestamp::now().as_second().saturating_add_unsigned(time.as_secs());
        let shown = Timestamp::from_second(shown).unwrap_or(Timestamp::MAX);
        let hold = Hold { until: now + time, shown, is_news: true };
        state.held.insert(uid.clone(), Held { stage, hold, next: (2 * time).min(HOLD.1) });
        Some(uid)
    }

    /// Runs what may panic, again and again until it ends, with a pause between. Each time `panicked` hears whether it panics without end, as far as
    /// one can see.
    pub(crate) async fn contain<F>(
        &self,
        mut run: impl FnMut() -> F,
        pause: (Duration, Duration),
        panicked: impl Fn(bool),
    ) -> Result<(), Infallible>
    where
        F: Future<Output = Result<(), Infallible>>,
    {
        let mut last = None;
        loop {
            let begun = Instant::now();
            let Err(panic) = AssertUnwindSafe(run()).catch_unwind().await else { return Ok(()) };
            let uid = self.hold(Instant::now());
            tracing::error!(panic = panic_message(&*panic), pod_uid = uid, "the scheduler has panicked and begins anew");
            let is_stuck = uid.is_none() && begun.elapsed() < SOON;
            last = is_stuck.then(|| last.map_or(pause.0, |last: Duration| (last * 2).min(pause.1)));
            panicked(last.is_some_and(|last| last > pause.0));
            tokio::time::sleep(last.unwrap_or(pause.0)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::{Cell, RefCell};

    use super::*;

    const NONE: (Duration, Duration) = (Duration::ZERO, Duration::ZERO);

    #[tokio::test]
    async fn a_pod_that_makes_the_scheduler_panic_is_held_longer_each_time() {
        let (panics, runs, now) = (Panics::default(), Cell::new(0), Cell::new(Instant::now()));
        let held = |uid: &str, after: u64| panics.held(uid, Stage::Tried, now.get() + Duration::from_secs(after)).is_some();
        let attempt = || async {
            runs.set(runs.get() + 1);
            if panics.held("bad", Stage::Tried, now.get()).is_none() {
                panics.about("bad", Stage::Tried, || std::panic::panic_any("total order"));
            }
            panics.about("good", Stage::Tried, || ());
            Ok(())
        };
        panics.contain(attempt, NONE, |_| {}).await.unwrap();
        assert_eq!((runs.get(), held("bad", 290), held("bad", 310), held("good", 0)), (2, true, false, false));
        now.set(now.get() + Duration::from_secs(310));
        panics.contain(attempt, NONE, |_| {}).await.unwrap();
        assert_eq!((runs.get(), held("bad", 200), held("bad", 600)), (4, true, false));
    }

    /// Where no pod is to blame, the same comes again: the pause grows, and somebody hears of it.
    #[tokio::test]
    async fn a_panic_about_no_pod_holds_none() {
        let (panics, runs, told) = (Panics::default(), Cell::new(0), RefCell::new(Vec::new()));
        let run = || async {
            runs.set(runs.get() + 1);
            match runs.get() {
                1..4 => std::panic::panic_any("no pod"),
                4 => panics.about("bad", Stage::Read, || std::panic::panic_any("a pod")),
                5 => std::panic::panic_any("no pod again"),
                _ => Ok(()),
            }
        };
        let millisecond = Duration::from_millis(1);
        let began = Instant::now();
        panics.contain(run, (millisecond, 4 * millisecond), |stuck| told.borrow_mut().push(stuck)).await.unwrap();
        assert_eq!((runs.get(), panics.0.lock().held.len()), (6, 1));
        assert_eq!(*told.borrow(), [false, true, true, false, false]);
        assert!(began.elapsed() >= (1 + 2 + 4 + 1 + 1) * millisecond);
    }

    #[test]
    fn a_pod_is_held_for_an_hour_at_most() {
        let (panics, mut now) = (Panics::default(), Instant::now());
        let mut times = Vec::new();
        for _ in 0..6 {
            panics.blame(Some(("bad".to_owned(), Stage::Read)));
            assert_eq!(panics.hold(now).as_deref(), Some("bad"));
            assert!(panics.held("bad", Stage::Tried, now).is_none(), "it was not even read");
            let [first, again] = [(), ()].map(|()| panics.held("bad", Stage::Read, now).unwrap());
            assert_eq!((first.is_news, again.is_news, first.reason() == again.reason()), (true, false, true));
            let left = first.until - now;
            times.push(left.as_secs());
            now += left;
        }
        assert_eq!(times, [300, 600, 1200, 2400, 3600, 3600]);
    }

    #[test]
    fn what_is_done_within_another_is_about_the_inner_one() {
        let panics = Panics::default();
        panics.about("outer", Stage::Tried, || {
            panics.about("inner", Stage::Read, || assert_eq!(panics.current(), Some(("inner".to_owned(), Stage::Read))));
            assert_eq!(panics.current(), Some(("outer".to_owned(), Stage::Tried)));
        });
        assert_eq!(panics.current(), None);
    }
}
