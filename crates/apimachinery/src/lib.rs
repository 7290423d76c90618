//! Kubernetes API machinery as pure functions over JSON values: no I/O, no tasks, no HTTP.
//!
//! Objects are [`serde_json::Value`] in Kubernetes JSON form. Where a message reaches a client, its wording is upstream's, because
//! clients, tests and people match on it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`status`] | `metav1.Status` as the one error type of the API |
//! | [`field`] | validation errors with paths |
//! | [`names`] | name formats and generated names |
//! | [`meta`] | access to and validation of `metadata` |
//! | [`labels`], [`fields`] | selectors |
//! | [`gvk`], [`time`], [`quantity`], [`intstr`] | small value types |
//! | [`patch`] | JSON, merge and strategic merge patches |
//! | [`apply`] | managed fields and server-side apply |
//! | [`schedule`] | when CronJobs are due, and time zones |
//! | [`table`] | `meta.k8s.io/v1` tables |
//! | [`yaml`] | YAML 1.1, as upstream turns it into JSON |

pub mod apply;
pub mod field;
pub mod fields;
pub mod gvk;
pub mod intstr;
pub mod json_syntax;
pub mod labels;
pub mod meta;
pub mod names;
pub mod patch;
pub mod quantity;
pub mod schedule;
pub mod status;
pub mod table;
pub mod text;
pub mod time;
pub mod yaml;

pub use field::{Errors, Path};
pub use gvk::{GroupResource, GroupVersion, GroupVersionKind};
pub use status::{Reason, Status};
