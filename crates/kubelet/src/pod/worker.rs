//! The task of one pod: waits for whatever may change its plan, and carries the plan out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::events::Type;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use pods::resources::is_extended;
use tokio::sync::{Notify, mpsc, watch};

use super::action::Plan;
use super::adopt::adopt;
use super::core::{Core, Desired as Wanted, Event};
use super::effects::{Effects, pod_ip};
use super::found::Found;
use super::outcome::Outcome;
use super::report::{Reporter, Shown};
use super::state::{Cause, Evicted, Rejection};
use super::status::Times;
use super::{ending, found, last_words, resize, restart, status};
use crate::allocation::{self, Pending};
use crate::certificates;
use crate::context::Context;
use crate::eviction::requests::End;
use crate::metrics;
use crate::probes::{Kind, Probes, Target, Verdict};
use crate::spec::Model;
use crate::statics;
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
    /// The node does not keep it any longer.
    pub evicted: Option<Evicted>,
    /// What shows it in the API.
    pub shown: Shown,
    /// What tells of its end.
    pub end: End,
}

/// One pod's task.
pub struct Worker {
    cx: Arc<Context>,
    core: Core,
    desired: watch::Receiver<Desired>,
    runtime_changed: Arc<Notify>,
    references_changed: Arc<Notify>,
    drivers: watch::Receiver<u64>,
    /// Changes with the requests for the pod's certificates; none where it has no such volume.
    certificates: Option<watch::Receiver<()>>,
    /// Changes with what plugins say of their devices; none where the pod asks for none.
    devices: Option<watch::Receiver<()>>,
    /// Changes with what drivers say of claimed devices; none where the pod claims none.
    claims: Option<watch::Receiver<()>>,
    effects: Effects,
    running: FuturesUnordered<BoxFuture<'static, Outcome>>,
    observing: bool,
    probes: Probes,
    verdicts: mpsc::Receiver<Verdict>,
    reporter: Reporter,
    /// Something that runs is being given other resources.
    resizing: bool,
    /// When the kubelet saw the pod, until it runs.
    seen: Option<Instant>,
}

/// The record of the newest restart of all containers; nothing where the pod has no rule for that.
async fn rounds(cx: &Context, model: &Model) -> BTreeMap<String, u32> {
    if !restart::is_possible(model) {
        return BTreeMap::new();
    }
    let directory = cx.pod_dir(model.uid());
    let read = tokio::task::spawn_blocking(move || found::read_rounds(&directory)).await;
    read.unwrap_or_else(|error| Err(error.into())).unwrap_or_else(|error| {
        tracing::warn!(pod = model.title(), %error, "it cannot be read which containers ended before all restarted: they may restart again");
        BTreeMap::new()
    })
}

/// What time it is.
fn times(cx: &Context) -> Times {
    Times { now: cx.clock.now(), shown: Timestamp::now() }
}

/// Waits for a change, where there is something that can change.
async fn changed(receiver: &mut Option<watch::Receiver<()>>) -> Option<()> {
    receiver.as_mut()?.changed().await.ok()
}

/// What changes with the requests for the pod's certificates; none where no container uses such a volume.
fn certificate_news(cx: &Context, model: &Model) -> Option<watch::Receiver<()>> {
    certificates::sources(model).next().map(|_| cx.certificates.changes(model.uid()))
}

/// Whether a container asks for devices.
fn has_devices(model: &Model) -> bool {
    let limits = model.members.iter().filter_map(|member| member.spec.resources.as_ref()?.limits.as_ref());
    limits.flat_map(|limits| limits.keys()).any(|name| is_extended(name))
}

impl Worker {
    /// A worker for the pod in `desired`. A rejected pod gets the reason and message and never runs.
    pub async fn new(
        cx: Arc<Context>,
        desired: watch::Receiver<Desired>,
        runtime_changed: Arc<Notify>,
        mut found: Found,
        rejected: Option<Rejection>,
    ) -> Self {
        let Desired { pod, removed, pending, evicted, shown, .. } = desired.borrow().clone();
        let model = Model::new(pod);
        let references_changed = Arc::new(Notify::new());
        let refs = cx.references.of_pod(&model, &references_changed);
        let (volumes, pulls) = (Arc::new(Volumes::new(cx.clone())), Arc::default());
        let effects = Effects { cx: cx.clone(), volumes, refs: Arc::new(refs), pulls };
        let (sender, verdicts) = mpsc::channel(16);
        let reporter = Reporter::new(cx.options.client.clone(), cx.clock, &model, shown);
        for container in &mut found.containers {
            last_words::add(&cx, &model, container).await;
        }
        found.rounds = rounds(&cx, &model).await;
        let mut state = adopt(&model, found, cx.options.longest_restart_delay, times(&cx));
        state.pending = pending;
        state.evicted = evicted;
        state.has_cpus = cx.cpus.has_exclusive(model.uid());
        let mut core = Core::new(model, state, removed);
        if let Some((reason, message)) = rejected {
            cx.pod_event(core.model(), Type::Warning, &reason, message.clone());
            core.reject(reason, format!("Pod was rejected: {message}"), cx.clock.now());
        }
        let (probes, drivers) = (Probes::new(cx.clone(), sender), cx.drivers.arrivals());
        let certificates = certificate_news(&cx, core.model());
        let devices = has_devices(core.model()).then(|| cx.devices.news());
        let claims = pods::claims::has_any(&core.model().pod).then(|| cx.claims.news());
        let running = FuturesUnordered::new();
        Self {
            cx,
            core,
            desired,
            runtime_changed,
            references_changed,
            drivers,
            certificates,
            devices,
            claims,
            effects,
            running,
            observing: false,
            probes,
            verdicts,
            reporter,
            resizing: false,
            seen: Some(Instant::now()),
        }
    }

