//! Endpoints are given to zones in proportion to the zones' processors, where `service.kubernetes.io/topology-mode: Auto` asks for it
//! (KEP-2433). Pure.
//!
//! Each endpoint is for its own zone first. Then zones that have more than their share give some to those that have less. No zone gets
//! so few that its endpoints would have a fifth more to do than the others; where that cannot be had, there are no hints.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, ForZone};

use super::slices::Group;
use crate::node_lifecycle::is_ready;

const MODE: &str = "service.kubernetes.io/topology-mode";
const OLD_MODE: &str = "service.kubernetes.io/topology-aware-hints";
/// How much more than its share an endpoint may have to do.
const OVERLOAD: f64 = 0.2;
/// Nodes that run no pods of users.
const EXCLUDED: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// Whether the service asks for it. It comes before `spec.trafficDistribution`.
pub(super) fn is_wanted(service: &Service) -> bool {
    let notes = service.metadata.annotations.as_ref();
    let mode = notes.and_then(|notes| notes.get(MODE).or_else(|| notes.get(OLD_MODE)));
    mode.is_some_and(|mode| mode == "Auto" || mode == "auto")
}

/// What of a node has a say: its zone and processors. None of a node that does not count.
pub(super) fn weight(node: &Node) -> Option<(String, i64)> {
    let labels = node.metadata.labels.as_ref();
    let has = |key: &&str| labels.is_some_and(|labels| labels.contains_key(*key));
    if EXCLUDED.iter().any(has) || !is_ready(node) {
        return None;
    }
    let zone = labels.and_then(|labels| labels.get("topology.kubernetes.io/zone")).cloned().unwrap_or_default();
    let cpu = node.status.as_ref().and_then(|status| status.allocatable.as_ref()?.get("cpu"));
    Some((zone, cpu.map_or(0, |cpu| ::pods::resources::parse(cpu).as_milli())))
}

/// The share of each zone in the processors.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shares(BTreeMap<String, f64>);

/// Why there are no hints, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Missing {
    #[error("Insufficient Node information: allocatable CPU or zone not specified on one or more nodes")]
    Nodes,
    #[error("Nodes only ready in one zone")]
    OneZone,
    #[error("Insufficient number of endpoints ({0}), impossible to safely allocate proportionally")]
    Few(usize),
    #[error(
        "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold ({0} endpoints, {1} zones)"
    )]
    Overload(usize, usize),
    #[error("One or more endpoints do not have a zone specified")]
    Endpoint,
}

impl Shares {
    /// Of all nodes.
    pub(super) fn of(nodes: &[Arc<Node>]) -> Result<Self, Missing> {
        let mut zones: BTreeMap<String, i64> = BTreeMap::new();
        for (zone, cpu) in nodes.iter().filter_map(|node| weight(node)) {
            if zone.is_empty() || cpu == 0 {
                return Err(Missing::Nodes);
            }
            *zones.entry(zone).or_default() += cpu;
        }
        let total: i64 = zones.values().sum();
        match zones.len() {
            0 => Err(Missing::Nodes),
            1 => Err(Missing::OneZone),
            _ => Ok(Self(zones.into_iter().map(|(zone, cpu)| (zone, cpu as f64 / total as f64)).collect())),
        }
    }

    /// How many of so many endpoints each zone should have.
    fn desired(&self, endpoints: usize) -> Result<BTreeMap<&str, f64>, Missing> {
        if self.0.len() > endpoints {
            return Err(Missing::Few(endpoints));
        }
        let desired: BTreeMap<&str, f64> = self.0.iter().map(|(zone, share)| (zone.as_str(), share * endpoints as f64)).collect();
        let least: f64 = desired.values().map(|desired| (desired / (1.0 + OVERLOAD)).ceil()).sum();
        if least > endpoints as f64 {
            return Err(Missing::Overload(endpoints, self.0.len()));
        }
        Ok(desired)
    }

    /// Gives the endpoints of one family their hints.
    ///
    /// # Errors
    /// They can have none.
    pub(super) fn give(&self, groups: &mut [Group]) -> Result<(), Missing> {
        let ready = |endpoint: &Endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
        let mut endpoints: Vec<&mut Endpoint> = groups.iter_mut().flat_map(|group| &mut group.endpoints).collect();
        endpoints.retain(|endpoint| ready(endpoint));
        let desired = self.desired(endpoints.len())?;
        let mut zones = Vec::new();
        for endpoint in &endpoints {
            zones.push(endpoint.zone.clone().filter(|zone| !zone.is_empty()).ok_or(Missing::Endpoint)?);
        }
        let mut moves = moves(&desired, &zones);
        for (endpoint, zone) in endpoints.iter_mut().zip(zones) {
            let to = moves.get_mut(&zone).and_then(Vec::pop).unwrap_or(zone);
            endpoint.hints = Some(EndpointHints { for_zones: Some(vec![ForZone { name: to }]), for_nodes: None });
        }
        Ok(())
    }
}

