//! Horizontal pod autoscaling: the size of a Deployment, or of anything with a scale, follows metrics (upstream:
//! `pkg/controller/podautoscaler`; page "Horizontal Pod Autoscaling").
//!
//! Each autoscaler is looked at every ten seconds, and when its specification changes. What metrics ask for (`replicas`) is one
//! question, what is set (`normalize`) another; both are functions.

mod decide;
mod metrics;
mod normalize;
mod prometheus;
mod replicas;
mod sources;
mod turn;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::labels::Selector;
use apimachinery::quantity::Quantity;
use base::budgets::shares::Shares;
use client::Api;
use client::events::Type;
use client::kube::api::PostParams;
use client::{Informer, Informers, Key};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscaler};
use k8s_openapi::api::core::v1::{Pod, Service};
use parking_lot::Mutex;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::meta;
use crate::scale::{self, Resources};
use metrics::Evaluation;
use normalize::{Memory, Now};
use replicas::{Scaled, Tolerances};
use sources::{About, Pages, Sources};
use turn::{Condition, Turn};

/// Time between two looks. Upstream takes 15 seconds; this leaves room to react within them.
const PERIOD: Duration = Duration::from_secs(10);
/// How far from its target a metric may be without a change (`--horizontal-pod-autoscaler-tolerance`).
const TOLERANCE: f64 = 0.1;
/// Looks at autoscalers of one namespace at the same time. A look may wait for pods that do not answer, and others are not to wait for it.
const SHARE: usize = 4;
/// How soon it is tried again when the namespace has its share.
const TURN: Duration = Duration::from_secs(1);

pub(crate) struct Autoscaler {
    scalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    services: Informer<Service>,
    sources: Sources,
    resources: Resources,
    memory: Mutex<HashMap<Key, Memory>>,
    /// Of the pods that each autoscaler scales.
    selectors: Mutex<HashMap<Key, Selector>>,
    /// Looks under way, by namespace.
    looks: Shares,
}

/// What a look led to.
struct Outcome {
    current: i32,
    /// None when it is as unknown as before.
    desired: Option<i32>,
    rescaled: bool,
}

/// What is to be set, and why it is to change.
struct Wish {
    replicas: i32,
    reason: String,
}

impl Autoscaler {
    pub(crate) fn new(informers: &Informers) -> Self {
        let (pods, services): (Informer<Pod>, Informer<Service>) = (informers.of(), informers.of());
        Self {
            scalers: informers.of(),
            sources: Sources::new(pods.clone(), services.clone()),
            pods,
            services,
            resources: Resources::default(),
            memory: Mutex::default(),
            selectors: Mutex::default(),
            looks: Shares::metered("autoscaler_looks", SHARE),
        }
    }

