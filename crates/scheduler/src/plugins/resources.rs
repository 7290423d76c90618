//! Plugins that look at what is left of a node.

use std::borrow::Cow;

use crate::attempt::Attempt;
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{Event, Filter, MAX_SCORE, Plugin, Reason, Score, Verdict};
use crate::pod::PodInfo;
use crate::profile;

pub(super) struct NodeResourcesFit;

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster, _: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        let by_claims = cluster.devices.extended.asked(pod).map(|(resource, _)| resource).collect();
        let ignored = cluster.profile(pod).map(|profile| &profile.ignored);
        Some(Box::new(Fit { pod, by_claims, ignored }))
    }

    fn score<'a>(
        &self,
        pod: &'a PodInfo,
        cluster: &'a Cluster,
        _: &'a Attempt,
        _: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        let fit = cluster.profile(pod).map_or_else(|| Cow::Owned(profile::Fit::default()), |profile| Cow::Borrowed(&profile.fit));
        Some(Box::new(Allocated { pod, fit }))
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::Node | Event::PodRemoved | Event::DeviceClass)
    }
}

struct Fit<'a> {
    pod: &'a PodInfo,
    /// Extended resources that the pod gets by a claim on nodes that have none of their own (KEP-5004).
    by_claims: Vec<&'a str>,
    ignored: Option<&'a profile::Ignored>,
}

impl Filter for Fit<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Verdict {
        let mut verdict = Verdict::Fits;
        if node.pods.len() + 1 > node.max_pods {
            reasons.push(Cow::Borrowed("Too many pods"));
            verdict = Verdict::Occupied;
        }
        let mut compare = |wanted: i64, used: i64, all: i64, reason: &dyn Fn() -> Reason| {
            if wanted > 0 && wanted > all - used {
                reasons.push(reason());
                // More than there is even on an empty node.
                verdict = if wanted > all || verdict == Verdict::Unfit { Verdict::Unfit } else { Verdict::Occupied };
            }
        };
        let (wanted, used, all) = (&self.pod.request, &node.requested, &node.allocatable);
        compare(wanted.milli_cpu, used.milli_cpu, all.milli_cpu, &|| Cow::Borrowed("Insufficient cpu"));
        compare(wanted.memory, used.memory, all.memory, &|| Cow::Borrowed("Insufficient memory"));
        compare(wanted.ephemeral_storage, used.ephemeral_storage, all.ephemeral_storage, &|| {
            Cow::Borrowed("Insufficient ephemeral-storage")
        });
        let counted = |name: &str| {
            (all.other(name) > 0 || !self.by_claims.contains(&name)) && !self.ignored.is_some_and(|ignored| ignored.has(name))
        };
        for (name, amount) in wanted.others.iter().filter(|(name, _)| counted(name)) {
            compare(*amount, used.other(name), all.other(name), &|| Cow::Owned(format!("Insufficient {name}")));
        }
        verdict
    }
}

/// Used of a resource after the pod came, and allocatable; none of what only other pods ask for.
fn usage(pod: &PodInfo, node: &NodeInfo, name: &str) -> Option<(i64, i64)> {
    let (wanted, used, all) = (&pod.assumed_request, &node.assumed_requested, &node.allocatable);
    Some(match name {
        "cpu" => (used.milli_cpu.saturating_add(wanted.milli_cpu), all.milli_cpu),
        "memory" => (used.memory.saturating_add(wanted.memory), all.memory),
        "ephemeral-storage" => (used.ephemeral_storage.saturating_add(wanted.ephemeral_storage), all.ephemeral_storage),
        _ if wanted.other(name) == 0 => return None,
        _ => (used.other(name).saturating_add(wanted.other(name)), all.other(name)),
    })
}

struct Allocated<'a> {
    pod: &'a PodInfo,
    fit: Cow<'a, profile::Fit>,
}

impl Score for Allocated<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.fit.score(|name| usage(self.pod, node, name))
    }
}

pub(super) struct NodeResourcesBalancedAllocation;

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score<'a>(&self, pod: &'a PodInfo, _: &'a Cluster, _: &'a Attempt, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        // A pod that asks for nothing unbalances nothing.
        let asks = pod.request.milli_cpu > 0 || pod.request.memory > 0;
        asks.then(|| Box::new(Balanced { pod }) as Box<dyn Score>)
    }
}

struct Balanced<'a> {
    pod: &'a PodInfo,
}

impl Score for Balanced<'_> {
    /// What the pod changes (upstream's `balancedResourceScorer`, in whole numbers as there): 75 where it changes nothing, less where the node is
    /// less balanced with it, and more where it is more balanced.
    fn score(&self, node: &NodeInfo) -> i64 {
        let (wanted, used, all) = (&self.pod.request, &node.requested, &node.allocatable);
        let with = balance([
            (used.milli_cpu.saturating_add(wanted.milli_cpu), all.milli_cpu),
            (used.memory.saturating_add(wanted.memory), all.memory),
        ]);
        let without = balance([(used.milli_cpu, all.milli_cpu), (used.memory, all.memory)]);
        MAX_SCORE / 2 + (MAX_SCORE / 2 + with - without) / 2
    }
}

/// How alike the shares are that are used of two resources, each as what is used and what there is: from 50 to the highest score. A resource that
/// there is none of is not counted.
fn balance([one, other]: [(i64, i64); 2]) -> i64 {
    let share = |(used, all): (i64, i64)| (all > 0).then(|| (used as f64 / all as f64).min(1.0));
    // The standard deviation of two numbers is half their distance.
    let deviation = share(one).zip(share(other)).map_or(0.0, |(one, other)| (one - other).abs() / 2.0);
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}
