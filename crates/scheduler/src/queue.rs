//! Pods that wait: to be tried, for their back-off to pass, or for something to happen that may help them. Pure; the
//! caller brings the time.

mod active;
pub(crate) mod place;

use std::collections::btree_map::OccupiedEntry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::Key;
use tokio::time::Instant;

use crate::framework::Event;
use crate::metrics::{Metrics, Pending};
use crate::plugins::PLUGINS;
use crate::pod::PodInfo;
use crate::terms::Namespaces;
use active::Active;
pub(crate) use place::{Lane, Place, Trial};

/// How long a pod waits after its first attempt, and at most, where the configuration says nothing else (upstream: `podInitialBackoffSeconds`,
/// `podMaxBackoffSeconds`).
pub(crate) const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// After so long a pod that nothing has helped is tried again all the same (upstream: `podMaxInUnschedulablePodsDuration`): extenders may say
/// something else, and an event may be missing in what a plugin is helped by.
const MAX_UNSCHEDULABLE: Duration = Duration::from_secs(300);

/// Why pods come to a queue, as upstream names it beside the events of the cluster.
const POD_ADDED: &str = "UnschedulablePodAdd";
const POD_CHANGED: &str = "UnschedulablePodUpdate";
const FAILED: &str = "ScheduleAttemptFailure";
const BACKED_OFF: &str = "BackoffComplete";
const LEFT_OVER: &str = "UnschedulableTimeout";

/// Bit n: the plugin of that index in [`PLUGINS`].
pub(crate) type PluginSet = u32;

/// The place in a [`PluginSet`] of all extenders: what may help a pod that they refused is any event, as upstream.
pub(crate) const EXTENDERS: PluginSet = 1 << (PluginSet::BITS - 1);

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    lane: Lane,
    entered: Instant,
    attempts: u32,
    /// When its last attempt ended.
    failed: Option<Instant>,
    rejected_by: PluginSet,
    /// What had happened when its last attempt began: see [`Happened`].
    seen: u64,
    /// It has changed since.
    changed: bool,
    number: u64,
}

impl Entry {
    /// When it is tried again at the latest, while it is unschedulable.
    fn leftover(&self) -> (Instant, u64) {
        (self.failed.unwrap_or(self.entered) + MAX_UNSCHEDULABLE, self.number)
    }
}

#[derive(Debug)]
pub(crate) struct Queue {
    /// How long a pod waits after its first attempt, and at most.
    back_off: (Duration, Duration),
    entries: HashMap<Key, Entry>,
    active: Active,
    backoff: BTreeMap<(Instant, u64), Key>,
    /// Those that are unschedulable, by when they are tried again at the latest.
    leftover: BTreeMap<(Instant, u64), Key>,
    /// Those that are unschedulable, which events concern. Many more may be active.
    waiting: HashSet<Key>,
    happened: Happened,
    count: u64,
    pending: Pending,
}

/// How many things have happened, and which of them was the last that may help a pod that a plugin refused: so that whoever is being tried finds
/// out afterwards what it has missed.
#[derive(Debug, Default)]
struct Happened {
    number: u64,
    last: [u64; PluginSet::BITS as usize],
}

impl Happened {
    /// Something that helps pods that these plugins refused.
    fn add(&mut self, helped: PluginSet) {
        self.number += 1;
        for (plugin, last) in self.last.iter_mut().enumerate() {
            if helped & 1 << plugin != 0 {
                *last = self.number;
            }
        }
    }

    /// Whether something has happened behind `seen` that helps a pod that these plugins refused.
    fn helps(&self, refused_by: PluginSet, seen: u64) -> bool {
        self.last.iter().enumerate().any(|(plugin, last)| refused_by & 1 << plugin != 0 && *last > seen)
    }
}

impl Queue {
    /// `back_off` is how long a pod waits after its first attempt, and at most.
    pub(crate) fn new(back_off: (Duration, Duration), metrics: &Metrics) -> Self {
        Self {
            back_off,
            entries: HashMap::new(),
            active: Active::default(),
            backoff: BTreeMap::new(),
            leftover: BTreeMap::new(),
            waiting: HashSet::new(),
            happened: Happened::default(),
            count: 0,
            pending: Pending::new(metrics),
        }
    }

