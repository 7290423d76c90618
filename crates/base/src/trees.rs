//! Trees of files that others have filled: containers, and images of strangers.
//!
//! Nothing here trusts a path. A tree is walked from descriptor to descriptor, so that no link leads out of it, also none that somebody puts
//! there meanwhile, and no path is too long. The walk does not recurse and holds a bounded number of descriptors, so that a tree may be as
//! deep as its maker likes: functions of the standard library end the process at some ten thousand levels, which cost their maker nothing.

use std::ffi::{CStr, CString};
use std::fs::{DirBuilder, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub use rustix::fs::Stat;
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, SeekFrom, fstat, openat, seek, statat, unlinkat};
use rustix::io::Errno;
use uuid::Uuid;

/// What is read of a directory at a time, bytes.
const PIECE: usize = 16 << 10;
/// Levels from the root whose directories stay open while the walk is below them. It comes back to them wherever they have been moved
/// meanwhile: who moves directories without pause hides nothing that is in them. From those below it goes back by `..`.
const OPEN: usize = 64;

/// Sees the files of a tree.
pub trait Visitor {
    /// One that is neither a directory nor anything in it that was visited before; `name` may be another one by the time it is opened.
    ///
    /// # Errors
    /// End the walk.
    fn file(&mut self, directory: BorrowedFd<'_>, name: &CStr, found: &Stat) -> io::Result<()>;

    /// A directory below the root, before what is in it. It is open.
    ///
    /// # Errors
    /// End the walk.
    fn enter(&mut self, directory: BorrowedFd<'_>, found: &Stat) -> io::Result<()>;

    /// A directory whose files have been visited, by its name in the directory that it is in.
    ///
    /// # Errors
    /// End the walk.
    fn leave(&mut self, _parent: BorrowedFd<'_>, _name: &CStr) -> io::Result<()> {
        Ok(())
    }

    /// Another file system is mounted there: nobody goes there.
    ///
    /// # Errors
    /// End the walk.
    fn mounted(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A directory on the way from the root to where the walk is.
struct Level<D> {
    place: (u64, u64),
    /// Where to go on in it.
    offset: u64,
    /// The name, in it, of the next one.
    name: CString,
    directory: D,
}

/// The nearest level that is still there, when the walk comes back from below it: one that is open, or is where it was. None at the root's end.
fn come_back(above: &mut Vec<Level<Option<OwnedFd>>>, below: BorrowedFd<'_>) -> io::Result<Option<Level<OwnedFd>>> {
    while let Some(Level { place: own, offset, name, directory }) = above.pop() {
        let directory = match directory {
            Some(directory) => Some(directory),
            None => match open(below, c"..") {
                Err(Errno::NOENT) => None,
                parent => Some(parent?).filter(|parent| fstat(parent).is_ok_and(|found| place(&found) == own)),
            },
        };
        if let Some(directory) = directory {
            return Ok(Some(Level { place: own, offset, name, directory }));
        }
    }
    Ok(None)
}

fn place(found: &Stat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
}

fn open(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(directory, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Visits all below an open directory. What vanishes meanwhile is not visited, nor what is left beside a directory below the [`OPEN`]th level
/// that was moved away while the walk was in it. Blocking; as long as there are files.
///
/// # Errors
/// That of the visitor; or a directory cannot be read.
pub fn walk(root: OwnedFd, visitor: &mut impl Visitor) -> io::Result<()> {
    let found = fstat(&root)?;
    let (device, mut own, mut here) = (found.st_dev, place(&found), root);
    let mut above = Vec::new();
    let mut buffer = [MaybeUninit::<u8>::uninit(); PIECE];
    loop {
        if let Some(Next { name, offset, place, directory }) = read_on(&here, device, &mut buffer, visitor)? {
            let before = std::mem::replace(&mut here, directory);
            let level = Level { place: own, offset, name, directory: (above.len() < OPEN).then_some(before) };
            above.push(level);
            own = place;
            continue;
        }
        let Some(Level { place, offset, name, directory }) = come_back(&mut above, here.as_fd())? else { return Ok(()) };
        visitor.leave(directory.as_fd(), &name)?;
        seek(&directory, SeekFrom::Start(offset))?;
        (own, here) = (place, directory);
    }
}

/// A directory in an open one.
struct Next {
    name: CString,
    /// Where to go on behind it.
    offset: u64,
    place: (u64, u64),
    directory: OwnedFd,
}

/// Goes on in an open directory, to the next one in it; none at its end.
fn read_on(
    directory: &OwnedFd,
    device: u64,
    buffer: &mut [MaybeUninit<u8>],
    visitor: &mut impl Visitor,
) -> io::Result<Option<Next>> {
    let mut entries = RawDir::new(directory, buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let (name, offset) = (entry.file_name(), entry.next_entry_cookie());
        if name == c"." || name == c".." {
            continue;
        }
        let found = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            found => found?,
        };
        if !rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir() {
            visitor.file(directory.as_fd(), name, &found)?;
            continue;
        }
        let next = match open(directory.as_fd(), name) {
            // It has become something else.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            next => next?,
        };
        let found = fstat(&next)?;
        if found.st_dev != device {
            visitor.mounted()?;
            continue;
        }
        visitor.enter(next.as_fd(), &found)?;
        return Ok(Some(Next { name: name.to_owned(), offset, place: place(&found), directory: next }));
    }
    Ok(None)
}

/// A handle on what a directory has by this name, whatever it is: of a link on the link itself. It says what it is and has an owner that can be
/// changed, and nothing is opened: no device is asked, no pipe waits, no right to read is needed (open(2), `O_PATH`).
///
/// # Errors
/// It is not there any more, or the directory may not be looked into.
pub fn handle(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<File> {
    Ok(File::from(openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?))
}

/// Most walks through a tree that is removed.
const WALKS: usize = 64;

#[derive(Default)]
struct Remover {
    /// This walk has removed something.
    has_removed: bool,
}

impl Visitor for Remover {
    fn file(&mut self, directory: BorrowedFd<'_>, name: &CStr, _: &Stat) -> io::Result<()> {
        unless_gone(unlinkat(directory, name, AtFlags::empty()))?;
        self.has_removed = true;
        Ok(())
    }

    fn enter(&mut self, _: BorrowedFd<'_>, _: &Stat) -> io::Result<()> {
        Ok(())
    }

    fn leave(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            // What was passed over is for the next walk.
            Err(Errno::NOTEMPTY) => return Ok(()),
            done => unless_gone(done)?,
        }
        self.has_removed = true;
        Ok(())
    }

    fn mounted(&mut self) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "a file system is mounted in it"))
    }
}

fn unless_gone(done: Result<(), Errno>) -> io::Result<()> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        done => Ok(done?),
    }
}

