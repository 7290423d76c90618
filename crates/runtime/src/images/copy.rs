//! Copies of files with everything that a container may see of them.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, mknod};

/// Copies trees of files that nobody changes meanwhile.
#[derive(Default)]
pub(crate) struct Copy {
    /// Copies of files with several names.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copy {
    /// Fills the directory `to`.
    pub(crate) fn directory(&mut self, from: &Path, to: &Path, found: &fs::Metadata) -> io::Result<()> {
        let mut filled = vec![(from.to_owned(), to.to_owned(), found.clone())];
        let mut next = 0;
        // Not by calls of itself: a tree may be deep.
        while let Some((from, to, _)) = filled.get(next).cloned() {
            next += 1;
            for entry in fs::read_dir(&from)? {
                let name = entry?.file_name();
                let (from, to) = (from.join(&name), to.join(&name));
                let found = fs::symlink_metadata(&from)?;
                if found.is_dir() {
                    fs::create_dir(&to)?;
                    filled.push((from, to, found));
                } else {
                    self.file(&from, &to, &found)?;
                }
            }
        }
        // Last, because filling it changes its times.
        filled.iter().rev().try_for_each(|(from, to, found)| equal(from, to, found))
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
            let first = self.links.entry((found.dev(), found.ino())).or_insert_with(|| to.to_owned());
            if first != to {
                return fs::hard_link(first, to);
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
