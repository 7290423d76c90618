//! The machine that a simulated process sees: its clocks, its randomness, and what waiting is.
//!
//! Three functions of the C library are defined here, and the linker takes them before the library's own. On a thread that simulates,
//! the clocks show simulated time, random bytes follow from the seed (those of hash maps, uids and tokio's choices among them), and
//! waiting for events of the kernel is a step of the clocks to the next timer. On every other thread they are system calls, as ever.
//! So the product has no seam for the simulator: what it asks for the time and for randomness is what it always asks.
//!
//! Time stands still while code runs, and passes only when nothing is left to do.

#![allow(unsafe_code, reason = "functions of the C library are stood in for")]

use std::cell::Cell;

use libc::{c_int, c_long, c_uint, c_void, epoll_event, size_t, ssize_t, timespec};

/// Wakes without any passing of time after which tasks are believed to wake each other for ever.
const LIVELOCK: u32 = 2_000_000;
/// Where the simulated time of day begins: 2026-03-01T00:00:00Z, in seconds.
const DAY_ONE: u64 = 1_772_323_200;
const NANOS: u64 = 1_000_000_000;

thread_local! {
    static SIMULATES: Cell<bool> = const { Cell::new(false) };
    /// Nanoseconds since the start.
    static NOW: Cell<u64> = const { Cell::new(0) };
    /// What the time of day is ahead of [`NOW`] by, in seconds.
    static AHEAD: Cell<i64> = const { Cell::new(0) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
    static IDLE: Cell<u32> = const { Cell::new(0) };
}

/// Makes this thread one that simulates, with randomness that follows from `seed`.
pub(crate) fn simulate(seed: u64) {
    SIMULATES.set(true);
    NOW.set(0);
    AHEAD.set(0);
    RANDOM.set(seed ^ 0x6b6e_6172_7221_7369);
    IDLE.set(0);
}

/// Simulated milliseconds since the start.
pub(crate) fn millis() -> u64 {
    NOW.get() / 1_000_000
}

/// Sets the time of day so many seconds forward, or back.
pub(crate) fn jump(seconds: i64) {
    AHEAD.set(AHEAD.get() + seconds);
}

/// The generator splitmix64.
pub(crate) fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The C library's function of that name.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut timespec) -> c_int {
    if !SIMULATES.get() {
        // SAFETY: the caller's arguments, passed on.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, c_long::from(clock), time) } as c_int;
    }
    let of_day = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE);
    let now = NOW.get();
    let seconds = now / NANOS + if of_day { DAY_ONE.saturating_add_signed(AHEAD.get()) } else { 1000 };
    // SAFETY: the caller says that there is room for the time.
    unsafe { time.write(timespec { tv_sec: seconds as i64, tv_nsec: (now % NANOS) as i64 }) };
    0
}

/// The C library's function of that name.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(buffer: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    if !SIMULATES.get() {
        // SAFETY: the caller's arguments, passed on.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) } as ssize_t;
    }
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller says that so many bytes may be written.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    let mut state = RANDOM.get();
    for part in bytes.chunks_mut(8) {
        part.copy_from_slice(&mix(&mut state).to_le_bytes()[..part.len()]);
    }
    RANDOM.set(state);
    length as ssize_t
}

/// The C library's function of that name. What a thread that simulates waits for are its own wakes, which are there at once, and timers.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn epoll_wait(epoll: c_int, events: *mut epoll_event, most: c_int, timeout: c_int) -> c_int {
    // SAFETY: the caller's arguments, passed on.
    let wait = |timeout: c_int| unsafe { libc::syscall(libc::SYS_epoll_wait, epoll, events, most, timeout) } as c_int;
    if !SIMULATES.get() {
        return wait(timeout);
    }
    let ready = wait(0);
    IDLE.set(IDLE.get() + 1);
    match timeout {
        _ if ready != 0 => {}
        // Nothing is due: somebody else's thread must have been asked for something.
        ..0 => match wait(10_000) {
            0 => stop("everything waits, and no timer runs"),
            ready => return ready,
        },
        0 => {}
        _ => {
            NOW.set(NOW.get() + timeout as u64 * 1_000_000);
            IDLE.set(0);
        }
    }
    if IDLE.get() > LIVELOCK {
        stop("tasks wake each other for ever");
    }
    ready
}

/// Nothing that could be told the error runs any more.
fn stop(why: &str) -> ! {
    eprintln!("simulated process at {} ms: {why}", millis());
    std::process::abort()
}
