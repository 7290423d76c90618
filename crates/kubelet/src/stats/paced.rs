//! What takes long to measure: one measures at a time, and whoever asks gets what was measured last.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// How long a scrape waits for a measurement that it has begun; then it gets what is known from before.
const PATIENCE: Duration = Duration::from_millis(500);
/// What scrapes get is at least so old before it is measured again, and no more than a tenth of a processor is used for that.
const PAUSE: Duration = Duration::from_secs(10);
/// How many of [`Each`] are measured at a time that take long, and that do not or have never been measured. They read the same disks.
const TURNS: (usize, usize) = (1, 3);
/// What takes long.
const LONG: Duration = Duration::from_secs(1);
/// How long what takes long, and what does not, keeps its turn. A file system that does not answer must not take it from the others for ever.
const KEEPS: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(5));

/// A measurement. Clones are the same one.
pub(crate) struct Paced<T>(Arc<Mutex<Last<T>>>);

/// What was measured last.
struct Last<T> {
    value: Arc<T>,
    /// When that ended, and how long it took.
    ended: Option<(Instant, Duration)>,
    is_running: bool,
}

impl<T: Default> Default for Paced<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Last { value: Arc::default(), ended: None, is_running: false })))
    }
}

impl<T> Clone for Paced<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + Sync + 'static> Paced<T> {
    async fn measure(&self, measure: impl Future<Output = T>) {
        let begun = Instant::now();
        let value = Arc::new(measure.await);
        let mut last = self.0.lock();
        last.ended = Some((Instant::now(), begun.elapsed()));
        last.value = value;
    }

    /// What is known, measured anew when it is time to. Whoever asked may leave: the measurement goes on for the next one.
    pub(crate) async fn scraped<F>(&self, tasks: &Tasks, name: &'static str, measure: impl FnOnce() -> F) -> Arc<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let total = self.took();
        self.scraped_after(tasks, name, total, ready(((), Duration::MAX)), measure).await
    }

    /// The same, where `total` is what it takes with all that is measured besides, and it is measured once `turn` has given something, which is kept
    /// for so long at most. The time until then is none of the measurement's.
    async fn scraped_after<F, G: Send + 'static>(
        &self,
        tasks: &Tasks,
        name: &'static str,
        total: Duration,
        turn: impl Future<Output = (G, Duration)> + Send + 'static,
        measure: impl FnOnce() -> F,
    ) -> Arc<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        if self.begin(Instant::now(), total) {
            let (own, work) = (Running(self.clone()), measure());
            let (done, is_done) = tokio::sync::oneshot::channel();
            tasks.spawn_until_cancelled(name, OnFailure::Log, async move {
                let (turn, keeps) = turn.await;
                {
                    let mut measured = pin!(own.0.measure(work));
                    if timeout(keeps, &mut measured).await.is_err() {
                        drop(turn);
                        measured.await;
                    }
                }
                drop(own);
                // Who asked may have gone on with what was known.
                let _ = done.send(());
                Ok::<_, Infallible>(())
            });
            // What is not known in time is there at the next scrape.
            let _ = timeout(PATIENCE, is_done).await;
        }
        self.0.lock().value.clone()
    }

    /// How long the last measurement took.
    fn took(&self) -> Duration {
        self.0.lock().ended.map_or(Duration::ZERO, |(_, took)| took)
    }

    /// Whether it is time to measure, by whoever asks first.
    fn begin(&self, now: Instant, total: Duration) -> bool {
        let mut last = self.0.lock();
        let begins = !last.is_running && last.ended.is_none_or(|(ended, _)| ended + PAUSE.max(total * 9) <= now);
        last.is_running |= begins;
        begins
    }
}

/// Measurements of things that come and go, by their names. Each is measured by itself: one that takes long, or for ever, keeps back none of the
/// others. All together they take no more than one does. Clones are the same ones.
pub(crate) struct Each<T> {
    known: Arc<Mutex<HashMap<String, Paced<T>>>>,
    /// Of those that take long, and of the others.
    turns: (Arc<Semaphore>, Arc<Semaphore>),
    keeps: (Duration, Duration),
}

impl<T> Default for Each<T> {
    fn default() -> Self {
        let turns = (Arc::new(Semaphore::new(TURNS.0)), Arc::new(Semaphore::new(TURNS.1)));
        Self { known: Arc::default(), turns, keeps: KEEPS }
    }
}

impl<T> Clone for Each<T> {
    fn clone(&self) -> Self {
        Self { known: self.known.clone(), turns: self.turns.clone(), keeps: self.keeps }
    }
}

impl<T> Each<T> {
    /// Where what took so long the last time waits for its turn, and how long it keeps that.
    fn turn(&self, took: Duration) -> (&Arc<Semaphore>, Duration) {
        if took < LONG { (&self.turns.1, self.keeps.1) } else { (&self.turns.0, self.keeps.0) }
    }
}

impl<T: Default + Send + Sync + 'static> Each<T> {
    /// What is known of each, measured anew where it is time to. What is not among them is forgotten.
    pub(crate) async fn scraped<F>(&self, tasks: &Tasks, name: &'static str, all: Vec<(String, F)>) -> HashMap<String, Arc<T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let all: Vec<(String, Paced<T>, F)> = {
            let mut known = self.known.lock();
            let mut before = std::mem::take(&mut *known);
            let one = |(key, measure): (String, F)| {
                let paced = before.remove(&key).unwrap_or_default();
                (key, paced, measure)
            };
            let all: Vec<_> = all.into_iter().map(one).collect();
            // One that is still being measured is not begun a second time when it is asked for again.
            before.retain(|_, paced| paced.0.lock().is_running);
            *known = before;
            known.extend(all.iter().map(|(key, paced, _)| (key.clone(), paced.clone())));
            all
        };
        let total = all.iter().map(|(_, paced, _)| paced.took()).sum();
        let one = async |(key, paced, measure): (String, Paced<T>, F)| {
            let (turns, keeps) = self.turn(paced.took());
            let turn = turns.clone().acquire_owned().map(move |turn| (turn, keeps));
            let value = paced.scraped_after(tasks, name, total, turn, || measure).await;
            (key, value)
        };
        futures::future::join_all(all.into_iter().map(one)).await.into_iter().collect()
    }
}

