//! Readiness as a typed, watched value: who waits, waits for the condition itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// The readiness of every component of the process, by name. Cheap to clone.
#[derive(Clone)]
pub struct Readiness(Arc<watch::Sender<BTreeMap<&'static str, Result<(), String>>>>);

/// One of several parts of a component, which is ready when all are.
pub struct Part {
    gate: Arc<Gate>,
    name: &'static str,
    left: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Part {
    /// This part is ready.
    pub fn ready(self) {
        let mut left = self.left.lock();
        left.remove(self.name);
        if left.is_empty() {
            self.gate.ready();
        } else {
            self.gate.not_ready(waits_for(&left));
        }
    }
}

fn waits_for(left: &BTreeSet<&'static str>) -> String {
    format!("waiting for {}", left.iter().copied().collect::<Vec<_>>().join(", "))
}

/// Says when one component is ready. Not ready until told so.
pub struct Gate {
    names: Vec<&'static str>,
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
        self.gate_of([name])
    }

    /// The same for a component that is known by several names.
    pub fn gate_of(&self, names: impl IntoIterator<Item = &'static str>) -> Gate {
        let gate = Gate { names: names.into_iter().collect(), readiness: self.clone() };
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
    /// The parts of a component, one for each name. Without any it is ready at once.
    pub fn parts(self, names: impl IntoIterator<Item = &'static str>) -> Vec<Part> {
        let names: Vec<_> = names.into_iter().collect();
        let left: BTreeSet<_> = names.iter().copied().collect();
        if left.is_empty() {
            self.ready();
        } else {
            self.not_ready(waits_for(&left));
        }
        let (gate, left) = (Arc::new(self), Arc::new(Mutex::new(left)));
        names.into_iter().map(|name| Part { gate: gate.clone(), name, left: left.clone() }).collect()
    }

    /// The component serves.
    pub fn ready(&self) {
        self.set(Ok(()));
    }

    /// The component does not serve, and why.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.set(Err(why.into()));
    }

    fn set(&self, state: Result<(), String>) {
        self.readiness.0.send_if_modified(|all| {
            let is_new = self.names.iter().any(|name| all.get(name) != Some(&state));
            all.extend(self.names.iter().map(|name| (*name, state.clone())));
            is_new
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_ready_when_all_its_parts_are() {
        let readiness = Readiness::default();
        let mut parts = readiness.gate("controllers").parts(["b", "a"]);
        let state = || readiness.snapshot().remove("controllers");
        assert_eq!(state(), Some(Err("waiting for a, b".to_owned())));
        parts.remove(0).ready();
        assert_eq!(state(), Some(Err("waiting for a".to_owned())));
        parts.remove(0).ready();
        assert_eq!(state(), Some(Ok(())));
        assert!(readiness.gate("none").parts([]).is_empty());
        assert_eq!(readiness.snapshot()["none"], Ok(()));
        let gate = readiness.gate_of(["one", "two"]);
        assert_eq!(["one", "two"].map(|name| readiness.snapshot()[name].is_ok()), [false, false]);
        gate.ready();
        assert_eq!(["one", "two"].map(|name| readiness.snapshot()[name].is_ok()), [true, true]);
    }

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
