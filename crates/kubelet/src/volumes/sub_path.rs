//! `subPath`: a part of a volume, fixed by a bind mount before the container can see it.
//!
//! Another container may swap a directory for a symbolic link between check and use. So the kernel resolves the path
//! below the volume (`openat2`), what is missing is made and changed by file descriptors, and what was reached is bound
//! by its own.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};

use super::points;

/// A descriptor that is closed with its owner.
struct Handle(RawFd);

impl Drop for Handle {
    fn drop(&mut self) {
        // Nothing can be done about a failed close of a path descriptor.
        let _ = nix::unistd::close(self.0);
    }
}

/// Most symbolic links on a way, as the kernel has it.
const LINKS: usize = 40;

/// Opens `sub_path` below `root`, making directories that are missing. Links may lead anywhere below `root`, also by absolute paths of the
/// host, as upstream; what a link leads to is not made.
fn resolve(root: &Path, sub_path: &str) -> io::Result<Handle> {
    let normal = Path::new(sub_path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !normal {
        return Err(invalid(format!("subPath {sub_path:?} is not below its volume")));
    }
    let escapes = || invalid(format!("subPath {sub_path:?} leads out of its volume"));
    let told = |error: Errno| match error {
        Errno::EXDEV | Errno::ELOOP => escapes(),
        other => other.into(),
    };
    let name = root.canonicalize()?;
    let root = Handle(open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?);
    let mode = fstat(root.0)?.st_mode & 0o7777;
    let mut at = open_beneath(&root, Path::new(".")).map_err(told)?;
    // What is left of the way, with whether a link has brought it, and the way so far, on which there is no link.
    let mut left: VecDeque<(OsString, bool)> = Path::new(sub_path).iter().map(|part| (part.to_owned(), false)).collect();
    let (mut path, mut links) = (PathBuf::from("."), 0);
    while let Some((part, is_linked)) = left.pop_front() {
        match part.as_encoded_bytes() {
            b"." => continue,
            b".." => {
                if path == Path::new(".") || !path.pop() {
                    return Err(escapes());
                }
                at = open_beneath(&root, &path).map_err(told)?;
                continue;
            }
            _ => path.push(&part),
        }
        let found = match open_beneath(&root, &path) {
            Err(Errno::ENOENT) if !is_linked => make(&at, &part, mode).map_err(told)?,
            found => found.map_err(told)?,
        };
        if kind(&found)? != SFlag::S_IFLNK {
            at = found;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(Errno::ELOOP.into());
        }
        let target = PathBuf::from(readlinkat(Some(found.0), "")?);
        let below = match target.is_absolute() {
            true => {
                path = PathBuf::from(".");
                target.strip_prefix(&name).map_err(|_| escapes())?
            }
            false => {
                path.pop();
                &target
            }
        };
        at = open_beneath(&root, &path).map_err(told)?;
        below.iter().rev().for_each(|part| left.push_front((part.to_owned(), true)));
    }
    Ok(at)
}

fn kind(handle: &Handle) -> io::Result<SFlag> {
    Ok(SFlag::from_bits_truncate(fstat(handle.0)?.st_mode & SFlag::S_IFMT.bits()))
}

/// Opens `path` below `root`; a link at its end is opened itself. The kernel refuses other links, and what leads out of `root`, also when
/// somebody moves things meanwhile.
fn open_beneath(root: &Handle, path: &Path) -> nix::Result<Handle> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(root.0, path, how).map(Handle)
}

/// Makes the directory `name` in `parent`. Its mode is set by what was opened, not by its name: that may be a link by now.
fn make(parent: &Handle, name: &std::ffi::OsStr, mode: u32) -> nix::Result<Handle> {
    // A dangling link is there already: this fails, and so it must.
    mkdirat(Some(parent.0), name, Mode::from_bits_truncate(0o700))?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = Handle(openat(Some(parent.0), name, flags, Mode::empty())?);
    fchmod(made.0, Mode::from_bits_truncate(mode))?;
    Ok(made)
}

/// The text of a file below the volume at `root`, whatever its containers do with it meanwhile: no link leads out of the volume, and nothing but
/// a file is read. Blocking.
///
/// # Errors
/// There is no such file, or it is no text of at most `most` bytes.
pub fn read(root: &Path, path: &str, most: u64) -> io::Result<String> {
    let directory = Handle(open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?);
    // Others may have put a pipe there, whose opening would wait.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened = openat2(directory.0, Path::new(path), how).map(Handle).map_err(|error| match error {
        Errno::EXDEV | Errno::ELOOP => invalid(format!("{path:?} leads out of its volume")),
        other => other.into(),
    })?;
    if kind(&opened)? != SFlag::S_IFREG {
        return Err(invalid(format!("{path:?} is no file")));
    }
    let file = fs::File::open(format!("/proc/self/fd/{}", opened.0))?;
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, most + 1), &mut text)?;
    if text.len() as u64 > most { Err(invalid(format!("{path:?} has more than {most} bytes"))) } else { Ok(text) }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// How often a binding is tried whose source is replaced meanwhile, as files of ConfigMaps are. A try is a few system calls; each may meet
