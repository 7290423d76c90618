//! What one look at an autoscaler reads of pods: each page once, for all its metrics.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{MetricIdentifier, MetricSpec};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::super::prometheus::{Measures, Place, Scraper, Wanted};

/// How long one look reads pages. What has not answered then counts as not there.
const READING: Duration = Duration::from_secs(8);
/// Pages that one look reads, at most.
pub(super) const PAGES: usize = 5000;

/// A pod's name, and where it serves metrics.
pub(super) type Places = Vec<(String, Place)>;

pub(in crate::autoscaler) struct Pages {
    pub(super) wanted: Wanted,
    /// When no more is read, from the first page on: what adapters are asked before takes none of this time.
    end: OnceLock<Instant>,
    read: Mutex<HashMap<Place, Measures>>,
    /// Behind all Services of the namespace.
    pub(super) everywhere: OnceLock<Arc<Places>>,
}

impl Pages {
    /// For the metrics of an autoscaler.
    pub(in crate::autoscaler) fn of(specs: &[MetricSpec]) -> Self {
        let identifier = |spec: &'_ MetricSpec| -> Option<MetricIdentifier> {
            let pods = spec.pods.as_ref().map(|source| &source.metric);
            let object = || spec.object.as_ref().map(|source| &source.metric);
            pods.or_else(object).or_else(|| spec.external.as_ref().map(|source| &source.metric)).cloned()
        };
        let identifiers: Vec<_> = specs.iter().filter_map(identifier).collect();
        Self {
            wanted: Wanted::new(identifiers.iter()),
            end: OnceLock::new(),
            read: Mutex::default(),
            everywhere: OnceLock::new(),
        }
    }

    /// Reads the pages that have not been read yet.
    pub(super) async fn read(&self, scraper: &Scraper, places: &Places) {
        let new: HashSet<Place> = {
            let read = self.read.lock();
            places.iter().map(|(_, place)| place).filter(|place| !read.contains_key(*place)).cloned().collect()
        };
        let end = *self.end.get_or_init(|| Instant::now() + READING);
        let found = scraper.measure(new.into_iter().collect(), &self.wanted, end).await;
        self.read.lock().extend(found);
    }

    /// What is known of a page that was read.
    pub(super) fn at(&self, place: &Place) -> Option<Measures> {
        self.read.lock().get(place).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn time_begins_with_the_first_page() {
        let (pages, scraper) = (Pages::of(&[]), Scraper::default());
        assert_eq!(pages.end.get(), None);
        pages.read(&scraper, &Places::new()).await;
        let end = pages.end.get().copied();
        assert!(end.is_some_and(|end| end <= Instant::now() + READING));
        pages.read(&scraper, &Places::new()).await;
        assert_eq!(pages.end.get().copied(), end);
    }
}
