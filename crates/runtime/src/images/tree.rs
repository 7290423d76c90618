//! File operations inside one directory that no path can leave.
//!
//! Layers come from strangers. Every lookup resolves with `openat2(RESOLVE_IN_ROOT)`: symbolic links, absolute or with
//! `..`, are followed as a process with that root would, so what they name is always inside.

use std::cell::Cell;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Most symbolic links on the way of one path, as runc has it.
const LINKS: usize = 255;
/// Most parts of paths that are followed for links to what is not there, of all files of a layer together: a layer of a few kilobytes can
/// have many that are long.
const DANGLING: usize = 500_000;

/// A directory tree, and the directory that was used last.
pub(crate) struct Tree {
    root: OwnedFd,
    recent: Option<(PathBuf, OwnedFd)>,
    /// Directories that [`Tree::directory`] has made since somebody asked.
    made: Vec<PathBuf>,
    /// Parts of paths that were resolved.
    resolved: Cell<usize>,
}

impl Tree {
    /// The tree below the directory `root`.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self {
            root: owned(nix::fcntl::open(root, flags, Mode::empty())?),
            recent: None,
            made: Vec::new(),
            resolved: Cell::new(0),
        })
    }

    /// Opens `path` below the root, following links inside it.
    pub(crate) fn open_beneath(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(self.root.as_raw_fd(), path, how).map(owned)
    }

    /// Where `path` leads, from the root, when the symbolic links on its way are followed inside of the tree, whether or not anything
    /// is there: what is missing stands for a directory that will be made. Below a place that is `covered`, as by a mount, nobody
    /// knows yet what will be there, and the rest of the path stays as it is.
    pub(crate) fn resolve(&self, path: &Path, covered: &dyn Fn(&Path) -> bool) -> io::Result<PathBuf> {
        let (mut place, mut links, mut blind) = (PathBuf::from("/"), 0, false);
        let mut todo = parts(path);
        while let Some(part) = todo.pop() {
            self.resolved.set(self.resolved.get() + 1);
            if self.resolved.get() > DANGLING {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "links of the layer lead too far"));
            }
            if part == ".." {
                place.pop();
                continue;
            }
            place.push(part);
            let Some(target) = (if blind { None } else { self.link_at(&place)? }) else {
                blind = blind || covered(&place);
                continue;
            };
            links += 1;
            if links > LINKS {
                return Err(Errno::ELOOP.into());
            }
            place.pop();
            if target.is_absolute() {
                place = PathBuf::from("/");
            }
            todo.extend(parts(&target));
        }
        Ok(place)
    }

    /// The target of the symbolic link at `path`; none when it is none, or nothing is there.
    fn link_at(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        let fd = match self.open_beneath(path, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            result => result?,
        };
        let stat = nix::sys::stat::fstat(fd.as_raw_fd())?;
        match is(&stat, SFlag::S_IFLNK) {
            true => Ok(Some(nix::fcntl::readlinkat(Some(fd.as_raw_fd()), "")?.into())),
            false => Ok(None),
        }
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

    /// The directories that were missing and had to be made since the last call.
    pub(crate) fn take_made(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.made)
    }

    fn make(&mut self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match self.open_beneath(path, flags) {
            Err(Errno::ENOENT) => {}
            other => return Ok(other?),
        }
        let names: Vec<&OsStr> = path.iter().collect();
        let upto = |number: usize| names[..number].iter().collect::<PathBuf>();
        // Whatever leads to a directory that is there is there: few looks find the last of them, each of which may follow many links.
        let (mut there, mut missing) = (0, names.len());
        let mut here = self.open_beneath(Path::new(""), flags)?;
        while missing - there > 1 {
            let middle = usize::midpoint(there, missing);
            match self.open_beneath(&upto(middle), flags) {
                Ok(found) => (there, here) = (middle, found),
                Err(Errno::ENOENT) => missing = middle,
                Err(error) => return Err(error.into()),
            }
        }
        for (number, name) in names.iter().copied().enumerate().skip(there) {
            here = match mkdirat(Some(here.as_raw_fd()), name, Mode::from_bits_truncate(0o755)) {
                Ok(()) => {
                    self.made.push(upto(number + 1));
                    owned(openat(Some(here.as_raw_fd()), name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
                }
                // A link to what is not here, such as `/run` of a layer below: the directory is made where it leads.
                Err(Errno::EEXIST) => self.make_behind(&upto(number + 1))?,
                Err(error) => return Err(error.into()),
            };
        }
        check_depth(&here)?;
        Ok(here)
    }

    /// Makes the directory that the links of `path` lead to.
    fn make_behind(&mut self, path: &Path) -> io::Result<OwnedFd> {
        let place = self.resolve(path, &|_| false)?;
        let place = place.strip_prefix("/").unwrap_or(&place);
        if place == path { Ok(self.open_beneath(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?) } else { self.make(place) }
    }

    /// Removes `name` from the open directory `dir`, with everything below it.
    pub(crate) fn remove(dir: RawFd, name: &OsStr, stat: &FileStat) -> io::Result<()> {
        if !is(stat, SFlag::S_IFDIR) {
            return Ok(unlinkat(Some(dir), name, UnlinkatFlags::NoRemoveDir)?);
        }
        // SAFETY: the caller has it open.
        base::trees::remove_at(unsafe { BorrowedFd::borrow_raw(dir) }, &CString::new(name.as_bytes())?)
    }
}

/// Refuses a directory whose path nobody could name (PATH_MAX): links lead a layer that deep, and no program finds its way there.
fn check_depth(directory: &OwnedFd) -> io::Result<()> {
    match nix::fcntl::readlink(format!("/proc/self/fd/{}", directory.as_raw_fd()).as_str()) {
        Err(Errno::ENAMETOOLONG) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a directory of the layer is deeper than any path"))
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// The names and `..` of a path, last first.
pub(super) fn parts(path: &Path) -> Vec<OsString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(part).collect()
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

/// The path without `.`, leading `/` and `..`, which takes away the name before it; none when it climbs out.
pub(crate) fn normalize(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir if clean.pop() => {}
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn layers_are_as_deep_as_paths_are_long() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(dir.path()).unwrap();
        let level: PathBuf = std::iter::repeat_n("d", 1500).collect();
        tree.directory(&level).unwrap();
        assert_eq!(tree.take_made().len(), 1500);
        // Each link leads so much deeper.
        symlink(&level, dir.path().join("l")).unwrap();
        assert!(tree.directory(&Path::new("l").join("a")).is_ok());
        let error = tree.directory(&Path::new("l").join(&level)).unwrap_err();
        assert!(error.to_string().contains("deeper than any path"), "{error}");
        symlink("nowhere", dir.path().join("dangling")).unwrap();
        assert!(tree.directory(Path::new("dangling/x/y")).is_ok() && dir.path().join("nowhere/x").is_dir());
        assert!(tree.directory(Path::new("l/a/x/y")).is_ok() && tree.take_made().len() > 2);
        base::trees::remove(&dir.path().join("d")).unwrap();
    }

    #[test]
    fn paths_are_resolved_inside_of_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("etc")).unwrap();
        std::fs::create_dir_all(at("var/lib")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        for (link, target) in [
            ("var/run", "/run"),
            ("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
            ("escape", "../../../../tmp"),
            ("chain", "var/run/./x"),
            ("loop", "loop"),
            ("dir", "var/lib"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        let tree = Tree::open(dir.path()).unwrap();
        let check = |path: &str, expected: Option<&str>| {
            let covered = |place: &Path| place == Path::new("/var/lib");
            assert_eq!(tree.resolve(Path::new(path), &covered).ok().as_deref(), expected.map(Path::new), "{path}");
        };
        check("/var/run", Some("/run"));
        check("/var/run/secrets/a", Some("/run/secrets/a"));
        check("/etc/resolv.conf", Some("/run/systemd/resolve/stub-resolv.conf"));
        check("/escape/x", Some("/tmp/x"));
        check("/chain", Some("/run/x"));
        check("/loop/x", None);
        check("/nothing/../var/run", Some("/run"));
        check("file/x", Some("/file/x"));
        check("/dir/../..", Some("/"));
        // What is below a mount is looked up when the mount is there.
        symlink("/tmp", at("var/lib/link")).unwrap();
        check("/dir/link/x", Some("/var/lib/link/x"));
    }
}
