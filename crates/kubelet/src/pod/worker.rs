//! The task of one pod: waits for whatever may change its plan, and carries the plan out.

use std::sync::Arc;
use std::time::Duration;

use client::events::Type;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, mpsc, watch};

use super::action::Plan;
use super::adopt::adopt;
use super::effects::{Effects, pod_ip};
use super::found::Found;
use super::outcome::Outcome;
use super::plan;
use super::report::Reporter;
use super::state::{Cause, Ending, Evicted, Failure, State, Step};
use super::{ending, last_words, resize, status};
use crate::allocation::{self, Pending};
use crate::context::Context;
use crate::eviction::requests::Eviction;
use crate::probes::{Kind, Probes, Target, Verdict};
use crate::spec::{Model, Role};
use crate::volumes::Volumes;

/// What the API wants of the pod.
#[derive(Clone)]
pub struct Desired {
    /// The newest object, with the resources that the pod has been given.
    pub pod: Arc<Pod>,
    /// The object is gone.
    pub removed: bool,
    /// Why the pod does not have all that its specification asks for by now.
    pub pending: Option<Pending>,
    /// The node cannot keep it any longer.
    pub evicted: Option<Arc<Eviction>>,
}

/// One pod's task.
pub struct Worker {
    cx: Arc<Context>,
    model: Model,
    desired: watch::Receiver<Desired>,
    runtime_changed: Arc<Notify>,
    references_changed: Arc<Notify>,
    effects: Effects,
    state: State,
    running: FuturesUnordered<BoxFuture<'static, Outcome>>,
    observing: bool,
    probes: Probes,
    verdicts: mpsc::Receiver<Verdict>,
    reporter: Reporter,
    /// Something that runs is being given other resources.
    resizing: bool,
}

impl Worker {
    /// A worker for the pod in `desired`. A rejected pod gets the reason and message and never runs.
    pub fn new(
        cx: Arc<Context>,
        desired: watch::Receiver<Desired>,
        runtime_changed: Arc<Notify>,
        found: Found,
        rejected: Option<(String, String)>,
    ) -> Self {
        let Desired { pod, removed, pending, evicted } = desired.borrow().clone();
        let model = Model::new(pod);
        let references_changed = Arc::new(Notify::new());
        let refs = cx.references.of_pod(&model, &references_changed);
        let effects = Effects { cx: cx.clone(), volumes: Arc::new(Volumes::new(cx.clone())), refs: Arc::new(refs) };
        let (sender, verdicts) = mpsc::channel(16);
        let reporter = Reporter::new(cx.options.client.clone(), &model);
        let mut state = adopt(&model, found, Timestamp::now());
        state.pending = pending;
        state.evicted = evicted.as_deref().map(Evicted::by_node);
        if let Some((reason, message)) = rejected {
            let message = format!("Pod was rejected: {message}");
            cx.pod_event(&model, Type::Warning, &reason, message.clone());
            state.ending = Some(Ending::new(Cause::Rejected(reason, message), Timestamp::now()));
        }
        plan::advance(&model, &mut state, removed, Timestamp::now());
        let probes = Probes::new(cx.clone(), sender);
        let running = FuturesUnordered::new();
        Self {
            cx,
            model,
            desired,
            runtime_changed,
            references_changed,
            effects,
            state,
            running,
            observing: false,
            probes,
            verdicts,
            reporter,
            resizing: false,
        }
    }

    /// Runs until the pod is gone from the API and from the node, or the kubelet stops; then containers stay.
    pub async fn run(mut self) {
        for container in self.state.slots.values_mut().filter_map(|slot| slot.current.as_mut()) {
            last_words::add(&self.cx, &self.model, container).await;
        }
        loop {
            let wake = self.step();
            if self.gone() {
                break;
            }
            if !self.wait(wake).await {
                return;
            }
        }
        self.clean_up().await;
    }

    /// Plans and begins what is planned. Returns when to look again.
    fn step(&mut self) -> Option<Timestamp> {
        let now = Timestamp::now();
        let was_ending = self.state.ending.is_some();
        plan::advance(&self.model, &mut self.state, self.desired.borrow().removed, now);
        self.tell_eviction(was_ending);
        plan::settle_hooks(&self.model, &mut self.state);
        let Plan { actions, wake } = plan::plan(&self.model, &self.state, now);
        plan::begin(&mut self.state, &actions, now);
        for action in actions {
            tracing::debug!(pod = self.model.title(), ?action);
            let effect = self.effects.of(action, &self.model, &self.state);
            self.running.push(effect);
        }
        self.tell_resize();
        self.settle_health();
        self.probes.sync(self.probe_targets());
        let reported = self.report(now);
        [wake, reported, self.shown_until(now)].into_iter().flatten().min()
    }

