//! The data directory: one owner, private files, a format version, what was acknowledged, and room on its disk.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base::files;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::sys::statvfs::statvfs;

use super::{YOUNG, draft};
use crate::{Error, Revision};

/// The format that this version writes. Raise it when an older version could not read the result.
const FORMAT: u32 = 1;

/// The file that tells the rest of an interrupted first start from data.
const BEGUN: &str = "new";
/// The file that tells the rest of an interrupted restoration from that.
const RESTORING: &str = "restoring";

/// Says of a directory, which may not be there yet, that a restoration has begun. A new one comes with that: without, however briefly, it would
/// be the beginning of an empty cluster.
fn mark_restoring(root: &Path) -> io::Result<()> {
    let mut draft = root.as_os_str().to_owned();
    draft.push(".restoring");
    let draft = Path::new(&draft);
    let home = if root.exists() { root } else { draft };
    DirBuilder::new().recursive(true).mode(0o700).create(home)?;
    private(home.join(RESTORING), false)?;
    if home == draft { fs::rename(draft, root) } else { Ok(()) }
}

/// An open data directory. Dropping it lets another process open it.
pub(super) struct Directory {
    root: PathBuf,
    _lock: File,
    /// The last acknowledged revision, twice, once inverted. It is written without waiting for the disk: after a loss of power it
    /// may be behind, it is never ahead.
    acknowledged: File,
}

