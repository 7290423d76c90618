//! `apiextensions.k8s.io`: kinds that users define.

mod custom_resource_definition;
