//! Trees of mounts as values (open_tree(2), mount_setattr(2), move_mount(2)).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

// <linux/mount.h>, <linux/fcntl.h>
const OPEN_TREE_CLONE: libc::c_uint = 1;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
pub(crate) const AT_RECURSIVE: libc::c_uint = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
pub(crate) const MOUNT_ATTR_RDONLY: u64 = 1;
pub(crate) const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// `struct mount_attr`
#[repr(C)]
#[derive(Default)]
pub(crate) struct Attributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) users: u64,
}

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A copy of what is mounted at a path and below it, which is mounted nowhere yet.
pub(crate) fn clone_tree(source: &Path) -> io::Result<OwnedFd> {
    let path = path_of(source)?;
    let flags = OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: the path ends with NUL and outlives the call.
    let fd = checked(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    Ok(crate::images::tree::owned(fd as i32))
}

/// A read-only overlay of directories, the first one on top, which is mounted nowhere (fsopen(2), fsconfig(2), fsmount(2); Linux 6.5).
pub(crate) fn overlay(lower: &[&Path]) -> io::Result<OwnedFd> {
    // SAFETY: the name ends with NUL and outlives the call.
    let context = checked(unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), FSOPEN_CLOEXEC) })?;
    let context = crate::images::tree::owned(context as i32);
    for directory in lower {
        let path = path_of(directory)?;
        // SAFETY: key and value end with NUL and outlive the call.
        checked(unsafe {
            let key = c"lowerdir+".as_ptr();
            libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_SET_STRING, key, path.as_ptr(), 0)
        })?;
    }
    let nothing = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes neither key nor value.
    checked(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, nothing, nothing, 0) })?;
    // SAFETY: it takes numbers alone.
    let mount = checked(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY) })?;
    Ok(crate::images::tree::owned(mount as i32))
}

/// Changes the uppermost mount of a tree, or all of it with [`AT_RECURSIVE`].
pub(crate) fn change(tree: &OwnedFd, flags: libc::c_uint, attributes: &Attributes) -> io::Result<()> {
    // SAFETY: the path and the attributes, of the size that is given, outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as libc::c_uint | flags,
            attributes,
            size_of::<Attributes>(),
        )
    };
    checked(result).map(drop)
}

/// Mounts a tree.
pub(crate) fn attach_tree(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let path = path_of(target)?;
    // SAFETY: both paths end with NUL and outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    checked(result).map(drop)
}
