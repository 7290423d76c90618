//! Inputs that nobody would write: examples that are changed at random, for tests of what reads from outside.
//!
//! A test says with [`fuzz`] what its input looks like and what must hold of any. Without further settings it runs for a second, with
//! the same inputs each time; `KNARR_FUZZ_SECONDS` and `KNARR_FUZZ_SEED` make of it a search (`cargo xtask fuzz`). What is found
//! becomes a row of an ordinary test.

mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use mutate::Mutator;

/// Bytes of an input at most.
pub const MAX_INPUT: usize = 64 << 10;
/// How long a test runs that is not told otherwise.
const SECONDS: f64 = 1.0;
/// CPU time of one input at most, without optimisation and on a slow machine: what takes longer grows faster than its input.
const SLOW: Duration = Duration::from_secs(5);

/// Gives `check` the examples as they are, and then changed ones until the time is over. `words` are texts that mean something in such
/// an input, such as a directive or a separator.
///
/// # Panics
/// When `check` does, or takes too long; the input is printed.
pub fn fuzz(examples: &[&[u8]], words: &[&str], check: impl Fn(&[u8])) {
    let end = Instant::now() + Duration::from_secs_f64(setting("KNARR_FUZZ_SECONDS", SECONDS));
    let seed = setting("KNARR_FUZZ_SEED", 1.0) as u64;
    examples.iter().for_each(|example| try_one(example, &check));
    let mut mutator = Mutator::new(seed, examples, words);
    // The first ones are tried on the slowest machine, too.
    for number in 0_u64.. {
        if number >= 64 && Instant::now() >= end {
            break;
        }
        try_one(&mutator.next(), &check);
    }
}

fn setting(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn try_one(input: &[u8], check: &impl Fn(&[u8])) {
    let mut result = Ok(());
    let took = cpu_time(|| result = catch_unwind(AssertUnwindSafe(|| check(input))));
    if result.is_err() || took > SLOW {
        eprintln!("after {took:?}, input: \"{}\"", input.escape_ascii());
    }
    if let Err(panic) = result {
        resume_unwind(panic);
    }
    assert!(took <= SLOW, "{} bytes took {took:?}", input.len());
}

/// CPU time of a piece of work on this thread, in ticks of some milliseconds: others may use the machine, too.
pub fn cpu_time(work: impl FnOnce()) -> Duration {
    let before = cpu();
    work();
    cpu().saturating_sub(before)
}

/// CPU time of this thread.
fn cpu() -> Duration {
    // The first number is nanoseconds on a processor. Where there is no such file, nothing is measured.
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_fault_is_found_and_told() {
        let found = catch_unwind(|| fuzz(&[b"{\"a\": 1}", b"none"], &["b"], |input| assert!(!input.ends_with(b"1}}"))));
        assert!(found.is_err());
    }

    #[test]
    fn examples_come_first_and_inputs_are_bounded() {
        let count = Cell::new(0);
        fuzz(&[b"one", b"two"], &[], |input| {
            assert!(input.len() <= MAX_INPUT && (count.get() > 1 || input == [&b"one"[..], b"two"][count.get()]));
            count.set(count.get() + 1);
        });
        assert!(count.get() > 60);
    }
}
