//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may decide on a request for a certificate, who may
//! answer it, and what nobody may ask for (API page "Certificates and Certificate Signing Requests", "Authorization").

use std::sync::Arc;

use apimachinery::Status;
use async_trait::async_trait;
use registry::{Admission, Operation, Request};
use serde_json::Value;

use super::{forbidden, is, text};
use crate::authn::MASTERS;
use crate::authz::{Attributes, Authorizer};

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";
/// The signer of certificates of clients of the API server.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

fn concerns(a: &Request<'_>, operation: Operation, sub: &str) -> bool {
    a.operation == operation && a.subresource == sub && is(a, GROUP, PLURAL)
}

/// Refuses who lacks the verb for the signer of the request, and for all signers of its domain.
async fn check_signer(authorizer: &Authorizer, a: &Request<'_>, verb: &str) -> Result<(), Status> {
    let signer = a.object().map(|object| text(object, "/spec/signerName")).unwrap_or_default();
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    for name in [signer, &domain] {
        let base = Attributes::new(a.user);
        let asked = Attributes { verb, group: GROUP, version: "*", resource: "signers", name, is_resource: true, ..base };
        if authorizer.allows(a.registry, &asked).await {
            return Ok(());
        }
    }
    Err(forbidden(a, format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

/// Requests are approved and denied by who has the verb `approve` on their signer.
pub(super) struct CertificateApproval(pub(super) Arc<Authorizer>);

#[async_trait]
impl Admission for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        concerns(a, Operation::Update, "approval")
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        check_signer(&self.0, a, "approve").await
    }
}

/// Certificates are issued, and failures noted, by who has the verb `sign` on the signer.
pub(super) struct CertificateSigning(pub(super) Arc<Authorizer>);

#[async_trait]
impl Admission for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        concerns(a, Operation::Update, "status")
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let part = |object: Option<&Value>, pointer: &str| object.and_then(|object| object.pointer(pointer)).cloned();
        let same = |pointer: &str| part(a.object(), pointer) == part(a.old, pointer);
        if same("/status/certificate") && same("/status/conditions") {
            return Ok(());
        }
        check_signer(&self.0, a, "sign").await
    }
}

/// Nobody becomes a member of `system:masters` by a certificate: no rule could ever limit them.
pub(super) struct CertificateSubjectRestriction;

#[async_trait]
impl Admission for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        concerns(a, Operation::Create, "")
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let Some(object) = a.object().filter(|object| text(object, "/spec/signerName") == CLIENT_SIGNER) else { return Ok(()) };
        if organizations(text(object, "/spec/request")).iter().any(|group| group == MASTERS) {
            return Err(forbidden(a, format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")));
        }
        Ok(())
    }
}

/// The organizations of the subject of a request, which the API server takes for groups.
fn organizations(request: &str) -> Vec<String> {
    use base64::Engine as _;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer as _;

    let Ok(text) = base64::engine::general_purpose::STANDARD.decode(request) else { return Vec::new() };
    let Ok(block) = pem::parse(text) else { return Vec::new() };
    let Ok((_, request)) = X509CertificationRequest::from_der(block.contents()) else { return Vec::new() };
    let subject = &request.certification_request_info.subject;
    subject.iter_organization().filter_map(|part| part.as_str().ok().map(str::to_owned)).collect()
}
