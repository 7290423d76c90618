//! Which pods belong together: by a service or by the controller that made them.

use std::collections::{BTreeMap, HashMap};

use apimachinery::labels::Selector;
use client::Key;

use crate::pod::PodInfo;

/// Selectors of services and controllers.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    services: HashMap<String, HashMap<String, BTreeMap<String, String>>>,
    owners: HashMap<String, Selector>,
}

impl Groups {
    pub(crate) fn set_service(&mut self, key: &Key, selector: Option<BTreeMap<String, String>>) {
        let services = self.services.entry(key.ns().to_owned()).or_default();
        match selector.filter(|selector| !selector.is_empty()) {
            Some(selector) => services.insert(key.name.clone(), selector),
            None => services.remove(&key.name),
        };
        if services.is_empty() {
            self.services.remove(key.ns());
        }
    }

    pub(crate) fn set_owner(&mut self, uid: &str, selector: Option<Selector>) {
        match selector {
            Some(selector) => self.owners.insert(uid.to_owned(), selector),
            None => self.owners.remove(uid),
        };
    }

    /// What selects the pods that `pod` should spread from. None when it belongs to nothing.
    pub(crate) fn of(&self, pod: &PodInfo) -> Option<Selector> {
        let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
        for selector in self.services.get(pod.namespace()).into_iter().flat_map(HashMap::values) {
            let has = |key: &String| pod.labels().as_ref().and_then(|own| own.get(key));
            if selector.iter().all(|(key, value)| has(key) == Some(value)) {
                labels.extend(selector.iter().map(|(key, value)| (key.as_str(), value.as_str())));
            }
        }
        let owners = pod.object().and_then(|pod| pod.metadata.owner_references.as_deref()).unwrap_or_default();
        let owner = owners.iter().find(|owner| owner.controller == Some(true)).and_then(|owner| self.owners.get(&owner.uid));
        if labels.is_empty() && owner.is_none() {
            return None;
        }
        let by_services = Selector::from_set(labels);
        let mut requirements = by_services.requirements().to_vec();
        requirements.extend(owner.into_iter().flat_map(Selector::requirements).cloned());
        Some(Selector::new(requirements))
    }
}
