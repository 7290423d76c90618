#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SignatureAlgorithm,
};
use serde_json::{Value, json};

use crate::testing::untyped::{created, prepared, updated, updated_through, with};

const UID: &str = "5f7161b4-0000-4000-8000-000000000000";

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn stub(key: &KeyPair) -> String {
    STANDARD.encode(CertificateParams::default().serialize_request(key).unwrap().der())
}

fn request(key: &KeyPair) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1beta1", "kind": "PodCertificateRequest", "metadata": {"namespace": "n", "name": "r"},
        "spec": {"signerName": "example.com/s", "podName": "p", "podUID": UID, "serviceAccountName": "default",
            "serviceAccountUID": "u", "nodeName": "n1", "nodeUID": "v", "maxExpirationSeconds": 86400, "stubPKCS10Request": stub(key)},
    })
}

/// Cases of upstream's TestValidatePodCertificateRequestCreate.
#[test]
fn new_requests() {
    let own = key(&PKCS_ED25519);
    let check = |pointer: &str, value: Value, expected: &[&str]| {
        assert_eq!(created(with(request(&own), pointer, value)), expected, "{pointer}");
    };
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
        assert_eq!(created(request(&key(algorithm))), [""; 0]);
    }
    let (_, defaulted) = prepared(with(request(&own), "/spec/maxExpirationSeconds", json!(null)));
    assert_eq!(defaulted["spec"]["maxExpirationSeconds"], 86400);
    check("/spec/signerName", json!(""), &["spec.signerName: Required value"]);
    check("/spec/podUID", json!(""), &["spec.podUID: Invalid value: \"\": must not be empty"]);
    check("/spec/nodeUID", json!("x".repeat(129)), &["spec.nodeUID: Too long: may not be more than 128 bytes"]);
    let range = "spec.maxExpirationSeconds: Invalid value: 3599: must be in the range [3600, 7862400]";
    check("/spec/maxExpirationSeconds", json!(3599), &[range]);
    let long = with(request(&own), "/spec/signerName", json!("kubernetes.io/s"));
    let range = "spec.maxExpirationSeconds: Invalid value: 86401: must be in the range [3600, 86400]";
    assert_eq!(created(with(long, "/spec/maxExpirationSeconds", json!(86401))), [range]);
    let domain = "spec.unverifiedUserAnnotations: Invalid value: \"a\": must be a domain-prefixed key";
    check("/spec/unverifiedUserAnnotations", json!({"a": "b", "example.com/a": "b"}), &[domain]);
    let found = created(with(request(&own), "/spec/stubPKCS10Request", json!(STANDARD.encode("no request"))));
    assert!(found.len() == 1 && found[0].starts_with("spec.stubPKCS10Request: Invalid value"), "{found:?}");
    let both = "spec.pkixPublicKey: Forbidden: may not be set if stubPKCS10Request is set";
    check("/spec/pkixPublicKey", json!("AAAA"), &[both]);
}

/// The older form, which kubelets before v1.36 send.
#[test]
fn keys_with_a_proof() {
    let check = |signed: &[u8], expected: &[&str]| {
        let seed = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let pair = ring::signature::Ed25519KeyPair::from_pkcs8(seed.as_ref()).unwrap();
        let info = KeyPair::try_from(seed.as_ref()).unwrap().subject_public_key_info();
        let mut object = with(request(&key(&PKCS_ED25519)), "/spec/stubPKCS10Request", json!(null));
        object["spec"]["pkixPublicKey"] = STANDARD.encode(info).into();
        object["spec"]["proofOfPossession"] = STANDARD.encode(pair.sign(signed)).into();
        assert_eq!(created(object), expected);
    };
    check(UID.as_bytes(), &[]);
    let refused = "spec.proofOfPossession: Invalid value: \"<value omitted>\": could not verify proof-of-possession signature";
    check(b"another", &[refused]);
    let none = with(request(&key(&PKCS_ED25519)), "/spec/stubPKCS10Request", json!(null));
    let refused = "spec.pkixPublicKey: Invalid value: \"<value omitted>\": must be a valid PKIX-serialized public key";
    assert_eq!(created(none), [refused]);
}

