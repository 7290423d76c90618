//! Keys on the curve P-256 as other programs write them for people: `EC PRIVATE KEY` (RFC 5915), as OpenSSL and client-go do, and not PKCS #8. Clients
//! that go by the name of the PEM block take `PRIVATE KEY` for one of RSA (fabric8, on which Spark and Jenkins are built).

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use x509_parser::asn1_rs::{Any, FromDer};

/// An `ECPrivateKey` up to the private key, in a sequence of the length that those on this curve have.
const BEGIN: [u8; 5] = [0x30, 0x77, 0x02, 0x01, 0x01];
/// The private key's octet string, the curve (1.2.840.10045.3.1.7), and the begin of the public key's bit string.
const PRIVATE: [u8; 2] = [0x04, 0x20];
const CURVE: [u8; 12] = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const PUBLIC: [u8; 5] = [0xa1, 0x44, 0x03, 0x42, 0x00];

/// A key (PEM, PKCS #8) as an `EC PRIVATE KEY`. One that is on another curve, or no such key, stays as it is.
pub fn sec1(key: &str) -> String {
    convert(key).unwrap_or_else(|| key.to_owned())
}

fn convert(key: &str) -> Option<String> {
    let pair = KeyPair::from_pem(key).ok().filter(|pair| pair.is_compatible(&PKCS_ECDSA_P256_SHA256))?;
    let encoded = pair.serialize_der();
    // PrivateKeyInfo { version, algorithm, privateKey OCTET STRING of ECPrivateKey { version, privateKey, ... } } (RFC 5958)
    let info = third(&encoded)?;
    let inner = sequence(info)?;
    let (rest, _) = Any::from_der(inner).ok()?;
    let (_, private) = Any::from_der(rest).ok()?;
    let (private, public) = (private.data, pair.public_key_raw());
    if private.len() != 32 || public.len() != 65 {
        return None;
    }
    let der = [&BEGIN, &PRIVATE[..], private, &CURVE, &PUBLIC, public].concat();
    Some(pem::encode(&pem::Pem::new("EC PRIVATE KEY", der)))
}

/// What is in the sequence that these bytes are.
fn sequence(bytes: &[u8]) -> Option<&[u8]> {
    Any::from_der(bytes).ok().map(|(_, any)| any.data)
}

/// The content of the third part of a sequence.
fn third(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = sequence(bytes)?;
    for _ in 0..2 {
        rest = Any::from_der(rest).ok()?.0;
    }
    Any::from_der(rest).ok().map(|(_, any)| any.data)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn openssl_reads_it_as_the_same_key() {
        use std::io::Write;
        let pair = KeyPair::generate().unwrap();
        let converted = sec1(&pair.serialize_pem());
        assert!(converted.starts_with("-----BEGIN EC PRIVATE KEY-----"));
        let mut openssl = Command::new("openssl");
        openssl.args(["ec", "-pubout", "-outform", "DER"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut openssl = openssl.spawn().unwrap();
        openssl.stdin.take().unwrap().write_all(converted.as_bytes()).unwrap();
        let public = openssl.wait_with_output().unwrap().stdout;
        assert!(public.ends_with(pair.public_key_raw()) && !public.is_empty());
        // And so does whoever reads kubeconfigs here.
        use rustls::pki_types::PrivateKeyDer;
        use rustls::pki_types::pem::PemObject;
        let key = PrivateKeyDer::from_pem_slice(converted.as_bytes()).unwrap();
        assert!(rustls::crypto::ring::sign::any_supported_type(&key).is_ok());
    }

    #[test]
    fn other_keys_stay_as_they_are() {
        for key in ["", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert_eq!(sec1(key), key);
        }
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        assert_eq!(sec1(&other), other);
    }
}
