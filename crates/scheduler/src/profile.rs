//! What a scheduler profile is: a name that pods ask for, the plugins that filter and score for them, and what these are told.

use std::collections::HashMap;

use pods::resources::is_extended;

/// The highest score of a node, as for all plugins.
const MAX_SCORE: i64 = 100;

/// The name that pods have which name no scheduler.
pub(crate) const DEFAULT: &str = "default-scheduler";

/// One profile.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Profile {
    /// `spec.schedulerName` of its pods.
    pub(crate) name: String,
    /// The plugins that filter, a bit for the place of each.
    pub(crate) filters: u32,
    /// How much the scores of each plugin count, by its place; with zero it gives none. Empty when nothing is said of it.
    pub(crate) weights: Vec<i64>,
    /// Whether it makes room by preemption.
    pub(crate) preempts: bool,
    /// Of how many nodes that will do it looks for the best, in per cent of all; zero for what the number of nodes suggests.
    pub(crate) percentage: usize,
    pub(crate) fit: Fit,
    /// Extended resources of which nobody asks whether a node has enough.
    pub(crate) ignored: Ignored,
    /// How pods spread that say nothing of it: label and greatest skew.
    pub(crate) spread: Vec<(String, i32)>,
}

impl Profile {
    /// As kube-scheduler's without a configuration.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            filters: u32::MAX,
            weights: Vec::new(),
            preempts: true,
            percentage: 0,
            fit: Fit::default(),
            ignored: Ignored::default(),
            spread: [("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5)]
                .map(|(key, skew)| (key.to_owned(), skew))
                .into(),
        }
    }

    /// How much the scores of the plugin at this place count, which has a weight of its own.
    pub(crate) fn weight(&self, plugin: usize, own: i64) -> i64 {
        self.weights.get(plugin).copied().unwrap_or(own)
    }

    /// Whether the plugin at this place filters.
    pub(crate) fn filters(&self, plugin: usize) -> bool {
        self.filters & 1 << plugin != 0
    }
}

/// Extended resources by name, and by what stands before the slash (`NodeResourcesFitArgs.ignoredResources`, `managedResources` of extenders).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ignored {
    pub(crate) resources: Vec<String>,
    pub(crate) groups: Vec<String>,
}

impl Ignored {
    pub(crate) fn has(&self, name: &str) -> bool {
        let group = || name.split_once('/').map_or(name, |(group, _)| group);
        (self.resources.iter().any(|one| one == name) || self.groups.iter().any(|one| one == group())) && is_extended(name)
    }
}

/// How nodes are compared by what is left of them (`NodeResourcesFitArgs.scoringStrategy`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fit {
    pub(crate) strategy: Strategy,
    /// Names of resources, and how much each counts.
    pub(crate) resources: Vec<(String, i64)>,
}

impl Default for Fit {
    fn default() -> Self {
        Self { strategy: Strategy::LeastAllocated, resources: vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)] }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Strategy {
    /// The emptiest node is best.
    LeastAllocated,
    /// The fullest is.
    MostAllocated,
    /// Scores by utilization in per cent, in rising order; between two points they rise or fall evenly.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

impl Fit {
    /// The score of a node: from what would be used of each resource and what there is.
    pub(crate) fn score(&self, amounts: impl Fn(&str) -> Option<(i64, i64)>) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for (name, weight) in &self.resources {
            let Some((used, all)) = amounts(name).filter(|(_, all)| *all > 0) else { continue };
            let score = self.strategy.score(used, all);
            // Where a ratio decides, a resource that scores nothing does not count.
            if matches!(self.strategy, Strategy::RequestedToCapacityRatio(_)) && score == 0 {
                continue;
            }
            sum += score * weight;
            weights += weight;
        }
        match self.strategy {
            _ if weights == 0 => 0,
            Strategy::RequestedToCapacityRatio(_) => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        }
    }
}

/// So many hundredths of `all`.
fn percent(amount: i64, all: i64) -> i64 {
    (i128::from(amount) * i128::from(MAX_SCORE) / i128::from(all)) as i64
}

impl Strategy {
    fn score(&self, used: i64, all: i64) -> i64 {
        match self {
            Self::LeastAllocated if used > all => 0,
            Self::LeastAllocated => percent(all - used, all),
            Self::MostAllocated => percent(used.min(all), all),
            Self::RequestedToCapacityRatio(shape) => at(shape, if used > all { 100 } else { percent(used, all) }),
        }
    }
}

/// The height of a line through points.
fn at(shape: &[(i64, i64)], x: i64) -> i64 {
    let Some(next) = shape.iter().position(|(point, _)| x <= *point) else {
        return shape.last().map_or(0, |(_, score)| *score);
    };
    let (right, high) = shape[next];
    match next.checked_sub(1).map(|before| shape[before]) {
        None => high,
        Some((left, low)) => low + (high - low) * (x - left) / (right - left),
    }
}

/// All profiles, by name.
#[derive(Clone, Debug)]
pub(crate) struct Profiles(HashMap<String, Profile>);

impl Default for Profiles {
    fn default() -> Self {
        Self::new(vec![Profile::new(DEFAULT)])
    }
}

impl Profiles {
    pub(crate) fn new(all: Vec<Profile>) -> Self {
        Self(all.into_iter().map(|profile| (profile.name.clone(), profile)).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Profile> {
        self.0.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_compared_by_what_is_used() {
        let check = |strategy: Strategy, cpu: (i64, i64), memory: (i64, i64), expected: i64| {
            let fit = Fit { strategy: strategy.clone(), ..Fit::default() };
            let score = fit.score(|name| match name {
                "cpu" => Some(cpu),
                _ => Some(memory),
            });
            assert_eq!(score, expected, "{strategy:?} {cpu:?} {memory:?}");
        };
        check(Strategy::LeastAllocated, (1, 4), (1, 2), 62);
        check(Strategy::LeastAllocated, (5, 4), (1, 2), 25);
        check(Strategy::LeastAllocated, (1, 0), (1, 2), 50);
        check(Strategy::LeastAllocated, (i64::MAX / 4, i64::MAX), (1, 2), 62);
        check(Strategy::MostAllocated, (1, 4), (1, 2), 37);
        check(Strategy::MostAllocated, (5, 4), (1, 2), 75);
        let shape = || Strategy::RequestedToCapacityRatio(vec![(0, 0), (50, 100), (100, 20)]);
        check(shape(), (1, 4), (1, 2), 75);
        check(shape(), (0, 4), (3, 4), 60);
        check(shape(), (9, 4), (1, 2), 60);
        check(Strategy::RequestedToCapacityRatio(vec![(20, 10), (80, 90)]), (1, 10), (9, 10), 50);
    }
}
