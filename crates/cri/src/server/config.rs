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

/// The limits `had` with those that are given in their place: what is 0 or empty stays, as with containerd, and a negative quota or limit of
/// memory takes it away.
pub(super) fn updated(had: api::Resources, linux: &LinuxContainerResources) -> Result<api::Resources, Error> {
    let given = resources(linux)?;
    let or = |asked: i64, given: Option<i64>, had: Option<i64>| if asked == 0 { had } else { given };
    let mut huge_pages = had.huge_pages;
    huge_pages.extend(given.huge_pages);
    Ok(api::Resources {
        cpu_quota: or(linux.cpu_quota, given.cpu_quota, had.cpu_quota),
        cpu_period: given.cpu_period.or(had.cpu_period),
        cpus: given.cpus.or(had.cpus),
        memory_nodes: given.memory_nodes.or(had.memory_nodes),
        cpu_shares: given.cpu_shares.or(had.cpu_shares),
        memory_limit: or(linux.memory_limit_in_bytes, given.memory_limit, had.memory_limit),
        pids_limit: had.pids_limit,
        oom_score_adj: given.oom_score_adj.or(had.oom_score_adj),
        huge_pages,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `crictl update --cpu-quota 5000`: "Update one or more running containers" with what is given.
    #[test]
    fn limits_that_are_not_given_stay() {
        let had = api::Resources {
            cpu_quota: Some(10_000),
            cpu_period: Some(100_000),
            cpus: Some("0-1".to_owned()),
            memory_nodes: Some("0".to_owned()),
            cpu_shares: Some(512),
            memory_limit: Some(64 << 20),
            pids_limit: Some(100),
            oom_score_adj: Some(900),
            huge_pages: BTreeMap::from([("2MB".to_owned(), 4 << 20)]),
        };
        let check = |linux: LinuxContainerResources, change: fn(&mut api::Resources)| {
            let mut expected = had.clone();
            change(&mut expected);
            assert_eq!(updated(had.clone(), &linux).unwrap(), expected, "{linux:?}");
        };
        check(LinuxContainerResources::default(), |_| {});
        check(LinuxContainerResources { cpu_quota: 5000, ..Default::default() }, |all| all.cpu_quota = Some(5000));
        check(LinuxContainerResources { cpu_quota: -1, ..Default::default() }, |all| all.cpu_quota = None);
        check(LinuxContainerResources { memory_limit_in_bytes: 1 << 30, ..Default::default() }, |all| {
            all.memory_limit = Some(1 << 30)
        });
        check(LinuxContainerResources { memory_limit_in_bytes: -1, ..Default::default() }, |all| all.memory_limit = None);
        check(LinuxContainerResources { cpuset_cpus: "0".to_owned(), ..Default::default() }, |all| {
            all.cpus = Some("0".to_owned())
        });
        check(LinuxContainerResources { oom_score_adj: -5, ..Default::default() }, |all| all.oom_score_adj = Some(-5));
        let huge = HugepageLimit { page_size: "1GB".to_owned(), limit: 1 << 30 };
        check(LinuxContainerResources { hugepage_limits: vec![huge], ..Default::default() }, |all| {
            all.huge_pages.insert("1GB".to_owned(), 1 << 30);
        });
        let shares = LinuxContainerResources { cpu_shares: -1, ..Default::default() };
        assert!(updated(had.clone(), &shares).is_err());
    }
}
