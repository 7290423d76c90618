//! Garbage collection of images (docs, "Garbage collection of unused container images"): what upstream's `image_gc_manager.go` does.
//!
//! | module | what it is |
//! |---|---|
//! | this one | the policy, and when each image was seen and used; pure |
//! | [`collector`] | the removals |
//! | [`rounds`] | the task |

pub mod collector;
pub mod rounds;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use apimachinery::time::duration_text;
use runtime::api::Image;
use tokio::time::Instant;

use crate::node::supply::Supply;

/// When images that nobody uses are removed. Field names are those of upstream's KubeletConfiguration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `imageGCHighThresholdPercent`: images are removed when more than this part of their disk is used.
    high: u8,
    /// `imageGCLowThresholdPercent`: they are removed until no more than this part is used.
    low: u8,
    /// `imageMinimumGCAge`: a younger image stays.
    pub minimum_age: Duration,
    /// `imageMaximumGCAge`: an image that was not used for longer goes, however much of the disk is free; zero is never.
    pub maximum_age: Duration,
}

/// What cannot be a policy. The texts name the options as upstream's validation does.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    /// No percentage.
    #[error("imageGCHighThresholdPercent (--image-gc-high-threshold) {0} must be between 0 and 100, inclusive")]
    High(u8),
    /// No percentage.
    #[error("imageGCLowThresholdPercent (--image-gc-low-threshold) {0} must be between 0 and 100, inclusive")]
    Low(u8),
    /// Nothing would be removed.
    #[error(
        "imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"
    )]
    Order {
        /// The lower one.
        low: u8,
        /// The higher one.
        high: u8,
    },
    /// No age is allowed.
    #[error(
        "imageMaximumGCAge (--image-maximum-gc-age) {} must be greater than imageMinimumGCAge (--minimum-image-ttl-duration) {}",
        duration_text(*maximum), duration_text(*minimum)
    )]
    Ages {
        /// The least age.
        minimum: Duration,
        /// The greatest one.
        maximum: Duration,
    },
}

impl Default for Policy {
    fn default() -> Self {
        Self { high: 85, low: 80, minimum_age: Duration::from_secs(120), maximum_age: Duration::ZERO }
    }
}

impl Policy {
    /// Checked as upstream does.
    ///
    /// # Errors
    /// Percentages or ages that make no sense, alone or together.
    pub fn new((high, low): (u8, u8), minimum_age: Duration, maximum_age: Duration) -> Result<Self, PolicyError> {
        if high > 100 {
            return Err(PolicyError::High(high));
        }
        if low > 100 {
            return Err(PolicyError::Low(low));
        }
        if low >= high {
            return Err(PolicyError::Order { low, high });
        }
        if !maximum_age.is_zero() && maximum_age <= minimum_age {
            return Err(PolicyError::Ages { minimum: minimum_age, maximum: maximum_age });
        }
        Ok(Self { high, low, minimum_age, maximum_age })
    }

    /// The two thresholds, percent of the disk: the higher one first.
    pub fn thresholds(&self) -> (u8, u8) {
        (self.high, self.low)
    }

    /// Nothing is ever removed by it.
    fn is_off(&self) -> bool {
        self.high == 100 && self.maximum_age.is_zero()
    }

    /// How many bytes must become free; none while the disk is below the higher threshold.
    fn excess(&self, disk: Supply) -> Option<i64> {
        let (total, available) = (i128::from(disk.total), i128::from(disk.available.min(disk.total)));
        let wanted = total * i128::from(100 - self.low) / 100;
        (disk.used_percent() >= i128::from(self.high)).then(|| i64::try_from(wanted - available).unwrap_or(i64::MAX))
    }
}

/// What is known of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    /// When it was seen first; none was there before this kubelet.
    first: Option<Instant>,
    /// When it was seen in use last.
    used: Option<Instant>,
    size: u64,
    pinned: bool,
}

/// An image that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    id: String,
    record: Record,
}

/// The images of the node by their identifiers.
#[derive(Debug)]
struct Records {
    images: BTreeMap<String, Record>,
    /// Since when the kubelet looks.
    began: Instant,
    has_looked: bool,
}

impl Records {
    fn new(began: Instant) -> Self {
        Self { images: BTreeMap::new(), began, has_looked: false }
    }

    /// Takes over which images there are and which of them are in use.
    fn observe(&mut self, images: &[Image], used: &HashSet<String>, now: Instant) {
        let first = self.has_looked.then_some(now);
        let old = std::mem::take(&mut self.images);
        for image in images {
            let known = old.get(&image.id);
            let record = Record {
                first: known.map_or(first, |known| known.first),
                used: if used.contains(&image.id) { Some(now) } else { known.and_then(|known| known.used) },
                size: image.size,
                pinned: image.pinned,
            };
            self.images.insert(image.id.clone(), record);
        }
        self.has_looked = true;
    }

    /// Images that nobody uses, the one first that was not used for the longest time.
    fn unused(&self, used: &HashSet<String>) -> Vec<Candidate> {
        let may_go = |(id, record): &(&String, &Record)| !record.pinned && !used.contains(*id);
        let mut all: Vec<_> =
            self.images.iter().filter(may_go).map(|(id, record)| Candidate { id: id.clone(), record: *record }).collect();
        all.sort_by_key(|candidate| (candidate.record.used, candidate.record.first));
        all
    }

