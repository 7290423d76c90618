//! File systems of servers (NFS). Any call on one may hang for as long as its server does not answer: each is made by a thread of its own, which
//! nobody waits for longer than a time, and of which there are some. Nothing is written down of such a mount beside what the kernel tells of it:
//! like the mount itself that is there until it is taken away, or the machine ends, and not before.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::points::{self, Mount, Table};
use crate::node::machine;
use crate::node::supply::Supply;

/// What such a thread needs of a stack, bytes.
const STACK: usize = 256 << 10;
/// How long a server may take to answer before a container of its volume starts, or the volume is taken away.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it is waited for the end of an unmount, with which a server gets what was written, and which the kernel goes on with by itself: of
/// one that answers, and of one that does not.
const UNMOUNT: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(10)];
/// How long who reads statistics waits for those of one file system.
const STATISTICS: Duration = Duration::from_millis(300);

/// Calls of one kind that may hang: at most one of a key at a time, each by a thread of its own.
pub(super) struct Calls<T>(Arc<Mutex<HashMap<String, Call<T>>>>);

/// One that runs.
#[derive(Clone)]
struct Call<T> {
    since: Instant,
    answer: watch::Receiver<Option<T>>,
    ended: Arc<Ended>,
}

/// Whether a call has ended, for threads that wait. A timer of the runtime is none for them: it panics where the runtime ends first.
#[derive(Default)]
struct Ended {
    has: Mutex<bool>,
    changed: Condvar,
}

/// Tells those who wait that a call has ended, when it is dropped: also where the call has panicked.
struct EndOnDrop(Arc<Ended>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        *self.0.has.lock() = true;
        self.0.changed.notify_all();
    }
}

/// Removes a call from those that run, however it ends.
struct Running<T> {
    calls: Arc<Mutex<HashMap<String, Call<T>>>>,
    key: String,
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.key);
    }
}

impl<T> Default for Calls<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Calls<T> {
    /// What a call gives. One of the same key that runs already is waited for instead of a second one. Who waits no longer ends nothing.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(super) async fn call(&self, key: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        self.begin(key, work)?.value().await
    }

    /// What the call of this key gives, if one runs.
    pub(super) async fn running(&self, key: &str) -> Option<io::Result<T>> {
        let call = self.0.lock().get(key).cloned()?;
        Some(call.value().await)
    }

    /// The same as [`Self::call`], if that comes within a time since the call began, whoever began it: for one that hangs nobody waits again. Blocking.
    fn call_within(&self, patience: Duration, key: &str, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let Call { since, answer, ended } = self.begin(key, work).ok()?;
        let mut has_ended = ended.has.lock();
        ended.changed.wait_while_until(&mut has_ended, |has_ended| !*has_ended, since + patience);
        answer.borrow().clone()
    }

    fn begin(&self, key: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<Call<T>> {
        let mut running = self.0.lock();
        if let Some(begun) = running.get(key) {
            return Ok(begun.clone());
        }
        let (sender, answer) = watch::channel(None);
        let call = Call { since: Instant::now(), answer, ended: Arc::default() };
        running.insert(key.to_owned(), call.clone());
        let entry = Running { calls: self.0.clone(), key: key.to_owned() };
        let end = EndOnDrop(call.ended.clone());
        drop(running);
        let thread = move || {
            let (_end, value) = (end, work());
            drop(entry);
            // Who has asked may have left.
            let _ = sender.send(Some(value));
        };
        std::thread::Builder::new().name("remote".to_owned()).stack_size(STACK).spawn(thread)?;
        Ok(call)
    }
}

impl<T: Clone> Call<T> {
    async fn value(mut self) -> io::Result<T> {
        let value = self.answer.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
        value.ok_or_else(|| io::Error::other("the call gave nothing"))
    }
}

/// How many calls may run: of one server, so that one that is dead takes not all that there are, and of all.
pub(super) struct Turns {
    of_server: usize,
    all: Arc<Semaphore>,
    servers: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// Gives its turn back when it is dropped.
pub(super) struct Turn(#[expect(dead_code)] [Option<OwnedSemaphorePermit>; 2]);

impl Turns {
    /// At most so many of a server, and so many of all.
    pub(super) fn new(of_server: usize, all: usize) -> Self {
        Self { of_server, all: Arc::new(Semaphore::new(all)), servers: Mutex::default() }
    }

    /// Waits for one.
    pub(super) async fn take(&self, server: &str) -> Turn {
        let own = {
            let mut servers = self.servers.lock();
            // Of which nobody has a turn or waits for one.
            servers.retain(|_, turns| Arc::strong_count(turns) > 1);
            servers.entry(server.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.of_server))).clone()
        };
        // Nobody closes them.
        let own = own.acquire_owned().await.ok();
        Turn([own, self.all.clone().acquire_owned().await.ok()])
    }
}

