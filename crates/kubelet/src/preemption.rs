//! Which pods make room for a critical one (docs "Guaranteed Scheduling For Critical Add-On Pods"). Pure.
//!
//! Of those that may go, as few as possible are chosen, and of these the ones that asked for least; guaranteed pods go only for what the others
//! do not give, and burstable ones only for what best-effort ones do not give.

use crate::admission::{Shortage, requests, shown};
use crate::pod::state::Rejection;
use crate::resources::{Qos, qos};
use crate::spec::Model;

/// All pods that may go would not be enough: what is missing even then, as resource and thousandths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotEnough(Vec<(String, i64)>);

impl From<NotEnough> for Rejection {
    fn from(NotEnough(missing): NotEnough) -> Self {
        let missing: Vec<_> =
            missing.iter().map(|(name, amount)| format!("(res: {name}, q: {}), ", shown(name, *amount))).collect();
        let message = format!(
            "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: \
             no set of running pods found to reclaim resources: [{}]",
            missing.concat()
        );
        ("UnexpectedAdmissionError".to_owned(), message)
    }
}

/// A pod that may go.
struct Candidate<'a> {
    pod: &'a Model,
    /// What it would give of each resource that is short, thousandths.
    gives: Vec<i64>,
    /// Memory and CPU that it asks for: of two that give as much, the smaller one goes.
    size: (i64, i64),
}

impl<'a> Candidate<'a> {
    fn new(pod: &'a Model, shortages: &[Shortage]) -> Self {
        let asked = requests(pod);
        let of = |name: &str| asked.get(name).copied().unwrap_or(0);
        Self { pod, gives: shortages.iter().map(|shortage| of(&shortage.resource)).collect(), size: (of("memory"), of("cpu")) }
    }

    /// How far it is from giving all that is missing: 0 is all, each resource counts at most 1.
    fn distance(&self, missing: &[i64]) -> f64 {
        let lacking = missing.iter().zip(&self.gives).filter(|(missing, gives)| missing > gives);
        lacking.map(|(missing, gives)| ((missing - gives) as f64 / *missing as f64).powi(2)).sum()
    }
}

/// What is missing still when these have gone.
fn left<'a, 'b: 'a>(missing: &[i64], gone: impl IntoIterator<Item = &'a Candidate<'b>>) -> Vec<i64> {
    gone.into_iter().fold(missing.to_vec(), |left, candidate| {
        left.iter().zip(&candidate.gives).map(|(left, gives)| left.saturating_sub(*gives).max(0)).collect()
    })
}

/// Takes out of `candidates` those that give together what is missing, if all of them do.
fn choose<'a>(mut candidates: Vec<Candidate<'a>>, mut missing: Vec<i64>) -> Vec<Candidate<'a>> {
    let mut chosen = Vec::new();
    while missing.iter().any(|amount| *amount > 0) {
        let near = |(_, a): &(usize, &Candidate<'_>), (_, b): &(usize, &Candidate<'_>)| {
            a.distance(&missing).total_cmp(&b.distance(&missing)).then(a.size.cmp(&b.size))
        };
        let Some(index) = candidates.iter().enumerate().min_by(near).map(|(index, _)| index) else { break };
        let candidate = candidates.swap_remove(index);
        missing = left(&missing, [&candidate]);
        chosen.push(candidate);
    }
    chosen
}

/// Whether a pod may be ended for a critical one: no critical pod is, but for one that is more important.
fn may_go(pod: &Model, critical: &Model) -> bool {
    let (theirs, own) = (pod.spec().priority, critical.spec().priority);
    !pods::state::is_critical(&pod.pod) || own.zip(theirs).is_some_and(|(own, theirs)| own > theirs)
}

