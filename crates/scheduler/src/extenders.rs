//! Scheduler extenders: servers of somebody else that are asked over HTTP which nodes will do for a pod, how well they do, whose room it may
//! take, and to bind it (`extenders` of a KubeSchedulerConfiguration).
//!
//! | module | what |
//! |---|---|
//! | [`settings`] | what the configuration says of one, and whether it may; pure |
//! | [`protocol`] | bodies that are sent and answers that are read; pure |
//! | [`call`] | HTTP |
//! | [`consult`] | what is asked for one pod, and in which order |
//! | [`opinion`] | what came of it |
//! | [`state`] | who is being asked, and which bindings the API is yet to show |
//!
//! The loop of the scheduler waits for none of them: it goes on with other pods, and looks again at the nodes that are left when the answers are
//! there. An extender is asked for one pod at a time, as upstream asks it, since many keep account of what they have answered. Whoever is asked is
//! not trusted: a call ends with its time, an answer has a largest size, and nodes and pods that it makes up are refused.

pub(crate) mod call;
pub(crate) mod consult;
pub(crate) mod opinion;
pub(crate) mod protocol;
pub(crate) mod settings;
pub(crate) mod state;
#[cfg(test)]
mod tests;
