//! Fits endpoints into slices with as few writes as possible. Pure, but for [`apply`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::kube;
use client::kube::api::{DeleteParams, PostParams};
use client::{Api, Index, Informer, Key};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::triggers;
use crate::controller::{Cx, Error};
use crate::meta;

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Slices by the service that they are of.
pub(super) fn by_service(slices: &Informer<EndpointSlice>) -> Index<EndpointSlice> {
    slices.index("service", |slice, values| {
        if let Some(service) = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) {
            values.add(Key::namespaced(meta::namespace(slice), service).to_string());
        }
    })
}

/// Endpoints with the same ports.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// What every slice of an owner has.
pub(super) struct Frame {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    /// All annotations that a slice has but for the time of its last change; None where they are nobody's.
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) owner: OwnerReference,
    /// Endpoints that a slice holds at most.
    pub(super) limit: usize,
}

#[derive(Debug, PartialEq)]
pub(super) enum Change {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(Box<EndpointSlice>),
}

impl Frame {
    fn slice(&self, family: &str, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
        EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", self.name)),
                namespace: Some(self.namespace.clone()),
                labels: Some(self.labels.clone()),
                annotations: self.annotations.clone().filter(|annotations| !annotations.is_empty()),
                owner_references: Some(vec![self.owner.clone()]),
                ..ObjectMeta::default()
            },
            address_type: family.to_owned(),
            endpoints: Some(endpoints),
            ports: Some(group.ports.clone()),
        }
    }
}

/// What makes `existing` hold `groups`, given by address type and in their order. A family without endpoints keeps one
/// empty slice, so that readers can tell it from one not yet looked at.
pub(super) fn plan(frame: &Frame, existing: &[Arc<EndpointSlice>], mut groups: BTreeMap<&str, Vec<Group>>) -> Vec<Change> {
    let mut changes = Vec::new();
    for groups in groups.values_mut() {
        if groups.is_empty() {
            groups.push(Group::default());
        }
    }
    let mut left: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    for (family, groups) in &groups {
        for group in groups {
            let fits = |slice: &&Arc<EndpointSlice>| {
                slice.address_type == *family && slice.ports.as_deref().unwrap_or_default() == group.ports.as_slice()
            };
            let (own, rest): (Vec<_>, Vec<_>) = left.into_iter().partition(fits);
            left = rest;
            changes.extend(plan_group(frame, family, group, &own));
        }
    }
    changes.extend(left.into_iter().map(|slice| Change::Delete(Box::new(slice.as_ref().clone()))));
    changes
}

fn identity(endpoint: &Endpoint) -> (Option<&str>, &[String]) {
    (endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()), &endpoint.addresses)
}

fn plan_group(frame: &Frame, family: &str, group: &Group, own: &[&Arc<EndpointSlice>]) -> Vec<Change> {
    let mut wanted: HashMap<_, &Endpoint> = group.endpoints.iter().map(|one| (identity(one), one)).collect();
    // Each slice keeps what it has and is still wanted, as it should look now.
    let mut kept: Vec<Vec<Endpoint>> = own
        .iter()
        .map(|slice| {
            let there = slice.endpoints.iter().flatten();
            there.filter_map(|one| wanted.remove(&identity(one)).cloned()).take(frame.limit).collect()
        })
        .collect();
    // New ones first go where a write is due anyway, then where there is room.
    let mut new: Vec<Endpoint> = group.endpoints.iter().filter(|one| wanted.contains_key(&identity(one))).cloned().collect();
    let is_changed = |index: usize, kept: &[Endpoint]| own[index].endpoints.as_deref().unwrap_or_default() != kept;
    let mut order: Vec<usize> = (0..own.len()).collect();
    order.sort_by_key(|index| !is_changed(*index, &kept[*index]));
    for index in order {
        let room = frame.limit - kept[index].len();
        kept[index].extend(new.drain(..room.min(new.len())));
    }
    let mut changes = Vec::new();
    let mut alive = 0;
    let mut emptied: Vec<&EndpointSlice> = Vec::new();
    for (slice, endpoints) in own.iter().zip(kept) {
        if endpoints.is_empty() {
            emptied.push(slice);
            continue;
        }
        alive += 1;
        changes.extend(update(frame, slice, endpoints));
    }
    while !new.is_empty() {
        let batch: Vec<Endpoint> = new.drain(..frame.limit.min(new.len())).collect();
        alive += 1;
        changes.push(Change::Create(Box::new(frame.slice(family, group, batch))));
    }
    if alive == 0 {
        match emptied.pop() {
            Some(slice) => changes.extend(update(frame, slice, Vec::new())),
            None => changes.push(Change::Create(Box::new(frame.slice(family, group, Vec::new())))),
        }
    }
    changes.extend(emptied.into_iter().map(|slice| Change::Delete(Box::new(slice.clone()))));
    changes
}

fn update(frame: &Frame, slice: &EndpointSlice, endpoints: Vec<Endpoint>) -> Option<Change> {
    let mut next = slice.clone();
    next.metadata.labels = Some(frame.labels.clone());
    if let Some(annotations) = &frame.annotations {
        let time = next.metadata.annotations.take().and_then(|mut there| there.remove_entry(triggers::ANNOTATION));
        let all: BTreeMap<_, _> = annotations.clone().into_iter().chain(time).collect();
        next.metadata.annotations = Some(all).filter(|all| !all.is_empty());
    }
    if next.endpoints.as_deref().unwrap_or_default() != endpoints {
        next.endpoints = Some(endpoints);
    }
    (next != *slice).then(|| Change::Update(Box::new(next)))
}

/// Makes the changes. `created` hears of what is new, `deleted` of what goes.
pub(super) async fn apply(
    cx: &Cx,
    namespace: &str,
    changes: Vec<Change>,
    mut created: impl FnMut(&EndpointSlice),
    mut deleted: impl FnMut(&EndpointSlice),
) -> Result<(), Error> {
    let api: Api<EndpointSlice> = Api::namespaced(cx.client.clone(), namespace);
    for change in changes {
        match change {
            Change::Create(slice) => created(&api.create(&PostParams::default(), &slice).await?),
            Change::Update(slice) => {
                api.replace(meta::name(slice.as_ref()), &PostParams::default(), &slice).await?;
            }
            Change::Delete(slice) => match api.delete(meta::name(slice.as_ref()), &DeleteParams::default()).await {
                Ok(_) => deleted(&slice),
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(error.into()),
            },
        }
    }
    Ok(())
}
