//! Readiness as a typed, watched value: who waits, waits for the condition itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// The readiness of every component of the process, by name. Cheap to clone.
#[derive(Clone)]
pub struct Readiness(Arc<watch::Sender<BTreeMap<&'static str, Result<(), String>>>>);

/// Says when one component is ready. Not ready until told so.
pub struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }
}

impl Readiness {
    /// Registers a component as not ready, with the reason `starting`.
    pub fn gate(&self, name: &'static str) -> Gate {
        let gate = Gate { name, readiness: self.clone() };
        gate.not_ready("starting");
        gate
    }

    /// Every component, with the reason of each that is not ready.
    pub fn snapshot(&self) -> BTreeMap<&'static str, Result<(), String>> {
        self.0.borrow().clone()
    }

    /// Returns when the named components are all registered and ready.
    pub async fn wait(&self, names: &[&str]) {
        let mut receiver = self.0.subscribe();
        // The sender lives in self: the channel cannot close while we wait.
        let _ = receiver.wait_for(|all| names.iter().all(|name| matches!(all.get(name), Some(Ok(()))))).await;
    }
}

impl Gate {
    /// The component serves.
    pub fn ready(&self) {
        self.set(Ok(()));
    }

    /// The component does not serve, and why.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.set(Err(why.into()));
    }

    fn set(&self, state: Result<(), String>) {
        self.readiness.0.send_if_modified(|all| all.insert(self.name, state.clone()) != Some(state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_all_that_are_named() {
        let readiness = Readiness::default();
        let (a, b) = (readiness.gate("a"), readiness.gate("b"));
        a.ready();
        assert!(readiness.snapshot()["b"].is_err());
        tokio::join!(readiness.wait(&["a", "b"]), async { b.ready() });
        assert!(readiness.snapshot().values().all(Result::is_ok));
    }
}
