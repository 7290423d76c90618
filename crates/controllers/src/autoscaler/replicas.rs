//! How many replicas a metric asks for. Pure.
//!
//! The rules are upstream's: pods that are starting or of which nothing is known never make a decision larger than what is known does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::{meta, pods};

/// How long after its start a pod's CPU may be that of its start (`--horizontal-pod-autoscaler-cpu-initialization-period`).
const INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
/// A pod that became unready so shortly after its start has never been ready (`--horizontal-pod-autoscaler-initial-readiness-delay`).
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// What is known of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PodMetric {
    /// Thousandths.
    pub(super) value: i64,
    /// The end of the time over which it was measured, and the length of that time.
    pub(super) at: Timestamp,
    pub(super) window: SignedDuration,
}

/// By name of the pod.
pub(super) type PodMetrics = BTreeMap<String, PodMetric>;

/// How far from its target a metric may be without a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerances {
    pub(super) up: f64,
    pub(super) down: f64,
}

impl Tolerances {
    fn allow(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// Why a metric says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unknown {
    #[error("no pods returned by selector while calculating replica count")]
    Unselected,
    #[error("did not receive metrics for targeted pods (pods might be unready)")]
    Unmeasured,
    #[error("missing request for {resource} in container {container} of Pod {pod}")]
    Unrequested { resource: String, container: String, pod: String },
    #[error("no metrics returned matched known pods")]
    Unmatched,
}

/// The pods that are scaled, and the size that they have.
#[derive(Clone, Copy)]
pub(super) struct Scaled<'a> {
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) replicas: i32,
    pub(super) tolerances: Tolerances,
    pub(super) now: Timestamp,
}

/// What a target in percent of the requests leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Utilization {
    pub(super) replicas: i32,
    /// Percent.
    pub(super) utilization: i32,
    /// Thousandths, of one pod.
    pub(super) average: i64,
}

/// The pods by what is known of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

impl Scaled<'_> {
    /// By the use of a resource in percent of what the pods request of it.
    pub(super) fn by_utilization(
        self,
        mut metrics: PodMetrics,
        target: i32,
        resource: &str,
        container: Option<&str>,
    ) -> Result<Utilization, Unknown> {
        let groups = self.grouped(&mut metrics, Some(resource))?;
        let requests = requests(self.pods, resource, container)?;
        let (ratio, utilization, average) = utilization(&metrics, &requests, target)?;
        let fallback = i64::from(target.max(100));
        let of_missing = |pod: &str| requests.get(pod).copied().unwrap_or(0) * fallback / 100;
        let again = |metrics: &PodMetrics| self::utilization(metrics, &requests, target).map(|(ratio, ..)| ratio);
        let replicas = self.decide(metrics, &groups, ratio, of_missing, again)?;
        Ok(Utilization { replicas, utilization, average })
    }

    /// By the average of a metric over the pods: replicas, and the average in thousandths. `resource` is named when it is one.
    pub(super) fn by_average(self, mut metrics: PodMetrics, target: i64, resource: Option<&str>) -> Result<(i32, i64), Unknown> {
        let groups = self.grouped(&mut metrics, resource)?;
        let (ratio, average) = average(&metrics, target);
        let replicas = self.decide(metrics, &groups, ratio, |_| target, |metrics| Ok(self::average(metrics, target).0))?;
        Ok((replicas, average))
    }

    /// By a value of the whole.
    pub(super) fn by_value(self, usage: i64, target: i64) -> Result<i32, Unknown> {
        let ratio = usage as f64 / target as f64;
        if self.replicas == 0 {
            return Ok(ratio.ceil() as i32);
        }
        if self.tolerances.allow(ratio) {
            return Ok(self.replicas);
        }
        if self.pods.is_empty() {
            return Err(Unknown::Unselected);
        }
        let ready = self.pods.iter().filter(|pod| pods::phase(pod) == "Running" && pods::is_ready(pod)).count();
        Ok((ratio * ready as f64).ceil() as i32)
    }

    /// By a value of the whole of which each pod is to have a share: replicas, and the share in thousandths.
    pub(super) fn by_share(self, usage: i64, target: i64) -> (i32, i64) {
        let ratio = usage as f64 / (target as f64 * f64::from(self.replicas));
        let replicas = if self.tolerances.allow(ratio) { self.replicas } else { (usage as f64 / target as f64).ceil() as i32 };
        (replicas, (usage as f64 / f64::from(self.replicas.max(1))).ceil() as i64)
    }

    /// Groups the pods, and leaves only metrics that count.
    fn grouped(self, metrics: &mut PodMetrics, resource: Option<&str>) -> Result<Groups, Unknown> {
        if self.pods.is_empty() {
            return Err(Unknown::Unselected);
        }
        let groups = group(self.pods, metrics, resource, self.now);
        metrics.retain(|pod, _| !groups.ignored.contains(pod) && !groups.unready.contains(pod));
        if metrics.is_empty() { Err(Unknown::Unmeasured) } else { Ok(groups) }
    }

    /// What follows from the ratio of the pods that are known, unless the others, at their mildest, speak against it.
    fn decide(
        self,
        mut metrics: PodMetrics,
        groups: &Groups,
        ratio: f64,
        of_missing: impl Fn(&str) -> i64,
        again: impl Fn(&PodMetrics) -> Result<f64, Unknown>,
    ) -> Result<i32, Unknown> {
        let up_with_unready = !groups.unready.is_empty() && ratio > 1.0;
        if !up_with_unready && groups.missing.is_empty() {
            let wanted = (ratio * groups.ready as f64).ceil() as i32;
            return Ok(if self.tolerances.allow(ratio) { self.replicas } else { wanted });
        }
        let mut assume = |pods: &BTreeSet<String>, value: &dyn Fn(&str) -> i64| {
            for pod in pods {
                metrics.insert(pod.clone(), PodMetric { value: value(pod), ..PodMetric::default() });
            }
        };
        // Before a pod goes, those of which nothing is known count as busy; before one comes, as idle.
        if ratio < 1.0 {
            assume(&groups.missing, &of_missing);
        } else if ratio > 1.0 {
            assume(&groups.missing, &|_| 0);
        }
        if up_with_unready {
            assume(&groups.unready, &|_| 0);
        }
        let newer = again(&metrics)?;
        let turned = ratio < 1.0 && newer > 1.0 || ratio > 1.0 && newer < 1.0;
        let wanted = (newer * metrics.len() as f64).ceil() as i32;
        let against = newer < 1.0 && wanted > self.replicas || newer > 1.0 && wanted < self.replicas;
        Ok(if self.tolerances.allow(newer) || turned || against { self.replicas } else { wanted })
    }
}

