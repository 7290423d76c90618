//! What one kubelet has told, and the rates that follow. Pure.
//!
//! A rate needs two moments. While somebody keeps asking, the earlier one is 8 to 60 seconds ago; a container that started since then
//! has used nothing at its start, which is a moment too.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use base::metrics::samples::{Sample, samples};

/// Answers are at most this old.
const FRESH: Duration = Duration::from_secs(5);
/// A moment takes the place of the earlier one when the next is so far from it.
const SPAN: Duration = Duration::from_secs(8);
/// An earlier moment that is further away says nothing of now.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// The shortest time that says anything of a container's CPU.
const SHORTEST: f64 = 0.5;

/// A page of a kubelet.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moment {
    node: Counted,
    /// By namespace and name of the pod, then by container.
    pods: HashMap<(String, String), BTreeMap<String, Counted>>,
}

/// What was counted of a node or a container.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counted {
    /// Seconds since the epoch at which it was read.
    at: f64,
    /// Seconds of CPU time.
    cpu: f64,
    /// Bytes.
    memory: f64,
    /// Seconds since the epoch; none of a node.
    started: Option<f64>,
}

/// What something uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Used {
    /// Cores.
    pub(super) cpu: f64,
    /// Bytes.
    pub(super) memory: f64,
    /// Seconds over which CPU was measured.
    pub(super) window: f64,
    /// Seconds since the epoch at the end of that time.
    pub(super) at: f64,
}

/// What a node and its pods use.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// The node.
    pub(super) node: Option<Used>,
    /// Containers by pod.
    pub(super) pods: HashMap<(String, String), BTreeMap<String, Used>>,
}

impl Moment {
    /// Reads `/metrics/resource`. `now` is for samples that do not say when they were taken.
    pub(super) fn read(page: &str, now: f64) -> Self {
        let mut moment = Self::default();
        for sample in samples(page) {
            let Some((counted, field)) = moment.place(&sample) else { continue };
            match field {
                "cpu" => counted.cpu = sample.value,
                "memory" => counted.memory = sample.value,
                _ => counted.started = Some(sample.value),
            }
            if field != "started" {
                counted.at = sample.at.map_or(now, |millis| millis as f64 / 1000.0);
            }
        }
        moment
    }

    /// What a sample is of.
    fn place(&mut self, sample: &Sample<'_>) -> Option<(&mut Counted, &'static str)> {
        let (of_node, field) = match sample.name {
            "node_cpu_usage_seconds_total" => (true, "cpu"),
            "node_memory_working_set_bytes" => (true, "memory"),
            "container_cpu_usage_seconds_total" => (false, "cpu"),
            "container_memory_working_set_bytes" => (false, "memory"),
            "container_start_time_seconds" => (false, "started"),
            _ => return None,
        };
        if of_node {
            return Some((&mut self.node, field));
        }
        let pod = (sample.label("namespace").to_owned(), sample.label("pod").to_owned());
        Some((self.pods.entry(pod).or_default().entry(sample.label("container").to_owned()).or_default(), field))
    }
}

/// What a kubelet has told.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Moments with the time of this process at which they came.
    earlier: Option<(Duration, Moment)>,
    newest: Option<(Duration, Moment)>,
}

impl History {
    /// Whether the newest moment is good enough for an answer at `now`.
    pub(super) fn is_fresh(&self, now: Duration) -> bool {
        self.newest.as_ref().is_some_and(|(came, _)| now.saturating_sub(*came) < FRESH) && self.earlier.is_some()
    }

    /// Takes a new moment. Times are those of this process.
    pub(super) fn add(&mut self, now: Duration, moment: Moment) {
        let newest = self.newest.replace((now, moment));
        let age = |one: &Option<(Duration, Moment)>| one.as_ref().map(|(came, _)| now.saturating_sub(*came));
        let newest_age = age(&newest).filter(|age| *age <= FORGOTTEN);
        let keeps = age(&self.earlier).is_some_and(|age| age <= FORGOTTEN);
        if newest_age.is_some_and(|age| age >= SPAN) || !keeps {
            self.earlier = newest.filter(|_| newest_age.is_some());
        }
    }

    /// Whether what is known says nothing of `now` any more.
    pub(super) fn is_forgotten(&self, now: Duration) -> bool {
        self.newest.as_ref().is_some_and(|(came, _)| now.saturating_sub(*came) > FORGOTTEN)
    }

    /// Whether there are two moments.
    pub(super) fn has_two(&self) -> bool {
        self.earlier.is_some()
    }

    /// What is used now.
    pub(super) fn rates(&self) -> Rates {
        let Some((_, newest)) = &self.newest else { return Rates::default() };
        let earlier = self.earlier.as_ref().map(|(_, moment)| moment);
        let node = earlier.and_then(|earlier| used(&newest.node, Some(&earlier.node)));
        let mut pods = HashMap::new();
        for (pod, containers) in &newest.pods {
            let known = earlier.and_then(|earlier| earlier.pods.get(pod));
            let of_container = |(name, counted): (&String, &Counted)| {
                Some((name.clone(), used(counted, known.and_then(|known| known.get(name)))?))
            };
            let containers: BTreeMap<_, _> = containers.iter().filter_map(of_container).collect();
            if !containers.is_empty() {
                pods.insert(pod.clone(), containers);
            }
        }
        Rates { node, pods }
    }
}

