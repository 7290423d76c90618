//! Kinds of the core group, a file each.

mod component_status;
mod config_map;
mod data;
pub(crate) mod endpoints;
mod event;
mod limit_range;
mod namespace;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
pub(crate) mod pod;
mod pod_template;
mod replication_controller;
mod resource_quota;
mod secret;
mod service;
mod service_account;
pub(crate) mod volume_source;

pub(crate) use persistent_volume::inline_volume;
pub(crate) use persistent_volume_claim::{claim_spec_warnings, validate_claim_spec};
