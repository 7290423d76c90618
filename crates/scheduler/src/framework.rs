//! What a plugin is.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::attempt::Attempt;
use crate::cluster::{Cluster, NodeInfo};
use crate::pod::PodInfo;
use crate::terms::Namespaces;

/// The highest score of a node.
pub(crate) const MAX_SCORE: i64 = 100;

/// Why a node will not do, in the words that users read.
pub(crate) type Reason = Cow<'static, str>;

/// What happened in the cluster, as far as it may let a pod be scheduled that could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A node came, or changed in a way that matters.
    Node,
    /// A node went.
    NodeRemoved,
    /// A pod came to a node, or its labels changed.
    PodPlaced,
    /// A pod left a node.
    PodRemoved,
    /// A namespace's labels changed.
    Namespace,
    /// A claim, a volume, a class of volumes, a driver or a node's drivers came or changed, or there is more room for volumes.
    Volume,
    /// A claim for devices or a slice of devices came or changed.
    Device,
    /// A class of devices came or changed, which may stand for an extended resource.
    DeviceClass,
}

/// One scheduling rule. All methods have defaults: a plugin says only what it has an opinion on.
pub(crate) trait Plugin: Sync {
    /// Upstream's name of it.
    fn name(&self) -> &'static str;

    /// How much its scores count.
    fn weight(&self) -> i64 {
        1
    }

    /// Why `pod` cannot be on any node, whatever node it is.
    fn refuse(&self, pod: &PodInfo, cluster: &Cluster, attempt: &Attempt) -> Option<Reason> {
        let _ = (pod, cluster, attempt);
        None
    }

    /// The only nodes that may do for `pod` (upstream's `PreFilterResult`): no other one is looked at by any plugin. None: all.
    fn names<'a>(&self, pod: &'a PodInfo) -> Option<Named<'a>> {
        let _ = pod;
        None
    }

    /// The nodes that will do for `pod`. None: all.
    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster, attempt: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        let _ = (pod, cluster, attempt);
        None
    }

    /// How well the nodes do that will do. None: all the same.
    fn score<'a>(
        &self,
        pod: &'a PodInfo,
        cluster: &'a Cluster,
        attempt: &'a Attempt,
        nodes: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        let _ = (pod, cluster, attempt, nodes);
        None
    }

    /// Whether `event` may help a pod that this plugin found no node for.
    fn helped_by(&self, event: Event) -> bool {
        event == Event::Node
    }

    /// Whether `event` may help `waiting`, which this plugin found no node for, when it was about `pod`. It is asked where
    /// [`helped_by`](Self::helped_by) says that it may help at all.
    fn helped_by_pod(&self, waiting: &PodInfo, pod: &PodInfo, event: Event, namespaces: &Namespaces) -> bool {
        let _ = (waiting, pod, event, namespaces);
        true
    }
}

/// Nodes by name.
pub(crate) struct Named<'a> {
    pub(crate) nodes: BTreeSet<&'a str>,
    /// Why others will not do.
    pub(crate) otherwise: &'static str,
}

/// What a filter says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It will do.
    Fits,
    /// Other pods are in the way: without them it might do.
    Occupied,
    /// It will not do, whoever leaves.
    Unfit,
}

/// A filter prepared for one pod.
pub(crate) trait Filter {
    /// Whether the node will do; the reasons if not.
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Verdict;
}

/// A score prepared for one pod.
pub(crate) trait Score {
    /// The raw score of a node.
    fn score(&self, node: &NodeInfo) -> i64;

    /// Brings the scores of all nodes to 0 to [`MAX_SCORE`].
    fn normalize(&self, scores: &mut [i64]) {
        let _ = scores;
    }
}

/// A filter that gives one reason.
struct FilterFn<F> {
    test: F,
    reason: &'static str,
    otherwise: Verdict,
}

impl<F: Fn(&NodeInfo) -> bool> Filter for FilterFn<F> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Verdict {
        if (self.test)(node) {
            return Verdict::Fits;
        }
        reasons.push(Cow::Borrowed(self.reason));
        self.otherwise
    }
}

/// A filter from a test, a reason and what a node is that fails it.
pub(crate) fn filter<'a>(
    reason: &'static str,
    otherwise: Verdict,
    test: impl Fn(&NodeInfo) -> bool + 'a,
) -> Option<Box<dyn Filter + 'a>> {
    Some(Box::new(FilterFn { test, reason, otherwise }))
}

/// Scales scores so that the highest becomes [`MAX_SCORE`]; with `reverse` the lowest wins.
pub(crate) fn scale(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}
