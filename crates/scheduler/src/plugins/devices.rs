//! Devices for claims (KEP-4381): those that a pod's claims have must be usable on its node, and for the others there must be some; as for
//! extended resources that device classes stand for where the node has none of its own (KEP-5004).

use std::borrow::Cow;

use crate::cluster::{Cluster, NodeInfo};
use crate::devices::{ClaimsOf, Devices};
use crate::framework::{Event, Filter, Plugin, Reason, Verdict};
use crate::pod::PodInfo;
use crate::volumes::Place;

pub(super) struct DynamicResources;

/// Its name.
pub(crate) const NAME: &str = "DynamicResources";

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn refuse(&self, pod: &PodInfo, cluster: &Cluster) -> Option<Reason> {
        let refusal = cluster.devices.concern(pod).then(|| cluster.devices.claims_of(pod).err()).flatten()?;
        Some(Cow::Owned(refusal.to_string()))
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster) -> Option<Box<dyn Filter + 'a>> {
        if !cluster.devices.concern(pod) {
            return None;
        }
        // What is refused everywhere has been refused already.
        let claims = cluster.devices.claims_of(pod).unwrap_or_default();
        Some(Box::new(Available { pod, devices: &cluster.devices, claims }))
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::Node | Event::Device | Event::DeviceClass)
    }
}

struct Available<'a> {
    pod: &'a PodInfo,
    devices: &'a Devices,
    claims: ClaimsOf,
}

impl Filter for Available<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Verdict {
        let place = Place { name: &node.name, labels: &node.labels };
        match self.devices.reservations(self.pod, &self.claims, place, &node.allocatable) {
            Ok(_) => Verdict::Fits,
            Err(reason) => {
                reasons.push(Cow::Owned(reason));
                Verdict::Unfit
            }
        }
    }
}
