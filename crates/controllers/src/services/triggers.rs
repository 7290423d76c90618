//! Since when the endpoints of a service are as they are: what the annotation `endpoints.kubernetes.io/last-change-trigger-time`
//! tells those who measure how long a change takes to reach the data plane.

use std::collections::HashMap;
use std::sync::Arc;

use client::Key;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;

use crate::{meta, pods};

pub(super) const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The times that were seen last: by service, of each pod's readiness by name, and of the service itself by "".
#[derive(Default)]
pub(super) struct Triggers(Mutex<HashMap<Key, HashMap<String, Timestamp>>>);

impl Triggers {
    /// The earliest change since the last call; None when nothing that has a time changed.
    pub(super) fn since_last(&self, key: &Key, service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
        let ready = |pod: &Arc<Pod>| Some((meta::name(pod.as_ref()).to_owned(), ready_changed(pod)?));
        let mut now: HashMap<String, Timestamp> = pods.iter().filter_map(ready).collect();
        now.extend(service.metadata.creation_timestamp.as_ref().map(|time| (String::new(), time.0)));
        let mut all = self.0.lock();
        let before = all.get(key);
        let is_later = |(name, time): &(&String, &Timestamp)| {
            before.and_then(|before| before.get(*name)).is_none_or(|before| *time > before)
        };
        let earliest = now.iter().filter(is_later).map(|(_, time)| *time).min();
        all.insert(key.clone(), now);
        earliest
    }

    /// Forgets a service that is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

fn ready_changed(pod: &Pod) -> Option<Timestamp> {
    pods::condition(pod, "Ready")?.last_transition_time.as_ref().map(|time| time.0)
}

/// Puts the annotation on what is about to be written; without a time it goes.
pub(super) fn annotate(meta: &mut ObjectMeta, trigger: Option<Timestamp>) {
    let annotations = meta.annotations.get_or_insert_default();
    match trigger {
        Some(time) => annotations.insert(ANNOTATION.to_owned(), time.to_string()),
        None => annotations.remove(ANNOTATION),
    };
    if annotations.is_empty() {
        meta.annotations = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::object;
    use serde_json::json;

    #[test]
    fn the_earliest_change_since_the_last_look_counts() {
        let (triggers, key) = (Triggers::default(), Key::namespaced("a", "web"));
        let service: Service = object(json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:05Z"}}));
        let check = |pods: &[(&str, u8)], expected: Option<u8>| {
            let at = |second: u8| format!("2026-01-01T00:00:{second:02}Z");
            let pod = |(name, second): &(&str, u8)| {
                let ready = json!([{"type": "Ready", "status": "False", "lastTransitionTime": at(*second)}]);
                Arc::new(object(json!({"metadata": {"name": name}, "status": {"conditions": ready}})))
            };
            let pods: Vec<Arc<Pod>> = pods.iter().map(pod).collect();
            let shown = triggers.since_last(&key, &service, &pods).map(|time| time.to_string());
            assert_eq!(shown, expected.map(at));
        };
        check(&[("p", 9)], Some(5));
        check(&[("p", 9)], None);
        check(&[("p", 20), ("q", 12)], Some(12));
        // A pod that leaves has no time of its own.
        check(&[("p", 20)], None);
    }
}
