//! The root file system of a container: an overlay of its image's layers and a directory of its own.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::images::tree::Tree;

/// Most directories that overlayfs stacks (`OVL_MAX_STACK` of the kernel).
const MOST_LAYERS: usize = 500;
/// Bytes of mount options that the kernel takes, the NUL at their end included.
const OPTIONS: usize = 4096;

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
    let empty = container.join("empty").to_string_lossy().into_owned();
    let lower = if layers.is_empty() { vec![empty] } else { top_down(layers) };
    let (upper, work) = (container.join("upper"), container.join("work"));
    let data = format!("upperdir={},workdir={}", upper.display(), work.display());
    // What a container wrote does not outlive a crash of the machine, so its flushes can be spared.
    let volatile = format!("{data},volatile");
    let stack = Stack { layers_dir, lower, links: &container.join("links") };
    stack.mount(target, MsFlags::empty(), &[&volatile, &data])
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
    let mut lower = top_down(layers);
    // Without a directory to write to there must be two to read from, and not the same.
    for directory in [empty.to_owned(), empty.with_extension("other")].into_iter().skip(lower.len()) {
        fs::create_dir_all(&directory)?;
        lower.push(directory.to_string_lossy().into_owned());
    }
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let stack = Stack { layers_dir, lower, links: &target.with_extension("links") };
    stack.mount(target, flags, &[""])?;
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

/// Layers from the top to the bottom, as overlayfs wants them. It takes no directory twice; of an equal layer the upper one counts.
fn top_down(layers: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    layers.iter().rev().filter(|layer| seen.insert(*layer)).cloned().collect()
}

/// The directories that an overlay shows, the top one first. Names are relative to `layers_dir`.
struct Stack<'a> {
    layers_dir: &'a Path,
    lower: Vec<String>,
    /// A directory that may be made for short names of the others.
    links: &'a Path,
}

impl Stack<'_> {
    /// Mounts the overlay with the first of these options that the kernel knows.
    fn mount(&self, target: &Path, flags: MsFlags, options: &[&str]) -> io::Result<()> {
        if self.lower.len() > MOST_LAYERS {
            let count = self.lower.len();
            return Err(io::Error::other(format!("the image has {count} layers: overlayfs takes at most {MOST_LAYERS}")));
        }
        let (directory, names) = self.names(options.iter().map(|option| option.len()).max().unwrap_or(0))?;
        let data = |options: &&str| match options.is_empty() {
            true => format!("lowerdir={names}"),
            false => format!("lowerdir={names},{options}"),
        };
        overlay(directory.to_owned(), target.to_owned(), flags, options.iter().map(data).collect())
    }

    /// What stands in the option `lowerdir`, and the directory from which it counts. Options fit one page of memory: names relative to
    /// the layers' directory make room for over a hundred of them, links with numbers for names for all that overlayfs takes.
    fn names(&self, others: usize) -> io::Result<(&Path, String)> {
        let names = self.lower.join(":");
        if "lowerdir=,".len() + names.len() + others < OPTIONS {
            return Ok((self.layers_dir, names));
        }
        base::trees::remove(self.links)?;
        fs::create_dir(self.links)?;
        for (number, layer) in self.lower.iter().enumerate() {
            std::os::unix::fs::symlink(self.layers_dir.join(layer), self.links.join(number.to_string()))?;
        }
        let numbers: Vec<String> = (0..self.lower.len()).map(|number| number.to_string()).collect();
        Ok((self.links, numbers.join(":")))
    }
}

/// Mounts an overlay with the first of these options that the kernel knows; names in them are relative to `directory`.
fn overlay(directory: PathBuf, target: PathBuf, flags: MsFlags, options: Vec<String>) -> io::Result<()> {
    let work = move || -> io::Result<()> {
        // The working directory belongs to the process unless a thread takes its own, so this one is not a pooled one.
        unshare(CloneFlags::CLONE_FS)?;
        std::env::set_current_dir(&directory)?;
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
    base::trees::remove(container)
}

/// Whether the kernel changes attributes of whole trees of mounts (mount_setattr(2), Linux 5.12).
pub(crate) fn sets_attributes() -> bool {
    // SAFETY: asks for nothing of no file; the kernel says which of the two it does not like.
    let result = unsafe { libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), 0, std::ptr::null::<u8>(), 0usize) };
    result == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Mounts `count` layers of a file each, some of them twice, and one that all have; gives how many files are seen.
    fn check(count: usize, expected: Result<usize, &str>) {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (layers_dir, container) = (dir.path().join("layers"), dir.path().join("container"));
        let mut layers: Vec<String> = (0..count).map(|number| format!("{number:032}/fs")).collect();
        for (number, layer) in layers.iter().enumerate() {
            fs::create_dir_all(layers_dir.join(layer)).unwrap();
            fs::write(layers_dir.join(layer).join(format!("file-{number}")), "").unwrap();
            fs::write(layers_dir.join(layer).join("all"), number.to_string()).unwrap();
        }
        layers.insert(0, layers[count / 2].clone());
        let files = |target: &Path| {
            assert_eq!(fs::read_to_string(target.join("all")).unwrap(), (count - 1).to_string(), "the top layer wins");
            fs::read_dir(target).unwrap().count() - 1
        };
        let root = container.join("rootfs");
        let seen = mount_overlay(&layers_dir, &layers, &container, &root).map(|()| files(&root));
        assert_eq!(
            seen.as_ref().map_err(ToString::to_string).map_err(|error| error.contains(expected.unwrap_err())),
            expected.as_ref().map_err(|_| true)
        );
        if let Ok(expected) = expected {
            let image = mount_image(&layers_dir, &layers, &container.join("empty"), &container.join("images/3"), "").unwrap();
            assert_eq!(files(&image), expected);
        }
        remove(&container).unwrap();
        assert!(!container.exists());
    }

    #[test]
    fn images_have_as_many_layers_as_overlayfs_takes() {
        check(1, Ok(1));
        check(3, Ok(3));
        check(120, Ok(120));
        check(500, Ok(500));
        check(501, Err("the image has 501 layers: overlayfs takes at most 500"));
    }
}
