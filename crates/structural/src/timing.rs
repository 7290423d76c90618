//! How long rules take, for who measures it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What is told of each part of a schema that has rules.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Its rules were compiled.
    pub compiled: fn(Duration),
    /// They, and those below them, were asked of a value.
    pub evaluated: fn(Duration),
}

static TIMING: OnceLock<Timing> = OnceLock::new();

/// Tells from now on. Who comes first is told, all the time.
pub fn observe(timing: Timing) {
    let _ = TIMING.set(timing);
}

/// Does work, and tells how long it took. Nobody looks at the clock where nobody is told.
pub(crate) fn timed<T>(of: fn(&Timing) -> fn(Duration), work: impl FnOnce() -> T) -> T {
    let Some(tell) = TIMING.get().map(of) else { return work() };
    let started = Instant::now();
    let done = work();
    tell(started.elapsed());
    done
}
