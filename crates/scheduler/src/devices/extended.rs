//! Extended resources that device classes stand for (KEP-5004): on nodes that have no such resource of their own, a pod gets devices for them
//! by a claim that is made for it. Pure.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerExtendedResourceRequest as Mapping, PodSpec};
use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceClass, DeviceRequest, ExactDeviceRequest, ResourceClaim, ResourceClaimSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use pods::{claims, resources};

use super::search::RESULTS;
use super::wanted::Wanted;
use crate::pod::PodInfo;
use crate::resources::Resources;

/// What the resource of each class begins with, whether the class names another one or not.
const IMPLICIT: &str = "deviceclass.resource.kubernetes.io/";
/// The name of a claim that is not made yet. It is no valid name, so that no claim has it.
const UNMADE: &str = "<extended-resources>";

/// Classes by the extended resources that they stand for.
#[derive(Default)]
pub(crate) struct Classes {
    names: BTreeSet<String>,
    /// The class that was created last is the first; of those of the same second, the first in the alphabet.
    by_resource: HashMap<String, BTreeSet<(Reverse<Timestamp>, String)>>,
}

impl Classes {
    /// A class came, changed or went.
    pub(crate) fn changed(&mut self, old: Option<&DeviceClass>, new: Option<&DeviceClass>) {
        if let Some((name, resource, created)) = old.and_then(parts) {
            self.names.remove(name);
            if let Some(resource) = resource {
                let all = self.by_resource.entry(resource.to_owned()).or_default();
                all.remove(&(created, name.to_owned()));
                if all.is_empty() {
                    self.by_resource.remove(resource);
                }
            }
        }
        if let Some((name, resource, created)) = new.and_then(parts) {
            self.names.insert(name.to_owned());
            if let Some(resource) = resource {
                self.by_resource.entry(resource.to_owned()).or_default().insert((created, name.to_owned()));
            }
        }
    }

    /// The class that stands for a resource.
    pub(crate) fn of(&self, resource: &str) -> Option<&str> {
        match resource.strip_prefix(IMPLICIT) {
            Some(class) => self.names.get(class).map(String::as_str),
            None => self.by_resource.get(resource)?.first().map(|(_, name)| name.as_str()),
        }
    }

    /// The resources that a pod asks for and classes stand for, with their classes.
    pub(crate) fn asked<'a>(&'a self, pod: &'a PodInfo) -> impl Iterator<Item = (&'a str, &'a str)> {
        let others = pod.request.others.iter().filter(|(_, amount)| *amount > 0);
        others.filter_map(|(resource, _)| Some((&**resource, self.of(resource)?)))
    }
}

/// Name, resource and age of a class.
fn parts(class: &DeviceClass) -> Option<(&str, Option<&str>, Reverse<Timestamp>)> {
    let created = class.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0);
    Some((class.metadata.name.as_deref()?, class.spec.extended_resource_name.as_deref(), Reverse(created)))
}

/// Under which a claim that is not made yet is known, by the uid of its pod.
pub(super) fn id(pod: &str) -> String {
    format!("{UNMADE}{pod}")
}

/// What a claim asks for in place of extended resources, and which of its requests each container has.
#[derive(Debug, Default)]
struct Requests {
    requests: Vec<DeviceRequest>,
    mappings: Vec<Mapping>,
}

/// A container by when it runs.
struct Member<'a> {
    container: &'a Container,
    /// It ends before containers begin that come after it.
    ends: bool,
}

/// A request for devices of one resource.
#[derive(Clone)]
struct Ask {
    name: String,
    count: i64,
}

