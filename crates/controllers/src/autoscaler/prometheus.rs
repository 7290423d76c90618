//! Metrics from the Prometheus endpoints of pods, so that autoscaling on requests per second needs no adapter.
//!
//! Pods, or Services for the pods behind them, say where they serve with the usual annotations: `prometheus.io/scrape: "true"`, and
//! `prometheus.io/port` and `prometheus.io/path` where they are not the first port and `/metrics`. A gauge is taken as it is. Of a
//! counter, which `NAME_total` or `NAME_per_second` stands for too, the rate in a second counts.

mod fetch;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use apimachinery::labels::Selector;
use base::metrics::samples::{counters, samples};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parking_lot::Mutex;
use tokio::time::Instant;

use fetch::FetchError;

const SCRAPE: &str = "prometheus.io/scrape";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";

/// Time between the two looks at a counter that was not seen before.
const APART: Duration = Duration::from_secs(1);
/// The shortest time from which a new rate follows.
const SHORTEST: Duration = Duration::from_millis(500);
/// An older look says nothing of now.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Where a pod's metrics are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    address: SocketAddr,
    path: String,
}

/// A metric on a page: the sum of the series that are selected.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reading {
    Gauge(f64),
    Counter(f64),
}

/// What is wanted of pages.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) metric: &'a str,
    pub(super) selector: &'a Selector,
}

/// A value, and the time over which it was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) value: f64,
    pub(super) window: SignedDuration,
}

/// A counter as it was, and its rate at that time.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    count: f64,
    rate: Option<Measured>,
}

/// Reads pages, and remembers counters.
#[derive(Default)]
pub(super) struct Scraper {
    seen: Mutex<HashMap<(Place, String, String), Seen>>,
}

impl Scraper {
    /// The value of a metric on a page; none when the page does not have it.
    pub(super) async fn measure(&self, place: &Place, wanted: Wanted<'_>) -> Result<Option<Measured>, FetchError> {
        let Some(reading) = read(&fetch::page(place.address, &place.path).await?, wanted) else { return Ok(None) };
        let count = match reading {
            Reading::Gauge(value) => return Ok(Some(Measured { value, window: SignedDuration::ZERO })),
            Reading::Counter(count) => count,
        };
        let key = (place.clone(), wanted.metric.to_owned(), wanted.selector.to_string());
        if let Some(rate) = self.rate(&key, count, Instant::now()) {
            return Ok(Some(rate));
        }
        tokio::time::sleep(APART).await;
        match read(&fetch::page(place.address, &place.path).await?, wanted) {
            Some(Reading::Counter(count)) => Ok(self.rate(&key, count, Instant::now())),
            _ => Ok(None),
        }
    }

    /// The rate of a counter since it was seen last; none when that is unknown.
    fn rate(&self, key: &(Place, String, String), count: f64, now: Instant) -> Option<Measured> {
        let mut seen = self.seen.lock();
        let known = seen.get(key).copied().filter(|known| now - known.at < FORGOTTEN);
        if let Some(known) = known.filter(|known| known.rate.is_some() && now - known.at < SHORTEST) {
            return known.rate;
        }
        let rate = known.map(|known| {
            let elapsed = now - known.at;
            // A program that has started again counts from nothing.
            let grown = if count < known.count { count } else { count - known.count };
            let window = SignedDuration::try_from(elapsed).unwrap_or_default();
            Measured { value: grown / elapsed.as_secs_f64().max(0.001), window }
        });
        if known.is_none() {
            seen.retain(|_, old| now - old.at < FORGOTTEN);
        }
        seen.insert(key.clone(), Seen { at: now, count, rate });
        rate
    }
}

/// Finds the metric on a page.
fn read(page: &str, wanted: Wanted<'_>) -> Option<Reading> {
    let bare = wanted.metric.strip_suffix("_per_second");
    let names = [Some(wanted.metric.to_owned()), Some(format!("{}_total", wanted.metric)), bare.map(str::to_owned)];
    let names = names.into_iter().flatten().chain(bare.map(|bare| format!("{bare}_total")));
    names.into_iter().find_map(|name| {
        let mut selected = samples(page).filter(|sample| sample.name == name && sample.value.is_finite()).filter(|sample| {
            let labels: BTreeMap<String, String> =
                sample.labels.iter().map(|(label, value)| ((*label).to_owned(), value.clone())).collect();
            wanted.selector.matches(&labels)
        });
        let first = selected.next()?.value;
        let sum = selected.fold(first, |sum, sample| sum + sample.value);
        let is_counter = name.ends_with("_total") || counters(page).any(|counter| counter == name);
        Some(if is_counter { Reading::Counter(sum) } else { Reading::Gauge(sum) })
    })
}

/// Where a pod serves its metrics, if its annotations say that it does.
pub(super) fn of_pod(pod: &Pod) -> Option<Place> {
    let annotations = pod.metadata.annotations.as_ref()?;
    let first = || {
        let mut ports = pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|one| one.ports.iter().flatten());
        ports.next().and_then(|port| u16::try_from(port.container_port).ok())
    };
    place(annotations, pod, first)
}

/// Where a pod behind a Service serves its metrics, if the Service's annotations say that it does.
pub(super) fn behind(service: &Service, pod: &Pod) -> Option<Place> {
    let annotations = service.metadata.annotations.as_ref()?;
    place(annotations, pod, || target_port(service, pod))
}

fn place(annotations: &BTreeMap<String, String>, pod: &Pod, port: impl Fn() -> Option<u16>) -> Option<Place> {
    annotations.get(SCRAPE).filter(|scrape| *scrape == "true")?;
    let port = match annotations.get(PORT) {
        Some(port) => port.parse().ok()?,
        None => port()?,
    };
    let ip = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    let path = annotations.get(PATH).map_or("/metrics", String::as_str);
    Some(Place { address: SocketAddr::new(ip, port), path: format!("/{}", path.trim_start_matches('/')) })
}

/// The port of a pod behind the first port of a Service.
fn target_port(service: &Service, pod: &Pod) -> Option<u16> {
    let port = service.spec.as_ref()?.ports.as_ref()?.first()?;
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let mut ports = pod.spec.as_ref()?.containers.iter().flat_map(|one| one.ports.iter().flatten());
            ports.find(|port| port.name.as_ref() == Some(name))?.container_port
        }
    };
    u16::try_from(number).ok()
}

#[cfg(test)]
mod tests;
