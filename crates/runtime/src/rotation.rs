//! Names of logs that have become too long, and which of them stay: for the shim, and for a kubelet whose containers another runtime runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base::files;
use jiff::Timestamp;

/// Where a log goes: `NAME.DATE-TIME`, as upstream has it.
pub fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stamp: String = format!("{:.9}", Timestamp::now()).chars().filter(char::is_ascii_digit).collect();
    let (date, time) = stamp.split_at(8);
    path.with_file_name(format!("{name}.{date}-{time}"))
}

/// Removes the oldest of the files that were moved away, so that `count` are left with the open one.
///
/// # Errors
/// The directory cannot be read, or one of them not removed.
pub fn remove_surplus(path: &Path, count: u32) -> io::Result<()> {
    let prefix = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let directory = fs::read_dir(path.parent().unwrap_or(Path::new(".")))?;
    let found = directory.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    let mut old: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
    old.sort();
    let surplus = (old.len() + 1).saturating_sub(count.max(1) as usize);
    old.iter().take(surplus).try_for_each(|file| files::remove(file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_oldest_logs_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        for name in ["0.log", "0.log.20260101-1", "0.log.20260101-2", "0.log.20260102-1", "1.log.20250101-1"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        remove_surplus(&path, 2).unwrap();
        let mut left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["0.log", "0.log.20260102-1", "1.log.20250101-1"]);
        assert!(aside(&path).to_string_lossy().contains("0.log.20"));
    }
}
