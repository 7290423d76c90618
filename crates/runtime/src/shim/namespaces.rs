//! The namespaces that a shim holds for its pod.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pipe2};

use super::protocol::ShimConfig;

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
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::write(&path, value).map_err(|error| context(&format!("sysctl {name}={value}"), error))?;
    }
    Ok(())
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
pub(super) fn pod_init() -> io::Result<(u32, OwnedFd)> {
    let (alive_read, alive_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (pid_read, pid_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // The namespace is for children to come: a child of its own unshares, so that the shim's other children stay outside.
    // SAFETY: this process has one thread.
    let middle = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop((pid_read, alive_write));
            let code = i32::from(middle(alive_read, pid_write).is_err());
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

fn middle(alive: OwnedFd, pid_out: OwnedFd) -> io::Result<()> {
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
            let _ = fs::File::from(alive).read(&mut [0]);
            // SAFETY: ends the pod's init.
            unsafe { libc::_exit(0) }
        }
    }
}
