//! Kinds that keep pods running.

mod deployment;
mod replicas;
mod view;

pub(crate) use view::each_container;
