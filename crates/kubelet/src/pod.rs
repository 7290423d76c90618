//! One pod: what is known of it, what to do next, what to report, and the task that does it.

pub mod action;
mod adopt;
mod bandwidth;
pub mod cleanup;
pub mod conditions;
pub mod core;
pub mod effects;
pub mod ending;
pub mod found;
pub mod last_words;
pub mod outcome;
pub mod patch;
pub mod plan;
pub mod report;
pub mod resize;
pub mod restart;
pub mod start;
pub mod state;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
pub mod worker;
