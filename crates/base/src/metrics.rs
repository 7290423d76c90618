//! The metrics of a process, on one page for each of its roles, under the names and labels that upstream's components use.
//!
//! The formats are those of Prometheus: its text format, which every scraper takes, and OpenMetrics for those who ask for it.

mod process;
pub mod samples;
mod text;

use std::collections::HashSet;
use std::fmt;
use std::sync::LazyLock;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text as text_format};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

/// Buckets of histograms of seconds where nothing else is said, as Prometheus' libraries have them.
pub const DEFAULT_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A family of histograms whose buckets all members share.
pub type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// What one scrape gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Page {
    /// The server's: API server, store, controllers and scheduler.
    Server,
    /// The node's: kubelet, pod network, service proxy and cluster DNS.
    Node,
    /// Service level indicators of the server (`/metrics/slis`, KEP-3466): the outcome of its health checks.
    ServerSlis,
    /// What the node's probes found (`/metrics/probes`).
    Probes,
}

/// The syntax of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a client takes that sends this `Accept` header: OpenMetrics only when it asks for it before any plain text.
    pub fn accepted(accept: &str) -> Self {
        let media = accept.split(',').map(|part| part.split(';').next().unwrap_or_default().trim());
        match media.into_iter().find(|media| matches!(*media, "application/openmetrics-text" | "text/plain" | "text/*" | "*/*")) {
            Some("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    /// A page of OpenMetrics in this format.
    fn of(self, page: String, bare: &HashSet<&'static str>) -> String {
        match self {
            Self::OpenMetrics => page,
            Self::Text => text::of_openmetrics(&page, bare),
        }
    }

    /// The `Content-Type` of a page.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[derive(Default)]
struct Contents {
    registry: Registry,
    /// Counters that upstream has named without `_total`.
    bare: HashSet<&'static str>,
}

static SERVER: LazyLock<Mutex<Contents>> = LazyLock::new(|| Mutex::new(with_process()));
static NODE: LazyLock<Mutex<Contents>> = LazyLock::new(|| Mutex::new(with_process()));
static SERVER_SLIS: LazyLock<Mutex<Contents>> = LazyLock::new(Mutex::default);
static PROBES: LazyLock<Mutex<Contents>> = LazyLock::new(Mutex::default);

fn with_process() -> Contents {
    let mut contents = Contents::default();
    contents.registry.register_collector(Box::new(process::Process));
    contents
}

impl Page {
    fn contents(self) -> &'static Mutex<Contents> {
        match self {
            Self::Server => &SERVER,
            Self::Node => &NODE,
            Self::ServerSlis => &SERVER_SLIS,
            Self::Probes => &PROBES,
        }
    }

    /// Registers a metric and hands it back. A counter's `name` comes without `_total`.
    pub fn register<M: Metric + Clone>(self, name: &'static str, help: &str, metric: M) -> M {
        self.contents().lock().registry.register(name, help, metric.clone());
        metric
    }

    /// Registers a counter whose name in the text format has no `_total`.
    pub fn register_bare<M: Metric + Clone>(self, name: &'static str, help: &str, metric: M) -> M {
        self.contents().lock().bare.insert(name);
        self.register(name, help, metric)
    }

    /// Registers a gauge that `read` tells at every scrape: it calls its argument with each set of labels and their value.
    pub fn observe(self, name: &'static str, help: &'static str, read: impl Fn(&mut Tell<'_>) + Send + Sync + 'static) {
        self.contents().lock().registry.register_collector(Box::new(Observed { name, help, read }));
    }

    /// Registers what tells several metrics at every scrape.
    pub fn collect(self, collector: Box<dyn Collector>) {
        self.contents().lock().registry.register_collector(collector);
    }

    /// The page.
    pub fn encode(self, format: Format) -> String {
        self.encode_with(format, &Registry::default())
    }

    /// The page, with metrics that are only known to who asks.
    pub fn encode_with(self, format: Format, more: &Registry) -> String {
        let contents = self.contents().lock();
        let mut page = String::new();
        // Writing to a String cannot fail.
        let _ = text_format::encode_registry(&mut page, &contents.registry);
        let _ = text_format::encode(&mut page, more);
        format.of(page, &contents.bare)
    }
}

/// A page of gauges that are read for who asks, by name and help.
pub fn page_of(format: Format, gauges: impl IntoIterator<Item = (&'static str, &'static str, Read)>) -> String {
    let mut registry = Registry::default();
    for (name, help, read) in gauges {
        registry.register_collector(Box::new(Observed { name, help, read }));
    }
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = text_format::encode(&mut page, &registry);
    format.of(page, &HashSet::new())
}

/// What tells the samples of a gauge.
pub type Read = Box<dyn Fn(&mut Tell<'_>) + Send + Sync>;

/// Takes the labels and the value of one sample.
pub type Tell<'a> = dyn FnMut(&[(&str, &str)], f64) + 'a;

/// A gauge that is read at every scrape.
struct Observed<R> {
    name: &'static str,
    help: &'static str,
    read: R,
}

impl<R> fmt::Debug for Observed<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<R: Fn(&mut Tell<'_>) + Send + Sync + 'static> Collector for Observed<R> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
        let mut result = Ok(());
        (self.read)(&mut |labels, value| {
            let one = metric.encode_family(&labels).and_then(|encoder| ConstGauge::new(value).encode(encoder));
            result = result.and(one);
        });
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_they_ask_for() {
        let check = |accept: &str, expected| assert_eq!(Format::accepted(accept), expected, "{accept}");
        check("", Format::Text);
        check("*/*", Format::Text);
        check("text/plain", Format::Text);
        // What Prometheus sends.
        check("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1", Format::OpenMetrics);
        check("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.2", Format::Text);
        // Protobuf is not offered.
        check("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;q=0.7,*/*;q=0.1", Format::Text);
    }

    #[test]
    fn pages_have_what_was_registered_on_them_and_the_process() {
        Page::Node.observe("test_depth", "How many wait.", |tell| {
            tell(&[("name", "a\"b")], 1.5);
            tell(&[("name", "c")], 3.0);
        });
        let page = Page::Node.encode(Format::Text);
        for line in ["# TYPE test_depth gauge", "test_depth{name=\"a\\\"b\"} 1.5", "test_depth{name=\"c\"} 3.0"] {
            assert!(page.lines().any(|found| found == line), "{line} is not in {page}");
        }
        for name in
            ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds", "process_open_fds"]
        {
            let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            assert!(value.is_some_and(|value| value >= 0.0), "{name} is not in {page}");
        }
        assert!(!Page::ServerSlis.encode(Format::Text).contains("process_"));
        assert!(Page::Node.encode(Format::OpenMetrics).ends_with("# EOF\n"));
    }
}
