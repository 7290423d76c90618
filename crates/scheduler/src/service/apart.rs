//! What is written and asked beside decisions, in tasks of its own: a decision holds up the scheduler's task for as long as it takes, and what
//! would be polled there between decisions would wait for one of them at each step.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use base::tasks::{OnFailure, Tasks};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Panics;

/// Work under way, whose answers come back to whoever waits for [`Apart::next`].
pub(super) struct Apart<T> {
    name: &'static str,
    tasks: Tasks,
    panics: Arc<Panics>,
    answers: FuturesUnordered<BoxFuture<'static, T>>,
}

impl<T: Send + 'static> Apart<T> {
    pub(super) fn new(name: &'static str, tasks: &Tasks, panics: Arc<Panics>) -> Self {
        Self { name, tasks: tasks.clone(), panics, answers: FuturesUnordered::new() }
    }

    /// Begins with it. Its panic is one of whoever waits for the answer, about the pod that is being tried now; it ends when nobody waits any more.
    pub(super) fn push(&mut self, work: impl Future<Output = T> + Send + 'static) {
        let (sender, receiver) = oneshot::channel();
        let unwanted = CancellationToken::new();
        let wanted = unwanted.clone().drop_guard();
        self.tasks.spawn_until_cancelled(self.name, OnFailure::Log, async move {
            if let Some(answer) = unwanted.run_until_cancelled(AssertUnwindSafe(work).catch_unwind()).await {
                // The one who waited may just have gone.
                let _ = sender.send(answer);
            }
            Ok::<_, Infallible>(())
        });
        let (panics, about) = (self.panics.clone(), self.panics.current());
        let answer = async move {
            let _wanted = wanted;
            match receiver.await {
                Ok(Ok(answer)) => answer,
                Ok(Err(panic)) => {
                    panics.blame(about);
                    resume_unwind(panic)
                }
                // The process ends.
                Err(_) => std::future::pending().await,
            }
        };
        self.answers.push(answer.boxed());
    }

    pub(super) fn extend(&mut self, works: impl IntoIterator<Item = BoxFuture<'static, T>>) {
        works.into_iter().for_each(|work| self.push(work));
    }

    /// The next answer; none when nothing is under way.
    pub(super) async fn next(&mut self) -> Option<T> {
        self.answers.next().await
    }

    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Waits for no answer any more.
    #[cfg(test)]
    pub(super) fn clear(&mut self) {
        self.answers.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::panics::Stage;
    use super::*;

    /// Between two looks at its answer, work goes on that has many steps.
    #[tokio::test]
    async fn work_goes_on_while_nobody_looks() {
        let (tasks, _failures) = Tasks::root();
        let mut apart = Apart::new("test", &tasks, Arc::default());
        assert!(apart.is_empty() && apart.next().await.is_none());
        let (done, finished) = oneshot::channel();
        apart.push(async move {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            done.send(()).unwrap();
            7
        });
        finished.await.unwrap();
        assert_eq!((apart.len(), apart.next().await), (1, Some(7)));
    }

    #[tokio::test]
    async fn work_ends_that_nobody_wants_any_more() {
        let (tasks, _failures) = Tasks::root();
        let mut apart = Apart::<()>::new("test", &tasks, Arc::default());
        let (held, dropped) = oneshot::channel::<()>();
        apart.push(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        apart.clear();
        assert!(dropped.await.is_err());
    }

    #[tokio::test]
    async fn a_panic_is_one_of_whoever_waits() {
        let (tasks, _failures) = Tasks::root();
        let panics = Arc::<Panics>::default();
        let mut apart = Apart::<u8>::new("test", &tasks, panics.clone());
        panics.about("bad", Stage::Tried, || apart.push(async { std::panic::panic_any("no answer") }));
        assert_eq!(panics.current(), None);
        let waited = AssertUnwindSafe(apart.next()).catch_unwind().await;
        assert_eq!(waited.unwrap_err().downcast_ref::<&str>(), Some(&"no answer"));
        // The pod that it was about is held.
        assert_eq!(panics.hold(tokio::time::Instant::now()).as_deref(), Some("bad"));
    }
}
