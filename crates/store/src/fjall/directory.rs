//! The data directory: one owner, private files, a format version, and room on its disk.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::sys::statvfs::statvfs;

use crate::Error;

/// The format that this version writes. Raise it when an older version could not read the result.
const FORMAT: u32 = 1;

/// An open data directory. Dropping it lets another process open it.
pub(super) struct Directory {
    root: PathBuf,
    _lock: File,
}

impl Directory {
    /// Takes the directory, creating it if needed. What an interrupted first start left behind is removed.
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| failed(root, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed)?;
        fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(failed)?;
        let lock = private(root.join("lock"), false).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let directory = Self { root: root.to_owned(), _lock: lock };
        if directory.format()?.is_none() {
            match fs::remove_dir_all(directory.database()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        Ok(directory)
    }

    /// Where the database lives.
    pub(super) fn database(&self) -> PathBuf {
        self.root.join("db")
    }

    /// Says that the database is complete, durably.
    pub(super) fn mark(&self) -> Result<(), Error> {
        let write = || -> io::Result<()> {
            let draft = self.root.join("format.new");
            let mut file = private(draft.clone(), true)?;
            writeln!(file, "{FORMAT}")?;
            file.sync_all()?;
            fs::rename(draft, self.root.join("format"))?;
            File::open(&self.root)?.sync_all()
        };
        write().map_err(|error| failed(&self.root, &error))
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
    OpenOptions::new().write(true).create(true).truncate(truncate).mode(0o600).open(path)
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
/// refused. Deletions may use half of it, since they are what makes room.
pub(super) fn has_room(available: u64, reserve: u64, bytes: u64, deletes: bool) -> bool {
    let keep = if deletes { reserve / 2 } else { reserve };
    available >= keep.saturating_add(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_reserve_is_kept() {
        let check = |available, bytes, deletes, expected| assert_eq!(has_room(available, 100, bytes, deletes), expected);
        check(110, 10, false, true);
        check(109, 10, false, false);
        check(60, 10, true, true);
        check(59, 10, true, false);
    }

    #[test]
    fn the_format_decides_what_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        let check = |format: Option<&str>, expected: Result<bool, Error>| {
            fs::create_dir_all(root.join("db")).unwrap();
            fs::remove_file(root.join("format")).ok();
            if let Some(text) = format {
                fs::write(root.join("format"), text).unwrap();
            }
            assert_eq!(Directory::open(&root).map(|directory| directory.database().exists()), expected);
        };
        check(None, Ok(false));
        check(Some("1\n"), Ok(true));
        check(Some("2\n"), Err(Error::NewerFormat { found: 2, supported: 1 }));
        let text = format!("{}/format is not a number: this is no data directory", root.display());
        check(Some("x"), Err(Error::Failed(text)));
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