/// Servers that are asked whether they answer, by file systems: one thread for each.
static ASKED: LazyLock<Calls<bool>> = LazyLock::new(Calls::default);
/// File systems that are unmounted. The last mount of one is left by the thread that unmounts it, which may take as long as its server likes.
static UNMOUNTED: LazyLock<Calls<Result<(), Errno>>> = LazyLock::new(Calls::default);
/// Room of file systems.
static MEASURED: LazyLock<Calls<Option<(Supply, Supply)>>> = LazyLock::new(Calls::default);

/// Whether the server of a file system answers.
///
/// # Errors
/// It cannot be asked.
async fn answers(mount: &Mount) -> io::Result<bool> {
    let point = mount.point.clone();
    // What a server refuses it has answered. Of mounts that give up after a time (`soft`) it is the kernel that says these.
    let ask = move || !matches!(statvfs(&point), Err(Errno::EIO | Errno::ETIMEDOUT | Errno::EHOSTUNREACH));
    let asked = ASKED.call(&mount.device, ask);
    tokio::time::timeout(ANSWER, asked).await.unwrap_or(Ok(false))
}

/// Waits until the servers of what is mounted at these places answer, other places are passed over: containers get what is there, and whoever
/// looks into it would hang.
///
/// # Errors
/// A server does not answer.
pub async fn all_answer(places: Vec<PathBuf>) -> Result<(), String> {
    let look = move || {
        let table = Table::read().unwrap_or_default();
        let found = places.iter().filter_map(|place| table.at(place));
        found.filter(|mount| mount.is_remote()).cloned().collect::<Vec<_>>()
    };
    let mounts = tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())?;
    for mount in mounts {
        if !answers(&mount).await.map_err(|error| error.to_string())? {
            return Err(format!("the server of {} has not answered within {} s", mount.source, ANSWER.as_secs()));
        }
    }
    Ok(())
}

/// Unmounts the file systems of servers below a directory, but for those below `other`: whether the servers answer or not. Idempotent.
///
/// # Errors
/// One of them stays; that of the first one. All others are unmounted.
pub async fn tear_down(directory: &Path, other: &Path) -> Result<(), String> {
    let (directory, other) = (directory.to_owned(), other.to_owned());
    let look = move || {
        let other = points::in_table(&other)?.unwrap_or(other);
        let found = points::remote_below(&directory)?.into_iter();
        Ok(found.filter(|mount| !mount.point.starts_with(&other)).collect())
    };
    let mounts: Vec<Mount> = blocking(look).await?;
    let (mut known, mut all) = (BTreeMap::new(), Ok(()));
    for mount in mounts {
        if !known.contains_key(&mount.device) {
            // What was written and has not reached a server yet is given up only for one that is known to be dead.
            known.insert(mount.device.clone(), answers(&mount).await.unwrap_or(true));
        }
        let unmounted = unmount(mount.clone(), known[&mount.device]).await;
        all = all.and(unmounted.map_err(|why| format!("{}: {why}", mount.point.display())));
    }
    all
}

