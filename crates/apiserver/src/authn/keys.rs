//! The keys of ServiceAccount tokens, and JSON Web Signatures with them (RFC 7515, ES256).
//!
//! The file of keys holds one or several blocks. The first private key signs; tokens of all keys are good, so that a key is rotated
//! by putting a new one before it, and by taking it away when its tokens have ended.

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

use super::legacy_token;
use super::token::{Claims, Error};

/// Verified tokens that are remembered, so that each costs one signature check.
const REMEMBERED: usize = 10_000;

/// A SubjectPublicKeyInfo of P-256 (RFC 5480) up to the point.
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Bytes of an uncompressed point of P-256: 4, x, y.
const POINT: usize = 65;

/// A key that tokens may be signed with.
struct PublicKey {
    id: String,
    point: Vec<u8>,
}

impl PublicKey {
    fn new(point: &[u8]) -> Self {
        let id = BASE64.encode(ring::digest::digest(&ring::digest::SHA256, point));
        Self { id, point: point.to_owned() }
    }

    /// As a JSON Web Key (RFC 7517).
    fn to_jwk(&self) -> Value {
        let (x, y) = self.point[1..].split_at(32);
        let coordinate = |bytes: &[u8]| BASE64.encode(bytes);
        json!({"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256", "x": coordinate(x), "y": coordinate(y)})
    }
}

/// Who issues tokens, and for whom.
#[derive(Clone, Debug)]
pub struct Issuers {
    /// The API server's names in tokens: new ones have the first, and those with the others are good, too.
    names: Vec<String>,
    /// Its own audiences.
    audiences: Vec<String>,
}

impl Issuers {
    /// The API server by the name `first`, and by the names that it had before. Without audiences it has its names as such.
    pub fn new(first: String, before: Vec<String>, audiences: Vec<String>) -> Self {
        let names: Vec<_> = std::iter::once(first).chain(before).collect();
        let audiences = if audiences.is_empty() { names.clone() } else { audiences };
        Self { names, audiences }
    }
}

impl From<&str> for Issuers {
    fn from(name: &str) -> Self {
        Self::new(name.to_owned(), Vec::new(), Vec::new())
    }
}

/// Signs and verifies tokens.
pub struct TokenKeys {
    issuers: Issuers,
    key: EcdsaKeyPair,
    /// Of all keys, the one that signs first.
    known: Vec<PublicKey>,
    random: SystemRandom,
    verified: RwLock<HashMap<[u8; 32], Arc<Claims>>>,
}

impl TokenKeys {
    /// Reads the keys of `path` (PEM: PKCS #8, or public keys), or makes one with mode 0600.
    pub fn load_or_create(path: &Path, issuers: Issuers) -> Result<Self, tls::Error> {
        let pem = match tls::read_private(path)? {
            Some(pem) => pem,
            None => {
                let pem = tls::generate_key()?;
                tls::write_private(path, pem.as_bytes())?;
                pem
            }
        };
        Self::from_pem(&pem, issuers)
    }

    /// A key that lives in memory only.
    pub fn in_memory(issuer: &str) -> Result<Self, tls::Error> {
        Self::from_pem(&tls::generate_key()?, issuer.into())
    }

    pub(super) fn from_pem(text: &str, issuers: Issuers) -> Result<Self, tls::Error> {
        let unreadable = |why: &str| tls::Error::Parse(format!("the ServiceAccount keys: {why}"));
        let blocks = pem::parse_many(text).map_err(|error| unreadable(&error.to_string()))?;
        let random = SystemRandom::new();
        let (mut signing, mut known) = (None, Vec::new());
        for block in &blocks {
            if block.tag() == "PUBLIC KEY" {
                let point = block.contents().strip_prefix(&SPKI_P256).filter(|point| point.len() == POINT);
                known.push(PublicKey::new(point.ok_or_else(|| unreadable("a public key is none of P-256"))?));
                continue;
            }
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, block.contents(), &random)
                .map_err(|error| unreadable(&error.to_string()))?;
            let public = PublicKey::new(key.public_key().as_ref());
            match signing {
                Some(_) => known.push(public),
                None => {
                    signing = Some(key);
                    known.insert(0, public);
                }
            }
        }
        let key = signing.ok_or_else(|| unreadable("there is no private key"))?;
        Ok(Self { issuers, key, known, random, verified: RwLock::default() })
    }

    /// The public half of a private key.
    #[cfg(test)]
    pub(super) fn public_pem(private: &str) -> Result<String, tls::Error> {
        let keys = Self::from_pem(private, "".into())?;
        let spki = [&SPKI_P256[..], &keys.known[0].point].concat();
        Ok(pem::encode(&pem::Pem::new("PUBLIC KEY", spki)))
    }

    /// The API server's own audiences.
    pub fn audiences(&self) -> &[String] {
        &self.issuers.audiences
    }

    /// Who issues the tokens.
    pub fn issuer(&self) -> &str {
        // There is one: see `Issuers::new`.
        &self.issuers.names[0]
    }

    /// Whose tokens are accepted, by the names in them.
    pub fn issuers(&self) -> &[String] {
        &self.issuers.names
    }

    /// The public keys as a JSON Web Key Set (RFC 7517).
    pub fn key_set(&self) -> Value {
        json!({"keys": self.known.iter().map(PublicKey::to_jwk).collect::<Vec<_>>()})
    }

    /// Signs claims.
    pub fn issue(&self, claims: &Value) -> Result<String, Status> {
        let header = json!({"alg": "ES256", "kid": self.known[0].id});
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.key.sign(&self.random, signed.as_bytes()).map_err(|_| Status::internal("cannot sign a token"))?;
        Ok(format!("{signed}.{}", BASE64.encode(signature)))
    }

    /// A token without an end of the account of this name and UID, for the Secret `secret` of its namespace to hold.
    pub fn issue_kept(&self, namespace: &str, secret: &str, account: (&str, &str)) -> Result<String, Status> {
        self.issue(&legacy_token::claims(namespace, secret, account))
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
        // RFC 7515, 4.1.11: none of it is understood.
        if header.get("crit").is_some() {
            return Err(Error::Malformed);
        }
        let signature = decode(signature)?;
        let named = |key: &&PublicKey| header.get("kid").is_none_or(|id| *id == key.id.as_str());
        let signs = |key: &PublicKey| {
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point);
            key.verify(signed.as_bytes(), &signature).is_ok()
        };
        if !self.known.iter().filter(named).any(signs) {
            return Err(Error::Signature);
        }
        let payload: Value = serde_json::from_slice(&decode(payload)?).map_err(|_| Error::Malformed)?;
        match payload["iss"].as_str() {
            Some(issuer) if self.issuers().iter().any(|own| own == issuer) => Claims::read(&payload),
            Some(legacy_token::ISSUER) => legacy_token::read(&payload, self.audiences()),
            _ => Err(Error::Issuer),
        }
    }
}

impl TokenSigner for TokenKeys {
    fn sign(&self, subject: &TokenSubject) -> Result<String, Status> {
        self.issue(&Claims::of(subject, self.issuer(), Timestamp::now().as_second()))
    }

    fn audiences(&self) -> &[String] {
        &self.issuers.audiences
    }
}
