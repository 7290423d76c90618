//! How much of the disk a directory takes.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What something takes of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl std::ops::Add for DiskUsage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, inodes: self.inodes + other.inodes }
    }
}

/// What everything below `path` takes, a file with several names once. What vanishes meanwhile takes nothing. Blocking.
pub fn disk_usage(path: &Path) -> DiskUsage {
    let (mut seen, mut total) = (HashSet::new(), DiskUsage::default());
    walk(path, &mut seen, &mut total, 0);
    total
}

/// Longest path in bytes before the walk goes on from an open directory: the kernel takes no more than 4096.
const LONG: usize = 3000;
/// Most directories that are open at a time.
const OPEN: u32 = 100;

fn walk(root: &Path, seen: &mut HashSet<(u64, u64)>, total: &mut DiskUsage, open: u32) {
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        if directory.as_os_str().len() > LONG && open < OPEN {
            if let Ok(base) = fs::File::open(&directory) {
                walk(Path::new(&format!("/proc/self/fd/{}", base.as_raw_fd())), seen, total, open + 1);
            }
            continue;
        }
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.nlink() < 2 || metadata.is_dir() || seen.insert((metadata.dev(), metadata.ino())) {
                total.bytes += metadata.blocks() * 512;
                total.inodes += 1;
            }
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn deep_trees_hide_nothing_and_links_count_once() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        let empty = disk_usage(&root).bytes;
        fs::write(root.join("a"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(root.join("a"), root.join("b")).unwrap();
        std::os::unix::fs::symlink("/", root.join("c")).unwrap();
        let usage = disk_usage(&root);
        assert_eq!(usage.inodes, 2, "a file and a link");
        let once = usage.bytes - empty;
        assert!((1 << 20..(1 << 20) + 65_536).contains(&once), "{once}");
        // Longer than any path that the kernel takes: made from the inside out.
        let name = "d".repeat(200);
        let mut inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("deep"), vec![1; 1 << 20]).unwrap();
        for number in 0..40 {
            let outer = directory.path().join(number.to_string());
            fs::create_dir(&outer).unwrap();
            fs::rename(&inner, outer.join(&name)).unwrap();
            inner = outer;
        }
        assert!(disk_usage(&inner).bytes >= 1 << 20);
    }
}
