//! The program of shims and helpers, by a way on which it cannot be written and which stays.
//!
//! The helper becomes the container's process, and until it executes the container's command its `/proc/self/exe` is this program: a
//! command of that name runs it, and root in the container may open it. If that led to the file of the host, only its being busy would
//! protect it, and no longer than it is (CVE-2019-5736). So shims, and with them the helpers that they start, are executed through a
//! mount that is read-only and mounted nowhere, where nobody can make it writable again.
//!
//! It is made when the engine opens, since an upgrade puts another program in the place of this one, or none, while this one runs on:
//! pods that start then still get what speaks the language of this engine.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open, openat};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use nix::sys::stat::Mode;

use crate::container::trees::{Attributes, MOUNT_ATTR_RDONLY, change, clone_tree, overlay};
use crate::images::tree::owned;

/// A program that is open.
pub(super) struct Sealed(OwnedFd);

impl Sealed {
    /// The program at `program`, which may be a link of `/proc`; `beside` is any directory that is not the program's.
    ///
    /// By an overlay, which shows another file than the host's and shares its pages. Where the kernel has no such overlay, by a bind
    /// mount of the file itself. When the file is gone already, as that of a server that was started again by what runs on after an
    /// upgrade, by a copy in memory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn new(program: &Path, beside: &Path) -> io::Result<Self> {
        let next = |way: &'static str| move |error: io::Error| tracing::debug!(%error, "no {way} of the program");
        by_overlay(program, beside)
            .map_err(next("overlay"))
            .or_else(|()| by_bind(program).map_err(next("mount")))
            .or_else(|()| by_copy(program))
            .map(Self)
    }

    /// The path to execute. The descriptor is closed in what is executed.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

fn by_overlay(program: &Path, beside: &Path) -> io::Result<OwnedFd> {
    let path = fs::canonicalize(program)?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err(io::ErrorKind::NotFound.into()) };
    let mount = overlay(&[directory, beside])?;
    let file = owned(openat(Some(mount.as_raw_fd()), name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?);
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.ino(), file.len(), file.mtime(), file.mtime_nsec()));
    match identity(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))? == identity(program)? {
        true => Ok(file),
        false => Err(io::Error::other("another program is in the place of this one")),
    }
}

fn by_bind(program: &Path) -> io::Result<OwnedFd> {
    let tree = clone_tree(program)?;
    change(&tree, 0, &Attributes { set: MOUNT_ATTR_RDONLY, ..Attributes::default() })?;
    let path = format!("/proc/self/fd/{}", tree.as_raw_fd());
    Ok(owned(open(path.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?))
}

fn by_copy(program: &Path) -> io::Result<OwnedFd> {
    let copy = memfd_create(c"knarr", MemFdCreateFlag::MFD_CLOEXEC | MemFdCreateFlag::MFD_ALLOW_SEALING)?;
    let mut copy = File::from(copy);
    io::copy(&mut File::open(program)?, &mut copy)?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(copy.as_raw_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    // Nobody executes what is open for writing.
    Ok(owned(open(path.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    const PROGRAM: &str = "/proc/self/exe";

    /// It is this program, may be read and executed, and not written, not even by root; `refused` is how.
    fn check(sealed: OwnedFd, is_another_file: bool, refused: i32) {
        let sealed = Sealed(sealed);
        let path = sealed.path();
        assert_eq!(fs::read(&path).unwrap().len() as u64, fs::metadata(PROGRAM).unwrap().len());
        let listed = std::process::Command::new(&path).args(["--list", "this_is_executed"]).output().unwrap();
        assert!(listed.status.success(), "{listed:?}");
        let error = fs::OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(b"x")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(refused));
        let number = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).unwrap();
        assert_eq!(number(&path) != number(Path::new(PROGRAM)), is_another_file);
    }

    #[test]
    fn nobody_writes_to_what_is_executed() {
        let beside = tempfile::tempdir().unwrap();
        check(by_overlay(Path::new(PROGRAM), beside.path()).unwrap(), true, libc::EROFS);
        // The host's file is busy as long as this test runs, which is found out before.
        check(by_bind(Path::new(PROGRAM)).unwrap(), false, libc::ETXTBSY);
        check(by_copy(Path::new(PROGRAM)).unwrap(), true, libc::EPERM);
    }

    /// After an upgrade there is another program in the place of the one that runs, or none.
    #[test]
    fn a_program_that_is_gone_is_copied() {
        let (home, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = home.path().join("program");
        fs::copy(PROGRAM, &path).unwrap();
        let opened = File::open(&path).unwrap();
        let link = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        fs::remove_file(&path).unwrap();
        for another in [false, true] {
            if another {
                fs::copy("/bin/true", &path).unwrap();
            }
            by_overlay(&link, beside.path()).unwrap_err();
            let sealed = Sealed::new(&link, beside.path()).unwrap();
            assert_eq!(fs::read(sealed.path()).unwrap().len() as u64, fs::metadata(PROGRAM).unwrap().len());
        }
    }
}
