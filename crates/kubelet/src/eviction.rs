//! Node-pressure eviction (docs "Node-pressure Eviction"): what the node runs short of, and which pod must go for it.
//!
//! | module | what it is |
//! |---|---|
//! | [`signal`], [`threshold`] | what can run out, and below what it is short: the settings |
//! | [`pressure`] | what is short now, with grace periods, minimum reclaim and transition period |
//! | [`rank`], [`message`], [`admission`] | who goes first, what is said of it, who does not come in meanwhile |
//! | [`manager`] | the task: looks, tells, gives back what nobody needs, ends pods |
//! | [`measure`], [`reclaim`], [`requests`] | its effects |

pub mod admission;
pub mod manager;
pub mod measure;
pub mod message;
pub mod pressure;
pub mod rank;
pub mod reclaim;
pub mod requests;
pub mod signal;
pub mod threshold;

pub use signal::{Condition, Signal};
pub use threshold::{Fault, Settings, SettingsError, Texts, Threshold};
