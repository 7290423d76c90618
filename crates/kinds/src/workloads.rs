//! Kinds that keep pods running.

mod deployment;
mod replicas;
mod view;

pub(crate) use view::{SCALE, each_container, format_selector, validate_counts};
