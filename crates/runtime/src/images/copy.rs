//! Copies of files with everything that a container may see of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, mknod};

use super::noted::Room;

/// Most bytes of paths of directories that are being filled, and of names of files that have several.
const PATHS: usize = 64 << 20;

/// Copies trees of files that nobody changes meanwhile.
pub(crate) struct Copy {
    /// Copies of files with several names.
    links: HashMap<(u64, u64), PathBuf>,
    room: Room,
}

/// A directory that is being filled.
struct Filled {
    from: PathBuf,
    to: PathBuf,
    found: fs::Metadata,
    /// Names of those in it that are still to be filled.
    left: Vec<OsString>,
}

impl Default for Copy {
    fn default() -> Self {
        Self { links: HashMap::new(), room: Room::new("directories and hard links", PATHS) }
    }
}

impl Copy {
    /// Fills the directory `to`.
    pub(crate) fn directory(&mut self, from: &Path, to: &Path, found: &fs::Metadata) -> io::Result<()> {
        // Not by calls of itself: a tree may be deep.
        let mut above = vec![self.begin(from.to_owned(), to.to_owned(), found.clone())?];
        while let Some(mut here) = above.pop() {
            let Some(name) = here.left.pop() else {
                // Last, because filling it changes its times.
                equal(&here.from, &here.to, &here.found)?;
                self.room.give_back(&here.from);
                self.room.give_back(&here.to);
                continue;
            };
            self.room.give_back(Path::new(&name));
            let (from, to) = (here.from.join(&name), here.to.join(&name));
            above.push(here);
            let found = fs::symlink_metadata(&from)?;
            fs::create_dir(&to)?;
            above.push(self.begin(from, to, found)?);
        }
        Ok(())
    }

    /// Copies the files of a directory, and finds the directories in it.
    fn begin(&mut self, from: PathBuf, to: PathBuf, found: fs::Metadata) -> io::Result<Filled> {
        self.room.take(&from)?;
        self.room.take(&to)?;
        let mut left = Vec::new();
        for entry in fs::read_dir(&from)? {
            let name = entry?.file_name();
            let source = from.join(&name);
            let found = fs::symlink_metadata(&source)?;
            if found.is_dir() {
                self.room.take(Path::new(&name))?;
                left.push(name);
            } else {
                self.file(&source, &to.join(&name), &found)?;
            }
        }
        Ok(Filled { from, to, found, left })
    }

    /// Copies one file or tree to where nothing is.
    pub(crate) fn entry(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(from)?;
        if found.is_dir() {
            fs::create_dir(to)?;
            return self.directory(from, to, &found);
        }
        self.file(from, to, &found)
    }

    fn file(&mut self, from: &Path, to: &Path, found: &fs::Metadata) -> io::Result<()> {
        if found.nlink() > 1 {
            match self.links.entry((found.dev(), found.ino())) {
                Entry::Occupied(first) => return fs::hard_link(first.get(), to),
                Entry::Vacant(first) => {
                    self.room.take(to)?;
                    first.insert(to.to_owned());
                }
            }
        }
        if found.is_symlink() {
            symlink(fs::read_link(from)?, to)?;
            return lchown(to, Some(found.uid()), Some(found.gid()));
        }
        if found.is_file() {
            fs::copy(from, to)?;
        } else {
            let kind = SFlag::from_bits_truncate(found.mode() & SFlag::S_IFMT.bits());
            mknod(to, kind, Mode::from_bits_truncate(0o600), found.rdev())?;
        }
        equal(from, to, found)
    }
}

/// Gives `to` the owner, the mode, the attributes and the times of `from`. The order counts: changing the owner clears the setuid
/// bit and file capabilities.
pub(crate) fn equal(from: &Path, to: &Path, found: &fs::Metadata) -> io::Result<()> {
    chown(to, Some(found.uid()), Some(found.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(found.mode() & 0o7777))?;
    copy_attributes(from, to)?;
    let time = |seconds: i64, nanoseconds: i64| nix::sys::time::TimeSpec::new(seconds, nanoseconds);
    let (accessed, modified) = (time(found.atime(), found.atime_nsec()), time(found.mtime(), found.mtime_nsec()));
    Ok(nix::sys::stat::utimensat(None, to, &accessed, &modified, nix::sys::stat::UtimensatFlags::NoFollowSymlink)?)
}

fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    let mut names = vec![0_u8; 64 << 10];
    // SAFETY: the path ends with NUL and the buffer is passed with its length.
    let length = unsafe { libc::llistxattr(from.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let Ok(length) = usize::try_from(length) else { return unless_unsupported() };
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = std::ffi::CStr::from_bytes_with_nul(name) else { continue };
        if name.to_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0_u8; 64 << 10];
        // SAFETY: both strings end with NUL and the buffer is passed with its length.
        let length = unsafe { libc::lgetxattr(from.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        let Ok(length) = usize::try_from(length) else {
            unless_unsupported()?;
            continue;
        };
        // SAFETY: both strings end with NUL and the value is passed with its length.
        if unsafe { libc::lsetxattr(to.as_ptr(), name.as_ptr(), value.as_ptr().cast(), length, 0) } != 0 {
            unless_unsupported()?;
        }
    }
    Ok(())
}

/// A file system without such attributes: the file works without.
fn unless_unsupported() -> io::Result<()> {
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::ENOTSUP | libc::ENODATA)) => Ok(()),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What a tree takes in memory is the way to where the copy is, not the tree.
    #[test]
    fn trees_are_copied_in_little_memory() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        for number in 0..200 {
            fs::create_dir_all(from.join(format!("{}/{number}", number % 10))).unwrap();
        }
        fs::write(from.join("0/0/file"), "text").unwrap();
        fs::hard_link(from.join("0/0/file"), from.join("1/link")).unwrap();
        fs::create_dir(&to).unwrap();
        let found = fs::symlink_metadata(&from).unwrap();
        let copy = |most: usize| {
            let mut copy = Copy { links: HashMap::new(), room: Room::new("directories", most) };
            copy.directory(&from, &to, &found)
        };
        // Three levels and the names beside them, not two hundred directories.
        copy(8 << 10).unwrap();
        let stat = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
        assert_eq!((stat("0/0/file").ino(), stat("0/0/file").nlink()), (stat("1/link").ino(), 2));
        assert_eq!(stat("9/199").mtime(), fs::symlink_metadata(from.join("9/199")).unwrap().mtime());
        base::trees::remove(&to).unwrap();
        fs::create_dir(&to).unwrap();
        assert!(copy(1 << 10).unwrap_err().to_string().contains("directories are more than"));
    }
}
