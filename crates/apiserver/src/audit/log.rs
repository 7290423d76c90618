//! The log of audit events: a file of lines of JSON, that is rotated.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base::files;
use tokio::sync::{Notify, mpsc};

use super::counts::Losses;
use super::room::{Place, Room, Waiting};

/// Most events that are written at once, and bytes of them.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 4 << 20;
const MIB: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How names of old files tell when they were the log.
const MOMENT: &str = "%Y-%m-%dT%H-%M-%S.%f";

/// Where the log is, and how much of it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// The file; `-` for the standard output.
    pub path: PathBuf,
    /// MiB after which a new file is begun; 0 for never.
    pub max_size: u64,
    /// Old files that are kept; 0 for all.
    pub max_backups: usize,
    /// Days that old files are kept; 0 for ever.
    pub max_age: u64,
}

/// What events are handed to.
#[derive(Clone)]
pub(super) struct Log {
    events: mpsc::UnboundedSender<Waiting>,
    /// Room for events of requests that wait with them: none is lost for want of it.
    room: Room,
    /// Room for events of requests that have ended meanwhile, which nobody can wait with: a client that hangs up at the right moment is not to be
    /// able to keep its request out of the log. What is more is lost, which is counted.
    late: Room,
    closed: Arc<Notify>,
    losses: Arc<Losses>,
}

impl Log {
    /// The log, and what writes it.
    pub(super) fn open(options: LogOptions) -> std::io::Result<(Self, impl Future<Output = ()> + Send)> {
        let mut file = Rotated::open(options)?;
        let (events, mut receiver) = mpsc::unbounded_channel();
        let (closed, losses) = (Arc::new(Notify::new()), Arc::new(Losses::new("log")));
        let (end, told) = (closed.clone(), losses.clone());
        let write = async move {
            let mut waiting = VecDeque::new();
            loop {
                if waiting.is_empty() {
                    let mut more = Vec::with_capacity(BATCH);
                    let count = tokio::select! {
                        count = receiver.recv_many(&mut more, BATCH) => count,
                        () = end.notified() => {
                            receiver.close();
                            continue;
                        }
                    };
                    if count == 0 {
                        return;
                    }
                    waiting = more.into();
                }
                let (some, rooms) = batch(&mut waiting);
                let count = some.len();
                let written = tokio::task::spawn_blocking(move || {
                    let written = file.write(&some);
                    (file, written)
                });
                // The writer does not panic; without it there is nothing to write to.
                let Ok((same, written)) = written.await else { return };
                drop(rooms);
                file = same;
                match written {
                    Err(error) => told.lost(count, &error),
                    Ok(()) => told.end(),
                }
            }
        };
        Ok((Self { events, room: Room::new(), late: Room::new(), closed, losses }, write))
    }

    /// Hands an event over, and waits for room. It is handed over also when nobody waits any more.
    pub(super) async fn tell(&self, event: String) {
        let mut owed = Owed { log: self, event: Some(event) };
        if let Some(waiting) = self.room.wait(&mut owed.event).await {
            self.hand_over(waiting);
        }
    }

    /// The same from where nobody can wait.
    pub(super) fn tell_now(&self, event: String) {
        match self.late.take(event) {
            Ok(waiting) => self.hand_over(waiting),
            Err(_) => self.losses.lost(1, &"there is no room for more"),
        }
    }

    fn hand_over(&self, waiting: Waiting) {
        if self.events.send(waiting).is_err() {
            self.losses.lost(1, &"the log is closed");
        }
    }

    /// Takes no more; what is there is still written.
    pub(super) fn close(&self) {
        self.closed.notify_one();
    }
}

/// The events that are written next, at least one, and what is to be dropped when they are: until then they take their room.
fn batch(waiting: &mut VecDeque<Waiting>) -> (Vec<String>, Vec<Place>) {
    let before = waiting.iter().scan(0, |bytes, one| {
        let before = *bytes;
        *bytes += one.len();
        Some(before)
    });
    let count = before.take_while(|before| *before < BATCH_BYTES).count();
    waiting.drain(..count).map(Waiting::into_parts).unzip()
}

/// An event that waits for room. When nobody waits with it any more, it is handed over all the same.
struct Owed<'a> {
    log: &'a Log,
    event: Option<String>,
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        self.event.take().into_iter().for_each(|event| self.log.tell_now(event));
    }
}

