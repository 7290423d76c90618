//! Evictions and who is asked about them.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};

use apimachinery::{GroupResource, Status};
use async_trait::async_trait;
use common::{Directory, cx, open_with};
use registry::{Admission, DeleteOptions, Operation, Patch, Request};
use serde_json::{Value, json};

/// Forbids deletions of pods, and writes down what it is asked.
struct Guard(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Admission for Guard {
    fn name(&self) -> &'static str {
        "Guard"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        request.resource.def.plural == "pods"
    }

    async fn mutate(&self, request: &mut Request<'_>) -> Result<(), Status> {
        self.0.lock().unwrap().push(format!("{:?} {}", request.operation, request.subresource));
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        let forbidden = || Status::forbidden(&GroupResource::new("", "pods"), request.name, "pods are not deleted");
        if request.operation == Operation::Delete { Err(forbidden()) } else { Ok(()) }
    }
}

/// policy/v1, `spec.selector` of a PodDisruptionBudget: "A null selector will match no pods, while an empty ({}) selector will select
/// all pods within the namespace."
#[tokio::test]
async fn budgets_with_and_without_selectors() {
    let directory = Directory::new();
    let registry = open_with(directory.engine().await, Vec::new()).await;
    let pods = registry.resource("", "v1", "pods").unwrap();
    let budgets = registry.resource("policy", "v1", "poddisruptionbudgets").unwrap();
    let check = async |namespace: &str, selector: Value, labels: Value, expected: u16| {
        let mut budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "all", "namespace": namespace}, "spec": {"maxUnavailable": 0}});
        if !selector.is_null() {
            budget["spec"]["selector"] = selector;
        }
        registry.create(&cx(), &budgets, namespace, None, budget).await.unwrap();
        let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1,
            "expectedPods": 1}});
        let status = Patch::Merge(status.to_string().into());
        registry.patch(&cx(), &budgets, "status", namespace, "all", status).await.unwrap();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": namespace, "labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 0}});
        registry.create(&cx(), &pods, namespace, None, pod).await.unwrap();
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}).to_string();
        registry.patch(&cx(), &pods, "status", namespace, "a", Patch::Merge(status.into())).await.unwrap();
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a", "namespace": namespace}});
        let answer = registry.create_sub(&cx(), &pods, "eviction", namespace, "a", eviction).await;
        assert_eq!(answer.map_or_else(|status| status.code, |_| 201), expected, "{namespace}");
    };
    check("empty", json!({}), json!({"app": "web"}), 429).await;
    check("empty-unlabelled", json!({}), json!({}), 429).await;
    check("null", Value::Null, json!({"app": "web"}), 201).await;
    check("other", json!({"matchLabels": {"app": "db"}}), json!({"app": "web"}), 201).await;
}

/// Upstream's eviction deletes by `rest.ValidateAllObjectFunc`: who forbids deletions of pods is not asked about those that a drain
/// evicts, but about the evictions.
#[tokio::test]
async fn who_forbids_deletions_does_not_forbid_evictions() {
    let directory = Directory::new();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let registry = open_with(directory.engine().await, vec![Box::new(Guard(asked.clone()))]).await;
    let pods = registry.resource("", "v1", "pods").unwrap();
    // One that counts for budgets, and one that has ended.
    for (name, phase) in [("a", "Running"), ("b", "Succeeded")] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"},
            "spec": {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 0}});
        registry.create(&cx(), &pods, "ns", None, pod).await.unwrap();
        let status = json!({"status": {"phase": phase}}).to_string();
        registry.patch(&cx(), &pods, "status", "ns", name, Patch::Merge(status.into())).await.unwrap();
        let refused = registry.delete(&cx(), &pods, "ns", name, DeleteOptions::default()).await;
        assert_eq!(refused.map(drop).unwrap_err().code, 403);
        asked.lock().unwrap().clear();
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "ns"}});
        registry.create_sub(&cx(), &pods, "eviction", "ns", name, eviction).await.unwrap();
        assert_eq!(registry.get(&pods, "ns", name, None).await.unwrap_err().code, 404);
        assert_eq!(*asked.lock().unwrap(), ["Create eviction"]);
    }
}
