//! The root file system of a container: an overlay of its image's layers and a directory of its own.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Mounts the overlay at `container/rootfs`. `layers` are relative to `layers_dir`, lowest first. Blocking.
pub(crate) fn mount_overlay(layers_dir: &Path, layers: &[String], container: &Path) -> io::Result<()> {
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
    let (layers_dir, target) = (layers_dir.to_owned(), container.join("rootfs"));
    let work = move || -> io::Result<()> {
        // Mount options fit one page: relative names make room for over a hundred layers. The working directory belongs to
        // the process unless a thread takes its own, so this one is not a pooled one.
        unshare(CloneFlags::CLONE_FS)?;
        std::env::set_current_dir(&layers_dir)?;
        let overlay = |data: &str| mount(Some("overlay"), &target, Some("overlay"), MsFlags::empty(), Some(data));
        // What a container wrote does not outlive a crash of the machine, so its flushes can be spared.
        match overlay(&format!("{data},volatile")) {
            Err(nix::errno::Errno::EINVAL) => Ok(overlay(&data)?),
            result => Ok(result?),
        }
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
    match fs::remove_dir_all(container) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
