//! The kubelet: makes the pods that are bound to a node run there, and tells the API how they are.
//!
//! One task per pod ([`pod::worker`]) waits for changes of the pod, of what it refers to and of its containers, for
//! probes and for timers; nothing is polled. What follows from each is decided by a pure core ([`pod::core`]), what to report
//! by another ([`pod::status`]).
//!
//! | module | what it holds |
//! |---|---|
//! | [`options`], [`kubelet`] | configuration, composition of the parts |
//! | [`manager`], [`admission`], [`preemption`] | a task for every pod; which pods fit, and which go for critical ones |
//! | [`pod`] | one pod: state, plan, status, effects, task |
//! | [`probes`], [`hooks`] | probes and lifecycle hooks |
//! | [`volumes`], [`refs`] | volumes; watches on what pods refer to |
//! | [`local_volumes`] | persistent volumes that are directories of this node |
//! | [`images`] | pull policies and credentials |
//! | [`mod@env`], [`fields`], [`expand`], [`dns`], [`hosts`], [`security`], [`resources`] | what a container gets, pure |
//! | [`drivers`] | volumes of storage drivers |
//! | [`statics`] | pods that a directory of the node describes |
//! | [`devices`] | devices that plugins give to containers |
//! | [`claims`] | devices that pods claim |
//! | [`cpus`], [`numa`] | processors, and memory of NUMA nodes, that containers have for themselves |
//! | [`affinity`] | from which NUMA nodes containers get their processors, memory and devices |
//! | [`users`] | user ids of pods with a user namespace |
//! | [`qos`], [`allocatable`] | the cgroups above those of pods; what pods may take of the node |
//! | [`eviction`] | what the node runs short of, and who must go for it |
//! | [`node`] | the Node object and its lease |
//! | [`shutdown`] | pods end before the machine does |
//! | `metrics` | the kubelet's figures on the node's pages |
//! | `stats` | what the node and its pods use, read when somebody asks |
//! | [`sharing`] | images that nodes get from each other |
//! | [`server`], [`logs`] | the endpoint for the API server: logs, exec, attach, port forwarding |

pub mod admission;
pub mod affinity;
pub mod allocatable;
pub mod allocation;
pub mod backoff;
mod cdi;
pub mod certificates;
pub mod claims;
pub mod clock;
pub mod context;
pub mod cpus;
pub mod devices;
pub mod dns;
pub mod drivers;
pub mod env;
pub mod eviction;
pub mod expand;
pub mod fields;
mod holdings;
pub mod hooks;
pub mod hosts;
pub mod images;
pub mod kubelet;
mod local_volumes;
pub mod logs;
pub mod manager;
mod metrics;
pub mod named;
pub mod node;
pub mod numa;
pub mod options;
pub mod pod;
pub mod preemption;
pub mod probes;
pub mod qos;
pub mod refs;
pub mod resources;
pub mod security;
pub mod server;
pub mod sharing;
pub mod shutdown;
pub mod spec;
pub mod statics;
mod stats;
pub mod storage;
pub mod sysctls;
#[cfg(test)]
pub(crate) mod testing;
pub mod units;
pub mod users;
pub mod volumes;

pub use kubelet::{Error, start};
pub use options::{Options, Server};
pub use server::Api;
