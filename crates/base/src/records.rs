//! Files that others may have touched, and directories of records, a file of JSON each.
//!
//! Disks lose what was written last, and people edit what they should not. A record that cannot be read costs itself alone: who reads
//! the others goes on, and knows the name of the file. Records are written by [`files::replace`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::files;

/// Opens a file for reading that anybody may have put there. Blocking, and no longer than the disk takes: to open a pipe would wait
/// for its other end.
///
/// # Errors
/// It cannot be opened, or it is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")) }
}

/// The bytes of such a file.
///
/// # Errors
/// It cannot be read, it is no regular file, or it has more than `most` bytes.
pub fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    let is_long = bytes.len() as u64 > most;
    if is_long { Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it has more than {most} bytes"))) } else { Ok(bytes) }
}

/// The error of a file whose contents are not what they should be, with its name.
pub fn damaged(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: {error}", path.display()))
}

/// What a file of JSON says, none when there is no file. Blocking.
///
/// # Errors
/// It cannot be read, or it is damaged; the error has its name.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match read_file(path, RECORD) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

/// What a directory holds.
#[derive(Debug)]
pub struct Records<T> {
    /// What could be read.
    pub whole: Vec<T>,
    /// Names of files that are damaged. They stay, and are told each time.
    pub damaged: Vec<String>,
}

/// Most bytes of a record.
const RECORD: u64 = 16 << 20;

/// Reads the files whose names are those of records; a directory that is not there has none. What writing them has left over is
/// removed. Blocking.
///
/// # Errors
/// The directory cannot be read.
pub fn read<T: DeserializeOwned>(directory: &Path, is_record: impl Fn(&str) -> bool) -> io::Result<Records<T>> {
    let mut records = Records { whole: Vec::new(), damaged: Vec::new() };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if files::is_left_over(&name) {
            // The process that wrote it was killed; nobody may ever write this record again.
            fs::remove_file(entry.path())?;
        }
        if !is_record(&name) {
            continue;
        }
        match read_file(&entry.path(), RECORD).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
            Ok(record) => records.whole.push(record),
            Err(error) => {
                tracing::error!(file = %entry.path().display(), %error, "a record cannot be read, and is taken for none");
                records.damaged.push(name);
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        assert_eq!(read_json::<u8>(&path).unwrap(), None);
        fs::write(&path, "7").unwrap();
        assert_eq!(read_json::<u8>(&path).unwrap(), Some(7));
        for text in ["", "[1", "\"seven\""] {
            fs::write(&path, text).unwrap();
            let error = read_json::<u8>(&path).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{} is damaged: ", path.display())), "{error}");
        }
    }

    #[test]
    fn what_is_damaged_costs_itself_alone() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in
            [("a.json", "1"), ("b.json", ""), ("c.json", "{"), ("d.json", "4"), (".e", "5"), (".h.json.next", "6")]
        {
            fs::write(directory.path().join(name), text).unwrap();
        }
        fs::create_dir(directory.path().join("f.json")).unwrap();
        nix::unistd::mkfifo(&directory.path().join("g.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut found: Records<u8> = read(directory.path(), |name| name.ends_with(".json")).unwrap();
        found.whole.sort();
        found.damaged.sort();
        assert_eq!(
            (found.whole, found.damaged),
            (vec![1, 4], vec!["b.json".into(), "c.json".into(), "f.json".into(), "g.json".into()])
        );
        assert!(directory.path().join(".e").exists() && !directory.path().join(".h.json.next").exists());
        let none: Records<u8> = read(&directory.path().join("none"), |_| true).unwrap();
        assert!(none.whole.is_empty() && none.damaged.is_empty());
    }
}
