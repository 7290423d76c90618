//! Waiting for a directory to change, by inotify.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;

/// Tells when something in a directory was written, made or renamed.
pub struct Watch {
    /// The descriptor as something that can be awaited and read; what it is made for does not matter to either.
    events: Receiver,
    _inotify: Inotify,
}

impl Watch {
    /// Watches the files of `directory` from now on.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let kinds = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_DELETE_SELF;
        inotify.add_watch(directory, kinds)?;
        let events = Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
        Ok(Self { events, _inotify: inotify })
    }

    /// Returns at the next change since the last call, or since the beginning. Safe to drop and call again.
    pub async fn changed(&self) -> io::Result<()> {
        // Which file it was does not matter: the events are read only to be gone.
        let mut events = [0; 4096];
        loop {
            self.events.readable().await?;
            match self.events.try_read(&mut events) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sees_a_write() {
        let directory = tempfile::tempdir().unwrap();
        let watch = Watch::new(directory.path()).unwrap();
        std::fs::write(directory.path().join("a"), "x").unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
    }
}
