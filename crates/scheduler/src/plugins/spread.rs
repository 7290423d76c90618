//! Pods spread over nodes, zones or any other label.
//!
//! A pod without constraints of its own that belongs to a service or a controller spreads over hosts and zones softly.

use std::borrow::Cow;
use std::sync::Arc;

use apimachinery::labels::Selector;

use super::node::{selects_node, tolerates_all};
use crate::attempt::Attempt;
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{Event, Filter, MAX_SCORE, Plugin, Reason, Score, Verdict};
use crate::pod::{PodInfo, Policies, Spread};
use crate::tallies::{Tally, counts};
use crate::terms::Namespaces;
use crate::topologies::{HOST, Topology};

const SKEWED: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

pub(super) struct PodTopologySpread;

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn weight(&self) -> i64 {
        2
    }

    /// To look at so many would hold up all other pods.
    fn refuse(&self, pod: &PodInfo, cluster: &Cluster, _: &Attempt) -> Option<Reason> {
        let (number, most) = (pod.hard_spread().count(), cluster.most_required());
        let reason = || format!("pod has {number} strict spread constraints, of which at most {most} are looked at");
        (number > most).then(|| Cow::Owned(reason()))
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster, _: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        let hard: Vec<&Spread> = pod.hard_spread().collect();
        if hard.is_empty() {
            return None;
        }
        Some(Box::new(Required::count(pod, hard, cluster)))
    }

    fn score<'a>(
        &self,
        pod: &'a PodInfo,
        cluster: &'a Cluster,
        _: &'a Attempt,
        nodes: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        if nodes.len() < 2 {
            return None;
        }
        let soft: Vec<Soft<'a>> = if pod.spread.is_empty() {
            let group = cluster.group_of(pod)?;
            let default = |(key, max_skew): &'a (String, i32)| Soft {
                key,
                max_skew: *max_skew,
                selector: group.clone(),
                policies: Policies::default(),
            };
            cluster.profile(pod)?.spread.iter().map(default).collect()
        } else {
            let soft = |one: &'a Spread| Soft {
                key: &one.key,
                max_skew: one.max_skew,
                selector: one.selector.clone(),
                policies: one.policies,
            };
            pod.soft_spread(cluster.most_preferred()).map(soft).collect()
        };
        if soft.is_empty() {
            return None;
        }
        Some(Box::new(Preferred::count(pod, soft, cluster, nodes)))
    }

    /// The value with the fewest pods may go with a node: then another one is what the others are compared with.
    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::Node | Event::NodeRemoved | Event::PodPlaced | Event::PodRemoved)
    }

    /// As upstream's `isSchedulableAfterPodChange`: one that is counted.
    fn helped_by_pod(&self, waiting: &PodInfo, pod: &PodInfo, _: Event, _: &Namespaces) -> bool {
        let mut hard = waiting.hard_spread();
        waiting.namespace() == pod.namespace() && hard.any(|one| one.selector.matches(pod.labels()))
    }
}

/// Whether a constraint with these policies counts the pods on `node`.
fn counts_node(policies: Policies, pod: &PodInfo, node: &NodeInfo) -> bool {
    (!policies.honour_affinity || selects_node(pod, node)) && (!policies.honour_taints || tolerates_all(pod, node))
}

/// Pods on `node` that a constraint counts.
fn count_on(node: &NodeInfo, namespace: &str, selector: &Selector, tally: Option<&Tally>) -> i64 {
    if let Some(tally) = tally {
        return tally.on(node);
    }
    let counted = |pod: &&Arc<PodInfo>| pod.namespace() == namespace && counts(selector, pod);
    i64::try_from(node.pods.iter().filter(counted).count()).unwrap_or(i64::MAX)
}

/// Pods by the value of a node label.
struct Counts<'a> {
    topology: Arc<Topology>,
    /// By the number of the value; none where no node counts that has it.
    by_value: Cow<'a, [i64]>,
    counts: Option<Vec<bool>>,
}

impl Counts<'_> {
    /// The values that count.
    fn all(&self) -> impl Iterator<Item = i64> {
        let counts = |value: usize| self.counts.as_ref().is_none_or(|counts| counts[value]);
        self.by_value.iter().enumerate().filter(move |(value, _)| counts(*value)).map(|(_, count)| *count)
    }
}

/// Pods by value of the label `key`, on the nodes that have all of `keys` and that `policies` count.
fn count_values<'a>(
    pod: &PodInfo,
    cluster: &'a Cluster,
    selector: &Selector,
    policies: Policies,
    (key, keys): (&str, &[&str]),
) -> Counts<'a> {
    let tally = cluster.tally(pod.namespace(), selector);
    let every_node = keys.len() < 2 && !policies.honour_taints && !(policies.honour_affinity && pod.selects_nodes());
    if let Some((topology, counts)) = tally.and_then(|tally| tally.by_value(key)).filter(|_| every_node) {
        return Counts { topology: topology.clone(), by_value: Cow::Borrowed(counts), counts: None };
    }
    let topology = cluster.topology(key);
    let (mut by_value, mut counts) = (vec![0; topology.len()], vec![false; topology.len()]);
    let counted = |node: &&NodeInfo| keys.iter().all(|key| node.label(key).is_some()) && counts_node(policies, pod, node);
    for node in cluster.nodes().filter(counted) {
        if let Some(value) = topology.value(node) {
            by_value[value] += count_on(node, pod.namespace(), selector, tally);
            counts[value] = true;
        }
    }
    Counts { topology, by_value: Cow::Owned(by_value), counts: Some(counts) }
}

