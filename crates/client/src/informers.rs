//! The informers of a process: one per kind and selection, started on first use.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use base::tasks::{OnFailure, Tasks};
use kube::Client;
use parking_lot::Mutex;

use crate::{Informer, Object};

type Started = HashMap<(TypeId, String), Box<dyn Any + Send>>;

/// Shared informers over one client. Cheap to clone.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    tasks: Tasks,
    started: Arc<Mutex<Started>>,
}

impl Informers {
    /// Informers that read with `client` and run under `tasks`.
    pub fn new(client: Client, tasks: Tasks) -> Self {
        Self { client, tasks, started: Arc::default() }
    }

    /// The client that the informers read with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// All objects of a kind, in all namespaces.
    pub fn of<K: Object>(&self) -> Informer<K> {
        self.of_selected("")
    }

    /// The objects that a field selector picks, such as `spec.nodeName=n1`.
    pub fn of_selected<K: Object>(&self, fields: &str) -> Informer<K> {
        let mut started = self.started.lock();
        let key = (TypeId::of::<K>(), fields.to_owned());
        if let Some(informer) = started.get(&key).and_then(|any| any.downcast_ref::<Informer<K>>()) {
            return informer.clone();
        }
        let informer = Informer::<K>::default();
        let name = format!("informer of {} {fields}", K::plural(&())).trim_end().to_owned();
        let run = informer.clone().run(self.client.clone(), fields.to_owned());
        self.tasks.spawn_until_cancelled(name, OnFailure::Shutdown, run);
        started.insert(key, Box::new(informer.clone()));
        informer
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::Api;
    use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
    use kube::api::{DeleteParams, PostParams};
    use serde_json::{Value, json};

    use super::*;
    use crate::Key;
    use crate::events::{Recorder, Type};
    use crate::fake::Fake;

    fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    #[tokio::test]
    async fn follows_objects_from_list_to_deletion() {
        let fake = Fake::default();
        let (tasks, _failures) = Tasks::root();
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u1", "controller": true}]);
        fake.put::<ConfigMap>(&object(json!({"metadata": {"namespace": "a", "name": "x", "ownerReferences": owner}})));
        let informers = Informers::new(fake.client(), tasks.clone());
        let informer = informers.of::<ConfigMap>();
        informer.synced().await;
        assert_eq!(informer.owned_by("u1").len(), 1);
        let mut changes = informer.changes();
        assert!(changes.next().await.new.is_some());

        let api: Api<ConfigMap> = Api::namespaced(fake.client(), "a");
        api.create(&PostParams::default(), &object(json!({"metadata": {"name": "y"}, "data": {"k": "v"}}))).await.unwrap();
        let change = changes.next().await;
        assert_eq!((change.key, change.old.is_none()), (Key::namespaced("a", "y"), true));
        assert_eq!(informer.in_namespace("a").len(), 2);
        assert!(informer.get(Some("a"), "y").is_some());
        api.delete("x", &DeleteParams::default()).await.unwrap();
        let change = changes.next().await;
        assert!(change.new.is_none() && change.old.is_some());
        assert_eq!((informer.len(), informer.owned_by("u1").len()), (1, 0));
        assert!(tasks.drain(std::time::Duration::from_secs(60)).await);
    }

    #[tokio::test]
    async fn a_field_selector_lets_objects_come_and_go() {
        let fake = Fake::default();
        let (tasks, _failures) = Tasks::root();
        let informer = Informers::new(fake.client(), tasks).of_selected::<Pod>("spec.nodeName=n1");
        let mut changes = informer.changes();
        for node in ["", "n2", "n1"] {
            let name = format!("p{node}");
            fake.put::<Pod>(&object(
                json!({"metadata": {"namespace": "a", "name": name}, "spec": {"nodeName": node, "containers": []}}),
            ));
        }
        assert_eq!(changes.next().await.key.name, "pn1");
        assert!(changes.try_next().is_none());
    }

    #[tokio::test]
    async fn repeated_events_raise_the_count() {
        let fake = Fake::default();
        let (tasks, _failures) = Tasks::root();
        let recorder = Recorder::new(fake.client(), "tester", "", &tasks);
        let pod: Pod = object(json!({"metadata": {"namespace": "a", "name": "p", "uid": "u"}}));
        for _ in 0..3 {
            recorder.about(&pod, Type::Warning, "Failed", "it failed");
        }
        fake.until::<Event>(|events| events.len() == 1 && events[0].count == Some(3)).await;
    }
}
