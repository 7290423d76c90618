//! One scheduling decision: filter the nodes, score those that are left, choose.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use crate::attempt::Attempt;
use crate::cluster::{Cluster, NodeInfo};
use crate::extenders::opinion::Opinion;
use crate::filtering::{Filters, FitError};
use crate::framework::Verdict;
use crate::metrics::Metrics;
use crate::plugins::PLUGINS;
use crate::pod::PodInfo;

/// Below this many nodes all are looked at, and never fewer are.
const MIN_NODES: usize = 100;

/// Chooses nodes; remembers where it stopped, so that all nodes get their turn when not all are looked at.
pub(crate) struct Chooser {
    start: usize,
    random: u64,
    metrics: Metrics,
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

/// The nodes that filters leave, by their slots.
pub(crate) enum Found {
    /// There is nothing to choose: the one that was promised, or the only one.
    One(usize),
    Several(Vec<usize>),
}

/// The filters for a pod; why none are needed when it is refused whatever node it is.
fn filters<'a>(pod: &'a PodInfo, cluster: &'a Cluster, attempt: &'a Attempt, metrics: &Metrics) -> Result<Filters<'a>, FitError> {
    let (started, profile) = (Instant::now(), cluster.profile(pod));
    let mut filtering = PLUGINS.iter().enumerate().filter(|(index, _)| profile.is_none_or(|profile| profile.filters(*index)));
    let refused = filtering.find_map(|(index, plugin)| Some((index, plugin.refuse(pod, cluster, attempt)?)));
    let (answer, status) = match refused {
        Some((plugin, reason)) => (Err(FitError::everywhere(cluster.len(), plugin, reason)), "UnschedulableAndUnresolvable"),
        None => (Ok(Filters::prepare(pod, cluster, attempt)), "Success"),
    };
    metrics.ran("PreFilter", pod.scheduler(), status, started.elapsed());
    answer
}

/// The node that the pod was promised, if it will do.
fn promised(pod: &PodInfo, cluster: &Cluster, filters: &Filters<'_>) -> Option<usize> {
    let promised = cluster.nominations.node_of(pod.uid()).and_then(|name| cluster.slot_of(name));
    promised.filter(|slot| filters.check(&cluster.slots()[*slot], &mut Vec::new()).0 == Verdict::Fits)
}

impl Found {
    fn of(slots: Vec<usize>) -> Option<Self> {
        match slots.as_slice() {
            [] => None,
            [only] => Some(Self::One(*only)),
            _ => Some(Self::Several(slots)),
        }
    }
}

impl Chooser {
    /// What it does is counted in `metrics`.
    pub(crate) fn new(metrics: Metrics) -> Self {
        // Xorshift must not start at zero.
        Self { start: 0, random: RandomState::new().hash_one(0) | 1, metrics }
    }

    /// The name of the node for `pod`. What scores ask for is counted when there is something to choose.
    pub(crate) fn choose(&mut self, pod: &PodInfo, cluster: &mut Cluster, attempt: &Attempt) -> Result<String, FitError> {
        cluster.prepare_filters(pod);
        let found = self.find(pod, cluster, attempt)?;
        Ok(self.best_of(pod, cluster, attempt, found, &HashMap::new()))
    }

    /// The nodes that will do for `pod`.
    pub(crate) fn find(&mut self, pod: &PodInfo, cluster: &Cluster, attempt: &Attempt) -> Result<Found, FitError> {
        let filters = filters(pod, cluster, attempt, &self.metrics)?;
        if let Some(slot) = promised(pod, cluster, &filters) {
            return Ok(Found::One(slot));
        }
        let (feasible, error) = self.feasible(pod, cluster, &filters);
        Found::of(feasible).ok_or(error)
    }

    /// The nodes that will do for `pod`, as far as plugins know; the promised one is none of them of necessity.
    pub(crate) fn candidates(&mut self, pod: &PodInfo, cluster: &mut Cluster, attempt: &Attempt) -> Result<Candidates, FitError> {
        cluster.prepare_filters(pod);
        let filters = filters(pod, cluster, attempt, &self.metrics)?;
        let name = |slot: usize| cluster.slots()[slot].name.clone();
        let promised = promised(pod, cluster, &filters).map(name);
        let (feasible, error) = self.feasible(pod, cluster, &filters);
        match feasible.is_empty() {
            true => Err(error),
            false => Ok(Candidates { promised, nodes: feasible.into_iter().map(name).collect(), error }),
        }
    }

