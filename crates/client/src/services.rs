//! Services joined with their EndpointSlices, for those who act on both: the service proxy and the cluster DNS.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::changes::Step;
use crate::{Changes, Entry, Informer, Informers, Key};

/// The label by which a slice names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Tells of which services anything changed. Bursts arrive as one set.
pub struct ServiceWatch {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    service_changes: Changes<Service>,
    slice_changes: Changes<EndpointSlice>,
    index: HashMap<Key, BTreeSet<Key>>,
}

impl ServiceWatch {
    /// Subscribes to both kinds; the first change has every service that is there.
    pub fn new(informers: &Informers) -> Self {
        let (services, slices) = (informers.of::<Service>(), informers.of::<EndpointSlice>());
        let (service_changes, slice_changes) = (services.changes(), slices.changes());
        Self { services, slices, service_changes, slice_changes, index: HashMap::new() }
    }

    /// Returns when both kinds are completely known.
    pub async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
    }

    /// The services of which something changed since the last call, at least one. Safe to drop and call again.
    pub async fn changed(&mut self) -> BTreeSet<Key> {
        let mut changed = self.pending();
        while changed.is_empty() {
            tokio::select! {
                step = self.service_changes.next_step() => drop(changed.insert(step.key().clone())),
                step = self.slice_changes.next_step() => self.take_slice(&step, &mut changed),
            }
        }
        changed.extend(self.pending());
        changed
    }

    /// The services of which something changed since the last call, perhaps none. Does not wait.
    pub fn pending(&mut self) -> BTreeSet<Key> {
        let mut changed = BTreeSet::new();
        while let Some(step) = self.service_changes.try_next_step() {
            changed.insert(step.key().clone());
        }
        while let Some(step) = self.slice_changes.try_next_step() {
            self.take_slice(&step, &mut changed);
        }
        changed
    }

    /// A service as it is now, with its slices.
    pub fn get(&self, service: &Key) -> (Option<Arc<Service>>, Vec<Arc<EndpointSlice>>) {
        let slices = self.index.get(service).into_iter().flatten().filter_map(|key| self.slices.by_key(key));
        (self.services.by_key(service), slices.collect())
    }

    /// Whether a service is there, and if so when it was made, as far as it says. Costs less than [`ServiceWatch::get`].
    pub fn created(&self, service: &Key) -> Option<Option<Timestamp>> {
        let object: Created = self.services.read(service)?;
        Some(object.metadata.creation_timestamp.map(|time| time.0))
    }

    fn take_slice(&mut self, step: &Step<EndpointSlice>, changed: &mut BTreeSet<Key>) {
        let key = step.key();
        let service = |slice: &Entry<EndpointSlice>| {
            slice.labels().get(SERVICE_NAME).map(|name| Key { namespace: key.namespace.clone(), name: name.to_owned() })
        };
        if let Some(service) = step.old.as_ref().and_then(service) {
            if let Some(slices) = self.index.get_mut(&service) {
                slices.remove(key);
                if slices.is_empty() {
                    self.index.remove(&service);
                }
            }
            changed.insert(service);
        }
        if let Some(service) = step.new.as_ref().and_then(service) {
            self.index.entry(service.clone()).or_default().insert(key.clone());
            changed.insert(service);
        }
    }
}

/// What is read of a service to put it in its turn.
#[derive(Deserialize)]
struct Created {
    metadata: CreatedAt,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreatedAt {
    creation_timestamp: Option<Time>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fake::Fake;
    use base::tasks::Tasks;
    use serde_json::json;

    fn slice(name: &str, service: &str) -> EndpointSlice {
        let metadata = json!({"namespace": "a", "name": name, "labels": {SERVICE_NAME: service}});
        serde_json::from_value(json!({"metadata": metadata, "addressType": "IPv4", "endpoints": []})).unwrap()
    }

    #[tokio::test]
    async fn a_slice_that_moves_changes_both_services() {
        let fake = Fake::default();
        let (tasks, _failures) = Tasks::root();
        fake.put(&slice("s", "one"));
        let mut watch = ServiceWatch::new(&Informers::new(fake.client(), tasks));
        watch.synced().await;
        assert_eq!(watch.changed().await, BTreeSet::from([Key::namespaced("a", "one")]));
        assert_eq!(watch.get(&Key::namespaced("a", "one")).1.len(), 1);
        fake.put(&slice("s", "two"));
        let both = BTreeSet::from([Key::namespaced("a", "one"), Key::namespaced("a", "two")]);
        assert_eq!(watch.changed().await, both);
        assert_eq!(watch.get(&Key::namespaced("a", "one")).1.len(), 0);
        assert_eq!(watch.get(&Key::namespaced("a", "two")).1.len(), 1);
    }
}
