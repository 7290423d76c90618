//! `certificates.k8s.io`: requests for certificates, and whom to trust. ClusterTrustBundle and PodCertificateRequest are beta; upstream serves them
//! where it is asked to, here they are always served.

mod certificate_signing_request;
mod cluster_trust_bundle;
mod pem;
pub(crate) mod pod_certificate_request;

pub(crate) use cluster_trust_bundle::reference_problems;
