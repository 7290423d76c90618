//! Unpacks the tar stream of a layer into a directory that overlayfs can take as a lower layer.
//!
//! Whiteouts (`.wh.NAME`, `.wh..wh..opq`; OCI image specification, layer.md) become overlayfs's own marks: a character
//! device 0/0 and the attribute `trusted.overlay.opaque`.

use std::cell::Cell;
use std::ffi::{CString, OsStr};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};
use tar::{Entry, EntryType};

use super::tree::{Tree, create_at, is, normalize, stat_at};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Most bytes between the contents of two entries.
const HEADERS: u64 = 16 << 20;

/// Unpacks the uncompressed tar stream `source` into the empty directory `target`; gives the bytes of the files.
pub(crate) fn unpack(source: impl Read, target: &Path) -> io::Result<u64> {
    let allowed = Rc::new(Cell::new(0));
    let mut archive = tar::Archive::new(Metered { source, allowed: allowed.clone() });
    let mut unpacker = Unpacker { tree: Tree::open(target)?, directories: Vec::new(), size: 0 };
    let mut entries = archive.entries()?;
    loop {
        allowed.set(HEADERS);
        let Some(entry) = entries.next() else { return unpacker.finish() };
        let entry = entry?;
        allowed.set(u64::MAX);
        unpacker.entry(entry)?;
    }
}

/// Bounds what is read to find an entry. The library keeps long names and attributes in memory, however long they are,
/// and a few kilobytes of a compressed layer can hold gigabytes of them.
struct Metered<R> {
    source: R,
    allowed: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowed = self.allowed.get();
        if allowed == 0 {
            return Err(invalid(format!("the headers of an entry are larger than {HEADERS} bytes")));
        }
        let most = usize::try_from(allowed).map_or(buffer.len(), |allowed| allowed.min(buffer.len()));
        let count = self.source.read(&mut buffer[..most])?;
        self.allowed.set(allowed - count as u64);
        Ok(count)
    }
}

struct Unpacker {
    tree: Tree,
    /// Times of directories are set last: filling one changes its own.
    directories: Vec<(PathBuf, TimeSpec)>,
    size: u64,
}

impl Unpacker {
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
            self.directories.push((PathBuf::new(), meta.mtime));
            return meta.apply(dir.as_raw_fd(), OsStr::new("."), false);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = self.tree.directory(parent)?;
        if name.as_bytes() == OPAQUE {
            return set_xattr(dir, OsStr::new("."), "trusted.overlay.opaque", b"y");
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return hide(dir, OsStr::from_bytes(hidden));
        }
        let kind = entry.header().entry_type();
        let opaque = self.make_room(dir, &name, kind)?;
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
            self.directories.push((path, meta.mtime));
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

