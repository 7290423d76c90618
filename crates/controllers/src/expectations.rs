//! What a controller has done and its caches do not show yet.
//!
//! A controller that counts what it sees must not count before it sees its own writes, or it writes twice.
//! Resource versions compare, so a creation or a change is seen once the cache is past its version, and a deletion once the
//! object is gone or ends.

use std::collections::HashMap;
use std::time::Duration;

use client::{Informer, Key, Object, resource_version};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A write that is not seen by then is not waited for any longer: the cache must have been rebuilt meanwhile.
const TIMEOUT: Duration = Duration::from_secs(300);

struct Pending {
    written: u64,
    deleted: Vec<(Key, String)>,
    since: Instant,
}

/// The unseen writes of a controller, by the key that it wrote them for.
#[derive(Default)]
pub(crate) struct Expectations {
    pending: Mutex<HashMap<Key, Pending>>,
}

impl Expectations {
    /// `object` was created or changed for `key`.
    pub(crate) fn written<K: Object>(&self, key: &Key, object: &K) {
        self.written_at(key, resource_version::of(object));
    }

    /// An object was created or changed for `key` at this version.
    pub(crate) fn written_at(&self, key: &Key, version: u64) {
        self.with(key, |pending| pending.written = pending.written.max(version));
    }

    /// The object `object` with this uid was deleted for `key`.
    pub(crate) fn deleted(&self, key: &Key, object: Key, uid: &str) {
        self.with(key, |pending| pending.deleted.push((object, uid.to_owned())));
    }

    fn with(&self, key: &Key, change: impl FnOnce(&mut Pending)) {
        let mut all = self.pending.lock();
        let fresh = || Pending { written: 0, deleted: Vec::new(), since: Instant::now() };
        let pending = all.entry(key.clone()).or_insert_with(fresh);
        pending.since = Instant::now();
        change(pending);
    }

    /// Whether `cache` shows everything that was done for `key`.
    pub(crate) fn seen<K: Object>(&self, key: &Key, cache: &Informer<K>) -> bool {
        let mut all = self.pending.lock();
        let Some(pending) = all.get_mut(key) else { return true };
        let there =
            |(object, uid): &(Key, String)| cache.entry(object).is_some_and(|found| found.uid() == uid && !found.is_ending());
        pending.deleted.retain(there);
        let seen = pending.deleted.is_empty() && pending.written <= cache.observed();
        if seen || pending.since.elapsed() > TIMEOUT {
            all.remove(key);
            return true;
        }
        false
    }

    /// Forgets `key`, whose object is gone.
    pub(crate) fn forget(&self, key: &Key) {
        self.pending.lock().remove(key);
    }
}
