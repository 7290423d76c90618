//! File operations inside one directory that no path can leave.
//!
//! Layers come from strangers. Every lookup resolves with `openat2(RESOLVE_IN_ROOT)`: symbolic links, absolute or with
//! `..`, are followed as a process with that root would, so what they name is always inside.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// A directory tree, and the directory that was used last.
pub(crate) struct Tree {
    root: OwnedFd,
    recent: Option<(PathBuf, OwnedFd)>,
}

impl Tree {
    /// The tree below the directory `root`.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { root: owned(nix::fcntl::open(root, flags, Mode::empty())?), recent: None })
    }

    /// Opens `path` below the root, following links inside it.
    pub(crate) fn open_beneath(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(self.root.as_raw_fd(), path, how).map(owned)
    }

    /// The directory `path`, made with its parents when it is missing.
    pub(crate) fn directory(&mut self, path: &Path) -> io::Result<RawFd> {
        if self.recent.as_ref().is_none_or(|(recent, _)| recent != path) {
            let fd = self.make(path)?;
            self.recent = Some((path.to_owned(), fd));
        }
        match &self.recent {
            Some((_, fd)) => Ok(fd.as_raw_fd()),
            None => Err(io::Error::other("no directory")),
        }
    }

    fn make(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open_beneath(path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Err(Errno::ENOENT) => {}
            other => return Ok(other?),
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::ENOENT.into());
        };
        let parent = self.make(parent)?;
        match mkdirat(Some(parent.as_raw_fd()), name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.open_beneath(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?)
    }

    /// Removes `name` from the open directory `dir`, with everything below it.
    pub(crate) fn remove(dir: RawFd, name: &OsStr, stat: &FileStat) -> io::Result<()> {
        if !is(stat, SFlag::S_IFDIR) {
            return Ok(unlinkat(Some(dir), name, UnlinkatFlags::NoRemoveDir)?);
        }
        remove_directory(dir, name)
    }
}

fn remove_directory(dir: RawFd, name: &OsStr) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut opened = Dir::openat(Some(dir), name, flags, Mode::empty())?;
    let fd = opened.as_raw_fd();
    let mut names: Vec<OsString> = Vec::new();
    for entry in opened.iter() {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if bytes != b"." && bytes != b".." {
            names.push(OsStr::from_bytes(bytes).to_owned());
        }
    }
    for child in names {
        match stat_at(fd, &child)? {
            Some(stat) if is(&stat, SFlag::S_IFDIR) => remove_directory(fd, &child)?,
            Some(_) => unlinkat(Some(fd), child.as_os_str(), UnlinkatFlags::NoRemoveDir)?,
            None => {}
        }
    }
    Ok(unlinkat(Some(dir), name, UnlinkatFlags::RemoveDir)?)
}

/// What `name` in `dir` is, none when there is nothing. Links are not followed.
pub(crate) fn stat_at(dir: RawFd, name: &OsStr) -> io::Result<Option<FileStat>> {
    match fstatat(Some(dir), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the file is of that type.
pub(crate) fn is(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == kind
}

/// Makes the regular file `name` in `dir`, which must not exist.
pub(crate) fn create_at(dir: RawFd, name: &OsStr) -> io::Result<std::fs::File> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(owned(openat(Some(dir), name, flags, Mode::from_bits_truncate(0o600))?).into())
}

/// The path without `.` and leading `/`; none when it climbs with `..`.
pub(crate) fn normalize(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => return None,
        }
    }
    Some(clean)
}

/// Takes ownership of a descriptor that a system call has just returned.
pub(crate) fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass the fresh result of a successful open; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
