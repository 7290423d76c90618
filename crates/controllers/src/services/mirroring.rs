//! EndpointSlices for Endpoints that users wrote for services without selector.

use std::collections::BTreeMap;

use client::{Informer, Informers, Key};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};

use super::keeper::Keeper;
use super::slices::{Frame, Group, MANAGED_BY, SERVICE_NAME};
use super::targets::Family;
use super::triggers;
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::meta;

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that were used as a lock.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const LIMIT: usize = 1000;

pub(crate) struct Mirroring {
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    keeper: Keeper,
}

impl Mirroring {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { services: informers.of(), endpoints: informers.of(), keeper: Keeper::new(informers, MANAGER) }
    }
}

fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    let skipped = endpoints.metadata.labels.as_ref().is_some_and(|labels| labels.get(SKIP).is_some_and(|value| value == "true"));
    let no_selector = service.spec.as_ref().is_some_and(|spec| spec.selector.is_none());
    !skipped && no_selector && meta::annotation(endpoints, LEADER).is_none() && !meta::ends(endpoints)
}

impl Controller for Mirroring {
    const NAME: &'static str = "endpointslicemirroring";
    const ACCOUNT: &'static str = "endpointslicemirroring-controller";

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&self.endpoints), Source::own(&self.services), self.keeper.source()]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        if !self.keeper.is_current(key) {
            return Ok(Action::UNSEEN);
        }
        let pair = self.endpoints.by_key(key).zip(self.services.by_key(key));
        let mirrored = pair.filter(|(endpoints, service)| is_mirrored(endpoints, service));
        let wanted = mirrored.map(|(endpoints, _)| (frame(&endpoints), groups(&endpoints)));
        self.keeper.keep(cx, key, wanted, None).await?;
        Ok(Action::Done)
    }
}

fn frame(endpoints: &Endpoints) -> Frame {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), meta::name(endpoints).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| key != triggers::ANNOTATION && key != LAST_APPLIED);
    Frame {
        namespace: meta::namespace(endpoints).to_owned(),
        name: meta::name(endpoints).to_owned(),
        labels,
        annotations: Some(annotations),
        owner: meta::controller_ref(endpoints),
        limit: LIMIT,
    }
}

/// A group for each subset and family.
pub(super) fn groups<'a>(endpoints: &Endpoints) -> BTreeMap<&'a str, Vec<Group>> {
    let mut families: BTreeMap<&str, Vec<Group>> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(not_ready) {
            let Some(family) = Family::of(&address.ip) else { continue };
            let groups = families.entry(family.as_str()).or_default();
            match groups.iter_mut().find(|group| group.ports == ports) {
                Some(group) => group.endpoints.push(mirror(address, ready)),
                None => groups.push(Group { ports: ports.clone(), endpoints: vec![mirror(address, ready)] }),
            }
        }
    }
    families
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let ports = subset.ports.iter().flatten();
    let port = |port: &k8s_openapi::api::core::v1::EndpointPort| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    };
    ports.map(port).collect()
}

fn mirror(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
