//! The authorities that the machine trusts, which its administrator changes (`update-ca-certificates`) while the server runs.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::RootCertStore;

/// How old what was read may be before it is read again. Nothing tells when the files change: their directory has links into others.
const FRESH: Duration = Duration::from_secs(30);

/// The machine's own.
static SYSTEM: LazyLock<Reread<RootCertStore>> = LazyLock::new(|| Reread::new(FRESH, base::tls::system_roots));

/// Reads them for the first time, which takes some milliseconds.
pub(super) fn prepare() {
    LazyLock::force(&SYSTEM);
}

/// The machine's authorities as they were half a minute ago, or later.
pub(super) fn roots() -> Arc<RootCertStore> {
    SYSTEM.get()
}

/// Something that takes a while to be read, and changes. Whoever asks for it does not wait for that but the first time.
struct Reread<T> {
    fresh: Duration,
    read: fn() -> T,
    known: Mutex<Known<T>>,
}

struct Known<T> {
    value: Arc<T>,
    at: Instant,
    is_being_read: bool,
}

impl<T: Send + Sync + 'static> Reread<T> {
    fn new(fresh: Duration, read: fn() -> T) -> Self {
        let known = Known { value: Arc::new(read()), at: Instant::now(), is_being_read: false };
        Self { fresh, read, known: Mutex::new(known) }
    }

    /// What is known of it. What is not fresh is read again meanwhile, for those who ask later.
    fn get(&'static self) -> Arc<T> {
        let mut known = self.known.lock();
        if known.at.elapsed() >= self.fresh && !known.is_being_read {
            known.is_being_read = true;
            tokio::task::spawn_blocking(|| {
                let value = Arc::new((self.read)());
                *self.known.lock() = Known { value, at: Instant::now(), is_being_read: false };
            });
        }
        known.value.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static READS: AtomicUsize = AtomicUsize::new(0);

    fn read() -> usize {
        READS.fetch_add(1, Ordering::SeqCst)
    }

    /// Until it is read again, what is known counts: no handshake waits for files.
    #[tokio::test]
    async fn what_is_old_is_read_again() {
        static LASTING: LazyLock<Reread<usize>> = LazyLock::new(|| Reread::new(Duration::MAX, || 7));
        static OLD: LazyLock<Reread<usize>> = LazyLock::new(|| Reread::new(Duration::ZERO, read));
        assert_eq!((*LASTING.get(), *LASTING.get()), (7, 7));
        assert!(!LASTING.known.lock().is_being_read);
        assert_eq!(*OLD.get(), 0);
        while *OLD.get() < 2 {
            tokio::task::yield_now().await;
        }
    }
}
