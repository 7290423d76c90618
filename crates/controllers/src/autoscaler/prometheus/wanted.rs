//! The metrics that one autoscaler wants of pages, and how a page is read for all of them at once. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use apimachinery::labels::{self, Selector};
use base::metrics::samples::{counters, samples};
use k8s_openapi::api::autoscaling::v2::MetricIdentifier;

/// Metrics of one autoscaler that are read from pods, at most. Each page is searched for all of them.
pub(in crate::autoscaler) const METRICS: usize = 32;
/// Comparisons of the series of one page with the selectors of metrics, at most.
const EFFORT: usize = 1 << 20;

/// A name, and the selector of series as a text.
pub(super) type Metric = (String, String);

/// A metric on a page: the sum of the series that are selected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reading {
    Gauge(f64),
    Counter(f64),
}

struct One {
    metric: Metric,
    selector: Selector,
    /// Comparisons that the selector takes for a series, about.
    effort: usize,
}

/// The metrics that are wanted, each with its number.
#[derive(Default)]
pub(in crate::autoscaler) struct Wanted {
    all: Vec<One>,
    /// Numbers of metrics by the names under which a page may have them, with the rank of the name for that metric.
    names: HashMap<String, Vec<(usize, usize)>>,
}

/// The names under which a page may have a metric, the best first.
fn names(metric: &str) -> impl Iterator<Item = String> {
    let bare = metric.strip_suffix("_per_second");
    let names = [Some(metric.to_owned()), Some(format!("{metric}_total")), bare.map(str::to_owned)];
    names.into_iter().chain([bare.map(|bare| format!("{bare}_total"))]).flatten()
}

/// The series that count of a metric.
pub(in crate::autoscaler) fn series(metric: &MetricIdentifier) -> Result<Selector, labels::SelectorError> {
    match &metric.selector {
        None => Ok(Selector::everything()),
        selector => Selector::from_label_selector(selector.as_ref()),
    }
}

