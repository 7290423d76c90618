//! Kinds of the core group, a file each.

mod limit_range;
mod persistent_volume;
mod persistent_volume_claim;
mod resource_quota;
pub(crate) mod volume_source;

pub(crate) use persistent_volume::inline_volume;
pub(crate) use persistent_volume_claim::validate_claim_spec;
