//! Room for a pod that found no node, made by removing less important ones (upstream's DefaultPreemption).
//!
//! Nothing is removed here: on each node where only other pods are in the way, all of lower priority are taken out of the
//! picture, and those that need not go are put back, the most important first. What is left are the victims; the node whose
//! victims matter least is chosen. The picture is the same afterwards.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;

use crate::attempt::Attempt;
use crate::cluster::Cluster;
use crate::extenders::protocol::Victims;
use crate::filtering::{Filters, FitError};
use crate::framework::{Reason, Verdict};
use crate::pod::PodInfo;

/// Of many nodes this share is tried, and never fewer than the minimum.
const CANDIDATES_PERCENT: usize = 10;
const MIN_CANDIDATES: usize = 100;

/// What to do to give a pod room.
#[derive(Debug)]
pub(crate) struct Preemption {
    pub(crate) node: String,
    /// The most important first.
    pub(crate) victims: Vec<Arc<PodInfo>>,
    /// How many of them a disruption budget holds.
    held: usize,
    /// All pods there that are less important.
    pub(crate) lower: Vec<Arc<PodInfo>>,
}

impl Preemption {
    #[cfg(test)]
    pub(crate) fn of(node: &str, victims: Vec<Arc<PodInfo>>) -> Self {
        Self { node: node.to_owned(), lower: victims.clone(), victims, held: 0 }
    }

    /// By names, as extenders are asked.
    pub(crate) fn named(&self) -> Victims {
        let uids = self.victims.iter().map(|victim| victim.uid().to_owned()).collect();
        Victims { node: self.node.clone(), uids, held: self.held }
    }

    /// The first pod of an extender's victims that is not there, or not less important, with the node.
    pub(crate) fn stranger(&self, victims: &Victims) -> Option<(String, String)> {
        let is_there = |uid: &String| self.lower.iter().any(|pod| pod.uid() == uid);
        let stranger = victims.uids.iter().find(|uid| !is_there(uid))?;
        Some((stranger.clone(), self.node.clone()))
    }

    /// With an extender's victims in place of its own.
    pub(crate) fn confined(mut self, victims: &Victims) -> Option<Self> {
        self.victims = self.lower.iter().filter(|pod| victims.uids.iter().any(|uid| uid == pod.uid())).cloned().collect();
        self.held = victims.held;
        (!self.victims.is_empty()).then_some(self)
    }
}

/// Why nothing can be done, in upstream's words.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    /// What was promised to the pod before cannot be kept.
    pub(crate) hopeless: bool,
}

/// The room that can be made for `pod`, which `error` refused, at least one. `offset` picks where to begin among many nodes.
pub(crate) fn candidates(
    pod: &PodInfo,
    cluster: &mut Cluster,
    attempt: &Attempt,
    error: &FitError,
    offset: usize,
) -> Result<Vec<Preemption>, Refusal> {
    if let Some(message) = ineligible(pod, cluster, error) {
        return Err(Refusal { message: message.to_owned(), hopeless: false });
    }
    let nodes = &error.occupied;
    let enough = (nodes.len() * CANDIDATES_PERCENT / 100).max(MIN_CANDIDATES);
    let mut refused = FitError::of(error.nodes());
    refused.because([Reason::Borrowed("Preemption is not helpful for scheduling")].into_iter(), error.nodes() - nodes.len());
    let mut found = Vec::new();
    for index in 0..nodes.len() {
        let node = &nodes[(index + offset) % nodes.len()];
        match victims(pod, cluster, attempt, node) {
            Ok(preemption) => found.push(preemption),
            Err(reasons) => refused.because(reasons.into_iter(), 1),
        }
        // Of nodes that all break a budget none is good enough while there are others.
        if found.len() >= enough && found.iter().any(|one| one.held == 0) {
            break;
        }
    }
    if found.is_empty() { Err(Refusal { message: refused.to_string(), hopeless: true }) } else { Ok(found) }
}

