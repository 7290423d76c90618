//! From services and pods to the addresses behind a service: Endpoints, EndpointSlices, and slices that mirror Endpoints
//! which users wrote.

pub(crate) mod balancer;
pub(crate) mod endpoints;
pub(crate) mod endpointslices;
mod keeper;
pub(crate) mod mirroring;
pub(crate) mod ranges;
mod slices;
mod targets;
#[cfg(test)]
mod tests;
mod topology;
mod triggers;

use std::collections::BTreeMap;

use client::{Informer, Key, LabelSet, Step};
use k8s_openapi::api::core::v1::{Pod, Service};

use crate::controller::Source;
use crate::queue::Queue;
use crate::{meta, pods};

const HEADLESS: &str = "service.kubernetes.io/headless";

fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether the selector takes an object with these labels.
fn picks(selector: &BTreeMap<String, String>, labels: &LabelSet) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Enqueues the services that select a pod, when it changed in a way that shows in endpoints.
fn of_pods(pods: &Informer<Pod>, services: &Informer<Service>) -> Source {
    let services = services.clone();
    Source::stepped(pods, move |step: &Step<Pod>, queue: &Queue| {
        if let (Some(old), Some(new)) = (&step.old, &step.new)
            && let (Some(old), Some(new)) = (old.get(), new.get())
            && !differs(&old, &new)
        {
            return;
        }
        let picks_it = |selector: &_| step.entries().any(|pod| picks(selector, pod.labels()));
        enqueue_selecting(&services, step.key().ns(), picks_it, queue);
    })
}

/// Enqueues the services of a namespace whose selectors pick what they are asked for.
fn enqueue_selecting(
    services: &Informer<Service>,
    namespace: &str,
    picks_it: impl Fn(&BTreeMap<String, String>) -> bool,
    queue: &Queue,
) {
    for service in services.in_namespace(namespace) {
        if selector(&service).is_some_and(&picks_it) {
            queue.add(Key::of(service.as_ref()));
        }
    }
}

fn differs(old: &Pod, new: &Pod) -> bool {
    let shown = |pod: &Pod| {
        let ips = pod.status.as_ref().and_then(|status| status.pod_ips.clone());
        (pod.metadata.uid.clone(), ips, pods::is_ready(pod), pods::is_finished(pod), meta::ends(pod), pods::node(pod).to_owned())
    };
    shown(old) != shown(new) || old.metadata.labels != new.metadata.labels
}

/// The labels of `service`, with the mark of a headless one.
fn labels_of(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}