    /// A pod is new or has changed. A change makes a pod that found no node try again.
    pub(crate) fn add(&mut self, pod: Arc<PodInfo>, lane: Lane) {
        let key = pod.key();
        self.count += 1;
        let number = self.count;
        match self.entries.get_mut(&key) {
            Some(entry) if entry.pod.uid() == pod.uid() => {
                entry.pod = pod;
                match entry.place {
                    Place::Unschedulable => self.wake(&key, POD_CHANGED),
                    Place::Trying => entry.changed = true,
                    Place::Active | Place::Backoff(..) => {}
                }
            }
            _ => {
                self.remove(&key);
                let (place, entered) = (Place::Active, Instant::now());
                let (seen, changed) = (0, false);
                let entry = Entry { pod, place, lane, entered, attempts: 0, failed: None, rejected_by: 0, seen, changed, number };
                self.pending.moved(None, Some(place));
                self.pending.came(place, POD_ADDED);
                self.entries.insert(key.clone(), entry);
                self.activate(key);
            }
        }
    }

    /// A pod is gone, or has a node.
    pub(crate) fn remove(&mut self, key: &Key) {
        self.waiting.remove(key);
        let Some(entry) = self.entries.remove(key) else { return };
        let place = entry.place;
        self.leftover.remove(&entry.leftover());
        self.pending.moved(Some(place), None);
        if let Place::Backoff(due, number) = place {
            self.backoff.remove(&(due, number));
        }
    }

    /// The pod as the queue knows it.
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<PodInfo>> {
        self.entries.get(key).map(|entry| &entry.pod)
    }

    /// The next pod to try that concerns no extender which is `busy`. [`Queue::failed`] or [`Queue::remove`] must follow.
    pub(crate) fn pop(&mut self, busy: Lane) -> Option<(Arc<PodInfo>, Trial)> {
        while let Some(ready) = self.active.pop(busy) {
            // Removed and overtaken ones are skipped here.
            if let Some(entry) = self.entries.get_mut(&ready.key)
                && entry.place == Place::Active
                && entry.number == ready.number.0
            {
                self.pending.moved(Some(entry.place), Some(Place::Trying));
                entry.place = Place::Trying;
                entry.attempts += 1;
                (entry.seen, entry.changed) = (self.happened.number, false);
                let (number, lane) = (entry.number, entry.lane);
                let trial = Trial { started: Instant::now(), entered: entry.entered, attempts: entry.attempts, number, lane };
                return Some((entry.pod.clone(), trial));
            }
        }
        None
    }

    /// The pod as it is now, if this attempt still goes on.
    pub(crate) fn tried(&self, pod: &PodInfo, trial: Trial) -> Option<Arc<PodInfo>> {
        let entry = self.entries.get(&pod.key())?;
        let same = entry.place == Place::Trying && (entry.number, entry.attempts) == (trial.number, trial.attempts);
        same.then(|| entry.pod.clone())
    }

    pub(crate) fn has_active(&self, busy: Lane) -> bool {
        self.active.has_any(busy)
    }

    /// A try ended without a node. `rejected_by` is empty when the reason was not the cluster's state, such as a failed
    /// binding: then only the back-off counts.
    pub(crate) fn failed(&mut self, key: &Key, rejected_by: PluginSet, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.failed = Some(now);
        entry.rejected_by = rejected_by;
        // As upstream, which counts from the last attempt: else an old pod without hope would come before every newer one.
        self.count += 1;
        entry.number = self.count;
        self.pending.moved(Some(entry.place), Some(Place::Unschedulable));
        entry.place = Place::Unschedulable;
        if rejected_by == 0 || entry.changed || self.happened.helps(rejected_by, entry.seen) {
            self.wake(key, FAILED);
        } else {
            self.pending.came(Place::Unschedulable, FAILED);
            self.waiting.insert(key.clone());
            self.leftover.insert(entry.leftover(), key.clone());
        }
    }

    /// Something happened, by this cause: pods that it may help are tried again after their back-off.
    pub(crate) fn happened(&mut self, event: Event, cause: &'static str) {
        let helped = self.note(event);
        self.wake_all(cause, |entry| entry.rejected_by & helped != 0);
    }

