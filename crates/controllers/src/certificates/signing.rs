//! Answers approved requests with certificates of the cluster's authority.

use std::sync::Arc;
use std::time::Duration;

use base::tls::Authority;
use client::Api;
use client::kube::api::PostParams;
use client::{Informer, Informers, Key};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::policy::{self, Signer};
use super::{APPROVED, DENIED, FAILED, has, is_issued, with_condition};
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::meta;

/// How long a certificate is valid, if nobody asks for less: upstream's default.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// The shortest that is issued.
const SHORTEST: Duration = Duration::from_secs(600);

pub(crate) struct Signing {
    requests: Informer<CertificateSigningRequest>,
    authority: Arc<Authority>,
}

impl Signing {
    pub(crate) fn new(informers: &Informers, authority: Arc<Authority>) -> Self {
        Self { requests: informers.of(), authority }
    }

    /// The request with its certificate, or with why it gets none.
    fn answer(&self, request: &CertificateSigningRequest, signer: Signer, now: jiff::Timestamp) -> CertificateSigningRequest {
        let failed = |reason, message: String| with_condition(request, FAILED, reason, message, now);
        let wanted = match policy::check(signer, &request.spec) {
            Ok(wanted) => wanted,
            Err(violation) => return failed("SignerValidationFailure", violation.to_string()),
        };
        match self.authority.sign(&wanted.request, &wanted.usages, lifetime(request.spec.expiration_seconds)) {
            Ok(certificate) => {
                let mut request = request.clone();
                request.status.get_or_insert_default().certificate = Some(ByteString(certificate.into_bytes()));
                request
            }
            Err(error) => failed("SigningError", error.to_string()),
        }
    }
}

fn lifetime(wanted: Option<i32>) -> Duration {
    let wanted = wanted.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    wanted.map_or(LIFETIME, |wanted| wanted.clamp(SHORTEST, LIFETIME))
}

impl Controller for Signing {
    const NAME: &'static str = "certificatesigningrequest-signing";
    const ACCOUNT: &'static str = "certificate-controller";

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&self.requests)]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let waits = |request: &CertificateSigningRequest| {
            has(request, APPROVED) && !has(request, DENIED) && !has(request, FAILED) && !is_issued(request)
        };
        let Some(request) = self.requests.by_key(key).filter(|request| waits(request)) else { return Ok(Action::Done) };
        let Some(signer) = Signer::of(&request.spec.signer_name) else { return Ok(Action::Done) };
        let answered = self.answer(&request, signer, cx.clock.now());
        let api: Api<CertificateSigningRequest> = Api::all(cx.client.clone());
        api.replace_status(meta::name(request.as_ref()), &PostParams::default(), &answered).await?;
        Ok(Action::Done)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base::tls::{self, Identity};
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object};

    fn request(name: &str, signer: &str, approved: bool) -> CertificateSigningRequest {
        let key = tls::generate_key().unwrap();
        let wanted = tls::Request::Client { user: "system:node:a".into(), groups: vec!["system:nodes".into()] };
        let pem = tls::request(&key, &wanted).unwrap();
        let mut request: CertificateSigningRequest = object(json!({
            "metadata": {"name": name},
            "spec": {"signerName": signer, "request": "", "usages": ["client auth"], "expirationSeconds": 7200},
            "status": {"conditions": if approved { json!([{"type": "Approved", "status": "True"}]) } else { json!([]) }},
        }));
        request.spec.request = ByteString(pem.into_bytes());
        request
    }

    #[tokio::test]
    async fn approved_requests_are_answered() {
        let world = World::new();
        world.fake.put(&request("approved", "kubernetes.io/kube-apiserver-client-kubelet", true));
        world.fake.put(&request("open", "kubernetes.io/kube-apiserver-client-kubelet", false));
        world.fake.put(&request("wrong", "kubernetes.io/kubelet-serving", true));
        world.fake.put(&request("other", "example.com/signer", true));
        world.start(&["certificatesigningrequest-signing"]);
        let done = |all: &[CertificateSigningRequest]| {
            let of = |name: &str| all.iter().find(|request| meta::name(*request) == name).unwrap().clone();
            is_issued(&of("approved")) && has(&of("wrong"), FAILED)
        };
        world.fake.until(|all: &[CertificateSigningRequest]| done(all)).await;
        let all = world.fake.all::<CertificateSigningRequest>();
        let of = |name: &str| all.iter().find(|request| meta::name(*request) == name).unwrap();
        assert!(!is_issued(of("open")) && !is_issued(of("other")) && !has(of("other"), FAILED));
        let certificate = of("approved").status.clone().unwrap().certificate.unwrap().0;
        let identity = Identity { certificate: String::from_utf8(certificate).unwrap(), key: String::new() };
        let (start, end) = identity.validity().unwrap();
        assert!(end.duration_since(start).unwrap().as_secs().abs_diff(7200) <= 600);
        let reason = super::super::conditions(of("wrong")).iter().find(|c| c.type_ == FAILED).unwrap().reason.clone();
        assert_eq!(reason.as_deref(), Some("SignerValidationFailure"));
    }

    #[test]
    fn lifetimes() {
        let check = |wanted: Option<i32>, expected: u64| assert_eq!(lifetime(wanted).as_secs(), expected);
        check(None, 365 * 24 * 3600);
        check(Some(7200), 7200);
        check(Some(60), 600);
        check(Some(i32::MAX), 365 * 24 * 3600);
    }
}
