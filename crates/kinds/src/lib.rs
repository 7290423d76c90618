//! The built-in kinds: one file per kind, and [`KINDS`], the one list of them.
//!
//! Routing, discovery, OpenAPI, RBAC tables, storage and table columns derive from the list. A plain kind is a
//! constant [`KindDef`] and nothing else; a kind with rules of its own overrides functions of [`Kind`]. Everything here is
//! pure: no clock, no I/O.

mod columns;
mod conversion;
mod def;
mod strategy;
mod sub;
mod typed;
pub mod util;
mod verb;

mod cluster;
mod config;
mod coordination;
mod endpoints;
mod events;
mod events_v1;
mod list;
mod node;
mod plain;
mod pod;
mod pod_template;
mod rbac;
mod rules;
mod service;
mod workloads;

pub use columns::{Column, scale_columns, scale_row};
pub use conversion::Conversion;
pub use def::{Dependents, GroupVersionKindRef, KindDef, NameRule};
pub use list::KINDS;
pub use strategy::{Fields, Strategy};
pub use sub::{Action, Behaviour, Connect, ScalePaths, Sub};
pub use typed::{Kind, Typed};
pub use verb::{Verb, VerbSet};
