//! Executes a command in a running container.
//!
//! libcontainer can do this too, but its move into the cgroup waits for an RCU grace period (7 to 16 ms of every exec
//! probe), and it leaves the seccomp filter out. A process of one thread may instead move itself through the `tasks` file
//! of version 1, which needs no such wait.

use std::ffi::CString;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sched::CloneFlags;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{ForkResult, Gid, Uid, fork};
use oci_spec::runtime::{Process, Spec};

use super::app_armor;
use super::cgroup::{Cgroups, pidfd};
use super::helper::{HelperRequest, command};
use super::report::report_start;
use super::seccomp;
use super::spec::Confinement;
use super::streams;
use super::user;

/// Where the command goes.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Target {
    /// Init of the container.
    pub(crate) pid: i32,
    /// Its cgroup, relative to the root of every hierarchy.
    pub(crate) cgroup: String,
    /// Its OCI bundle.
    pub(crate) bundle: std::path::PathBuf,
}

/// Starts the command; gives its pid. What goes wrong after the fork is reported.
pub(super) fn execute(request: &HelperRequest, process: &Path, target: &Target) -> Result<i32, String> {
    let process: Process = read(process)?;
    let spec: Spec = read(&target.bundle.join("config.json"))?;
    let confined = super::spec::confinement(&spec);
    let console = request.console.as_ref().map(UnixStream::connect).transpose().map_err(|e| format!("console socket: {e}"))?;
    let handle = pidfd(target.pid).ok_or("the container has ended")?;
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", target.pid)).unwrap_or_default();
    let cgroups = Cgroups::detect().map_err(|error| format!("cgroups: {error}"))?;
    let cgroup = cgroups.entry_point(&groups, &target.cgroup).ok_or("the container has ended")?;
    if request.console.is_none() {
        streams::give(None, process.user().uid(), request.users);
    }
    if let Some(profile) = process.apparmor_profile() {
        app_armor::confine_next(profile)?;
    }
    // The container must not look into this process while it is half inside.
    // SAFETY: takes integers only.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    if let Some(score) = process.oom_score_adj() {
        let _ = fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    cgroups.join(&cgroup).map_err(|e| format!("joining the cgroup: {e}"))?;
    join_namespaces(&handle, target.pid).map_err(|e| format!("joining the namespaces: {e}"))?;
    let terminal = console.map(|socket| open_terminal(&socket)).transpose().map_err(|e| format!("terminal: {e}"))?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }.map_err(|e| format!("fork: {e}"))? {
        ForkResult::Parent { child } => Ok(child.as_raw()),
        ForkResult::Child => {
            let error = become_command(&process, terminal, confined.as_ref());
            report_start(&error);
            // SAFETY: ends the child; the status is what other runtimes use for a command that cannot be executed.
            unsafe { libc::_exit(128) }
        }
    }
}

pub(super) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// Joins those namespaces of the process that are others than ours.
fn join_namespaces(handle: &OwnedFd, pid: i32) -> io::Result<()> {
    let kinds = [
        ("user", CloneFlags::CLONE_NEWUSER),
        ("mnt", CloneFlags::CLONE_NEWNS),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("net", CloneFlags::CLONE_NEWNET),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ];
    let mut flags = CloneFlags::empty();
    for (name, flag) in kinds {
        let inode = |who: &str| fs::metadata(format!("/proc/{who}/ns/{name}")).map(|metadata| metadata.ino());
        flags.set(flag, inode("self")? != inode(&pid.to_string())?);
    }
    // Through the pidfd: all or none, and of no process that took over the number.
    // SAFETY: a valid pidfd and namespace flags.
    if unsafe { libc::setns(handle.as_raw_fd(), flags.bits()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // This process's own user is none of that user namespace.
    if flags.contains(CloneFlags::CLONE_NEWUSER) {
        let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
        nix::unistd::setresgid(group, group, group)?;
        nix::unistd::setresuid(user, user, user)?;
    }
    Ok(())
}

/// Opens a terminal of the container, sends its master away and gives its other end.
fn open_terminal(socket: &UnixStream) -> io::Result<OwnedFd> {
    let master = fs::OpenOptions::new().read(true).write(true).open("/dev/pts/ptmx")?;
    let metadata = master.metadata()?;
    // The container may have put something else there.
    if !metadata.file_type().is_char_device() || metadata.rdev() != nix::sys::stat::makedev(5, 2) {
        return Err(io::Error::other("/dev/pts/ptmx of the container is not a terminal multiplexer"));
    }
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int; TIOCGPTPEER takes open flags and gives a new descriptor.
    let peer = unsafe {
        libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock);
        libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC)
    };
    if peer < 0 {
        return Err(io::Error::last_os_error());
    }
    let fds = [master.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(b"/dev/pts/ptmx")], &rights, MsgFlags::empty(), None)?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(peer) })
}

