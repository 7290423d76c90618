//! Heavy work runs beside the threads that serve requests, and only so much of it at once.
//!
//! A thread that serves requests and decodes some megabytes serves nobody else meanwhile; as many such requests as there are
//! processors would stop everything, probes and health checks included.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::{Held, Meter};

/// Bytes from which on it is worth the way to another thread.
pub const HEAVY: usize = 100 << 10;

struct Places {
    count: usize,
    free: Semaphore,
    /// What each owner may still take of them, as long as it has some or waits for some.
    shares: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    meter: Meter,
}

static PLACES: LazyLock<Places> = LazyLock::new(|| {
    let count = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    Places { count, free: Semaphore::new(count), shares: Mutex::default(), meter: Meter::new("heavy_work", count) }
});

/// Does work on `size` bytes, in the place of the work around it, if it is part of any.
pub async fn work<T>(size: usize, work: impl FnOnce() -> T) -> T {
    run(None, size, async { work() }).await
}

tokio::task_local! {
    /// The work that runs in this task.
    static WORK: RefCell<Work>;
}

/// Heavy work.
struct Work {
    owner: Option<Arc<str>>,
    /// None while it waits for somebody else.
    place: Option<Place>,
    /// How many of its parts do.
    waits: usize,
}

/// A place, taken.
struct Place {
    // Dropped in this order: the place is free before its owner may take another.
    _permit: SemaphorePermit<'static>,
    _held: Held,
    _share: Option<Share>,
}

