//! CertificateApproval, CertificateSigning, ClusterTrustBundleAttest and CertificateSubjectRestriction: who may decide on a request for a
//! certificate, who may answer it, who may say whom to trust, and what nobody may ask for (API page "Certificates and Certificate Signing Requests", "Authorization").

use std::sync::Arc;

use apimachinery::Status;
use apimachinery::field::{Error, Errors, Path};
use async_trait::async_trait;
use base::tls::SigningRequest;
use base64::Engine as _;
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
    let signer = signer(a);
    if has_verb(authorizer, a, verb).await {
        return Ok(());
    }
    Err(forbidden(a, format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

fn signer<'a>(a: &'a Request<'_>) -> &'a str {
    a.object().map(|object| text(object, "/spec/signerName")).unwrap_or_default()
}

/// Whether the user has the verb for the signer of the object, or for all signers of its domain.
async fn has_verb(authorizer: &Authorizer, a: &Request<'_>, verb: &str) -> bool {
    let signer = signer(a);
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    for name in [signer, &domain] {
        let base = Attributes::new(a.user);
        let asked = Attributes { verb, group: GROUP, version: "*", resource: "signers", name, is_resource: true, ..base };
        if authorizer.allows(a.registry, &asked).await {
            return true;
        }
    }
    false
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

/// Certificates are issued, and failures noted, by who has the verb `sign` on the signer. Of a certificate for a pod upstream's rules of the kind
/// ask for it whatever is written into the status, and answer as rules do.
pub(super) struct CertificateSigning(pub(super) Arc<Authorizer>);

#[async_trait]
impl Admission for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        concerns(a, Operation::Update, "status") || answers_pod(a)
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let part = |object: Option<&Value>, pointer: &str| object.and_then(|object| object.pointer(pointer)).cloned();
        let same = |pointer: &str| part(a.object(), pointer) == part(a.old, pointer);
        if answers_pod(a) {
            if same("/status") || has_verb(&self.0, a, "sign").await {
                return Ok(());
            }
            let detail = format!("User {:?} is not permitted to \"sign\" for signer {:?}", a.user.name, signer(a));
            let errors = Errors::from(vec![Error::forbidden(&Path::new("spec.signerName"), detail)]);
            return Err(Status::invalid(GROUP, "PodCertificateRequest", a.name, &errors));
        }
        if same("/status/certificate") && same("/status/conditions") {
            return Ok(());
        }
        check_signer(&self.0, a, "sign").await
    }
}

fn answers_pod(a: &Request<'_>) -> bool {
    a.operation == Operation::Update && a.subresource == "status" && is(a, GROUP, "podcertificaterequests")
}

/// A bundle of a signer is for who has the verb `attest` on the signer: everybody who mounts it trusts what is in it.
pub(super) struct ClusterTrustBundleAttest(pub(super) Arc<Authorizer>);

#[async_trait]
impl Admission for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        matches!(a.operation, Operation::Create | Operation::Update) && is(a, GROUP, "clustertrustbundles")
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let spec = |object: Option<&Value>| object.and_then(|object| object.get("spec")).cloned();
        // Labels and finalizers are for others, too.
        let is_same = a.old.is_some() && spec(a.object()) == spec(a.old);
        if is_same || signer(a).is_empty() || has_verb(&self.0, a, "attest").await {
            return Ok(());
        }
        Err(forbidden(a, format!("user not permitted to attest for signerName {:?}", signer(a))))
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
        let request = read(text(object, "/spec/request")).map_err(|why| forbidden(a, why))?;
        if request.organizations.iter().any(|group| group == MASTERS) {
            return Err(forbidden(a, format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")));
        }
        Ok(())
    }
}

/// Reads `spec.request` as the signers read it. What they would refuse need not wait for them.
pub(super) fn read(request: &str) -> Result<SigningRequest, String> {
    let text = base64::engine::general_purpose::STANDARD.decode(request).map_err(|error| error.to_string());
    let read = text.and_then(|text| SigningRequest::parse(&text).map_err(|error| error.to_string()));
    read.map_err(|error| format!("unable to parse csr: {error}"))
}
