//! The key that signs ServiceAccount tokens, and JSON Web Signatures with it (RFC 7515, ES256).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use apimachinery::Status;
use base::tls;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use parking_lot::RwLock;
use registry::{TokenSigner, TokenSubject};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use serde_json::{Value, json};

use super::token::{Claims, Error};

/// Verified tokens that are remembered, so that each costs one signature check.
const REMEMBERED: usize = 10_000;

/// Signs and verifies tokens.
pub struct TokenKeys {
    issuer: String,
    audiences: Vec<String>,
    key: EcdsaKeyPair,
    id: String,
    random: SystemRandom,
    verified: RwLock<HashMap<[u8; 32], Arc<Claims>>>,
}

impl TokenKeys {
    /// Reads the key of `path` (PKCS #8, PEM), or makes it with mode 0600. `issuer` is the API server's name in tokens and
    /// its audience.
    pub fn load_or_create(path: &Path, issuer: &str) -> Result<Self, tls::Error> {
        let pem = match tls::read_private(path)? {
            Some(pem) => pem,
            None => {
                let pem = tls::generate_key()?;
                tls::write_private(path, pem.as_bytes())?;
                pem
            }
        };
        Self::from_pem(&pem, issuer)
    }

    /// A key that lives in memory only.
    pub fn in_memory(issuer: &str) -> Result<Self, tls::Error> {
        Self::from_pem(&tls::generate_key()?, issuer)
    }

    fn from_pem(text: &str, issuer: &str) -> Result<Self, tls::Error> {
        let unreadable = |why: String| tls::Error::Parse(format!("the ServiceAccount key: {why}"));
        let der = pem::parse(text).map_err(|error| unreadable(error.to_string()))?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.contents(), &random)
            .map_err(|error| unreadable(error.to_string()))?;
        let id = BASE64.encode(ring::digest::digest(&ring::digest::SHA256, key.public_key().as_ref()));
        Ok(Self { issuer: issuer.into(), audiences: vec![issuer.into()], key, id, random, verified: RwLock::default() })
    }

    /// The API server's own audiences.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Who issues the tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public key as a JSON Web Key Set (RFC 7517).
    pub fn key_set(&self) -> Value {
        // Uncompressed point: 4, x, y.
        let point = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        let coordinate = |bytes: &[u8]| BASE64.encode(bytes);
        let key = json!({"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256", "x": coordinate(x), "y": coordinate(y)});
        json!({"keys": [key]})
    }

    /// Signs claims.
    pub fn issue(&self, claims: &Value) -> Result<String, Status> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.key.sign(&self.random, signed.as_bytes()).map_err(|_| Status::internal("cannot sign a token"))?;
        Ok(format!("{signed}.{}", BASE64.encode(signature)))
    }

    /// Checks signature, issuer and times.
    pub fn verify(&self, token: &str) -> Result<Arc<Claims>, Error> {
        let mut digest = [0; 32];
        digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref());
        let now = Timestamp::now().as_second();
        let known = self.verified.read().get(&digest).cloned();
        if let Some(claims) = known {
            return claims.valid_at(now).map(|()| claims);
        }
        let claims = Arc::new(self.check(token)?);
        claims.valid_at(now)?;
        let mut verified = self.verified.write();
        if verified.len() >= REMEMBERED {
            verified.retain(|_, claims| claims.valid_at(now).is_ok());
        }
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(digest, claims.clone());
        Ok(claims)
    }

    fn check(&self, token: &str) -> Result<Claims, Error> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Error::Malformed)?;
        let decode = |part: &str| BASE64.decode(part).map_err(|_| Error::Malformed);
        let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| Error::Malformed)?;
        if header["alg"] != "ES256" {
            return Err(Error::Algorithm);
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        key.verify(signed.as_bytes(), &decode(signature)?).map_err(|_| Error::Signature)?;
        let payload: Value = serde_json::from_slice(&decode(payload)?).map_err(|_| Error::Malformed)?;
        if payload["iss"] != self.issuer.as_str() {
            return Err(Error::Issuer);
        }
        Claims::read(&payload)
    }
}

impl TokenSigner for TokenKeys {
    fn sign(&self, subject: &TokenSubject) -> Result<(String, Timestamp), Status> {
        let now = Timestamp::now().as_second();
        let claims = Claims::of(subject, &self.issuer, now);
        let expires = Timestamp::from_second(now.saturating_add(subject.seconds)).map_err(Status::internal)?;
        Ok((self.issue(&claims)?, expires))
    }
}
