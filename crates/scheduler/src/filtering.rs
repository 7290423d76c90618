//! Which nodes will do for a pod, and why the others will not.

use std::collections::BTreeMap;
use std::fmt;

use crate::attempt::Attempt;
use crate::cluster::{Cluster, NodeInfo};
use crate::extenders::protocol::Refused;
use crate::framework::{Filter, Named, Reason, Verdict};
use crate::plugins::PLUGINS;
use crate::pod::PodInfo;
use crate::queue::{EXTENDERS, PluginSet};

/// All filters, prepared for one pod.
pub(crate) struct Filters<'a> {
    pod: &'a PodInfo,
    cluster: &'a Cluster,
    /// The only nodes that are looked at, with the index of each plugin that says so.
    named: Vec<(usize, Named<'a>)>,
    /// With the index of the plugin.
    filters: Vec<(usize, Box<dyn Filter + 'a>)>,
}

impl<'a> Filters<'a> {
    pub(crate) fn prepare(pod: &'a PodInfo, cluster: &'a Cluster, attempt: &'a Attempt) -> Self {
        let profile = cluster.profile(pod);
        let filtering = PLUGINS.iter().enumerate().filter(|(index, _)| profile.is_none_or(|profile| profile.filters(*index)));
        let named = filtering.clone().filter_map(|(index, plugin)| Some((index, plugin.names(pod)?))).collect();
        let prepared = filtering.filter_map(|(index, plugin)| Some((index, plugin.filter(pod, cluster, attempt)?)));
        Self { pod, cluster, named, filters: prepared.collect() }
    }

    /// Whether the node will do, also when the pods come that were promised it and are not less important; else who
    /// refuses it, with the reasons.
    pub(crate) fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> (Verdict, PluginSet) {
        if let Some((plugin, named)) = self.named.iter().find(|(_, named)| !named.nodes.contains(node.name.as_str())) {
            reasons.push(Reason::Borrowed(named.otherwise));
            return (Verdict::Unfit, 1 << plugin);
        }
        let mut ahead = self.cluster.nominations.ahead_of(self.pod, &node.name).peekable();
        if ahead.peek().is_some() {
            let refused = self.check_as_is(&node.with(ahead), reasons);
            if refused.0 != Verdict::Fits {
                return refused;
            }
        }
        self.check_as_is(node, reasons)
    }

    fn check_as_is(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> (Verdict, PluginSet) {
        for (plugin, filter) in &self.filters {
            let verdict = filter.check(node, reasons);
            if verdict != Verdict::Fits {
                return (verdict, 1 << plugin);
            }
        }
        (Verdict::Fits, 0)
    }
}

/// Why no node will do.
#[derive(Debug, Default)]
pub(crate) struct FitError {
    nodes: usize,
    /// Why it does not matter which nodes there are.
    everywhere: Option<Reason>,
    /// How many nodes each reason keeps out.
    reasons: BTreeMap<Reason, usize>,
    /// Who gave them.
    pub(crate) plugins: PluginSet,
    /// Nodes where only other pods are in the way.
    pub(crate) occupied: Vec<String>,
    /// The devices of a claim are taken away, so that the pod may get others.
    pub(crate) frees_devices: bool,
    /// What came of all that is tried when no node will do (upstream's plugins at PostFilter, in their order).
    pub(crate) post_filter: Option<String>,
}

impl fmt::Display for FitError {
    /// In upstream's words: people and tools match on them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available", self.nodes)?;
        if let Some(reason) = &self.everywhere {
            write!(f, ": {reason}.")?;
            return self.post_filter.iter().try_for_each(|text| write!(f, " {text}"));
        }
        // Sorted as texts, numbers included.
        let mut texts: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        texts.sort();
        write!(f, ": {}.", texts.join(", "))?;
        self.post_filter.iter().try_for_each(|text| write!(f, " {text}"))
    }
}

impl FitError {
    /// None of `nodes` nodes will do, for reasons that follow.
    pub(crate) fn of(nodes: usize) -> Self {
        // A cluster without nodes is helped by a node.
        Self { nodes, plugins: if nodes == 0 { PluginSet::MAX } else { 0 }, ..Self::default() }
    }

    /// The pod is refused whatever node it is.
    pub(crate) fn everywhere(nodes: usize, plugin: usize, reason: Reason) -> Self {
        Self { everywhere: Some(reason), plugins: 1 << plugin, ..Self::of(nodes) }
    }

    /// The pod is refused for now, and no event helps it.
    pub(crate) fn held(nodes: usize, reason: Reason) -> Self {
        Self { everywhere: Some(reason), ..Self::of(nodes) }
    }

    pub(crate) fn add(&mut self, node: &str, verdict: Verdict, plugins: PluginSet, reasons: impl Iterator<Item = Reason>) {
        self.plugins |= plugins;
        if verdict == Verdict::Occupied {
            self.occupied.push(node.to_owned());
        }
        self.because(reasons, 1);
    }

    /// Nodes that extenders keep out.
    pub(crate) fn refused_by_extenders(&mut self, refused: &[Refused]) {
        for one in refused {
            self.add(&one.node, one.verdict, EXTENDERS, std::iter::once(one.reason.clone().into()));
        }
    }

    /// Each reason keeps out `nodes` more.
    pub(crate) fn because(&mut self, reasons: impl Iterator<Item = Reason>, nodes: usize) {
        for reason in reasons.filter(|_| nodes > 0) {
            *self.reasons.entry(reason).or_default() += nodes;
        }
    }

    /// How many nodes there are.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes
    }

    /// The names of the plugins that kept nodes out.
    pub(crate) fn plugin_names(&self) -> Vec<&'static str> {
        let named = PLUGINS.iter().enumerate().filter(|(index, _)| self.plugins & 1 << index != 0);
        named.map(|(_, plugin)| plugin.name()).collect()
    }
}
