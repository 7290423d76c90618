//! How many volumes of a storage driver a node can have (KEP-554): its CSINode object says so.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::attempt::Attempt;
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{Event, Filter, Plugin, Reason, Verdict};
use crate::pod::PodInfo;
use crate::volumes::Volumes;

pub(crate) struct NodeVolumeLimits;

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster, _: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        let wanted = by_driver(served(pod, &cluster.volumes, |_| true));
        (!wanted.is_empty()).then(|| Box::new(Limits { volumes: &cluster.volumes, wanted }) as Box<dyn Filter + 'a>)
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::Node | Event::PodRemoved | Event::Volume)
    }
}

/// Volumes by their drivers.
type Served = BTreeMap<String, BTreeSet<String>>;

fn by_driver(volumes: impl Iterator<Item = (String, String)>) -> Served {
    let mut all = Served::new();
    for (driver, volume) in volumes {
        all.entry(driver).or_default().insert(volume);
    }
    all
}

/// The drivers that count and serve volumes of a pod, with the volumes.
fn served(pod: &PodInfo, volumes: &Volumes, counts: impl Fn(&str) -> bool) -> impl Iterator<Item = (String, String)> {
    pod.claims.iter().filter_map(move |claim| volumes.of_driver(pod.namespace(), &claim.name, &counts))
}

struct Limits<'a> {
    volumes: &'a Volumes,
    wanted: Served,
}

impl Filter for Limits<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Verdict {
        let limits = self.volumes.limits_of(&node.name);
        let counts = |driver: &str| self.wanted.contains_key(driver) && limits.contains_key(driver);
        if !self.wanted.keys().any(|driver| counts(driver)) {
            return Verdict::Fits;
        }
        let of_pods = node.pods.iter().flat_map(|pod| served(pod, self.volumes, counts));
        // A volume takes its place until it is detached, though its pod may be gone.
        let there = by_driver(of_pods.chain(self.volumes.attached_to(&node.name, counts)));
        let exceeds = |(driver, wanted): (&String, &BTreeSet<String>)| {
            let (Some(limit), used) = (limits.get(driver), there.get(driver)) else { return false };
            let has = |volume: &&String| used.is_some_and(|used| used.contains(*volume));
            let new = wanted.iter().filter(|volume| !has(volume)).count();
            new > 0 && used.map_or(0, BTreeSet::len) + new > *limit
        };
        if !self.wanted.iter().any(exceeds) {
            return Verdict::Fits;
        }
        reasons.push(Cow::Borrowed("node(s) exceed max volume count"));
        Verdict::Occupied
    }
}
