//! Bindings that wait for their claims. Each hears of its own claims only: of many that wait for provisioners nobody looks at all of them when one claim
//! changes.

use std::collections::HashMap;
use std::sync::Arc;

use client::{Informer, Key};
use k8s_openapi::api::core::v1::PersistentVolume;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Who waits for which claim. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting(Arc<Mutex<HashMap<Key, Vec<Arc<Notify>>>>>);

/// Claims, and who waits for changes of them.
#[derive(Clone)]
pub(crate) struct Cache<K> {
    pub(crate) claims: Informer<K>,
    pub(crate) waiting: Waiting,
}

/// Somebody who waits for claims, until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiter {
    all: Waiting,
    claims: Vec<Key>,
    told: Arc<Notify>,
}

impl Waiting {
    /// Waits for changes of claims, from now on.
    pub(crate) fn wait(&self, claims: Vec<Key>) -> Waiter {
        let told = Arc::new(Notify::new());
        let mut all = self.0.lock();
        for claim in &claims {
            all.entry(claim.clone()).or_default().push(told.clone());
        }
        drop(all);
        Waiter { all: self.clone(), claims, told }
    }

    /// A claim is another one, and the cache shows it.
    pub(crate) fn changed(&self, claim: &Key) {
        self.0.lock().get(claim).into_iter().flatten().for_each(|told| told.notify_one());
    }

    /// The same of the volume of a claim.
    pub(crate) fn volume_changed(&self, volume: &PersistentVolume) {
        let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        if let Some((namespace, name)) = claim.and_then(|claim| claim.namespace.as_ref().zip(claim.name.as_ref())) {
            self.changed(&Key::namespaced(namespace, name));
        }
    }
}

impl Waiter {
    /// Returns when a claim has changed since it was told last.
    pub(crate) async fn changed(&self) {
        self.told.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        for claim in &self.claims {
            let Some(waiters) = all.get_mut(claim) else { continue };
            waiters.retain(|told| !Arc::ptr_eq(told, &self.told));
            if waiters.is_empty() {
                all.remove(claim);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn each_hears_of_its_own_claims() {
        let waiting = Waiting::default();
        let key = |name: &str| Key::namespaced("a", name);
        let (one, other) = (waiting.wait(vec![key("x"), key("y")]), waiting.wait(vec![key("y")]));
        let hears = |waiter: &Waiter| waiter.changed().now_or_never().is_some();
        let check = |claim: &str, expected: [bool; 2]| {
            waiting.changed(&key(claim));
            assert_eq!([hears(&one), hears(&other)], expected, "{claim}");
            assert_eq!([hears(&one), hears(&other)], [false; 2]);
        };
        check("x", [true, false]);
        check("y", [true, true]);
        check("z", [false, false]);
        let of_claim = |reference: Value| {
            let volume = json!({"metadata": {"name": "v"}, "spec": {"claimRef": reference}});
            waiting.volume_changed(&serde_json::from_value(volume).unwrap());
            [hears(&one), hears(&other)]
        };
        assert_eq!(of_claim(json!({"namespace": "a", "name": "x"})), [true, false]);
        assert_eq!(of_claim(json!({"namespace": "b", "name": "x"})), [false, false]);
        assert_eq!(of_claim(Value::Null), [false, false]);
        drop(one);
        drop(other);
        assert!(waiting.0.lock().is_empty());
    }
}