impl Directory {
    /// Takes the directory, creating it if needed. What an interrupted first start left behind is removed; what an interrupted restoration
    /// left is not made an empty store of.
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        Self::take(root, false)
    }

    /// Takes a directory without a store for one that is made of a copy, again where that was interrupted.
    pub(super) fn restore(root: &Path) -> Result<Self, Error> {
        Self::take(root, true)
    }

    /// Refuses a directory that a restoration began in and did not end. Changes nothing.
    pub(super) fn check(root: &Path) -> Result<(), Error> {
        let is_unfinished = root.join(RESTORING).exists() && !root.join("format").exists();
        if is_unfinished { Err(Error::Unfinished) } else { Ok(()) }
    }

    fn take(root: &Path, restores: bool) -> Result<Self, Error> {
        let failed = |error: io::Error| failed(root, &error);
        if restores && !root.join("format").exists() {
            mark_restoring(root).map_err(failed)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed)?;
        fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(failed)?;
        let lock = private(root.join("lock"), false).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let acknowledged = private(root.join("acknowledged"), false).map_err(failed)?;
        let directory = Self { root: root.to_owned(), _lock: lock, acknowledged };
        match directory.format()? {
            Some(_) => directory.check_tables()?,
            None => {
                if !restores {
                    Self::check(root)?;
                }
                directory.begin()?;
            }
        }
        Ok(directory)
    }

    /// fjall removes a table whose file `current` is missing, as a creation that was interrupted. Here all tables are complete.
    fn check_tables(&self) -> Result<(), Error> {
        let Ok(tables) = fs::read_dir(self.database().join("keyspaces")) else { return Ok(()) };
        for table in tables {
            let current = table.map_err(|error| failed(&self.root, &error))?.path().join("current");
            if !current.exists() {
                return Err(Error::Damaged(format!("{} is missing", current.display())));
            }
        }
        Ok(())
    }

    /// Makes room for a new database.
    fn begin(&self) -> Result<(), Error> {
        let begun = self.root.join(BEGUN);
        if self.database().exists() && !begun.exists() {
            let why = format!("{} is missing beside a database", self.root.join("format").display());
            return Err(Error::Damaged(why));
        }
        let begin = || -> io::Result<()> {
            private(begun, true)?;
            base::trees::remove(&self.database())?;
            self.acknowledged.set_len(0)?;
            File::open(&self.root)?.sync_all()
        };
        begin().map_err(|error| failed(&self.root, &error))
    }

    /// Notes that everything up to `revision` is acknowledged.
    pub(super) fn acknowledge(&self, revision: Revision) {
        let bytes = [revision.to_be_bytes(), (!revision).to_be_bytes()].concat();
        // An older note is as true.
        if let Err(error) = self.acknowledged.write_all_at(&bytes, 0) {
            tracing::debug!(%error, "the acknowledged revision was not noted");
        }
    }

    /// Refuses a database that ends before what was acknowledged: its journal was cut, where damage is taken for the torn end
    /// that a crash leaves.
    pub(super) fn check_end(&self, revision: Revision) -> Result<(), Error> {
        let mut bytes = [0; 16];
        if self.acknowledged.read_exact_at(&mut bytes, 0).is_err() {
            return Ok(());
        }
        let [noted, inverted] =
            [&bytes[..8], &bytes[8..]].map(|half| half.try_into().map(u64::from_be_bytes).unwrap_or_default());
        if noted == !inverted && noted > revision {
            return Err(Error::Damaged(format!("it ends at revision {revision}, but {noted} was acknowledged")));
        }
        Ok(())
    }

    /// Where the database lives.
    pub(super) fn database(&self) -> PathBuf {
        self.root.join("db")
    }

    /// Makes an empty database at the revision `begin` where there is none.
    pub(super) fn draft(&self, begin: Revision) -> Result<(), Error> {
        let database = self.database();
        if database.exists() {
            return Ok(());
        }
        if !draft::make(&database, begin).map_err(|error| failed(&self.root, &error))? {
            draft::empty(&database, begin)?;
        }
        Ok(())
    }

    /// Lets go of what the kernel holds of the journals, so that they are read from the disk: after a synchronisation that failed, memory
    /// shows as written what is not there.
    pub(super) fn forget(&self) {
        let Ok(files) = fs::read_dir(self.database()) else { return };
        for path in files.flatten().map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "jnl")) {
            let forgotten = File::open(&path).and_then(|file| {
                posix_fadvise(file.as_raw_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(io::Error::from)
            });
            if let Err(error) = forgotten {
                tracing::warn!(%error, file = %path.display(), "a journal is read from memory, which may show more than the disk has");
            }
        }
    }

    /// Says that the database is complete, durably. Nothing is written where that is said already: a full disk can be opened.
    pub(super) fn mark(&self) -> Result<(), Error> {
        if self.format()? == Some(FORMAT) && ![BEGUN, RESTORING].iter().any(|name| self.root.join(name).exists()) {
            return Ok(());
        }
        let write = || -> io::Result<()> {
            let draft = self.root.join("format.new");
            let mut file = private(draft.clone(), true)?;
            writeln!(file, "{FORMAT}")?;
            file.sync_all()?;
            fs::rename(draft, self.root.join("format"))?;
            [BEGUN, RESTORING].iter().try_for_each(|name| files::remove(&self.root.join(name)))?;
            File::open(&self.root)?.sync_all()
        };
        write().map_err(|error| failed(&self.root, &error))
    }

    /// How many times so many `bytes` history may have while its oldest entry is young: as much as a 64th of the disk, at least one, and at most
    /// [`YOUNG`].
    pub(super) fn young_factor(&self, bytes: u64) -> Result<u64, Error> {
        Ok(self.share()?.checked_div(bytes).unwrap_or(YOUNG).clamp(1, YOUNG))
    }

    /// A 64th of the disk, bytes: what is spent of it to spare work.
    pub(super) fn share(&self) -> Result<u64, Error> {
        let stat = statvfs(&self.root).map_err(|errno| failed(&self.root, &errno.into()))?;
        Ok(stat.blocks().saturating_mul(stat.fragment_size()) / 64)
    }

    /// Bytes that may still be written to the directory's disk.
    pub(super) fn available(&self) -> Result<u64, Error> {
        let stat = statvfs(&self.root).map_err(|errno| failed(&self.root, &errno.into()))?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    fn format(&self) -> Result<Option<u32>, Error> {
        let text = match fs::read_to_string(self.root.join("format")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&self.root, &error)),
        };
        let found = text
            .trim()
            .parse()
            .map_err(|_| Error::Failed(format!("{}/format is not a number: this is no data directory", self.root.display())))?;
        if found > FORMAT { Err(Error::NewerFormat { found, supported: FORMAT }) } else { Ok(Some(found)) }
    }
}