    /// The best node for `pod` of those that extenders have left, which are looked at again; `error` says why others will not do.
    pub(crate) fn choose_of(
        &mut self,
        pod: &PodInfo,
        cluster: &mut Cluster,
        attempt: &Attempt,
        opinion: &Opinion,
        mut error: FitError,
    ) -> Result<String, FitError> {
        cluster.prepare_filters(pod);
        let (mut feasible, mut reasons) = (Vec::new(), Vec::new());
        {
            let filters = filters(pod, cluster, attempt, &self.metrics)?;
            for slot in opinion.nodes.iter().filter_map(|name| cluster.slot_of(name)) {
                let node = &cluster.slots()[slot];
                match filters.check(node, &mut reasons) {
                    (Verdict::Fits, _) => feasible.push(slot),
                    (verdict, plugins) => error.add(&node.name, verdict, plugins, reasons.drain(..)),
                }
            }
        }
        let found = Found::of(feasible).ok_or(error)?;
        Ok(self.best_of(pod, cluster, attempt, found, &opinion.scores))
    }

    /// The nodes that pass, as many as are enough, and why others do not.
    fn feasible(&mut self, pod: &PodInfo, cluster: &Cluster, filters: &Filters<'_>) -> (Vec<usize>, FitError) {
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
                (Verdict::Fits, _) => feasible.push(slot),
                (verdict, plugins) => error.add(&slots[slot].name, verdict, plugins, reasons.drain(..)),
            }
        }
        self.start = if slots.is_empty() { 0 } else { (self.start + seen) % slots.len() };
        // For all nodes together; that none will do is a success too, as upstream.
        self.metrics.ran("Filter", pod.scheduler(), "Success", started.elapsed());
        (feasible, error)
    }

    fn best_of(
        &mut self,
        pod: &PodInfo,
        cluster: &mut Cluster,
        attempt: &Attempt,
        found: Found,
        extra: &HashMap<String, i64>,
    ) -> String {
        let slot = match found {
            Found::One(slot) => slot,
            Found::Several(slots) => {
                cluster.prepare_scores(pod);
                self.best(pod, cluster, attempt, &slots, extra)
            }
        };
        cluster.slots()[slot].name.clone()
    }

    /// The best of several nodes.
    pub(crate) fn best(
        &mut self,
        pod: &PodInfo,
        cluster: &Cluster,
        attempt: &Attempt,
        slots: &[usize],
        extra: &HashMap<String, i64>,
    ) -> usize {
        let nodes: Vec<&NodeInfo> = slots.iter().map(|slot| &cluster.slots()[*slot]).collect();
        let mut totals = vec![0_i64; nodes.len()];
        let mut scores = Vec::with_capacity(nodes.len());
        let (started, profile) = (Instant::now(), cluster.profile(pod));
        for (index, plugin) in PLUGINS.iter().enumerate() {
            let weight = profile.map_or(plugin.weight(), |profile| profile.weight(index, plugin.weight()));
            let Some(score) = Some(plugin).filter(|_| weight > 0).and_then(|plugin| plugin.score(pod, cluster, attempt, &nodes))
            else {
                continue;
            };
            scores.clear();
            scores.extend(nodes.iter().map(|node| score.score(node)));
            score.normalize(&mut scores);
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += score * weight;
            }
        }
        self.metrics.ran("Score", pod.scheduler(), "Success", started.elapsed());
        if !extra.is_empty() {
            for (total, node) in totals.iter_mut().zip(&nodes) {
                *total = total.saturating_add(extra.get(&node.name).copied().unwrap_or(0));
            }
        }
        let highest = totals.iter().copied().max().unwrap_or(0);
        let best: Vec<usize> = (0..nodes.len()).filter(|index| totals[*index] == highest).collect();
        slots[best[self.draw(best.len())]]
    }

    /// A number below `limit`, which is not zero.
    pub(crate) fn draw(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % limit as u64) as usize
    }
}

/// It counts for itself.
#[cfg(test)]
impl Default for Chooser {
    fn default() -> Self {
        Self::new(Metrics::default())
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