/// One of the places that an owner may take: all but one, so that others need not wait for what takes long.
struct Share {
    owner: Arc<str>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Share {
    async fn of(owner: Arc<str>) -> Self {
        let most = || Arc::new(Semaphore::new(PLACES.count - 1));
        let free = PLACES.shares.lock().entry(owner.clone()).or_insert_with(most).clone();
        // Whoever stops to wait leaves nothing behind.
        let mut share = Self { owner, permit: None };
        share.permit = free.acquire_owned().await.ok();
        share
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = PLACES.shares.lock();
        self.permit = None;
        // Others hold it as long as they wait for it, or have a part of it.
        if shares.get(&self.owner).is_some_and(|free| Arc::strong_count(free) == 1) {
            shares.remove(&self.owner);
        }
    }
}

async fn place(owner: Option<Arc<str>>) -> Option<Place> {
    let _share = match owner {
        Some(owner) => Some(Share::of(owner).await),
        None => None,
    };
    // The semaphore is never closed.
    let permit = PLACES.free.acquire().await.ok()?;
    Some(Place { _permit: permit, _held: PLACES.meter.hold(), _share })
}

/// Runs a future whose work between its waits grows with `size` bytes, for an owner such as a user. It has its place until it ends, but while it
/// is [`released`]; what is part of other work that has one takes no other, since those who wait for a second place would wait for each other.
pub async fn run<F: Future>(owner: Option<&str>, size: usize, future: F) -> F::Output {
    if size < HEAVY {
        return future.await;
    }
    let mut future = std::pin::pin!(future);
    let work = std::future::poll_fn(|cx| aside(|| future.as_mut().poll(cx)));
    if WORK.try_with(|around| around.borrow().place.is_some()).unwrap_or(false) {
        return work.await;
    }
    let owner = owner.map(Arc::from);
    let place = place(owner.clone()).await;
    WORK.scope(RefCell::new(Work { owner, place, waits: 0 }), work).await
}

/// Runs a future that mostly waits for somebody else, such as a webhook: the place of the work around it is given to others
/// meanwhile, so that who answers slowly does not keep it. Where several parts of the work wait side by side, it has its place again when all of
/// them have ended.
pub async fn released<F: Future>(future: F) -> F::Output {
    let begun = WORK.try_with(|work| {
        let mut work = work.borrow_mut();
        work.waits += 1;
        work.place.take()
    });
    let Ok(had) = begun else { return future.await };
    drop(had);
    let waiting = Waiting;
    let output = future.await;
    drop(waiting);
    let owner = WORK.try_with(|work| {
        let work = work.borrow();
        (work.waits == 0 && work.place.is_none()).then(|| work.owner.clone())
    });
    if let Ok(Some(owner)) = owner {
        let again = place(owner).await;
        let _ = WORK.try_with(|work| {
            let mut work = work.borrow_mut();
            if work.waits == 0 {
                work.place = again;
            }
        });
    }
    output
}

/// A part of work that waits, until it is dropped.
struct Waiting;

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = WORK.try_with(|work| work.borrow_mut().waits -= 1);
    }
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
            run(None, HEAVY, async move {
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
            run(None, HEAVY, async move {
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

    /// As many as there are places do more heavy work as part of their own, and all of them end.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn parts_of_heavy_work_take_no_other_place() {
        let started = tokio::sync::Barrier::new(PLACES.count);
        let whole = (0..PLACES.count).map(|_| {
            run(None, HEAVY, async {
                started.wait().await;
                run(Some("a"), HEAVY, async { work(HEAVY, || 1).await }).await
            })
        });
        assert_eq!(futures::future::join_all(whole).await.iter().sum::<usize>(), PLACES.count);
    }

    /// One owner has all that it can get, and another one works all the same; what it had is forgotten.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn others_have_a_place() {
        let (open, waits) = tokio::sync::watch::channel(false);
        let begun = tokio::sync::Semaphore::new(0);
        let many = (0..2 * PLACES.count).map(|_| {
            let mut waits = waits.clone();
            let begun = &begun;
            run(Some("greedy"), HEAVY, async move {
                begun.add_permits(1);
                waits.wait_for(|open| *open).await.map(|_| ()).unwrap();
            })
        });
        let another = async {
            let all = u32::try_from(PLACES.count - 1).unwrap();
            begun.acquire_many(all).await.unwrap().forget();
            let result = run(Some("other"), HEAVY, async { 1 }).await;
            assert_eq!(begun.available_permits(), 0, "one owner had every place");
            open.send_replace(true);
            result
        };
        let (_, result) = tokio::join!(futures::future::join_all(many), another);
        assert_eq!(result, 1);
        let shares = PLACES.shares.lock();
        assert!(!shares.contains_key("greedy") && !shares.contains_key("other"));
    }

    /// Several parts of the work of each place wait side by side, one of which has ended: another one works meanwhile.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn parts_that_wait_side_by_side_keep_no_place() {
        let (open, waits) = tokio::sync::watch::channel(false);
        let ended = tokio::sync::Semaphore::new(0);
        let working = (0..PLACES.count).map(|_| {
            let mut waits = waits.clone();
            let ended = &ended;
            run(None, HEAVY, async move {
                let slow = released(async { waits.wait_for(|open| *open).await.map(|_| ()) });
                let fast = async {
                    released(std::future::ready(())).await;
                    ended.add_permits(1);
                };
                let (slow, ()) = tokio::join!(slow, fast);
                slow.unwrap();
                assert!(WORK.with(|work| work.borrow().place.is_some()), "it has no place again");
            })
        });
        let another = async {
            ended.acquire_many(u32::try_from(PLACES.count).unwrap()).await.unwrap().forget();
            let result = work(HEAVY, || 1).await;
            open.send_replace(true);
            result
        };
        let (_, result) = tokio::join!(futures::future::join_all(working), another);
        assert_eq!(result, 1);
    }

    /// Whoever stops to wait leaves nothing behind, and gets a place later.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_stops_to_wait() {
        let all = futures::future::try_join_all((1..PLACES.count).map(|_| async { place(Some("a".into())).await.ok_or(()) }))
            .await
            .unwrap();
        let mut waiting = Box::pin(run(Some("a"), HEAVY, async { 1 }));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(waiting);
        drop(all);
        assert!(PLACES.shares.lock().is_empty());
        assert_eq!(run(Some("a"), HEAVY, async { 1 }).await, 1);
    }

    #[tokio::test]
    async fn works_on_one_thread_too() {
        assert_eq!(work(HEAVY, || 1).await + work(1, || 1).await, 2);
    }
}
