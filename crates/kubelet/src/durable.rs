//! Files that are whole after a crash of the machine.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Replaces a file, whose directory is made: who reads it finds what was there before or this, and after the return this. Blocking.
/// What a crash leaves has the file's name with a dot before it.
///
/// # Errors
/// It cannot be written; what was there before may still be.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    fs::create_dir_all(directory)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let next = directory.join(hidden);
    let mut file = File::create(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        for text in ["one, which is longer", "two"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(home.path().join("a")).unwrap().count(), 1);
        assert!(replace(Path::new("/"), b"").is_err());
    }
}
