//! The built-in kinds: one file per kind, and [`KINDS`], the one list of them.
//!
//! Routing, discovery, OpenAPI, RBAC tables, storage and table columns derive from the list. A plain kind is a
//! constant [`KindDef`] and nothing else; a kind with rules of its own overrides functions of [`Kind`]. Everything here is
//! pure: no I/O, and no clock but for the times that the API server itself writes into objects.

mod columns;
mod conversion;
#[cfg(test)]
mod coverage;
mod def;
mod strategy;
mod sub;
#[cfg(test)]
mod testing;
mod typed;
pub mod util;
mod verb;

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
pub mod custom;
mod discovery;
mod events;
mod flowcontrol;
mod gates;
mod list;
mod metrics;
mod networking;
mod node;
mod plain;
mod policy;
mod rbac;
mod resource;
mod rules;
mod scheduling;
mod storage;
mod workload;

pub use self::core::pod::tolerations as validate_tolerations;
pub use admissionregistration::expressions;
pub use columns::{Column, scale_columns, scale_row};
pub use conversion::Conversion;
pub use custom::CustomVersion;
pub use def::{Computed, Dependents, GroupVersionKindRef, KindDef, Name, NameRule, Names, StatusKeeps, UnqualifiedFinalizers};
pub use flowcontrol::{Bootstrap, bootstrap, is_obsolete};
pub use list::KINDS;
pub use strategy::{Fields, Rules, Strategy};
pub use sub::{Action, Behaviour, Connect, ScalePaths, Sub};
pub use typed::{Kind, Requester, Typed};
pub use verb::{Verb, VerbSet};