    fn finish(mut self) -> io::Result<u64> {
        for (path, mtime) in std::mem::take(&mut self.directories).into_iter().rev() {
            // A later entry may have replaced it.
            if let Ok(dir) = self.tree.open_beneath(&path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                set_mtime(dir.as_raw_fd(), OsStr::new("."), mtime)?;
            }
        }
        Ok(self.size)
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
        let id = |value: u64| u32::try_from(value).map_err(|_| invalid(format!("user or group {value} is too large")));
        let (uid, gid) = (Uid::from_raw(id(header.uid()?)?), Gid::from_raw(id(header.gid()?)?));
        let (mode, seconds) = (header.mode()? & 0o7777, header.mtime()?);
        let mut meta = Self { uid, gid, mode, mtime: TimeSpec::new(seconds as i64, 0), xattrs: Vec::new() };
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
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
    let major = entry.header().device_major()?.unwrap_or(0);
    let minor = entry.header().device_minor()?.unwrap_or(0);
    Ok(mknodat(Some(dir), name, kind, Mode::from_bits_truncate(0o600), makedev(major.into(), minor.into()))?)
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::MetadataExt;

    type Item<'a> = (EntryType, &'a str, &'a str, u32);

    fn archive(items: &[Item<'_>]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, path, content, mode) in items {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_mtime(1);
            header.set_uid(0);
            header.set_gid(0);
            // Written by hand: the library refuses to write hostile names.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            let data = if kind.is_file() { content.as_bytes() } else { &[] };
            header.set_size(data.len() as u64);
            if !kind.is_file() {
                header.set_link_name_literal(content).unwrap();
            }
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn check(items: &[Item<'_>], expected: Result<&[(&str, &str)], &str>) {
        if !Uid::effective().is_root() {
            eprintln!("SKIPPED: unpacking sets owners and whiteouts, which needs root");
            return;
        }
        let outer = tempfile::tempdir().unwrap();
        let target = outer.path().join("layer");
        std::fs::create_dir(&target).unwrap();
        match (unpack(&archive(items)[..], &target), expected) {
            (Ok(_), Ok(files)) => {
                for (path, content) in files {
                    let stat = std::fs::symlink_metadata(target.join(path)).unwrap();
                    match *content {
                        "WHITEOUT" => assert_eq!((stat.mode() & libc::S_IFMT, stat.rdev()), (libc::S_IFCHR, 0), "{path}"),
                        content => assert_eq!(std::fs::read_to_string(target.join(path)).unwrap(), content, "{path}"),
                    }
                }
            }
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (result, _) => panic!("{items:?}: {result:?}"),
        }
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1, "nothing beside the layer: {items:?}");
    }

    #[test]
    fn layers_unpack_and_hostile_ones_stay_inside() {
        use EntryType as T;
        check(&[(T::Regular, "a/b/c", "x", 0o4755)], Ok(&[("a/b/c", "x")]));
        check(&[(T::Regular, "a", "x", 0o644), (T::Link, "b", "a", 0o644)], Ok(&[("b", "x")]));
        check(&[(T::Regular, "a", "old", 0o644), (T::Regular, "a", "new", 0o644)], Ok(&[("a", "new")]));
        check(&[(T::Regular, "d/.wh.gone", "", 0o644)], Ok(&[("d/gone", "WHITEOUT")]));
        check(&[(T::Regular, "../x", "x", 0o644)], Err("leaves the layer"));
        check(&[(T::Link, "x", "../../etc/passwd", 0o644)], Err("leaves the layer"));
        // An absolute link is taken as a process inside would.
        check(
            &[(T::Directory, "in", "", 0o755), (T::Symlink, "l", "/in", 0o777), (T::Regular, "l/f", "x", 0o644)],
            Ok(&[("in/f", "x")]),
        );
        check(&[(T::Symlink, "l", "../..", 0o777), (T::Regular, "l/f", "x", 0o644)], Ok(&[("f", "x")]));
        // A directory in the way of a file, with content.
        check(&[(T::Regular, "d/e/f", "x", 0o644), (T::Regular, "d", "file", 0o644)], Ok(&[("d", "file")]));
    }

    /// A header of this type that announces `size` bytes, and zeros for ever.
    fn endless(kind: u8, size: u64) -> impl Read {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::new(kind));
        header.set_size(size);
        header.set_cksum();
        io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(0))
    }

    #[test]
    fn headers_are_bounded() {
        for kind in [b'L', b'K', b'x'] {
            let target = tempfile::tempdir().unwrap();
            let error = unpack(endless(kind, 1 << 40), target.path()).unwrap_err().to_string();
            assert!(error.contains("headers of an entry are larger"), "{error}");
        }
    }

    #[test]
    fn noise_is_refused() {
        // Deterministic: valid archives with bytes changed, and noise.
        let good = archive(&[(EntryType::Regular, "a/b", "x", 0o644), (EntryType::Symlink, "l", "a", 0o777)]);
        let mut seed = 0x9e37_79b9_u64;
        let mut next = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        for _ in 0..500 {
            let outer = tempfile::tempdir().unwrap();
            let target = outer.path().join("layer");
            std::fs::create_dir(&target).unwrap();
            let mut bytes = good.clone();
            for _ in 0..=next() % 8 {
                let at = next() % bytes.len();
                bytes[at] = next() as u8;
            }
            // The checksum would refuse nearly all.
            let mut header = tar::Header::from_byte_slice(&bytes[..512]).clone();
            header.set_cksum();
            bytes[..512].copy_from_slice(header.as_bytes());
            // Refused or not, it ends and stays inside.
            let _ = unpack(&bytes[..], &target);
            assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn modes_times_and_opaque_marks_are_kept() {
        if !Uid::effective().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let target = tempfile::tempdir().unwrap();
        let items: &[Item<'_>] = &[
            (EntryType::Directory, "d", "", 0o1777),
            (EntryType::Regular, "d/.wh..wh..opq", "", 0),
            (EntryType::Regular, "s", "x", 0o4755),
        ];
        unpack(&archive(items)[..], target.path()).unwrap();
        let stat = std::fs::metadata(target.path().join("d")).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.mtime()), (0o1777, 1));
        assert_eq!(std::fs::metadata(target.path().join("s")).unwrap().mode() & 0o7777, 0o4755);
        let path = CString::new(target.path().join("d").as_os_str().as_bytes()).unwrap();
        let mut value = [0u8; 4];
        // SAFETY: the buffer is passed with its length.
        let read =
            unsafe { libc::lgetxattr(path.as_ptr(), c"trusted.overlay.opaque".as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        assert_eq!(&value[..read as usize], b"y");
    }
}
