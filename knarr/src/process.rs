//! What the long-running commands have in common: how they begin, what ends them, and directories that are theirs alone.

use std::fs::File;
use std::future::Future;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::tasks::{Failures, OnFailure, Tasks};
use kubelet::shutdown::{self, Periods};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::running::Running;
use crate::systemd;

/// How long after the start the code that only the start needs is let go of.
const SETTLED: Duration = Duration::from_secs(3);

/// How long what blocks threads may still take when everything has ended.
const BLOCKED: Duration = Duration::from_secs(1);

/// How often memory that is free is given back: nothing tells when a load is over.
const GIVEN_BACK: Duration = Duration::from_secs(30);

/// Runs a command's work on a new runtime.
pub(crate) fn run(work: impl Future<Output = Result<()>>) -> Result<()> {
    // Files for pods have modes that their users need; what is private gets its own mode. The starter's mask is for neither.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    if let Err(error) = base::budgets::descriptors::raise() {
        tracing::warn!(%error, "cannot raise the limit of descriptors");
    }
    if let Err(error) = base::budgets::oom::protect() {
        tracing::info!(%error, "no oom_score_adj of {}: of equally large processes, the kernel may kill this one", base::budgets::oom::SERVER);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().on_thread_park(runtime::memory::idle).build()?;
    again(finish(runtime, work))
}

/// Runs work to its end, and waits no longer than [`BLOCKED`] for what blocks threads: users decide how many files a removal has, and it is
/// gone on with at the next start, as after a crash.
fn finish<T>(runtime: tokio::runtime::Runtime, work: impl Future<Output = T>) -> T {
    let ended = runtime.block_on(work);
    runtime.shutdown_timeout(BLOCKED);
    ended
}

/// Signals that end a process, each in the same way: it drains.
const ENDING: [SignalKind; 4] = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()];

/// What ends the process: a signal, or the failure of a task.
pub(crate) struct Ending {
    signals: Vec<Signal>,
    failures: Failures,
}

impl Ending {
    /// Listens from now on. Whoever starts a process with SIGHUP ignored (nohup) means it to outlive their terminal: that stays so.
    pub(crate) fn new(failures: Failures) -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let is_meant = |kind: &SignalKind| *kind != SignalKind::hangup() || !is_ignored(&status, *kind);
        let signals = ENDING.into_iter().filter(is_meant).map(signal).collect::<std::io::Result<_>>()?;
        Ok(Self { signals, failures })
    }

    /// Waits for the end, also while `started` is under way; its failure is an end, too.
    pub(crate) async fn wait(&mut self, started: impl Future<Output = Result<()>>) -> Result<()> {
        let running = async {
            match started.await {
                Ok(()) => std::future::pending().await,
                Err(error) => Err(error),
            }
        };
        tokio::select! {
            result = running => result,
            () = any(&mut self.signals) => Ok(()),
            failure = self.failures.recv() => failure.map_or(Ok(()), |failure| Err(failure.into())),
        }
    }
}

impl Ending {
    /// Ends the pods of the node in these periods, where there are some, before it stops. Another signal ends the waiting for them.
    pub(crate) async fn drain(&mut self, node: &Running, periods: Option<Periods>) {
        let (Some(kubelet), Some(periods)) = (node.get(), periods) else {
            tracing::info!("stopping; pods keep running");
            return;
        };
        let at_most = shutdown::at_most(&periods);
        tracing::info!(?at_most, "stopping; pods are ended first (--drain-on-exit)");
        tokio::select! {
            () = kubelet.drain(&periods) => {}
            () = any(&mut self.signals) => tracing::warn!("told to stop again: pods that have not ended keep running"),
        }
    }
}