/// A file that is begun anew when it is large.
struct Rotated {
    options: LogOptions,
    file: File,
    /// Of a file; a device, a pipe or the standard output is never begun anew.
    size: Option<u64>,
    /// The last line has no end, for a part of a batch was written that could not be taken back.
    torn: bool,
}

impl Rotated {
    fn open(options: LogOptions) -> std::io::Result<Self> {
        if let Some(directory) = options.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let file = open(&options.path)?;
        let size = file.metadata().ok().filter(|metadata| metadata.is_file() && options.path != Path::new("-"));
        Ok(Self { options, file, size: size.map(|metadata| metadata.len()), torn: false })
    }

    /// Writes all of the lines, or none where the file can be cut.
    fn write(&mut self, lines: &[String]) -> std::io::Result<()> {
        let before = if self.torn { "\n" } else { "" };
        let text: String = std::iter::once(before).chain(lines.iter().flat_map(|line| [line.as_str(), "\n"])).collect();
        let limit = self.options.max_size * MIB;
        if self.size.is_some_and(|size| limit > 0 && size > 0 && size + text.len() as u64 > limit) {
            self.rotate()?;
        }
        let before = self.file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            // A full disk takes a part of a line, which would run together with the next one.
            self.torn = before.is_none_or(|length| self.file.set_len(length).is_err());
            return Err(error);
        }
        self.torn = false;
        self.size = self.size.map(|size| size + text.len() as u64);
        Ok(())
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        let path = &self.options.path;
        let now = jiff::Timestamp::now().strftime(MOMENT).to_string();
        files::rename(path, &backup(path, &now))?;
        (self.file, self.size) = (open(path)?, Some(0));
        if let Err(error) = self.tidy() {
            tracing::warn!(%error, "old files of the audit log cannot be removed");
        }
        Ok(())
    }

    /// Removes what is too much, or too old.
    fn tidy(&self) -> std::io::Result<()> {
        let mut old = backups(&self.options.path)?;
        old.sort();
        let most = self.options.max_backups;
        let surplus = if most > 0 { old.len().saturating_sub(most) } else { 0 };
        let oldest = SystemTime::now().checked_sub(DAY * u32::try_from(self.options.max_age).unwrap_or(u32::MAX));
        for (index, file) in old.iter().enumerate() {
            let modified = std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
            let aged = self.options.max_age > 0 && modified < oldest;
            if index < surplus || aged {
                files::remove(file)?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let path = if path == Path::new("-") { Path::new("/dev/stdout") } else { path };
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// `audit.log` of a time: `audit-2026-01-01T00-00-00.000.log`.
fn backup(path: &Path, time: &str) -> PathBuf {
    let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
    let (stem, extension) = (part(path.file_stem()), part(path.extension()));
    let dot = if extension.is_empty() { "" } else { "." };
    path.with_file_name(format!("{stem}-{time}{dot}{extension}"))
}

/// The files of former times. Others may have names that begin the same, such as `audit-webhook.log`.
fn backups(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let stem = path.file_stem().map(|stem| format!("{}-", stem.to_string_lossy())).unwrap_or_default();
    let is_backup = |file: &PathBuf| {
        // With no extension of the log's, what looks like one is the end of the time.
        let name = if path.extension().is_some() { file.file_stem() } else { file.file_name() };
        let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let moment = name.strip_prefix(&stem).filter(|_| path.extension().is_none() || file.extension() == path.extension());
        moment.is_some_and(|moment| jiff::civil::DateTime::strptime(MOMENT, moment).is_ok())
    };
    let files = std::fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(files.filter(is_backup).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn old_files_are_kept_as_long_as_they_may() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let options = LogOptions { path: path.clone(), max_size: 1, max_backups: 2, max_age: 0 };
        let mut log = Rotated::open(options).unwrap();
        let half = "x".repeat(600 << 10);
        for _ in 0..5 {
            log.write(std::slice::from_ref(&half)).unwrap();
        }
        assert_eq!(backups(&path).unwrap().len(), 2);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), half.len() as u64 + 1);
    }

    #[test]
    fn files_of_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let check = |log: &str, name: &str, expected: bool| {
            let file = dir.path().join(name);
            std::fs::write(&file, "").unwrap();
            let found = backups(&dir.path().join(log)).unwrap();
            assert_eq!(found, if expected { vec![file.clone()] } else { vec![] }, "{log}, {name}");
            std::fs::remove_file(file).unwrap();
        };
        let own = backup(Path::new("audit.log"), &jiff::Timestamp::now().strftime(MOMENT).to_string());
        check("audit.log", own.to_str().unwrap(), true);
        check("audit.log", "audit-2026-01-01T00-00-00.5.log", true);
        check("audit.log", "audit-2026-01-01T00-00-00.000.log", true);
        check("audit.log", "audit-webhook.log", false);
        check("audit.log", "audit-2026-01-01.log", false);
        check("audit.log", "audit-2026-01-01T00-00-00.000.log.gz", false);
        check("audit.log", "other-2026-01-01T00-00-00.000.log", false);
        check("audit", "audit-2026-01-01T00-00-00.000", true);
        check("audit", "audit-2026-01-01T00-00-00.000.log", false);
        check("audit", "audit-policy.yaml", false);
    }

    /// Upstream makes the directory of the log, too (`ensureLogFile`).
    #[test]
    fn a_device_is_written_to_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/log/audit.log");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        let mut log = Rotated::open(LogOptions { path: path.clone(), max_size: 1, max_backups: 1, max_age: 0 }).unwrap();
        let half = "x".repeat(600 << 10);
        for _ in 0..3 {
            log.write(std::slice::from_ref(&half)).unwrap();
        }
        assert_eq!((backups(&path).unwrap().len(), path.is_symlink()), (0, true));
        let path = dir.path().join("not/there/audit.log");
        Rotated::open(LogOptions { path: path.clone(), ..LogOptions::default() }).unwrap();
        assert!(path.is_file());
    }

    #[test]
    fn files_that_others_have_moved_are_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut log = Rotated::open(LogOptions { path: path.clone(), max_size: 1, max_backups: 1, max_age: 0 }).unwrap();
        let half = "x".repeat(600 << 10);
        log.write(std::slice::from_ref(&half)).unwrap();
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        for _ in 0..3 {
            log.write(std::slice::from_ref(&half)).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().len(), half.len() as u64 + 1);
        }
    }

    #[tokio::test]
    async fn every_event_is_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let (log, write) = Log::open(LogOptions { path: path.clone(), ..LogOptions::default() }).unwrap();
        let tell = async move {
            for number in 0..1000 {
                log.tell(format!("{number}")).await;
            }
            log.close();
        };
        tokio::join!(tell, write);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().map(|line| line.parse::<u32>().unwrap()).collect::<Vec<_>>(), (0..1000).collect::<Vec<_>>());
    }

    /// Whoever hangs up while the log has no room is in it all the same.
    #[tokio::test]
    async fn an_event_that_nobody_waits_with_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let (log, write) = Log::open(LogOptions { path: path.clone(), ..LogOptions::default() }).unwrap();
        let large = "x".repeat(1 << 20);
        for _ in 0..63 {
            log.tell(large.clone()).await;
        }
        assert!(futures::poll!(std::pin::pin!(log.tell(large.clone()))).is_pending());
        log.tell_now("late".to_owned());
        // There is room for what is small.
        log.tell("small".to_owned()).await;
        log.close();
        write.await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().skip(63).collect::<Vec<_>>(), [large.as_str(), "late", "small"]);
    }

    /// What is being written takes memory as what waits does, and little of it at once.
    #[test]
    fn batches_have_few_bytes() {
        let (room, mut waiting) = (Room::new(), VecDeque::new());
        for bytes in [3 << 20, 1 << 20, 5 << 20, 10, 10] {
            waiting.push_back(room.take("x".repeat(bytes)).unwrap_or_else(|_| panic!("there is room")));
        }
        let mut sizes = || batch(&mut waiting).0.iter().map(String::len).collect::<Vec<_>>();
        assert_eq!([sizes(), sizes(), sizes(), sizes()], [vec![3 << 20, 1 << 20], vec![5 << 20], vec![10, 10], vec![]]);
    }

    /// Their number says nothing of how much memory they take.
    #[tokio::test]
    async fn late_events_are_bounded_by_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let (log, write) = Log::open(LogOptions { path: path.clone(), ..LogOptions::default() }).unwrap();
        let large = "x".repeat(1 << 20);
        for _ in 0..100 {
            log.tell_now(large.clone());
        }
        log.tell_now("small".to_owned());
        log.close();
        write.await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.lines().count(), text.lines().last()), (64, Some("small")));
    }
}
