//! Removes images by the policy, and all that nobody uses when the disk is short.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use apimachinery::time::duration_text;
use base::metrics::Page;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use runtime::api::Runtime;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Candidate, Policy, Records};
use crate::node::supply::Supply;

/// Why an image has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Age,
    Space,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    reason: &'static str,
}

static COLLECTED: LazyLock<Family<Label, Counter>> = LazyLock::new(|| {
    Page::Node.register(
        "kubelet_image_garbage_collected",
        "Total number of images garbage collected by the kubelet, whether through disk usage or image age",
        Family::default(),
    )
});

/// Why images could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime does not say what it has.
    #[error(transparent)]
    Runtime(#[from] runtime::api::Error),
    /// The image file system does not say how large it is.
    #[error("invalid capacity 0 on image filesystem")]
    Capacity,
    /// Others have the disk.
    #[error(
        "Insufficient free disk space on the node's image filesystem ({}% of {} used). Failed to free sufficient space by deleting unused \
         images (freed {freed} bytes). Investigate disk usage, as it could be used by active images, logs, volumes, or other data.",
        disk.used_percent(), size(disk.total)
    )]
    TooFew {
        /// The disk before.
        disk: Supply,
        /// Bytes of the images that went.
        freed: i64,
    },
    /// Images that had to go for their age.
    #[error("wanted to free images older than {}, encountered errors in image deletion: {errors}", duration_text(*age))]
    Old {
        /// The greatest age.
        age: Duration,
        /// What the runtime says.
        errors: String,
    },
    /// Images that had to go for their size.
    #[error("wanted to free {wanted} bytes, but freed {freed} bytes space with errors in image deletion: {errors}")]
    Stayed {
        /// Bytes that had to go.
        wanted: i64,
        /// Bytes of the images that went.
        freed: i64,
        /// What the runtime says.
        errors: String,
    },
}

impl Error {
    /// The reason of the event that a node has for it besides `ImageGCFailed`.
    pub(super) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Capacity => Some("InvalidDiskCapacity"),
            Self::TooFew { .. } => Some("FreeDiskSpaceFailed"),
            _ => None,
        }
    }
}

/// A size for people, as upstream writes it (`formatSize`).
fn size(bytes: i64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = ((bytes.ilog2() / 10) as usize).min(UNITS.len());
    let (unit, scale) = (UNITS[power - 1], 1_i64 << (10 * power));
    // Rounded half to even, of what a double has of it, as Go does.
    #[allow(clippy::cast_precision_loss)]
    let amount = bytes as f64 / scale as f64;
    format!("{amount:.1} {unit}")
}

/// What came of a round.
#[derive(Debug)]
pub struct Round {
    /// How many images have gone.
    pub removed: usize,
    /// Whether all went that had to.
    pub outcome: Result<(), Error>,
}

/// Collects the images of one node.
pub struct Collector {
    policy: Policy,
    records: Mutex<Records>,
}

impl Collector {
    /// Its maximum age counts from now on.
    pub fn new(policy: Policy) -> Self {
        Self { policy, records: Mutex::new(Records::new(Instant::now())) }
    }

    /// Removes what is too old, and of the rest as much as makes the disk empty enough. `used` are the images that somebody needs.
    pub async fn collect(&self, runtime: &dyn Runtime, used: &HashSet<String>, disk: Option<Supply>, now: Instant) -> Round {
        let mut removed = 0;
        let outcome = self.collect_counted((runtime, now), used, disk, &mut removed).await;
        Round { removed, outcome }
    }

    async fn collect_counted(
        &self,
        (runtime, now): (&dyn Runtime, Instant),
        used: &HashSet<String>,
        disk: Option<Supply>,
        removed: &mut usize,
    ) -> Result<(), Error> {
        let mut records = self.records.lock().await;
        records.observe(&runtime.images().await?, used, now);
        if self.policy.is_off() {
            return Ok(());
        }
        let (old, rest): (Vec<_>, Vec<_>) =
            records.unused(used).into_iter().partition(|image| records.is_too_old(&image.record, &self.policy, now));
        let errors = free(runtime, &mut records, old, (i64::MAX, Reason::Age), removed).await.errors;
        if !errors.is_empty() {
            return Err(Error::Old { age: self.policy.maximum_age, errors: errors.join(", ") });
        }
        let disk = disk.filter(|disk| disk.total > 0).ok_or(Error::Capacity)?;
        let Some(wanted) = self.policy.excess(disk) else { return Ok(()) };
        let freed = self.free_space((runtime, now), &mut records, rest, wanted, removed).await?;
        if freed < wanted { Err(Error::TooFew { disk, freed }) } else { Ok(()) }
    }

