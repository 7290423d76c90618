//! Mount points below the kubelet's directories: what is mounted there is often not ours.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// What is mounted at a place, as the kernel tells without asking the file system itself (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The place.
    pub point: PathBuf,
    /// Numbers of the file system's device: all mounts of a file system have the same.
    pub device: String,
    /// Type of the file system.
    pub fs_type: String,
    /// What is mounted: `SERVER:/PATH` of an export.
    pub source: String,
}

/// Types of file systems that are on disks of the node, or in its memory. Of others nobody knows who answers: a server, or a process of somebody's.
const OF_NODE: [&str; 18] = [
    "bcachefs",
    "btrfs",
    "erofs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "hugetlbfs",
    "iso9660",
    "jfs",
    "overlay",
    "ramfs",
    "squashfs",
    "tmpfs",
    "vfat",
    "xfs",
    "zfs",
];

impl Mount {
    /// Whether the file system is a server's that the kubelet has mounted itself, on which any call hangs while the server does not answer.
    pub fn is_remote(&self) -> bool {
        matches!(self.fs_type.as_str(), "nfs" | "nfs4")
    }

    /// Whether calls on the file system may hang for as long as somebody likes: those of servers that drivers have mounted, and those of processes
    /// (FUSE), too.
    pub fn may_hang(&self) -> bool {
        !OF_NODE.contains(&self.fs_type.as_str())
    }

    fn of_line(line: &str) -> Option<Self> {
        let (mount, rest) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        let mut rest = rest.split(' ');
        Some(Self {
            point: PathBuf::from(fields.get(4)?.replace("\\040", " ")),
            device: (*fields.get(2)?).to_owned(),
            fs_type: rest.next()?.to_owned(),
            source: rest.next()?.to_owned(),
        })
    }
}

/// All that is mounted, in the order in which it was.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?.lines().filter_map(Mount::of_line).collect())
}

/// What is seen of all that is mounted, by places. Whoever asks of many places reads it once: the kernel's table has a line for each mount of the
/// node.
#[derive(Debug, Default)]
pub struct Table(HashMap<PathBuf, Mount>);

impl Table {
    /// What is mounted now.
    pub fn read() -> io::Result<Self> {
        Ok(Self::of(mounts()?))
    }

    /// Of several mounts at one place the last one is seen.
    fn of(mounts: Vec<Mount>) -> Self {
        Self(mounts.into_iter().map(|mount| (mount.point.clone(), mount)).collect())
    }

    /// What is mounted at `path`. No file system that is mounted there is asked.
    pub fn at(&self, path: &Path) -> Option<&Mount> {
        self.0.get(&in_table(path).ok()??)
    }

    /// Whether there is something at `path`. A file system that may hang is not asked.
    pub fn is_there(&self, path: &Path) -> bool {
        self.at(path).is_some_and(Mount::may_hang) || path.exists()
    }
}

/// What is mounted at `path`: of several mounts the one that is seen. No file system that is mounted there is asked.
pub fn at(path: &Path) -> io::Result<Option<Mount>> {
    let Some(path) = in_table(path)? else { return Ok(None) };
    Ok(mounts()?.into_iter().rev().find(|mount| mount.point == path))
}

/// File systems of servers that are mounted below `directory`, each with all that is mounted in it.
pub fn remote_below(directory: &Path) -> io::Result<Vec<Mount>> {
    let Some(directory) = in_table(directory)? else { return Ok(Vec::new()) };
    Ok(outermost(mounts()?, &directory))
}

fn outermost(mounts: Vec<Mount>, directory: &Path) -> Vec<Mount> {
    let is_there = |mount: &Mount| mount.is_remote() && mount.point.starts_with(directory);
    let mut found: Vec<Mount> = mounts.into_iter().filter(is_there).collect();
    found.sort_by(|one, other| one.point.cmp(&other.point));
    // What is inside of another, and what is seen no more, goes with it or after it.
    found.dedup_by(|later, earlier| later.point.starts_with(&earlier.point));
    found
}

/// What is mounted where `path` is: the device of a disk, a word of the kernel's for other file systems.
pub fn source(path: &Path) -> io::Result<Option<String>> {
    let path = fs::canonicalize(path)?;
    Ok(source_in(&fs::read_to_string("/proc/self/mountinfo")?, &path))
}

/// Of several mounts at one place the last one is seen (proc_pid_mountinfo(5)).
fn source_in(table: &str, path: &Path) -> Option<String> {
    let mounts: Vec<Mount> = table.lines().filter_map(Mount::of_line).collect();
    around(&mounts, path).map(|mount| mount.source.clone())
}

fn around<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let around = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    around.max_by_key(|mount| mount.point.components().count())
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

/// Whether something is mounted at `path`, also of the same file system. That of a server is not asked.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    Ok(at(path)?.is_some_and(|mount| mount.is_remote() || path.exists()))
}