    /// Whether an image was not used for longer than the policy lets it stay. Before this kubelet has looked for as long, nobody knows.
    fn is_too_old(&self, record: &Record, policy: &Policy, now: Instant) -> bool {
        let since = record.used.max(record.first).unwrap_or(self.began);
        !policy.maximum_age.is_zero() && now.duration_since(since) > policy.maximum_age
    }
}

impl Record {
    /// Whether it may only just have come, for a container that is about to begin.
    fn is_young(&self, policy: &Policy, now: Instant) -> bool {
        self.first.is_some_and(|first| now.duration_since(first) < policy.minimum_age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn policies() {
        let check = |thresholds: (u8, u8), ages: (u64, u64), expected: Option<&str>| {
            let policy = Policy::new(thresholds, Duration::from_secs(ages.0), Duration::from_secs(ages.1));
            let error = policy.err().map(|error| error.to_string());
            match expected {
                None => assert_eq!(error, None),
                Some(part) => assert!(error.as_ref().is_some_and(|text| text.contains(part)), "{error:?}"),
            }
        };
        check((85, 80), (120, 0), None);
        check((100, 0), (0, 1), None);
        check((101, 80), (120, 0), Some("(--image-gc-high-threshold) 101 must be between 0 and 100, inclusive"));
        check((100, 101), (120, 0), Some("(--image-gc-low-threshold) 101 must be between 0 and 100, inclusive"));
        check((80, 80), (120, 0), Some("80 must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) 80"));
        check((85, 80), (120, 120), Some("2m0s must be greater than imageMinimumGCAge (--minimum-image-ttl-duration) 2m0s"));
        assert!(Policy::new((100, 80), MINUTE, Duration::ZERO).unwrap().is_off());
        assert!(!Policy::default().is_off());
    }

    /// "HighThresholdPercent ... triggers garbage collection, which deletes images in order of the last time they were used, starting with the
    /// oldest first. The kubelet deletes images until disk usage reaches the LowThresholdPercent value." (docs, Garbage Collection)
    #[test]
    fn thresholds() {
        let check = |total: i64, available: i64, expected: Option<i64>| {
            assert_eq!(Policy::default().excess(Supply { total, available }), expected, "{available} of {total}");
        };
        check(1000, 160, None);
        check(1000, 150, Some(50));
        check(1000, 0, Some(200));
        check(1000, 5000, None);
        check(i64::MAX, 0, Some(i64::MAX / 5));
    }

    fn image(id: &str) -> Image {
        Image { id: id.to_owned(), size: 10, pinned: id == "pinned", ..Image::default() }
    }

    fn set(ids: &[&str]) -> HashSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[tokio::test]
    async fn the_least_recently_used_goes_first() {
        let start = Instant::now();
        let at = |minutes: u32| start + MINUTE * minutes;
        let all = |ids: &[&str]| ids.iter().map(|id| image(id)).collect::<Vec<_>>();
        let mut records = Records::new(start);
        records.observe(&all(&["a", "b", "c", "pinned"]), &set(&["b"]), at(0));
        records.observe(&all(&["a", "b", "c", "new", "pinned"]), &set(&["a", "c"]), at(5));
        records.observe(&all(&["a", "b", "c", "new", "pinned"]), &set(&["c"]), at(10));
        let order = |records: &Records, used: &[&str]| {
            records.unused(&set(used)).into_iter().map(|candidate| candidate.id).collect::<Vec<_>>()
        };
        assert_eq!(order(&records, &[]), ["new", "b", "a", "c"]);
        assert_eq!(order(&records, &["b", "c"]), ["new", "a"]);
        // What is gone is forgotten, and seen anew.
        records.observe(&all(&["c"]), &set(&[]), at(15));
        records.observe(&all(&["b", "c"]), &set(&[]), at(20));
        assert_eq!(order(&records, &[]), ["b", "c"]);
        assert_eq!(records.images["b"].first, Some(at(20)));
    }

    #[tokio::test]
    async fn ages() {
        let start = Instant::now();
        let at = |minutes: u32| start + MINUTE * minutes;
        let policy = Policy::new((85, 80), MINUTE * 2, MINUTE * 30).unwrap();
        let mut records = Records::new(start);
        records.observe(&[image("old"), image("used")], &set(&["used"]), at(0));
        records.observe(&[image("old"), image("used"), image("new")], &set(&["used"]), at(10));
        let check = |id: &str, minute: u32, is_young: bool, is_too_old: bool| {
            let record = &records.images[id];
            let found = (record.is_young(&policy, at(minute)), records.is_too_old(record, &policy, at(minute)));
            assert_eq!(found, (is_young, is_too_old), "{id} at {minute}");
        };
        check("new", 11, true, false);
        check("new", 12, false, false);
        check("new", 40, false, false);
        check("new", 41, false, true);
        // One that was there before is not young, and its age begins with the kubelet.
        check("old", 0, false, false);
        check("old", 30, false, false);
        check("old", 31, false, true);
        check("used", 40, false, false);
        check("used", 41, false, true);
        let never = Policy::default();
        assert!(!records.is_too_old(&records.images["old"], &never, at(100_000)));
    }
}