    /// Things happened that may help pods of one namespace only.
    pub(crate) fn happened_in(&mut self, namespace: &str, events: &[Event], cause: &'static str) {
        let helped = events.iter().fold(0, |helped, event| helped | self.note(*event));
        self.wake_all(cause, |entry| entry.rejected_by & helped != 0 && entry.pod.namespace() == namespace);
    }

    /// The same of a pod that came to a node or left one: each plugin says whether it may help.
    pub(crate) fn moved(&mut self, event: Event, pod: &PodInfo, namespaces: &Namespaces, cause: &'static str) {
        self.moved_for(event, pod, namespaces, cause, |_| true);
    }

    /// A pod is promised no node any more. For those that are no more important, and for no others, it was as if it had been there.
    pub(crate) fn given_up(&mut self, pod: &PodInfo, namespaces: &Namespaces, cause: &'static str) {
        let is_concerned = |other: &PodInfo| other.priority <= pod.priority && other.uid() != pod.uid();
        self.moved_for(Event::PodRemoved, pod, namespaces, cause, is_concerned);
    }

    fn moved_for(
        &mut self,
        event: Event,
        pod: &PodInfo,
        namespaces: &Namespaces,
        cause: &'static str,
        is_concerned: impl Fn(&PodInfo) -> bool,
    ) {
        let helped = self.note(event);
        self.wake_all(cause, |entry| {
            if !is_concerned(&entry.pod) {
                return false;
            }
            let plugins = PLUGINS.iter().enumerate().filter(|(index, _)| entry.rejected_by & helped & 1 << index != 0);
            let mut plugins = plugins.map(|(_, plugin)| plugin);
            entry.rejected_by & EXTENDERS != 0 || plugins.any(|plugin| plugin.helped_by_pod(&entry.pod, pod, event, namespaces))
        });
    }

    /// The plugins of which the event may help those that they refused.
    fn note(&mut self, event: Event) -> PluginSet {
        let helped = PLUGINS.iter().enumerate().filter(|(_, plugin)| plugin.helped_by(event));
        let helped: PluginSet = helped.fold(EXTENDERS, |set, (index, _)| set | 1 << index);
        self.happened.add(helped);
        helped
    }

    fn wake_all(&mut self, cause: &'static str, is_helped: impl Fn(&Entry) -> bool) {
        let waiting = self.waiting.iter().filter_map(|key| Some((self.entries.get(key)?, key)));
        let mut wake: Vec<(u64, Key)> =
            waiting.filter(|(entry, _)| is_helped(entry)).map(|(entry, key)| (entry.number, key.clone())).collect();
        // Who waits longest has the first turn.
        wake.sort_unstable_by_key(|(number, _)| *number);
        for (_, key) in wake {
            self.wake(&key, cause);
        }
    }

    fn wake(&mut self, key: &Key, cause: &'static str) {
        self.wake_at(key, Instant::now(), cause);
    }

    fn wake_at(&mut self, key: &Key, now: Instant, cause: &'static str) {
        self.waiting.remove(key);
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.leftover.remove(&entry.leftover());
        let due = entry.failed.map(|failed| failed + backoff(self.back_off, entry.attempts));
        let place = match due {
            Some(due) if due > now => Place::Backoff(due, entry.number),
            _ => Place::Active,
        };
        self.pending.moved(Some(entry.place), Some(place));
        self.pending.came(place, cause);
        entry.place = place;
        match place {
            Place::Backoff(due, _) => {
                self.backoff.insert((due, entry.number), key.clone());
            }
            _ => self.activate(key.clone()),
        }
    }

    fn activate(&mut self, key: Key) {
        if let Some(entry) = self.entries.get(&key) {
            self.active.push(key, entry.pod.priority, entry.number, entry.lane);
        }
    }

    /// Moves pods whose back-off has passed, and those that nothing has helped for long; when the next one's time comes.
    pub(crate) fn ripen(&mut self, now: Instant) -> Option<Instant> {
        while let Some((_, key)) =
            self.leftover.first_entry().filter(|entry| entry.key().0 <= now).map(OccupiedEntry::remove_entry)
        {
            self.wake_at(&key, now, LEFT_OVER);
        }
        let leftover = self.leftover.first_key_value().map(|((due, _), _)| *due);
        self.back_off_passed(now).into_iter().chain(leftover).min()
    }

