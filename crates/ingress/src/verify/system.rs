//! The authorities that the machine trusts, which its administrator changes (`update-ca-certificates`) while the server runs.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::RootCertStore;

/// How old what was read may be before it is read again. Nothing tells when the files change: their directory has links into others.
const FRESH: Duration = Duration::from_secs(30);
/// How old it may be before whoever asks waits for that: nobody has asked for a while.
const STALE: Duration = Duration::from_secs(60);

/// The machine's own.
static SYSTEM: LazyLock<Reread<RootCertStore>> = LazyLock::new(|| Reread::new((FRESH, STALE), base::tls::system_roots));

/// Reads them for the first time, which takes some milliseconds.
pub(super) fn prepare() {
    LazyLock::force(&SYSTEM);
}

/// The machine's authorities as they were a minute ago, or later.
pub(super) fn roots() -> Arc<RootCertStore> {
    SYSTEM.get()
}

/// Something that takes a while to be read, and changes. Whoever asks for it often does not wait for that.
struct Reread<T> {
    fresh: Duration,
    stale: Duration,
    read: fn() -> T,
    known: Mutex<Known<T>>,
}

struct Known<T> {
    value: Arc<T>,
    /// When it was read, or somebody began to.
    at: Instant,
}

impl<T: Send + Sync + 'static> Reread<T> {
    fn new((fresh, stale): (Duration, Duration), read: fn() -> T) -> Self {
        Self { fresh, stale, read, known: Mutex::new(Known { value: Arc::new(read()), at: Instant::now() }) }
    }

    /// What is known of it. What is not fresh is read again, for those who ask later.
    fn get(&'static self) -> Arc<T> {
        let mut known = self.known.lock();
        let age = known.at.elapsed();
        if age >= self.stale {
            *known = Known { value: Arc::new((self.read)()), at: Instant::now() };
        } else if age >= self.fresh {
            known.at = Instant::now();
            tokio::task::spawn_blocking(|| {
                let value = Arc::new((self.read)());
                self.known.lock().value = value;
            });
        }
        known.value.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static READS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

    /// Until it is read again, what is known counts: no handshake waits for files where there are many, and none trusts what went long ago.
    #[tokio::test]
    async fn what_is_old_is_read_again() {
        static LASTING: LazyLock<Reread<usize>> = LazyLock::new(|| Reread::new((Duration::MAX, Duration::MAX), || 7));
        static OLD: LazyLock<Reread<usize>> =
            LazyLock::new(|| Reread::new((Duration::ZERO, Duration::MAX), || READS[0].fetch_add(1, Ordering::SeqCst)));
        static STALE: LazyLock<Reread<usize>> =
            LazyLock::new(|| Reread::new((Duration::ZERO, Duration::ZERO), || READS[1].fetch_add(1, Ordering::SeqCst)));
        assert_eq!((*LASTING.get(), *LASTING.get()), (7, 7));
        assert_eq!(*OLD.get(), 0);
        while *OLD.get() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!((*STALE.get(), *STALE.get()), (1, 2));
    }
}
