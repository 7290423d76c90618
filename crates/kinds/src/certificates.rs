//! `certificates.k8s.io`: requests for certificates.

mod certificate_signing_request;
