//! The first database of a directory. fjall waits for the disk some eighty times while it makes empty tables, which is half of the time
//! that a server takes to start; so they are made in memory, and what came of it is put on disk at once.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::{Whence, lseek};

use super::TAIL;
use super::database::{Database, WriteError};
use super::encoding::{Head, Tail};
use super::stage::{Batch, Table};
use crate::{Error, Revision};

/// Where machines have a file system in memory.
const MEMORY: [&str; 2] = ["/dev/shm", "/run"];
/// Files that are waited for at a time: disks take together what comes together.
const AT_ONCE: usize = 8;

/// Puts an empty database at the revision `begin` at `target`, durably but for its name; false where this machine has no place for a draft: then fjall makes
/// it where it is to be.
///
/// # Errors
/// It cannot be written. What is there then is to be removed.
pub(super) fn make(target: &Path, begin: Revision) -> io::Result<bool> {
    let Some(draft) = MEMORY.iter().find_map(|place| directory(Path::new(place))) else { return Ok(false) };
    // It tells what is wrong better at its own place.
    if empty(draft.path(), begin).is_err() {
        return Ok(false);
    }
    let mut copied = Vec::new();
    copy(draft.path(), target, &mut copied)?;
    synchronise(&copied)?;
    Ok(true)
}

/// Makes an empty database at the revision `begin`, as if everything before had been compacted.
pub(super) fn empty(target: &Path, begin: Revision) -> Result<(), Error> {
    let database = Database::open(target)?;
    if begin != 0 {
        let mut batch = Batch { head: Head { revision: begin, ..Head::default() }, ..Batch::default() };
        batch.put(Table::Meta, TAIL, Some(Tail { compacted: begin, ..Tail::default() }.encode()));
        batch.finish();
        database.write(&batch.ops).and_then(|()| database.sync()).map_err(WriteError::cause)?;
    }
    Ok(())
}

fn directory(place: &Path) -> Option<tempfile::TempDir> {
    let in_memory = statfs(place).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC);
    let private = Permissions::from_mode(0o700);
    in_memory.then(|| tempfile::Builder::new().prefix("knarr-store-").permissions(private).tempdir_in(place).ok())?
}

fn copy(from: &Path, to: &Path, copied: &mut Vec<PathBuf>) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if entry.is_dir() {
            copy(&entry, &to, copied)?;
        } else {
            copy_file(&entry, &to)?;
            copied.push(to);
        }
    }
    copied.push(to.to_owned());
    Ok(())
}

/// Copies a file and leaves out what was never written: the journal has its whole length from the beginning.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(from)?;
    let length = from.metadata()?.len();
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    to.set_len(length)?;
    let mut at = 0;
    // Past the last data there is none (ENXIO).
    while let Ok(start) = lseek(from.as_raw_fd(), at, Whence::SeekData) {
        let end = lseek(from.as_raw_fd(), start, Whence::SeekHole)?;
        let position = SeekFrom::Start(start.unsigned_abs());
        from.seek(position)?;
        to.seek(position)?;
        io::copy(&mut Read::by_ref(&mut from).take((end - start).unsigned_abs()), &mut to)?;
        at = end;
    }
    to.flush()
}

fn synchronise(paths: &[PathBuf]) -> io::Result<()> {
    let wait = |part: &[PathBuf]| part.iter().try_for_each(|path| File::open(path)?.sync_all());
    thread::scope(|scope| {
        let threads: Vec<_> =
            paths.chunks(paths.len().div_ceil(AT_ONCE).max(1)).map(|part| scope.spawn(move || wait(part))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| io::Error::other("a thread panicked"))?)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_draft_is_the_database_that_fjall_makes() {
        let home = tempfile::tempdir().unwrap();
        let (drafted, made) = (home.path().join("drafted"), home.path().join("made"));
        assert!(make(&drafted, 0).unwrap());
        drop(Database::open(&made).unwrap());
        let listed = |root: &Path| {
            let mut files = Vec::new();
            list(root, root, &mut files);
            files.sort();
            files
        };
        assert_eq!(listed(&drafted), listed(&made));
        let opened = Database::open(&drafted).unwrap();
        assert_eq!((opened.head().unwrap(), opened.tail().unwrap()), Default::default());
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(drafted.clone()), mode(drafted.join("version"))), (0o700, 0o600));
    }

    /// Files with their lengths.
    fn list(root: &Path, directory: &Path, files: &mut Vec<(PathBuf, u64)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                list(root, &path, files);
            } else {
                files.push((path.strip_prefix(root).unwrap().to_owned(), fs::metadata(&path).unwrap().len()));
            }
        }
    }
}