struct Domain<'a> {
    constraint: &'a Spread,
    counts: Counts<'a>,
    least: i64,
    own: i64,
}

struct Required<'a> {
    domains: Vec<Domain<'a>>,
}

impl<'a> Required<'a> {
    fn count(pod: &'a PodInfo, hard: Vec<&'a Spread>, cluster: &'a Cluster) -> Self {
        let keys: Vec<&str> = hard.iter().map(|one| one.key.as_str()).collect();
        let domain = |constraint: &'a Spread| {
            let place = (constraint.key.as_str(), keys.as_slice());
            let counts = count_values(pod, cluster, &constraint.selector, constraint.policies, place);
            let is_short = counts.all().count() < constraint.min_domains;
            let least = if is_short { 0 } else { counts.all().min().unwrap_or(0) };
            let own = i64::from(constraint.selector.matches(pod.labels()));
            Domain { constraint, counts, least, own }
        };
        Self { domains: hard.into_iter().map(domain).collect() }
    }
}

impl Filter for Required<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Verdict {
        for domain in &self.domains {
            let Some(value) = domain.counts.topology.value(node) else {
                reasons.push(Reason::Borrowed(NO_LABEL));
                return Verdict::Unfit;
            };
            let here = domain.counts.by_value[value];
            if here + domain.own - domain.least > i64::from(domain.constraint.max_skew) {
                reasons.push(Reason::Borrowed(SKEWED));
                return Verdict::Occupied;
            }
        }
        Verdict::Fits
    }
}

struct Soft<'a> {
    key: &'a str,
    max_skew: i32,
    selector: Selector,
    policies: Policies,
}

struct Preferred<'a> {
    namespace: &'a str,
    soft: Vec<Soft<'a>>,
    tallies: Vec<Option<&'a Tally>>,
    /// By constraint.
    counts: Vec<SoftCounts<'a>>,
    /// More values weigh more.
    weights: Vec<f64>,
    /// A node without all labels is the last choice. Not so with the defaults: many clusters have no zones.
    all_labels: bool,
}

/// Pods as a soft constraint counts them.
enum SoftCounts<'a> {
    /// On each host, when it is asked for. What is known is which nodes are hosts.
    Hosts(Arc<Topology>),
    Values(Counts<'a>),
}

/// The raw score of a node that lacks a label.
const IGNORED: i64 = -1;

impl<'a> Preferred<'a> {
    fn count(pod: &'a PodInfo, soft: Vec<Soft<'a>>, cluster: &'a Cluster, nodes: &[&'a NodeInfo]) -> Self {
        let all_labels = !pod.spread.is_empty();
        let keys: Vec<&str> = soft.iter().filter(|_| all_labels).map(|one| one.key).collect();
        let taken = |node: &&&NodeInfo| keys.iter().all(|key| node.label(key).is_some());
        let nodes: Vec<&'a NodeInfo> = nodes.iter().filter(taken).copied().collect();
        let (mut counts, mut weights) = (Vec::new(), Vec::new());
        for constraint in &soft {
            let (size, count) = if constraint.key == HOST {
                (nodes.len(), SoftCounts::Hosts(cluster.topology(HOST)))
            } else {
                let place = (constraint.key, keys.as_slice());
                let count = count_values(pod, cluster, &constraint.selector, constraint.policies, place);
                let mut seen = vec![false; count.topology.len()];
                nodes.iter().filter_map(|node| count.topology.value(node)).for_each(|value| seen[value] = true);
                (seen.into_iter().filter(|seen| *seen).count(), SoftCounts::Values(count))
            };
            weights.push((size as f64 + 2.0).ln());
            counts.push(count);
        }
        let tallies = soft.iter().map(|one| cluster.tally(pod.namespace(), &one.selector)).collect();
        Self { namespace: pod.namespace(), soft, tallies, counts, weights, all_labels }
    }
}

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let mut sum = 0.0;
        for (index, constraint) in self.soft.iter().enumerate() {
            let count = match &self.counts[index] {
                SoftCounts::Values(counts) => counts.topology.value(node).map(|value| counts.by_value[value]),
                SoftCounts::Hosts(hosts) => {
                    let count = |_| count_on(node, self.namespace, &constraint.selector, self.tallies[index]);
                    hosts.value(node).map(count)
                }
            };
            let Some(count) = count else {
                if self.all_labels {
                    return IGNORED;
                }
                continue;
            };
            sum += count as f64 * self.weights[index] + f64::from(constraint.max_skew - 1);
        }
        sum.round() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        let valid = || scores.iter().copied().filter(|score| *score != IGNORED);
        let (min, max) = (valid().min().unwrap_or(0), valid().max().unwrap_or(0));
        for score in scores {
            *score = match *score {
                IGNORED => 0,
                _ if max == 0 => MAX_SCORE,
                score => MAX_SCORE * (max + min - score) / max,
            };
        }
    }
}
