//! What goes wrong while a container is made or entered: lines in a pipe of the helper, which the processes that it forks have, too.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

/// Marks a report as the failure to execute the command, rather than to set up its surroundings.
pub(super) const START: &str = "START ";
/// Where reports go, also from the container's init, which has another root by then.
static REPORT: AtomicI32 = AtomicI32::new(-1);

/// Reports go to this descriptor from now on; to none when it is negative.
pub(super) fn to(pipe: RawFd) {
    REPORT.store(pipe, Ordering::Relaxed);
}

/// Writes a line.
pub(super) fn report(line: &str) {
    let fd = REPORT.load(Ordering::Relaxed);
    if fd >= 0 {
        let line = format!("{}\n", line.replace('\n', " "));
        // SAFETY: writes a valid buffer to a descriptor that is open while REPORT names it.
        unsafe { libc::write(fd, line.as_ptr().cast(), line.len()) };
    }
}

/// Reports that the command cannot be executed.
pub(super) fn report_start(message: &str) {
    report(&format!("{START}{message}"));
}

/// `PF_FORKNOEXEC` of the kernel: the process was forked and has executed nothing since.
const FORKED_NO_EXEC: u64 = 0x40;

/// Whether a child of this process, which is not waited for yet, has executed no program. Only for who is in the host's namespaces.
pub(super) fn is_unexecuted(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    flags(&stat).is_some_and(|flags| flags & FORKED_NO_EXEC != 0)
}

/// The flags of a process, the ninth field of `/proc/PID/stat` (proc_pid_stat(5)); its name may hold blanks and parentheses.
fn flags(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(6)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn flags_are_found_behind_any_name() {
        assert_eq!(flags("7 (a) b) c) Z 1 7 7 0 -1 4227404 0 0"), Some(4_227_404));
        assert_eq!(flags("7 (sh"), None);
    }

    #[test]
    fn a_process_that_has_executed_a_program_is_told_from_one_that_has_not() {
        // This process is its own example: the test runner executed it.
        assert!(!is_unexecuted(std::process::id() as i32));
        // SAFETY: the child calls nothing but _exit.
        let child = match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Parent { child } => child,
            // SAFETY: ends the child.
            nix::unistd::ForkResult::Child => unsafe { libc::_exit(0) },
        };
        assert!(is_unexecuted(child.as_raw()), "also when it has ended");
        nix::sys::wait::waitpid(child, None).unwrap();
    }
}
