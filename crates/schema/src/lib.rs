//! The types of the Kubernetes API as data: what fields an object has, how JSON and protobuf write them, how lists merge.
//!
//! [`Schema::builtin`] is read from a table made from the upstream Go sources by `cargo xtask schema`. Objects themselves are
//! plain `serde_json::Value`s in Kubernetes' JSON form; nothing here knows a particular kind.

mod table;
mod types;

pub use types::{Field, ListKind, Patch, Schema, Type, TypeDef, TypeId};
