//! Waiting for what other programs do.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How long anything may take that a test waits for; on a machine that is emulated `KNARR_TEST_PATIENCE` says so many seconds.
pub static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
    let seconds = std::env::var("KNARR_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
});

/// Asks again and again until there is an answer. For states of other programs that announce no change; where an event
/// exists (a watch, `kubectl wait`, end of a process), wait for that instead.
///
/// # Panics
/// When there is no answer within [`PATIENCE`].
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    eventually_or(what, || look().ok_or(String::new()))
}

/// The same, where each look says what is still wanting: what the last one said is in the message.
///
/// # Panics
/// When there is no answer within [`PATIENCE`].
#[allow(clippy::disallowed_methods, reason = "the one place that looks again after a while")]
pub fn eventually_or<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(wanting) => assert!(start.elapsed() < *PATIENCE, "not after {:?}: {what} {wanting}", *PATIENCE),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
