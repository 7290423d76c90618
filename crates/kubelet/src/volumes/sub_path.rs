//! `subPath`: a part of a volume, fixed by a bind mount before the container can see it.
//!
//! Another container may swap a directory for a symbolic link between check and use. So the path is walked component
//! by component below the volume, following no link, and what was reached is bound by its file descriptor.

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;

/// A descriptor that is closed with its owner.
struct Handle(RawFd);

impl Drop for Handle {
    fn drop(&mut self) {
        // Nothing can be done about a failed close of a path descriptor.
        let _ = nix::unistd::close(self.0);
    }
}

/// Resolves `sub_path` below `root`, creating directories that are missing. Links may lead anywhere below `root`.
pub fn resolve(root: &Path, sub_path: &str) -> io::Result<PathBuf> {
    let normal = Path::new(sub_path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !normal {
        return Err(invalid(format!("subPath {sub_path:?} is not below its volume")));
    }
    let root = root.canonicalize()?;
    let wanted = root.join(sub_path);
    if let Ok(found) = wanted.canonicalize() {
        return if found.starts_with(&root) {
            Ok(found)
        } else {
            Err(invalid(format!("subPath {sub_path:?} leads out of its volume")))
        };
    }
    let mode = fs::metadata(&root)?.permissions().mode() & 0o7777;
    let mut at = root.clone();
    for part in Path::new(sub_path).components() {
        let next = at.join(part);
        at = match next.canonicalize() {
            Ok(found) if found.starts_with(&root) => found,
            Ok(_) => return Err(invalid(format!("subPath {sub_path:?} leads out of its volume"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A dangling link is there already: this fails, and so it must.
                fs::create_dir(&next)?;
                fs::set_permissions(&next, fs::Permissions::from_mode(mode))?;
                next
            }
            Err(error) => return Err(error),
        };
    }
    Ok(at)
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Opens `path` below `root` without following any link.
fn open_beneath(root: &Path, path: &Path) -> io::Result<Handle> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let root = root.canonicalize()?;
    let relative =
        path.strip_prefix(&root).map_err(|_| invalid(format!("{} is not below {}", path.display(), root.display())))?;
    let mut handle = Handle(open(&root, flags | OFlag::O_DIRECTORY, Mode::empty())?);
    for part in relative.components() {
        handle = Handle(openat(Some(handle.0), part.as_os_str(), flags, Mode::empty())?);
    }
    let kind = fs::metadata(format!("/proc/self/fd/{}", handle.0))?.file_type();
    let link = fs::symlink_metadata(path)?.file_type().is_symlink();
    if link || !(kind.is_dir() || kind.is_file()) {
        return Err(invalid(format!("{} is neither file nor directory", path.display())));
    }
    Ok(handle)
}

/// Binds `sub_path` of the volume at `root` to `target`, replacing an older binding.
pub fn bind(root: &Path, sub_path: &str, target: &Path) -> io::Result<()> {
    let found = resolve(root, sub_path)?;
    let handle = open_beneath(root, &found)?;
    let source = format!("/proc/self/fd/{}", handle.0);
    unbind(target)?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if fs::metadata(&source)?.is_dir() {
        fs::create_dir(target)?
    } else {
        fs::write(target, "")?
    }
    mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

/// Removes a binding and its mount point; nothing there is fine.
pub fn unbind(target: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(target) else { return Ok(()) };
    unmount(target)?;
    if metadata.is_dir() { fs::remove_dir(target) } else { fs::remove_file(target) }
}

/// Unmounts whatever is mounted at `target`, if anything.
pub fn unmount(target: &Path) -> io::Result<()> {
    use nix::errno::Errno;
    loop {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // EPERM comes without privileges, where nothing can have been mounted either.
            Err(Errno::EINVAL | Errno::ENOENT | Errno::EPERM) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[track_caller]
    fn check(sub_path: &str, expected: Option<&str>) {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        let root = base.join("volume");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(base.join("secret")).unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("a", root.join("in")).unwrap();
        symlink("../secret/new", root.join("dangling")).unwrap();
        let found = resolve(&root, sub_path).and_then(|found| open_beneath(&root, &found).map(|_| found));
        assert_eq!(found.ok(), expected.map(|path| root.join(path)), "{sub_path}");
        assert!(!base.join("secret/new").exists());
    }

    #[test]
    fn stays_below_the_volume() {
        check("a/b", Some("a/b"));
        check("in/b", Some("a/b"));
        check("new/deep", Some("new/deep"));
        check("in/new", Some("a/new"));
        check("out", None);
        check("out/x", None);
        check("dangling", None);
        check("dangling/x", None);
        check("../secret", None);
        check("/etc", None);
    }
}
