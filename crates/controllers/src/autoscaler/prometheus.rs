//! Metrics from the Prometheus endpoints of pods, so that autoscaling on requests per second needs no adapter.
//!
//! Pods, or Services for the pods behind them, say where they serve with the usual annotations: `prometheus.io/scrape: "true"`, and
//! `prometheus.io/port` and `prometheus.io/path` where they are not the first port and `/metrics`. A gauge is taken as it is. Of a
//! counter, which `NAME_total` or `NAME_per_second` stands for too, the rate in a second counts.

mod fetch;
mod wanted;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::budgets::heavy;
use futures::StreamExt;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parking_lot::Mutex;
use tokio::time::Instant;

pub(super) use fetch::FetchError;
use fetch::Sockets;
pub(super) use wanted::{METRICS, Wanted, series};
use wanted::{Metric, Reading};

const SCRAPE: &str = "prometheus.io/scrape";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";

/// Time between the two looks at a counter that was not seen before.
const APART: Duration = Duration::from_secs(1);
/// The shortest time from which a new rate follows.
const SHORTEST: Duration = Duration::from_millis(500);
/// An older look says nothing of now.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Pages that one look at an autoscaler reads at the same time.
const PARALLEL: usize = 8;

/// Where a pod's metrics are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    address: SocketAddr,
    path: String,
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
pub(super) struct Scraper {
    seen: Mutex<HashMap<(Place, Metric), Seen>>,
    sockets: Sockets,
}

impl Default for Scraper {
    fn default() -> Self {
        Self { seen: Mutex::default(), sockets: Sockets::new() }
    }
}

/// What a page says of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Is(Measured),
    /// A counter that has not been seen before: its rate is known after another look.
    Counts,
}

/// What a page says of each metric that is wanted, by its number; or why it cannot be read.
pub(super) type Measures = Result<Vec<Option<Measured>>, Arc<FetchError>>;

impl Scraper {
    /// The values of all metrics on each of the pages, which are read until `end`.
    pub(super) async fn measure(&self, places: Vec<Place>, wanted: &Wanted, end: Instant) -> Vec<(Place, Measures)> {
        let mut first = self.pages(places, wanted, end).await;
        let is_new = |answers: &[Option<Answer>]| answers.contains(&Some(Answer::Counts));
        let again = first.iter().filter(|(_, answer)| answer.as_ref().is_ok_and(|all| is_new(all)));
        let again: Vec<Place> = again.map(|(place, _)| place.clone()).collect();
        if !again.is_empty() && Instant::now() + APART < end {
            tokio::time::sleep(APART).await;
            let second = self.pages(again, wanted, end).await;
            // What the first look has found is there, whatever becomes of the second.
            let mut second: HashMap<Place, _> = second.into_iter().filter(|(_, answer)| answer.is_ok()).collect();
            for (place, answer) in &mut first {
                if let Some(newer) = second.remove(place) {
                    *answer = newer;
                }
            }
        }
        let known = |answer| match answer {
            Some(Answer::Is(measured)) => Some(measured),
            Some(Answer::Counts) | None => None,
        };
        let all = first.into_iter();
        all.map(|(place, answer)| (place, answer.map(|all| all.into_iter().map(known).collect()).map_err(Arc::new))).collect()
    }

    async fn pages(
        &self,
        places: Vec<Place>,
        wanted: &Wanted,
        end: Instant,
    ) -> Vec<(Place, Result<Vec<Option<Answer>>, FetchError>)> {
        let reads = places.into_iter().map(|place| async move {
            let late = || FetchError::Late(place.address, place.path.clone());
            let read = match Instant::now() < end {
                true => tokio::time::timeout_at(end, self.page(&place, wanted)).await.map_err(|_| late()).flatten(),
                false => Err(late()),
            };
            (place, read)
        });
        futures::stream::iter(reads).buffer_unordered(PARALLEL).collect().await
    }

    async fn page(&self, place: &Place, wanted: &Wanted) -> Result<Vec<Option<Answer>>, FetchError> {
        let page = self.sockets.page(place.address, &place.path).await?;
        let read = heavy::work(page.len(), || wanted.read(&page)).await;
        let readings = read.ok_or_else(|| FetchError::Series(place.address, place.path.clone()))?;
        let now = Instant::now();
        let answer = |(metric, reading): (&Metric, Option<Reading>)| match reading? {
            Reading::Gauge(value) => Some(Answer::Is(Measured { value, window: SignedDuration::ZERO })),
            Reading::Counter(count) => {
                Some(self.rate(&(place.clone(), metric.clone()), count, now).map_or(Answer::Counts, Answer::Is))
            }
        };
        Ok(wanted.metrics().zip(readings).map(answer).collect())
    }

    /// The rate of a counter since it was seen last; none when that is unknown.
    fn rate(&self, key: &(Place, Metric), count: f64, now: Instant) -> Option<Measured> {
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
        if known.is_none() && seen.len() == seen.capacity() {
            // Before it grows, and not at each new counter: of many pods there are as many.
            seen.retain(|_, old| now - old.at < FORGOTTEN);
        }
        seen.insert(key.clone(), Seen { at: now, count, rate });
        rate
    }
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
