//! Pods that extenders are interested in: they are asked in the background, one pod at a time each, while the loop goes on with others.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::events::Type;
use futures::FutureExt;
use tokio::time::Instant;

use super::Scheduler;
use super::panics::Stage;
use crate::api::{Api, Bind, BindError, SCHEDULER_ERROR};
use crate::attempt::Attempt;
use crate::extenders::call::{CallError, Extender};
use crate::extenders::consult::Consulted;
use crate::extenders::protocol::Victims;
use crate::extenders::settings::Settings;
use crate::extenders::state::Unseen;
use crate::filtering::FitError;
use crate::metrics::Outcome;
use crate::pod::PodInfo;
use crate::preemption::{self, Preemption, Refusal};
use crate::queue::{Lane, Trial};

/// The pod as extenders get it.
fn json(pod: &PodInfo) -> Vec<u8> {
    pod.object().and_then(|pod| serde_json::to_vec(pod).ok()).unwrap_or_else(|| b"null".to_vec())
}

impl Scheduler {
    /// Looks for nodes and asks what the pod's extenders say of them.
    pub(super) fn ask_about_nodes(&mut self, pod: Arc<PodInfo>, trial: Trial, attempt: &Attempt) {
        let mut candidates = match self.chooser.candidates(&pod, &mut self.cluster, attempt) {
            Ok(candidates) => candidates,
            Err(error) => return self.no_node(&pod, trial, attempt, error),
        };
        let asked = self.extenders.ask(trial.lane);
        let error = std::mem::take(&mut candidates.error);
        let ask = async move {
            let result = asked.about_nodes(&json(&pod), candidates).await;
            Consulted::Nodes { pod, trial, error, result }
        };
        self.consulting.push(ask);
    }

    /// Asks the pod's extenders about room that could be made for it.
    pub(super) fn ask_about_victims(&mut self, pod: Arc<PodInfo>, trial: Trial, error: FitError, candidates: Vec<Preemption>) {
        let asked = self.extenders.ask(trial.lane);
        let ask = async move {
            let result = asked.about_victims(&json(&pod), &candidates).await;
            Consulted::Victims { pod, trial, error, candidates, result }
        };
        self.consulting.push(ask);
    }

    /// The answers are there. Meanwhile the pod may have gone, and nodes may have changed.
    pub(super) fn consulted(&mut self, consulted: Consulted) {
        match consulted {
            Consulted::Nodes { pod, trial, mut error, result } => {
                self.extenders.done(trial.lane);
                let Some(pod) = self.queue.tried(&pod, trial) else { return };
                let opinion = match result {
                    Ok(opinion) => opinion,
                    Err(why) => return self.not_answered(&pod, trial, &why),
                };
                error.refused_by_extenders(&opinion.refused);
                let (start, attempt) = (Instant::now(), Attempt::default());
                let choice = self.chooser.choose_of(&pod, &mut self.cluster, &attempt, &opinion, error);
                self.metrics.decided(start.elapsed());
                self.chosen(pod, trial, &attempt, choice);
                self.cluster.terms.attempted();
            }
            Consulted::Victims { pod, trial, error, candidates, result } => {
                self.extenders.done(trial.lane);
                let Some(pod) = self.queue.tried(&pod, trial) else { return };
                let made = room(candidates, result);
                self.refused(&pod, trial, error, Some(made));
            }
        }
    }

    /// An extender that must not fail has failed: the pod is tried again after its back-off.
    fn not_answered(&mut self, pod: &Arc<PodInfo>, trial: Trial, why: &CallError) {
        let message = why.to_string();
        tracing::warn!(pod = %pod.key(), error = message, "an extender fails, again later");
        self.tell(pod, pod, (Type::Warning, "FailedScheduling"), message.as_str());
        self.metrics.attempted(pod.scheduler(), Outcome::Error, trial);
        self.queue.failed(&pod.key(), 0, Instant::now());
        let given_up = self.cluster.nominations.withdraw(pod.uid());
        self.given_up(given_up);
        self.writes.extend(self.api.report(pod, SCHEDULER_ERROR, message, None));
    }

    /// Extenders have said for too long that these are bound, and they are not.
    pub(super) fn not_bound(&mut self, overdue: Vec<Unseen>) {
        for Unseen { pod, node, trial, .. } in overdue {
            let panics = self.panics.clone();
            panics.about(pod.uid(), Stage::Tried, || self.binding_failed(&pod, &node, trial, &BindError::NotShown));
        }
    }

    /// Whether the pod's extenders are asked about nodes.
    pub(super) fn is_asked_about_nodes(&self, lane: Lane) -> bool {
        self.extenders.any(lane, Settings::looks_at_nodes)
    }

    /// Whether they are asked about room.
    pub(super) fn is_asked_about_victims(&self, lane: Lane) -> bool {
        self.extenders.any(lane, |settings| !settings.preempt_verb.is_empty())
    }
}

/// The room that is made, of what extenders have left of the candidates.
fn room(candidates: Vec<Preemption>, result: Result<Vec<Victims>, CallError>) -> Result<Preemption, Refusal> {
    let refusal = |message: String| Refusal { message, hopeless: false };
    let left = result.map_err(|why| refusal(why.to_string()))?;
    let chosen = candidates.into_iter().filter_map(|candidate| {
        let victims = left.iter().find(|victims| victims.node == candidate.node)?;
        candidate.confined(victims)
    });
    preemption::least_harmful(chosen.collect()).ok_or_else(|| refusal("no candidate node for preemption".to_owned()))
}

impl Api {
    /// Has the pod bound by an extender, which may be passed over when it fails.
    pub(super) fn bind_by(&self, binder: Arc<Extender>, pod: &Arc<PodInfo>, node: &str) -> Bind {
        let (otherwise, pod, node) = (self.binding(pod, node), pod.clone(), node.to_owned());
        async move {
            match binder.bind(&pod, &node).await {
                Err(error) if binder.settings.ignorable => {
                    tracing::warn!(pod = %pod.key(), extender = binder.url(), %error, "an extender that may fail does not bind, binding without it");
                    otherwise.await
                }
                other => Ok(other?),
            }
        }
        .boxed()
    }
}
