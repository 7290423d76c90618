//! Files that are replaced as a whole: who reads one finds what was there before or what is there now, also after a crash.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Which crash what was written outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlives {
    /// That of the process. For what means nothing once the machine has started again.
    Process,
    /// That of the machine, too: the disk has it before the function returns.
    Machine,
}

/// Ends the name of a file that is being written, which begins with a dot.
const NEXT: &str = ".next";

/// Replaces a file; its directory is made when it is missing. A file that has this content already stays as it is, for which a full disk has
/// room. Blocking.
///
/// # Errors
/// It cannot be written; what was there before is there still.
pub fn replace(path: &Path, bytes: &[u8], outlives: Outlives) -> io::Result<()> {
    write(path, bytes, outlives, (0o777, 0o666))
}

/// Replaces a file that only its owner may read, and that outlives a crash of the machine. A directory that is missing is made for its
/// owner only. Blocking.
///
/// # Errors
/// It cannot be written; what was there before is there still.
pub fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, Outlives::Machine, (0o700, 0o600))
}

fn write(path: &Path, bytes: &[u8], outlives: Outlives, (directory_mode, mode): (u32, u32)) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    DirBuilder::new().recursive(true).mode(directory_mode).create(directory)?;
    if holds(path, bytes, mode) {
        if outlives == Outlives::Machine {
            // Whoever wrote it may not have waited for the disk.
            File::open(path)?.sync_all()?;
            File::open(directory)?.sync_all()?;
        }
        return Ok(());
    }
    let next = directory.join(next_of(name));
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&next).and_then(|mut file| {
        file.write_all(bytes)?;
        if outlives == Outlives::Machine { file.sync_all() } else { Ok(()) }
    });
    if let Err(error) = written.and_then(|()| fs::rename(&next, path)) {
        // A full disk has room for nothing that is of no use.
        let _ = fs::remove_file(&next);
        return Err(error);
    }
    if outlives == Outlives::Machine { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Whether there is a file of ours with this content that nobody else may read than `mode` says.
fn holds(path: &Path, bytes: &[u8], mode: u32) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else { return false };
    let is_ours = found.is_file() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o777 & !mode == 0;
    is_ours && found.len() == bytes.len() as u64 && fs::read(path).is_ok_and(|found| found == bytes)
}

/// Takes that a file was not replaced for no error where there is an older one to go on with, and tells of it.
///
/// # Errors
/// There is none.
pub fn unless_older(path: &Path, replaced: io::Result<()>) -> io::Result<()> {
    match replaced {
        Err(error) if path.exists() => {
            tracing::error!(file = %path.display(), %error, "a file cannot be replaced: what it said before stands");
            Ok(())
        }
        done => done,
    }
}

/// What a file of this name is called while it is written.
fn next_of(name: &OsStr) -> OsString {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(NEXT);
    hidden
}

/// Renames a file, unless somebody else has taken it away.
///
/// # Errors
/// It is there and cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    unless_missing(fs::rename(from, to))
}

/// Removes a file, unless somebody else has.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    unless_missing(fs::remove_file(path))
}

/// Removes a file that [`replace`] writes, and what a process that was killed while it wrote it has left, so that its directory can go.
///
/// # Errors
/// One of them is there and cannot be removed.
pub fn remove_replaced(path: &Path) -> io::Result<()> {
    remove(path)?;
    path.file_name().map_or(Ok(()), |name| remove(&path.with_file_name(next_of(name))))
}

fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Whether a process that was killed while it wrote has left a file of this name.
pub fn is_left_over(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(NEXT)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_others_have_taken_away_is_no_error() {
        let home = tempfile::tempdir().unwrap();
        let (one, two) = (home.path().join("one"), home.path().join("two"));
        rename(&one, &two).unwrap();
        remove(&one).unwrap();
        fs::write(&one, "x").unwrap();
        rename(&one, &two).unwrap();
        assert!(!one.exists() && two.exists());
        assert!(remove(home.path()).is_err());
        remove(&two).unwrap();
        assert!(!two.exists());
    }

    #[test]
    fn what_a_killed_process_left_goes_with_the_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        replace(&path, b"one", Outlives::Process).unwrap();
        for is_written in [true, false] {
            fs::write(home.path().join("a/.b.next"), "half").unwrap();
            assert_eq!(path.exists(), is_written);
            remove_replaced(&path).unwrap();
            assert_eq!(fs::read_dir(home.path().join("a")).unwrap().count(), 0);
        }
        remove_replaced(&path).unwrap();
    }

    #[test]
    fn a_file_is_replaced_and_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        for (text, outlives) in [("one, which is longer", Outlives::Machine), ("two", Outlives::Process)] {
            replace(&path, text.as_bytes(), outlives).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let names = || fs::read_dir(home.path().join("a")).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(names(), ["b"]);
        assert!(replace(Path::new("/"), b"", Outlives::Process).is_err());
        // A directory cannot be replaced by a file.
        fs::create_dir_all(home.path().join("a/c/d")).unwrap();
        assert!(replace(&home.path().join("a/c"), b"", Outlives::Process).is_err());
        crate::trees::remove(&home.path().join("a/c")).unwrap();
        assert_eq!(names(), ["b"]);
        assert!(is_left_over(".b.next") && !is_left_over("b.next") && !is_left_over(".b"));
    }

    /// Each start writes files that are as they were: a full disk must not hinder it.
    #[test]
    fn what_is_there_already_is_not_written() {
        let home = tempfile::tempdir().unwrap();
        let (path, other) = (home.path().join("a"), home.path().join("b"));
        let number = || fs::symlink_metadata(&path).unwrap().ino();
        for outlives in [Outlives::Machine, Outlives::Process] {
            replace(&path, b"one", outlives).unwrap();
            // Nothing can take the place of a directory, as nothing can be written to a full disk.
            let (next, before) = (home.path().join(".a.next"), number());
            fs::create_dir(&next).unwrap();
            replace(&path, b"one", outlives).unwrap();
            assert_eq!(number(), before);
            let refused = replace(&path, b"two", outlives);
            assert!(refused.is_err() && fs::read(&path).unwrap() == b"one");
            unless_older(&path, refused).unwrap();
            unless_older(&other, replace(&other, b"", outlives).and(Err(io::ErrorKind::StorageFull.into()))).unwrap();
            fs::remove_file(&other).unwrap();
            assert!(unless_older(&other, Err(io::ErrorKind::StorageFull.into())).is_err());
            fs::remove_dir(&next).unwrap();
        }
        // Others can read it, and it is a link: it is made what it is to be.
        let before = number();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        replace_private(&path, b"one").unwrap();
        assert!(number() != before && fs::metadata(&path).unwrap().permissions().mode() & 0o777 == 0o600);
        fs::rename(&path, &other).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        replace_private(&path, b"one").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn a_private_file_is_its_owners() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("pki/key");
        replace_private(&path, b"secret").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&home.path().join("pki"))), (0o600, 0o700));
    }
}
