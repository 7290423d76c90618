//! What an image declares as volumes (`VOLUME`): where the pod mounts nothing, a container gets a directory of its own, which
//! begins with what the image has there, can be written to also when the root file system cannot, and is no overlay.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::api::Mount;
use crate::images::copy::Copy;
use crate::images::manifest::ImageConfig;
use crate::images::tree::{Tree, normalize};

/// Where the volumes are in a container's directory.
pub(crate) const DIRECTORY: &str = "volumes";

/// What is mounted by the kernel's own file systems is of more use than an empty directory.
const KERNEL: &[&str] = &["/proc", "/sys", "/dev"];

/// Makes the volumes of `image` in the directory `container`, whose root file system is mounted at `root`. Blocking.
pub(crate) fn make(image: &ImageConfig, mounts: &[Mount], root: &Path, container: &Path) -> io::Result<Vec<Mount>> {
    let (tree, mut made) = (Tree::open(root)?, Vec::<Mount>::new());
    for path in wanted(image, mounts) {
        let source = container.join(DIRECTORY).join(made.len().to_string());
        fs::create_dir_all(&source)?;
        let place = tree.resolve(&path, &|_| false)?;
        let content = root.join(place.strip_prefix("/").unwrap_or(&place));
        match fs::symlink_metadata(&content) {
            Ok(found) if found.is_dir() => Copy::default().directory(&content, &source, &found)?,
            // A file cannot be a volume.
            Ok(_) => continue,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                fs::set_permissions(&source, fs::Permissions::from_mode(0o755))?;
                // Whoever is root there.
                let owner = fs::metadata(root)?;
                chown(&source, Some(owner.uid()), Some(owner.gid()))?;
            }
            Err(error) => return Err(error),
        }
        made.push(Mount { host_path: source, container_path: path, ..Mount::default() });
    }
    Ok(made)
}

/// The paths of volumes at which the pod mounts nothing.
fn wanted(image: &ImageConfig, mounts: &[Mount]) -> Vec<PathBuf> {
    let taken: Vec<PathBuf> = mounts.iter().filter_map(|mount| normalize(&mount.container_path)).collect();
    let paths = image.volumes.keys().filter_map(|path| normalize(Path::new(path)));
    let paths = paths.filter(|path| !path.as_os_str().is_empty() && !taken.contains(path)).map(|path| Path::new("/").join(path));
    let mut paths: Vec<PathBuf> = paths.filter(|path| !KERNEL.iter().any(|kernel| path.starts_with(kernel))).collect();
    paths.sort();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use nix::sys::stat::{Mode, SFlag, mknod};

    use super::*;

    fn image(volumes: &[&str]) -> ImageConfig {
        ImageConfig { volumes: volumes.iter().map(|path| ((*path).to_owned(), None)).collect(), ..ImageConfig::default() }
    }

    #[test]
    fn volumes_are_made_where_the_pod_mounts_nothing() {
        let check = |volumes: &[&str], mounts: &[&str], expected: &[&str]| {
            let mounts: Vec<Mount> =
                mounts.iter().map(|path| Mount { container_path: path.into(), ..Mount::default() }).collect();
            let expected: Vec<&Path> = expected.iter().map(Path::new).collect();
            assert_eq!(wanted(&image(volumes), &mounts), expected, "{volumes:?}");
        };
        check(&["/data", "var/lib/x/", "/data/"], &["/other"], &["/data", "/var/lib/x"]);
        check(&["/data", "/data/sub"], &["/data/"], &["/data/sub"]);
        check(&["/", "", "/a/../b", "/../c", "/sys/fs/cgroup", "/dev/x", "/devices"], &[], &["/b", "/devices"]);
    }

    #[test]
    fn volumes_begin_with_what_the_image_has() {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED: setting owners needs root");
            return;
        }
        let container = tempfile::tempdir().unwrap();
        let root = container.path().join("rootfs");
        let data = root.join("data");
        fs::create_dir_all(data.join("dir")).unwrap();
        fs::write(data.join("dir/file"), "text").unwrap();
        fs::hard_link(data.join("dir/file"), data.join("name")).unwrap();
        chown(data.join("dir/file"), Some(5), Some(6)).unwrap();
        fs::set_permissions(data.join("dir/file"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o1777)).unwrap();
        chown(&data, Some(7), Some(8)).unwrap();
        symlink("/nowhere", data.join("link")).unwrap();
        symlink("/data", root.join("alias")).unwrap();
        mknod(&data.join("pipe"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o600), 0).unwrap();
        fs::write(root.join("file"), "").unwrap();
        let made = make(&image(&["/alias", "/file", "/new/one"]), &[], &root, container.path()).unwrap();
        let paths: Vec<&Path> = made.iter().map(|mount| mount.container_path.as_path()).collect();
        assert_eq!(paths, [Path::new("/alias"), Path::new("/new/one")]);
        let stat = |path: &str| {
            let found = fs::symlink_metadata(made[0].host_path.join(path)).unwrap();
            (found.mode() & 0o7777, found.uid(), found.gid(), found.nlink())
        };
        assert_eq!(stat("dir/file"), (0o4711, 5, 6, 2));
        assert_eq!(stat("name"), (0o4711, 5, 6, 2));
        assert_eq!((stat(".").0, stat(".").1, stat(".").2), (0o1777, 7, 8));
        assert_eq!(fs::read_to_string(made[0].host_path.join("name")).unwrap(), "text");
        assert_eq!(fs::read_link(made[0].host_path.join("link")).unwrap(), Path::new("/nowhere"));
        assert_eq!(fs::symlink_metadata(made[0].host_path.join("pipe")).unwrap().mode() & libc::S_IFMT, libc::S_IFIFO);
        assert_eq!(fs::read_dir(&made[1].host_path).unwrap().count(), 0);
    }
}
