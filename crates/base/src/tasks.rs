//! Supervised tasks.
//!
//! Every future that outlives its caller runs under [`Tasks`], which names it, says what its failure means
//! and waits for it at shutdown. A panic is a failure like any other; nothing dies unseen.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the supervisor does when a task returns an error or panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The process cannot do its work without this task: stop everything, exit non-zero.
    Shutdown,
    /// Log it. For tasks whose caller learns of the failure in another way, such as one connection.
    Log,
}

/// The first failure of a task declared [`OnFailure::Shutdown`].
#[derive(Debug)]
pub struct Failure {
    /// The task's name.
    pub task: String,
    /// The error with its causes, or the panic message.
    pub error: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: {}", self.task, self.error)
    }
}

impl std::error::Error for Failure {}

/// Receives the failures that end the process.
pub type Failures = mpsc::Receiver<Failure>;

/// A group of tasks that is cancelled and drained as one. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
    failures: mpsc::Sender<Failure>,
}

impl Tasks {
    /// The root group of a process, and where its fatal failures arrive.
    pub fn root() -> (Self, Failures) {
        let (failures, receiver) = mpsc::channel(16);
        (Self { token: CancellationToken::new(), tracker: TaskTracker::new(), failures }, receiver)
    }

    /// A group that ends with this one, or alone by its own [`Tasks::drain`].
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), tracker: TaskTracker::new(), failures: self.failures.clone() }
    }

    /// Cancelled when the group must stop.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Runs `future` under this group. The future watches [`Tasks::token`] itself and returns after cleaning up.
    pub fn spawn<F, E>(&self, name: impl Into<Cow<'static, str>>, on_failure: OnFailure, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        self.supervise(name.into(), on_failure, any(future));
    }

    /// Like [`Tasks::spawn`], dropped at its next await point when the group is cancelled. For futures that hold
    /// nothing which needs an orderly end.
    pub fn spawn_until_cancelled<F, E>(&self, name: impl Into<Cow<'static, str>>, on_failure: OnFailure, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        self.supervise(name.into(), on_failure, until_cancelled(self.token(), any(future)));
    }

    #[allow(clippy::disallowed_methods)] // The one place where tasks are born.
    fn supervise(&self, name: Cow<'static, str>, on_failure: OnFailure, future: Any) {
        let failures = self.failures.clone();
        self.tracker.spawn(async move {
            let error = match std::panic::AssertUnwindSafe(future).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(panic) => format!("panic: {}", panic_message(panic.as_ref())),
            };
            match on_failure {
                OnFailure::Log => tracing::warn!(task = %name, %error, "task failed"),
                OnFailure::Shutdown => {
                    tracing::error!(task = %name, %error, "task failed, shutting down");
                    // A full channel means that a shutdown is already under way.
                    let _ = failures.try_send(Failure { task: name.into_owned(), error });
                }
            }
        });
    }

    /// Number of tasks that still run.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task runs.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Cancels the group and waits for its tasks, at most `timeout`. False when some were still running.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(timeout, self.tracker.wait()).await.is_ok()
    }
}

/// What any task does. One type for all of them: the runtime's part of a task is compiled for each type of future, and there are hundreds.
type Any = BoxFuture<'static, Result<(), String>>;

fn any<E: fmt::Display>(future: impl Future<Output = Result<(), E>> + Send + 'static) -> Any {
    Box::pin(async move { future.await.map_err(|error| format!("{error:#}")) })
}

fn until_cancelled(token: CancellationToken, future: Any) -> Any {
    Box::pin(async move { token.run_until_cancelled_owned(future).await.unwrap_or(Ok(())) })
}

/// What a panic said.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown cause")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_panic_and_an_error_reach_the_owner() {
        let (tasks, mut failures) = Tasks::root();
        tasks.spawn("panics", OnFailure::Shutdown, async { if true { panic!("boom") } else { Ok::<_, String>(()) } });
        assert_eq!(failures.recv().await.unwrap().to_string(), "panics failed: panic: boom");
        tasks.spawn("errs", OnFailure::Shutdown, async { Err("bad") });
        assert_eq!(failures.recv().await.unwrap().to_string(), "errs failed: bad");
    }

    #[tokio::test]
    async fn draining_a_child_leaves_the_parent() {
        let (tasks, _failures) = Tasks::root();
        let child = tasks.child();
        let token = child.token();
        child.spawn("waits", OnFailure::Log, async move {
            token.cancelled().await;
            Ok::<_, String>(())
        });
        assert!(child.drain(Duration::from_secs(5)).await);
        assert!(!tasks.token().is_cancelled());
    }
}
