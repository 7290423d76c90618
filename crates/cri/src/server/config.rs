//! What clients ask for, as the engine has it. What it does not offer is refused: a container that has less than it was to have is worse
//! than none.

mod container;
mod sandbox;

pub(super) use container::{Image, container};
pub(super) use sandbox::sandbox;

use std::collections::BTreeMap;

use grpc::Error;
use runtime::api;

use super::errors::{invalid, unsupported};
use super::view::{LABELS, RESERVED};
use crate::messages::*;

/// Refuses what is not offered.
fn refuse(asked: bool, what: &str) -> Result<(), Error> {
    if asked { Err(unsupported(what)) } else { Ok(()) }
}

/// A number that the engine wants in another type.
fn number<T: TryFrom<i64>>(value: i64, what: &str) -> Result<T, Error> {
    T::try_from(value).map_err(|_| invalid(format!("{what}: {value} is out of range")))
}

/// A name of `metadata`.
fn plain(text: &str, what: &str) -> Result<(), Error> {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && text.len() <= 253;
    let why = || format!("metadata.{what} {text:?} is not a name: letters, digits, and '-', '_', '.' between them");
    if is_plain { Ok(()) } else { Err(invalid(why())) }
}

/// An absolute path, which is required.
fn path(path: &str, what: &str) -> Result<std::path::PathBuf, Error> {
    if path.starts_with('/') && !path.contains('\0') {
        Ok(path.into())
    } else {
        Err(invalid(format!("{what} {path:?} is not an absolute path")))
    }
}

/// Limits; 0 is none.
pub(super) fn resources(linux: &LinuxContainerResources) -> Result<api::Resources, Error> {
    refuse(!linux.unified.is_empty(), "unified resources: files of the cgroup by name")?;
    let set = |value: i64| (value != 0).then_some(value);
    let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    let unsigned = |value: i64, what| set(value).map(|value| number(value, what)).transpose();
    Ok(api::Resources {
        cpu_quota: set(linux.cpu_quota).filter(|quota| *quota > 0),
        cpu_period: unsigned(linux.cpu_period, "cpu_period")?,
        cpus: text(&linux.cpuset_cpus),
        memory_nodes: text(&linux.cpuset_mems),
        cpu_shares: unsigned(linux.cpu_shares, "cpu_shares")?,
        memory_limit: set(linux.memory_limit_in_bytes).filter(|limit| *limit > 0),
        pids_limit: None,
        oom_score_adj: set(linux.oom_score_adj).map(|value| number(value, "oom_score_adj")).transpose()?,
        huge_pages: linux.hugepage_limits.iter().map(|limit| (limit.page_size.clone(), limit.limit)).collect(),
    })
}

/// Annotations with the client's labels among them, which the engine keeps.
fn annotations(
    annotations: BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Error> {
    if let Some(key) = annotations.keys().find(|key| key.starts_with(RESERVED)) {
        return Err(invalid(format!("annotation {key:?}: names that begin with {RESERVED} are the node's own")));
    }
    let labels = serde_json::to_string(labels).map_err(|error| invalid(error.to_string()))?;
    Ok(annotations.into_iter().chain([(LABELS.to_owned(), labels)]).collect())
}
