//! The simulator: a whole cluster in one thread, under simulated time, with every order and every fault from one seed.
//!
//! What runs is the product: the stages of the API, registry and admission, the controllers and the scheduler. What stands in for the
//! world is the machine (`machine`: clocks, randomness, waiting), the disk (`store::memory`, which can lose what is not on it), the
//! network between components and API (`network`), nodes without containers (`hollow`) and users (`workload`). The `audit` sees
//! every commit and says what may never be; when the users are gone and the faults are over, the cluster has to settle, and `check`
//! says what must hold then.
//!
//! A seed is a reproduction: the same program makes the same history of it, commit by commit. Each seed runs in a process of its own,
//! forked off one that has what all seeds share (`fork`), so none can be disturbed by what ran before it.

mod ask;
mod audit;
mod check;
mod fork;
mod hollow;
mod kubelets;
mod machine;
mod network;
mod observer;
mod random;
mod server;
mod story;
mod workload;

pub use fork::{Outcome, Runner};
pub use story::Report;