/// another replacement where somebody replaces without a pause, and no container may keep the kubelet here for good.
const TRIES: usize = 100;

/// Binds `sub_path` of the volume at `root` to `target`, replacing an older binding.
pub fn bind(root: &Path, sub_path: &str, target: &Path) -> io::Result<()> {
    for _ in 1..TRIES {
        match bind_once(root, sub_path, target) {
            // The link has been read, and what it leads to is gone: by now it leads elsewhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    bind_once(root, sub_path, target)
}

fn bind_once(root: &Path, sub_path: &str, target: &Path) -> io::Result<()> {
    let handle = resolve(root, sub_path)?;
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
    points::unmount(target, || false)?;
    if metadata.is_dir() { fs::remove_dir(target) } else { fs::remove_file(target) }
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
        symlink(base.join("secret"), root.join("absolute")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), Mode::S_IRWXU).unwrap();
        symlink(root.join("a"), root.join("a/b/host")).unwrap();
        symlink("../..", root.join("a/b/up")).unwrap();
        symlink(&root, root.join("whole")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let named = |handle: Handle| fs::read_link(format!("/proc/self/fd/{}", handle.0));
        let found = resolve(&root, sub_path).and_then(named);
        let named = |path: &str| if path.is_empty() { root.clone() } else { root.join(path) };
        assert_eq!(found.ok(), expected.map(named), "{sub_path}");
        assert!(!base.join("secret/new").exists());
    }

    #[test]
    fn a_directory_that_turns_into_a_link_changes_nothing_outside() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let (root, secret) = (directory.path().join("volume"), directory.path().join("secret"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&secret).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            // What a container does in its volume meanwhile.
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    if fs::rename(root.join("a"), root.join("away")).is_ok() {
                        let _ = symlink("../secret", root.join("a"));
                    }
                    let _ = fs::remove_file(root.join("a"));
                    let _ = base::trees::remove(&root.join("away"));
                }
            });
            for _ in 0..2000 {
                let _ = resolve(&root, "a/b");
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(fs::read_dir(&secret).unwrap().count(), 0);
    }

    /// kubernetes/kubernetes#127602: a ConfigMap that is changed while its file is bound.
    #[test]
    fn a_file_that_is_replaced_meanwhile_is_bound() {
        use super::super::atomic::{File, Payload, write};
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED: binding needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (root, target) = (directory.path().join("volume"), directory.path().join("target"));
        let content = |number: usize| {
            let file = File { data: number.to_string().into_bytes(), mode: 0o644, uid: None };
            Payload::from([("a".to_owned(), file)])
        };
        write(&root, &content(0), None).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let failed = std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1.. {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    write(&root, &content(number), None).unwrap();
                }
            });
            let failed = (0..500).find_map(|_| bind(&root, "a", &target).err());
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            failed
        });
        let read = fs::read_to_string(&target);
        unbind(&target).unwrap();
        assert!(failed.is_none(), "{failed:?}");
        read.unwrap().parse::<usize>().unwrap();
    }

    #[test]
    fn stays_below_the_volume() {
        check("a/b", Some("a/b"));
        check("in/b", Some("a/b"));
        check("new/deep", Some("new/deep"));
        check("in/new", Some("a/new"));
        check("out", None);
        check("out/x", None);
        check("absolute", None);
        check("pipe", Some("pipe"));
        check("socket", Some("socket"));
        check("socket/x", None);
        check("a/b/host", Some("a"));
        check("a/b/host/b/new", Some("a/b/new"));
        check("a/b/up", Some(""));
        check("a/b/up/a", Some("a"));
        check("whole/in/b", Some("a/b"));
        check("loop", None);
        check("dangling", None);
        check("dangling/x", None);
        check("../secret", None);
        check("/etc", None);
    }

    #[test]
    fn only_files_of_the_volume_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("volume");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("env"), "A='b'").unwrap();
        fs::write(directory.path().join("outside"), "secret").unwrap();
        std::os::unix::fs::symlink("../outside", root.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("absolute")).unwrap();
        std::os::unix::fs::symlink("env", root.join("inside")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), Mode::from_bits_truncate(0o600)).unwrap();
        for (path, expected) in [
            ("env", true),
            ("inside", true),
            ("link", false),
            ("absolute", false),
            ("pipe", false),
            ("../outside", false),
            (".", false),
        ] {
            assert_eq!(read(&root, path, 100).is_ok(), expected, "{path}");
        }
        assert!(read(&root, "link", 100).is_err_and(|error| error.to_string() == "\"link\" leads out of its volume"));
        assert!(read(&root, "env", 4).is_err());
        assert_eq!(read(&root, "none", 100).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
