//! Containers: their root file system, their OCI configuration and the process that makes them.

pub(crate) mod caps;
pub(crate) mod cgroup;
mod devices;
pub(crate) mod enter;
pub(crate) mod helper;
pub(crate) mod rootfs;
mod seccomp;
pub(crate) mod spec;
pub(crate) mod user;
