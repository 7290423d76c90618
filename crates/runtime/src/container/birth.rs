//! What a process that starts in a container inherits: nothing of ours.
//!
//! A new program keeps the signal mask, ignored signals, the file mode mask and the session keyring of the process that becomes
//! it. The shim blocks SIGCHLD, the Rust runtime ignores SIGPIPE, and the server has from its own parent what it has. The
//! helper, from which init, commands, probes and hooks all come, lets go of it in two steps.

use std::io;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

/// The highest signal number of Linux.
const LAST_SIGNAL: libc::c_int = 64;

/// `KEYCTL_JOIN_SESSION_KEYRING` of keyctl(2).
const JOIN_SESSION_KEYRING: libc::c_long = 1;

/// The helper begins: what it has from the shim goes, for itself, for other OCI runtimes and for the container. SIGPIPE stays
/// ignored until the last step, since the helper wants errors.
pub(super) fn begin() {
    // A mask of valid signals can always be set.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    (1..=LAST_SIGNAL).filter(|signal| *signal != libc::SIGPIPE).for_each(default);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // A kernel without keyrings has none to keep.
    let _ = new_keyring();
}

/// The last step before the helper becomes the container's program.
pub(super) fn complete() {
    default(Signal::SIGPIPE as libc::c_int);
}

/// Gives a signal its default disposition. Those of SIGKILL and SIGSTOP cannot be anything else, and the call fails.
fn default(signal: libc::c_int) {
    // The kernel's structure: handler, flags, restorer and mask. The C library's function refuses 32 and 33, its own signals.
    let action = [0_u64; 4];
    // SAFETY: an all-zero action of the kernel's size means SIG_DFL; the old one is not asked for.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &action, std::ptr::null::<u64>(), size_of::<u64>()) };
}

/// Joins a new session keyring: keys of whoever started the server are not for containers.
fn new_keyring() -> io::Result<()> {
    // SAFETY: the operation takes a name, which may be null.
    match unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `KEYCTL_GET_KEYRING_ID` of the session's keyring.
    fn keyring() -> libc::c_long {
        // SAFETY: takes integers only.
        unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) }
    }

    #[test]
    fn the_session_keyring_is_a_new_one() {
        // Credentials are a thread's: this one alone gets the keyring.
        let thread = std::thread::spawn(|| (keyring(), new_keyring().map_err(|error| error.kind()), keyring()));
        let (before, joined, after) = thread.join().unwrap();
        if joined == Err(io::ErrorKind::Unsupported) {
            eprintln!("SKIPPED: this kernel has no keyrings");
            return;
        }
        assert_eq!(joined, Ok(()));
        assert_ne!(before, after);
    }
}