/// Waits for one of the signals.
async fn any(signals: &mut [Signal]) {
    std::future::poll_fn(|cx| match signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// Whether a process ignores a signal, by its /proc/PID/status (proc_pid_status(5): a mask in hexadecimal digits).
fn is_ignored(status: &str, kind: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

/// Why a process starts again: what its node was built for has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Again {
    /// The default route has another address.
    #[error("this machine has another address, {0}")]
    Address(IpAddr),
    /// The node was deleted, and has been given other ranges since.
    #[error("the node has other pod ranges: {0}")]
    Ranges(String),
    /// The server says otherwise what the cluster is than it did when this node began.
    #[error("the cluster is another than this node knew")]
    Cluster,
    /// Somebody has begun or finished a rotation (`knarr certificate rotate-ca`).
    #[error("the cluster's authorities are others")]
    Authorities,
}

/// Waits until the node must be built anew, which is an error. `own` is the address that the machine had by itself, none if it was
/// given; the node tells what else has changed.
pub(crate) async fn until_changed(own: Option<IpAddr>, node: Option<mpsc::Receiver<Again>>) -> Result<()> {
    let told = async {
        let Some(mut node) = node else { return std::future::pending().await };
        match node.recv().await {
            Some(again) => again,
            None => std::future::pending().await,
        }
    };
    let again = tokio::select! {
        again = told => again,
        address = moved(own) => Again::Address(address?),
    };
    Err(again.into())
}

/// Waits until the default route has another address than `own`.
async fn moved(own: Option<IpAddr>) -> Result<IpAddr> {
    let Some(own) = own else { return std::future::pending().await };
    let mut changes = network::addresses::Changes::new()?;
    loop {
        // A machine that is cut off has no address for the moment: it has not moved.
        match crate::routed_address() {
            Some(now) if now != own => return Ok(now),
            _ => changes.next().await?,
        }
    }
}

/// Tells the service manager that the process ends, unless it only starts again: the manager would end it after a while.
pub(crate) fn tell_end(ended: &Result<()>) {
    if !ended.as_ref().is_err_and(|error| error.is::<Again>()) {
        systemd::tell(systemd::State::Stopping);
    }
}

/// Starts this program again in this process, with the same options, if that is why it has ended. Pods do not notice.
fn again(ended: Result<()>) -> Result<()> {
    match ended {
        Err(error) if error.is::<Again>() => {
            tracing::info!("{error}: starting again");
            let mut same = std::process::Command::new("/proc/self/exe");
            same.arg0("knarr").args(std::env::args_os().skip(1)).envs(systemd::given().iter().map(|(name, value)| (name, value)));
            Err(same.exec().into())
        }
        ended => ended,
    }
}

/// Lets go of the code of the start, some time after it, and from then on of memory that a load has left, and of the code that it ran.
pub(crate) fn settle(tasks: &Tasks) {
    tasks.spawn_until_cancelled("memory", OnFailure::Log, keep_small());
}

async fn keep_small() -> Result<(), tokio::task::JoinError> {
    tokio::time::sleep(SETTLED).await;
    loop {
        runtime::memory::release_code();
        tokio::time::sleep(GIVEN_BACK).await;
        // What a large load has left takes the kernel a while. The workers do their part before they wait the next time.
        tokio::task::spawn_blocking(runtime::memory::give_back).await?;
    }
}

/// Makes the data directory, for this user only.
pub(crate) fn create_private(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the data directory {}", path.display()))
}

/// Makes a part of the data directory private, whatever the mode of the directory that a user has given us.
pub(crate) fn make_private(path: &Path) -> Result<()> {
    create_private(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).with_context(|| path.display().to_string())
}

/// How long a process may take to let go of a directory: one that has been killed goes on being taken apart by the kernel for a while.
const LETTING_GO: Duration = Duration::from_secs(5);

/// Holds a data directory until dropped: one process works in it.
pub(crate) fn lock(path: &Path) -> Result<File> {
    lock_within(path, LETTING_GO)
}

fn lock_within(path: &Path, patience: Duration) -> Result<File> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    match taken(file, libc::F_WRLCK, patience).with_context(|| path.display().to_string())? {
        Some(file) => Ok(file),
        None => bail!("another process works with this data directory ({}): stop it first", named(&holders(path)?)),
    }
}

/// Whether a process holds the directory, and does not merely end: of one that does, the end is waited for.
pub(crate) fn stays_locked(path: &Path) -> Result<bool> {
    Ok(is_locked(path)? && taken(File::open(path)?, libc::F_RDLCK, LETTING_GO)?.is_none())
}

/// The file with the lock, or none if others have held it all the time.
fn taken(file: File, kind: i32, patience: Duration) -> Result<Option<File>> {
    match fcntl(file.as_raw_fd(), FcntlArg::F_OFD_SETLK(&whole(kind))) {
        Ok(_) => return Ok(Some(file)),
        Err(Errno::EAGAIN | Errno::EACCES) if patience.is_zero() => return Ok(None),
        Err(Errno::EAGAIN | Errno::EACCES) => {}
        Err(errno) => return Err(errno.into()),
    }
    // The kernel waits without end: a thread is left to it.
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(wait_for(&file, kind).map(|()| file)));
    told.recv_timeout(patience).ok().transpose()
}

/// Processes as a user is told of them.
fn named(processes: &[i32]) -> String {
    let one = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).take(2).map(String::from_utf8_lossy).collect();
        format!("process {pid}, {}", words.join(" ").trim_end())
    };
    match processes {
        [] => "none that can be seen from here: of another PID namespace".to_owned(),
        some => some.iter().map(one).collect::<Vec<_>>().join("; "),
    }
}

/// Holds a data directory for the rest of the process's life. The kernel lets go of it after the last thread, so that whoever waits
/// for it finds nothing left of the process.
pub(crate) fn lock_for_life(path: &Path) -> Result<()> {
    lock(path).map(std::mem::forget)
}

/// Whether a process holds the directory. Unlike an attempt to lock it, this is in nobody's way.
pub(crate) fn is_locked(path: &Path) -> Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        opened => opened.with_context(|| path.display().to_string())?,
    };
    let mut found = whole(libc::F_RDLCK);
    fcntl(file.as_raw_fd(), FcntlArg::F_OFD_GETLK(&mut found)).with_context(|| path.display().to_string())?;
    Ok(i32::from(found.l_type) != libc::F_UNLCK)
}

