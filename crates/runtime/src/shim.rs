//! The shim: one small process per pod that holds its namespaces, its containers' streams and their exit codes, and
//! outlives the server.
//!
//! `knarr shim DIR` is started by the engine with DIR (absolute) holding `shim.json`. It says `ok` or an error on its
//! standard output, then detaches from it and serves `DIR/shim.sock`. It has one thread and needs no memory to speak of.

pub(crate) mod client;
mod conn;
mod lifecycle;
mod log;
mod namespaces;
pub(crate) mod protocol;
mod server;
pub(crate) mod task;

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use self::protocol::{ShimConfig, ShimState};
use self::server::Server;

/// Runs the shim of the sandbox directory `dir`; gives its exit code.
pub(crate) fn main(dir: &Path) -> i32 {
    base::budgets::oom::yield_to_parent();
    let (mut server, _alive) = match prepare(dir) {
        Ok(prepared) => prepared,
        Err(error) => {
            let _ = writeln!(io::stdout(), "error {error}");
            return 1;
        }
    };
    // An engine that is gone will not know of this pod.
    if writeln!(io::stdout(), "ok").and_then(|()| io::stdout().flush()).is_err() {
        return 1;
    }
    if let Err(error) = detach() {
        eprintln!("shim: {error}");
    }
    let result = server.run();
    let _ = fs::remove_file("shim.sock");
    if let Err(error) = &result {
        eprintln!("shim: {error}");
    }
    i32::from(result.is_err())
}

fn prepare(dir: &Path) -> io::Result<(Server, Vec<OwnedFd>)> {
    std::env::set_current_dir(dir)?;
    let config: ShimConfig = serde_json::from_slice(&fs::read("shim.json")?)?;
    // Failing means being a session leader already.
    let _ = nix::unistd::setsid();
    // SAFETY: these calls take integers, a string that ends with NUL and a handler that does nothing.
    unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_NAME, c"knarr-shim".as_ptr(), 0, 0, 0);
        // Handled by doing nothing rather than ignored: what is ignored stays so in the containers.
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
            libc::signal(signal, nothing as *const () as libc::sighandler_t);
        }
    }
    let holder = config.users.map(|users| namespaces::holder(&config, users)).transpose()?;
    if holder.is_none() {
        namespaces::enter(&config)?;
    }
    let pid_of = |process: &Option<(u32, OwnedFd)>| process.as_ref().map(|(pid, _)| *pid);
    let pod_init = if config.new_pid { Some(namespaces::pod_init(pid_of(&holder))?) } else { None };
    let state = ShimState { pid: std::process::id(), holder: pid_of(&holder), pod_init: pid_of(&pod_init) };
    fs::write("shim-state.json", serde_json::to_vec(&state)?)?;

    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let _ = fs::remove_file("shim.sock");
    // Relative: socket addresses are short.
    let listener = UnixListener::bind("shim.sock")?;
    fs::set_permissions("shim.sock", std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let alive = holder.into_iter().chain(pod_init).map(|(_, alive)| alive).collect();
    Ok((Server::new(config, dir.to_owned(), listener, signals), alive))
}

extern "C" fn nothing(_: libc::c_int) {}

/// Lets go of the standard streams of the engine.
fn detach() -> io::Result<()> {
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2(null.as_raw_fd(), 0)?;
    nix::unistd::dup2(null.as_raw_fd(), 1)?;
    Ok(())
}
