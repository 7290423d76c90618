//! One scheduling decision: filter the nodes, score those that are left, choose.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use crate::cluster::{Cluster, NodeInfo};
use crate::extenders::opinion::Opinion;
use crate::filtering::{Filters, FitError};
use crate::framework::Verdict;
use crate::metrics;
use crate::plugins::PLUGINS;
use crate::pod::PodInfo;

/// Below this many nodes all are looked at, and never fewer are.
const MIN_NODES: usize = 100;

/// Chooses nodes; remembers where it stopped, so that all nodes get their turn when not all are looked at.
pub(crate) struct Chooser {
    start: usize,
    random: u64,
}

impl Default for Chooser {
    fn default() -> Self {
        // Xorshift must not start at zero.
        Self { start: 0, random: RandomState::new().hash_one(0) | 1 }
    }
}

/// How many nodes that will do are enough: from all of them in small clusters down to a twentieth.
fn enough(nodes: usize, percentage: usize) -> usize {
    if nodes <= MIN_NODES || percentage >= 100 {
        return nodes;
    }
    let percent = if percentage > 0 { percentage } else { 50_usize.saturating_sub(nodes / 125).max(5) };
    (nodes * percent / 100).max(MIN_NODES)
}

/// The nodes of which extenders are asked.
pub(crate) struct Candidates {
    /// The one that was promised to the pod, when it still will do.
    pub(crate) promised: Option<String>,
    pub(crate) nodes: Vec<String>,
    /// Why other nodes will not do.
    pub(crate) error: FitError,
}

/// The filters for a pod; why none are needed when it is refused whatever node it is.
fn filters<'a>(pod: &'a PodInfo, cluster: &'a Cluster) -> Result<Filters<'a>, FitError> {
    let (started, profile) = (Instant::now(), cluster.profile(pod));
    let mut filtering = PLUGINS.iter().enumerate().filter(|(index, _)| profile.is_none_or(|profile| profile.filters(*index)));
    let refused = filtering.find_map(|(index, plugin)| Some((index, plugin.refuse(pod, cluster)?)));
    let (answer, status) = match refused {
        Some((plugin, reason)) => (Err(FitError::everywhere(cluster.len(), plugin, reason)), "UnschedulableAndUnresolvable"),
        None => (Ok(Filters::prepare(pod, cluster)), "Success"),
    };
    metrics::ran("PreFilter", pod.scheduler(), status, started.elapsed());
    answer
}

/// The node that the pod was promised, if it will do.
fn promised<'a>(pod: &PodInfo, cluster: &'a Cluster, filters: &Filters<'_>) -> Option<&'a NodeInfo> {
    let promised = cluster.nominations.node_of(pod.uid()).and_then(|name| cluster.node(name));
    promised.filter(|node| filters.check(node, &mut Vec::new()).0 == Verdict::Fits)
}

impl Chooser {
    /// The name of the node for `pod`.
    pub(crate) fn choose(&mut self, pod: &PodInfo, cluster: &Cluster) -> Result<String, FitError> {
        let filters = filters(pod, cluster)?;
        if let Some(node) = promised(pod, cluster, &filters) {
            return Ok(node.name.clone());
        }
        let (feasible, error) = self.feasible(pod, cluster, &filters);
        self.best_of(pod, cluster, &feasible, &HashMap::new()).map(|node| node.name.clone()).ok_or(error)
    }

    /// The nodes that will do for `pod`, as far as plugins know; the promised one is none of them of necessity.
    pub(crate) fn candidates(&mut self, pod: &PodInfo, cluster: &Cluster) -> Result<Candidates, FitError> {
        let filters = filters(pod, cluster)?;
        let promised = promised(pod, cluster, &filters).map(|node| node.name.clone());
        let (feasible, error) = self.feasible(pod, cluster, &filters);
        match feasible.is_empty() {
            true => Err(error),
            false => Ok(Candidates { promised, nodes: feasible.iter().map(|node| node.name.clone()).collect(), error }),
        }
    }

