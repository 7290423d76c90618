//! The verbs, each once.

mod computed;
mod continuation;
mod create;
mod delete;
mod list;
mod patch;
mod update;
mod watch;

pub(crate) use create::{Created, by, check_identity};
pub(crate) use delete::Admit;
pub(crate) use patch::{check_shape, check_type, patched};
pub(crate) use update::{CONFLICT_ATTEMPTS, Live};
