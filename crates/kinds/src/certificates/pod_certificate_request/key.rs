//! The key of a request, and the proof that whoever asks has its private half.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::certificates::v1beta1::PodCertificateRequestSpec;
use serde_json::json;
use signatures::{AlgorithmIdentifier, alg_id};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::certificates::pem;

/// The largest key, proof and request, bytes.
const MAX_SIZE: usize = 10 << 10;

const NOT_PROVED: &str = "could not verify proof-of-possession signature";

/// The public key that a certificate is asked for, in its DER form.
pub(super) fn of(spec: &PodCertificateRequestSpec) -> Option<Vec<u8>> {
    if spec.stub_pkc_s10_request.0.is_empty() {
        return spec.pkix_public_key.as_ref().map(|key| key.0.clone());
    }
    let request = pem::request(&spec.stub_pkc_s10_request.0).ok()?;
    Some(request.certification_request_info.subject_pki.raw.to_vec())
}

pub(super) fn validate(spec: &PodCertificateRequestSpec, path: &Path, errors: &mut Errors) {
    let bytes = |field: &Option<k8s_openapi::ByteString>| field.as_ref().map(|bytes| bytes.0.clone()).unwrap_or_default();
    let (key, proof, stub) = (bytes(&spec.pkix_public_key), bytes(&spec.proof_of_possession), &spec.stub_pkc_s10_request.0);
    for (field, bytes) in [("pkixPublicKey", &key), ("proofOfPossession", &proof), ("stubPKCS10Request", stub)] {
        if bytes.len() > MAX_SIZE {
            return errors.push(Error::too_long(&path.child(field), MAX_SIZE));
        }
    }
    if stub.is_empty() {
        return validate_proof(&key, &proof, &spec.pod_uid, path, errors);
    }
    for (field, bytes) in [("pkixPublicKey", &key), ("proofOfPossession", &proof)] {
        if !bytes.is_empty() {
            errors.push(Error::forbidden(&path.child(field), "may not be set if stubPKCS10Request is set"));
        }
    }
    let at = path.child("stubPKCS10Request");
    match pem::request(stub) {
        Err(why) => errors.push(Error::invalid(&at, json!(spec.stub_pkc_s10_request), why.to_string())),
        Ok(request) => {
            kind(&request.certification_request_info.subject_pki, &at, errors);
        }
    }
}

/// The older form: a key, and the pod's UID signed by it.
fn validate_proof(key: &[u8], proof: &[u8], uid: &str, path: &Path, errors: &mut Errors) {
    let at = path.child("pkixPublicKey");
    let Some(info) = SubjectPublicKeyInfo::from_der(key).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, info)| info) else {
        return errors.push(Error::invalid(&at, "<value omitted>", "must be a valid PKIX-serialized public key"));
    };
    let Some(algorithm) = kind(&info, &at, errors) else { return };
    if !signatures::PublicKey::read(key).is_some_and(|key| key.has_signed(uid.as_bytes(), algorithm, proof)) {
        errors.push(Error::invalid(&path.child("proofOfPossession"), "<value omitted>", NOT_PROVED));
    }
}

/// How a key signs, if it is one that certificates are issued to.
fn kind(info: &SubjectPublicKeyInfo<'_>, path: &Path, errors: &mut Errors) -> Option<AlgorithmIdentifier> {
    const ED25519: &str = "1.3.101.112";
    let mut refuse = |value: String, detail: &str| {
        errors.push(Error::invalid(path, value, detail));
        None
    };
    if info.algorithm.algorithm.to_id_string() == ED25519 {
        return Some(alg_id::ED25519);
    }
    match info.parsed() {
        Ok(PublicKey::EC(point)) => match point.key_size() {
            // 521 bits, in whole bytes.
            256 | 384 | 528 => Some(alg_id::ECDSA_SHA256),
            bits => refuse(format!("curve of {bits} bits"), "elliptic public keys must use curve P256 or P384"),
        },
        Ok(PublicKey::RSA(key)) => match key.key_size() {
            3072 | 4096 => Some(alg_id::RSA_PSS_SHA256),
            bits => refuse(format!("{bits}-bit modulus"), "RSA keys must have modulus size 3072 or 4096"),
        },
        _ => refuse("<value omitted>".to_owned(), "unknown public key type; supported types are Ed25519, ECDSA, and RSA"),
    }
}
