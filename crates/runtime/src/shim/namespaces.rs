//! The namespaces that a shim holds for its pod.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Uid, fork, pipe2};
use pods::sysctls::{Namespace, namespace, of_device};

use super::protocol::ShimConfig;
use crate::api::IdRange;
use crate::sysctls;

/// Nobody: the user of the pod's init, as of the pause containers elsewhere.
const NOBODY: u32 = 65535;

/// Enters the new namespaces of the pod and sets them up.
pub(super) fn enter(config: &ShimConfig) -> io::Result<()> {
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWNET, config.new_net);
    flags.set(CloneFlags::CLONE_NEWIPC, config.new_ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, config.new_uts);
    unshare(flags).map_err(|error| context("unshare", error.into()))?;
    if config.new_uts {
        nix::unistd::sethostname(&config.hostname).map_err(|error| context("sethostname", error.into()))?;
    }
    if config.new_net {
        loopback_up().map_err(|error| context("bringing up lo", error))?;
    }
    for (name, value) in &config.sysctls {
        if !is_namespaced(name, config) {
            return Err(io::Error::other(format!("sysctl {name} would change the host, not the pod")));
        }
        // The parameters of devices are set by the engine, once, when it has connected a new pod to the network: here the device is not there yet.
        if !of_device(name) {
            sysctls::set(name, value)?;
        }
    }
    Ok(())
}

/// Whether a sysctl is of a namespace that is the pod's own.
fn is_namespaced(name: &str, config: &ShimConfig) -> bool {
    match namespace(name) {
        Some(Namespace::Net) => config.new_net,
        Some(Namespace::Ipc) => config.new_ipc,
        None => false,
    }
}