/// Unmounts what is mounted at a place, as often as something is. What waits for a server that does not answer is given up, unless the file
/// system is mounted elsewhere, too, where others may wait for it (umount(2), `MNT_FORCE`).
async fn unmount(mount: Mount, answers: bool) -> Result<(), String> {
    let key = mount.point.display().to_string();
    let Mount { point, device, source, .. } = mount;
    let of = point.clone();
    let is_last = move || points::mounts().is_ok_and(|mounts| mounts.iter().filter(|mount| mount.device == device).count() == 1);
    let work = move || points::unmount(&of, || !answers && is_last());
    let patience = UNMOUNT[usize::from(!answers)];
    match tokio::time::timeout(patience, UNMOUNTED.call(&key, work)).await {
        Ok(done) => return done.map_err(|error| error.to_string())?.map_err(|error| error.desc().to_owned()),
        Err(_) => tracing::warn!(source, answers, "it takes long to unmount an export: the kernel goes on with it"),
    }
    match blocking(move || points::at(&point)).await? {
        None => Ok(()),
        Some(_) => Err(format!("it is not unmounted within {} s", patience.as_secs())),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Bytes and inodes of a file system that may hang: nothing where it does not say so at once. Blocks no longer than that.
pub fn room(mount: &Mount) -> Option<(Supply, Supply)> {
    let point = mount.point.clone();
    MEASURED.call_within(STATISTICS, &mount.device, move || machine::disk(&point)).flatten()
}

/// Bytes and inodes of what is mounted at a place. Blocks for as long as a file system of this node does.
pub fn room_of_mount(mounts: &Table, path: &Path) -> Option<(Supply, Supply)> {
    match mounts.at(path)? {
        mount if mount.may_hang() => room(mount),
        _ => machine::disk(path),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    /// Begins one that hangs until something is sent to it.
    fn hangs(calls: &Calls<u8>, key: &str) -> (mpsc::Sender<u8>, Call<u8>) {
        let (sender, receiver) = mpsc::channel();
        let begun = calls.begin(key, move || receiver.recv().unwrap_or_default());
        (sender, begun.unwrap())
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_made_once() {
        let calls = Calls::default();
        let (sender, begun) = hangs(&calls, "one");
        let late = tokio::time::timeout(SHORT, calls.call("one", || unreachable!("it runs"))).await;
        assert!(late.is_err(), "nobody waits longer than he likes");
        let again = calls.call("one", || unreachable!("it runs"));
        let (again, first, running) = tokio::join!(again, begun.value(), async {
            sender.send(7).unwrap();
            calls.running("one").await
        });
        assert_eq!((again.unwrap(), first.unwrap()), (7, 7));
        assert!(running.is_none_or(|value| value.unwrap() == 7));
        assert_eq!(calls.call("one", || 8).await.unwrap(), 8, "then it may be made again");
        assert!(calls.0.lock().is_empty() && calls.running("one").await.is_none());
    }

    /// Of the volumes of a dead server each is asked for its room: all of them together take no longer than one.
    #[tokio::test]
    async fn what_hangs_is_waited_for_once() {
        let calls = Arc::new(Calls::default());
        let (sender, begun) = hangs(&calls, "one");
        let ask = |patience: Duration| {
            let calls = calls.clone();
            tokio::task::spawn_blocking(move || calls.call_within(patience, "one", || unreachable!("it runs")))
        };
        assert_eq!(ask(SHORT).await.unwrap(), None);
        assert!(begun.since.elapsed() >= SHORT);
        // The time is up since long: nobody who asks again waits.
        assert_eq!(ask(Duration::ZERO).await.unwrap(), None);
        sender.send(7).unwrap();
        begun.value().await.unwrap();
        let calls = calls.clone();
        let answered = tokio::task::spawn_blocking(move || calls.call_within(Duration::from_secs(60), "one", || 8));
        assert_eq!(answered.await.unwrap(), Some(8));
    }

    #[tokio::test]
    async fn a_server_that_is_dead_takes_not_all_turns() {
        let turns = Turns::new(2, 3);
        let (one, two) = (turns.take("dead").await, turns.take("dead").await);
        assert!(tokio::time::timeout(SHORT, turns.take("dead")).await.is_err());
        drop(turns.take("other").await);
        drop(one);
        let three = turns.take("dead").await;
        drop((two, three));
        drop(turns.take("new").await);
        assert!(turns.servers.lock().keys().eq(["new"]), "nobody remembers servers of which nothing runs");
    }

    /// What the kernel tells of mounts is taken as it is: nothing looks at the places.
    #[tokio::test]
    async fn what_is_on_this_node_is_not_asked() {
        let directory = tempfile::tempdir().unwrap();
        all_answer(vec![directory.path().to_owned(), PathBuf::from("/proc"), PathBuf::from("/nonexistent/x")]).await.unwrap();
        tear_down(directory.path(), &directory.path().join("other")).await.unwrap();
        let mounts = Table::read().unwrap();
        assert!(room_of_mount(&mounts, Path::new("/proc")).is_some() && room_of_mount(&mounts, directory.path()).is_none());
    }

    #[tokio::test]
    async fn a_call_that_ends_badly_is_over() {
        let calls = Calls::<u8>::default();
        assert!(calls.call("one", || panic!("it is to")).await.is_err());
        assert_eq!(calls.call("one", || 1).await.unwrap(), 1);
    }
}
