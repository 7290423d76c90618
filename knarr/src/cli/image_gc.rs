//! When images go that nobody uses: options by the names of upstream's kubelet.

use std::time::Duration;

use clap::Args;
use kubelet::images::garbage::{Policy, PolicyError};

use super::duration;

/// Garbage collection of images.
#[derive(Args, Clone, Debug)]
pub(crate) struct ImageGc {
    /// Percent of the disk of images above which images go that nobody uses, least recently used first; 100 is never for that reason.
    #[arg(long, value_name = "PERCENT", default_value_t = 85)]
    image_gc_high_threshold: u8,
    /// Percent of the disk down to which they go.
    #[arg(long, value_name = "PERCENT", default_value_t = 80)]
    image_gc_low_threshold: u8,
    /// How long an image stays at least after it came.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    minimum_image_ttl_duration: Duration,
    /// After which time without use an image goes, whatever is free of the disk; 0 is never (the field imageMaximumGCAge).
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    image_maximum_gc_age: Duration,
}

impl ImageGc {
    /// What they come to.
    pub(crate) fn policy(&self) -> Result<Policy, PolicyError> {
        let thresholds = (self.image_gc_high_threshold, self.image_gc_low_threshold);
        Policy::new(thresholds, self.minimum_image_ttl_duration, self.image_maximum_gc_age)
    }
}
