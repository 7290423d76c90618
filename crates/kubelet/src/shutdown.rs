//! Graceful shutdown of the node (docs "Node Shutdowns", KEP-2000): pods end in their order before the machine does.
//!
//! | module | what it is |
//! |---|---|
//! | [`periods`] | how long which pods have, and in which order they end: the settings, pure |
//! | [`logind`] | what is said to systemd's login manager, over D-Bus |
//! | [`manager`] | the task: holds the machine's shutdown back until the pods have ended |

pub mod logind;
pub mod manager;
pub mod periods;

pub use manager::at_most;
pub use periods::{Periods, PeriodsError};
