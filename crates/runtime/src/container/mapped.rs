//! Mounts whose files show the owners that they have inside of a user namespace (KEP-127; mount_setattr(2), `MOUNT_ATTR_IDMAP`).
//!
//! A container with a user namespace cannot come to what belongs to users outside of it, nor to a path below a directory that is closed to
//! others. All that it is shown is therefore mounted once more, mapped, in a directory of its own that is open to it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};

use super::rootfs;
use super::trees::{AT_RECURSIVE, Attributes, MOUNT_ATTR_IDMAP, attach_tree, change, clone_tree};
use crate::api::IdRange;

/// What one container is shown of the node.
pub(crate) struct Mapped {
    directory: PathBuf,
    namespace: File,
    range: IdRange,
}

/// The directory of a container's mapped mounts.
pub(crate) fn directory(run_dir: &Path, container: &str) -> PathBuf {
    run_dir.join("users").join(container)
}

/// Whether this kernel has user namespaces and maps mounts of all file systems that pods need: Linux 6.3, as upstream asks for.
pub(crate) fn is_supported() -> bool {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let most = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    is_recent(&release) && most.trim().parse::<u64>().is_ok_and(|most| most > 0) && rootfs::sets_attributes()
}

fn is_recent(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 3)
}

impl Mapped {
    /// For a container of the pod whose user namespace `holder` is in.
    pub(crate) fn new(run_dir: &Path, container: &str, holder: u32, range: IdRange) -> io::Result<Self> {
        let directory = directory(run_dir, container);
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&directory)?;
        let namespace = File::open(format!("/proc/{holder}/ns/user"))?;
        Ok(Self { directory, namespace, range })
    }

    /// Shows `source`, a directory or a file, under `name`, with owners as users of the container see them.
    pub(crate) fn attach(&self, source: &Path, name: &str) -> io::Result<PathBuf> {
        self.shown(source, name, true)
    }

    /// Shows `source` under `name` as it is: it belongs to users of the container.
    pub(crate) fn show(&self, source: &Path, name: &str) -> io::Result<PathBuf> {
        self.shown(source, name, false)
    }

    fn shown(&self, source: &Path, name: &str, is_mapped: bool) -> io::Result<PathBuf> {
        let target = self.directory.join(name);
        match fs::metadata(source)?.is_dir() {
            true => fs::create_dir_all(&target)?,
            false => fs::write(&target, "")?,
        }
        let failed =
            |what: &str, error: io::Error| io::Error::new(error.kind(), format!("{what} of {}: {error}", source.display()));
        let tree = clone_tree(source).map_err(|error| failed("a mount", error))?;
        follow(&tree).map_err(|error| failed("the propagation of mounts", error))?;
        if is_mapped {
            map(&tree, &self.namespace).map_err(|error| match error.raw_os_error() {
                Some(libc::EINVAL) => io::Error::other(format!("the file system of {} cannot map users", source.display())),
                _ => failed("mapping the users", error),
            })?;
        }
        attach_tree(&tree, &target).map_err(|error| failed("mounting", error))?;
        Ok(target)
    }

    /// Mounts the root file system of a container: the image's layers are mapped, what the container writes belongs to its users.
    pub(crate) fn root(&self, layers_dir: &Path, layers: &[String], container: &Path) -> io::Result<PathBuf> {
        let target = self.directory.join("root");
        let upper = container.join("upper");
        for directory in [&target, &upper] {
            fs::create_dir_all(directory)?;
        }
        // Before the overlay is mounted: it takes the owner of its root from there once.
        self.give(&upper)?;
        let mapped = self.attach(layers_dir, "layers")?;
        let mounted = rootfs::mount_overlay(&mapped, layers, container, &target);
        // The overlay has its own hold of them.
        let released = rootfs::unmount(&mapped);
        mounted.and(released).map(|()| target)
    }

    /// Mounts an image that the container only reads under `name`, and gives the path of a part of it.
    pub(crate) fn image(
        &self,
        layers_dir: &Path,
        layers: &[String],
        empty: &Path,
        name: &str,
        sub_path: &str,
    ) -> io::Result<PathBuf> {
        let mapped = self.attach(layers_dir, "layers")?;
        let mounted = rootfs::mount_image(&mapped, layers, empty, &self.directory.join(name), sub_path);
        rootfs::unmount(&mapped).and(mounted)
    }

    /// Gives a directory that was made on its behalf to root of the container: what was there before belongs to users of it.
    pub(crate) fn adopt(&self, directory: RawFd) -> io::Result<()> {
        let path = format!("/proc/self/fd/{directory}");
        if fs::metadata(&path)?.uid() == 0 {
            std::os::unix::fs::chown(&path, Some(self.range.host), Some(self.range.host))?;
        }
        Ok(())
    }

    /// Gives a file or directory to root of the container.
    pub(crate) fn give(&self, path: &Path) -> io::Result<()> {
        lchown(path, Some(self.range.host), Some(self.range.host))
    }
}

/// Takes all mounts of a container away. Blocking.
pub(crate) fn remove(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        rootfs::unmount(&entry.path())?;
    }
    base::trees::remove(directory)
}

/// The mounts of the tree follow those that they are copies of, and not the other way round: what is mounted below a copy of a shared mount
/// would go from below the mount itself with it.
fn follow(tree: &OwnedFd) -> io::Result<()> {
    change(tree, AT_RECURSIVE, &Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() })
}

/// Maps the uppermost mount of the tree: those below it may be of file systems that cannot.
fn map(tree: &OwnedFd, namespace: &File) -> io::Result<()> {
    let users = namespace.as_raw_fd().unsigned_abs().into();
    change(tree, 0, &Attributes { set: MOUNT_ATTR_IDMAP, users, ..Attributes::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        let check = |release: &str, expected: bool| assert_eq!(is_recent(release), expected, "{release}");
        check("6.18.44-fc", true);
        check("6.3.0", true);
        check("6.2.16", false);
        check("5.15.0-generic", false);
        check("", false);
    }
}