/// To which zones each zone gives endpoints: who has most to give gives to who lacks most, one at a time, while that makes it better.
fn moves(desired: &BTreeMap<&str, f64>, zones: &[String]) -> BTreeMap<String, Vec<String>> {
    let has = |zone: &str| zones.iter().filter(|own| *own == zone).count() as f64;
    let surplus = |(zone, wanted): (&&str, &f64)| ((*zone).to_owned(), has(zone) - wanted);
    let (mut giving, mut receiving): (Vec<_>, Vec<_>) = desired.iter().map(surplus).partition(|(_, surplus)| *surplus > 0.0);
    receiving.iter_mut().for_each(|(_, lacks)| *lacks = -*lacks);
    let mut moves: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let most = |of: &mut Vec<(String, f64)>| of.iter().enumerate().max_by(|a, b| a.1.1.total_cmp(&b.1.1)).map(|(at, _)| at);
    while let (Some(from), Some(to)) = (most(&mut giving), most(&mut receiving)) {
        let (gives, takes) = (giving[from].1, receiving[to].1);
        if (gives < 1.0 && takes < 1.0) || gives < 0.5 || takes < 0.5 {
            break;
        }
        moves.entry(giving[from].0.clone()).or_default().push(receiving[to].0.clone());
        giving[from].1 -= 1.0;
        receiving[to].1 -= 1.0;
    }
    moves
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn node(zone: &str, cpu: &str, more: Value) -> Arc<Node> {
        let mut node = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}},
            "status": {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": "True"}]}});
        node = apimachinery::patch::merge(&node, &more).unwrap();
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn nodes(of: &[(&str, &str)]) -> Vec<Arc<Node>> {
        of.iter().map(|(zone, cpu)| node(zone, cpu, json!({}))).collect()
    }

    /// For which zones the endpoints are that are in these, by zone: zone of the endpoint and zones that it is for.
    #[track_caller]
    fn check(of: &[(&str, &str)], endpoints: &[(&str, usize)], expected: Result<&[(&str, usize)], &str>) {
        let endpoint = |zone: &str| Endpoint { zone: Some(zone.to_owned()), ..Endpoint::default() };
        let all = endpoints.iter().flat_map(|(zone, count)| vec![endpoint(zone); *count]).collect();
        let mut groups = [Group { ports: Vec::new(), endpoints: all }];
        let given = Shares::of(&nodes(of)).and_then(|shares| shares.give(&mut groups));
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for endpoint in &groups[0].endpoints {
            for zone in endpoint.hints.iter().flat_map(|hints| hints.for_zones.iter().flatten()) {
                *counts.entry(&zone.name).or_default() += 1;
            }
        }
        let given = given.map(|()| counts.into_iter().collect::<Vec<_>>()).map_err(|why| why.to_string());
        assert_eq!(given, expected.map(<[_]>::to_vec).map_err(str::to_owned));
    }

    /// KEP-2433, "Assigning Hints": upstream's cases of `TestAddHints` and `Test_getAllocations`.
    #[test]
    fn endpoints_are_for_zones() {
        let two = [("a", "4"), ("b", "4")];
        check(&two, &[("a", 2), ("b", 2)], Ok(&[("a", 2), ("b", 2)]));
        check(&two, &[("a", 4)], Ok(&[("a", 2), ("b", 2)]));
        check(&two, &[("a", 3), ("b", 1)], Ok(&[("a", 2), ("b", 2)]));
        check(&[("a", "2"), ("b", "2"), ("c", "4")], &[("a", 4), ("b", 4)], Ok(&[("a", 2), ("b", 2), ("c", 4)]));
        // An endpoint more or less is none that moves.
        check(
            &[("a", "1"), ("b", "1"), ("c", "1")],
            &[("a", 2), ("b", 1), ("c", 1)],
            Err(
                "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold (4 endpoints, 3 zones)",
            ),
        );
        check(
            &two,
            &[("a", 3), ("b", 2)],
            Err(
                "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold (5 endpoints, 2 zones)",
            ),
        );
        check(&two, &[("a", 1)], Err("Insufficient number of endpoints (1), impossible to safely allocate proportionally"));
        check(&two, &[("a", 1), ("", 1)], Err("One or more endpoints do not have a zone specified"));
        check(&[("a", "4")], &[("a", 4)], Err("Nodes only ready in one zone"));
        let unknown = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
        check(&[("a", "4"), ("", "4")], &[("a", 4)], Err(unknown));
        check(&[("a", "4"), ("b", "0")], &[("a", 4)], Err(unknown));
    }

    #[test]
    fn nodes_that_count() {
        assert_eq!(weight(&node("a", "500m", json!({}))), Some(("a".to_owned(), 500)));
        assert_eq!(weight(&node("a", "4", json!({"metadata": {"labels": {EXCLUDED[0]: ""}}}))), None);
        assert_eq!(weight(&node("a", "4", json!({"status": {"conditions": null}}))), None);
    }

    #[test]
    fn who_asks() {
        let check = |notes: Value, expected: bool| {
            let service: Service = serde_json::from_value(json!({"metadata": {"annotations": notes}})).unwrap();
            assert_eq!(is_wanted(&service), expected);
        };
        check(json!({}), false);
        check(json!({MODE: "Auto"}), true);
        check(json!({OLD_MODE: "auto"}), true);
        check(json!({MODE: "Disabled", OLD_MODE: "Auto"}), false);
    }
}
