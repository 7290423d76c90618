//! A revisioned key-value store with watch: what etcd offers, small. It knows nothing of Kubernetes.
//!
//! Every commit gets the next revision. A commit is acknowledged after it is on disk, and after every
//! [`Sink`] has seen it, so a reader of a sink's state sees its own writes.
//!
//! [`Fjall`] is the embedded engine, [`memory::Memory`] one for tests and simulations. [`Transformed`] stores what another engine stores in
//! another form, such as encrypted.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod engine;
mod fjall;
pub mod memory;
mod metrics;
mod transformed;

pub use self::fjall::{Copied, Fjall, History, Options, Plausible, Restoring, first_revision};
pub use engine::*;
pub use transformed::{Transformed, Transformer};
