//! Unpacks the tar stream of a layer into a directory that overlayfs can take as a lower layer.
//!
//! Whiteouts (`.wh.NAME`, `.wh..wh..opq`; OCI image specification, layer.md) become overlayfs's own marks: a character
//! device 0/0 and the attribute `trusted.overlay.opaque`.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstat, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};
use tar::{Entry, EntryType};

use super::header;
use super::loose::{Noting, Unpacked};
use super::metered::{HEADERS, Metered};
use super::noted::Room;
use super::split::Split;
use super::tree::{Tree, create_at, is, normalize, stat_at};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Most bytes of paths of one layer's directories.
const DIRECTORIES: usize = 64 << 20;

/// Unpacks the uncompressed tar stream `source` into the empty directory `target`. `split`, which records the source, is told which parts of
/// it are files.
pub(super) fn unpack<W: Write>(source: impl Read, target: &Path, split: &Split<W>) -> io::Result<Unpacked> {
    let (source, allowed) = Metered::new(source);
    let mut archive = tar::Archive::new(source);
    let tree = Tree::open(target)?;
    let directories = Directories { times: BTreeMap::new(), room: Room::new("directories of the layer", DIRECTORIES) };
    let mut unpacker = Unpacker { tree, directories, size: 0, loose: Noting::new(), split };
    unpacker.loose.implied(Path::new(""))?;
    let mut entries = archive.entries()?;
    loop {
        allowed.set(HEADERS);
        let Some(entry) = entries.next() else { return unpacker.finish() };
        let entry = entry?;
        allowed.set(u64::MAX);
        unpacker.entry(entry)?;
    }
}

/// Times of directories, which are set last: filling one changes its own.
struct Directories {
    times: BTreeMap<PathBuf, TimeSpec>,
    room: Room,
}

impl Directories {
    /// The layer says the time of one, perhaps again.
    fn told(&mut self, path: PathBuf, time: TimeSpec) -> io::Result<()> {
        if !self.times.contains_key(&path) {
            self.room.take(&path)?;
        }
        self.times.insert(path, time);
        Ok(())
    }
}

struct Unpacker<'a, W: Write> {
    tree: Tree,
    directories: Directories,
    size: u64,
    loose: Noting,
    split: &'a Split<W>,
}

impl<W: Write> Unpacker<'_, W> {
    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> io::Result<()> {
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            return Ok(());
        }
        let raw = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let path = normalize(&raw).ok_or_else(|| invalid(format!("entry {} leaves the layer", raw.display())))?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The root itself.
            let dir = self.tree.open_beneath(Path::new("."), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
            let meta = Meta::of(&mut entry)?;
            self.loose.told(Path::new(""));
            self.directories.told(PathBuf::new(), meta.mtime)?;
            return meta.apply(dir.as_raw_fd(), OsStr::new("."), false);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = self.tree.directory(parent)?;
        self.tree.take_made().iter().try_for_each(|made| self.loose.implied(made))?;
        if name.as_bytes() == OPAQUE {
            return set_xattr(dir, OsStr::new("."), "trusted.overlay.opaque", b"y");
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            self.loose.told(&parent.join(OsStr::from_bytes(hidden)));
            return hide(dir, OsStr::from_bytes(hidden));
        }
        let kind = header::kind(entry.header(), &entry.path_bytes());
        self.loose.told(&path);
        let opaque = self.make_room(dir, &name, kind)?;
        if kind == EntryType::Link && self.is_loose(&entry, &path)? {
            return Ok(());
        }
        // The contents of a sparse file are no part of the stream as they are.
        if matches!(kind, EntryType::Regular | EntryType::Continuous) {
            self.split.content(&path, entry.size())?;
        }
        self.create(&mut entry, dir, &name, kind).map_err(|error| io::Error::new(error.kind(), Context { path: raw, error }))?;
        if kind == EntryType::Link {
            return Ok(());
        }
        let meta = Meta::of(&mut entry)?;
        meta.apply(dir, &name, kind == EntryType::Symlink)?;
        if kind.is_dir() {
            if opaque {
                set_xattr(dir, &name, "trusted.overlay.opaque", b"y")?;
            }
            self.directories.told(path, meta.mtime)?;
        }
        Ok(())
    }

    /// Removes what an earlier entry left at this name. True when that was a whiteout and a directory comes: it is opaque.
    fn make_room(&self, dir: RawFd, name: &OsStr, kind: EntryType) -> io::Result<bool> {
        let Some(stat) = stat_at(dir, name)? else { return Ok(false) };
        if kind.is_dir() && is(&stat, SFlag::S_IFDIR) {
            return Ok(false);
        }
        Tree::remove(dir, name, &stat)?;
        if is(&stat, SFlag::S_IFREG) || is(&stat, SFlag::S_IFDIR) {
            self.split.removed();
        }
        Ok(kind.is_dir() && is(&stat, SFlag::S_IFCHR) && stat.st_rdev == 0)
    }

    fn create<R: Read>(&mut self, entry: &mut Entry<'_, R>, dir: RawFd, name: &OsStr, kind: EntryType) -> io::Result<()> {
        match kind {
            EntryType::Directory => match mkdirat(Some(dir), name, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
                Err(error) => Err(error.into()),
            },
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.size += io::copy(entry, &mut create_at(dir, name)?)?;
                Ok(())
            }
            EntryType::Symlink => Ok(symlinkat(OsStr::from_bytes(&link(entry)?), Some(dir), name)?),
            EntryType::Link => self.hard_link(&link(entry)?, dir, name),
            EntryType::Char => make_node(entry, dir, name, SFlag::S_IFCHR),
            EntryType::Block => make_node(entry, dir, name, SFlag::S_IFBLK),
            EntryType::Fifo => make_node(entry, dir, name, SFlag::S_IFIFO),
            other => Err(invalid(format!("tar entry type {:?} is not supported", char::from(other.as_byte())))),
        }
    }

    fn hard_link(&self, target: &[u8], dir: RawFd, name: &OsStr) -> io::Result<()> {
        let raw = Path::new(OsStr::from_bytes(target));
        let path = normalize(raw).ok_or_else(|| invalid(format!("hard link to {} leaves the layer", raw.display())))?;
        let file = path.file_name().ok_or_else(|| invalid("hard link to the root".to_owned()))?;
        let parent = self.tree.open_beneath(path.parent().unwrap_or(Path::new("")), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        Ok(linkat(Some(parent.as_raw_fd()), file, Some(dir), name, AtFlags::empty())?)
    }

    /// Notes a hard link to what this layer does not have.
    fn is_loose<R: Read>(&mut self, entry: &Entry<'_, R>, path: &Path) -> io::Result<bool> {
        let target = link(entry)?;
        let Some(target) = normalize(Path::new(OsStr::from_bytes(&target))) else { return Ok(false) };
        let is_here = match self.tree.open_beneath(&target, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Ok(fd) => {
                let stat = fstat(fd.as_raw_fd())?;
                !is(&stat, SFlag::S_IFCHR) || stat.st_rdev != 0
            }
            Err(error) => error != nix::errno::Errno::ENOENT,
        };
        if is_here { Ok(false) } else { self.loose.link(path, &target) }
    }

    fn finish(self) -> io::Result<Unpacked> {
        // What is in a directory comes before it.
        for (path, mtime) in self.directories.times.into_iter().rev() {
            // A later entry may have replaced it.
            if let Ok(dir) = self.tree.open_beneath(&path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                set_mtime(dir.as_raw_fd(), OsStr::new("."), mtime)?;
            }
        }
        Ok(Unpacked { size: self.size, loose: self.loose.finish() })
    }
}

