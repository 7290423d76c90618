//! Zones of nodes: how many nodes of one fail at a time decides how fast pods are driven away (Kubernetes documentation, "Nodes", "Rate limits on
//! eviction"). Where most of them fail at once, likely something between them and the server has failed. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use client::Facts;
use k8s_openapi::api::core::v1::Node;

use super::plan;

/// Time between two nodes of a zone: `--node-eviction-rate` 0.1, and `--secondary-node-eviction-rate` 0.01.
const NORMAL: Duration = Duration::from_secs(10);
const SLOW: Duration = Duration::from_secs(100);
/// Zones of so many nodes or less stop instead of going on slowly: `--large-cluster-size-threshold`, which upstream compares with the zone.
const SMALL: usize = 50;
/// So many per cent of the nodes of a zone, but no fewer than so many nodes: `--unhealthy-zone-threshold` 0.55.
const UNHEALTHY_PERCENT: usize = 55;
const UNHEALTHY_LEAST: usize = 3;

/// Nodes with this label say nothing of their zone.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// What of a node concerns its zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeFacts {
    zone: Box<str>,
    pub(super) is_ready: bool,
    is_excluded: bool,
}

impl Facts<Node> for NodeFacts {
    fn of(node: &Node) -> Self {
        let is_excluded = node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDED));
        Self { zone: zone(node).into(), is_ready: plan::is_ready(node), is_excluded }
    }
}

/// Region and zone of a node as upstream joins them; empty where it has neither. The older labels come first.
pub(super) fn zone(node: &Node) -> String {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let first = |old: &str, new: &str| label(old).or_else(|| label(new)).map_or("", String::as_str);
    let region = first("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region");
    let zone = first("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone");
    if region.is_empty() && zone.is_empty() { String::new() } else { format!("{region}:\0:{zone}") }
}

/// How a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// None of its nodes is counted.
    Initial,
    Normal,
    /// Most of its nodes are not ready.
    Partial,
    /// None of its nodes is ready.
    Full,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    ready: usize,
    not_ready: usize,
}

impl Count {
    fn state(self) -> State {
        let Self { ready, not_ready } = self;
        match ready + not_ready {
            0 => State::Initial,
            _ if ready == 0 => State::Full,
            all if not_ready >= UNHEALTHY_LEAST && not_ready * 100 >= all * UNHEALTHY_PERCENT => State::Partial,
            _ => State::Normal,
        }
    }
}

/// The time between two nodes of a zone from which pods are driven away; None: none is.
type Interval = Option<Duration>;

/// What is counted of all zones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Census(BTreeMap<Box<str>, Count>);

/// What follows from a census.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Paces {
    /// No zone has a node that is ready: the fault is likely not the nodes'.
    pub(super) is_all_disrupted: bool,
    zones: BTreeMap<Box<str>, Interval>,
}

impl Census {
    pub(super) fn of(nodes: impl Iterator<Item = Arc<NodeFacts>>) -> Self {
        let mut zones: BTreeMap<Box<str>, Count> = BTreeMap::new();
        for node in nodes.filter(|node| !node.is_excluded) {
            let count = zones.entry(node.zone.clone()).or_default();
            *(if node.is_ready { &mut count.ready } else { &mut count.not_ready }) += 1;
        }
        Self(zones)
    }

    pub(super) fn paces(&self) -> Paces {
        let interval = |count: &Count| match count.state() {
            // A zone that is alone in having failed is left at the usual pace: there are better places.
            State::Initial | State::Normal | State::Full => Some(NORMAL),
            State::Partial => (count.ready + count.not_ready > SMALL).then_some(SLOW),
        };
        Paces {
            is_all_disrupted: !self.0.is_empty() && self.0.values().all(|count| count.state() == State::Full),
            zones: self.0.iter().map(|(zone, count)| (zone.clone(), interval(count))).collect(),
        }
    }
}

impl Paces {
    pub(super) fn interval(&self, zone: &str) -> Interval {
        if self.is_all_disrupted { None } else { self.zones.get(zone).copied().unwrap_or(Some(NORMAL)) }
    }
}

/// The nodes of a zone that wait for their turn, first come first served.
struct Line {
    interval: Interval,
    /// When the next one has its turn. A turn that nobody has taken stays, but a second one does not come to it.
    free_at: Duration,
    nodes: VecDeque<String>,
}