    /// An event when the pod has to go for what it or the node has too little of, and the end of that for who waits for it.
    fn tell_eviction(&self, was_ending: bool) {
        let Some(ending) = &self.state.ending else { return };
        match &ending.cause {
            Cause::Failed(reason, message) if reason == plan::EVICTED && !was_ending => {
                self.cx.pod_event(&self.model, Type::Warning, plan::EVICTED, message.clone());
            }
            _ => {}
        }
        if ending::settled(&self.state)
            && let Some(eviction) = &self.desired.borrow().evicted
        {
            eviction.done.cancel();
        }
    }

    /// Events at the begin and the end of a resize.
    fn tell_resize(&mut self) {
        let resizing = resize::in_progress(&self.model, &self.state);
        if std::mem::replace(&mut self.resizing, resizing) == resizing || self.state.ending.is_some() {
            return;
        }
        let (reason, word) = if resizing { ("ResizeStarted", "started") } else { ("ResizeCompleted", "completed") };
        let text = allocation::summary(&self.model, None);
        self.cx.pod_event(&self.model, Type::Normal, reason, format!("Pod resize {word}: {text}"));
    }

    /// When the status changes although nothing happens: an error or a back-off is no longer shown.
    fn shown_until(&self, now: Timestamp) -> Option<Timestamp> {
        let backoffs = self.state.slots.values().filter_map(|slot| slot.crash_backoff(now).map(|(until, _)| until));
        let errors = self.state.slots.values().filter_map(|slot| slot.failure.as_ref().map(Failure::shown_until));
        backoffs.chain(errors).filter(|time| *time > now).min()
    }

    fn report(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.desired.borrow().removed || self.reporter.frozen() {
            self.mark_reported(true);
            return None;
        }
        let wanted = status::generate(&self.model, &self.state, self.reporter.base(), &self.cx.options.node_ips, now);
        for (container, reason, message) in self.reporter.new_waits(&wanted) {
            let Some(member) = self.model.member(&container) else { continue };
            let (kind, text) = match reason.as_str() {
                "CrashLoopBackOff" => {
                    (Type::Warning, format!("Back-off restarting failed container {container} in pod {}", self.model.title()))
                }
                "ImagePullBackOff" => {
                    self.cx.container_event(&self.model, member, Type::Warning, "Failed", "Error: ImagePullBackOff");
                    let image = member.spec.image.as_deref().unwrap_or_default();
                    (Type::Normal, format!("Back-off pulling image {image:?}"))
                }
                _ => continue,
            };
            tracing::debug!(container, message);
            self.cx.container_event(&self.model, member, kind, "BackOff", text);
        }
        let retry = self.reporter.want(&self.model, wanted, now);
        let accepted = self.reporter.accepted() && ending::settled(&self.state);
        self.mark_reported(accepted);
        retry
    }

    /// Once the final status is with the API server, the object may go: look again for that.
    fn mark_reported(&mut self, accepted: bool) {
        if let Some(ending) = self.state.ending.as_mut().filter(|ending| accepted && !ending.reported) {
            ending.reported = true;
            self.references_changed.notify_one();
        }
    }

    /// Containers without a probe are healthy as soon as they run and their hook is done.
    fn settle_health(&mut self) {
        for member in &self.model.members {
            let Some(slot) = self.state.slots.get_mut(&member.spec.name) else { continue };
            if !slot.running() || slot.hook != Step::Done(()) {
                continue;
            }
            if member.spec.startup_probe.is_none() {
                slot.started = true;
            }
            if member.spec.readiness_probe.is_none() {
                slot.ready = true;
            }
        }
    }