impl Wanted {
    /// These metrics; those with a selector that makes no sense are left out, and those above [`METRICS`].
    pub(in crate::autoscaler) fn new<'a>(metrics: impl Iterator<Item = &'a MetricIdentifier>) -> Self {
        let mut wanted = Self::default();
        for metric in metrics {
            if wanted.all.len() < METRICS
                && let Ok(selector) = series(metric)
            {
                wanted.add(&metric.name, selector);
            }
        }
        wanted
    }

    fn add(&mut self, name: &str, selector: Selector) {
        let text = selector.to_string();
        if self.number(name, &text).is_some() {
            return;
        }
        let number = self.all.len();
        for (rank, name) in names(name).enumerate() {
            self.names.entry(name).or_default().push((number, rank));
        }
        let effort = 1 + text.len() / 32;
        self.all.push(One { metric: (name.to_owned(), text), selector, effort });
    }

    /// The number of a metric; none when it is not among those that are read.
    pub(in crate::autoscaler) fn number(&self, name: &str, selector: &str) -> Option<usize> {
        self.all.iter().position(|one| one.metric.0 == name && one.metric.1 == selector)
    }

    pub(super) fn metrics(&self) -> impl Iterator<Item = &Metric> {
        self.all.iter().map(|one| &one.metric)
    }

    /// Finds all metrics on a page; none when it has more series than can be compared.
    pub(super) fn read(&self, page: &str) -> Option<Vec<Option<Reading>>> {
        const NAMES: usize = 4;
        let (mut sums, mut effort) = (vec![[None::<f64>; NAMES]; self.all.len()], 0);
        for sample in samples(page).filter(|sample| sample.value.is_finite()) {
            let Some(numbers) = self.names.get(sample.name) else { continue };
            let labels: BTreeMap<String, String> =
                sample.labels.into_iter().map(|(label, value)| (label.to_owned(), value)).collect();
            for (number, rank) in numbers {
                effort += self.all[*number].effort;
                if effort > EFFORT {
                    return None;
                }
                if self.all[*number].selector.matches(&labels) {
                    *sums[*number][*rank].get_or_insert(0.0) += sample.value;
                }
            }
        }
        let counters: HashSet<&str> = counters(page).filter(|name| self.names.contains_key(*name)).collect();
        let reading = |(one, sums): (&One, [Option<f64>; NAMES])| {
            let (name, sum) = names(&one.metric.0).zip(sums).find_map(|(name, sum)| Some((name, sum?)))?;
            let is_counter = name.ends_with("_total") || counters.contains(name.as_str());
            Some(if is_counter { Reading::Counter(sum) } else { Reading::Gauge(sum) })
        };
        Some(self.all.iter().zip(sums).map(reading).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    use serde_json::json;

    const PAGE: &str = "# TYPE http_requests_total counter\n\
        http_requests_total{code=\"200\",method=\"get\"} 90\nhttp_requests_total{code=\"500\",method=\"get\"} 10\n\
        # TYPE queue_length gauge\nqueue_length{queue=\"a\"} 7\nqueue_length{queue=\"b\"} 5\n\
        # TYPE bytes counter\nbytes 4\nbroken NaN\n";

    fn wanted(metrics: &[(&str, &str)]) -> Wanted {
        let mut wanted = Wanted::default();
        for (name, selector) in metrics {
            wanted.add(name, Selector::parse(selector).unwrap());
        }
        wanted
    }

    #[test]
    fn metrics_on_a_page() {
        let cases = [
            ("queue_length", "", Some(Reading::Gauge(12.0))),
            ("queue_length", "queue=b", Some(Reading::Gauge(5.0))),
            ("queue_length", "queue=c", None),
            ("http_requests", "", Some(Reading::Counter(100.0))),
            ("http_requests_total", "", Some(Reading::Counter(100.0))),
            ("http_requests_per_second", "", Some(Reading::Counter(100.0))),
            ("http_requests_total_per_second", "", Some(Reading::Counter(100.0))),
            ("http_requests", "code=500", Some(Reading::Counter(10.0))),
            ("bytes", "", Some(Reading::Counter(4.0))),
            ("broken", "", None),
            ("http", "", None),
        ];
        let all = wanted(&cases.map(|(name, selector, _)| (name, selector)));
        let together = all.read(PAGE).unwrap();
        for (index, (name, selector, expected)) in cases.into_iter().enumerate() {
            assert_eq!(wanted(&[(name, selector)]).read(PAGE).unwrap(), [expected], "{name}{{{selector}}}");
            assert_eq!(together[index], expected, "{name}{{{selector}}} among others");
            assert_eq!(all.number(name, selector), Some(index));
        }
    }

    #[test]
    fn only_so_many_metrics_are_read_and_each_once() {
        let identifier = |name: String| -> MetricIdentifier { serde_json::from_value(json!({"name": name})).unwrap() };
        let metrics: Vec<_> = (0..1000).map(|number| identifier(format!("m{}", number / 2))).collect();
        let wanted = Wanted::new(metrics.iter());
        assert_eq!(wanted.metrics().count(), METRICS);
        assert_eq!((wanted.number("m3", ""), wanted.number("m400", "")), (Some(3), None));
    }

    #[test]
    fn a_page_of_many_series_is_given_up() {
        let page = (0..40_000).fold(String::new(), |mut page, number| {
            let _ = writeln!(page, "a{{n=\"{number}\"}} 1");
            page
        });
        let selectors: Vec<String> = (0..METRICS).map(|number| format!("n={number}")).collect();
        let many: Vec<_> = selectors.iter().map(|selector| ("a", selector.as_str())).collect();
        assert_eq!(wanted(&many).read(&page), None);
        assert_eq!(wanted(&many[..1]).read(&page), Some(vec![Some(Reading::Gauge(1.0))]));
    }
}
