//! What takes long to measure: one measures at a time, and whoever asks gets what was measured last.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a scrape waits for a measurement that it has begun; then it gets what is known from before.
const PATIENCE: Duration = Duration::from_millis(500);
/// What scrapes get is at least so old before it is measured again, and no more than a tenth of a processor is used for that.
const PAUSE: Duration = Duration::from_secs(10);

/// A measurement. Clones are the same one.
pub(crate) struct Paced<T>(Arc<Mutex<Last<T>>>);

/// What was measured last.
struct Last<T> {
    value: Arc<T>,
    /// Scrapes measure again from then on.
    due: Option<Instant>,
    is_running: bool,
}

impl<T: Default> Default for Paced<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Last { value: Arc::default(), due: None, is_running: false })))
    }
}

impl<T> Clone for Paced<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + Sync + 'static> Paced<T> {
    /// Measures now, and remembers it for scrapes.
    pub(crate) async fn measured(&self, measure: impl Future<Output = T>) -> Arc<T> {
        let begun = Instant::now();
        let value = Arc::new(measure.await);
        let ended = Instant::now();
        let mut last = self.0.lock();
        last.due = Some(ended + PAUSE.max((ended - begun) * 9));
        last.value = value.clone();
        value
    }

    /// What is known, measured anew when it is time to. Whoever asked may leave: the measurement goes on for the next one.
    pub(crate) async fn scraped<F>(&self, tasks: &Tasks, name: &'static str, measure: impl FnOnce() -> F) -> Arc<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        if self.begin(Instant::now()) {
            let (turn, work) = (Turn(self.clone()), measure());
            let (done, is_done) = tokio::sync::oneshot::channel();
            tasks.spawn_until_cancelled(name, OnFailure::Log, async move {
                turn.0.measured(work).await;
                drop(turn);
                // Who asked may have gone on with what was known.
                let _ = done.send(());
                Ok::<_, Infallible>(())
            });
            // What is not known in time is there at the next scrape.
            let _ = tokio::time::timeout(PATIENCE, is_done).await;
        }
        self.0.lock().value.clone()
    }

    /// Whether it is time to measure, by whoever asks first.
    fn begin(&self, now: Instant) -> bool {
        let mut last = self.0.lock();
        let begins = !last.is_running && last.due.is_none_or(|due| due <= now);
        last.is_running |= begins;
        begins
    }
}

/// Held by who measures.
struct Turn<T>(Paced<T>);

impl<T> Drop for Turn<T> {
    fn drop(&mut self) {
        self.0.0.lock().is_running = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_measures_and_not_all_the_time() {
        let (paced, now) = (Paced::<u32>::default(), Instant::now());
        assert!(paced.begin(now) && !paced.begin(now), "one measures");
        drop(Turn(paced.clone()));
        paced.0.lock().due = Some(now + PAUSE);
        assert!(!paced.begin(now + PAUSE / 2) && paced.begin(now + PAUSE));
    }

    #[tokio::test]
    async fn a_scrape_gets_what_was_measured_last() {
        let (tasks, _failures) = Tasks::root();
        let paced = Paced::<u32>::default();
        let due = || paced.0.lock().due = None;
        assert_eq!(*paced.scraped(&tasks, "test", || async { 7 }).await, 7);
        assert_eq!(*paced.measured(async { 8 }).await, 8);
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
}
