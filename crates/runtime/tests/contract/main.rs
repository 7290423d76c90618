//! What every runtime must do, on real containers. Needs root and the package busybox-static; everything that it makes
//! lives in temporary directories and in cgroups of its own name, and is removed also when a test fails.
#![allow(clippy::unwrap_used)]

mod birth;
mod containers;
mod devices;
mod faults;
mod hooks;
mod images;
mod registry;
mod sessions;
mod speed;
mod support;
mod users;