/// Whether a directory is mounted in one of the directories in `all`, but for the one called `own`: under whatever path, by whatever way. Only
/// mounts of the directory's own file system are looked at.
pub fn is_shown_in(directory: &Path, all: &Path, own: &OsStr) -> io::Result<bool> {
    let (Some(all), directory) = (in_table(all)?, fs::canonicalize(directory)?) else { return Ok(false) };
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    let (mounts, wanted) = (mounts()?, identity(&directory)?);
    let Some(around) = around(&mounts, &directory) else { return Ok(false) };
    let is_others = |mount: &&Mount| {
        let below = mount.point.strip_prefix(&all).ok().and_then(|below| below.iter().next());
        mount.device == around.device && below.is_some_and(|first| first != own)
    };
    // What has gone meanwhile shows nothing.
    Ok(mounts.iter().filter(is_others).any(|mount| identity(&mount.point).is_ok_and(|found| found == wanted)))
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

/// Unmounts whatever is mounted at a place, as often as something is; nothing there is fine. `gives_up` is asked before each: whether what waits
/// for a server that does not answer is given up (umount(2), `MNT_FORCE`).
pub fn unmount(point: &Path, gives_up: impl Fn() -> bool) -> Result<(), Errno> {
    loop {
        let force = if gives_up() { MntFlags::MNT_FORCE } else { MntFlags::empty() };
        match umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW | force) {
            Ok(()) => {}
            // EPERM comes without privileges, where nothing can have been mounted either.
            Err(Errno::EINVAL | Errno::ENOENT | Errno::EPERM) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Unmounts everything below `directory`, innermost first, so that removing it cannot reach into another file system. The error is that of the
/// first mount that stays; others are unmounted all the same.
pub fn unmount_below(directory: &Path) -> io::Result<()> {
    unmount_each_below(directory, |_| true)
}

/// The same, but for exports of servers, each of which may take as long as its server likes.
pub fn unmount_own_below(directory: &Path) -> io::Result<()> {
    unmount_each_below(directory, |mount| !mount.is_remote())
}

fn unmount_each_below(directory: &Path, is_chosen: impl Fn(&Mount) -> bool) -> io::Result<()> {
    let Some(directory) = in_table(directory)? else { return Ok(()) };
    let chosen = mounts()?.into_iter().filter(|mount| mount.point.starts_with(&directory) && is_chosen(mount));
    let mut points: Vec<PathBuf> = chosen.map(|mount| mount.point).collect();
    points.sort_unstable();
    let mut all = Ok(());
    for point in points.iter().rev() {
        all = all.and(unmount(point, || false));
    }
    Ok(all?)
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

    /// Under its own path, through a link or a descriptor: it is the same directory, and another one of the same file system is not.
    #[test]
    fn a_directory_is_found_wherever_others_show_it() {
        if !nix::unistd::Uid::effective().is_root() {
            return eprintln!("SKIPPED: mounting needs root");
        }
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        ["disk/a", "disk/b", "pods/x/v", "pods/y/v"].iter().for_each(|name| fs::create_dir_all(place(name)).unwrap());
        std::os::unix::fs::symlink("disk", place("link")).unwrap();
        let is_shown = |name: &str, own: &str| is_shown_in(&place(name), &place("pods"), OsStr::new(own)).unwrap();
        bind(&place("disk/a"), &place("pods/x/v")).unwrap();
        let found = [is_shown("disk/a", "y"), is_shown("link/a", "y"), is_shown("disk/a", "x"), is_shown("disk/b", "y")];
        unmount(&place("pods/x/v"), || false).unwrap();
        assert_eq!(found, [true, true, false, false]);
        assert!(!is_shown("disk/a", "y"));
    }

    #[test]
    fn exports_are_found_by_what_the_kernel_tells() {
        let line = |point: &str, kind: &str| format!("61 30 0:38 / {point} rw,relatime shared:1 - {kind} s:/sub rw,vers=4.2");
        let points = [
            ("/p/v/b", "nfs4"),
            ("/p/v/a/in", "nfs4"),
            ("/p/v/a", "nfs"),
            ("/p/v/a", "nfs"),
            ("/p/v/a/tmp", "tmpfs"),
            ("/q", "nfs"),
        ];
        let mounts: Vec<Mount> = points.iter().filter_map(|(point, kind)| Mount::of_line(&line(point, kind))).collect();
        let found = outermost(mounts, Path::new("/p"));
        assert_eq!(found.iter().map(|mount| mount.point.to_str().unwrap()).collect::<Vec<_>>(), ["/p/v/a", "/p/v/b"]);
        assert_eq!((found[0].device.as_str(), found[0].source.as_str()), ("0:38", "s:/sub"));
    }

    #[test]
    fn the_table_has_what_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        let place = |name: &str| root.join(name);
        ["data", "data/plain"].iter().for_each(|name| fs::create_dir(place(name)).unwrap());
        std::os::unix::fs::symlink("data", place("link")).unwrap();
        let line = |name: &str, kind: &str| format!("61 30 0:38 / {} rw - {kind} s:/x rw", place(name).display());
        let mounts = [
            ("data/v", "nfs4"),
            ("data/under", "nfs4"),
            ("data/under", "tmpfs"),
            ("data/fuse", "fuse.glusterfs"),
            ("data/ceph", "ceph"),
        ];
        let table = Table::of(mounts.iter().filter_map(|(name, kind)| Mount::of_line(&line(name, kind))).collect());
        let check = |name: &str, kind: Option<&str>, is_there: bool| {
            assert_eq!(table.at(&place(name)).map(|mount| mount.fs_type.as_str()), kind, "{name}");
            assert_eq!(table.is_there(&place(name)), is_there, "{name}");
        };
        check("data/v", Some("nfs4"), true);
        check("link/v", Some("nfs4"), true);
        check("data/under", Some("tmpfs"), false);
        check("data/fuse", Some("fuse.glusterfs"), true);
        check("data/ceph", Some("ceph"), true);
        check("data/plain", None, true);
        check("data/none", None, false);
        check("none/v", None, false);
        assert!(Table::read().unwrap().at(Path::new("/proc")).is_some());
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
