//! What a request for a pod's certificate says, and what a signer has made of it. Pure.

use base::tls;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1beta1::{PodCertificateRequest, PodCertificateRequestSpec};
use k8s_openapi::api::core::v1::PodCertificateProjection;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::spec::Model;

/// UIDs that a request names beside the pod's.
#[derive(Clone, Debug)]
pub struct Uids {
    /// Of the pod's service account.
    pub account: String,
    /// Of the node.
    pub node: String,
}

/// The service account as which a pod runs.
pub fn account(model: &Model) -> &str {
    model.spec().service_account_name.as_deref().unwrap_or("default")
}

/// The request for a certificate. `stub` is the request for its key (PKCS #10, DER).
pub fn new(model: &Model, source: &PodCertificateProjection, node: &str, uids: Uids, stub: Vec<u8>) -> PodCertificateRequest {
    // The garbage collector removes it with the pod.
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: model.name().to_owned(),
        uid: model.uid().to_owned(),
        ..OwnerReference::default()
    };
    PodCertificateRequest {
        metadata: ObjectMeta {
            generate_name: Some("req-".to_owned()),
            namespace: Some(model.namespace().to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: PodCertificateRequestSpec {
            signer_name: source.signer_name.clone(),
            pod_name: model.name().to_owned(),
            pod_uid: model.uid().to_owned(),
            service_account_name: account(model).to_owned(),
            service_account_uid: uids.account,
            node_name: node.to_owned(),
            node_uid: uids.node,
            max_expiration_seconds: source.max_expiration_seconds,
            stub_pkc_s10_request: ByteString(stub),
            unverified_user_annotations: source.user_annotations.clone(),
            ..PodCertificateRequestSpec::default()
        },
        status: None,
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    Open,
    /// A certificate.
    Issued {
        /// The certificates, PEM, and nothing else.
        chain: String,
        /// When a new one should be asked for.
        refresh: Timestamp,
        /// When it ends.
        until: Timestamp,
    },
    /// None, for good.
    Refused {
        /// The condition, `Denied` or `Failed`.
        condition: &'static str,
        /// What is told of it.
        message: String,
    },
}

/// Reads what a signer has made of a request.
pub fn answer(request: &PodCertificateRequest) -> Answer {
    let status = request.status.clone().unwrap_or_default();
    let name = format!(
        "{}/{}",
        request.metadata.namespace.as_deref().unwrap_or_default(),
        request.metadata.name.as_deref().unwrap_or_default()
    );
    for condition in status.conditions.iter().flatten() {
        let refused = |condition, message| Answer::Refused { condition, message };
        let why = format!("reason={:?}, message={:?}", condition.reason, condition.message);
        match condition.type_.as_str() {
            "Denied" => return refused("Denied", format!("PodCertificateRequest {name} was denied, {why}")),
            "Failed" => return refused("Failed", format!("PodCertificateRequest {name} failed, {why}")),
            "Issued" => {
                let chain = tls::clean_chain(status.certificate_chain.as_deref().unwrap_or_default());
                return match (chain, status.begin_refresh_at, status.not_after) {
                    (Ok(chain), Some(refresh), Some(until)) => Answer::Issued { chain, refresh: refresh.0, until: until.0 },
                    (Err(error), ..) => refused("Failed", format!("PodCertificateRequest {name} is of no use: {error}")),
                    _ => refused(
                        "Failed",
                        format!("PodCertificateRequest {name} is of no use: it has a certificate and not its times"),
                    ),
                };
            }
            _ => {}
        }
    }
    Answer::Open
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::model;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn request(status: Value) -> PodCertificateRequest {
        let mut request = json!({"metadata": {"namespace": "ns", "name": "req-a"}, "spec": {}, "status": status});
        for field in ["signerName", "podName", "podUID", "serviceAccountName", "serviceAccountUID", "nodeName", "nodeUID"] {
            request["spec"][field] = "x".into();
        }
        request["spec"]["stubPKCS10Request"] = "AAAA".into();
        serde_json::from_value(request).unwrap()
    }

    /// KEP-4317: "The kubelet then waits for the PodCertificateRequest to be issued, denied, or failed".
    #[test]
    fn answers_are_read() {
        let authority = base::tls::Authority::in_memory("ca").unwrap();
        let condition = |kind: &str| json!([{"type": kind, "status": "True", "reason": "Why", "message": "so", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let check = |status: Value, expected: Answer| assert_eq!(answer(&request(status.clone())), expected, "{status}");
        let refused = |condition, message: &str| Answer::Refused { condition, message: message.to_owned() };
        check(Value::Null, Answer::Open);
        check(json!({"conditions": condition("Other")}), Answer::Open);
        let denied = "PodCertificateRequest ns/req-a was denied, reason=\"Why\", message=\"so\"";
        check(json!({"conditions": condition("Denied")}), refused("Denied", denied));
        let failed = "PodCertificateRequest ns/req-a failed, reason=\"Why\", message=\"so\"";
        check(json!({"conditions": condition("Failed")}), refused("Failed", failed));
        let issued = |chain: &str| json!({"conditions": condition("Issued"), "certificateChain": chain, "beginRefreshAt": at(10), "notAfter": at(20)});
        let chain = tls::clean_chain(authority.bundle()).unwrap();
        let good = Answer::Issued { chain, refresh: at(10), until: at(20) };
        check(issued(&format!("text\n{}", authority.bundle())), good);
        let empty = "PodCertificateRequest ns/req-a is of no use: cannot read certificate chain: no certificate in it";
        check(issued(""), refused("Failed", empty));
        let mut timeless = issued(authority.bundle());
        timeless.as_object_mut().unwrap().remove("notAfter");
        let without = "PodCertificateRequest ns/req-a is of no use: it has a certificate and not its times";
        check(timeless, refused("Failed", without));
    }

    /// API page "PodCertificateProjection": "Kubelet copies this value verbatim into the PodCertificateRequests it generates", of the life and of
    /// the annotations.
    #[test]
    fn requests_say_what_the_pod_says() {
        let model = model(json!({"serviceAccountName": "robot", "containers": [{"name": "c"}]}));
        let source: PodCertificateProjection =
            serde_json::from_value(json!({"signerName": "example.com/a", "keyType": "ED25519",
            "maxExpirationSeconds": 7200, "userAnnotations": {"example.com/k": "v"}}))
            .unwrap();
        let uids = Uids { account: "u1".to_owned(), node: "u2".to_owned() };
        let made = serde_json::to_value(new(&model, &source, "n1", uids, vec![1, 2, 3])).unwrap();
        let expected = json!({"signerName": "example.com/a", "podName": model.name(), "podUID": model.uid(),
            "serviceAccountName": "robot", "serviceAccountUID": "u1", "nodeName": "n1", "nodeUID": "u2", "maxExpirationSeconds": 7200,
            "stubPKCS10Request": "AQID", "unverifiedUserAnnotations": {"example.com/k": "v"}});
        assert_eq!(made["spec"], expected);
        assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], model.uid());
    }
}
