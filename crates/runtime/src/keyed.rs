//! One mutex per key, made on demand.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Serialises work by key.
#[derive(Default)]
pub(crate) struct Keyed(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Keyed {
    /// Waits until nobody else holds `key`.
    pub(crate) async fn lock(&self, key: &str) -> OwnedMutexGuard<()> {
        let mutex = {
            let mut map = self.0.lock();
            // Those that nobody holds or waits for are gone with the next caller.
            map.retain(|_, mutex| Arc::strong_count(mutex) > 1);
            map.entry(key.to_owned()).or_default().clone()
        };
        mutex.lock_owned().await
    }
}
