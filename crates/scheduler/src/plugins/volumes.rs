//! Volumes behind claims: those that a pod's claims have must be usable on its node, and for the others there must be some.

use std::borrow::Cow;

use pods::slices::Place;

use crate::attempt::Attempt;
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{Event, Filter, Plugin, Reason, Verdict};
use crate::pod::PodInfo;
use crate::volumes::{ClaimsOf, Volumes};

pub(super) struct VolumeBinding;

/// Its name.
pub(crate) const NAME: &str = "VolumeBinding";

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        NAME
    }

    fn refuse(&self, pod: &PodInfo, cluster: &Cluster, attempt: &Attempt) -> Option<Reason> {
        if pod.claims.is_empty() {
            return None;
        }
        attempt.volumes(pod, &cluster.volumes).err().map(|refusal| Cow::Owned(refusal.to_string()))
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster, attempt: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        if pod.claims.is_empty() {
            return None;
        }
        // What is refused everywhere has been refused already.
        let claims = attempt.volumes(pod, &cluster.volumes).ok()?;
        Some(Box::new(Usable { volumes: &cluster.volumes, claims }))
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::Node | Event::Volume)
    }
}

struct Usable<'a> {
    volumes: &'a Volumes,
    claims: &'a ClaimsOf,
}

impl Filter for Usable<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Verdict {
        match self.volumes.steps(self.claims, Place { name: &node.name, labels: &node.labels }) {
            Ok(_) => Verdict::Fits,
            Err(reason) => {
                reasons.push(Cow::Borrowed(reason));
                Verdict::Unfit
            }
        }
    }
}

pub(super) struct VolumeRestrictions;

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster, _: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        let claims = cluster.volumes.for_one_pod(pod);
        if claims.is_empty() {
            return None;
        }
        let used = cluster.nodes().filter(|node| uses(node, pod, &claims)).map(|node| node.name.as_str()).collect();
        Some(Box::new(OnePod { pod, claims, used }))
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::Node | Event::PodRemoved | Event::Volume)
    }
}

/// Whether a pod on the node has one of the claims, which are in the namespace of `pod`.
fn uses(node: &NodeInfo, pod: &PodInfo, claims: &[&str]) -> bool {
    let has = |other: &PodInfo| other.claims.iter().any(|claim| claims.contains(&claim.name.as_str()));
    node.pods.iter().any(|other| other.namespace() == pod.namespace() && other.uid() != pod.uid() && has(other))
}

/// Claims that are for one pod at a time (ReadWriteOncePod).
struct OnePod<'a> {
    pod: &'a PodInfo,
    claims: Vec<&'a str>,
    /// The nodes with pods that have one of them.
    used: Vec<&'a str>,
}

impl Filter for OnePod<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Verdict {
        let here = uses(node, self.pod, &self.claims);
        if !here && self.used.iter().all(|name| *name == node.name) {
            return Verdict::Fits;
        }
        let text = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
        reasons.push(Cow::Borrowed(text));
        if here { Verdict::Occupied } else { Verdict::Unfit }
    }
}
