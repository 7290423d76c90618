//! Endpoints (v1) of services with a selector: what older clients read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::Api;
use client::kube;
use client::kube::api::{DeleteParams, PostParams};
use client::{Informer, Informers, Key};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};

use super::targets;
use super::triggers::{self, Triggers};
use super::{labels_of, of_pods, picks, selector};
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::namespace::tolerate;
use crate::pods;

/// Addresses that one object holds at most.
const LIMIT: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

pub(crate) struct EndpointsOfServices {
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    triggers: Triggers,
}

impl EndpointsOfServices {
    pub(crate) fn new(informers: &Informers) -> Self {
        let triggers = Triggers::default();
        Self { services: informers.of(), pods: informers.of(), endpoints: informers.of(), triggers }
    }
}

impl Controller for EndpointsOfServices {
    const NAME: &'static str = "endpoints";
    const ACCOUNT: &'static str = "endpoint-controller";

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&self.services), of_pods(&self.pods, &self.services), Source::own(&self.endpoints)]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let api: Api<Endpoints> = Api::namespaced(cx.client.clone(), key.ns());
        let there = self.endpoints.by_key(key);
        let Some(service) = self.services.by_key(key) else {
            self.triggers.forget(key);
            // Only what was made for a service goes with it: users may keep Endpoints without one.
            let ours =
                there.is_some_and(|one| one.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(MANAGED_BY)));
            if ours && let Err(error) = api.delete(&key.name, &DeleteParams::default()).await {
                tolerate::<()>(Err(error))?;
            }
            return Ok(Action::Done);
        };
        let Some(selector) = selector(&service) else { return Ok(Action::Done) };
        let pods: Vec<Arc<Pod>> = self.pods.labelled(key.ns(), |labels| picks(selector, labels));
        let mut wanted = wanted(&service, &pods, there.as_deref());
        let trigger = self.triggers.since_last(key, &service, &pods);
        if there.as_deref() == Some(&wanted) {
            return Ok(Action::Done);
        }
        triggers::annotate(&mut wanted.metadata, trigger);
        match there {
            Some(_) => {
                api.replace(&key.name, &PostParams::default(), &wanted).await?;
            }
            None => match api.create(&PostParams::default(), &wanted).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => return Err(kube::Error::Api(status).into()),
                other => tolerate(other)?,
            },
        }
        Ok(Action::Done)
    }
}

fn wanted(service: &Service, pods: &[Arc<Pod>], there: Option<&Endpoints>) -> Endpoints {
    let mut endpoints = there.cloned().unwrap_or_default();
    let mut labels = labels_of(service);
    labels.insert(MANAGED_BY.to_owned(), "endpoint-controller".to_owned());
    endpoints.metadata.name.clone_from(&service.metadata.name);
    endpoints.metadata.namespace.clone_from(&service.metadata.namespace);
    endpoints.metadata.labels = Some(labels);
    let (subsets, truncated) = subsets(service, pods);
    let annotations = endpoints.metadata.annotations.get_or_insert_default();
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    if annotations.is_empty() {
        endpoints.metadata.annotations = None;
    }
    endpoints.subsets = (!subsets.is_empty()).then_some(subsets);
    endpoints
}

/// Orders ports within a subset and tells subsets apart.
type Port = (String, i32, String, Option<String>);

/// The subsets, each with all addresses of the same ports; whether some did not fit.
pub(super) fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.as_ref();
    let publish = spec.and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let family = targets::families(service)[0];
    let mut groups: BTreeMap<BTreeSet<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let mut number = 0;
    let mut candidates: Vec<&Arc<Pod>> = pods.iter().filter(|pod| targets::is_target(pod, publish)).collect();
    // Ready ones first, so that they are what remains of too many.
    candidates.sort_by_key(|pod| !pods::is_ready(pod));
    for pod in candidates {
        let Some(ip) = targets::address(pod, family) else { continue };
        let declared = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let ports: BTreeSet<Port> = declared.iter().filter_map(|port| port_of(pod, port)).collect();
        if ports.is_empty() && !declared.is_empty() {
            continue;
        }
        number += 1;
        if number > LIMIT {
            break;
        }
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: targets::hostname(pod, service),
            node_name: targets::node_name(pod),
            target_ref: Some(targets::reference(pod)),
        };
        let (ready, not_ready) = groups.entry(ports).or_default();
        if publish || pods::is_ready(pod) { ready.push(address) } else { not_ready.push(address) }
    }
    (groups.into_iter().map(|(ports, (ready, not_ready))| subset(ports, ready, not_ready)).collect(), number > LIMIT)
}

fn port_of(pod: &Pod, port: &k8s_openapi::api::core::v1::ServicePort) -> Option<Port> {
    let number = targets::port_number(pod, port)?;
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    Some((port.name.clone().unwrap_or_default(), number, protocol, port.app_protocol.clone()))
}

fn subset(ports: BTreeSet<Port>, mut ready: Vec<EndpointAddress>, mut not_ready: Vec<EndpointAddress>) -> EndpointSubset {
    let by_ip = |a: &EndpointAddress, b: &EndpointAddress| a.ip.cmp(&b.ip);
    ready.sort_by(by_ip);
    not_ready.sort_by(by_ip);
    let ports: Vec<EndpointPort> = ports
        .into_iter()
        .map(|(name, port, protocol, app_protocol)| EndpointPort {
            name: Some(name).filter(|name| !name.is_empty()),
            port,
            protocol: Some(protocol),
            app_protocol,
        })
        .collect();
    EndpointSubset {
        addresses: (!ready.is_empty()).then_some(ready),
        not_ready_addresses: (!not_ready.is_empty()).then_some(not_ready),
        ports: (!ports.is_empty()).then_some(ports),
    }
}
