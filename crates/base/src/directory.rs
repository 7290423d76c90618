//! Waiting for a directory, or a file in it, to change, by inotify.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use parking_lot::Mutex;
use tokio::sync::watch;

/// What counts as a change.
const KINDS: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF);

/// The process's only inotify instance. A user has 128 of them on most machines, and hundreds may follow logs at a time.
static HUB: Mutex<Option<&'static Hub>> = Mutex::new(None);

struct Hub {
    inotify: Inotify,
    directories: Mutex<HashMap<WatchDescriptor, Directory>>,
}

/// A directory that somebody watches, and how many do.
struct Directory {
    changes: watch::Sender<()>,
    watchers: usize,
}

impl Hub {
    /// The one of this process, which lives as long as that. Its thread tells what happens, to whatever runtime wants to know.
    fn get() -> io::Result<&'static Self> {
        let mut hub = HUB.lock();
        if let Some(hub) = *hub {
            return Ok(hub);
        }
        let made: &'static Self =
            Box::leak(Box::new(Self { inotify: Inotify::init(InitFlags::IN_CLOEXEC)?, directories: Mutex::default() }));
        std::thread::Builder::new().name("inotify".to_owned()).stack_size(128 << 10).spawn(|| made.run())?;
        *hub = Some(made);
        Ok(made)
    }

    fn run(&self) {
        loop {
            match self.inotify.read_events() {
                Ok(events) => self.tell(&events),
                Err(Errno::EINTR) => {}
                Err(error) => {
                    // Whoever watches finds that nobody tells any more, and the next one makes another instance.
                    tracing::error!(%error, "reading inotify events");
                    *HUB.lock() = None;
                    return self.directories.lock().clear();
                }
            }
        }
    }

    fn tell(&self, events: &[InotifyEvent]) {
        let directories = self.directories.lock();
        let overflow = events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW));
        let changed =
            directories.iter().filter(|(descriptor, _)| overflow || events.iter().any(|event| event.wd == **descriptor));
        changed.for_each(|(_, directory)| directory.changes.send_replace(()));
    }
}

/// Tells when something in a directory was written, made, renamed or removed.
pub struct Watch {
    hub: &'static Hub,
    descriptor: WatchDescriptor,
    changes: watch::Receiver<()>,
}

impl Watch {
    /// Watches the files of `directory` from now on.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let hub = Hub::get()?;
        let mut directories = hub.directories.lock();
        let descriptor = hub.inotify.add_watch(directory, KINDS)?;
        let watched = directories.entry(descriptor).or_insert_with(|| Directory { changes: watch::Sender::new(()), watchers: 0 });
        watched.watchers += 1;
        Ok(Self { hub, descriptor, changes: watched.changes.subscribe() })
    }

    /// Returns at the next change since the last call, or since the beginning. Safe to drop and call again.
    pub async fn changed(&mut self) -> io::Result<()> {
        self.changes.changed().await.map_err(|_| io::Error::other("the directory is no longer watched"))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut directories = self.hub.directories.lock();
        let Some(directory) = directories.get_mut(&self.descriptor) else { return };
        directory.watchers -= 1;
        if directory.watchers == 0 {
            directories.remove(&self.descriptor);
            // The kernel has dropped it already when the directory is gone.
            let _ = self.hub.inotify.rm_watch(self.descriptor);
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
        let mut watch = Watch::new(directory.path()).unwrap();
        std::fs::write(directory.path().join("a"), "x").unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
    }

    /// More watchers than a user has inotify instances, most of them of one directory; each hears of its own only.
    #[tokio::test]
    async fn watchers_are_many() {
        let parent = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| parent.path().join(name));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&other).unwrap();
        let mut watchers: Vec<Watch> = (0..1000).map(|_| Watch::new(&one).unwrap()).collect();
        let mut deaf = Watch::new(&other).unwrap();
        drop(watchers.split_off(500));
        std::fs::write(one.join("a"), "x").unwrap();
        for watch in &mut watchers {
            tokio::time::timeout(std::time::Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
        }
        assert!(!deaf.changes.has_changed().unwrap());
        drop(watchers);
        std::fs::write(other.join("a"), "x").unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(5), deaf.changed()).await.unwrap().unwrap();
    }
}
