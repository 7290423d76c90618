//! The fake's objects, their history and what it announces.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Call;
use super::path::Place;

/// Group, resource, namespace, name.
type Id = (String, String, String, String);

/// One line of a watch.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) kind: &'static str,
    pub(super) group: String,
    pub(super) resource: String,
    pub(super) namespace: String,
    pub(super) old: Option<Value>,
    pub(super) object: Value,
}

pub(super) struct Served {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) kind: String,
    pub(super) namespaced: bool,
}

#[derive(Default)]
struct Tables {
    objects: BTreeMap<Id, Value>,
    history: Vec<Event>,
    served: Vec<Served>,
    /// Group, version and plural of what is served no more.
    withdrawn: Vec<[String; 3]>,
    writes: Vec<Call>,
    uids: u64,
}

pub(super) struct Db {
    tables: Mutex<Tables>,
    version: watch::Sender<u64>,
    /// Requests that were refused because what they are for was withdrawn.
    refused: watch::Sender<usize>,
}

impl Default for Db {
    fn default() -> Self {
        Self { tables: Mutex::default(), version: watch::Sender::new(0), refused: watch::Sender::new(0) }
    }
}

fn id(place: &Place, namespace: &str, name: &str) -> Id {
    (place.group.clone(), place.resource.clone(), namespace.to_owned(), name.to_owned())
}

impl Db {
    /// Revision n is the n-th entry of the history.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(super) fn version(&self) -> u64 {
        *self.version.borrow()
    }

    pub(super) fn note(&self, call: Call) {
        self.tables.lock().writes.push(call);
    }

    pub(super) fn writes(&self) -> Vec<Call> {
        self.tables.lock().writes.clone()
    }

    pub(super) fn serve(&self, group: &str, version: &str, plural: &str, kind: &str, namespaced: bool) {
        let text = str::to_owned;
        let mut tables = self.tables.lock();
        tables.withdrawn.retain(|[g, v, p]| (g.as_str(), v.as_str(), p.as_str()) != (group, version, plural));
        tables.served.push(Served {
            group: text(group),
            version: text(version),
            plural: text(plural),
            kind: text(kind),
            namespaced,
        });
    }

    pub(super) fn withdraw(&self, group: &str, version: &str, plural: &str) {
        let mut tables = self.tables.lock();
        tables.served.retain(|one| (one.group.as_str(), one.version.as_str(), one.plural.as_str()) != (group, version, plural));
        tables.withdrawn.push([group, version, plural].map(str::to_owned));
        drop(tables);
        // Watches end.
        self.version.send_modify(|_| {});
    }

    pub(super) fn is_withdrawn(&self, place: &Place) -> bool {
        let all = &self.tables.lock().withdrawn;
        all.iter().any(|[group, version, plural]| *group == place.group && *version == place.version && *plural == place.resource)
    }

    pub(super) fn refuse(&self) {
        self.refused.send_modify(|count| *count += 1);
    }

    pub(super) fn refused(&self) -> watch::Receiver<usize> {
        self.refused.subscribe()
    }

    pub(super) fn served<T>(&self, each: impl FnMut(&Served) -> Option<T>) -> Vec<T> {
        self.tables.lock().served.iter().filter_map(each).collect()
    }

    pub(super) fn new_uid(&self) -> String {
        let mut tables = self.tables.lock();
        tables.uids += 1;
        format!("00000000-0000-4000-8000-{:012}", tables.uids)
    }

    pub(super) fn get(&self, place: &Place, name: &str) -> Option<Value> {
        let namespace = place.namespace.clone().unwrap_or_default();
        self.tables.lock().objects.get(&id(place, &namespace, name)).cloned()
    }

    /// The objects of a place; of all namespaces when it names none.
    pub(super) fn list(&self, place: &Place) -> Vec<Value> {
        let tables = self.tables.lock();
        let found = tables.objects.iter().filter(|((group, resource, namespace, _), _)| {
            *group == place.group
                && *resource == place.resource
                && place.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
        });
        found.map(|(_, value)| value.clone()).collect()
    }

    /// Stores `object` under a new resource version and tells the watchers.
    pub(super) fn put(&self, place: &Place, mut object: Value) -> Value {
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = Value::from(self.new_uid());
        }
        if object["metadata"]["creationTimestamp"].is_null() {
            object["metadata"]["creationTimestamp"] = Value::from("2026-01-01T00:00:00Z");
        }
        if object["metadata"]["generation"].is_null() && object.get("spec").is_some() {
            object["metadata"]["generation"] = json!(1);
        }
        self.write(place, object, false)
    }

    pub(super) fn remove(&self, place: &Place, object: Value) -> Value {
        self.write(place, object, true)
    }

    fn write(&self, place: &Place, mut object: Value, delete: bool) -> Value {
        let mut tables = self.tables.lock();
        let version = tables.history.len() as u64 + 1;
        object["metadata"]["resourceVersion"] = Value::from(version.to_string());
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let id = id(place, &namespace, &name);
        let old = if delete { tables.objects.remove(&id) } else { tables.objects.insert(id.clone(), object.clone()) };
        let kind = match (delete, &old) {
            (true, _) => "DELETED",
            (false, None) => "ADDED",
            (false, Some(_)) => "MODIFIED",
        };
        tables.history.push(Event { kind, group: id.0, resource: id.1, namespace, old, object: object.clone() });
        drop(tables);
        self.version.send_replace(version);
        object
    }

    /// What happened in `place` after revision `after`, and the revision up to which that is.
    pub(super) fn since(&self, place: &Place, after: u64) -> (Vec<Event>, u64) {
        let tables = self.tables.lock();
        let events = tables.history.iter().skip(usize::try_from(after).unwrap_or(usize::MAX)).filter(|event| {
            event.group == place.group
                && event.resource == place.resource
                && place.namespace.as_ref().is_none_or(|wanted| *wanted == event.namespace)
        });
        (events.cloned().collect(), tables.history.len() as u64)
    }
}
