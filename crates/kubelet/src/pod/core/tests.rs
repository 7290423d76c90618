//! Whole lives of pods under random orders of events: the node does its work late, fails at it, and tells of old states. A seed is a
//! reproduction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use runtime::api::{Container, ContainerState, Image, Sandbox, SandboxState};
use serde_json::{Value, json};

use super::*;
use crate::pod::action::Action;
use crate::pod::state::Slot;
use crate::pod::status::{self, Times};
use crate::pod::testing::{at, container, sandbox};
use crate::volumes::used;

/// A small generator (xorshift64*): the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True so many times in a hundred.
    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(usize::try_from(self.below(of.len() as u64)).unwrap()) }
    }
}

/// What is under way at the node.
#[derive(Debug)]
enum Work {
    /// An action, with the number that the container or sandbox gets, or the reference that is pulled, or the identifier of the container that it
    /// is about.
    Act(Action, u32, String),
    /// What the runtime said some time ago.
    Observe(Vec<Container>, Option<SandboxState>),
    Event(Box<Event>),
}

/// One pod's life, and the node that it lives on.
struct Life {
    random: Random,
    core: Core,
    pod: Value,
    now: Timestamp,
    /// How much later than `now` the clock of the machine is, by which containers have their times.
    skew: SignedDuration,
    /// Work by the time at which it is done.
    work: BTreeMap<(Timestamp, u64), Work>,
    sequence: u64,
    wake: Option<Timestamp>,
    sandbox: Option<Sandbox>,
    is_mounted: bool,
    /// Its claims are prepared.
    keeps_devices: bool,
    containers: Vec<Container>,
    /// How many restarts of all there were, and from which number on containers are of the newest round.
    restarts: usize,
    rounds: BTreeMap<String, u32>,
    /// Exit codes by identifier: those that there were, and those that a status told of.
    ended: BTreeMap<String, i32>,
    told: BTreeSet<(String, i32)>,
    status: PodStatus,
    log: Vec<String>,
    observing: bool,
    looks_again: bool,
}

fn later(time: Timestamp, milliseconds: u64) -> Timestamp {
    time.saturating_add(jiff::SignedDuration::from_millis(i64::try_from(milliseconds).unwrap())).unwrap()
}

