//! apps/v1: kinds that keep pods running.

mod daemon_set;
mod stateful_set;