    /// Removes everything that nobody uses and that is not young.
    pub async fn free_unused(&self, runtime: &dyn Runtime, used: &HashSet<String>, now: Instant) -> Round {
        let (mut records, mut removed) = (self.records.lock().await, 0);
        let images = match runtime.images().await {
            Ok(images) => images,
            Err(error) => return Round { removed, outcome: Err(error.into()) },
        };
        records.observe(&images, used, now);
        let candidates = records.unused(used);
        let freed = self.free_space((runtime, now), &mut records, candidates, i64::MAX, &mut removed).await;
        Round { removed, outcome: freed.map(drop) }
    }

    /// How many bytes have gone.
    async fn free_space(
        &self,
        (runtime, now): (&dyn Runtime, Instant),
        records: &mut Records,
        mut candidates: Vec<Candidate>,
        wanted: i64,
        removed: &mut usize,
    ) -> Result<i64, Error> {
        candidates.retain(|image| !image.record.is_young(&self.policy, now));
        let Freed { bytes: freed, errors } = free(runtime, records, candidates, (wanted, Reason::Space), removed).await;
        if errors.is_empty() { Ok(freed) } else { Err(Error::Stayed { wanted, freed, errors: errors.join(", ") }) }
    }
}

/// What a removal of several images has come to.
#[derive(Default)]
struct Freed {
    bytes: i64,
    errors: Vec<String>,
}