/// The pods of `others` that have to go so that `critical` has what it is short of.
///
/// # Errors
/// There would not be enough without all of them either.
pub fn victims<'a>(critical: &Model, others: &'a [Model], shortages: &[Shortage]) -> Result<Vec<&'a Model>, NotEnough> {
    let missing: Vec<i64> = shortages.iter().map(Shortage::missing).collect();
    let of = |class: Qos| -> Vec<Candidate<'a>> {
        let pods = others.iter().filter(|pod| may_go(pod, critical) && qos(pod) == class);
        pods.map(|pod| Candidate::new(pod, shortages)).collect()
    };
    let (best_effort, burstable, guaranteed) = (of(Qos::BestEffort), of(Qos::Burstable), of(Qos::Guaranteed));
    let without = left(&missing, best_effort.iter().chain(&burstable).chain(&guaranteed));
    if without.iter().any(|amount| *amount > 0) {
        let named = shortages.iter().zip(without).filter(|(_, amount)| *amount > 0);
        return Err(NotEnough(named.map(|(shortage, amount)| (shortage.resource.clone(), amount)).collect()));
    }
    let guaranteed = choose(guaranteed, left(&missing, best_effort.iter().chain(&burstable)));
    let burstable = choose(burstable, left(&missing, best_effort.iter().chain(&guaranteed)));
    let best_effort = choose(best_effort, left(&missing, burstable.iter().chain(&guaranteed)));
    Ok(best_effort.into_iter().chain(burstable).chain(guaranteed).map(|candidate| candidate.pod).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    const CRITICAL: i32 = 2_000_000_000;

    /// A pod of this name and priority; `amounts` are CPU and memory that it asks for, and where it is `guaranteed` also its limits.
    fn pod(name: &str, priority: i32, amounts: Option<(&str, &str)>, is_guaranteed: bool) -> Model {
        let requests = amounts.map(|(cpu, memory)| json!({"cpu": cpu, "memory": memory}));
        let limits = requests.clone().filter(|_| is_guaranteed);
        let spec =
            json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]});
        let pod: Value = json!({"metadata": {"name": name, "uid": name}, "spec": spec});
        Model::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    fn best_effort(name: &str) -> Model {
        pod(name, 0, None, false)
    }

    fn burstable(name: &str, cpu: &str, memory: &str) -> Model {
        pod(name, 0, Some((cpu, memory)), false)
    }

    fn guaranteed(name: &str, cpu: &str, memory: &str) -> Model {
        pod(name, 0, Some((cpu, memory)), true)
    }

    /// What has to go so that so much more is free.
    #[track_caller]
    fn check(others: &[Model], missing: &[(&str, i64)], expected: Result<&str, &str>) {
        let shortage = |&(resource, amount): &(&str, i64)| Shortage {
            resource: resource.to_owned(),
            requested: if resource == "cpu" { amount } else { amount * 1000 },
            used: 0,
            capacity: 0,
        };
        let shortages: Vec<_> = missing.iter().map(shortage).collect();
        let critical = pod("critical", CRITICAL, None, false);
        let names =
            victims(&critical, others, &shortages).map(|pods| pods.iter().map(|pod| pod.name()).collect::<Vec<_>>().join(" "));
        let expected = expected.map(str::to_owned).map_err(|missing| {
            format!("Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [{missing}]")
        });
        assert_eq!(names.map_err(|error| Rejection::from(error).1), expected);
    }

    /// "minimal impact for guaranteed pods > minimal impact for burstable pods > minimal impact for besteffort pods"
    #[test]
    fn classes_of_service_are_spared_in_their_order() {
        let all = [best_effort("best"), burstable("burst", "100m", "100Mi"), guaranteed("sure", "100m", "100Mi")];
        check(&all, &[], Ok(""));
        check(&all, &[("pods", 1)], Ok("best"));
        check(&all, &[("pods", 2)], Ok("best burst"));
        check(&all, &[("cpu", 100)], Ok("burst"));
        check(&all, &[("cpu", 101)], Ok("burst sure"));
        check(&all, &[("cpu", 100), ("pods", 2)], Ok("best burst"));
        check(&all, &[("cpu", 201)], Err("(res: cpu, q: 1), "));
        check(&all, &[("pods", 4), ("memory", 1)], Err("(res: pods, q: 1), "));
    }

    /// "minimal impact is defined as follows: fewest pods evicted > fewest total requests of pods"
    #[test]
    fn few_pods_go_and_small_ones() {
        let pods =
            [burstable("small", "100m", "100Mi"), burstable("medium", "200m", "200Mi"), burstable("large", "300m", "300Mi")];
        check(&pods, &[("cpu", 50)], Ok("small"));
        check(&pods, &[("cpu", 150)], Ok("medium"));
        check(&pods, &[("cpu", 300)], Ok("large"));
        check(&pods, &[("cpu", 400)], Ok("large small"));
        check(&pods, &[("cpu", 600)], Ok("large medium small"));
        // Each resource counts as much as the other.
        let mixed = [burstable("cpu", "1", "1Mi"), burstable("memory", "1m", "1Gi"), burstable("both", "600m", "600Mi")];
        check(&mixed, &[("cpu", 500), ("memory", 500 << 20)], Ok("both"));
        check(&mixed, &[("cpu", 1000), ("memory", 1 << 30)], Ok("both memory cpu"));
    }

    #[test]
    fn critical_pods_go_for_more_important_ones_only() {
        let asking = |name: &str, priority: i32| pod(name, priority, Some(("100m", "1Mi")), false);
        check(&[asking("same", CRITICAL)], &[("cpu", 100)], Err("(res: cpu, q: 100), "));
        check(&[asking("below", CRITICAL - 1), asking("above", CRITICAL + 1000)], &[("cpu", 100)], Ok("below"));
        let node_critical = pod("n", CRITICAL + 1000, None, false);
        assert!(
            may_go(&asking("cluster", CRITICAL), &node_critical) && !may_go(&asking("same", CRITICAL + 1000), &node_critical)
        );
    }
}
