//! `apiregistration.k8s.io`: API groups that other servers answer.

mod api_service;
