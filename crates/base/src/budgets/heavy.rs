//! Heavy work runs beside the threads that serve requests, and only so much of it at once.
//!
//! A thread that serves requests and decodes some megabytes serves nobody else meanwhile; as many such requests as there are
//! processors would stop everything, probes and health checks included.

use std::cell::RefCell;
use std::future::Future;
use std::sync::LazyLock;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Held, Meter};

/// Bytes from which on it is worth the way to another thread.
pub const HEAVY: usize = 100 << 10;

struct Places {
    free: Semaphore,
    meter: Meter,
}

static PLACES: LazyLock<Places> = LazyLock::new(|| {
    let count = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    Places { free: Semaphore::new(count), meter: Meter::new("heavy_work", count) }
});

/// Does work on `size` bytes.
pub async fn work<T>(size: usize, work: impl FnOnce() -> T) -> T {
    run(size, async { work() }).await
}

tokio::task_local! {
    /// The place of the work that runs in this task.
    static PLACE: RefCell<Option<Place>>;
}

/// A place, taken.
struct Place {
    _permit: SemaphorePermit<'static>,
    _held: Held,
}

async fn place() -> Option<Place> {
    // The semaphore is never closed.
    let permit = PLACES.free.acquire().await.ok()?;
    Some(Place { _permit: permit, _held: PLACES.meter.hold() })
}

/// Runs a future whose work between its waits grows with `size` bytes. It has its place until it ends, but while it is
/// [`released`].
pub async fn run<F: Future>(size: usize, future: F) -> F::Output {
    if size < HEAVY {
        return future.await;
    }
    let place = RefCell::new(place().await);
    PLACE
        .scope(place, async {
            let mut future = std::pin::pin!(future);
            std::future::poll_fn(|cx| aside(|| future.as_mut().poll(cx))).await
        })
        .await
}

/// Runs a future that mostly waits for somebody else, such as a webhook: the place of the work around it is given to others
/// meanwhile, so that who answers slowly does not keep it.
pub async fn released<F: Future>(future: F) -> F::Output {
    let had = PLACE.try_with(|place| place.take()).ok().flatten();
    let has_one = had.is_some();
    drop(had);
    let output = future.await;
    if has_one {
        let again = place().await;
        let _ = PLACE.try_with(|place| place.replace(again));
    }
    output
}

/// Gives up the thread's other tasks to another thread before a long piece of work.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    /// More heavy work than there are threads, none of which ends before a light task has run.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn others_go_on() {
        let (done, wait) = (Arc::new(AtomicUsize::new(0)), 2);
        let gates: Vec<_> = (0..wait).map(|_| mpsc::channel::<()>()).collect();
        let (open, shut): (Vec<_>, Vec<_>) = gates.into_iter().unzip();
        let heavy = shut.into_iter().map(|gate| {
            let done = done.clone();
            run(HEAVY, async move {
                gate.recv().unwrap();
                done.fetch_add(1, Ordering::SeqCst);
            })
        });
        let heavy = heavy.map(|future| Box::pin(future) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>);
        let (tasks, _failures) = crate::tasks::Tasks::root();
        for future in heavy {
            tasks.spawn("heavy", crate::tasks::OnFailure::Log, async move {
                future.await;
                Ok::<_, String>(())
            });
        }
        // This task needs a thread while both are blocked.
        let (told, hears) = tokio::sync::oneshot::channel();
        tasks.spawn("light", crate::tasks::OnFailure::Log, async move {
            told.send(()).unwrap();
            Ok::<_, String>(())
        });
        hears.await.unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 0);
        open.iter().for_each(|gate| gate.send(()).unwrap());
        assert!(tasks.drain(std::time::Duration::from_secs(30)).await);
        assert_eq!(done.load(Ordering::SeqCst), wait);
    }

    /// As many as there are places wait for somebody, and another one works meanwhile.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_waits_keeps_no_place() {
        let count = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        let (open, waits) = tokio::sync::watch::channel(false);
        let waiting = (0..count).map(|_| {
            let mut waits = waits.clone();
            run(HEAVY, async move {
                released(async { waits.wait_for(|open| *open).await.map(|_| ()) }).await.unwrap();
                released(std::future::ready(())).await;
            })
        });
        let another = async {
            let result = work(HEAVY, || 1).await;
            open.send_replace(true);
            result
        };
        let (_, result) = tokio::join!(futures::future::join_all(waiting), another);
        assert_eq!(result, 1);
    }

    #[tokio::test]
    async fn works_on_one_thread_too() {
        assert_eq!(work(HEAVY, || 1).await + work(1, || 1).await, 2);
    }
}