fn model(pod: &Value) -> Model {
    let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    Model::new(Arc::new(pod))
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let policy = *random.pick(&["Always", "OnFailure", "Never"]).unwrap();
        let probe = json!({"exec": {"command": ["true"]}});
        let mut any = |name: &str, sidecar: bool| {
            let mut container = json!({"name": name, "image": "img"});
            if sidecar {
                container["restartPolicy"] = json!("Always");
            }
            for field in ["livenessProbe", "startupProbe", "readinessProbe"] {
                if (sidecar || name.starts_with('a')) && random.percent(30) {
                    container[field] = probe.clone();
                }
            }
            if random.percent(30) && (sidecar || name.starts_with('a')) {
                container["lifecycle"] =
                    json!({"preStop": {"exec": {"command": ["x"]}}, "postStart": {"exec": {"command": ["x"]}}});
            }
            container
        };
        let inits = [any("i1", false), any("s1", true), any("i2", false), any("s2", true)];
        let mut apps = vec![any("a1", false), any("a2", false)];
        let inits: Vec<Value> = inits.into_iter().filter(|_| random.percent(60)).collect();
        let claims = if random.percent(30) { json!([{"name": "d", "resourceClaimName": "d"}]) } else { json!(null) };
        if random.percent(40) {
            apps[1]["restartPolicy"] = json!("Never");
            apps[1]["restartPolicyRules"] =
                json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
        }
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1},
            "spec": {"restartPolicy": policy, "terminationGracePeriodSeconds": 5, "initContainers": inits, "containers": apps,
                "resourceClaims": claims}});
        let now = Timestamp::from_second(1_000_000).unwrap();
        let core = Core::new(model(&pod), State { start_time: Some(now), begun: Some(now), ..State::default() }, false);
        let (work, containers, ended, told, status, log) = Default::default();
        Self {
            random,
            core,
            pod,
            now,
            skew: SignedDuration::ZERO,
            work,
            sequence: 0,
            wake: None,
            sandbox: None,
            is_mounted: false,
            keeps_devices: false,
            containers,
            restarts: 0,
            rounds: BTreeMap::new(),
            ended,
            told,
            status,
            log,
            observing: false,
            looks_again: false,
        }
    }

    fn plan_work(&mut self, most: u64, work: Work) {
        let due = later(self.now, self.random.below(most + 1));
        self.sequence += 1;
        self.work.insert((due, self.sequence), work);
    }

    fn running(&self, name: &str) -> bool {
        self.containers.iter().any(|container| container.name == name && container.state == ContainerState::Running)
    }

    /// The runtime is asked what runs: once at a time, about the sandbox that the kubelet knows.
    fn observe(&mut self) {
        if std::mem::replace(&mut self.observing, true) {
            self.looks_again = true;
            return;
        }
        let known = self.core.state().sandbox.done().map(|sandbox| sandbox.id.clone());
        let Some(known) = known else {
            return self.plan_work(300, Work::Event(Box::new(Event::Done(Box::new(Outcome::Nothing)))));
        };
        let seen = self.containers.iter().filter(|container| container.sandbox == known).cloned().collect();
        let state = self.sandbox.as_ref().filter(|sandbox| sandbox.id == known).map(|sandbox| sandbox.state);
        self.plan_work(300, Work::Observe(seen, state));
    }

    fn end(&mut self, name: &str, code: i32) {
        let shown = self.now + self.skew;
        let running = self.containers.iter_mut().find(|c| c.name == name && c.state == ContainerState::Running);
        let Some(container) = running else { return };
        container.state = ContainerState::Exited;
        container.exit_code = Some(code);
        container.finished = Some(shown);
        self.ended.insert(container.id.clone(), code);
        self.observe();
    }

    fn current_id(&self, name: &str) -> String {
        self.core.state().slots[name].current.as_ref().unwrap().id.clone()
    }

    /// Tells the core of something, checks what it wants, and lets the node begin with that.
    fn tell(&mut self, event: Event) {
        let words: String = format!("{event:?}").chars().take(150).collect();
        self.log.push(format!("{} {words}", self.now));
        let plan = self.core.step(event, self.now);
        self.wake = plan.wake.filter(|wake| *wake > self.now);
        let longest = later(self.now, u64::try_from(crate::backoff::MAX.as_millis()).unwrap());
        assert!(self.wake.is_none_or(|wake| wake <= longest), "nothing waits longer than the longest back-off");
        for action in plan.actions {
            self.log.push(format!("{} -> {action:?}", self.now));
            self.check(&action);
            let (mut number, mut reference) = (0, String::new());
            let most = match &action {
                Action::RunSandbox(attempt) => {
                    number = *attempt;
                    400
                }
                Action::Start(name) => {
                    number = self.core.state().slots[name].attempt;
                    400
                }
                Action::EnsureImage(name) => {
                    reference = self.core.model().member(name).unwrap().spec.image.clone().unwrap();
                    400
                }
                Action::Stop { name, grace, .. } | Action::PreStop { name, grace } => {
                    reference = self.current_id(name);
                    u64::try_from(grace.as_millis()).unwrap()
                }
                Action::PostStart(name) => {
                    reference = self.current_id(name);
                    400
                }
                _ => 400,
            };
            self.plan_work(most, Work::Act(action, number, reference));
        }
        self.report();
    }

    fn report(&mut self) {
        let status = status::generate(
            self.core.model(),
            self.core.state(),
            &self.status,
            &[],
            Times { now: self.now, shown: self.now + self.skew },
        );
        let lists = [&status.init_container_statuses, &status.container_statuses];
        let mut told = |status: &ContainerStatus| {
            for shown in [&status.state, &status.last_state].into_iter().flatten().filter_map(|state| state.terminated.as_ref()) {
                let id = shown.container_id.as_deref().and_then(|id| id.strip_prefix(status::SCHEME)).unwrap_or_default();
                self.told.insert((id.to_owned(), shown.exit_code));
            }
        };
        lists.into_iter().flatten().flatten().for_each(&mut told);
        let is_final = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        assert!(!is_final || !self.keeps_devices, "the claims are deallocated while their devices are the pod's");
        self.status = status;
        let awaited = self.work.values().any(|work| matches!(work, Work::Event(event) if matches!(**event, Event::Reported)));
        if self.core.awaits_report() && ending::settled(self.core.state()) && !awaited {
            self.plan_work(300, Work::Event(Box::new(Event::Reported)));
        }
    }

    /// Whether a container of this name has ended well, or run at all, in the sandbox that serves.
    fn has_run(&self, name: &str, well: bool) -> bool {
        let here = self.sandbox.as_ref().map(|sandbox| sandbox.id.as_str());
        let of_round = |container: &&Container| self.rounds.get(name).is_none_or(|first| container.attempt >= *first);
        let fits =
            |container: &&Container| container.name == name && Some(container.sandbox.as_str()) == here && of_round(container);
        self.containers.iter().filter(fits).any(|container| !well || container.exit_code == Some(0))
    }

    /// What must hold of every action.
    fn check(&self, action: &Action) {
        let (model, state) = (self.core.model(), self.core.state());
        match action {
            Action::Start(name) => {
                assert!(state.ending.is_none(), "nothing starts in a pod that ends");
                let wants_all = |slot: &Slot| slot.exited().is_some_and(|ended| ended.exit_code == Some(42));
                let can_all = self.pod["spec"]["containers"][1]["restartPolicyRules"].is_array();
                assert!(!can_all || !state.slots.get("a2").is_some_and(wants_all), "{name} starts before all are stopped");
                assert!(!self.running(name), "never two runs of one container");
                let under_way = |work: &Work| matches!(work, Work::Act(Action::Start(other), ..) if other == name);
                assert!(!self.work.values().any(under_way), "never two starts of one container");
                let member = model.member(name).unwrap();
                let before = model.members.iter().take_while(|other| member.role == Role::App || other.spec.name != *name);
                let began = model.members.iter().any(|m| m.role == Role::App && self.has_run(&m.spec.name, false));
                for other in before.filter(|_| !began) {
                    match other.role {
                        Role::Init => assert!(self.has_run(&other.spec.name, true), "{name} before {}", other.spec.name),
                        Role::Sidecar => assert!(self.has_run(&other.spec.name, false), "{name} before {}", other.spec.name),
                        _ => {}
                    }
                }
                assert!(member.role != Role::Init || !began, "init container {name} after the pod was initialized");
                let earlier = model.members.iter().take_while(|other| other.spec.name != *name);
                for other in earlier.filter(|other| member.role == Role::App && other.role == Role::App) {
                    let slot = state.slots.get(&other.spec.name);
                    let begins = slot.is_none_or(|slot| slot.starting || slot.running() && slot.hook.done().is_none());
                    assert!(!begins, "{name} starts while {} does", other.spec.name);
                }
            }
            Action::Stop { name, grace, .. } => {
                let whole = Duration::from_secs(5);
                assert!(*grace <= whole, "{grace:?} is more than the pod's grace period");
                let Some(ending) = &state.ending else { return };
                let left = Duration::try_from(ending.deadline.duration_since(self.now)).unwrap_or_default();
                assert!(*grace <= left, "{grace:?} is more than what is left of the grace period, {left:?}");
                let place = model.members.iter().position(|member| member.spec.name == *name).unwrap();
                if model.members[place].role == Role::Sidecar && self.now < ending.deadline {
                    let others = model.members.iter().enumerate().filter(|(other, m)| *other > place || m.role != Role::Sidecar);
                    for (_, other) in others {
                        assert!(!self.running(&other.spec.name), "sidecar {name} is stopped before {}", other.spec.name);
                    }
                }
            }
            Action::StopSandbox(_) | Action::GiveBack | Action::Unmount | Action::RestartAll { .. } => {
                let running: Vec<_> = self.containers.iter().filter(|c| c.state == ContainerState::Running).collect();
                // The end of the sandbox is the end of what the runtime has not stopped in its time.
                let late = state.ending.as_ref().is_some_and(|ending| self.now >= ending.deadline);
                let ends = late && matches!(action, Action::StopSandbox(_));
                assert!(running.is_empty() || ends, "{action:?} while {} run", running.len());
            }
            Action::Delete => assert!(!self.core.awaits_report() && !self.is_mounted, "deleted before all is reported and gone"),
            _ => {}
        }
    }

    /// The node is through with something; gives what it says.
    fn finish(&mut self, work: Work) -> Event {
        let (action, number, reference) = match work {
            Work::Event(event) => return *event,
            Work::Observe(containers, state) => return Event::Done(Box::new(Outcome::Observed(containers, state))),
            Work::Act(action, number, reference) => (action, number, reference),
        };
        let fails = self.random.percent(8);
        let simple = |fails: bool| if fails { Err("the node fails".to_owned()) } else { Ok(()) };
        Event::Done(Box::new(match action {
            Action::RunSandbox(_) if fails => Outcome::Sandbox(Err("the node fails".to_owned())),
            Action::RunSandbox(_) => {
                self.keeps_devices = pods::claims::has_any(&self.core.model().pod);
                let made = Sandbox { id: format!("sandbox{number}"), attempt: number, ..sandbox() };
                self.sandbox = Some(made.clone());
                Outcome::Sandbox(Ok(made))
            }
            Action::RemoveLost(_) => Outcome::Removed(simple(fails)),
            Action::MountVolumes | Action::RefreshVolumes => {
                self.is_mounted |= !fails;
                let names = used::volumes(self.core.model()).map(|volume| volume.name.clone()).collect();
                Outcome::Volumes(names, simple(fails).map(|()| None))
            }
            Action::Resize | Action::Measure => Outcome::Nothing,
            Action::RestartAll { round, .. } => {
                if !fails {
                    self.restarts += 1;
                    self.rounds.extend(round.clone());
                }
                Outcome::AllRestart(round, simple(fails))
            }
            Action::EnsureImage(name) => {
                let image = if fails { Err(("ErrImagePull".to_owned(), "no".to_owned())) } else { Ok(Image::default()) };
                Outcome::Image(name, Some(reference), image)
            }
            Action::Start(name) => self.start(name, number, fails),
            Action::PostStart(name) => Outcome::Hook(name, reference, simple(fails)),
            Action::PreStop { name, .. } => Outcome::PreStop(name, reference),
            Action::Stop { name, .. } => {
                if !fails && self.containers.iter().any(|c| c.id == reference && c.state == ContainerState::Running) {
                    self.end(&name, 143);
                }
                Outcome::Stopped(name, reference, simple(fails))
            }
            Action::StopSandbox(_) => {
                let running = self.containers.iter().filter(|c| c.state == ContainerState::Running && !fails);
                for name in running.map(|container| container.name.clone()).collect::<Vec<_>>() {
                    self.end(&name, 137);
                }
                if let Some(sandbox) = self.sandbox.as_mut().filter(|_| !fails) {
                    sandbox.state = SandboxState::NotReady;
                }
                Outcome::SandboxStopped(simple(fails))
            }
            Action::GiveBack => {
                self.keeps_devices &= fails;
                Outcome::GivenBack(simple(fails))
            }
            Action::Unmount => {
                self.is_mounted &= fails;
                Outcome::Unmounted(simple(fails))
            }
            Action::Delete => {
                if !fails {
                    let desired = Desired { model: model(&self.pod), removed: true, pending: None, evicted: None };
                    self.plan_work(200, Work::Event(Box::new(Event::Desired(Box::new(desired)))));
                }
                Outcome::Deleted(simple(fails))
            }
        }))
    }

    fn start(&mut self, name: String, attempt: u32, fails: bool) -> Outcome {
        let reference = self.core.model().member(&name).unwrap().spec.image.clone().unwrap();
        let serves =
            self.sandbox.as_ref().filter(|sandbox| sandbox.state == SandboxState::Ready).map(|sandbox| sandbox.id.clone());
        let Some(sandbox) = serves.filter(|_| !fails) else {
            return Outcome::Started(name, Err(("CreateContainerError".to_owned(), "the node fails".to_owned(), None)));
        };
        self.sequence += 1;
        let made = Container {
            sandbox,
            image_reference: reference,
            created: self.now + self.skew,
            started: Some(self.now + self.skew),
            ..container(&format!("c{}", self.sequence), &name, attempt, ContainerState::Running)
        };
        self.containers.push(made.clone());
        Outcome::Started(name, Ok(made))
    }

    fn desired(&self) -> Event {
        let pod: Pod = serde_json::from_value(self.pod.clone()).unwrap();
        let model = self.core.model().renewed(Arc::new(pod));
        Event::Desired(Box::new(Desired { model, removed: self.core.is_removed(), pending: None, evicted: None }))
    }

    fn delete(&mut self, seconds: u64) {
        if self.core.is_removed() {
            return;
        }
        self.pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        self.pod["metadata"]["deletionGracePeriodSeconds"] = json!(seconds);
        self.tell(self.desired());
    }

    /// Something that nobody has planned.
    fn surprise(&mut self) {
        let running: Vec<_> = self
            .containers
            .iter()
            .filter(|c| c.state == ContainerState::Running)
            .map(|c| (c.name.clone(), c.id.clone()))
            .collect();
        let one = self.random.pick(&running).cloned();
        match (self.random.below(13), one) {
            (0..=3, Some((name, _))) => {
                let code = *self.random.pick(&[0, 0, 1, 137, 42]).unwrap();
                self.end(&name, code);
            }
            (4..=6, Some((name, id))) => {
                let kinds = self.core.probes();
                let kinds: Vec<_> = kinds.into_iter().filter(|(other, ..)| *other == name).map(|(_, _, kind, _)| kind).collect();
                if let Some(kind) = self.random.pick(&kinds).copied() {
                    let healthy = self.random.percent(60);
                    self.plan_work(300, Work::Event(Box::new(Event::Probed(Verdict { container: name, id, kind, healthy }))));
                }
            }
            (7, _) => self.tell(Event::ReferencesChanged),
            (8, _) => {
                let image = format!("img{}", self.random.below(3));
                self.pod["spec"]["containers"][0]["image"] = json!(image);
                self.tell(self.desired());
            }
            (9, _) if self.random.percent(30) && self.sandbox.as_ref().is_some_and(|s| s.state == SandboxState::Ready) => {
                // The shim was killed, and its containers with it.
                running.iter().for_each(|(name, _)| self.end(name, 137));
                if let Some(sandbox) = &mut self.sandbox {
                    sandbox.state = SandboxState::NotReady;
                }
                self.observe();
            }
            // Somebody sets the clock.
            (12, _) if self.random.percent(20) => {
                self.skew += *self.random.pick(&[SignedDuration::from_hours(2), SignedDuration::from_hours(-2)]).unwrap();
            }
            (10, _) if self.random.percent(10) => self.delete(5),
            (11, _) if self.random.percent(5) => {
                let evicted = Some(Evicted::under_pressure("short".to_owned(), BTreeMap::new(), Duration::from_secs(1)));
                let desired = Desired { model: model(&self.pod), removed: self.core.is_removed(), pending: None, evicted };
                self.tell(Event::Desired(Box::new(desired)));
            }
            _ => {}
        }
    }

    /// Goes on to whatever comes next.
    fn go_on(&mut self) {
        let next = self.work.first_key_value().map(|(key, _)| *key);
        match (next, self.wake) {
            (Some((due, _)), wake) if wake.is_none_or(|wake| due <= wake) => {
                self.now = self.now.max(due);
                let Some((_, work)) = self.work.pop_first() else { return };
                let event = self.finish(work);
                let was_look =
                    matches!(&event, Event::Done(outcome) if matches!(**outcome, Outcome::Observed(..) | Outcome::Nothing));
                self.tell(event);
                if was_look {
                    self.observing = false;
                    if std::mem::take(&mut self.looks_again) {
                        self.observe();
                    }
                }
            }
            (_, Some(wake)) => {
                self.now = self.now.max(wake);
                self.tell(Event::Wake);
            }
            _ => self.now = later(self.now, 100),
        }
    }

    fn run(&mut self) {
        self.tell(Event::Wake);
        for _ in 0..150 {
            self.go_on();
            if self.random.percent(25) {
                self.surprise();
            }
        }
        self.delete(3);
        if self.random.percent(50) {
            self.go_on();
            self.delete(1);
        }
        for _ in 0..3000 {
            if self.core.is_gone() {
                break;
            }
            self.go_on();
        }
        assert!(self.core.is_gone(), "the pod comes to its end");
        let reasons = self.ended.values().filter(|code| **code == 42).count();
        assert!(self.restarts <= reasons, "{} restarts of all for {reasons} ends", self.restarts);
        for (id, code) in &self.ended {
            assert!(self.told.contains(&(id.clone(), *code)), "exit code {code} of {id} was never reported");
        }
    }
}

