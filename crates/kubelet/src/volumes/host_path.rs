//! hostPath volumes: the type check and what it may create.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Checks `path` against the volume's `type` and creates what `…OrCreate` asks for. The error is what an event says.
pub fn check(path: &str, kind: &str) -> Result<(), String> {
    let at = Path::new(path);
    let failed = |error: io::Error| format!("hostPath type check failed: {path}: {error}");
    let metadata = match fs::metadata(at) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let what = match (kind, &metadata) {
        ("", Some(_)) => return Ok(()),
        // A container runtime makes a missing source a directory; so do we.
        ("" | "DirectoryOrCreate", None) => return create_directory(at).map_err(failed),
        ("FileOrCreate", None) => return create_file(at).map_err(failed),
        (_, None) => return Err(format!("hostPath type check failed: {path} is not a {}", title(kind))),
        (_, Some(metadata)) => metadata.file_type(),
    };
    let fits = match kind {
        "Directory" | "DirectoryOrCreate" => what.is_dir(),
        "File" | "FileOrCreate" => what.is_file(),
        "Socket" => what.is_socket(),
        "CharDevice" => what.is_char_device(),
        "BlockDevice" => what.is_block_device(),
        other => return Err(format!("{other:?} is not a valid hostPath type")),
    };
    if fits { Ok(()) } else { Err(format!("hostPath type check failed: {path} is not a {}", title(kind))) }
}

fn title(kind: &str) -> &'static str {
    match kind {
        "Directory" | "DirectoryOrCreate" => "directory",
        "File" | "FileOrCreate" => "file",
        "Socket" => "socket file",
        "CharDevice" => "character device",
        _ => "block device",
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn create_file(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::check as check_path;

    #[track_caller]
    fn check(name: &str, kind: &str, error: Option<&str>) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        std::fs::create_dir(directory.path().join("dir")).unwrap();
        let path = directory.path().join(name);
        let expected = error.map(|what| format!("hostPath type check failed: {} is not a {what}", path.display()));
        assert_eq!(check_path(path.to_str().unwrap(), kind).err(), expected);
        assert_eq!(path.exists(), error.is_none() || name != "none");
    }

    #[test]
    fn types() {
        check("dir", "", None);
        check("dir", "Directory", None);
        check("file", "Directory", Some("directory"));
        check("none", "Directory", Some("directory"));
        check("none", "DirectoryOrCreate", None);
        check("file", "File", None);
        check("none", "File", Some("file"));
        check("none", "FileOrCreate", None);
        check("file", "Socket", Some("socket file"));
        check("dir", "BlockDevice", Some("block device"));
    }
}
