//! Answers requests for certificates of pods that are addressed to the signer `kubernetes.io/kube-apiserver-client-pod` (KEP-4317): by them pods are
//! clients of the API server, as their service accounts. Other signers are others' work.

use std::sync::Arc;
use std::time::Duration;

use base::tls::{self, Authority, PodCertificate, PodIdentity};
use client::Api;
use client::kube::api::PostParams;
use client::{Informer, Informers, Key};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1beta1::{PodCertificateRequest, PodCertificateRequestStatus};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::meta;

const SIGNER: &str = "kubernetes.io/kube-apiserver-client-pod";
/// What the API sets where a request says nothing.
const DEFAULT_SECONDS: i32 = 86_400;

pub(crate) struct PodSigning {
    requests: Informer<PodCertificateRequest>,
    pods: Informer<Pod>,
    namespaces: Informer<Namespace>,
    authority: Arc<Authority>,
}

impl PodSigning {
    pub(crate) fn new(informers: &Informers, authority: Arc<Authority>) -> Self {
        // All of them: the cleaner has them anyway.
        Self { requests: informers.of(), pods: informers.of(), namespaces: informers.of(), authority }
    }
}

/// Why a request gets no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    /// API page "PodCertificateRequest": "Signers should deny requests that contain keys they do not recognize".
    #[error("the signer knows no annotations: {0}")]
    Annotations(String),
    /// The request is not a kubelet's: the API has compared those with the pod.
    #[error("pod {0:?} does not run as this service account on this node, or is another one")]
    NotThePod(String),
    /// There is no key in it.
    #[error("cannot read the key: {0}")]
    Key(String),
    /// The authority signs nothing.
    #[error("cannot sign: {0}")]
    Signing(String),
}

impl Refusal {
    /// Type and reason of the condition.
    fn condition(&self) -> (&'static str, &'static str) {
        match self {
            Self::Annotations(_) => ("Denied", "InvalidUnverifiedUserAnnotations"),
            Self::NotThePod(_) => ("Denied", "PodMismatch"),
            Self::Key(_) => ("Denied", "UnsupportedKeyType"),
            Self::Signing(_) => ("Failed", "SigningError"),
        }
    }
}

/// Whose the certificate is, and the key for it.
fn wanted(request: &PodCertificateRequest, pod: &Pod, namespace_uid: &str) -> Result<(PodIdentity, Vec<u8>), Refusal> {
    let spec = &request.spec;
    let unknown: Vec<&str> = spec.unverified_user_annotations.iter().flatten().map(|(key, _)| key.as_str()).collect();
    if !unknown.is_empty() {
        return Err(Refusal::Annotations(unknown.join(", ")));
    }
    let runs_so = pod.spec.as_ref().is_some_and(|pod| {
        pod.service_account_name.as_deref() == Some(&spec.service_account_name)
            && pod.node_name.as_deref() == Some(&spec.node_name)
    });
    if !runs_so || meta::uid(pod) != spec.pod_uid {
        return Err(Refusal::NotThePod(spec.pod_name.clone()));
    }
    let key = match (&spec.stub_pkc_s10_request.0, &spec.pkix_public_key) {
        (stub, Some(key)) if stub.is_empty() => key.0.clone(),
        (stub, _) => tls::requested_key(stub).map_err(|error| Refusal::Key(error.to_string()))?,
    };
    let identity = PodIdentity {
        namespace: meta::namespace(request).to_owned(),
        namespace_uid: namespace_uid.to_owned(),
        service_account: spec.service_account_name.clone(),
        service_account_uid: spec.service_account_uid.clone(),
        pod: spec.pod_name.clone(),
        pod_uid: spec.pod_uid.clone(),
        node: spec.node_name.clone(),
        node_uid: spec.node_uid.clone(),
    };
    Ok((identity, key))
}

/// The status that tells of a certificate, or why there is none.
fn status(answer: Result<PodCertificate, Refusal>, now: Timestamp) -> PodCertificateRequestStatus {
    let condition = |kind: &str, reason: &str, message: String| {
        let (type_, reason, status) = (kind.to_owned(), reason.to_owned(), "True".to_owned());
        Some(vec![Condition { type_, status, reason, message, last_transition_time: Time(now), observed_generation: None }])
    };
    match answer {
        Ok(issued) => PodCertificateRequestStatus {
            conditions: condition("Issued", "Issued", format!("{SIGNER} has issued a certificate.")),
            certificate_chain: Some(issued.certificate),
            not_before: Some(Time(issued.from)),
            begin_refresh_at: Some(Time(issued.refresh)),
            not_after: Some(Time(issued.until)),
        },
        Err(refusal) => {
            let (kind, reason) = refusal.condition();
            PodCertificateRequestStatus { conditions: condition(kind, reason, refusal.to_string()), ..Default::default() }
        }
    }
}

fn has_ended(request: &PodCertificateRequest) -> bool {
    let mut conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| ["Issued", "Denied", "Failed"].contains(&condition.type_.as_str()))
}