/// Removes images in this order until so many bytes are free.
async fn free(
    runtime: &dyn Runtime,
    records: &mut Records,
    candidates: Vec<Candidate>,
    (wanted, reason): (i64, Reason),
    removed: &mut usize,
) -> Freed {
    let mut freed = Freed::default();
    for Candidate { id, record } in candidates {
        if freed.bytes >= wanted {
            break;
        }
        match runtime.remove_image(&id).await {
            Ok(()) => {}
            // Somebody else was faster, with a container or with the removal.
            Err(runtime::api::Error::InUse(_) | runtime::api::Error::NotFound(_)) => continue,
            Err(error) => {
                freed.errors.push(error.to_string());
                continue;
            }
        }
        tracing::info!(image = id, size = record.size, ?reason, "removed an image that nobody uses");
        records.images.remove(&id);
        let reason = if reason == Reason::Age { "age" } else { "space" };
        COLLECTED.get_or_create(&Label { reason }).inc();
        freed.bytes = freed.bytes.saturating_add_unsigned(record.size);
        *removed += 1;
    }
    freed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::FakeRuntime;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A node with these images, of 100 bytes each.
    fn node(policy: Policy, ids: &[&str]) -> (Collector, FakeRuntime) {
        (Collector::new(policy), FakeRuntime::new(ids))
    }

    fn set(ids: &[&str]) -> HashSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn disk(available: i64) -> Option<Supply> {
        Some(Supply { total: 1000, available })
    }

    fn at(minutes: u32) -> Instant {
        // What is now comes before all that a collector knows.
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        *START + MINUTE * minutes
    }

    fn left(runtime: &FakeRuntime) -> Vec<String> {
        runtime.world.lock().images.clone()
    }

    /// "The kubelet deletes images until disk usage reaches the LowThresholdPercent value." (docs, Garbage Collection)
    #[tokio::test]
    async fn as_much_goes_as_must() {
        let (collector, runtime) = node(Policy::default(), &["sha256:a", "sha256:b", "sha256:c", "sha256:used"]);
        let used = set(&["sha256:used"]);
        let round = collector.collect(&runtime, &set(&["sha256:a", "sha256:used"]), disk(500), at(0)).await;
        assert!(round.removed == 0 && round.outcome.is_ok(), "the disk is empty enough: {round:?}");
        // 50 bytes too few: one image.
        let round = collector.collect(&runtime, &used, disk(150), at(1)).await;
        assert!(round.removed == 1 && round.outcome.is_ok(), "{round:?}");
        assert_eq!(left(&runtime), ["sha256:a", "sha256:c", "sha256:used"], "`a` was in use a minute ago");
        let round = collector.collect(&runtime, &used, disk(0), at(2)).await;
        assert!(round.removed == 2 && round.outcome.is_ok(), "{round:?}");
        assert_eq!(left(&runtime), ["sha256:used"]);
        let error = collector.collect(&runtime, &used, disk(100), at(3)).await.outcome.unwrap_err();
        let text = "Insufficient free disk space on the node's image filesystem (90% of 1000 B used). Failed to free sufficient space by \
                    deleting unused images (freed 0 bytes). Investigate disk usage, as it could be used by active images, logs, volumes, \
                    or other data.";
        assert_eq!((error.reason(), error.to_string().as_str()), (Some("FreeDiskSpaceFailed"), text));
        let error = collector.collect(&runtime, &used, None, at(4)).await.outcome.unwrap_err();
        assert_eq!(error.reason(), Some("InvalidDiskCapacity"));
    }

    #[test]
    fn sizes_are_upstreams() {
        let check = |bytes: i64, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check((1 << 20) - 1, "1024.0 KiB");
        check(100 << 30, "100.0 GiB");
        check(3 << 40, "3.0 TiB");
        check(i64::MAX, "8388608.0 TiB");
    }

    #[tokio::test]
    async fn young_images_stay_for_a_while() {
        let (collector, runtime) = node(Policy::default(), &[]);
        collector.collect(&runtime, &set(&[]), disk(500), at(0)).await;
        runtime.world.lock().images.push("sha256:new".to_owned());
        let round = collector.collect(&runtime, &set(&[]), disk(100), at(5)).await;
        assert!(round.removed == 0 && matches!(round.outcome, Err(Error::TooFew { freed: 0, .. })), "{round:?}");
        assert_eq!(collector.free_unused(&runtime, &set(&[]), at(6)).await.removed, 0);
        let round = collector.free_unused(&runtime, &set(&[]), at(7)).await;
        assert!(round.removed == 1 && round.outcome.is_ok(), "{round:?}");
    }

    /// "you can specify the maximum time a local image can be unused for, regardless of disk usage" (docs, Garbage Collection)
    #[tokio::test]
    async fn old_images_go_from_an_empty_disk() {
        let policy = Policy::new((100, 80), MINUTE * 2, MINUTE * 30).unwrap();
        let (collector, runtime) = node(policy, &["sha256:a", "sha256:used"]);
        let used = set(&["sha256:used"]);
        let begin = Instant::now();
        for minute in [0, 15, 29] {
            let round = collector.collect(&runtime, &used, disk(900), begin + MINUTE * minute).await;
            assert!(round.removed == 0 && round.outcome.is_ok(), "{round:?}");
        }
        let round = collector.collect(&runtime, &used, disk(900), begin + MINUTE * 31).await;
        assert!(round.removed == 1 && round.outcome.is_ok(), "{round:?}");
        assert_eq!(left(&runtime), ["sha256:used"]);
    }

    #[tokio::test]
    async fn what_does_not_go_is_told() {
        let (collector, runtime) = node(Policy::default(), &["sha256:stays", "sha256:taken", "sha256:b"]);
        let round = collector.collect(&runtime, &set(&[]), disk(0), at(0)).await;
        let text = "wanted to free 200 bytes, but freed 100 bytes space with errors in image deletion: ";
        let error = round.outcome.unwrap_err().to_string();
        assert!(round.removed == 1 && error.starts_with(text) && error.contains("sha256:stays"), "{error}");
        assert!(!error.contains("taken"), "a container has begun with it meanwhile: {error}");
        let off = Policy::new((100, 80), MINUTE, Duration::ZERO).unwrap();
        let (collector, runtime) = node(off, &["sha256:a"]);
        let round = collector.collect(&runtime, &set(&[]), disk(0), at(0)).await;
        assert!(round.removed == 0 && round.outcome.is_ok(), "{round:?}");
    }
}