/// Removes what `name` is in an open directory, with all that is in it. Blocking.
///
/// # Errors
/// It cannot be removed, or a file system is mounted in it. A part of it may be gone then.
pub fn remove_at(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        done => return unless_gone(done),
    }
    // Some file systems number the entries of a directory by their place in it (tmpfs before Linux 6.6, ramfs, 9p): where a walk comes back to a
    // directory of which it has removed something, it passes over as much. Who makes new files all the time is not followed without end.
    for _ in 0..WALKS {
        let mut remover = Remover::default();
        match open(directory, name) {
            Err(Errno::NOENT) => return Ok(()),
            root => walk(root?, &mut remover)?,
        }
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) if remover.has_removed => {}
            done => return unless_gone(done),
        }
    }
    Err(Errno::NOTEMPTY.into())
}

/// Removes a file or a directory with all that is in it; it may not be there. Blocking.
///
/// # Errors
/// As [`remove_at`].
pub fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = match File::open(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        parent => parent?,
    };
    remove_at(parent.as_fd(), &CString::new(name.as_encoded_bytes())?)
}

/// A directory that is removed with all that is in it when this is dropped.
#[derive(Debug)]
pub struct Temporary(Option<PathBuf>);

impl Temporary {
    /// Makes one in `parent`, for its owner only.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(parent: &Path, prefix: &str) -> io::Result<Self> {
        let path = parent.join(format!("{prefix}{}", Uuid::new_v4().simple()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(Some(path)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// Lets it be.
    pub fn keep(mut self) {
        self.0 = None;
    }

    /// Removes it now. Blocking.
    ///
    /// # Errors
    /// As [`remove`].
    pub fn close(mut self) -> io::Result<()> {
        self.0.take().map_or(Ok(()), |path| remove(&path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = remove(&path)
        {
            tracing::warn!(path = %path.display(), %error, "a temporary directory is left");
        }
    }
}

#[cfg(test)]
mod tests;