impl Requests {
    fn new<'a>(spec: &PodSpec, asked: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let init = spec.init_containers.iter().flatten().map(|one| Member { container: one, ends: !pods::is_sidecar(one) });
        let apps = spec.containers.iter().map(|one| Member { container: one, ends: false });
        let members: Vec<Member<'_>> = init.chain(apps).collect();
        let mut all = Self::default();
        for (resource, class) in asked {
            all.resource(&members, resource, class);
        }
        all.requests.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Containers that run beside each other have a request each. An init container that ends uses devices of those that come after it; of
    /// what init containers need beyond that, the most is one more request, which they have one after the other.
    fn resource(&mut self, members: &[Member<'_>], resource: &str, class: &str) {
        let asks: Vec<Option<Ask>> =
            members.iter().enumerate().map(|(index, member)| ask(index, member.container, resource)).collect();
        let lasting: Vec<(usize, &Ask)> = asks
            .iter()
            .enumerate()
            .filter_map(|(index, ask)| Some((index, ask.as_ref().filter(|_| !members[index].ends)?)))
            .collect();
        let map = |index: usize, request: &str| Mapping {
            container_name: members[index].container.name.clone(),
            resource_name: resource.to_owned(),
            request_name: request.to_owned(),
        };
        let mut most: Option<Ask> = None;
        let (mut short, mut beyond) = (Vec::new(), Vec::new());
        for (index, ask) in asks.iter().enumerate() {
            let Some(ask) = ask else { continue };
            if !members[index].ends {
                self.mappings.push(map(index, &ask.name));
                self.requests.push(exactly(ask, class));
                continue;
            }
            let mut left = ask.count;
            // A claim has no more devices than that: one with more requests is never allocated.
            let after = lasting.partition_point(|(place, _)| *place < index);
            for (_, later) in lasting[after..].iter().take(RESULTS) {
                if left <= 0 {
                    break;
                }
                short.push(map(index, &later.name));
                left -= later.count;
            }
            if left > 0 {
                beyond.push(short.len());
                short.push(map(index, &ask.name));
                most = most.filter(|most| most.count >= left).or(Some(Ask { name: ask.name.clone(), count: left }));
            }
        }
        if let Some(most) = most {
            beyond.into_iter().for_each(|at| short[at].request_name.clone_from(&most.name));
            self.requests.push(exactly(&most, class));
        }
        self.mappings.append(&mut short);
    }
}

/// What a container asks for of a resource, by the name of its request: the places of the container and of the resource among its requests.
fn ask(index: usize, container: &Container, resource: &str) -> Option<Ask> {
    let requests = resources::requests(container);
    let place = requests.keys().position(|name| *name == resource)?;
    let count = requests.get(resource).map(|amount| amount.as_i64()).filter(|count| *count > 0)?;
    Some(Ask { name: format!("container-{index}-request-{place}"), count })
}

fn exactly(ask: &Ask, class: &str) -> DeviceRequest {
    let exactly = ExactDeviceRequest {
        device_class_name: class.to_owned(),
        allocation_mode: Some("ExactCount".to_owned()),
        count: Some(ask.count),
        ..ExactDeviceRequest::default()
    };
    DeviceRequest { name: ask.name.clone(), exactly: Some(exactly), first_available: None }
}

/// The claim that is made for a pod.
fn claim_of(pod: &PodInfo, requests: Vec<DeviceRequest>) -> ResourceClaim {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    ResourceClaim {
        metadata: ObjectMeta {
            name: Some(UNMADE.to_owned()),
            generate_name: Some(format!("{}-extended-resources-", pod.name())),
            namespace: Some(pod.namespace().to_owned()),
            uid: Some(id(pod.uid())),
            annotations: Some(BTreeMap::from([(claims::EXTENDED.to_owned(), "true".to_owned())])),
            finalizers: Some(vec![claims::FINALIZER.to_owned()]),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: ResourceClaimSpec { devices: Some(DeviceClaim { requests: Some(requests), ..DeviceClaim::default() }) },
        status: None,
    }
}

/// The claim as it is sent to be made.
pub(super) fn fresh(claim: &ResourceClaim) -> ResourceClaim {
    let mut fresh = claim.clone();
    (fresh.metadata.name, fresh.metadata.uid) = (None, None);
    fresh
}

/// A claim in place of some of a pod's extended resources.
pub(super) struct Variant {
    pub(super) wanted: Wanted,
    pub(super) mappings: Vec<Mapping>,
}

/// The extended resources of a pod that classes stand for.
#[derive(Default)]
pub(super) struct Extended {
    /// Each with its class, by name.
    resources: BTreeMap<String, String>,
    /// By the resources that come by it: nodes that lack the same ones have the same.
    variants: RefCell<BTreeMap<Vec<String>, Rc<Variant>>>,
}

impl Extended {
    pub(super) fn new<'a>(asked: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let resources = asked.map(|(resource, class)| (resource.to_owned(), class.to_owned())).collect();
        Self { resources, ..Self::default() }
    }

    /// The claim that the pod needs where `allocatable` is what there is, if any: what the node itself has is counted as ever.
    pub(super) fn on(
        &self,
        pod: &PodInfo,
        allocatable: &Resources,
        class: impl Fn(&str) -> Option<Arc<DeviceClass>>,
    ) -> Result<Option<Rc<Variant>>, String> {
        let lacking = self.resources.iter().filter(|(resource, _)| allocatable.other(resource) == 0);
        let key: Vec<String> = lacking.clone().map(|(resource, _)| resource.clone()).collect();
        let Some(spec) = pod.spec().filter(|_| !key.is_empty()) else { return Ok(None) };
        if let Some(known) = self.variants.borrow().get(&key) {
            return Ok(Some(known.clone()));
        }
        let Requests { requests, mappings } = Requests::new(spec, lacking.map(|(resource, class)| (&**resource, &**class)));
        if requests.is_empty() {
            return Err(format!("cannot fit resource {}: devices are given to containers only", key.join(", ")));
        }
        let wanted = Wanted::new(Arc::new(claim_of(pod, requests)), class).map_err(|error| error.to_string())?;
        let variant = Rc::new(Variant { wanted, mappings });
        self.variants.borrow_mut().insert(key, variant.clone());
        Ok(Some(variant))
    }
}

#[cfg(test)]
mod tests;
