//! Zones and regions of volumes: a volume with labels that name some is used on nodes there. Most volumes say it by their node
//! affinity; older ones, and those that people make by hand, by these labels.

use std::collections::BTreeMap;

use pods::nodes::Labels;

use crate::attempt::Attempt;
use crate::cluster::Cluster;
use crate::framework::{Event, Filter, Plugin, Verdict, filter};
use crate::pod::PodInfo;

const REASON: &str = "node(s) had no available volume zone";
/// Labels of zones and regions, each with the one that nodes may have in its place.
const LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];
/// Between several zones in one value.
const SEPARATOR: &str = "__";

pub(super) struct VolumeZone;

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster, attempt: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        if pod.claims.is_empty() {
            return None;
        }
        // What is refused everywhere VolumeBinding has refused already.
        let claims = attempt.volumes(pod, &cluster.volumes).ok()?;
        let domains: Vec<Domain> = claims.volumes().flat_map(|volume| domains(&volume.metadata.labels)).collect();
        if domains.is_empty() {
            return None;
        }
        filter(REASON, Verdict::Unfit, move |node| is_within(&node.labels, &domains))
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::Node | Event::Volume)
    }
}

/// Where a volume can be used: what values one label of the node may have, or the one in its place.
struct Domain {
    label: &'static str,
    otherwise: &'static str,
    values: Vec<String>,
}

fn domains(labels: &Labels) -> Vec<Domain> {
    let labels = labels.iter();
    let of = |labels: &BTreeMap<String, String>, (label, otherwise): (&'static str, &'static str)| {
        let values: Vec<String> = labels.get(label)?.split(SEPARATOR).map(|value| value.trim().to_owned()).collect();
        // A label that cannot be read says nothing.
        (!values.iter().any(String::is_empty)).then_some(Domain { label, otherwise, values })
    };
    labels.flat_map(|labels| LABELS.into_iter().filter_map(|label| of(labels, label))).collect()
}

/// Whether a node is in all the domains. One without any zone or region is everywhere: so are the nodes of clusters with one zone.
fn is_within(labels: &Labels, domains: &[Domain]) -> bool {
    let Some(labels) = labels.as_ref().filter(|labels| LABELS.iter().any(|(label, _)| labels.contains_key(*label))) else {
        return true;
    };
    let value = |domain: &Domain| labels.get(domain.label).or_else(|| labels.get(domain.otherwise));
    domains.iter().all(|domain| value(domain).is_some_and(|value| domain.values.contains(value)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    /// Kubernetes documentation, "Well-Known Labels": "The scheduler (through the VolumeZonePredicate predicate) also will ensure that
    /// Pods, that claim a given volume, are only placed into the same zone as that volume. Volumes cannot be attached across zones."
    #[test]
    fn volumes_are_used_in_their_zones() {
        let check = |volume: Value, node: Value, expected: bool| {
            let (volume, node): (Labels, Labels) =
                (serde_json::from_value(volume).unwrap(), serde_json::from_value(node).unwrap());
            assert_eq!(is_within(&node, &domains(&volume)), expected, "{volume:?} on {node:?}");
        };
        let (zone, region) = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region");
        let (old_zone, old_region) = ("failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region");
        check(json!({zone: "a"}), json!({zone: "a", region: "r"}), true);
        check(json!({zone: "a"}), json!({zone: "b"}), false);
        check(json!({zone: "a__b"}), json!({zone: "b"}), true);
        check(json!({zone: "a", region: "r"}), json!({zone: "a", region: "s"}), false);
        check(json!({region: "r"}), json!({zone: "a"}), false);
        check(json!({old_zone: "a"}), json!({zone: "a"}), true);
        check(json!({old_region: "r"}), json!({region: "s"}), false);
        check(json!({old_zone: "a"}), json!({old_zone: "a", zone: "b"}), true);
        check(json!({zone: "a"}), json!({old_zone: "a"}), false);
        check(json!({zone: "a"}), json!({"kubernetes.io/hostname": "n"}), true);
        check(json!({zone: "a"}), json!(null), true);
        check(json!({zone: "a__"}), json!({zone: "b"}), true);
        check(json!({}), json!({zone: "b"}), true);
    }
}
