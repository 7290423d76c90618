//! Where a pod is on its way to a node, and how often it was tried.

use tokio::time::Instant;

/// Some of the extenders, a bit for the place of each in the configuration. Empty for a pod that concerns none.
pub(crate) type Lane = u64;

/// Where a pod waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Active,
    Backoff(Instant, u64),
    Unschedulable,
    /// A worker has it: it is being tried or bound.
    Trying,
}

/// One attempt to give a pod a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    /// When the attempt began.
    pub(crate) started: Instant,
    /// When the pod came to the queue.
    pub(crate) entered: Instant,
    /// How many there were, this one included.
    pub(crate) attempts: u32,
    /// Of the pod in the queue.
    pub(crate) number: u64,
    /// The extenders that it concerns.
    pub(crate) lane: Lane,
}
