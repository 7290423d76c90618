//! One pod: what is known of it, what to do next, what to report, and the task that does it.

pub mod conditions;
pub mod ending;
pub mod plan;
pub mod state;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