/// The rate since the earlier moment, or since the start of what has started after it.
fn used(newest: &Counted, earlier: Option<&Counted>) -> Option<Used> {
    let same = earlier.filter(|earlier| earlier.started == newest.started && earlier.cpu <= newest.cpu);
    let (since, cpu) = match (same, newest.started) {
        (Some(earlier), _) => (earlier.at, earlier.cpu),
        (None, Some(started)) => (started, 0.0),
        (None, None) => return None,
    };
    let window = newest.at - since;
    (window >= SHORTEST).then(|| Used { cpu: (newest.cpu - cpu) / window, memory: newest.memory, window, at: newest.at })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A moment: seconds, CPU time of the node, and of containers their names, CPU times and starts.
    type Told<'a> = (u64, f64, &'a [(&'a str, f64, i64)]);

    fn page(at: i64, node: f64, containers: &[(&str, f64, i64)]) -> Moment {
        let mut page = format!("node_cpu_usage_seconds_total {node} {}\nnode_memory_working_set_bytes 100\n", at * 1000);
        for (name, cpu, started) in containers {
            let labels = format!("{{container=\"{name}\",namespace=\"n\",pod=\"p\"}}");
            page += &format!("container_cpu_usage_seconds_total{labels} {cpu} {}\n", at * 1000);
            page += &format!("container_memory_working_set_bytes{labels} 7 {}\n", at * 1000);
            page += &format!("container_start_time_seconds{labels} {started}\n");
        }
        Moment::read(&page, at as f64)
    }

    /// Cores of the node and of containers, with the seconds over which they were measured.
    #[track_caller]
    fn check(history: &History, node: Option<(f64, f64)>, containers: &[(&str, f64, f64)]) {
        let rates = history.rates();
        assert_eq!(rates.node.map(|used| (used.cpu, used.window)), node);
        let shown = rates.pods.get(&("n".to_owned(), "p".to_owned())).cloned().unwrap_or_default();
        let shown: Vec<_> = shown.iter().map(|(name, used)| (name.as_str(), used.cpu, used.window)).collect();
        assert_eq!(shown, containers);
    }

    fn history(moments: &[Told<'_>]) -> History {
        let mut history = History::default();
        for (at, node, containers) in moments {
            history.add(Duration::from_secs(*at), page(*at as i64, *node, containers));
        }
        history
    }

    #[test]
    fn rates_follow_from_two_moments() {
        check(&history(&[]), None, &[]);
        // Of one moment, only what has a start.
        check(&history(&[(100, 50.0, &[("a", 5.0, 90)])]), None, &[("a", 0.5, 10.0)]);
        let two = history(&[(100, 50.0, &[("a", 5.0, 1)]), (101, 51.0, &[("a", 5.5, 1), ("b", 0.1, 100)])]);
        check(&two, Some((1.0, 1.0)), &[("a", 0.5, 1.0), ("b", 0.1, 1.0)]);
        // A container that was started again, and one that has only just started.
        let again = history(&[(100, 50.0, &[("a", 5.0, 1)]), (110, 51.0, &[("a", 2.0, 105), ("b", 0.1, 110)])]);
        check(&again, Some((0.1, 10.0)), &[("a", 0.4, 5.0)]);
    }

    #[test]
    fn the_earlier_moment_is_neither_near_nor_far() {
        let at = |times: &[u64]| {
            let moments: Vec<_> = times.iter().map(|at| (*at, *at as f64, &[][..])).collect();
            history(&moments).rates().node.map(|used| used.window)
        };
        assert_eq!(at(&[100, 101]), Some(1.0));
        assert_eq!(at(&[100, 106]), Some(6.0));
        // Near ones wait until they are far enough apart.
        assert_eq!(at(&[100, 106, 112]), Some(12.0));
        assert_eq!(at(&[100, 115, 130]), Some(15.0));
        assert_eq!(at(&[100, 105, 120]), Some(15.0));
        // Nobody has asked for long: the old one is of no use.
        assert_eq!(at(&[100, 200]), None);
        assert_eq!(at(&[100, 115, 200]), None);
        assert_eq!(at(&[100, 200, 201]), Some(1.0));
    }

    #[test]
    fn answers_are_fresh() {
        let check = |moments: &[Told<'_>], now: u64, expected: bool| {
            assert_eq!(history(moments).is_fresh(Duration::from_secs(now)), expected);
        };
        check(&[], 100, false);
        check(&[(100, 1.0, &[])], 101, false);
        check(&[(100, 1.0, &[]), (101, 1.0, &[])], 105, true);
        check(&[(100, 1.0, &[]), (101, 1.0, &[])], 106, false);
        let known = history(&[(100, 1.0, &[])]);
        assert_eq!([160, 161].map(|now| known.is_forgotten(Duration::from_secs(now))), [false, true]);
    }

    #[test]
    fn what_is_no_metric_of_ours_is_left_out() {
        let moment = Moment::read("pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 1\nresource_scrape_error 0\n", 1.0);
        assert_eq!(moment, Moment::default());
    }
}
