//! scheduling.k8s.io/v1.

mod priority_class;
