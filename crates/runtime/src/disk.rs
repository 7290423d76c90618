//! How much of the disk a directory takes.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::{fs, io};

use base::trees::{self, Stat, Visitor};

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

/// What everything below `path` takes, a file with several names once, without what is mounted there. What vanishes meanwhile takes nothing.
/// Blocking.
pub fn disk_usage(path: &Path) -> DiskUsage {
    let mut count = Count::default();
    // What was counted until it could not be read on is the best that is known.
    let _ = fs::File::open(path).and_then(|root| trees::walk(root.into(), &mut count));
    count.total
}

#[derive(Default)]
struct Count {
    /// Files with several names.
    seen: HashSet<(u64, u64)>,
    total: DiskUsage,
}

impl Count {
    fn add(&mut self, found: &Stat) {
        self.total.bytes += u64::try_from(found.st_blocks).unwrap_or(0) * 512;
        self.total.inodes += 1;
    }
}

impl Visitor for Count {
    fn file(&mut self, _: BorrowedFd<'_>, _: &CStr, found: &Stat) -> io::Result<()> {
        if found.st_nlink < 2 || self.seen.insert((found.st_dev, found.st_ino)) {
            self.add(found);
        }
        Ok(())
    }

    fn enter(&mut self, _: BorrowedFd<'_>, found: &Stat) -> io::Result<()> {
        self.add(found);
        Ok(())
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
