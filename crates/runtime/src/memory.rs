//! Memory of the program itself.

mod allocator;

use std::cell::Cell;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

pub use allocator::Allocator;

/// Lets go of the pages of this program's code. Those that run on come back at once, from the kernel's cache and without the disk;
/// those that only the start needed do not. Half of what an idle server holds is code.
pub fn release_code() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, end) in maps.lines().filter_map(|line| code_of(line, release_code as *const () as usize)) {
        // SAFETY: the pages are a private mapping of a file that is never written to, as its permissions say: what is dropped is read
        // from the file again when it is touched.
        let result = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        if result != 0 {
            tracing::debug!(error = %std::io::Error::last_os_error(), "the kernel keeps the pages of the program");
        }
    }
}

/// How often memory was to be given back.
static ASKED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// How often this thread has done so.
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// Gives memory that is free back to the system. The allocator does so by itself a second after it came free, but only when somebody
/// allocates again: after a load an idle server would hold what the load took. To give it back at once instead would cost 7 % of the
/// CPU time of writes. Each thread has memory of its own and follows when it next calls [`idle`].
pub fn give_back() {
    ASKED.fetch_add(1, Ordering::Relaxed);
    idle();
}

/// To be called by a thread that is about to wait: gives back its free memory, if that was asked for since it did so last.
pub fn idle() {
    let asked = ASKED.load(Ordering::Relaxed);
    if DONE.replace(asked) != asked {
        // SAFETY: it takes no pointer and may be called at any time and on any thread.
        unsafe { libmimalloc_sys::mi_collect(true) };
    }
}

/// The addresses of a line of `/proc/PID/maps` that maps code and has the function at `function` in it: the program's, whatever has
/// become of its file's name since.
fn code_of(line: &str, function: usize) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    (permissions == "r-xp" && (start..end).contains(&function)).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program() {
        let check = |line: &str, expected: Option<(usize, usize)>| assert_eq!(code_of(line, 0xc1_5000), expected, "{line}");
        check("00c15000-032f0000 r-xp 00a14000 fe:00 10010684    /bin/knarr", Some((0xc1_5000, 0x32f_0000)));
        check(
            "00c15000-032f0000 r-xp 00a14000 fe:00 10010684    /opt/my programs/knarr (deleted)",
            Some((0xc1_5000, 0x32f_0000)),
        );
        check("00200000-00c15000 r-xp 00000000 fe:00 10010684    /bin/knarr", None);
        check("00c15000-032f0000 rwxp 00a14000 fe:00 10010684    /bin/knarr", None);
        check("7ff134851000-7ff1348c5000 r-xp 00010000 fe:00 326603    /usr/lib/libm.so.6", None);
        check("7ffd0-7ffd1 r-xp 00000000 00:00 0", None);
        check("garbage r-xp", None);
    }

    #[test]
    fn the_program_runs_on() {
        release_code();
        give_back();
        assert_eq!(code_of("x", 0), None);
    }
}
