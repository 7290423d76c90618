//! What becomes of a scheduler that panics: it begins anew, from what the caches have, and leaves the pod that it was about alone for a while. A
//! pod can be made by anybody, and must not take the cluster with it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use base::tasks::panic_message;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a pod waits on which the scheduler has panicked, doubling each time up to the second value.
const HOLD: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(3600));
/// Delay before the scheduler begins anew.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// Which pods are held.
#[derive(Default)]
pub(crate) struct Panics(Mutex<State>);

#[derive(Default)]
struct State {
    /// The pod that is being decided on, by its uid.
    current: Option<String>,
    held: HashMap<String, Held>,
}

struct Held {
    until: Instant,
    next: Duration,
}

impl Panics {
    /// Decides on a pod.
    pub(super) fn about<T>(&self, uid: &str, decide: impl FnOnce() -> T) -> T {
        self.0.lock().current = Some(uid.to_owned());
        let decided = decide();
        self.0.lock().current = None;
        decided
    }

    /// How long a pod has to wait, if it is held.
    pub(super) fn held(&self, uid: &str, now: Instant) -> Option<Duration> {
        let state = self.0.lock();
        if state.held.is_empty() {
            return None;
        }
        state.held.get(uid).map(|held| held.until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// Holds the pod that was decided on. Says which one that is.
    fn hold(&self, now: Instant) -> Option<String> {
        let mut state = self.0.lock();
        let uid = state.current.take()?;
        state.held.retain(|_, held| held.until + held.next > now);
        let time = state.held.get(&uid).map_or(HOLD.0, |held| held.next);
        state.held.insert(uid.clone(), Held { until: now + time, next: (2 * time).min(HOLD.1) });
        Some(uid)
    }

    /// Runs what may panic, again and again until it ends, with a pause between.
    pub(crate) async fn contain<F>(&self, mut run: impl FnMut() -> F, pause: Duration) -> Result<(), Infallible>
    where
        F: Future<Output = Result<(), Infallible>>,
    {
        loop {
            let Err(panic) = AssertUnwindSafe(run()).catch_unwind().await else { return Ok(()) };
            let uid = self.hold(Instant::now());
            tracing::error!(panic = panic_message(&*panic), pod_uid = uid, "the scheduler has panicked and begins anew");
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_pod_that_makes_the_scheduler_panic_is_held_longer_each_time() {
        let (panics, runs, now) = (Panics::default(), Cell::new(0), Cell::new(Instant::now()));
        let held = |uid: &str, after: u64| panics.held(uid, now.get() + Duration::from_secs(after)).is_some();
        let attempt = || async {
            runs.set(runs.get() + 1);
            if panics.held("bad", now.get()).is_none() {
                panics.about("bad", || std::panic::panic_any("total order"));
            }
            panics.about("good", || ());
            Ok(())
        };
        panics.contain(attempt, Duration::ZERO).await.unwrap();
        assert_eq!((runs.get(), held("bad", 290), held("bad", 310), held("good", 0)), (2, true, false, false));
        now.set(now.get() + Duration::from_secs(310));
        panics.contain(attempt, Duration::ZERO).await.unwrap();
        assert_eq!((runs.get(), held("bad", 200), held("bad", 600)), (4, true, false));
    }

    #[tokio::test]
    async fn a_panic_about_no_pod_holds_none() {
        let (panics, runs) = (Panics::default(), Cell::new(0));
        let run = || async {
            runs.set(runs.get() + 1);
            if runs.get() < 3 { std::panic::panic_any("no pod") } else { Ok(()) }
        };
        panics.contain(run, Duration::ZERO).await.unwrap();
        assert_eq!((runs.get(), panics.0.lock().held.len()), (3, 0));
    }

    #[test]
    fn a_pod_is_held_for_an_hour_at_most() {
        let (panics, mut now) = (Panics::default(), Instant::now());
        let mut times = Vec::new();
        for _ in 0..6 {
            panics.0.lock().current = Some("bad".to_owned());
            assert_eq!(panics.hold(now).as_deref(), Some("bad"));
            let left = panics.held("bad", now).unwrap();
            times.push(left.as_secs());
            now += left;
        }
        assert_eq!(times, [300, 600, 1200, 2400, 3600, 3600]);
    }
}