fn context(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an all-zero ifreq is valid; name and flags are set below.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is a valid ifreq for SIOCSIFFLAGS and outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the pod's pid namespace. Gives the pid of its init and what keeps that alive: it ends when the descriptor closes.
pub(super) fn pod_init(holder: Option<u32>) -> io::Result<(u32, OwnedFd)> {
    let (alive_read, alive_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (pid_read, pid_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // The namespace is for children to come: a child of its own unshares, so that the shim's other children stay outside.
    // SAFETY: this process has one thread.
    let middle = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop((pid_read, alive_write));
            let code = i32::from(middle(holder, alive_read, pid_write).is_err());
            // SAFETY: ends the child without running the shim's cleanup.
            unsafe { libc::_exit(code) }
        }
    };
    drop(pid_write);
    waitpid(middle, None)?;
    let mut text = String::new();
    fs::File::from(pid_read).read_to_string(&mut text)?;
    let pid = text.parse().map_err(|_| io::Error::other("no pid namespace could be made"))?;
    Ok((pid, alive_write))
}

fn middle(holder: Option<u32>, alive: OwnedFd, pid_out: OwnedFd) -> io::Result<()> {
    if let Some(holder) = holder {
        join_users(holder)?;
    }
    unshare(CloneFlags::CLONE_NEWPID)?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            nix::unistd::write(&pid_out, child.to_string().as_bytes())?;
            Ok(())
        }
        ForkResult::Child => {
            drop(pid_out);
            // Orphans of the pod are reaped by the kernel.
            // SAFETY: SIG_IGN is a valid disposition.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            let _ = nix::unistd::setsid();
            let code = match seclude(&alive, holder.is_some()) {
                Ok(()) => i32::from(fs::File::from(alive).read(&mut [0]).is_err()),
                Err(_) => 1,
            };
            // SAFETY: ends the pod's init.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Closes every descriptor but `kept`, in a process that only waits from now on.
fn close_others(kept: &OwnedFd) {
    let kept = kept.as_raw_fd() as u32;
    // SAFETY: what is closed is used no more; the process ends by `_exit`.
    unsafe {
        libc::syscall(libc::SYS_close_range, 0, kept - 1, 0);
        libc::syscall(libc::SYS_close_range, kept + 1, u32::MAX, 0);
    }
}

/// Makes a user namespace in which `users` are the ids from 0 on, and the pod's other namespaces so that they belong to it. Gives the
/// process that holds them and what keeps that alive: it ends when the descriptor closes.
pub(super) fn holder(config: &ShimConfig, users: IdRange) -> io::Result<(u32, OwnedFd)> {
    let (alive_read, alive_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (told_read, told_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (mapped_read, mapped_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // SAFETY: this process has one thread.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop((told_read, mapped_write, alive_write));
            let told = fs::File::from(told_write);
            let code = i32::from(hold(config, told, fs::File::from(mapped_read), alive_read).is_err());
            // SAFETY: ends the child without running the shim's cleanup.
            unsafe { libc::_exit(code) }
        }
    };
    drop((told_write, mapped_read));
    let mut told = fs::File::from(told_read);
    let mut one = [0];
    told.read_exact(&mut one).map_err(|_| io::Error::other("no user namespace could be made"))?;
    for file in ["uid_map", "gid_map"] {
        let map = format!("0 {} {}\n", users.host, users.size);
        fs::write(format!("/proc/{child}/{file}"), map).map_err(|error| context(file, error))?;
    }
    drop(mapped_write);
    let mut text = String::new();
    told.read_to_string(&mut text)?;
    match text.strip_prefix("ok") {
        Some(_) => Ok((child.as_raw().unsigned_abs(), alive_write)),
        None => Err(io::Error::other(format!("namespaces of the pod's users: {text}"))),
    }
}

/// The holder: tells that it is in its user namespace, waits until that is mapped, and makes the others.
fn hold(config: &ShimConfig, mut told: fs::File, mut mapped: fs::File, alive: OwnedFd) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER)?;
    told.write_all(b".")?;
    mapped.read_to_end(&mut Vec::new())?;
    drop(mapped);
    let made = become_root().and_then(|()| enter(config));
    match made {
        Ok(()) => told.write_all(b"ok")?,
        Err(error) => return told.write_all(error.to_string().as_bytes()),
    }
    drop(told);
    let _ = nix::unistd::setsid();
    close_others(&alive);
    // Its end is the end of the shim.
    fs::File::from(alive).read(&mut [0]).map(drop)
}

/// Root of the user namespace.
fn become_root() -> io::Result<()> {
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(group, group, group)?;
    nix::unistd::setresuid(user, user, user)?;
    stay_open();
    Ok(())
}

/// Lets processes of the pod's user namespace join the namespaces of this one, which has changed its user: the OCI runtime opens them from inside.
fn stay_open() {
    // SAFETY: takes integers only.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
}

/// Enters the user namespace of another process.
fn join_users(holder: u32) -> io::Result<()> {
    let file = fs::File::open(format!("/proc/{holder}/ns/user"))?;
    nix::sched::setns(&file, CloneFlags::CLONE_NEWUSER)?;
    become_root()
}

/// Takes everything from the pod's init that its containers could get through it, by `/proc/1` or as debuggers: the
/// host's files, open descriptors, root's rights.
fn seclude(alive: &OwnedFd, has_users: bool) -> io::Result<()> {
    // Any directory will do, if it can be reached: the shim's own is closed to others.
    let here = if has_users { "/dev".into() } else { std::env::current_dir()? };
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &here, Some("tmpfs"), flags, Some("mode=0555,nr_inodes=2"))?;
    nix::unistd::chdir(&here)?;
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    close_others(alive);
    // SAFETY: takes integers only.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(group, group, group)?;
    nix::unistd::setresuid(user, user, user)?;
    if has_users {
        stay_open();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, new_net: bool, new_ipc: bool, expected: bool) {
        let config = ShimConfig {
            new_net,
            new_ipc,
            new_uts: true,
            users: None,
            new_pid: false,
            hostname: String::new(),
            sysctls: Default::default(),
            cgroup: String::new(),
            oci_root: Default::default(),
            runtime: None,
        };
        assert_eq!(is_namespaced(name, &config), expected, "{name}");
    }

    #[test]
    fn sysctls_of_the_host_are_not_touched() {
        check("net.ipv4.tcp_rmem", true, true, true);
        check("net/ipv4/tcp_rmem", true, true, true);
        check("net.ipv4.tcp_rmem", false, true, false);
        check("kernel.shmmax", true, true, true);
        check("kernel.sem", true, false, false);
        check("fs.mqueue.msg_max", true, true, true);
        check("kernel.core_pattern", true, true, false);
        check("kernel/core_pattern", true, true, false);
        check("net/../kernel/core_pattern", false, true, false);
        check("vm.overcommit_memory", true, true, false);
    }
}
