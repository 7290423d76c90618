//! `apiextensions.k8s.io`: kinds that users define.

mod custom_resource_definition;

pub(crate) use custom_resource_definition::{CLEANUP, approval_condition};
