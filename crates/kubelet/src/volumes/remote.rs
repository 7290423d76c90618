//! File systems of servers (NFS). Any call on one may hang for as long as its server does not answer: each is made by a thread of its own, which
//! nobody waits for longer than a time, and of which there are some. Nothing is written down of such a mount beside what the kernel tells of it:
//! like the mount itself that is there until it is taken away, or the machine ends, and not before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::statvfs::statvfs;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

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

/// Calls of one kind that may hang.
pub(super) struct Calls<T> {
    /// Most calls of one server at the same time, so that one that is dead takes not all that there are.
    of_server: usize,
    all: Arc<Semaphore>,
    servers: Mutex<BTreeMap<String, Arc<Semaphore>>>,
    running: Arc<Mutex<HashMap<String, watch::Receiver<Option<T>>>>>,
}

/// Removes a call from those that run, however it ends.
struct Running<T> {
    calls: Arc<Mutex<HashMap<String, watch::Receiver<Option<T>>>>>,
    key: String,
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.key);
    }
}

impl<T: Clone + Send + Sync + 'static> Calls<T> {
    /// At most so many calls of a server, and so many of all.
    pub(super) fn new(of_server: usize, all: usize) -> Self {
        Self { of_server, all: Arc::new(Semaphore::new(all)), servers: Mutex::default(), running: Arc::default() }
    }

    /// What a call gives. One of the same key that runs already is waited for instead of a second one. Who waits no longer ends nothing.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(super) async fn call(&self, server: &str, key: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let known = self.running.lock().get(key).cloned();
        let mut answer = match known {
            Some(known) => known,
            None => self.begin(server, key, work).await?,
        };
        let value = answer.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
        value.ok_or_else(|| io::Error::other("the call gave nothing"))
    }

    async fn begin(
        &self,
        server: &str,
        key: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<watch::Receiver<Option<T>>> {
        let own = self.turns(server);
        let turns = (own.acquire_owned().await, self.all.clone().acquire_owned().await);
        let mut running = self.running.lock();
        if let Some(begun) = running.get(key) {
            return Ok(begun.clone());
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(key.to_owned(), receiver.clone());
        let entry = Running { calls: self.running.clone(), key: key.to_owned() };
        drop(running);
        let thread = move || {
            let (_turns, value) = (turns, work());
            drop(entry);
            // Who has asked may have left.
            let _ = sender.send(Some(value));
        };
        std::thread::Builder::new().name("remote".to_owned()).stack_size(STACK).spawn(thread)?;
        Ok(receiver)
    }

    fn turns(&self, server: &str) -> Arc<Semaphore> {
        let mut servers = self.servers.lock();
        // Of which nobody has a turn or waits for one.
        servers.retain(|_, turns| Arc::strong_count(turns) > 1);
        servers.entry(server.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.of_server))).clone()
    }
}

/// Servers that are asked whether they answer, by file systems: one thread for each.
static ASKED: std::sync::LazyLock<Calls<bool>> = std::sync::LazyLock::new(|| Calls::new(usize::MAX >> 4, usize::MAX >> 4));
/// File systems that are unmounted. The last mount of one is left by the thread that unmounts it, which may take as long as its server likes.
static UNMOUNTED: std::sync::LazyLock<Calls<Result<(), Errno>>> =
    std::sync::LazyLock::new(|| Calls::new(usize::MAX >> 4, usize::MAX >> 4));