/// The processes of this machine.
pub(crate) fn all() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The processes that have a lock of the file, but for this one. The kernel does not tell whose a lock of an open file description is, but which
/// descriptors have one (proc_pid_fdinfo(5)).
pub(crate) fn holders(path: &Path) -> Result<Vec<i32>> {
    let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let wanted = std::fs::metadata(path).map(id).with_context(|| path.display().to_string())?;
    let is_locked = |pid: i32, descriptor: &std::ffi::OsStr| {
        let info = std::fs::read_to_string(Path::new(&format!("/proc/{pid}/fdinfo")).join(descriptor)).unwrap_or_default();
        info.lines().any(|line| line.starts_with("lock:"))
    };
    let has_it = |pid: &i32| {
        let mut open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.any(|entry| {
            std::fs::metadata(entry.path()).is_ok_and(|found| id(found) == wanted) && is_locked(*pid, &entry.file_name())
        })
    };
    let own = std::process::id().cast_signed();
    Ok(all().filter(|pid| *pid != own).filter(has_it).collect())
}

/// Waits until nobody holds the directory whose lock is this file.
pub(crate) fn wait_until_free(lock: &File) -> Result<()> {
    wait_for(lock, libc::F_RDLCK)
}

/// Waits until the lock of the file can be had, and has it then.
fn wait_for(lock: &File, kind: i32) -> Result<()> {
    loop {
        match fcntl(lock.as_raw_fd(), FcntlArg::F_OFD_SETLKW(&whole(kind))) {
            Err(Errno::EINTR) => {}
            ended => return ended.map(drop).context("waiting for the end of a process"),
        }
    }
}

/// A lock of all of a file, of the open file description (fcntl_locking(2)): it can be asked about without being taken.
#[allow(clippy::cast_possible_truncation, reason = "the constants are those of the field")]
fn whole(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_that_blocks_keeps_the_process() {
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (_forever, blocked) = std::sync::mpsc::channel::<()>();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        finish(runtime, async {
            tokio::task::spawn_blocking(move || {
                let _ = begun.send(());
                blocked.recv()
            });
            has_begun.await.unwrap();
        });
    }

    #[test]
    fn what_is_ignored_is_in_the_mask() {
        let check = |mask: &str, kind: SignalKind, expected: bool| {
            assert_eq!(is_ignored(&format!("SigBlk:\tffff\nSigIgn:\t{mask}\nSigCgt:\tffff\n"), kind), expected, "{mask}");
        };
        check("0000000000000001", SignalKind::hangup(), true);
        check("0000000000001000", SignalKind::hangup(), false);
        check("0000000000000004", SignalKind::quit(), true);
        assert!(!is_ignored("", SignalKind::hangup()));
    }

    #[test]
    fn parts_of_an_open_directory_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let part = directory.path().join("pki");
        std::fs::create_dir(&part).unwrap();
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o755)).unwrap();
        make_private(&part).unwrap();
        assert_eq!(std::fs::metadata(&part).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_is_held_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = lock(&path).unwrap();
        let error = lock_within(&path, Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("another process") && error.contains("can be seen"), "{error}");
        drop(held);
        lock(&path).unwrap();
    }

    #[test]
    fn who_has_the_lock_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = lock(&path).unwrap();
        assert!(holders(&path).unwrap().is_empty());
        let sleeping = |file: File| std::process::Command::new("sleep").arg("1000").stdin(file).spawn().unwrap();
        // One has the lock, another one only the file.
        let (mut holder, mut reader) = (sleeping(held), sleeping(File::open(&path).unwrap()));
        assert_eq!(holders(&path).unwrap(), [holder.id().cast_signed()]);
        let error = lock_within(&path, Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {}, sleep 1000): stop it first", holder.id())), "{error}");
        for child in [&mut holder, &mut reader] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// A process that is killed holds its files until the kernel has taken it apart.
    #[test]
    fn who_lets_go_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        for is_reader in [false, true] {
            let held = lock(&path).unwrap();
            std::thread::scope(|threads| {
                let waiting = threads.spawn(|| match is_reader {
                    false => lock_within(&path, Duration::from_secs(60)).is_ok(),
                    true => !stays_locked(&path).unwrap(),
                });
                // Who waits for a lock is in the kernel's list, behind who has it.
                while !is_waited_for(&path) {
                    std::thread::yield_now();
                }
                drop(held);
                assert!(waiting.join().unwrap());
            });
        }
    }

    fn is_waited_for(path: &Path) -> bool {
        let inode = format!(":{}", std::fs::metadata(path).unwrap().ino());
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains("->") && line.split(' ').any(|word| word.ends_with(&inode)))
    }

    #[test]
    fn one_holds_a_directory_and_others_can_ask() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        assert!(!is_locked(&path).unwrap() && !path.exists());
        let held = lock(&path).unwrap();
        assert!(is_locked(&path).unwrap());
        assert!(lock_within(&path, Duration::ZERO).unwrap_err().to_string().contains("stop it first"));
        drop(held);
        assert!(!is_locked(&path).unwrap());
        wait_until_free(&File::open(&path).unwrap()).unwrap();
        lock_for_life(&path).unwrap();
        assert!(is_locked(&path).unwrap());
    }
}
