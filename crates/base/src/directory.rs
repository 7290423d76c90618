//! Waiting for a directory, or a file in it, to change, by inotify.

mod links;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use parking_lot::Mutex;
use tokio::sync::watch;

pub use links::{Several, ways};

/// What counts as a change.
const KINDS: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);
/// Time until it is tried again to watch what could not be watched, as when the user has no inotify watch left.
const RETRY: Duration = Duration::from_secs(20);

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

/// Follows a path that a directory has, whichever that is: it may be renamed, removed, and come again.
pub struct Followed {
    path: PathBuf,
    watch: io::Result<Watch>,
}

impl Followed {
    /// Follows `path` from now on. What cannot be watched is logged, and tried again.
    pub fn new(path: &Path) -> Self {
        // The working directory has no name.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Self { path: path.to_owned(), watch: watch_nearest(path) }
    }

    /// Returns when the directory may have changed since the last call, or since the beginning. Safe to drop and call again.
    pub async fn changed(&mut self) {
        let changed = match &mut self.watch {
            Ok(watch) => watch.changed().await,
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        if let Err(error) = changed {
            tracing::error!(path = %self.path.display(), %error, "a directory cannot be watched, and is looked at every {} s", RETRY.as_secs());
            tokio::time::sleep(RETRY).await;
        }
        // Another directory may be there by now.
        self.watch = watch_nearest(&self.path);
    }
}

/// Watches the directory, or while there is none, the nearest one above it, in which a part of the path will be made.
fn watch_nearest(path: &Path) -> io::Result<Watch> {
    let is_missing = |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let absolute = std::path::absolute(path)?;
    loop {
        let mut missing: Option<&Path> = None;
        for path in absolute.ancestors() {
            match Watch::new(path) {
                Err(error) if is_missing(&error) => missing = Some(path),
                Err(error) => return Err(error),
                // Unless what was missing in it was made before it was watched.
                Ok(watch) if missing.is_none_or(|path| !path.exists()) => return Ok(watch),
                Ok(_) => break,
            }
        }
    }
}

/// A file that is read again when it has changed, also when another one has taken its place, or that of what links lead to.
pub struct File {
    path: PathBuf,
    known: String,
    directory: Followed,
    ways: Several,
}

impl File {
    /// Of a file whose text is known, or nothing when there was none.
    pub fn new(path: &Path, known: String) -> Self {
        let directory = Followed::new(path.parent().unwrap_or(Path::new("")));
        let mut ways = Several::default();
        ways.follow(&links::ways(path));
        Self { path: path.to_owned(), known, directory, ways }
    }

    /// The next text that is another than the one before. Files are emptied before they are written: nothing is no text.
    pub async fn changed(&mut self) -> String {
        loop {
            let text = tokio::fs::read_to_string(&self.path).await.unwrap_or_default();
            if !text.is_empty() && text != self.known {
                self.known.clone_from(&text);
                return text;
            }
            // What has happened in a directory before it was followed is read now.
            if self.ways.follow(&links::ways(&self.path)) {
                continue;
            }
            tokio::select! {
                () = self.directory.changed() => {}
                () = self.ways.changed() => {}
            }
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
        let mut file = File::new(&path, "one".into());
        std::fs::write(directory.path().join("next"), "two").unwrap();
        std::fs::rename(directory.path().join("next"), &path).unwrap();
        assert_eq!(file.changed().await, "two");
        std::fs::write(&path, "three").unwrap();
        assert_eq!(file.changed().await, "three");
    }

    #[tokio::test]
    async fn sees_what_a_link_leads_to() {
        let home = tempfile::tempdir().unwrap();
        let (path, target) = (home.path().join("here/a"), home.path().join("there/b"));
        for path in [&path, &target] {
            std::fs::create_dir(path.parent().unwrap()).unwrap();
        }
        std::fs::write(&target, "one").unwrap();
        std::os::unix::fs::symlink("../there/b", &path).unwrap();
        let mut file = File::new(&path, "one".into());
        std::fs::write(&target, "two").unwrap();
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), file.changed()).await.unwrap(), "two");
    }

    /// Directories that a path leads through go, come again, and are others, also while nobody looks.
    #[tokio::test]
    async fn what_is_followed_is_the_path() {
        use std::fs::{create_dir_all, read_to_string, rename, write};
        let home = tempfile::tempdir().unwrap();
        let (above, path) = (home.path().join("a"), home.path().join("a/b/c"));
        let mut followed = Followed::new(&path);
        let mut until = async |text: Option<&str>| {
            let changes = async {
                while read_to_string(path.join("file")).ok().as_deref() != text {
                    followed.changed().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), changes).await.unwrap();
        };
        let put = |text: &str| {
            create_dir_all(&path).unwrap();
            write(path.join("file"), text).unwrap();
        };
        put("one");
        until(Some("one")).await;
        write(path.join("file"), "two").unwrap();
        until(Some("two")).await;
        rename(&path, home.path().join("old")).unwrap();
        until(None).await;
        put("three");
        until(Some("three")).await;
        rename(&path, home.path().join("older")).unwrap();
        put("four");
        until(Some("four")).await;
        crate::trees::remove(&above).unwrap();
        until(None).await;
        put("five");
        until(Some("five")).await;
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
