//! How far the walk through a volume is that is given to a group: pods are told of one that takes long (upstream's `VolumeOwnership`).

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client::events::Type;
use parking_lot::Mutex;

use crate::context::Context;
use crate::spec::Model;

/// Time of a walk before its pod is told, and then between two events.
const FIRST: Duration = Duration::from_secs(30);
const NEXT: Duration = Duration::from_secs(60);
/// How often it is looked whether a walk takes long.
const LOOK: Duration = Duration::from_secs(1);

/// Reason of the events.
const REASON: &str = "VolumePermissionChangeInProgress";
const ADVICE: &str = "https://kubernetes.io/docs/tasks/configure-pod-container/security-context/#configure-volume-permission-and-ownership-change-policy-for-pods";

/// The walks of one pod, one after the other.
#[derive(Debug, Default)]
pub struct Progress {
    walk: Mutex<Option<Walk>>,
    files: AtomicU64,
}

/// One that is under way.
#[derive(Debug)]
struct Walk {
    /// The volume, as the pod has it.
    place: String,
    /// When the pod is told.
    due: Instant,
    is_told: bool,
}

/// Ends a walk.
pub(super) struct Ends<'a>(&'a Progress);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        *self.0.walk.lock() = None;
    }
}

impl Progress {
    /// A walk begins through the volume that the pod has, or will have, at `place`.
    pub(super) fn begin(&self, place: &Path, now: Instant) -> Ends<'_> {
        self.files.store(0, Ordering::Relaxed);
        *self.walk.lock() = Some(Walk { place: place.to_string_lossy().into_owned(), due: now + FIRST, is_told: false });
        Ends(self)
    }

    /// Another file has been seen.
    pub(super) fn count(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    /// What is told now of a walk for the pod with this UID. The place is named from there on, as upstream.
    fn due(&self, uid: &str, now: Instant) -> Option<String> {
        let mut walk = self.walk.lock();
        let walk = walk.as_mut().filter(|walk| walk.due <= now)?;
        walk.due += NEXT;
        let place = walk.place.find(uid).map_or(walk.place.as_str(), |from| &walk.place[from..]);
        Some(if std::mem::replace(&mut walk.is_told, true) {
            format!("Setting volume ownership for {place}, processed {} files.", self.files.load(Ordering::Relaxed))
        } else {
            format!(
                "Setting volume ownership for {place} is taking longer than expected, consider using OnRootMismatch - {ADVICE}"
            )
        })
    }

    /// Waits for work in which there may be walks, and tells the pod of those that take long. A walk that hangs in a call is told as well.
    pub async fn tell<T>(&self, cx: &Context, model: &Model, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            if let Ok(done) = tokio::time::timeout(LOOK, &mut work).await {
                return done;
            }
            if let Some(message) = self.due(model.uid(), Instant::now()) {
                cx.pod_event(model, Type::Warning, REASON, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Upstream's events and their times, and the place without what is before the pod's UID.
    #[test]
    fn a_walk_that_takes_long_is_told() {
        let (progress, start) = (Progress::default(), Instant::now());
        let told = |second: u64| progress.due("u-1", start + Duration::from_secs(second));
        assert_eq!(told(100), None, "there is no walk");
        let walk = progress.begin(Path::new("/d/pods/u-1/volumes/kubernetes.io~csi/v/mount"), start);
        assert_eq!(told(29), None);
        let place = "Setting volume ownership for u-1/volumes/kubernetes.io~csi/v/mount";
        let first = format!("{place} is taking longer than expected, consider using OnRootMismatch - {ADVICE}");
        assert_eq!(told(30).as_deref(), Some(first.as_str()));
        assert_eq!(told(89), None);
        (0..7).for_each(|_| progress.count());
        assert_eq!(told(90), Some(format!("{place}, processed 7 files.")));
        assert_eq!(told(91), None);
        drop(walk);
        assert_eq!(told(150), None);
        // The next one is another.
        let _walk = progress.begin(Path::new("/elsewhere"), start + Duration::from_secs(200));
        assert_eq!(told(229), None);
        assert!(told(230).is_some_and(|told| told.starts_with("Setting volume ownership for /elsewhere is taking longer")));
        assert_eq!(told(290).as_deref(), Some("Setting volume ownership for /elsewhere, processed 0 files."));
    }
}
