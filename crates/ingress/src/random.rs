//! Numbers that nobody can foresee easily, for identifiers and chances. Not for secrets.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::rand::{SecureRandom, SystemRandom};

static STATE: LazyLock<AtomicU64> = LazyLock::new(|| {
    let mut seed = [0; 8];
    // Without randomness of the system every start gives the same numbers, which serves as well.
    let _ = SystemRandom::new().fill(&mut seed);
    AtomicU64::new(u64::from_le_bytes(seed))
});

/// The next number.
pub(crate) fn next() -> u64 {
    crate::balance::mix(STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
}