/// Runs the life of `seed`, and shows it when it fails.
fn live(seed: u64) -> (usize, usize, usize) {
    let mut life = Life::new(seed);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| life.run()));
    if let Err(panic) = result {
        let tail = life.log.len().saturating_sub(60);
        eprintln!("seed {seed}: {}\n{}", life.pod, life.log[tail..].join("\n"));
        std::panic::resume_unwind(panic);
    }
    (life.containers.len(), life.ended.len(), life.restarts)
}

#[test]
fn no_order_of_events_breaks_a_rule() {
    let lives: Vec<_> = (0..600).map(live).collect();
    let sum = |of: fn(&(usize, usize, usize)) -> usize| lives.iter().map(of).sum::<usize>();
    let (started, ended, restarts) = (sum(|life| life.0), sum(|life| life.1), sum(|life| life.2));
    // Lives in which nothing happens prove nothing.
    assert!(started > 1000 && ended == started && restarts > 10, "{started} {ended} {restarts}");
}

/// A clock that is set neither stops restarts for as long as it was set back, nor takes their back-off away.
#[test]
fn the_clock_of_the_machine_can_be_set() {
    let starts = |skew: SignedDuration, ends_at_once: bool| {
        let (mut now, end) = (at(1_000_000), at(1_000_600));
        let pod = crate::pod::testing::model(json!({"containers": [{"name": "a", "image": "i"}]}));
        let state = State { sandbox: Step::Done(sandbox()), volumes: Step::Done(()), begun: Some(now), ..State::default() };
        let (mut core, mut events, mut starts) = (Core::new(pod, state, false), vec![Event::Wake], Vec::new());
        while now < end {
            // The time of day is set when the first container runs.
            let shown = |now: Timestamp, attempt: u32| if attempt == 0 { now } else { now + skew };
            let Some(event) = events.pop() else { break };
            let plan = core.step(event, now);
            for action in plan.actions {
                let outcome = match action {
                    Action::EnsureImage(name) => Outcome::Image(name, Some("i".to_owned()), Ok(Image::default())),
                    Action::Start(name) => {
                        let attempt = core.state().slots["a"].attempt;
                        starts.push(now.as_second() - 1_000_000);
                        let run = Container {
                            started: Some(shown(now, attempt)),
                            image_reference: "i".to_owned(),
                            ..container(&attempt.to_string(), "a", attempt, ContainerState::Running)
                        };
                        now += SignedDuration::from_secs(1);
                        let end = Container {
                            state: ContainerState::Exited,
                            exit_code: Some(1),
                            finished: Some(now + skew),
                            ..run.clone()
                        };
                        events.push(Event::Done(Box::new(Outcome::Observed(vec![end.clone()], Some(SandboxState::Ready)))));
                        Outcome::Started(name, Ok(if ends_at_once { end } else { run }))
                    }
                    other => panic!("{other:?}"),
                };
                events.push(Event::Done(Box::new(outcome)));
            }
            if events.is_empty() {
                now = plan.wake.unwrap();
                events.push(Event::Wake);
            }
        }
        starts
    };
    for (hours, ends_at_once) in [0, -2, 2].into_iter().flat_map(|hours| [(hours, false), (hours, true)]) {
        let starts = starts(SignedDuration::from_hours(hours), ends_at_once);
        // Ten seconds after an end at first, doubled each time; less by the second of its run where the clock says that it ended before.
        let least = [0, 1, 11, 31, 71, 151, 311];
        assert_eq!(starts.len(), least.len(), "set by {hours} h: {starts:?}");
        assert!(
            starts.iter().zip(least).all(|(start, least)| (least..least + 10).contains(start)),
            "set by {hours} h: {starts:?}"
        );
    }
}

