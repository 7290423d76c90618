//! Devices for claims (KEP-4381): those that a pod's claims have must be usable on its node, and for the others there must be some.

use std::borrow::Cow;

use crate::cluster::{Cluster, NodeInfo};
use crate::devices::{ClaimsOf, Devices};
use crate::framework::{Event, Filter, Plugin, Reason, Verdict};
use crate::pod::PodInfo;
use crate::volumes::Place;

pub(super) struct DynamicResources;

/// Its name.
pub(crate) const NAME: &str = "DynamicResources";

fn has_claims(pod: &PodInfo) -> bool {
    pod.object().is_some_and(|pod| !pods::claims::entries(pod).is_empty())
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn refuse(&self, pod: &PodInfo, cluster: &Cluster) -> Option<Reason> {
        let refusal = has_claims(pod).then(|| cluster.devices.claims_of(pod).err()).flatten()?;
        Some(Cow::Owned(refusal.to_string()))
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster) -> Option<Box<dyn Filter + 'a>> {
        if !has_claims(pod) {
            return None;
        }
        // What is refused everywhere has been refused already.
        let claims = cluster.devices.claims_of(pod).unwrap_or_default();
        Some(Box::new(Available { devices: &cluster.devices, claims }))
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::Node | Event::Device)
    }
}

struct Available<'a> {
    devices: &'a Devices,
    claims: ClaimsOf,
}

impl Filter for Available<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Verdict {
        match self.devices.reservations(&self.claims, Place { name: &node.name, labels: &node.labels }) {
            Ok(_) => Verdict::Fits,
            Err(reason) => {
                reasons.push(Cow::Owned(reason));
                Verdict::Unfit
            }
        }
    }
}