    fn probe_targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        let ip = pod_ip(&self.cx, &self.model, &self.state);
        for member in self.model.members.iter().filter(|member| matches!(member.role, Role::App | Role::Sidecar)) {
            let Some(slot) = self.state.slots.get(&member.spec.name) else { continue };
            let Some(current) = slot.current.as_ref().filter(|_| slot.running() && slot.hook == Step::Done(())) else { continue };
            let ends = self.state.ending.is_some() || slot.stopping.is_some();
            let kinds = match (slot.started, ends) {
                (true, false) => &[Kind::Liveness, Kind::Readiness][..],
                (true, true) => &[Kind::Readiness],
                (false, false) => &[Kind::Startup],
                (false, true) => &[],
            };
            for kind in kinds.iter().copied().filter(|kind| kind.of(member).is_some()) {
                let started = current.started.unwrap_or(current.created);
                targets.push(Target {
                    model: self.model.clone(),
                    member: member.clone(),
                    id: current.id.clone(),
                    started,
                    ip,
                    kind,
                });
            }
        }
        targets
    }

    fn judge(&mut self, verdict: Verdict) {
        let member = self.model.member(&verdict.container).cloned();
        let (Some(member), Some(slot)) = (member, self.state.slots.get_mut(&verdict.container)) else { return };
        if slot.current.as_ref().is_none_or(|current| current.id != verdict.id) {
            return;
        }
        match (verdict.kind, verdict.healthy) {
            (Kind::Readiness, healthy) => slot.ready = healthy,
            (Kind::Startup, true) => slot.started = true,
            (Kind::Liveness, true) => {}
            (Kind::Startup | Kind::Liveness, false) => {
                let own = verdict.kind.of(&member).and_then(|probe| probe.termination_grace_period_seconds);
                slot.unhealthy = Some((verdict.kind.name(), own));
            }
        }
    }

    fn observe(&mut self) {
        if !self.observing {
            self.observing = true;
            self.running.push(self.effects.observe(&self.model, &self.state));
        } else {
            // Look again when the present look is over.
            self.runtime_changed.notify_one();
        }
    }

    /// Waits for something that may change the plan. False when the kubelet stops.
    async fn wait(&mut self, wake: Option<Timestamp>) -> bool {
        let token = self.cx.tasks.token();
        let wait = wake.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
        tokio::select! {
            () = token.cancelled() => return false,
            changed = self.desired.changed() => {
                if changed.is_err() {
                    return false;
                }
                self.updated();
            }
            () = self.runtime_changed.notified(), if !self.observing => self.observe(),
            () = self.references_changed.notified() => self.state.references_changed(Timestamp::now()),
            Some(outcome) = self.running.next(), if !self.running.is_empty() => self.apply(outcome),
            Some(verdict) = self.verdicts.recv() => self.judge(verdict),
            () = self.reporter.sent() => {}
            () = async { tokio::time::sleep(wait.unwrap_or_default()).await }, if wait.is_some() => {}
        }
        true
    }

    fn apply(&mut self, outcome: Outcome) {
        if matches!(outcome, Outcome::Observed(..) | Outcome::Nothing) {
            self.observing = false;
        }
        // The runtime tells of the end of what it stopped; looking at once saves the way through its events.
        let look = matches!(outcome, Outcome::Stopped(..));
        self.state.apply(outcome, Timestamp::now());
        if look {
            self.observe();
        }
    }

    fn updated(&mut self) {
        let Desired { pod, pending, evicted, .. } = self.desired.borrow_and_update().clone();
        self.state.pending = pending;
        self.state.evicted = self.state.evicted.take().or(evicted.as_deref().map(Evicted::by_node));
        let old_refs = pods::references::References::of(&self.model.pod);
        self.model = Model::new(pod);
        if pods::references::References::of(&self.model.pod) != old_refs {
            let refs = self.cx.references.of_pod(&self.model, &self.references_changed);
            self.effects.refs = Arc::new(refs);
        }
        // What failed may have been asked for with other figures.
        if matches!(self.state.resize, Step::Failed(_)) {
            self.state.resize = Step::Idle;
        }
        // Labels and annotations are in downward API volumes.
        if self.state.volumes == Step::Done(()) {
            self.state.refresh = Some(Timestamp::now());
        }
        self.reporter.updated(&self.model);
    }

    fn gone(&self) -> bool {
        self.desired.borrow().removed && ending::settled(&self.state) && !self.state.any_alive()
    }

    /// Removes what is left of a pod that the API no longer has, however long that takes.
    async fn clean_up(self) {
        let token = self.cx.tasks.token();
        let logs = self.cx.log_dir(&self.model);
        let mut failures = 0;
        while let Err(error) = super::cleanup::remove_pod(&self.cx, self.model.uid(), &logs).await {
            tracing::warn!(pod = self.model.title(), error, "cannot remove all of a pod, trying again");
            let pause = tokio::time::sleep(super::outcome::delay(failures));
            failures += 1;
            if token.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }
}