/// Own status patches come back as changes of the object.
#[test]
fn an_echo_of_the_own_status_does_nothing() {
    let mut life = Life::new(3);
    life.tell(Event::Wake);
    for _ in 0..40 {
        life.go_on();
    }
    assert!(life.is_mounted);
    life.work.clear();
    life.pod["status"] = serde_json::to_value(&life.status).unwrap();
    life.pod["metadata"]["resourceVersion"] = json!("7");
    let event = life.desired();
    assert_eq!(life.core.step(event, life.now).actions, []);
    life.pod["metadata"]["labels"] = json!({"a": "b"});
    let event = life.desired();
    assert_eq!(life.core.step(event, life.now).actions, [Action::RefreshVolumes]);
}

/// What ends at once never was ready, nor is anything started beside such a sidecar; who has a probe is judged by it alone.
#[test]
fn without_probes_a_container_has_to_run_for_a_moment() {
    let probe = json!({"tcpSocket": {"port": 1}});
    let check = |container_spec: Value, is_sidecar: bool, millis: i64, expected: (bool, bool, Option<i64>)| {
        let mut own = json!({"name": "a", "image": "i"});
        own.as_object_mut().unwrap().extend(container_spec.as_object().unwrap().clone());
        let spec = match is_sidecar {
            true => {
                own["restartPolicy"] = "Always".into();
                json!({"initContainers": [own.clone()], "containers": [{"name": "b", "image": "i"}]})
            }
            false => json!({"containers": [own.clone()]}),
        };
        let mut state = State::default();
        let current = Some(container("c", "a", 0, ContainerState::Running));
        state.slots.insert("a".to_owned(), Slot { current, hook: Step::Done(()), ..Slot::default() });
        let mut core = Core::new(crate::pod::testing::model(spec), state, false);
        let started = Timestamp::from_second(2).unwrap();
        let steady = core.settle_health(started + SignedDuration::from_millis(millis));
        let steady = steady.map(|at| i64::try_from(at.duration_since(started).as_millis()).unwrap());
        let slot = &core.state().slots["a"];
        assert_eq!((slot.started, slot.ready, steady), expected, "{own} after {millis} ms");
        // Who is not ready because of that is not shown as running, so that both come at once.
        assert_eq!(slot.unsteady, !is_sidecar && steady.is_some(), "{own} after {millis} ms");
    };
    check(json!({}), false, 100, (true, false, Some(500)));
    check(json!({}), false, 500, (true, true, None));
    // The clock was set back.
    check(json!({}), false, -3_600_000, (true, true, None));
    check(json!({}), true, 100, (false, false, Some(500)));
    check(json!({}), true, 500, (true, true, None));
    check(json!({"readinessProbe": probe}), false, 500, (true, false, None));
    check(json!({"readinessProbe": probe}), false, 100, (true, false, None));
    check(json!({"startupProbe": probe}), false, 100, (false, true, None));
}