impl Line {
    /// A change of pace. Who had to wait waits for a whole interval of the new one, as upstream.
    fn set(&mut self, interval: Interval, now: Duration) {
        if self.interval == interval {
            return;
        }
        let had_to_wait = self.interval.is_none() || now < self.free_at;
        self.free_at = if had_to_wait { now + interval.unwrap_or_default() } else { now };
        self.interval = interval;
    }
}

/// Whether it is a node's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    In(Duration),
    /// Others come first, or there are no turns: whoever leaves the line, and a change of pace, lead to the next look.
    NotYet,
}

/// The lines of all zones, by a clock that goes on evenly.
#[derive(Default)]
pub(super) struct Lines {
    zones: HashMap<String, Line>,
    /// The zone in whose line each node waits.
    waits_in: HashMap<String, String>,
}

impl Lines {
    fn line(&mut self, zone: &str) -> &mut Line {
        let new = || Line { interval: Some(NORMAL), free_at: Duration::ZERO, nodes: VecDeque::new() };
        self.zones.entry(zone.to_owned()).or_insert_with(new)
    }

    /// Sets the pace of a zone. Lines that are like new are forgotten.
    pub(super) fn set(&mut self, zone: &str, interval: Interval, now: Duration) {
        self.zones.retain(|_, line| !line.nodes.is_empty() || line.interval != Some(NORMAL) || now < line.free_at);
        self.line(zone).set(interval, now);
    }

    /// Puts a node of a zone in the line, and takes its turn when it has come.
    pub(super) fn turn(&mut self, node: &str, zone: &str, now: Duration) -> Turn {
        if !self.waits_in.contains_key(node) {
            self.waits_in.insert(node.to_owned(), zone.to_owned());
            self.line(zone).nodes.push_back(node.to_owned());
        }
        let line = self.line(zone);
        let Some(interval) = line.interval.filter(|_| line.nodes.front().is_some_and(|first| first == node)) else {
            return Turn::NotYet;
        };
        match line.free_at.checked_sub(now).filter(|left| !left.is_zero()) {
            Some(left) => Turn::In(left),
            None => {
                line.free_at = now + interval;
                Turn::Now
            }
        }
    }

    /// Gives back a turn that was taken `now` and was in vain.
    pub(super) fn give_back(&mut self, zone: &str, now: Duration) {
        self.line(zone).free_at = now;
    }

    /// The zone in whose line a node waits.
    pub(super) fn waits_in(&self, node: &str) -> Option<&str> {
        self.waits_in.get(node).map(String::as_str)
    }