/// Becomes the command; gives the error when that is not possible.
fn become_command(process: &Process, terminal: Option<OwnedFd>, confined: Option<&Confinement>) -> String {
    match prepare(process, terminal, confined) {
        Ok((path, args, env)) => {
            let Err(error) = nix::unistd::execve(&path, &args, &env);
            format!("exec {path:?}: {}", super::helper::describe(error))
        }
        Err(error) => error,
    }
}

/// The working directory is below the container's root. One that a container names by way of `/proc/self/fd` could be the
/// host's (CVE-2024-21626); the kernel then says "(unreachable)".
fn check_inside() -> Result<(), String> {
    match nix::unistd::getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        Ok(path) => Err(format!("the working directory is outside of the container: {}", path.display())),
        Err(error) => Err(format!("the working directory: {}", error.desc())),
    }
}

type Prepared = (CString, Vec<CString>, Vec<CString>);

fn prepare(process: &Process, terminal: Option<OwnedFd>, confined: Option<&Confinement>) -> Result<Prepared, String> {
    let failed = |what: &'static str| move |error: nix::errno::Errno| format!("{what}: {}", error.desc());
    nix::unistd::setsid().map_err(failed("setsid"))?;
    if let Some(terminal) = terminal {
        // SAFETY: a valid descriptor of a terminal; the session has none yet.
        unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
        for stream in 0..3 {
            nix::unistd::dup2(terminal.as_raw_fd(), stream).map_err(failed("terminal"))?;
        }
        // A terminal is of the container's own file system, so its ids are those inside.
        let _ = nix::unistd::fchown(terminal.as_raw_fd(), Some(Uid::from_raw(process.user().uid())), None);
    }
    nix::unistd::chdir(process.cwd()).map_err(failed("chdir to the working directory"))?;
    check_inside()?;
    let (uid, gid) = (process.user().uid(), process.user().gid());
    let groups: Vec<Gid> = process.user().additional_gids().iter().flatten().map(|gid| Gid::from_raw(*gid)).collect();
    // SAFETY: takes integers only; root's rights are kept over the change of the user, to be narrowed below.
    unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) };
    nix::unistd::setgroups(&groups).map_err(failed("setgroups"))?;
    let gid = Gid::from_raw(gid);
    nix::unistd::setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
    let user = Uid::from_raw(uid);
    nix::unistd::setresuid(user, user, user).map_err(failed("setresuid"))?;
    let no_new_privs = process.no_new_privileges().unwrap_or(false);
    if no_new_privs {
        // SAFETY: takes integers only.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    }
    let env = user::environment(process);
    let (path, args) = command(process)?;
    let bounding = process.capabilities().as_ref().and_then(|caps| caps.bounding().as_ref());
    let own: Vec<String> =
        bounding.into_iter().flatten().map(|cap| format!("CAP_{}", cap.to_string().trim_start_matches("CAP_"))).collect();
    let to_c = |texts: Vec<String>| {
        texts.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
    };
    let path = CString::new(path).map_err(|error| error.to_string())?;
    let prepared = (path, to_c(args)?, to_c(env)?);
    // SAFETY: takes integers only. Everything but the standard streams is closed by the exec.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    super::birth::complete();
    // Last: the filter may refuse everything but what executes the command.
    seccomp::raise().map_err(|error| format!("capabilities: {error}"))?;
    match confined {
        Some((kept, profile)) => seccomp::confine(kept, profile, no_new_privs).map_err(|error| error.to_string())?,
        None => seccomp::keep(super::caps::mask(&own)).map_err(|error| format!("capabilities: {error}"))?,
    }
    Ok(prepared)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_working_directory_outside_of_the_root_is_refused() {
        if !Uid::effective().is_root() {
            eprintln!("SKIPPED: chroot needs root");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let path = root.path().to_owned();
        assert_eq!(check_inside(), Ok(()));
        let outside = std::thread::spawn(move || {
            // A root of this thread alone; its working directory stays where it was.
            nix::sched::unshare(CloneFlags::CLONE_FS).unwrap();
            nix::unistd::chroot(&path).unwrap();
            check_inside()
        });
        assert!(outside.join().unwrap().unwrap_err().starts_with("the working directory"));
    }
}
