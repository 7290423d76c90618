//! JSON Web Signatures (RFC 7515) in their compact form, and the sets of keys (RFC 7517) that they are checked with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;

use super::Error;

/// The algorithms that may be asked for.
pub(super) const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];

/// A token whose signature has not been checked.
pub(super) struct Token<'a> {
    algorithm: String,
    key: Option<String>,
    signed: &'a str,
    signature: Vec<u8>,
    /// What it says.
    pub(super) claims: Value,
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Error> {
        let (signed, signature) = text.rsplit_once('.').ok_or(Error::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Error::Malformed)?;
        let header = decode(header)?;
        if header.get("crit").is_some() {
            return Err(Error::Critical);
        }
        let algorithm = header["alg"].as_str().ok_or(Error::Malformed)?.to_owned();
        let signature = BASE64.decode(signature).map_err(|_| Error::Malformed)?;
        Ok(Self { algorithm, key: header["kid"].as_str().map(str::to_owned), signed, signature, claims: decode(payload)? })
    }

    /// Refuses what is signed in another way than one of these.
    pub(super) fn is_signed_by(&self, algorithms: &[String]) -> Result<(), Error> {
        let known = algorithms.contains(&self.algorithm);
        if known { Ok(()) } else { Err(Error::Algorithm(self.algorithm.clone())) }
    }
}

fn decode(part: &str) -> Result<Value, Error> {
    let bytes = BASE64.decode(part).map_err(|_| Error::Malformed)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| Error::Malformed)?;
    if value.is_object() { Ok(value) } else { Err(Error::Malformed) }
}

/// The issuer that a token names, which nothing proves.
pub(in crate::authn) fn untrusted_issuer(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    Some(decode(payload).ok()?["iss"].as_str()?.to_owned())
}

enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(Vec<u8>),
}

struct Key {
    id: Option<String>,
    public: Public,
}

/// What is no set of keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("invalid key set: {0}")]
    Json(#[from] serde_json::Error),
    #[error("invalid key set: it has no keys")]
    NoKeys,
}

/// The keys of an issuer.
#[derive(Default)]
pub(super) struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads a set. Keys of kinds that are not known, or for something else, are left out.
    pub(super) fn parse(document: &[u8]) -> Result<Self, KeySetError> {
        let document: Value = serde_json::from_slice(document)?;
        let keys = document["keys"].as_array().ok_or(KeySetError::NoKeys)?;
        Ok(Self(keys.iter().filter_map(key).collect()))
    }

    /// Whether one of the keys has signed the token.
    pub(super) fn signed(&self, token: &Token<'_>) -> bool {
        let named = |key: &&Key| token.key.is_none() || key.id == token.key;
        self.0.iter().filter(named).any(|key| key.public.verifies(token))
    }
}

fn key(value: &Value) -> Option<Key> {
    if value["use"].as_str().is_some_and(|usage| usage != "sig") {
        return None;
    }
    let number = |name: &str| BASE64.decode(value[name].as_str()?.trim_end_matches('=')).ok();
    let point = |length: usize| {
        let (x, y) = (number("x")?, number("y")?);
        let fits = x.len() <= length && y.len() <= length;
        // Numbers may come without the zeroes that they begin with.
        let padded = |bytes: &[u8]| [vec![0; length.saturating_sub(bytes.len())].as_slice(), bytes].concat();
        fits.then(|| [&[4_u8][..], &padded(&x), &padded(&y)].concat())
    };
    let public = match (value["kty"].as_str()?, value["crv"].as_str()) {
        ("RSA", _) => Public::Rsa { n: number("n")?, e: number("e")? },
        ("EC", Some("P-256")) => Public::P256(point(32)?),
        ("EC", Some("P-384")) => Public::P384(point(48)?),
        ("EC", Some("P-521")) => Public::P521(point(66)?),
        _ => return None,
    };
    Some(Key { id: value["kid"].as_str().map(str::to_owned), public })
}

