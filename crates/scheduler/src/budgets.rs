//! How many pods may be disrupted, as the PodDisruptionBudgets say: preemption prefers victims that no budget holds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use apimachinery::labels::Selector;
use client::{Change, Key};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::pod::PodInfo;

#[derive(Debug)]
struct Budget {
    selector: Selector,
    allowed: i32,
    /// Names of pods whose disruption is counted already.
    disrupted: HashSet<String>,
}

/// All budgets.
#[derive(Debug, Default)]
pub(crate) struct Budgets(HashMap<Key, Budget>);

impl Budgets {
    pub(crate) fn changed(&mut self, change: &Change<PodDisruptionBudget>) {
        let budget = change.new.as_deref().and_then(compiled);
        match budget {
            Some(budget) => drop(self.0.insert(change.key.clone(), budget)),
            None => drop(self.0.remove(&change.key)),
        }
    }

    /// Of pods that would all go, in this order, those that a budget holds, and the others.
    pub(crate) fn divide(&self, pods: &[Arc<PodInfo>]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
        let mut left: HashMap<&Key, i32> = HashMap::new();
        let mut is_held = |pod: &Arc<PodInfo>| {
            let mut held = false;
            for (key, budget) in self.0.iter().filter(|(key, budget)| key.ns() == pod.namespace() && budget.concerns(pod)) {
                let left = left.entry(key).or_insert(budget.allowed);
                *left -= 1;
                held |= *left < 0;
            }
            held
        };
        pods.iter().cloned().partition(|pod| is_held(pod))
    }
}

/// None when it selects nothing.
fn compiled(budget: &PodDisruptionBudget) -> Option<Budget> {
    let selector = Selector::from_label_selector(budget.spec.as_ref()?.selector.as_ref()).ok()?;
    let status = budget.status.as_ref();
    let disrupted = status.and_then(|status| status.disrupted_pods.as_ref()).into_iter().flatten();
    let allowed = status.and_then(|status| status.disruptions_allowed).unwrap_or(0);
    Some(Budget { selector, allowed, disrupted: disrupted.map(|(name, _)| name.clone()).collect() })
}

impl Budget {
    /// As upstream's preemption sees it: a selector of everything concerns nobody, nor does any a pod without labels.
    fn concerns(&self, pod: &PodInfo) -> bool {
        let labelled = pod.labels().as_ref().is_some_and(|labels| !labels.is_empty());
        let known = self.disrupted.contains(pod.name());
        labelled && !self.selector.is_everything() && !known && self.selector.matches(pod.labels())
    }
}