/// Whether the server of a file system answers.
///
/// # Errors
/// It cannot be asked.
async fn answers(mount: &Mount) -> io::Result<bool> {
    let point = mount.point.clone();
    // What a server refuses it has answered. Of mounts that give up after a time (`soft`) it is the kernel that says these.
    let ask = move || !matches!(statvfs(&point), Err(Errno::EIO | Errno::ETIMEDOUT | Errno::EHOSTUNREACH));
    let asked = ASKED.call("", &mount.device, ask);
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
/// One of them stays.
pub async fn tear_down(directory: &Path, other: &Path) -> Result<(), String> {
    let (directory, other) = (directory.to_owned(), other.to_owned());
    let look = move || {
        let other = points::in_table(&other)?.unwrap_or(other);
        let found = points::remote_below(&directory)?.into_iter();
        Ok(found.filter(|mount| !mount.point.starts_with(&other)).collect())
    };
    let mounts: Vec<Mount> = blocking(look).await?;
    let mut known = BTreeMap::new();
    for mount in mounts {
        if !known.contains_key(&mount.device) {
            // What was written and has not reached a server yet is given up only for one that is known to be dead.
            known.insert(mount.device.clone(), answers(&mount).await.unwrap_or(true));
        }
        unmount(mount.clone(), known[&mount.device]).await.map_err(|why| format!("{}: {why}", mount.point.display()))?;
    }
    Ok(())
}

/// Unmounts what is mounted at a place, as often as something is. What waits for a server that does not answer is given up, unless the file
/// system is mounted elsewhere, too, where others may wait for it (umount(2), `MNT_FORCE`).
async fn unmount(mount: Mount, answers: bool) -> Result<(), String> {
    let key = mount.point.display().to_string();
    let Mount { point, device, source, .. } = mount;
    let of = point.clone();
    let work = move || -> Result<(), Errno> {
        loop {
            let is_last = points::mounts().is_ok_and(|mounts| mounts.iter().filter(|mount| mount.device == device).count() == 1);
            let force = if is_last && !answers { MntFlags::MNT_FORCE } else { MntFlags::empty() };
            match umount2(&of, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW | force) {
                Ok(()) => {}
                Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    };
    let patience = UNMOUNT[usize::from(!answers)];
    match tokio::time::timeout(patience, UNMOUNTED.call("", &key, work)).await {
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

/// Bytes and inodes of a server's file system: nothing where it does not say so at once. One thread asks of each. Blocks no longer than that.
pub fn room(mount: &Mount) -> Option<(Supply, Supply)> {
    static MEASURED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if !MEASURED.lock().insert(mount.device.clone()) {
        return None;
    }
    let (sender, receiver) = mpsc::channel();
    let Mount { point, device, .. } = mount.clone();
    let ask = move || {
        let found = machine::disk(&point);
        MEASURED.lock().remove(&device);
        // Who has asked may have left.
        let _ = sender.send(found);
    };
    match std::thread::Builder::new().name("remote".to_owned()).stack_size(STACK).spawn(ask) {
        Ok(_) => receiver.recv_timeout(STATISTICS).ok().flatten(),
        Err(_) => {
            MEASURED.lock().remove(&mount.device);
            None
        }
    }
}

/// Bytes and inodes of what is mounted at a place. Blocks for as long as a file system of this node does.
pub fn room_of_mount(mounts: &Table, path: &Path) -> Option<(Supply, Supply)> {
    match mounts.at(path)? {
        mount if mount.is_remote() => room(mount),
        _ => machine::disk(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    /// Begins one that hangs until something is sent to it.
    async fn hangs(calls: &Calls<u8>, server: &str, key: &str) -> (mpsc::Sender<u8>, watch::Receiver<Option<u8>>) {
        let (sender, receiver) = mpsc::channel();
        let begun = calls.begin(server, key, move || receiver.recv().unwrap_or_default()).await;
        (sender, begun.unwrap())
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_made_once() {
        let calls = Calls::new(2, 3);
        let (sender, mut begun) = hangs(&calls, "a", "one").await;
        let late = tokio::time::timeout(SHORT, calls.call("a", "one", || unreachable!("it runs"))).await;
        assert!(late.is_err(), "nobody waits longer than he likes");
        let again = calls.call("a", "one", || unreachable!("it runs"));
        let (again, first) = tokio::join!(again, async {
            sender.send(7).unwrap();
            *begun.wait_for(Option::is_some).await.unwrap()
        });
        assert_eq!((again.unwrap(), first), (7, Some(7)));
        assert_eq!(calls.call("a", "one", || 8).await.unwrap(), 8, "then it may be made again");
        assert!(calls.running.lock().is_empty());
    }

    #[tokio::test]
    async fn a_server_that_is_dead_takes_not_all_threads() {
        let calls = Calls::new(2, 3);
        let hanging = [hangs(&calls, "dead", "one").await, hangs(&calls, "dead", "two").await];
        assert!(tokio::time::timeout(SHORT, hangs(&calls, "dead", "three")).await.is_err());
        assert_eq!(calls.running.lock().len(), 2, "the third waits for its turn without a thread");
        assert_eq!(calls.call("other", "four", || 4).await.unwrap(), 4);
        for (sender, mut begun) in hanging {
            sender.send(1).unwrap();
            assert_eq!(*begun.wait_for(Option::is_some).await.unwrap(), Some(1));
        }
        assert_eq!(calls.call("dead", "three", || 3).await.unwrap(), 3);
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
        let calls = Calls::<u8>::new(1, 1);
        assert!(calls.call("a", "one", || panic!("it is to")).await.is_err());
        assert_eq!(calls.call("a", "one", || 1).await.unwrap(), 1);
    }
}