fn private(path: PathBuf, truncate: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(truncate).mode(0o600).open(path)
}

fn failed(root: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace,
        _ => Error::Failed(format!("{}: {error}", root.display())),
    }
}

/// Gives this thread, and the threads that it starts, a umask of their own, so that every file of the database is private.
/// The umask of the process is not ours to change: other threads create files for pods.
pub(super) fn private_umask() {
    match unshare(CloneFlags::CLONE_FS) {
        Ok(()) => {
            umask(Mode::from_bits_truncate(0o077));
        }
        Err(errno) => tracing::debug!(%errno, "database files keep the process's umask, the directory is private"),
    }
}

/// Whether a write may start. Flushing and compaction write too, later: a reserve is kept for them, because they cannot be
/// refused. Deletions may use half of it, since they are what makes room, and steps on the way to them, which are larger, half of that.
pub(super) fn has_room(available: u64, reserve: u64, bytes: u64, write: For) -> bool {
    let keep = match write {
        For::Content => reserve,
        For::Removal => reserve - reserve / 4,
        For::Deletion => reserve / 2,
    };
    available >= keep.saturating_add(bytes)
}

/// What a write is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// What there is to be.
    Content,
    /// A step on the way to a deletion.
    Removal,
    Deletion,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_reserve_is_kept() {
        let check = |available, bytes, write, expected| assert_eq!(has_room(available, 100, bytes, write), expected);
        check(110, 10, For::Content, true);
        check(109, 10, For::Content, false);
        check(85, 10, For::Removal, true);
        check(84, 10, For::Removal, false);
        check(60, 10, For::Deletion, true);
        check(59, 10, For::Deletion, false);
    }

    #[test]
    fn the_format_decides_what_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        let check = |begun: bool, format: Option<&str>, expected: Result<bool, Error>| {
            fs::create_dir_all(root.join("db")).unwrap();
            for file in ["format", "new"] {
                fs::remove_file(root.join(file)).ok();
            }
            if begun {
                fs::write(root.join("new"), "").unwrap();
            }
            if let Some(text) = format {
                fs::write(root.join("format"), text).unwrap();
            }
            assert_eq!(Directory::open(&root).map(|directory| directory.database().exists()), expected);
        };
        check(true, None, Ok(false));
        let missing = format!("{}/format is missing beside a database", root.display());
        check(false, None, Err(Error::Damaged(missing)));
        check(false, Some("1\n"), Ok(true));
        check(true, Some("1\n"), Ok(true));
        check(false, Some("2\n"), Err(Error::NewerFormat { found: 2, supported: 1 }));
        let text = format!("{}/format is not a number: this is no data directory", root.display());
        check(false, Some("x"), Err(Error::Failed(text)));
    }

    #[test]
    fn what_was_acknowledged_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("acknowledged");
        let check = |bytes: &[u8], revision: Revision, expected: bool| {
            fs::write(&note, bytes).unwrap();
            assert_eq!(Directory::open(dir.path()).unwrap().check_end(revision).is_ok(), expected, "{bytes:?} {revision}");
        };
        Directory::open(dir.path()).unwrap().mark().unwrap();
        check(b"", 0, true);
        Directory::open(dir.path()).unwrap().acknowledge(300);
        let noted = fs::read(&note).unwrap();
        check(&noted, 299, false);
        check(&noted, 300, true);
        check(&noted[..9], 0, true);
        // The note itself may be damaged.
        check(&[&[1][..], &noted[1..]].concat(), 0, true);
    }

    #[test]
    fn one_owner_and_private_files() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        let first = Directory::open(&root).unwrap();
        first.mark().unwrap();
        assert_eq!(Directory::open(&root).err(), Some(Error::Locked));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&root), mode(&root.join("format"))), (0o700, 0o600));
        drop(first);
        assert!(Directory::open(&root).is_ok());
    }
}
