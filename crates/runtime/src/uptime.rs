//! How long the machine is up.

use std::time::Duration;

/// Time since the machine started, that in which it slept included (`CLOCK_BOOTTIME`, clock_gettime(2)). Nobody sets it.
pub fn uptime() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call. Every kernel since 2.6.39 has the clock.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on() {
        let (first, second) = (uptime(), uptime());
        assert!(first > Duration::ZERO && first <= second);
    }
}