    fn back_off_passed(&mut self, now: Instant) -> Option<Instant> {
        while let Some(((due, _), _)) = self.backoff.first_key_value() {
            if *due > now {
                return Some(*due);
            }
            if let Some((_, key)) = self.backoff.pop_first() {
                if let Some(entry) = self.entries.get_mut(&key) {
                    self.pending.moved(Some(entry.place), Some(Place::Active));
                    self.pending.came(Place::Active, BACKED_OFF);
                    entry.place = Place::Active;
                }
                self.activate(key);
            }
        }
        None
    }

    #[cfg(test)]
    /// How many pods are ready to be tried, wait for their back-off, and wait for something to happen.
    pub(crate) fn lengths(&self) -> (usize, usize, usize) {
        let waiting = self.entries.values().filter(|entry| entry.place == Place::Unschedulable).count();
        (self.active.len(), self.backoff.len(), waiting)
    }
}

/// The first time, doubled with each attempt, up to the most.
fn backoff((first, most): (Duration, Duration), attempts: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1))).min(most)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::pod;
    use serde_json::json;

    const BACKOFF_MIN: Duration = BACKOFF.0;
    const BACKOFF_MAX: Duration = BACKOFF.1;

    /// A queue that counts for itself.
    fn queue() -> Queue {
        Queue::new(BACKOFF, &Metrics::default())
    }

    fn info(name: &str, priority: i32) -> Arc<PodInfo> {
        Arc::new(PodInfo::new(Arc::new(pod(name, json!({"priority": priority})))))
    }

    fn popped(queue: &mut Queue) -> String {
        std::iter::from_fn(|| queue.pop(0)).map(|(pod, _)| pod.uid().to_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn orders_by_priority_then_age() {
        let mut queue = queue();
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.add(info(name, priority), 0);
        }
        queue.remove(&Key::namespaced("a", "c"));
        assert_eq!(popped(&mut queue), "b d a");
    }

    /// Upstream, `AddUnschedulableIfNotPresent`: the time that orders pods is that of the last attempt.
    #[test]
    fn who_has_failed_comes_after_those_that_waited_meanwhile() {
        let (mut queue, now) = (queue(), Instant::now());
        for name in ["old", "new", "newer"] {
            queue.add(info(name, 0), 0);
        }
        queue.pop(0);
        queue.failed(&Key::namespaced("a", "old"), 0, now);
        queue.ripen(now + BACKOFF_MIN);
        queue.add(info("newest", 0), 0);
        assert_eq!(popped(&mut queue), "new newer old newest");
    }

    /// A pod that only certain pods help is not tried for the sake of others.
    #[test]
    fn only_pods_that_matter_help() {
        let app = |name: &str, app: &str, spec: serde_json::Value| {
            Arc::new(PodInfo::new(Arc::new(crate::testing::labelled_pod(name, json!({"app": app}), spec))))
        };
        let terms = |name: &str, app: &str| {
            let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}});
            json!({"affinity": {name: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
        };
        let spread = json!({"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "x"}}}]});
        let (near, far) = (terms("podAffinity", "x"), terms("podAntiAffinity", "x"));
        let plugin = |name: &str| PLUGINS.iter().position(|plugin| plugin.name() == name).map_or(0, |index| 1 << index);
        let check = |spec: &serde_json::Value, refused_by: &str, event: Event, moved: &PodInfo, expected: bool| {
            let mut queue = queue();
            queue.add(app("waits", "w", spec.clone()), 0);
            queue.pop(0);
            queue.failed(&Key::namespaced("a", "waits"), plugin(refused_by), Instant::now());
            queue.moved(event, moved, &Namespaces::default(), "test");
            assert_eq!(queue.lengths(), if expected { (0, 1, 0) } else { (0, 0, 1) }, "{spec} {event:?}");
        };
        let (x, y) = (app("x", "x", json!({})), app("y", "y", json!({})));
        let (affinity, spreads) = ("InterPodAffinity", "PodTopologySpread");
        for event in [Event::PodPlaced, Event::PodRemoved] {
            check(&near, affinity, event, &x, true);
            check(&near, affinity, event, &y, false);
            check(&spread, spreads, event, &x, true);
            check(&spread, spreads, event, &y, false);
        }
        check(&far, affinity, Event::PodPlaced, &x, false);
        check(&far, affinity, Event::PodRemoved, &x, true);
        check(&far, affinity, Event::PodRemoved, &y, false);
        // One that kept it away.
        check(&json!({}), affinity, Event::PodRemoved, &app("r", "r", terms("podAntiAffinity", "w")), true);
        check(&json!({}), affinity, Event::PodRemoved, &app("r", "r", terms("podAntiAffinity", "v")), false);
        // Others take their room, whoever they are.
        check(&json!({}), "NodeResourcesFit", Event::PodRemoved, &y, true);
    }

    /// Upstream, podtopologyspread/plugin.go, isSchedulableAfterNodeChange: the value with the fewest pods may go with its node.
    #[test]
    fn nodes_that_go_help_those_that_are_spread() {
        for (name, expected) in [("PodTopologySpread", (0, 1, 0)), ("NodePorts", (0, 0, 1)), ("InterPodAffinity", (0, 0, 1))] {
            let mut queue = queue();
            let plugin = PLUGINS.iter().position(|plugin| plugin.name() == name).map_or(0, |index| 1 << index);
            queue.add(info("a", 0), 0);
            queue.pop(0);
            queue.failed(&Key::namespaced("a", "a"), plugin, Instant::now());
            queue.happened(Event::NodeRemoved, "test");
            assert_eq!(queue.lengths(), expected, "{name}");
        }
    }

    #[test]
    fn waits_for_what_may_help() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.add(info("a", 0), 0);
        queue.pop(0);
        let ports = PLUGINS.iter().position(|plugin| plugin.name() == "NodePorts").map_or(0, |index| 1 << index);
        queue.failed(&Key::namespaced("a", "a"), ports, now);
        queue.happened(Event::PodPlaced, "test");
        assert_eq!((queue.lengths(), queue.ripen(now + BACKOFF_MIN)), ((0, 0, 1), Some(now + MAX_UNSCHEDULABLE)));
        assert_eq!(queue.pending.numbers(), [0, 0, 1]);
        queue.happened(Event::PodRemoved, "test");
        assert_eq!(queue.ripen(now), Some(now + BACKOFF_MIN));
        assert_eq!(queue.pending.numbers(), [0, 1, 0]);
        assert_eq!(queue.ripen(now + BACKOFF_MIN), None);
        assert_eq!(queue.pending.numbers(), [1, 0, 0]);
        assert_eq!(popped(&mut queue), "a");
        // What happens during a try is not lost.
        queue.happened(Event::Node, "test");
        queue.failed(&Key::namespaced("a", "a"), ports, now);
        assert_eq!(queue.lengths(), (0, 1, 0));
        assert_eq!(queue.ripen(now), Some(now + 2 * BACKOFF_MIN));
        queue.remove(&Key::namespaced("a", "a"));
        assert_eq!(queue.pending.numbers(), [0, 0, 0]);
    }

    /// `scheduler_queue_incoming_pods_total` tells why pods come to a queue. Another queue counts for itself.
    #[test]
    fn it_is_counted_why_pods_come() {
        let (mut queue, other, now) = (queue(), queue(), Instant::now());
        let volumes = PLUGINS.iter().position(|plugin| plugin.name() == crate::plugins::VOLUMES).map_or(0, |index| 1 << index);
        let check = |queue: &Queue, place: &'static str, event: &'static str, expected: u64| {
            assert_eq!(queue.pending.incoming(place, event), expected, "{place} {event}");
            assert_eq!(other.pending.incoming(place, event), 0, "{place} {event}");
        };
        queue.add(info("a", 0), 0);
        check(&queue, "active", POD_ADDED, 1);
        queue.pop(0);
        queue.failed(&Key::namespaced("a", "a"), volumes, now);
        check(&queue, "unschedulable", FAILED, 1);
        queue.happened(Event::Volume, "in time");
        check(&queue, "backoff", "in time", 1);
        check(&queue, "active", "in time", 0);
        queue.ripen(now + BACKOFF_MIN);
        check(&queue, "active", BACKED_OFF, 1);
        queue.pop(0);
        queue.failed(&Key::namespaced("a", "a"), volumes, now - BACKOFF_MAX);
        queue.happened(Event::Volume, "late");
        check(&queue, "backoff", "late", 0);
        check(&queue, "active", "late", 1);
        assert_eq!(other.pending.numbers(), [0, 0, 0]);
    }

    /// What happens in a namespace wakes nobody elsewhere.
    #[test]
    fn namespaces_wait_for_their_own() {
        let (mut queue, now) = (queue(), Instant::now());
        let volumes = PLUGINS.iter().position(|plugin| plugin.name() == crate::plugins::VOLUMES).map_or(0, |index| 1 << index);
        queue.add(info("p", 0), 0);
        let mut other = pod("q", json!({}));
        other.metadata.namespace = Some("b".to_owned());
        queue.add(Arc::new(PodInfo::new(Arc::new(other))), 0);
        for namespace in ["a", "b"] {
            queue.pop(0);
            queue.failed(&Key::namespaced(namespace, if namespace == "a" { "p" } else { "q" }), volumes, now);
        }
        assert_eq!(queue.lengths(), (0, 0, 2));
        queue.happened_in("c", &[Event::Volume], "test");
        queue.happened_in("a", &[Event::Device], "test");
        assert_eq!(queue.lengths(), (0, 0, 2));
        queue.happened_in("a", &[Event::Volume, Event::Device], "test");
        assert_eq!(queue.lengths(), (0, 1, 1));
        queue.ripen(now + BACKOFF_MIN);
        assert_eq!(popped(&mut queue), "p");
    }

    /// Upstream, schedule_one.go: a pod that an extender kept from a node is moved by any kind of cluster event.
    #[test]
    fn whom_an_extender_refused_any_event_helps_and_time() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.add(info("a", 0), 1);
        assert!(!queue.has_active(1) && queue.pop(1).is_none());
        let (pod, trial) = queue.pop(2).unwrap();
        assert!(queue.tried(&pod, trial).is_some());
        queue.failed(&Key::namespaced("a", "a"), EXTENDERS, now);
        assert!(queue.tried(&pod, trial).is_none());
        assert_eq!((queue.lengths(), queue.ripen(now)), ((0, 0, 1), Some(now + MAX_UNSCHEDULABLE)));
        queue.happened(Event::Namespace, "test");
        assert_eq!((queue.lengths(), queue.ripen(now)), ((0, 1, 0), Some(now + BACKOFF_MIN)));
        queue.ripen(now + BACKOFF_MIN);
        queue.pop(0);
        queue.failed(&Key::namespaced("a", "a"), EXTENDERS, now);
        queue.remove(&Key::namespaced("a", "a"));
        assert_eq!(queue.ripen(now), None);
        assert_eq!(queue.pending.numbers(), [0, 0, 0]);
    }

    /// Upstream, scheduling_queue.go, flushUnschedulablePodsLeftover: pods that stay longer in unschedulablePods than
    /// podMaxInUnschedulablePodsDuration are moved to backoffQ or activeQ, whatever refused them.
    #[test]
    fn time_helps_all() {
        let mut queue = queue();
        for refused_by in [1, EXTENDERS] {
            queue.add(info("a", 0), 0);
            queue.pop(0);
            let failed = Instant::now();
            queue.failed(&Key::namespaced("a", "a"), refused_by, failed);
            assert_eq!(queue.ripen(failed + MAX_UNSCHEDULABLE - Duration::from_millis(1)), Some(failed + MAX_UNSCHEDULABLE));
            assert_eq!(queue.lengths(), (0, 0, 1));
            assert_eq!(queue.ripen(failed + MAX_UNSCHEDULABLE), None);
            assert_eq!((popped(&mut queue).as_str(), queue.waiting.len()), ("a", 0));
            queue.remove(&Key::namespaced("a", "a"));
        }
        // Whoever has failed lately waits for the back-off, also when that is longer.
        let longest = MAX_UNSCHEDULABLE * 2;
        let mut queue = Queue::new((longest, longest), &Metrics::default());
        queue.add(info("a", 0), 0);
        queue.pop(0);
        let failed = Instant::now();
        queue.failed(&Key::namespaced("a", "a"), 1, failed);
        assert_eq!((queue.ripen(failed + MAX_UNSCHEDULABLE), queue.lengths()), (Some(failed + longest), (0, 1, 0)));
    }
}