    /// Looks at the target and sets its size; none when there is nothing to say of sizes.
    async fn look(&self, key: &Key, turn: &mut Turn<'_>) -> Option<Outcome> {
        let spec = &turn.scaler.spec;
        let found = self.resources.scale(&turn.cx.client, key.ns(), &spec.scale_target_ref).await;
        let (api, scale) = match found {
            Ok(found) => found,
            Err(error) => {
                let message = format!("the HPA controller was unable to get the target's current scale: {error}");
                turn.fail(Condition::AbleToScale, ("FailedGetScale", &error.to_string()), message);
                return None;
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        turn.set(Condition::AbleToScale, true, "SucceededGetScale", message);
        let current = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        self.memory.lock().entry(key.clone()).or_default().begin(turn.passed, current);
        let unchanged = Outcome { current, desired: Some(current), rescaled: false };
        let min = spec.min_replicas.unwrap_or(1);
        let wish = if current == 0 && min != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            turn.set(Condition::ScalingActive, false, "ScalingDisabled", message);
            return Some(unchanged);
        } else if current > spec.max_replicas {
            Wish { replicas: spec.max_replicas, reason: "Current number of replicas above Spec.MaxReplicas".to_owned() }
        } else if current < min {
            Wish { replicas: min, reason: "Current number of replicas below Spec.MinReplicas".to_owned() }
        } else {
            match self.by_metrics(key, turn, &scale, (current, min)).await {
                Some(wish) => wish,
                None => return Some(Outcome { desired: None, ..unchanged }),
            }
        };
        if wish.replicas == current {
            return Some(unchanged);
        }
        let resized = scale::resize(&api, scale, wish.replicas).await;
        match resized {
            Ok(_) => {
                let message = format!("the HPA controller was able to update the target scale to {}", wish.replicas);
                turn.set(Condition::AbleToScale, true, "SucceededRescale", message);
                let event = format!("New size: {}; reason: {}", wish.replicas, wish.reason);
                turn.cx.events.about(turn.scaler, Type::Normal, "SuccessfulRescale", event);
                self.memory.lock().entry(key.clone()).or_default().scaled(turn.passed, current, wish.replicas);
                Some(Outcome { current, desired: Some(wish.replicas), rescaled: true })
            }
            Err(error) => {
                let error = client::why(&error);
                let event = format!("New size: {}; reason: {}; error: {error}", wish.replicas, wish.reason);
                turn.cx.events.about(turn.scaler, Type::Warning, "FailedRescale", event);
                let message = format!("the HPA controller was unable to update the target scale: {error}");
                turn.set(Condition::AbleToScale, false, "FailedUpdateScale", message);
                Some(Outcome { desired: None, ..unchanged })
            }
        }
    }

    /// What the metrics lead to; none when they say nothing.
    async fn by_metrics(&self, key: &Key, turn: &mut Turn<'_>, scale: &Scale, (current, min): (i32, i32)) -> Option<Wish> {
        let spec = &turn.scaler.spec;
        let text = scale.status.as_ref().and_then(|status| status.selector.clone()).unwrap_or_default();
        let Some(pods) = self.selected(key, turn, &text) else {
            turn.status.current_metrics = Some(Vec::new());
            return None;
        };
        let specs = spec.metrics.as_deref().unwrap_or_default();
        let pages = Pages::of(specs);
        let evaluation = Evaluation {
            sources: &self.sources,
            resources: &self.resources,
            about: About { client: &turn.cx.client, namespace: key.ns(), selector: &text, pages: &pages },
            scaled: Scaled { pods: &pods, replicas: current, tolerances: tolerances(turn.scaler), now: turn.now },
            present: scale.status.as_ref().map_or(0, |status| status.replicas),
        };
        let mut proposals = Vec::with_capacity(specs.len());
        // One after the other, as upstream: nobody limits how many metrics there are.
        for metric in specs {
            proposals.push(evaluation.propose(metric).await);
        }
        for invalid in proposals.iter().filter_map(|proposal| proposal.as_ref().err()) {
            turn.cx.events.about(turn.scaler, Type::Warning, invalid.reason, invalid.message.clone());
        }
        let decision = decide::decide(current, proposals);
        turn.status.current_metrics = Some(decision.statuses);
        let (proposed, metric) = match decision.outcome {
            Ok(proposed) => proposed,
            Err((first, message)) => {
                turn.cx.events.about(turn.scaler, Type::Warning, "FailedComputeMetricsReplicas", message);
                let message = format!("the HPA was unable to compute the replica count: {}", first.message);
                turn.set(Condition::ScalingActive, false, first.reason, message);
                return None;
            }
        };
        let message = format!("the HPA was able to successfully calculate a replica count from {metric}");
        turn.set(Condition::ScalingActive, true, "ValidMetricFound", message);
        let now = Now { at: turn.passed, current, min, max: spec.max_replicas, behavior: spec.behavior.as_ref() };
        let normalized = self.memory.lock().entry(key.clone()).or_default().normalize(now, proposed);
        turn.set(Condition::AbleToScale, true, normalized.stabilized.0, normalized.stabilized.1);
        let (limited, (reason, message)) = normalized.limited;
        turn.set(Condition::ScalingLimited, limited, reason, message);
        let reason = if proposed > current { format!("{metric} above target") } else { "All metrics below target".to_owned() };
        Some(Wish { replicas: normalized.replicas, reason })
    }

    /// The pods of the target; none when it does not say which, or when another autoscaler scales them too.
    fn selected(&self, key: &Key, turn: &mut Turn<'_>, text: &str) -> Option<Vec<Arc<Pod>>> {
        if text.is_empty() {
            let message = "the HPA target's scale is missing a selector";
            turn.fail(Condition::ScalingActive, ("SelectorRequired", "selector is required"), message);
            turn.set(Condition::ScalingActive, false, "InvalidSelector", message);
            return None;
        }
        let selector = match Selector::parse(text) {
            Ok(selector) => selector,
            Err(error) => {
                let message = format!("couldn't convert selector into a corresponding internal selector object: {error}");
                turn.fail(Condition::ScalingActive, ("InvalidSelector", &message), message.clone());
                return None;
            }
        };
        let pods = self.pods.labelled(key.ns(), |labels| selector.matches(&meta::Labels(labels)));
        let rivals = {
            let mut selectors = self.selectors.lock();
            selectors.insert(key.clone(), selector);
            rivals(&selectors, key.ns(), &pods)
        };
        if rivals.len() > 1 {
            let message = format!("pods by selector {text} are controlled by multiple HPAs: [{}]", rivals.join(" "));
            turn.fail(Condition::ScalingActive, ("AmbiguousSelector", &message), message.clone());
            return None;
        }
        Some(pods)
    }

    fn forget(&self, key: &Key) {
        self.memory.lock().remove(key);
        self.selectors.lock().remove(key);
    }
}

/// The autoscalers of a namespace that select any of the pods.
fn rivals(selectors: &HashMap<Key, Selector>, namespace: &str, pods: &[Arc<Pod>]) -> Vec<String> {
    let here = selectors.iter().filter(|(key, _)| key.ns() == namespace);
    let selecting = here.filter(|(_, selector)| pods.iter().any(|pod| selector.matches(&pod.metadata.labels)));
    let mut names: Vec<String> = selecting.map(|(key, _)| key.to_string()).collect();
    names.sort();
    names
}

/// KEP-4951: each direction may have its own.
fn tolerances(scaler: &HorizontalPodAutoscaler) -> Tolerances {
    let behavior = scaler.spec.behavior.as_ref();
    let own = |rules: Option<&HPAScalingRules>| {
        let tolerance = rules.and_then(|rules| rules.tolerance.as_ref());
        tolerance.and_then(|tolerance| Quantity::parse(&tolerance.0).ok()).map_or(TOLERANCE, Quantity::as_f64)
    };
    Tolerances {
        up: own(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        down: own(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
    }
}

impl Controller for Autoscaler {
    const NAME: &'static str = "horizontal-pod-autoscaler";
    const ACCOUNT: &'static str = "horizontal-pod-autoscaler";
    const CONCURRENCY: usize = 32;

    fn sources(&self) -> Vec<Source> {
        // The own writes of a status are no reason to look again.
        let scalers = Source::mapped(&self.scalers, |change, queue| {
            let specs = [&change.old, &change.new].map(|one| one.as_ref().map(|scaler| &scaler.spec));
            if specs[0] != specs[1] {
                queue.add(change.key.clone());
            }
        });
        vec![scalers, Source::read(&self.pods), Source::read(&self.services)]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(scaler) = self.scalers.by_key(key) else {
            self.forget(key);
            return Ok(Action::Done);
        };
        let Some(_share) = self.looks.take(key.ns()) else { return Ok(Action::After(TURN)) };
        let mut turn = Turn::new(cx, &scaler);
        if let Some(outcome) = self.look(key, &mut turn).await {
            turn.status.current_replicas = Some(outcome.current);
            turn.status.desired_replicas = outcome.desired.unwrap_or(turn.status.desired_replicas);
            if outcome.rescaled {
                turn.status.last_scale_time = Some(meta::whole_seconds(turn.now));
            }
        }
        if scaler.status.as_ref() != Some(&turn.status) {
            let next = HorizontalPodAutoscaler { status: Some(turn.status), ..scaler.as_ref().clone() };
            let api: Api<HorizontalPodAutoscaler> = Api::namespaced(cx.client.clone(), key.ns());
            api.replace_status(&key.name, &PostParams::default(), &next).await?;
        }
        Ok(Action::After(PERIOD))
    }
}

#[cfg(test)]
mod tests;
