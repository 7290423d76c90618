//! Kernel parameters of a pod.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{PodSpec, Sysctl};
use pods::sysctls::{Namespace, namespace};

const MAX_LENGTH: usize = 253;
const PATTERN: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

pub(super) fn validate(sysctls: &[Sysctl], spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, name) in sysctls.iter().map(|sysctl| sysctl.name.as_str()).enumerate() {
        let path = path.index(index).child("name");
        if name.is_empty() {
            errors.push(Error::required(&path, ""));
        } else if !is_valid(name) {
            let detail = format!("must have at most {MAX_LENGTH} characters and match regex {PATTERN}");
            errors.push(Error::invalid(&path, name, detail));
        } else if seen.contains(name) {
            errors.push(Error::duplicate(&path, name));
        }
        seen.insert(name);
        let shared = match namespace(name) {
            Some(Namespace::Net) if spec.host_network == Some(true) => "hostNetwork",
            Some(Namespace::Ipc) if spec.host_ipc == Some(true) => "hostIPC",
            _ => continue,
        };
        errors.push(Error::invalid(&path, name, format!("may not be specified when '{shared}' is true")));
    }
}

/// Segments of letters, digits, dashes and underscores, joined by dots or slashes.
fn is_valid(name: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let segment = |segment: &str| {
        let bytes = segment.as_bytes();
        bytes.first().is_some_and(|b| edge(*b))
            && bytes.last().is_some_and(|b| edge(*b))
            && bytes.iter().all(|b| edge(*b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= MAX_LENGTH && name.split(['.', '/']).all(segment)
}