    /// Runs until the pod is gone from the API and from the node, or the kubelet stops; then containers stay.
    pub async fn run(mut self) {
        let mut event = Event::Wake;
        loop {
            let wake = self.step(event);
            if self.core.is_gone() {
                break;
            }
            match self.wait(wake).await {
                Some(next) => event = next,
                None => return,
            }
        }
        self.clean_up().await;
    }

    /// Tells the core of an event, begins what it wants and reports. Returns when to look again.
    fn step(&mut self, event: Event) -> Option<Timestamp> {
        let now = self.cx.clock.now();
        let was_ending = self.core.state().ending.is_some();
        let mut wake = self.begin(event, now);
        self.tell_end(was_ending);
        self.tell_resize();
        self.probes.sync(self.probe_targets());
        let (retry, is_reported) = self.report(times(&self.cx));
        if is_reported && ending::settled(self.core.state()) {
            self.desired.borrow().end.told.cancel();
        }
        // Once the final status is with the API server, the object may go.
        if is_reported && self.core.awaits_report() {
            wake = self.begin(Event::Reported, now);
        }
        [wake, retry].into_iter().flatten().min()
    }

    fn begin(&mut self, event: Event, now: Timestamp) -> Option<Timestamp> {
        let Plan { actions, wake } = self.core.step(event, now);
        for action in actions {
            tracing::debug!(pod = self.core.model().title(), ?action);
            let effect = self.effects.of(action, self.core.model(), self.core.state());
            self.running.push(effect);
        }
        wake
    }

    /// An event when the node does not keep the pod or its time is over, and the end of the pod for who waits for it.
    fn tell_end(&self, was_ending: bool) {
        let state = self.core.state();
        let Some(ending) = &state.ending else { return };
        if let (Cause::Failed(reason, message), false) = (&ending.cause, was_ending) {
            // That its own deadline is over is no fault.
            let evicted = state.evicted.as_ref().filter(|evicted| evicted.is_cause(&ending.cause));
            let kind = if evicted.is_some() { Type::Warning } else { Type::Normal };
            let annotations = evicted.map(|evicted| evicted.annotations.clone()).unwrap_or_default();
            self.cx.annotated_event(self.core.model(), kind, reason, message.clone(), annotations);
        }
        if ending::settled(state) {
            self.desired.borrow().end.settled.cancel();
        }
    }

    /// Events at the begin and the end of a resize.
    fn tell_resize(&mut self) {
        let resizing = resize::in_progress(self.core.model(), self.core.state());
        if std::mem::replace(&mut self.resizing, resizing) == resizing || self.core.state().ending.is_some() {
            return;
        }
        let (reason, word) = if resizing { ("ResizeStarted", "started") } else { ("ResizeCompleted", "completed") };
        let text = allocation::summary(self.core.model(), None);
        self.cx.pod_event(self.core.model(), Type::Normal, reason, format!("Pod resize {word}: {text}"));
    }

    /// Reports what has changed. Returns when to try again, and whether the API server has the final status.
    fn report(&mut self, times: Times) -> (Option<Timestamp>, bool) {
        if self.core.is_removed() || self.reporter.frozen() {
            return (None, true);
        }
        let (model, state) = (self.core.model(), self.core.state());
        let fresh = PodStatus::default();
        let base = match self.reporter.base() {
            // A static pod that runs again after a start of the kubelet: what its mirror says of the end before is over.
            known if state.ending.is_none() && found::ended(known) && statics::is_static(model.uid()) => &fresh,
            known => known,
        };
        let mut wanted = status::generate(model, state, base, &self.cx.options.node_ips, times);
        if self.devices.is_some() {
            self.cx.devices.tell_health(model.uid(), &mut wanted, base);
        }
        if self.claims.is_some() {
            self.cx.claims.tell_health(model, &mut wanted, base);
        }
        let is_running = |status: &PodStatus| status.phase.as_deref() == Some("Running");
        // A pod that ran before this kubelet did has not been started by it.
        if is_running(&wanted)
            && let Some(seen) = self.seen.take().filter(|_| !is_running(base))
        {
            metrics::pod_started(seen.elapsed());
        }
        for (container, reason, message) in self.reporter.new_waits(&wanted) {
            let Some(member) = model.member(&container) else { continue };
            let (kind, text) = match reason.as_str() {
                "CrashLoopBackOff" => {
                    (Type::Warning, format!("Back-off restarting failed container {container} in pod {}", model.title()))
                }
                "ImagePullBackOff" => {
                    self.cx.container_event(model, member, Type::Warning, "Failed", "Error: ImagePullBackOff");
                    let image = member.spec.image.as_deref().unwrap_or_default();
                    (Type::Normal, format!("Back-off pulling image {image:?}"))
                }
                _ => continue,
            };
            tracing::debug!(container, message);
            self.cx.container_event(model, member, kind, "BackOff", text);
        }
        let retry = self.reporter.want(wanted, times.now);
        (retry, self.reporter.accepted() && ending::settled(state))
    }

