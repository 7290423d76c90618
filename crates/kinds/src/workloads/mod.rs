//! Kinds that keep pods running.

mod deployment;
mod replicas;
mod view;
