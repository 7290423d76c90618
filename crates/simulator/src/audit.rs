//! Sees every commit, in order, and holds it against what may never be.

mod availability;
mod owners;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use store::memory::{Disk, Memory};
use store::{Engine, Event, Lane, Revision, Sink};

use crate::machine;
use availability::Availability;
use owners::Owners;

/// Violations that are told of one seed.
const MOST: usize = 20;

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Auditor(Mutex<Audit>);

#[derive(Default)]
struct Audit {
    revision: Revision,
    /// Of the durable lane, by key.
    objects: BTreeMap<String, Value>,
    owners: Owners,
    availability: Availability,
    /// Revisions at which a pod was changed.
    pods: Vec<Revision>,
    violations: Vec<String>,
    /// When something was committed last, in milliseconds.
    active: u64,
    commits: u64,
    /// Keys and what became of them, while they are asked for.
    trace: bool,
}

impl Auditor {
    pub(crate) fn tracing(trace: bool) -> Self {
        Self(Mutex::new(Audit { trace, ..Audit::default() }))
    }

    /// Follows an engine; what its disk has that no sink was told of comes first.
    pub(crate) fn follow(self: &Arc<Self>, engine: &Memory, disk: &Disk) {
        let mut audit = self.0.lock();
        for event in disk.history() {
            audit.take(&event);
        }
        drop(audit);
        // A new server has to settle, too: it begins with no memory of its own.
        self.0.lock().active = machine::millis();
        engine.subscribe(self.clone());
    }

    /// A write was carried out, and its writer has been told that it failed: it may be repeated under another name.
    pub(crate) fn lost(&self) {
        self.0.lock().owners.lost(machine::millis());
    }

    /// A watch of pods has told of a revision; the one before it was `last`.
    pub(crate) fn watched(&self, last: Option<Revision>, revision: Revision) {
        let mut audit = self.0.lock();
        let place = |revision: Revision| audit.pods.binary_search(&revision).ok();
        let follows = match (last.map(place), place(revision)) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(before), Some(now)) => before.is_some_and(|before| before + 1 == now),
        };
        if !follows {
            audit.violated(format!("a watch of pods tells of revision {revision} after {last:?}"));
        }
    }

    /// Something else that may never be.
    pub(crate) fn violated(&self, what: String) {
        self.0.lock().violated(what);
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.0.lock().violations.clone()
    }

    /// When something was committed last, in milliseconds, and how much was committed.
    pub(crate) fn activity(&self) -> (u64, u64) {
        let audit = self.0.lock();
        (audit.active, audit.commits)
    }

    /// The objects of a resource, such as `/registry/apps/deployments/`, by key.
    pub(crate) fn objects(&self, prefix: &str) -> Vec<Value> {
        self.find(prefix, |object| Some(object.clone()))
    }

    /// What `of` finds in the objects of a resource, without copies of these.
    pub(crate) fn find<T>(&self, prefix: &str, of: impl Fn(&Value) -> Option<T>) -> Vec<T> {
        let audit = self.0.lock();
        let from = audit.objects.range(prefix.to_owned()..);
        from.take_while(|(key, _)| key.starts_with(prefix)).filter_map(|(_, object)| of(object)).collect()
    }

    /// All objects with their keys.
    pub(crate) fn all(&self) -> Vec<(String, Value)> {
        self.0.lock().objects.iter().map(|(key, object)| (key.clone(), object.clone())).collect()
    }
}

impl Sink for Auditor {
    fn apply(&self, events: &[Event]) {
        let mut audit = self.0.lock();
        events.iter().filter(|event| event.lane == Lane::Durable).for_each(|event| audit.take(event));
    }
}

impl Audit {
    fn take(&mut self, event: &Event) {
        if event.revision <= self.revision {
            return;
        }
        self.revision = event.revision;
        self.active = machine::millis();
        self.commits += 1;
        let key = String::from_utf8_lossy(&event.key).into_owned();
        let new: Option<Value> = event.value.as_ref().and_then(|value| serde_json::from_slice(value).ok());
        let old = match &new {
            Some(new) => self.objects.insert(key.clone(), new.clone()),
            None => self.objects.remove(&key),
        };
        if self.trace {
            println!("{:>9} {:>6} {}", machine::millis(), event.revision, told(&key, old.as_ref(), new.as_ref()));
        }
        if key.starts_with("/registry/core/pods/") {
            self.pods.push(event.revision);
        }
        let (old, new, now) = (old.as_ref(), new.as_ref(), machine::millis());
        let found = self.owners.changed(&key, old, new, now);
        let less = self.availability.changed(&key, old, new, now);
        found.into_iter().chain(less).for_each(|what| self.violated(what));
    }

    fn violated(&mut self, what: String) {
        if self.violations.len() < MOST {
            self.violations.push(format!("at {} ms, revision {}: {what}", machine::millis(), self.revision));
        }
    }
}

/// One line of what happened to an object.
fn told(key: &str, old: Option<&Value>, new: Option<&Value>) -> String {
    let Some(new) = new else { return format!("- {key}") };
    let manager = new["metadata"]["managedFields"].as_array().into_iter().flatten();
    let by = manager.max_by_key(|entry| entry["time"].as_str().unwrap_or_default().to_owned());
    let by = by.and_then(|entry| entry["manager"].as_str()).unwrap_or_default().to_owned();
    let mut changed = Vec::new();
    if let Some(old) = old {
        differences("", old, new, &mut changed);
    }
    format!("{} {key} by {by} {}", if old.is_some() { '~' } else { '+' }, changed.join(" "))
}

fn differences(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
            for key in keys.filter(|key| *key != "managedFields") {
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differences(&format!("{path}.{key}"), &of(old), &of(new), found);
            }
        }
        _ if old != new => found.push(format!("{path}={new}")),
        _ => {}
    }
}

/// A digest of everything that was committed.
pub(crate) fn digest(history: &[Event]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for event in history {
        (event.revision, &event.key, &event.value).hash(&mut hasher);
    }
    hasher.finish()
}