#[test]
fn what_is_asked_for_stays() {
    let object = request(&key(&PKCS_ED25519));
    let found = updated(object.clone(), with(object, "/spec/podName", json!("q")));
    assert!(
        found.len() == 1 && found[0].starts_with("spec: Invalid value") && found[0].ends_with("field is immutable"),
        "{found:?}"
    );
}

fn condition(kind: &str) -> Value {
    json!([{"type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-11-28T00:00:00Z"}])
}

/// A certificate for `subject` of so many seconds, and what a signer says of it.
fn issued(subject: &KeyPair, begins: Timestamp, seconds: i64) -> Value {
    let signer = key(&PKCS_ED25519);
    let mut authority = CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ends = begins + SignedDuration::from_secs(seconds);
    let time = |time: Timestamp| std::time::SystemTime::from(time).into();
    let mut leaf = CertificateParams::default();
    (leaf.not_before, leaf.not_after) = (time(begins), time(ends));
    let leaf = leaf.signed_by(subject, &rcgen::Issuer::new(authority, signer)).unwrap();
    let text = |time: Timestamp| time.to_string();
    json!({"conditions": condition("Issued"), "certificateChain": leaf.pem(), "notBefore": text(begins), "notAfter": text(ends),
        "beginRefreshAt": text(ends - SignedDuration::from_secs(seconds / 3))})
}

/// Cases of upstream's TestValidatePodCertificateRequestStatusUpdate.
#[test]
fn answers() {
    let own = key(&PKCS_ECDSA_P256_SHA256);
    let old = request(&own);
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let answer = |status: Value| updated_through("status", old.clone(), with(old.clone(), "/status", status));
    let check = |status: Value, expected: &str| {
        let found = answer(status.clone());
        let is = if expected.is_empty() { found.is_empty() } else { found.len() == 1 && found[0].contains(expected) };
        assert!(is, "{expected}: {found:?} of {status}");
    };
    let good = issued(&own, now, 86400);
    check(good.clone(), "");
    check(json!({"conditions": condition("Denied")}), "");
    check(json!({"conditions": condition("Approved")}), "status.conditions[0].type: Unsupported value: \"Approved\"");
    check(
        with(good.clone(), "/conditions", condition("Failed")),
        "non-condition status fields must be empty when denying or failing",
    );
    check(with(good.clone(), "/conditions", json!([])), "status is immutable unless transitioning to");
    check(with(good.clone(), "/certificateChain", json!("x")), "must contain at least one certificate");
    check(issued(&key(&PKCS_ED25519), now, 86400), "leaf certificate was not issued to the requested public key");
    check(issued(&own, now, 3599), "leaf certificate lifetime must be >= 1 hour");
    check(issued(&own, now, 86401), "leaf certificate lifetime must be <= spec.maxExpirationSeconds (86400)");
    check(issued(&own, now - SignedDuration::from_mins(6), 86400), "must be set to within 5 minutes");
    check(with(good.clone(), "/notAfter", json!("2030-01-01T00:00:00Z")), "must be set to the NotAfter time encoded");
    check(with(good.clone(), "/beginRefreshAt", good["notBefore"].clone()), "must be at least 10 minutes after status.notBefore");
    check(with(good.clone(), "/beginRefreshAt", good["notAfter"].clone()), "must be at least 10 minutes before status.notAfter");
    check(with(good.clone(), "/beginRefreshAt", json!(null)), "status.beginRefreshAt: Required value");
    let ended = with(old.clone(), "/status", json!({"conditions": condition("Denied")}));
    let found = updated_through("status", ended.clone(), with(ended, "/status", good));
    assert!(
        found.len() == 1 && found[0].contains("immutable after PodCertificateRequest is issued, denied, or failed"),
        "{found:?}"
    );
}