/// The ratio to the target, the use in percent, and the average of a pod in thousandths.
fn utilization(metrics: &PodMetrics, requests: &BTreeMap<String, i64>, target: i32) -> Result<(f64, i32, i64), Unknown> {
    let known: Vec<(i64, i64)> = metrics.iter().filter_map(|(pod, metric)| Some((metric.value, *requests.get(pod)?))).collect();
    let used: i64 = known.iter().map(|(used, _)| used).sum();
    let requested: i64 = known.iter().map(|(_, requested)| requested).sum();
    if requested == 0 {
        return Err(Unknown::Unmatched);
    }
    let percent = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
    Ok((f64::from(percent) / f64::from(target), percent, used / known.len() as i64))
}

/// The ratio to the target, and the average.
fn average(metrics: &PodMetrics, target: i64) -> (f64, i64) {
    let sum: i64 = metrics.values().map(|metric| metric.value).sum();
    let average = sum / (metrics.len().max(1) as i64);
    (average as f64 / target as f64, average)
}

/// Thousandths of a resource that each pod requests, or one container of it.
fn requests(pods: &[Arc<Pod>], resource: &str, container: Option<&str>) -> Result<BTreeMap<String, i64>, Unknown> {
    let of_pod = |pod: &Arc<Pod>| -> Result<(String, i64), Unknown> {
        let Some(spec) = &pod.spec else { return Ok((meta::name(pod.as_ref()).to_owned(), 0)) };
        let whole = spec.resources.as_ref().and_then(|own| own.requests.as_ref()?.get(resource));
        if let Some(whole) = whole.filter(|_| container.is_none()) {
            return Ok((meta::name(pod.as_ref()).to_owned(), ::pods::resources::parse(whole).as_milli()));
        }
        let sidecars = spec.init_containers.iter().flatten().filter(|init| ::pods::is_sidecar(init));
        let members = spec.containers.iter().chain(sidecars);
        let of_container = |member: &Container| {
            let request = member.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get(resource));
            let missing = || Unknown::Unrequested {
                resource: resource.to_owned(),
                container: member.name.clone(),
                pod: meta::name(pod.as_ref()).to_owned(),
            };
            request.map(|request| ::pods::resources::parse(request).as_milli()).ok_or_else(missing)
        };
        let counted = members.filter(|member| container.is_none_or(|name| member.name == name));
        Ok((meta::name(pod.as_ref()).to_owned(), counted.map(of_container).sum::<Result<i64, _>>()?))
    };
    pods.iter().map(of_pod).collect()
}

fn group(pods: &[Arc<Pod>], metrics: &PodMetrics, resource: Option<&str>, now: Timestamp) -> Groups {
    let mut groups = Groups::default();
    for pod in pods {
        let name = meta::name(pod.as_ref()).to_owned();
        if pods::is_ending(pod) || pods::phase(pod) == "Failed" {
            groups.ignored.insert(name);
        } else if pods::phase(pod) == "Pending" {
            groups.unready.insert(name);
        } else {
            match metrics.get(&name) {
                None => drop(groups.missing.insert(name)),
                Some(metric) if resource == Some("cpu") && is_starting(pod, metric, now) => {
                    groups.unready.insert(name);
                }
                Some(_) => groups.ready += 1,
            }
        }
    }
    groups
}

/// Whether the CPU of a pod may be that of its start.
fn is_starting(pod: &Pod, metric: &PodMetric, now: Timestamp) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    let (Some(started), Some(ready)) = (started, pods::condition(pod, "Ready")) else { return true };
    let changed = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let is_false = ready.status == "False";
    if now.duration_since(started) < INITIALIZATION {
        return is_false || metric.at.duration_since(changed) < metric.window;
    }
    is_false && changed.duration_since(started) < INITIAL_READINESS
}

#[cfg(test)]
mod tests;
