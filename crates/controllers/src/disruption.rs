//! Budgets of disruption: how many pods each of them can lose now (KEP-85; page "Disruptions"). The API server spends what stands in
//! a budget's status, this controller says how much that is.

mod plan;
mod scale;
mod stale;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use apimachinery::labels::Selector;
use client::Api;
use client::events::Type;
use client::kube::api::PostParams;
use client::{Entry, Informer, Informers, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use parking_lot::Mutex;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::meta;
use plan::Outcome;
use scale::Scales;
pub(crate) use stale::StaleTargets;

pub(crate) struct Disruption {
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    scales: Scales,
    /// Changed pods with more than one budget, by the first of these, which has yet to tell of it.
    shared: Arc<Mutex<HashMap<Key, HashSet<Key>>>>,
}

impl Disruption {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { budgets: informers.of(), pods: informers.of(), scales: Scales::new(informers), shared: Arc::default() }
    }

    /// Nobody can evict a pod with several budgets, which its owner learns from an event, as upstream's `getPdbForPod` has it.
    fn tell_of_shared(&self, cx: &Cx, key: &Key) {
        let Some(pods) = self.shared.lock().remove(key) else { return };
        for pod in pods.iter().filter_map(|pod| self.pods.by_key(pod)) {
            let (namespace, name) = (key.ns(), meta::name(pod.as_ref()));
            let text =
                format!("Pod {namespace:?}/{name:?} matches multiple PodDisruptionBudgets.  Chose {:?} arbitrarily.", key.name);
            cx.events.about(pod.as_ref(), Type::Warning, "MultiplePodDisruptionBudgets", text);
        }
    }

    fn pods_of(&self, budget: &PodDisruptionBudget) -> Vec<Arc<Pod>> {
        let Some(selector) = selector(budget) else { return Vec::new() };
        self.pods.labelled(meta::namespace(budget), |labels| selector.matches(&meta::Labels(labels)))
    }
}

/// What the budget selects; nothing when it has no selector.
fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    let selector = budget.spec.as_ref()?.selector.as_ref()?;
    Selector::from_label_selector(Some(selector)).ok()
}

impl Controller for Disruption {
    const NAME: &'static str = "disruption";
    const ACCOUNT: &'static str = "disruption-controller";

    fn sources(&self) -> Vec<Source> {
        let (budgets, shared) = (self.budgets.clone(), self.shared.clone());
        let of_pods = Source::stepped(&self.pods, move |step, queue| {
            let mut first: Option<Key> = None;
            let mut several = false;
            for budget in budgets.in_namespace(step.key().ns()) {
                let Some(selector) = selector(&budget) else { continue };
                let selects = |pod: &Entry<Pod>| selector.matches(&meta::Labels(pod.labels()));
                if step.new.as_ref().is_some_and(selects) {
                    several |= first.is_some();
                    first.get_or_insert_with(|| Key::of(budget.as_ref()));
                }
                if step.entries().any(selects) {
                    queue.add(Key::of(budget.as_ref()));
                }
            }
            if let Some(first) = first.filter(|_| several) {
                shared.lock().entry(first.clone()).or_default().insert(step.key().clone());
                // Anew: the look that its key stood for may be over.
                queue.add(first);
            }
        });
        let mut sources = vec![Source::own(&self.budgets), of_pods];
        sources.extend(self.scales.sources(&self.budgets));
        sources
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        self.tell_of_shared(cx, key);
        let Some(budget) = self.budgets.by_key(key) else { return Ok(Action::Done) };
        let (pods, now) = (self.pods_of(&budget), Timestamp::now());
        if pods.is_empty() {
            cx.events.about(budget.as_ref(), Type::Normal, "NoPods", "No matching pods found");
        }
        let scale = self.scales.of(&cx.client, &pods).await;
        match plan::expected(&budget, pods.len(), scale.as_ref()) {
            Ok(expected) => {
                if plan::misses(&budget, &pods) {
                    let selector = selector(&budget).map(|selector| selector.to_string()).unwrap_or_default();
                    let text = format!(
                        "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value."
                    );
                    cx.events.about(budget.as_ref(), Type::Warning, "UnmanagedPods", text);
                }
                let Outcome { status, recheck, undeleted } = plan::status(&budget, &pods, expected, now);
                for pod in undeleted {
                    let text = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
                    cx.events.about(pod.as_ref(), Type::Warning, "NotDeleted", text);
                }
                write(cx, key, &budget, status).await?;
                Ok(Action::after(recheck))
            }
            Err(error) => {
                let (reason, message) = ("CalculateExpectedPodCountFailed", error.to_string());
                cx.events.about(
                    budget.as_ref(),
                    Type::Warning,
                    reason,
                    format!("Failed to calculate the number of expected pods: {message}"),
                );
                write(cx, key, &budget, plan::failed(&budget, &message, now)).await?;
                Err(Error::Other(message))
            }
        }
    }
}

async fn write(cx: &Cx, key: &Key, budget: &PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> Result<(), Error> {
    if budget.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let next = PodDisruptionBudget { status: Some(status), ..budget.clone() };
    let api: Api<PodDisruptionBudget> = Api::namespaced(cx.client.clone(), key.ns());
    api.replace_status(&key.name, &PostParams::default(), &next).await?;
    Ok(())
}
