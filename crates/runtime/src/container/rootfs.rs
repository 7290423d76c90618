//! The root file system of a container: an overlay of its image's layers and a directory of its own.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::images::tree::Tree;

/// Mounts the overlay of `container` at `target`. `layers` are relative to `layers_dir`, lowest first. Blocking.
pub(crate) fn mount_overlay(layers_dir: &Path, layers: &[String], container: &Path, target: &Path) -> io::Result<()> {
    for name in ["rootfs", "upper", "work", "empty"] {
        fs::create_dir_all(container.join(name))?;
    }
    // The root of the container shows the mode of the upper directory.
    let mode = layers.last().and_then(|top| fs::metadata(layers_dir.join(top)).ok()).map(|metadata| metadata.permissions());
    if let Some(mode) = mode {
        fs::set_permissions(container.join("upper"), mode)?;
    }
    let mut lower: Vec<String> = layers.iter().rev().cloned().collect();
    if lower.is_empty() {
        lower.push(container.join("empty").to_string_lossy().into_owned());
    }
    let data = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        container.join("upper").display(),
        container.join("work").display()
    );
    // What a container wrote does not outlive a crash of the machine, so its flushes can be spared.
    let volatile = format!("{data},volatile");
    overlay(layers_dir, target, MsFlags::empty(), vec![volatile, data])
}

/// Mounts an image that a container only reads at `target`, with the directory `empty` of the container, and gives the path of a part of
/// it. Blocking.
pub(crate) fn mount_image(
    layers_dir: &Path,
    layers: &[String],
    empty: &Path,
    target: &Path,
    sub_path: &str,
) -> io::Result<PathBuf> {
    fs::create_dir_all(target)?;
    fs::create_dir_all(empty)?;
    // Without a directory to write to there must be two to read from.
    let empty = empty.to_string_lossy().into_owned();
    let lower: Vec<String> = layers.iter().rev().cloned().chain([empty.clone(), empty]).take(layers.len().max(1) + 1).collect();
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    overlay(layers_dir, target, flags, vec![format!("lowerdir={}", lower.join(":"))])?;
    if sub_path.is_empty() {
        return Ok(target.to_owned());
    }
    let part = Tree::open(target)?.open_beneath(Path::new(sub_path), OFlag::O_PATH)?;
    let source = format!("/proc/self/fd/{}", part.as_raw_fd());
    let point = target.with_extension("part");
    if fs::metadata(&source)?.is_dir() {
        fs::create_dir_all(&point)?
    } else {
        fs::write(&point, "")?
    }
    mount(Some(source.as_str()), &point, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(point)
}

/// Mounts an overlay with the first of these options that the kernel knows.
fn overlay(layers_dir: &Path, target: &Path, flags: MsFlags, options: Vec<String>) -> io::Result<()> {
    let (layers_dir, target) = (layers_dir.to_owned(), target.to_owned());
    let work = move || -> io::Result<()> {
        // Mount options fit one page: relative names make room for over a hundred layers. The working directory belongs to
        // the process unless a thread takes its own, so this one is not a pooled one.
        unshare(CloneFlags::CLONE_FS)?;
        std::env::set_current_dir(&layers_dir)?;
        let mut result = Err(nix::errno::Errno::EINVAL);
        for data in options {
            result = mount(Some("overlay"), &target, Some("overlay"), flags, Some(data.as_str()));
            if result != Err(nix::errno::Errno::EINVAL) {
                break;
            }
        }
        Ok(result?)
    };
    let thread = std::thread::Builder::new().name("mount".to_owned()).stack_size(128 << 10).spawn(work)?;
    thread.join().map_err(|_| io::Error::other("the mounting thread panicked"))?
}

/// Unmounts everything mounted at `target`; it may be none.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    loop {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes a container's directory. Blocking.
pub(crate) fn remove(container: &Path) -> io::Result<()> {
    unmount(&container.join("rootfs"))?;
    for image in fs::read_dir(container.join("images")).into_iter().flatten().flatten() {
        unmount(&image.path())?;
    }
    match fs::remove_dir_all(container) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
/// Whether the kernel changes attributes of whole trees of mounts (mount_setattr(2), Linux 5.12).
pub(crate) fn sets_attributes() -> bool {
    // SAFETY: asks for nothing of no file; the kernel says which of the two it does not like.
    let result = unsafe { libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), 0, std::ptr::null::<u8>(), 0usize) };
    result == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}