/// Owner, mode, attributes and time of an entry.
struct Meta {
    uid: Uid,
    gid: Gid,
    mode: u32,
    mtime: TimeSpec,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Meta {
    fn of<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Self> {
        let header = entry.header();
        let (uid, gid) = header::owner(header)?;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let mut meta = Self { uid, gid, mode: header::mode(header)?, mtime: header::mtime(header)?, xattrs: Vec::new() };
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            if let (b"mtime", Some(time)) = (extension.key_bytes(), header::pax_time(extension.value_bytes())) {
                meta.mtime = time;
            }
            let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") else { continue };
            let name = String::from_utf8_lossy(name).into_owned();
            // A layer must not speak overlayfs's private language.
            if !name.starts_with("trusted.overlay.") {
                meta.xattrs.push((name, extension.value_bytes().to_vec()));
            }
        }
        Ok(meta)
    }

    /// The order counts: changing the owner clears the setuid bit and file capabilities.
    fn apply(&self, dir: RawFd, name: &OsStr, symlink: bool) -> io::Result<()> {
        fchownat(Some(dir), name, Some(self.uid), Some(self.gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if !symlink {
            fchmodat(Some(dir), name, Mode::from_bits_truncate(self.mode), FchmodatFlags::FollowSymlink)?;
            for (key, value) in &self.xattrs {
                set_xattr(dir, name, key, value)?;
            }
        }
        set_mtime(dir, name, self.mtime)
    }
}

fn set_mtime(dir: RawFd, name: &OsStr, mtime: TimeSpec) -> io::Result<()> {
    Ok(utimensat(Some(dir), name, &mtime, &mtime, UtimensatFlags::NoFollowSymlink)?)
}

fn hide(dir: RawFd, name: &OsStr) -> io::Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.as_bytes().starts_with(WHITEOUT) {
        return Ok(());
    }
    match stat_at(dir, name)? {
        // The whiteout is about the layers below; what this layer holds stays, and hides by itself unless it merges.
        Some(stat) if is(&stat, SFlag::S_IFDIR) => set_xattr(dir, name, "trusted.overlay.opaque", b"y"),
        Some(_) => Ok(()),
        None => Ok(mknodat(Some(dir), name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?),
    }
}

fn make_node<R: Read>(entry: &Entry<'_, R>, dir: RawFd, name: &OsStr, kind: SFlag) -> io::Result<()> {
    // A FIFO has no numbers, whatever its header says.
    let (major, minor) = if kind == SFlag::S_IFIFO { (0, 0) } else { header::device(entry.header())? };
    Ok(mknodat(Some(dir), name, kind, Mode::from_bits_truncate(0o600), makedev(major, minor))?)
}

fn link<R: Read>(entry: &Entry<'_, R>) -> io::Result<Vec<u8>> {
    entry.link_name_bytes().map(|name| name.into_owned()).ok_or_else(|| invalid("link without a target".to_owned()))
}

fn set_xattr(dir: RawFd, name: &OsStr, key: &str, value: &[u8]) -> io::Result<()> {
    let mut path = format!("/proc/self/fd/{dir}/").into_bytes();
    path.extend_from_slice(name.as_bytes());
    let (path, key_c) = (CString::new(path)?, CString::new(key)?);
    // SAFETY: both strings end with NUL and the value is passed with its length.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), key_c.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        // The file system has no such attributes (labels of another security module): the file works without.
        error if error.raw_os_error() == Some(libc::ENOTSUP) && !key.starts_with("trusted.") => Ok(()),
        error => Err(error),
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// An error with the entry that it happened at.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
struct Context {
    path: PathBuf,
    error: io::Error,
}

#[cfg(test)]
mod tests;
