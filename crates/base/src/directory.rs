//! Waiting for a directory, or a file in it, to change, by inotify.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

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

/// A file that is read again when it has changed, also when another one has taken its place.
pub struct File {
    path: PathBuf,
    known: String,
    watch: Watch,
}

impl File {
    /// Of a file whose text is known, or nothing when there was none.
    pub fn new(path: &Path, known: String) -> io::Result<Self> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self { path: path.to_owned(), known, watch: Watch::new(directory)? })
    }

    /// The next text that is another than the one before. Files are emptied before they are written: nothing is no text.
    pub async fn changed(&mut self) -> io::Result<String> {
        loop {
            let text = tokio::fs::read_to_string(&self.path).await.unwrap_or_default();
            if !text.is_empty() && text != self.known {
                self.known.clone_from(&text);
                return Ok(text);
            }
            self.watch.changed().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn sees_what_a_file_becomes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "one").unwrap();
        let mut file = File::new(&path, "one".into()).unwrap();
        std::fs::write(directory.path().join("next"), "two").unwrap();
        std::fs::rename(directory.path().join("next"), &path).unwrap();
        assert_eq!(file.changed().await.unwrap(), "two");
        std::fs::write(&path, "three").unwrap();
        assert_eq!(file.changed().await.unwrap(), "three");
    }

    #[tokio::test]
    async fn sees_a_write() {
        let directory = tempfile::tempdir().unwrap();
        let watch = Watch::new(directory.path()).unwrap();
        std::fs::write(directory.path().join("a"), "x").unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
    }
}
