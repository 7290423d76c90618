//! The pods of all hollow nodes: each is looked at when it changes, and what its kubelet would say then is written.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use client::Api;
use client::kube::api::{DeleteParams, Patch, Preconditions};
use client::{Informer, Informers, Key, brief};
use controllers::{Action, Controller, Cx, Error, Source};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::Serialize;

use crate::pod::{self, Place, Step};
use crate::{Fleet, nodes};

/// Where pods have their addresses: the network that carriers share (RFC 6598).
const FIRST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const ADDRESSES: u32 = (1 << 22) - 2;

pub(crate) struct HollowPods {
    fleet: Arc<Fleet>,
    pods: Informer<Pod>,
    /// The next pod's address, from the first one on: behind those that pods have already.
    next: OnceLock<AtomicU32>,
}

impl HollowPods {
    pub(crate) fn new(fleet: Arc<Fleet>, informers: &Informers) -> Self {
        Self { fleet, pods: informers.of(), next: OnceLock::new() }
    }

    fn address(&self, pod: &Pod, number: usize) -> Ipv4Addr {
        if pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)) {
            return nodes::address(number);
        }
        let known = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()?.parse().ok());
        known.unwrap_or_else(|| {
            let next = self.next.get_or_init(|| {
                let known = self.pods.list();
                AtomicU32::new(known.iter().filter_map(|pod| offset(pod)).max().map_or(0, |last| last + 1))
            });
            let next = next.fetch_add(1, Ordering::Relaxed) % ADDRESSES;
            Ipv4Addr::from_bits(FIRST.to_bits() + next)
        })
    }
}

/// How far an address is from the first one; none for one of another network.
fn offset(pod: &Pod) -> Option<u32> {
    let address: Ipv4Addr = pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()?;
    address.to_bits().checked_sub(FIRST.to_bits()).filter(|offset| *offset < ADDRESSES)
}

impl Controller for HollowPods {
    const NAME: &'static str = "hollow-pods";
    const ACCOUNT: &'static str = "";
    const CONCURRENCY: usize = 64;
    const RETRY_MAX: Duration = Duration::from_secs(10);

    fn sources(&self) -> Vec<Source> {
        let fleet = self.fleet.clone();
        vec![Source::mapped(&self.pods, move |change, queue| {
            if change.new.as_deref().is_some_and(|pod| fleet.number(::pods::state::node(pod)).is_some()) {
                queue.add(change.key.clone());
            }
        })]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(pod) = self.pods.by_key(key) else { return Ok(Action::Done) };
        let Some(number) = self.fleet.number(::pods::state::node(&pod)) else { return Ok(Action::Done) };
        let Some(client) = self.fleet.client(number) else { return Ok(Action::Done) };
        let (api, now) = (Api::<Pod>::namespaced(client, key.ns()), cx.clock.now());
        let place = || Place { node: nodes::address(number), pod: self.address(&pod, number) };
        match pod::step(&pod, now) {
            Step::Nothing => {}
            Step::Wait(left) => return Ok(Action::After(left)),
            Step::Run => report(&api, &pod, pod::running(&pod, &place(), now)).await?,
            Step::Finish => report(&api, &pod, pod::over(&pod, &place(), now, 0)).await?,
            Step::Stop => {
                report(&api, &pod, pod::over(&pod, &place(), now, pod::TERMINATED)).await?;
                remove(&api, &pod).await?;
            }
            Step::Remove => remove(&api, &pod).await?,
        }
        Ok(match pod::step(&pod, now) {
            Step::Run => Action::after(pod::lasts(&pod)),
            _ => Action::Done,
        })
    }
}

/// A patch of the status of one pod and no other of its name.
#[derive(Debug, Serialize)]
struct StatusOf<'a> {
    metadata: Uid<'a>,
    status: PodStatus,
}

#[derive(Debug, Serialize)]
struct Uid<'a> {
    uid: Option<&'a str>,
}

async fn report(api: &Api<Pod>, pod: &Pod, status: PodStatus) -> Result<(), Error> {
    let metadata = Uid { uid: pod.metadata.uid.as_deref() };
    let patch = StatusOf { metadata, status };
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    gone_is_fine(brief::patch_status(api, name, &Patch::Strategic(patch)).await)
}

/// Takes the pod out of the API: nothing of it is left here.
async fn remove(api: &Api<Pod>, pod: &Pod) -> Result<(), Error> {
    let uid = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let options = DeleteParams { preconditions: Some(uid), ..DeleteParams::default().grace_period(0) };
    gone_is_fine(api.delete(pod.metadata.name.as_deref().unwrap_or_default(), &options).await)
}

/// A pod that is gone, or has made way for another one of its name, needs nothing any more.
fn gone_is_fine<T>(answer: client::kube::Result<T>) -> Result<(), Error> {
    match answer.map_err(Error::from) {
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
        answer => answer.map(drop),
    }
}