impl Controller for PodSigning {
    const NAME: &'static str = "podcertificaterequest-signing";
    const ACCOUNT: &'static str = "pod-certificate-signer";

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&self.requests), Source::read(&self.pods), Source::read(&self.namespaces)]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let waits = |request: &PodCertificateRequest| request.spec.signer_name == SIGNER && !has_ended(request);
        let Some(request) = self.requests.by_key(key).filter(|request| waits(request)) else { return Ok(Action::Done) };
        // The caches may be behind the request. Where the pod is gone, the cleaner ends this.
        let late = |what: &str| Error::Other(format!("{what} of the request is not there"));
        let pod = self.pods.get(key.namespace.as_deref(), &request.spec.pod_name).ok_or_else(|| late("the pod"))?;
        let namespace = self.namespaces.get(None, key.ns()).ok_or_else(|| late("the namespace"))?;
        let seconds = request.spec.max_expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let most = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let answer = wanted(&request, &pod, meta::uid(namespace.as_ref())).and_then(|(identity, key)| {
            self.authority.certify_pod(&key, &identity, most).map_err(|error| Refusal::Signing(error.to_string()))
        });
        let mut answered = request.as_ref().clone();
        answered.status = Some(status(answer, cx.clock.now()));
        let api: Api<PodCertificateRequest> = Api::namespaced(cx.client.clone(), key.ns());
        api.replace_status(&key.name, &PostParams::default(), &answered).await?;
        Ok(Action::Done)
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use base::tls::{KeyType, PodKey};
    use k8s_openapi::ByteString;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{World, object};

    /// A request of the pod `p`, with more metadata and other fields.
    pub(crate) fn request(name: &str, metadata: Value, spec: Value) -> PodCertificateRequest {
        let mut request = json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"signerName": SIGNER, "podName": "p",
            "podUID": "u1", "serviceAccountName": "a", "serviceAccountUID": "u2", "nodeName": "n", "nodeUID": "u3",
            "maxExpirationSeconds": 3600, "stubPKCS10Request": ""}});
        for (part, more) in [("metadata", metadata), ("spec", spec)] {
            request[part].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        }
        let mut request: PodCertificateRequest = object(request);
        request.spec.stub_pkc_s10_request = ByteString(PodKey::generate(KeyType::Ed25519).unwrap().request);
        request
    }

    fn pod(spec: Value) -> Pod {
        object(json!({"metadata": {"namespace": "ns", "name": "p", "uid": "u1"}, "spec": spec}))
    }

    fn good() -> Pod {
        pod(json!({"containers": [], "serviceAccountName": "a", "nodeName": "n"}))
    }

    #[test]
    fn what_is_not_certified() {
        let check = |spec: Value, pod: Pod, expected: Option<&str>| {
            let refused = wanted(&request("a", json!({}), spec.clone()), &pod, "u0").err();
            assert_eq!(refused.map(|refusal| refusal.condition().1), expected, "{spec}");
        };
        check(json!({}), good(), None);
        let annotations = json!({"unverifiedUserAnnotations": {"example.com/a": "b"}});
        check(annotations, good(), Some("InvalidUnverifiedUserAnnotations"));
        check(json!({}), pod(json!({"containers": [], "serviceAccountName": "b", "nodeName": "n"})), Some("PodMismatch"));
        check(json!({}), pod(json!({"containers": [], "serviceAccountName": "a"})), Some("PodMismatch"));
        check(json!({"podUID": "other"}), good(), Some("PodMismatch"));
        let mut keyless = request("a", json!({}), json!({}));
        keyless.spec.stub_pkc_s10_request = ByteString(vec![0x30]);
        assert!(matches!(wanted(&keyless, &good(), "u0"), Err(Refusal::Key(_))));
    }

    /// KEP-4317: "The controller for this signer name automatically issues certificates for PodCertificateRequests that are addressed to it".
    #[tokio::test]
    async fn requests_for_clients_of_the_api_are_answered() {
        let world = World::new();
        world.fake.put::<Namespace>(&object(json!({"metadata": {"name": "ns", "uid": "u0"}})));
        world.fake.put(&good());
        world.fake.put(&request("good", json!({}), json!({})));
        world.fake.put(&request("bad", json!({}), json!({"serviceAccountName": "b"})));
        world.fake.put(&request("other", json!({}), json!({"signerName": "example.com/a"})));
        world.start(&["podcertificaterequest-signing"]);
        let of = |all: &[PodCertificateRequest], name: &str| all.iter().find(|one| meta::name(*one) == name).cloned().unwrap();
        world.fake.until(|all: &[PodCertificateRequest]| ["good", "bad"].iter().all(|name| has_ended(&of(all, name)))).await;
        let all = world.fake.all::<PodCertificateRequest>();
        assert!(!has_ended(&of(&all, "other")), "it is for another signer");
        let (issued, denied) = (of(&all, "good").status.unwrap(), of(&all, "bad").status.unwrap());
        assert_eq!((denied.conditions.unwrap()[0].type_.as_str(), denied.certificate_chain), ("Denied", None));
        assert!(issued.certificate_chain.unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
        let life = issued.not_after.unwrap().0.duration_since(issued.not_before.unwrap().0);
        assert_eq!(life.as_secs(), 3600);
    }
}