/// The one that does the least harm.
pub(crate) fn least_harmful(candidates: Vec<Preemption>) -> Option<Preemption> {
    candidates.into_iter().min_by_key(harm)
}

/// The pods of those that are less important, the most important first.
fn lower_than(pod: &PodInfo, there: &[Arc<PodInfo>]) -> Vec<Arc<PodInfo>> {
    let mut lower: Vec<Arc<PodInfo>> = there.iter().filter(|other| other.priority < pod.priority).cloned().collect();
    lower.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.uid().cmp(b.uid())));
    lower
}

fn rank(pod: &PodInfo) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.priority), started(pod))
}

/// Why `pod` must not make others go.
fn ineligible(pod: &PodInfo, cluster: &Cluster, error: &FitError) -> Option<&'static str> {
    if pod.spec().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let promised = cluster.nominations.node_of(pod.uid()).and_then(|name| cluster.node(name))?;
    let leaves = |other: &Arc<PodInfo>| other.priority < pod.priority && other.is_leaving;
    let waits = error.occupied.contains(&promised.name) && promised.pods.iter().any(leaves);
    waits.then_some("not eligible due to a terminating pod on the nominated node.")
}

/// The pods that must leave `name` for `pod`, at least one; the reasons if even all of lower
/// priority are not enough. Those that a budget holds are put back first.
fn victims(pod: &PodInfo, cluster: &mut Cluster, attempt: &Attempt, name: &str) -> Result<Preemption, Vec<Reason>> {
    let lower = cluster.node(name).map(|node| lower_than(pod, &node.pods)).unwrap_or_default();
    for other in &lower {
        cluster.remove_pod(other.uid());
    }
    let mut reasons = Vec::new();
    let mut victims = Vec::new();
    let enough = !lower.is_empty() && fits(pod, cluster, attempt, name, &mut reasons);
    let (held, free) = cluster.budgets.divide(&lower);
    for other in held.iter().chain(&free) {
        cluster.place(other.clone(), name);
        if enough && !fits(pod, cluster, attempt, name, &mut Vec::new()) {
            cluster.remove_pod(other.uid());
            victims.push(other.clone());
        }
    }
    let held = victims.iter().filter(|victim| held.iter().any(|one| one.uid() == victim.uid())).count();
    victims.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.uid().cmp(b.uid())));
    for victim in &victims {
        cluster.place(victim.clone(), name);
    }
    if victims.is_empty() {
        let nobody = || vec![Reason::Borrowed("No preemption victims found for incoming pod")];
        return Err(if reasons.is_empty() { nobody() } else { reasons });
    }
    Ok(Preemption { node: name.to_owned(), victims, held, lower })
}

fn fits(pod: &PodInfo, cluster: &Cluster, attempt: &Attempt, name: &str, reasons: &mut Vec<Reason>) -> bool {
    let filters = Filters::prepare(pod, cluster, attempt);
    cluster.node(name).is_some_and(|node| filters.check(node, reasons).0 == Verdict::Fits)
}

fn started(pod: &PodInfo) -> Timestamp {
    // Not started yet is younger than everything.
    pod.started.unwrap_or(Timestamp::MAX)
}

/// Orders preemptions: how many victims a budget holds, the highest priority among the victims, the sum of their priorities (none below zero), their
/// number, and last how long the most important have been running.
fn harm(one: &Preemption) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
    let highest = one.victims.iter().map(|pod| pod.priority).max().unwrap_or(i32::MIN);
    let sum = one.victims.iter().map(|pod| i64::from(pod.priority) + i64::from(i32::MAX) + 1).sum();
    let earliest = one.victims.iter().filter(|pod| pod.priority == highest).map(|pod| started(pod)).min();
    (one.held, highest, sum, one.victims.len(), Reverse(earliest.unwrap_or(Timestamp::MAX)))
}

#[cfg(test)]
mod tests;
