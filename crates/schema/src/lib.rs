//! The types of the Kubernetes API as data: what fields an object has, how JSON and protobuf write them, how lists merge.
//!
//! [`Schema::builtin`] is read from a table made from the upstream Go sources by `cargo xtask schema`. Objects themselves are
//! plain `serde_json::Value`s in Kubernetes' JSON form; nothing here knows a particular kind.

mod decode;
pub mod openapi;
mod ordered;
mod path;
pub mod protobuf;
pub mod quantity;
mod strict;
mod table;
mod time;
mod types;

pub use decode::{TypeError, check, decode, of_float};
pub use ordered::Ordered;
pub use strict::{Shape, parse_strict, problems};
pub use time::{Precision, format as format_time, format_duration, parse_duration};
pub use types::{Alternative, Field, ListKind, Patch, Schema, Type, TypeDef, TypeId};
