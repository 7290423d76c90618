//! Kinds of networking.k8s.io (upstream: `pkg/apis/networking/validation`).

mod ingress;
mod ingress_class;
mod ip_address;
mod network_policy;
mod service_cidr;
#[cfg(test)]
mod tests;

use apimachinery::field::{Errors, Path};
use apimachinery::names::path_segment_name;

use crate::rules;

/// Kind or name of an object that is referred to.
fn reference(path: &Path, value: &str, errors: &mut Errors) {
    rules::required(path, value, errors);
    errors.invalid_each(path, value, path_segment_name(value));
}