/// Held by who measures.
struct Running<T>(Paced<T>);

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.0.lock().is_running = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_measures_and_not_all_the_time() {
        let (paced, now, short) = (Paced::<u32>::default(), Instant::now(), LONG / 2);
        assert!(paced.begin(now, short) && !paced.begin(now, short), "one measures");
        drop(Running(paced.clone()));
        paced.0.lock().ended = Some((now, short));
        assert!(!paced.begin(now + PAUSE / 2, short) && !paced.begin(now + PAUSE, LONG * 60));
        assert!(paced.begin(now + PAUSE, short));
    }

    #[tokio::test]
    async fn a_scrape_gets_what_was_measured_last() {
        let (tasks, _failures) = Tasks::root();
        let paced = Paced::<u32>::default();
        let due = || paced.0.lock().ended = None;
        assert_eq!(*paced.scraped(&tasks, "test", || async { 7 }).await, 7);
        due();
        assert_eq!(*paced.scraped(&tasks, "test", || async { 8 }).await, 8);
        assert_eq!(*paced.scraped(&tasks, "test", || async { 9 }).await, 8, "not yet");
        due();
        assert_eq!(*paced.scraped(&tasks, "test", || async { std::panic::panic_any("no measurement") }).await, 8);
        due();
        assert_eq!(*paced.scraped(&tasks, "test", || async { 9 }).await, 9, "a panic ends its own measurement alone");
    }

    /// Who asks does not wait for what takes long, and a second one does not begin with it.
    #[tokio::test]
    async fn what_takes_long_goes_on_by_itself() {
        let (tasks, _failures) = Tasks::root();
        let paced = Paced::<u32>::default();
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let slow = || async {
            let _ = released.await;
            7
        };
        assert_eq!(*paced.scraped(&tasks, "test", slow).await, 0);
        assert_eq!(*paced.scraped(&tasks, "test", || async { 8 }).await, 0);
        let _ = release.send(());
        while paced.0.lock().is_running {
            tokio::task::yield_now().await;
        }
        assert_eq!(*paced.scraped(&tasks, "test", || async { 8 }).await, 7);
    }

    /// A tenant decides how many files a volume has: what takes long is measured one after the other, and keeps no turn from the others.
    #[test]
    fn what_takes_long_has_turns_of_its_own() {
        let each = Each::<u32>::default();
        let is_long = |took: Duration| Arc::ptr_eq(each.turn(took).0, &each.turns.0);
        assert_eq!([Duration::ZERO, LONG / 2, LONG, LONG * 60].map(is_long), [false, false, true, true]);
        assert_eq!((each.turns.0.available_permits(), each.turns.1.available_permits()), TURNS);
    }

    /// However many file systems do not answer, the others are measured.
    #[tokio::test]
    async fn turns_come_back_from_what_hangs() {
        let (tasks, _failures) = Tasks::root();
        let each = Each::<u32> { keeps: (Duration::ZERO, Duration::ZERO), ..Each::default() };
        let measure = |hangs: bool| async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            1
        };
        let scrape = async || {
            let all = (0..8).map(|at| (at.to_string(), measure(at < 7))).collect();
            *each.scraped(&tasks, "test", all).await["7"]
        };
        while scrape().await == 0 {}
    }

    /// A tenant decides how many files a volume has, and a file system whether it answers.
    #[tokio::test]
    async fn one_that_hangs_hides_no_other() {
        let (tasks, _failures) = Tasks::root();
        let (each, begun) = (Each::<u32>::default(), Arc::new(Mutex::new(0)));
        let measure = |hangs: bool, value: u32| {
            let begun = begun.clone();
            async move {
                *begun.lock() += 1;
                if hangs {
                    std::future::pending::<()>().await;
                }
                value
            }
        };
        let scraped = async |all: &[(&str, bool, u32)]| {
            let all = all.iter().map(|(key, hangs, value)| ((*key).to_owned(), measure(*hangs, *value))).collect();
            let found = each.scraped(&tasks, "test", all).await;
            let mut found: Vec<(String, u32)> = found.into_iter().map(|(key, value)| (key, *value)).collect();
            found.sort_unstable();
            found
        };
        let expected = |all: &[(&str, u32)]| all.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect::<Vec<_>>();
        assert_eq!(scraped(&[("hangs", true, 1), ("other", false, 2)]).await, expected(&[("hangs", 0), ("other", 2)]));
        // Who asks again, and leaves again, begins no second one of the same.
        for _ in 0..2 {
            let again = async { scraped(&[("hangs", true, 1), ("other", false, 3)]).await };
            assert_eq!(again.await, expected(&[("hangs", 0), ("other", 2)]));
        }
        assert_eq!(scraped(&[("new", false, 4)]).await, expected(&[("new", 4)]));
        assert_eq!(scraped(&[("hangs", true, 1)]).await, expected(&[("hangs", 0)]));
        assert_eq!(*begun.lock(), 3);
        assert!(!each.known.lock().contains_key("other"), "what is gone is forgotten");
    }
}
