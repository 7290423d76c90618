#![allow(clippy::unwrap_used)]

use std::process::Command;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, ProtocolVersion};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::*;

/// What OpenSSL makes of a kind of key and a digest: a certificate that its own key has signed, and the key.
fn made(key: &str, digest: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-subj", "/CN=a", "-keyout", "-", "-newkey"]).args(key.split(' '));
    let out = openssl.args(digest.split_whitespace()).output().unwrap();
    assert!(out.status.success(), "{key}: {}", String::from_utf8_lossy(&out.stderr));
    (CertificateDer::from_pem_slice(&out.stdout).unwrap(), PrivateKeyDer::from_pem_slice(&out.stdout).unwrap())
}

fn public(certificate: &CertificateDer<'_>) -> Vec<u8> {
    X509Certificate::from_der(certificate).unwrap().1.public_key().raw.to_vec()
}

#[test]
fn certificates_of_openssl() {
    let check = |key: &str, digest: &str, expected: bool| {
        let (certificate, _) = made(key, digest);
        let (own, other) = (public(&certificate), public(&made(key, digest).0));
        let signed = Signed::read(&certificate).unwrap();
        assert_eq!(signed.is_by(PublicKey::read(&own).unwrap()), expected, "{key} {digest}");
        assert!(!signed.is_by(PublicKey::read(&other).unwrap()), "{key} {digest}");
    };
    for curve in ["P-256", "P-384", "P-521"] {
        for digest in ["-sha256", "-sha384", "-sha512"] {
            check(&format!("ec -pkeyopt ec_paramgen_curve:{curve}"), digest, true);
        }
    }
    for digest in ["-sha256", "-sha384", "-sha512"] {
        check("rsa:2048", digest, true);
    }
    check("ed25519", "", true);
    check("rsa:1024", "-sha256", false);
    check("ec -pkeyopt ec_paramgen_curve:P-256", "-sha1", false);
}

/// Every key that signs handshakes is checked by its certificate, in both versions of TLS.
#[test]
fn handshakes() {
    let check = |key: &str, version: ProtocolVersion, expected: bool| {
        let (certificate, private) = made(key, "");
        let provider = provider();
        let key = provider.key_provider.load_private_key(private).unwrap();
        let offered = provider.signature_verification_algorithms.supported_schemes();
        let signer = key.choose_scheme(&offered).unwrap();
        let signature = signer.sign(b"a handshake").unwrap();
        let verify = |message: &[u8]| -> Result<HandshakeSignatureValid, Error> {
            let signed = digitally_signed(signer.scheme(), &signature);
            verify_handshake(version, message, &certificate, &signed)
        };
        assert_eq!(verify(b"a handshake").is_ok(), expected, "{:?} {version:?}", signer.scheme());
        assert!(verify(b"another").is_err());
    };
    for version in [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3] {
        for curve in ["P-256", "P-384", "P-521"] {
            check(&format!("ec -pkeyopt ec_paramgen_curve:{curve}"), version, true);
        }
        check("rsa:2048", version, true);
        check("ed25519", version, true);
    }
}

/// As it stands in a message: the scheme, the length, and the signature (RFC 8446, section 4.4.3).
fn digitally_signed(scheme: SignatureScheme, signature: &[u8]) -> rustls::DigitallySignedStruct {
    use rustls::internal::msgs::codec::{Codec, Reader};
    let length = u16::try_from(signature.len()).unwrap().to_be_bytes();
    let bytes = [&u16::from(scheme).to_be_bytes()[..], &length, signature].concat();
    rustls::DigitallySignedStruct::read(&mut Reader::init(&bytes)).unwrap()
}

/// RFC 7518, section 3.4: both numbers have 66 bytes.
#[test]
fn tokens() {
    let made = generate_p521().unwrap();
    let spki = PublicKey::read(&made.public).unwrap();
    let der = made.sign(b"a token").unwrap();
    assert!(spki.has_signed(b"a token", alg_id::ECDSA_SHA512, &der) && !spki.has_signed(b"another", alg_id::ECDSA_SHA512, &der));
    let fixed = ::p521::ecdsa::Signature::from_der(&der).unwrap().to_bytes();
    let point = &made.public[made.public.len() - 133..];
    assert!(verify_p521_fixed(point, b"a token", &fixed));
    assert!(!verify_p521_fixed(point, b"another", &fixed) && !verify_p521_fixed(point, b"a token", &der));
    // It is a key of TLS, too.
    let key = PrivateKeyDer::Pkcs8(made.key.clone().into());
    assert_eq!(provider().key_provider.load_private_key(key).unwrap().public_key().unwrap().as_ref(), made.public);
}

#[test]
fn what_is_neither() {
    for bytes in [&b""[..], b"\x30", b"\x30\x00", b"\x30\x03\x30\x01\x00", &[0x30; 64]] {
        assert!(PublicKey::read(bytes).is_none() && Signed::read(bytes).is_none(), "{bytes:?}");
    }
}
