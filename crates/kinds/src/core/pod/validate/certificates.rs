//! Certificates in projected volumes (KEP-4317).

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::PodCertificateProjection;

use crate::certificates::pod_certificate_request::{MIN_SECONDS, longest, validate_annotations};
use crate::rules;

const KEY_TYPES: &[&str] = &["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"];

/// The files that a source makes.
pub(super) fn files(source: &PodCertificateProjection) -> impl Iterator<Item = &str> {
    let paths = [&source.credential_bundle_path, &source.key_path, &source.certificate_chain_path];
    paths.into_iter().map(rules::text).filter(|path| !path.is_empty())
}

pub(super) fn validate(source: &PodCertificateProjection, at: &Path, errors: &mut Errors) {
    rules::signer_name(&at.child("signerName"), &source.signer_name, errors);
    rules::supported(&at.child("keyType"), Some(&source.key_type), KEY_TYPES, errors);
    if let Some(seconds) = source.max_expiration_seconds {
        let (max, at) = (longest(&source.signer_name), at.child("maxExpirationSeconds"));
        if seconds < MIN_SECONDS {
            errors.push(Error::invalid(&at, seconds, format!("if provided, maxExpirationSeconds must be >= {MIN_SECONDS}")));
        }
        if seconds > max {
            errors.push(Error::invalid(&at, seconds, format!("if provided, maxExpirationSeconds must be <= {max}")));
        }
    }
    let paths = [
        ("credentialBundlePath", &source.credential_bundle_path),
        ("keyPath", &source.key_path),
        ("certificateChainPath", &source.certificate_chain_path),
    ];
    for (field, path) in paths.map(|(field, path)| (field, rules::text(path))) {
        if !path.is_empty() {
            rules::local_path(&at.child(field), path, errors);
        }
    }
    if files(source).next().is_none() {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(Error::required(at, detail));
    }
    if let Some(annotations) = &source.user_annotations {
        validate_annotations(annotations, &at.child("userAnnotations"), errors);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    /// API page "PodCertificateProjection": "Valid values are RSA3072, RSA4096, ECDSAP256, ECDSAP384, ECDSAP521, and ED25519", and of the life "values
    /// shorter than 3600 (1 hour)" are rejected, "The maximum allowable value is 7862400 (91 days)".
    #[test]
    fn sources_of_certificates() {
        let check = |field: &str, value: Value, expected: &[&str]| {
            let mut source = json!({"signerName": "example.com/a", "keyType": "ED25519", "credentialBundlePath": "both.pem"});
            source[field] = value.clone();
            let mut errors = Errors::new();
            validate(&serde_json::from_value(source).unwrap(), &Path::new("s"), &mut errors);
            let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), expected.len(), "{field} {value}: {found:?}");
            assert!(found.iter().zip(expected).all(|(found, start)| found.starts_with(start)), "{field} {value}: {found:?}");
        };
        check("keyPath", json!("key.pem"), &[]);
        check("signerName", json!("example"), &["s.signerName: Invalid value"]);
        check("keyType", json!("RSA2048"), &["s.keyType: Unsupported value"]);
        check("keyType", json!("RSA3072"), &[]);
        check("credentialBundlePath", json!(""), &["s: Required value"]);
        check("credentialBundlePath", json!("../a"), &["s.credentialBundlePath: Invalid value"]);
        check("keyPath", json!("/key"), &["s.keyPath: Invalid value"]);
        check("maxExpirationSeconds", json!(3599), &["s.maxExpirationSeconds: Invalid value"]);
        check("maxExpirationSeconds", json!(91 * 86400), &[]);
        check("maxExpirationSeconds", json!(91 * 86400 + 1), &["s.maxExpirationSeconds: Invalid value"]);
        check("userAnnotations", json!({"example.com/a": "b"}), &[]);
        check("userAnnotations", json!({"a": "b"}), &["s.userAnnotations: Invalid value"]);
    }
}
