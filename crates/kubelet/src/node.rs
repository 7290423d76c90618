//! The node itself: what the machine is, and the Node object and Lease that say so.

pub mod agent;
pub(crate) mod extended;
pub mod machine;
pub mod oom;
pub mod status;
pub mod supply;
