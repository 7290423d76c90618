//! Mount points below the kubelet's directories: what is mounted there is often not ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::sub_path;

fn mount_points() -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points.map(|point| PathBuf::from(point.replace("\\040", " "))).collect())
}

/// What is mounted where `path` is: the device of a disk, a word of the kernel's for other file systems.
pub fn source(path: &Path) -> io::Result<Option<String>> {
    let path = fs::canonicalize(path)?;
    Ok(source_in(&fs::read_to_string("/proc/self/mountinfo")?, &path))
}

/// Of several mounts at one place the last one is seen (proc_pid_mountinfo(5)).
fn source_in(table: &str, path: &Path) -> Option<String> {
    let entry = |line: &str| {
        let (mount, rest) = line.split_once(" - ")?;
        let point = PathBuf::from(mount.split(' ').nth(4)?.replace("\\040", " "));
        Some((point, rest.split(' ').nth(1)?.to_owned()))
    };
    let around = table.lines().filter_map(entry).filter(|(point, _)| path.starts_with(point));
    around.max_by_key(|(point, _)| point.components().count()).map(|(_, source)| source)
}

/// `path` as the table of mounts has it: the way to it leads through no links, such as that of a data directory. None when the
/// directory is not there.
pub fn in_table(path: &Path) -> io::Result<Option<PathBuf>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Some(path.to_owned())) };
    match fs::canonicalize(parent) {
        Ok(parent) => Ok(Some(parent.join(name))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether something is mounted at `path`, also of the same file system.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    let Some(path) = in_table(path)? else { return Ok(false) };
    Ok(path.exists() && mount_points()?.contains(&path))
}

/// Shows a directory or a file at another place.
pub fn bind(source: &Path, at: &Path) -> io::Result<()> {
    if fs::metadata(source)?.is_dir() {
        fs::create_dir_all(at)?;
    } else {
        at.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::OpenOptions::new().create(true).append(true).open(at)?;
    }
    Ok(mount(Some(source), at, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?)
}

/// Unmounts everything below `directory`, innermost first, so that removing it cannot reach into another file system.
pub fn unmount_below(directory: &Path) -> io::Result<()> {
    let Some(directory) = in_table(directory)? else { return Ok(()) };
    let mut points: Vec<_> = mount_points()?.into_iter().filter(|point| point.starts_with(&directory)).collect();
    points.sort_unstable();
    points.iter().rev().try_for_each(|point| sub_path::unmount(point))
}

/// Removes mount points that are so many levels below `directory`, and the directories between. What was mounted there is not ours: nothing
/// is removed that is not empty, and the kernel refuses what something is mounted at.
pub fn remove_points(directory: &Path, levels: u32) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        match (entry.file_type()?.is_dir(), levels) {
            (false, _) => fs::remove_file(entry.path())?,
            (true, 0 | 1) => fs::remove_dir(entry.path())?,
            (true, _) => remove_points(&entry.path(), levels - 1)?,
        }
    }
    fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_a_mount_point_leads_through_no_links() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir(root.join("data")).unwrap();
        std::os::unix::fs::symlink("data", root.join("link")).unwrap();
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(in_table(&root.join(path)).unwrap(), expected.map(|path| root.join(path)), "{path}");
        };
        check("link/pod", Some("data/pod"));
        check("link", Some("link"));
        check("gone/pod", None);
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        std::os::unix::fs::symlink("/", root.join("host")).unwrap();
        assert!(is_mount_point(&root.join("host/proc")).unwrap());
    }

    #[test]
    fn the_disk_of_a_path_is_what_is_mounted_around_it() {
        let table = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n22 21 8:2 / /var rw shared:3 - xfs /dev/sda2 rw\n\
                     23 21 8:3 / /var/lib\\040x rw - xfs /dev/sda3 rw\n24 22 0:9 / /var rw master:1 - tmpfs tmpfs rw\n";
        let check =
            |path: &str, expected: &str| assert_eq!(source_in(table, Path::new(path)).as_deref(), Some(expected), "{path}");
        check("/home", "/dev/sda1");
        check("/var/lib x/pods", "/dev/sda3");
        check("/var/lib", "tmpfs");
        assert_eq!(source_in("nonsense", Path::new("/")), None);
        assert!(source(Path::new("/proc")).unwrap().is_some());
    }

    #[test]
    fn what_is_not_empty_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let check = |levels: u32, path: &str, removed: bool| {
            let root = directory.path().join("root");
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            if path.ends_with("file") {
                fs::write(root.join(path), "").unwrap()
            } else {
                fs::create_dir(root.join(path)).unwrap()
            }
            assert_eq!((remove_points(&root, levels).is_ok(), root.exists()), (removed, !removed), "{path}");
            let _ = base::trees::remove(&root);
        };
        check(1, "volume", true);
        check(1, "file", true);
        check(1, "volume/data", false);
        check(1, "volume/file", false);
        check(3, "volume/container/0", true);
        check(3, "volume/container/file", true);
        check(3, "volume/container/0/file", false);
        assert!(remove_points(&directory.path().join("none"), 1).is_ok());
    }
}
