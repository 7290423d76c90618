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
