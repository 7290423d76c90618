//! Files that change all at once.
//!
//! `key` links to `..data/key`, `..data` links to a directory of its own for each content. A change makes a new
//! directory and renames the link: readers see the old files or the new ones, never a mixture.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub data: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner, where it is not root.
    pub uid: Option<u32>,
}

/// Files by their path below the volume.
pub type Payload = BTreeMap<String, File>;

const DATA: &str = "..data";
const DATA_TMP: &str = "..data_tmp";

/// Makes `payload` the content of `target`. `group` gets the files (fsGroup). False when nothing had to change.
pub fn write(target: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    payload.keys().try_for_each(|path| check_path(path))?;
    fs::create_dir_all(target)?;
    let old = fs::read_link(target.join(DATA)).ok();
    if old.as_ref().is_some_and(|old| same(&target.join(old), payload)) {
        return Ok(false);
    }
    let name = format!("..{}.{}", Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"), Timestamp::now().subsec_nanosecond());
    let directory = target.join(&name);
    // On a full disk every attempt would leave its half.
    fill(&directory, payload, group).inspect_err(|_| drop(base::trees::remove(&directory)))?;
    let _ = fs::remove_file(target.join(DATA_TMP));
    symlink(&name, target.join(DATA_TMP))?;
    fs::rename(target.join(DATA_TMP), target.join(DATA))?;
    link_tops(target, payload)?;
    own(target, group, 0o755)?;
    remove_others(target, &name)?;
    Ok(true)
}

/// Removes the contents that are not shown: the one before, and what writers left that were killed.
fn remove_others(target: &Path, shown: &str) -> io::Result<()> {
    for entry in fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != shown && name.to_string_lossy().starts_with("..") && entry.file_type()?.is_dir() {
            base::trees::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// A path stays below the volume and does not collide with the links.
fn check_path(path: &str) -> io::Result<()> {
    let relative = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !relative || path.starts_with("..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} is no path below the volume")));
    }
    Ok(())
}

fn same(directory: &Path, payload: &Payload) -> bool {
    let mut files = BTreeSet::new();
    if list(directory, Path::new(""), &mut files).is_err() || files.len() != payload.len() {
        return false;
    }
    payload
        .iter()
        .all(|(path, file)| files.contains(Path::new(path)) && fs::read(directory.join(path)).is_ok_and(|data| data == file.data))
}

fn list(directory: &Path, below: &Path, files: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &path, files)?;
        } else {
            files.insert(path);
        }
    }
    Ok(())
}

fn fill(directory: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    fs::create_dir(directory)?;
    for (path, file) in payload {
        let full = directory.join(path);
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut options = fs::OpenOptions::new();
        let mut handle = options.write(true).create_new(true).mode(0o600).open(&full)?;
        io::Write::write_all(&mut handle, &file.data)?;
        if file.uid.is_some() || group.is_some() {
            std::os::unix::fs::chown(&full, file.uid, group)?;
        }
        let readable = if group.is_some() { 0o440 } else { 0 };
        fs::set_permissions(&full, fs::Permissions::from_mode(file.mode | readable))?;
    }
    let mut directories = vec![directory.to_path_buf()];
    while let Some(next) = directories.pop() {
        own(&next, group, 0o755)?;
        for entry in fs::read_dir(&next)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Ok(())
}

/// A directory's owner group and mode; with a group, new files inherit it.
pub fn own(directory: &Path, group: Option<u32>, mode: u32) -> io::Result<()> {
    if group.is_some() {
        std::os::unix::fs::chown(directory, None, group)?;
    }
    let setgid = if group.is_some() { 0o2000 } else { 0 };
    fs::set_permissions(directory, fs::Permissions::from_mode(mode | setgid))
}

/// Links the first part of every path into the current content and removes links to what is gone.
fn link_tops(target: &Path, payload: &Payload) -> io::Result<()> {
    let tops: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for top in &tops {
        let link = target.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(top), &link)?;
        }
    }
    for entry in fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Directories are mount points of other volumes.
        if !name.starts_with("..") && !tops.contains(name.as_ref()) && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { data: text.as_bytes().to_vec(), mode: 0o640, uid: None };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    /// Writes each content in turn; then the last one is all that is visible.
    #[track_caller]
    fn check(contents: &[&[(&str, &str)]]) {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("v");
        // A writer was killed in the middle.
        fs::create_dir_all(target.join("..2026_01_01_00_00_00.1/half")).unwrap();
        for content in contents {
            assert!(write(&target, &payload(content), None).unwrap());
            assert!(!write(&target, &payload(content), None).unwrap(), "the same content is not written again");
        }
        let last = contents.last().unwrap();
        for (path, text) in *last {
            assert_eq!(fs::read_to_string(target.join(path)).unwrap(), *text);
            assert_eq!(fs::metadata(target.join(path)).unwrap().permissions().mode() & 0o777, 0o640);
        }
        let visible = fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let hidden = visible.filter(|name| name.starts_with("..")).count();
        assert_eq!(hidden, 2, "one content and the link to it");
    }

    #[test]
    fn replaces_all_at_once() {
        check(&[&[("a", "1")]]);
        check(&[&[("a", "1"), ("b/c", "2")], &[("a", "3")]]);
        check(&[&[("a", "1")], &[("a", "2"), ("d/e/f", "3")]]);
        check(&[&[("a", "1")], &[]]);
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["../x", "/x", "a/../../b", "..data", ""] {
            assert!(check_path(path).is_err(), "{path}");
        }
        assert!(check_path("a..b/..c").is_ok());
    }
}
