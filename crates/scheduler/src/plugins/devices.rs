//! Devices for claims (KEP-4381): those that a pod's claims have must be usable on its node, and for the others there must be some; as for
//! extended resources that device classes stand for where the node has none of its own (KEP-5004).

use std::borrow::Cow;

use crate::attempt::Attempt;
use crate::cluster::{Cluster, NodeInfo};
use crate::devices::Devices;
use crate::framework::{Event, Filter, Plugin, Reason, Verdict};
use crate::pod::PodInfo;

pub(super) struct DynamicResources;

/// Its name.
pub(crate) const NAME: &str = "DynamicResources";

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn refuse(&self, pod: &PodInfo, cluster: &Cluster, attempt: &Attempt) -> Option<Reason> {
        let devices = &cluster.devices;
        let refusal = devices.concern(pod).then(|| attempt.claims(pod, devices).err()).flatten()?;
        Some(Cow::Owned(refusal.to_string()))
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster, attempt: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        let devices = &cluster.devices;
        devices.concern(pod).then(|| Box::new(Available { pod, devices, attempt }) as Box<dyn Filter>)
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::Node | Event::Device | Event::DeviceClass)
    }
}

struct Available<'a> {
    pod: &'a PodInfo,
    devices: &'a Devices,
    attempt: &'a Attempt,
}

impl Filter for Available<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Verdict {
        let Some(reason) = self.attempt.lacks_devices(self.pod, self.devices, node) else { return Verdict::Fits };
        reasons.push(Cow::Owned(reason));
        Verdict::Unfit
    }
}
