//! How many pods there should be: the sizes of what controls them.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Informer, Informers, Key};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::adopt::Owned;
use crate::controller::Source;
use crate::meta;

/// Why the size of a set of pods is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unknown {
    #[error("{resource}.{group} does not implement the scale subresource")]
    NoScale { resource: String, group: String },
    #[error("found no controllers for pod {0:?}")]
    NoController(String),
}

/// The kinds that have a size and pods.
pub(super) struct Scales {
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    controllers: Informer<ReplicationController>,
}

impl Scales {
    pub(super) fn new(informers: &Informers) -> Self {
        Self {
            deployments: informers.of(),
            replica_sets: informers.of(),
            stateful_sets: informers.of(),
            controllers: informers.of(),
        }
    }

    /// A size that changes concerns the budgets of its namespace.
    pub(super) fn sources(&self, budgets: &Informer<PodDisruptionBudget>) -> Vec<Source> {
        vec![
            of(&self.deployments, budgets, |one| one.spec.as_ref().and_then(|spec| spec.replicas)),
            of(&self.replica_sets, budgets, |one| one.spec.as_ref().and_then(|spec| spec.replicas)),
            of(&self.stateful_sets, budgets, |one| one.spec.as_ref().and_then(|spec| spec.replicas)),
            of(&self.controllers, budgets, |one| one.spec.as_ref().and_then(|spec| spec.replicas)),
        ]
    }

    /// The sum of the sizes of what controls the pods. Pods that nobody controls count for nothing.
    pub(super) fn of(&self, pods: &[Arc<Pod>]) -> Result<i64, Unknown> {
        let mut sizes = BTreeMap::new();
        for pod in pods {
            let Some(owner) = meta::controller_of(pod.as_ref()) else { continue };
            if !sizes.contains_key(&owner.uid) {
                let (uid, size) = self.size(meta::namespace(pod.as_ref()), owner, meta::name(pod.as_ref()))?;
                sizes.insert(uid, size);
            }
        }
        Ok(sizes.values().sum())
    }

    /// The uid and size of what controls a pod, which for the ReplicaSet of a Deployment is the Deployment.
    fn size(&self, namespace: &str, owner: &OwnerReference, pod: &str) -> Result<(String, i64), Unknown> {
        let missing = || Unknown::NoController(pod.to_owned());
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let count = |replicas: Option<i32>| i64::from(replicas.unwrap_or(1));
        match (group, owner.kind.as_str()) {
            ("apps", "ReplicaSet") => {
                let set = get(&self.replica_sets, namespace, owner).ok_or_else(missing)?;
                match meta::controller_of(set.as_ref()).filter(|owner| owner.kind == "Deployment") {
                    None => Ok((owner.uid.clone(), count(set.spec.as_ref().and_then(|spec| spec.replicas)))),
                    Some(owner) => {
                        let deployment = get(&self.deployments, namespace, owner).ok_or_else(missing)?;
                        Ok((owner.uid.clone(), count(deployment.spec.as_ref().and_then(|spec| spec.replicas))))
                    }
                }
            }
            ("apps", "StatefulSet") => {
                let set = get(&self.stateful_sets, namespace, owner).ok_or_else(missing)?;
                Ok((owner.uid.clone(), count(set.spec.as_ref().and_then(|spec| spec.replicas))))
            }
            ("", "ReplicationController") => {
                let controller = get(&self.controllers, namespace, owner).ok_or_else(missing)?;
                Ok((owner.uid.clone(), count(controller.spec.as_ref().and_then(|spec| spec.replicas))))
            }
            (group, kind) => Err(Unknown::NoScale { resource: format!("{}s", kind.to_lowercase()), group: group.to_owned() }),
        }
    }
}

/// The owner, if it still is the one that is meant.
fn get<K: Owned>(cache: &Informer<K>, namespace: &str, owner: &OwnerReference) -> Option<Arc<K>> {
    cache.get(Some(namespace), &owner.name).filter(|object| meta::uid(object.as_ref()) == owner.uid)
}

fn of<K: Owned>(cache: &Informer<K>, budgets: &Informer<PodDisruptionBudget>, size: fn(&K) -> Option<i32>) -> Source {
    let budgets = budgets.clone();
    Source::mapped(cache, move |change, queue| {
        let (old, new) = (change.old.as_deref().map(size), change.new.as_deref().map(size));
        if old != new {
            for budget in budgets.in_namespace(change.key.ns()) {
                queue.add(Key::of(budget.as_ref()));
            }
        }
    })
}
