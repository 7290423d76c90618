//! Threads in other network namespaces.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// Does something on a thread of its own in the network namespace at `path`, and waits for it. Processes that it starts are there, too. The
/// thread ends with it: those of a pool are used again by others, who would be in the wrong namespace.
///
/// # Errors
/// There is no such namespace, or no right to enter it.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    let inside = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok::<_, io::Error>(work())
    };
    let ended = std::thread::scope(|scope| scope.spawn(inside).join());
    ended.unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
}
