//! How many pods there should be: the sizes of what controls them.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::kube;
use client::{Client, Informer, Informers, Key};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::adopt::Owned;
use crate::controller::Source;
use crate::meta;
use crate::scale::{Resources, ScaleError};

/// Why the size of a set of pods is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unknown {
    #[error("{resource}.{group} does not implement the scale subresource")]
    NoScale { resource: String, group: String },
    #[error("found no controllers for pod {0:?}")]
    NoController(String),
    #[error("{0}")]
    Unreachable(String),
}

/// The kinds that have a size and pods.
pub(super) struct Scales {
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    controllers: Informer<ReplicationController>,
    /// Of other kinds, custom resources too.
    others: Resources,
}

impl Scales {
    pub(super) fn new(informers: &Informers) -> Self {
        Self {
            deployments: informers.of(),
            replica_sets: informers.of(),
            stateful_sets: informers.of(),
            controllers: informers.of(),
            others: Resources::default(),
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
    pub(super) async fn of(&self, client: &Client, pods: &[Arc<Pod>]) -> Result<i64, Unknown> {
        let mut sizes = BTreeMap::new();
        for pod in pods {
            let Some(owner) = meta::controller_of(pod.as_ref()) else { continue };
            if !sizes.contains_key(&owner.uid) {
                let namespace = meta::namespace(pod.as_ref());
                let (uid, size) = match self.size(namespace, owner, meta::name(pod.as_ref()))? {
                    Some(found) => found,
                    None => (owner.uid.clone(), self.of_other(client, namespace, owner, meta::name(pod.as_ref())).await?),
                };
                sizes.insert(uid, size);
            }
        }
        Ok(sizes.values().sum())
    }

    /// The size that the scale of any other kind shows.
    async fn of_other(&self, client: &Client, namespace: &str, owner: &OwnerReference, pod: &str) -> Result<i64, Unknown> {
        let target = CrossVersionObjectReference {
            api_version: Some(owner.api_version.clone()),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
        };
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
        let no_scale = |resource: String| Unknown::NoScale { resource, group: group.clone() };
        let resource = match self.others.resource(client, &target).await {
            Ok(resource) => resource,
            Err(ScaleError::NoKind { .. }) => return Err(no_scale(format!("{}s", owner.kind.to_lowercase()))),
            Err(error) => return Err(Unknown::Unreachable(error.to_string())),
        };
        match self.others.scale(client, namespace, &target).await {
            Ok((_, scale)) if scale.metadata.uid.as_deref() != Some(&owner.uid) => Err(Unknown::NoController(pod.to_owned())),
            Ok((_, scale)) => Ok(i64::from(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0))),
            Err(ScaleError::Api(kube::Error::Api(status))) if status.is_not_found() => Err(no_scale(resource.plural)),
            Err(error) => Err(Unknown::Unreachable(error.to_string())),
        }
    }

    /// The uid and size of what controls a pod, which for the ReplicaSet of a Deployment is the Deployment; none for another kind.
    fn size(&self, namespace: &str, owner: &OwnerReference, pod: &str) -> Result<Option<(String, i64)>, Unknown> {
        let missing = || Unknown::NoController(pod.to_owned());
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let count = |replicas: Option<i32>| i64::from(replicas.unwrap_or(1));
        let replicas = match (group, owner.kind.as_str()) {
            ("apps", "ReplicaSet") => {
                let set = get(&self.replica_sets, namespace, owner).ok_or_else(missing)?;
                match meta::controller_of(set.as_ref()).filter(|owner| owner.kind == "Deployment") {
                    None => set.spec.as_ref().and_then(|spec| spec.replicas),
                    Some(owner) => {
                        let deployment = get(&self.deployments, namespace, owner).ok_or_else(missing)?;
                        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
                        return Ok(Some((owner.uid.clone(), count(replicas))));
                    }
                }
            }
            ("apps", "StatefulSet") => {
                let set = get(&self.stateful_sets, namespace, owner).ok_or_else(missing)?;
                set.spec.as_ref().and_then(|spec| spec.replicas)
            }
            ("", "ReplicationController") => {
                let controller = get(&self.controllers, namespace, owner).ok_or_else(missing)?;
                controller.spec.as_ref().and_then(|spec| spec.replicas)
            }
            _ => return Ok(None),
        };
        Ok(Some((owner.uid.clone(), count(replicas))))
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
