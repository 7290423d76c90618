//! Containers: their root file system, their OCI configuration and the process that makes them.

pub(crate) mod anonymous;
pub(crate) mod app_armor;
mod birth;
pub(crate) mod caps;
pub(crate) mod cgroup;
mod dev_volume;
mod device_filter;
pub(crate) mod devices;
pub(crate) mod enter;
pub(crate) mod helper;
mod hooks;
mod io_usage;
pub(crate) mod mapped;
mod process_usage;
mod report;
pub(crate) mod rootfs;
pub(crate) mod seccomp;
pub(crate) mod spec;
mod streams;
pub(crate) mod trees;
mod usage;
pub(crate) mod user;
pub(crate) mod working_dir;