impl Public {
    fn verifies(&self, token: &Token<'_>) -> bool {
        let (message, sign) = (token.signed.as_bytes(), token.signature.as_slice());
        match (self, token.algorithm.as_str()) {
            (Self::Rsa { n, e }, algorithm) => rsa(algorithm).is_some_and(|parameters| {
                let trimmed = n.iter().position(|byte| *byte != 0).map_or(&[][..], |at| &n[at..]);
                RsaPublicKeyComponents { n: trimmed, e: e.as_slice() }.verify(parameters, message, sign).is_ok()
            }),
            (Self::P256(point), "ES256") => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(message, sign).is_ok()
            }
            (Self::P384(point), "ES384") => {
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).verify(message, sign).is_ok()
            }
            (Self::P521(point), "ES512") => signatures::verify_p521_fixed(point, message, sign),
            _ => false,
        }
    }
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::authn::TokenKeys;
    use serde_json::json;

    /// The example of RFC 7515, appendix A.2: RS256.
    const N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    const RS256: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

    fn rsa_set(id: Option<&str>) -> KeySet {
        KeySet::parse(json!({"keys": [{"kty": "RSA", "n": N, "e": "AQAB", "kid": id}]}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn an_rsa_signature() {
        let token = Token::parse(RS256).unwrap();
        assert!(rsa_set(None).signed(&token));
        assert!(rsa_set(Some("a")).signed(&token), "the token names no key");
        assert_eq!(token.claims["iss"], "joe");
        assert_eq!(untrusted_issuer(RS256).as_deref(), Some("joe"));
        let (signed, signature) = RS256.rsplit_once('.').unwrap();
        let changed = format!("{signed}.{}", signature.replacen("cC4", "cC5", 1));
        assert!(!rsa_set(None).signed(&Token::parse(&changed).unwrap()));
        let other = BASE64.encode(json!({"alg": "PS256"}).to_string());
        let changed = format!("{other}.{}", RS256.split_once('.').unwrap().1);
        assert!(!rsa_set(None).signed(&Token::parse(&changed).unwrap()));
    }

    #[test]
    fn signatures_of_elliptic_curves() {
        let (keys, others) = (TokenKeys::in_memory("i").unwrap(), TokenKeys::in_memory("i").unwrap());
        let set = |keys: &TokenKeys| KeySet::parse(keys.key_set().to_string().as_bytes()).unwrap();
        let text = keys.issue(&json!({"iss": "i"})).unwrap();
        let token = Token::parse(&text).unwrap();
        assert!(set(&keys).signed(&token));
        assert!(!set(&others).signed(&token));
        assert_eq!(token.is_signed_by(&["RS256".to_owned()]), Err(Error::Algorithm("ES256".into())));
        assert_eq!(token.is_signed_by(&["ES256".to_owned()]), Ok(()));
    }

    /// Upstream's go-jose: `DetachedVerify` fails on names in `crit` that it does not support.
    #[test]
    fn what_is_critical_and_not_understood() {
        let header = |critical: Value| BASE64.encode(json!({"alg": "RS256", "crit": critical, "x": 1}).to_string());
        let text = |critical: Value| format!("{}.{}", header(critical), RS256.split_once('.').unwrap().1);
        for critical in [json!(["x"]), json!([]), json!(null)] {
            assert_eq!(Token::parse(&text(critical)).err(), Some(Error::Critical));
        }
    }

    #[test]
    fn what_is_no_token() {
        for text in ["", "a", "a.b", "a.b.c", "e30.e30", "e30.e30.e30", "e30.e30.!"] {
            assert!(Token::parse(text).is_err(), "{text}");
        }
        assert!(untrusted_issuer("e30.e30.e30.e30").is_none());
        assert!(KeySet::parse(b"{}").is_err());
        assert!(KeySet::parse(br#"{"keys": [{"kty": "oct"}, {"kty": "EC", "crv": "P-256"}, 1]}"#).unwrap().0.is_empty());
    }
}