    /// Takes a node out of its line; who is first now, if somebody else was.
    pub(super) fn leave(&mut self, node: &str) -> Option<String> {
        let line = self.zones.get_mut(&self.waits_in.remove(node)?)?;
        let was_first = line.nodes.front().is_some_and(|first| first == node);
        line.nodes.retain(|one| one != node);
        line.nodes.front().filter(|_| was_first).cloned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    fn facts(zone: &str, ready: bool, excluded: bool) -> NodeFacts {
        let mut labels = json!({"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": zone});
        if excluded {
            labels[EXCLUDED] = json!("");
        }
        let conditions = json!([{"type": "Ready", "status": if ready { "True" } else { "Unknown" }}]);
        NodeFacts::of(&object(json!({"metadata": {"labels": labels}, "status": {"conditions": conditions}})))
    }

    fn nodes(zone: &str, ready: usize, not_ready: usize) -> Vec<Arc<NodeFacts>> {
        let all = std::iter::repeat_n(true, ready).chain(std::iter::repeat_n(false, not_ready));
        all.map(|ready| Arc::new(facts(zone, ready, false))).collect()
    }

    #[test]
    fn zones_are_named_by_labels() {
        let check = |labels: serde_json::Value, expected: &str| {
            assert_eq!(zone(&object(json!({"metadata": {"labels": labels}}))), expected);
        };
        check(json!(null), "");
        check(json!({"topology.kubernetes.io/zone": "a"}), ":\0:a");
        check(json!({"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "a"}), "r:\0:a");
        check(json!({"failure-domain.beta.kubernetes.io/zone": "b", "topology.kubernetes.io/zone": "a"}), ":\0:b");
    }

    /// "Nodes", "Rate limits on eviction": at least 55 % of a zone.
    #[test]
    fn states_of_a_zone() {
        let check = |ready: usize, not_ready: usize, expected: State| {
            assert_eq!(Count { ready, not_ready }.state(), expected, "{ready} ready, {not_ready} not");
        };
        check(0, 0, State::Initial);
        check(1, 0, State::Normal);
        check(0, 1, State::Full);
        check(0, 100, State::Full);
        // Two are no majority of anything.
        check(1, 2, State::Normal);
        check(1, 3, State::Partial);
        check(2, 3, State::Partial);
        check(3, 3, State::Normal);
        check(9, 11, State::Partial);
        check(46, 54, State::Normal);
        check(45, 55, State::Partial);
    }

    #[test]
    fn paces_of_zones() {
        let check = |zones: &[(usize, usize)], disrupted: bool, expected: &[Option<u64>]| {
            let names: Vec<_> = (0..zones.len()).map(|number| number.to_string()).collect();
            let all = names.iter().zip(zones).flat_map(|(name, (ready, not_ready))| nodes(name, *ready, *not_ready));
            let paces = Census::of(all).paces();
            let seconds = |name: &String| paces.interval(&format!("r:\0:{name}")).map(|interval| interval.as_secs());
            assert_eq!(paces.is_all_disrupted, disrupted, "{zones:?}");
            assert_eq!(names.iter().map(seconds).collect::<Vec<_>>(), expected, "{zones:?}");
        };
        check(&[(2, 1)], false, &[Some(10)]);
        // A small zone stops, a large one slows down.
        check(&[(2, 3)], false, &[None]);
        check(&[(10, 40)], false, &[None]);
        check(&[(10, 41)], false, &[Some(100)]);
        check(&[(10, 41), (3, 0)], false, &[Some(100), Some(10)]);
        // One zone alone goes on; all of them stop.
        check(&[(0, 5), (1, 0)], false, &[Some(10), Some(10)]);
        check(&[(0, 5), (0, 1)], true, &[None, None]);
        check(&[(0, 1)], true, &[None]);
        check(&[], false, &[]);
        // Excluded nodes are evicted like others and say nothing of their zone.
        let excluded = [facts("0", false, true), facts("0", true, false)].map(Arc::new);
        assert_eq!(Census::of(excluded.into_iter()).paces().interval("r:\0:0"), Some(NORMAL));
        let none = Census::of([Arc::new(facts("0", false, true))].into_iter()).paces();
        assert_eq!((none.is_all_disrupted, none.interval("r:\0:0")), (false, Some(NORMAL)));
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn nodes_of_a_zone_have_their_turns_one_after_the_other() {
        let mut lines = Lines::default();
        assert_eq!(lines.turn("a", "z", at(100)), Turn::Now);
        assert_eq!(lines.turn("b", "z", at(101)), Turn::NotYet);
        assert_eq!(lines.turn("c", "z", at(101)), Turn::NotYet);
        assert_eq!(lines.turn("other", "y", at(101)), Turn::Now);
        // Who has had its turn but could not use it waits for the next.
        assert_eq!(lines.turn("a", "z", at(102)), Turn::In(at(8)));
        lines.give_back("z", at(102));
        assert_eq!(lines.turn("a", "z", at(102)), Turn::Now);
        assert_eq!(lines.leave("a"), Some("b".to_owned()));
        assert_eq!(lines.leave("a"), None);
        assert_eq!(lines.turn("b", "z", at(103)), Turn::In(at(9)));
        // One that is ready again lets the others move up, and one that was not first concerns nobody.
        assert_eq!(lines.leave("c"), None);
        assert_eq!(lines.turn("b", "z", at(112)), Turn::Now);
        assert_eq!(lines.leave("b"), None);
        // Turns that nobody takes do not gather.
        assert_eq!(lines.turn("d", "z", at(1000)), Turn::Now);
        assert_eq!((lines.leave("d"), lines.turn("e", "z", at(1000))), (None, Turn::In(at(10))));
    }

    #[test]
    fn a_change_of_pace_makes_those_wait_who_waited() {
        let mut lines = Lines::default();
        lines.set("z", None, at(50));
        assert_eq!(lines.turn("a", "z", at(50)), Turn::NotYet);
        lines.set("z", Some(SLOW), at(60));
        assert_eq!(lines.turn("a", "z", at(60)), Turn::In(at(100)));
        lines.set("z", Some(NORMAL), at(70));
        assert_eq!(lines.turn("a", "z", at(70)), Turn::In(at(10)));
        assert_eq!(lines.turn("a", "z", at(80)), Turn::Now);
        // Nobody had to wait.
        lines.set("z", Some(SLOW), at(200));
        assert_eq!(lines.turn("a", "z", at(200)), Turn::Now);
        assert_eq!(lines.turn("a", "z", at(201)), Turn::In(at(99)));
    }
}