    /// The best node for `pod` of those that extenders have left, which are looked at again; `error` says why others will not do.
    pub(crate) fn choose_of(
        &mut self,
        pod: &PodInfo,
        cluster: &Cluster,
        opinion: &Opinion,
        mut error: FitError,
    ) -> Result<String, FitError> {
        let filters = filters(pod, cluster)?;
        let (mut feasible, mut reasons) = (Vec::new(), Vec::new());
        for node in opinion.nodes.iter().filter_map(|name| cluster.node(name)) {
            match filters.check(node, &mut reasons) {
                (Verdict::Fits, _) => feasible.push(node),
                (verdict, plugins) => error.add(&node.name, verdict, plugins, reasons.drain(..)),
            }
        }
        self.best_of(pod, cluster, &feasible, &opinion.scores).map(|node| node.name.clone()).ok_or(error)
    }

    /// The nodes that pass, as many as are enough, and why others do not.
    fn feasible<'a>(&mut self, pod: &PodInfo, cluster: &'a Cluster, filters: &Filters<'_>) -> (Vec<&'a NodeInfo>, FitError) {
        let (started, profile) = (Instant::now(), cluster.profile(pod));
        let mut error = FitError::of(cluster.len());
        let percentage = profile.map_or(0, |profile| profile.percentage);
        let (slots, limit) = (cluster.slots(), enough(cluster.len(), percentage));
        let mut feasible = Vec::with_capacity(limit);
        let mut reasons = Vec::new();
        let mut seen = 0;
        while seen < slots.len() && feasible.len() < limit {
            let slot = (self.start + seen) % slots.len();
            seen += 1;
            if !cluster.is_present(slot) {
                continue;
            }
            match filters.check(&slots[slot], &mut reasons) {
                (Verdict::Fits, _) => feasible.push(&slots[slot]),
                (verdict, plugins) => error.add(&slots[slot].name, verdict, plugins, reasons.drain(..)),
            }
        }
        self.start = if slots.is_empty() { 0 } else { (self.start + seen) % slots.len() };
        // For all nodes together; that none will do is a success too, as upstream.
        metrics::ran("Filter", pod.scheduler(), "Success", started.elapsed());
        (feasible, error)
    }

    fn best_of<'a>(
        &mut self,
        pod: &'a PodInfo,
        cluster: &'a Cluster,
        nodes: &[&'a NodeInfo],
        extra: &HashMap<String, i64>,
    ) -> Option<&'a NodeInfo> {
        match nodes {
            [] => None,
            [only] => Some(only),
            nodes => Some(self.best(pod, cluster, nodes, extra)),
        }
    }

    fn best<'a>(
        &mut self,
        pod: &'a PodInfo,
        cluster: &'a Cluster,
        nodes: &[&'a NodeInfo],
        extra: &HashMap<String, i64>,
    ) -> &'a NodeInfo {
        let mut totals = vec![0_i64; nodes.len()];
        let mut scores = Vec::with_capacity(nodes.len());
        let (started, profile) = (Instant::now(), cluster.profile(pod));
        for (index, plugin) in PLUGINS.iter().enumerate() {
            let weight = profile.map_or(plugin.weight(), |profile| profile.weight(index, plugin.weight()));
            let Some(score) = Some(plugin).filter(|_| weight > 0).and_then(|plugin| plugin.score(pod, cluster, nodes)) else {
                continue;
            };
            scores.clear();
            scores.extend(nodes.iter().map(|node| score.score(node)));
            score.normalize(&mut scores);
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += score * weight;
            }
        }
        metrics::ran("Score", pod.scheduler(), "Success", started.elapsed());
        if !extra.is_empty() {
            for (total, node) in totals.iter_mut().zip(nodes) {
                *total = total.saturating_add(extra.get(&node.name).copied().unwrap_or(0));
            }
        }
        let highest = totals.iter().copied().max().unwrap_or(0);
        let best: Vec<usize> = (0..nodes.len()).filter(|index| totals[*index] == highest).collect();
        nodes[best[self.draw(best.len())]]
    }

    /// A number below `limit`, which is not zero.
    pub(crate) fn draw(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % limit as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_fewer_of_many() {
        for (nodes, expected) in [(5, 5), (100, 100), (150, 100), (1000, 420), (5000, 500), (20000, 1000)] {
            assert_eq!(enough(nodes, 0), expected, "{nodes}");
        }
        assert_eq!([enough(1000, 20), enough(1000, 1), enough(1000, 100)], [200, 100, 1000]);
    }
}
