//! This very program, by a way on which it cannot be written.
//!
//! The helper becomes the container's process, and until it executes the container's command its `/proc/self/exe` is this program: a
//! command of that name runs it, and root in the container may open it. If that led to the file of the host, only its being busy would
//! protect it, and no longer than it is (CVE-2019-5736). So the helper is executed through a mount of its own that is read-only and
//! mounted nowhere, where nobody can make it writable again.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use crate::container::trees::{Attributes, MOUNT_ATTR_RDONLY, change, clone_tree, overlay};
use crate::images::tree::owned;

const PROGRAM: &str = "/proc/self/exe";

/// The path to execute; `beside` is any directory that is not the program's.
pub(super) fn program(beside: &Path) -> io::Result<PathBuf> {
    static SEALED: OnceLock<OwnedFd> = OnceLock::new();
    let sealed = match SEALED.get() {
        Some(sealed) => sealed,
        None => {
            let sealed = seal(beside)?;
            SEALED.get_or_init(|| sealed)
        }
    };
    Ok(format!("/proc/self/fd/{}", sealed.as_raw_fd()).into())
}

/// By an overlay, which shows another file than the host's and shares its pages. After an upgrade there is another program in the place
/// of this one, or none: then, and where the kernel has no such overlay, by a bind mount of the file itself.
fn seal(beside: &Path) -> io::Result<OwnedFd> {
    by_overlay(beside).or_else(|error| {
        tracing::debug!(%error, "no overlay of the program");
        by_bind()
    })
}

fn by_overlay(beside: &Path) -> io::Result<OwnedFd> {
    let path = fs::read_link(PROGRAM)?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err(io::ErrorKind::NotFound.into()) };
    let mount = overlay(&[directory, beside])?;
    let file = owned(openat(Some(mount.as_raw_fd()), name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?);
    let identity = |path: &str| fs::metadata(path).map(|file| (file.ino(), file.len(), file.mtime(), file.mtime_nsec()));
    match identity(&format!("/proc/self/fd/{}", file.as_raw_fd()))? == identity(PROGRAM)? {
        true => Ok(file),
        false => Err(io::Error::other("another program is in the place of this one")),
    }
}

fn by_bind() -> io::Result<OwnedFd> {
    let tree = clone_tree(Path::new(PROGRAM))?;
    change(&tree, 0, &Attributes { set: MOUNT_ATTR_RDONLY, ..Attributes::default() })?;
    let path = format!("/proc/self/fd/{}", tree.as_raw_fd());
    Ok(owned(open(path.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// It is this program, may be read and executed, and not written, not even by root.
    fn check(sealed: &OwnedFd, is_another_file: bool) {
        let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
        assert_eq!(fs::read(&path).unwrap().len() as u64, fs::metadata(PROGRAM).unwrap().len());
        let listed = std::process::Command::new(&path).args(["--list", "this_is_executed"]).output().unwrap();
        assert!(listed.status.success(), "{listed:?}");
        assert!(nix::sys::statvfs::statvfs(path.as_str()).unwrap().flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
        // The host's file is busy as long as this test runs, which is found out before.
        let refused = fs::OpenOptions::new().append(true).open(&path).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(if is_another_file { libc::EROFS } else { libc::ETXTBSY }));
        let number = |path: &str| fs::metadata(path).map(|file| (file.dev(), file.ino())).unwrap();
        assert_eq!(number(&path) != number(PROGRAM), is_another_file);
    }

    #[test]
    fn nobody_writes_to_what_is_executed() {
        let beside = tempfile::tempdir().unwrap();
        check(&by_overlay(beside.path()).unwrap(), true);
        check(&by_bind().unwrap(), false);
    }
}