    fn probe_targets(&self) -> Vec<Target> {
        let model = self.core.model();
        let ip = pod_ip(&self.cx, model, self.core.state());
        let probes = self.core.probes().into_iter();
        let target = |(name, id, kind, started): (String, String, Kind, Timestamp)| {
            let member = model.member(&name)?.clone();
            Some(Target { model: model.clone(), member, id, started, ip, kind })
        };
        probes.filter_map(target).collect()
    }

    fn observe(&mut self) {
        if !self.observing {
            self.observing = true;
            self.running.push(self.effects.observe(self.core.model(), self.core.state()));
        } else {
            // Look again when the present look is over.
            self.runtime_changed.notify_one();
        }
    }

    /// Waits for something that may change the plan. None when the kubelet stops.
    async fn wait(&mut self, wake: Option<Timestamp>) -> Option<Event> {
        let token = self.cx.tasks.token();
        let wait = wake.map(|at| Duration::try_from(at.duration_since(self.cx.clock.now())).unwrap_or_default());
        tokio::select! {
            () = token.cancelled() => None,
            changed = self.desired.changed() => changed.is_ok().then(|| self.updated()),
            () = self.runtime_changed.notified(), if !self.observing => {
                self.observe();
                Some(Event::Wake)
            }
            () = self.references_changed.notified() => Some(self.references_changed()),
            // A volume may have waited for it.
            Ok(()) = self.drivers.changed() => Some(Event::ReferencesChanged),
            Some(()) = changed(&mut self.certificates) => Some(Event::ReferencesChanged),
            Some(()) = changed(&mut self.devices) => Some(Event::Wake),
            Some(()) = changed(&mut self.claims) => Some(Event::Wake),
            Some(outcome) = self.running.next(), if !self.running.is_empty() => Some(self.done(outcome)),
            Some(verdict) = self.verdicts.recv() => Some(Event::Probed(verdict)),
            () = self.reporter.sent() => Some(Event::Wake),
            () = async { tokio::time::sleep(wait.unwrap_or_default()).await }, if wait.is_some() => Some(Event::Wake),
        }
    }

    fn done(&mut self, outcome: Outcome) -> Event {
        if matches!(outcome, Outcome::Observed(..) | Outcome::Nothing) {
            self.observing = false;
        }
        // The runtime tells of the end of what it stopped; looking at once saves the way through its events.
        if matches!(outcome, Outcome::Stopped(..)) {
            self.observe();
        }
        Event::Done(Box::new(outcome))
    }

    /// Takes the references of the pod. What it has had stays meanwhile, and needs no room again.
    fn refer(&mut self, model: &Model) {
        self.effects.refs = Arc::new(self.cx.references.of_pod(model, &self.references_changed));
    }

    fn references_changed(&mut self) -> Event {
        if self.effects.refs.wait_for_room() {
            self.refer(&self.core.model().clone());
        }
        Event::ReferencesChanged
    }

    fn updated(&mut self) -> Event {
        let Desired { pod, removed, pending, evicted, shown, .. } = self.desired.borrow_and_update().clone();
        let model = self.core.model().renewed(pod);
        if !Arc::ptr_eq(&model.members, &self.core.model().members) {
            let references = |model: &Model| pods::references::References::of(&model.pod);
            if references(&model) != references(self.core.model()) {
                self.refer(&model);
            }
            // An ephemeral container may be the first to use a volume.
            self.certificates = self.certificates.take().or_else(|| certificate_news(&self.cx, &model));
        }
        self.reporter.updated(&model, shown);
        Event::Desired(Box::new(Wanted { model, removed, pending, evicted }))
    }

    /// Removes what is left of a pod that the API no longer has, however long that takes.
    async fn clean_up(self) {
        let (token, model) = (self.cx.tasks.token(), self.core.model());
        let logs = self.cx.log_dir(model);
        let mut failures = 0;
        while let Err(error) = super::cleanup::remove_pod(&self.cx, model.uid(), Some(&logs)).await {
            tracing::warn!(pod = model.title(), error, "cannot remove all of a pod, trying again");
            let pause = tokio::time::sleep(super::outcome::delay(failures));
            failures += 1;
            if token.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }
}
