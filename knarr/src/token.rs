//! Tokens by which machines join: `K10DIGEST::ID.SECRET`, the digest of the authority and a bootstrap token.
//!
//! The digest is what makes joining safe over a network that nobody trusts: the authority is fetched without knowing who answers, and
//! believed only when it has the digest.

use std::path::Path;

use anyhow::{Context, Result};
use base::tls;
use jiff::Timestamp;
use serde_json::{Value, json};

const PREFIX: &str = "K10";
/// The characters of ids and secrets: 32 of those that are allowed, without the ones that look alike.
const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";

/// The usual group of who joins by a token of ours.
pub(crate) const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

/// How the token of a server's file is described.
pub(crate) const SERVERS: &str = "joins nodes";

/// A token, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinToken {
    /// The SHA-256 of the authority, hex.
    pub(crate) digest: String,
    pub(crate) id: String,
    secret: String,
}

/// Why a text is no token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidToken {
    #[error(
        "it must look like K10DIGEST::ID.SECRET; the server writes one to the file token in its data directory, and `knarr token create` makes others"
    )]
    Form,
    #[error("its digest is not a SHA-256")]
    Digest,
    #[error("its second part must be a bootstrap token: six characters of a-z and 0-9, a dot, and sixteen more")]
    Bootstrap,
}

impl std::str::FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let (digest, token) =
            text.trim().strip_prefix(PREFIX).and_then(|rest| rest.split_once("::")).ok_or(InvalidToken::Form)?;
        if digest.len() != 64 || !digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(InvalidToken::Digest);
        }
        let good =
            |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let (id, secret) =
            token.split_once('.').filter(|(id, secret)| good(id, 6) && good(secret, 16)).ok_or(InvalidToken::Bootstrap)?;
        Ok(Self { digest: digest.to_owned(), id: id.to_owned(), secret: secret.to_owned() })
    }
}

impl std::fmt::Display for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}::{}", self.digest, self.bearer())
    }
}

impl JoinToken {
    /// A new token for the authority of this bundle that signs.
    pub(crate) fn new(bundle: &str) -> Result<Self> {
        let random = |length: usize| -> String {
            // Each source has 16 random bytes, less six bits that are fixed, in the seventh and ninth.
            let sources = std::iter::repeat_with(|| *uuid::Uuid::new_v4().as_bytes());
            let bytes = sources.flat_map(|bytes| bytes.into_iter().enumerate().filter(|(at, _)| *at != 6 && *at != 8));
            bytes.take(length).map(|(_, byte)| char::from(LETTERS[usize::from(byte) % LETTERS.len()])).collect()
        };
        Ok(Self { digest: tls::digest_of_signer(bundle)?, id: random(6), secret: random(16) })
    }

    /// What proves to the API who has the token.
    pub(crate) fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// The name of its Secret in `kube-system`.
    pub(crate) fn secret_name(&self) -> String {
        secret_name(&self.id)
    }

    /// The Secret that makes it valid, until `expiration`.
    pub(crate) fn secret(&self, expiration: Option<Timestamp>, description: &str, groups: &[String]) -> Value {
        let mut data = json!({
            "token-id": self.id, "token-secret": self.secret, "description": description,
            "usage-bootstrap-authentication": "true",
        });
        if let Some(expiration) = expiration {
            data["expiration"] = expiration.to_string().into();
        }
        if !groups.is_empty() {
            data["auth-extra-groups"] = groups.join(",").into();
        }
        json!({"metadata": {"name": self.secret_name(), "namespace": "kube-system"}, "type": SECRET_TYPE, "stringData": data})
    }

    /// The token of a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("the token's file {}", path.display()))?;
        text.parse().with_context(|| format!("the token in {}", path.display()))
    }

    /// The token of the file, or a new one that is written there (mode 0600). One that is for another authority comes to be for this one:
    /// what it proves stays the same, as its Secret does.
    pub(crate) fn load_or_create(path: &Path, bundle: &str) -> Result<Self> {
        let present = tls::read_private(path)?.and_then(|text| text.parse::<Self>().ok());
        let digest = tls::digest_of_signer(bundle)?;
        match present {
            Some(token) if token.digest == digest || token.digest == tls::digest_of_bundle(bundle)? => Ok(token),
            Some(token) => Self { digest, ..token }.written(path),
            None => Self::replace(path, bundle),
        }
    }

    /// A new token, which is written to the file in place of another.
    pub(crate) fn replace(path: &Path, bundle: &str) -> Result<Self> {
        Self::new(bundle)?.written(path)
    }

    fn written(self, path: &Path) -> Result<Self> {
        tls::write_private(path, format!("{self}\n").as_bytes())?;
        Ok(self)
    }
}

/// The name of the Secret of a token's id.
pub(crate) fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use base::tls::Authority;

    use super::*;

    #[test]
    fn forms() {
        let check = |text: &str, expected: Result<&str, InvalidToken>| {
            assert_eq!(text.parse::<JoinToken>().map(|token| token.bearer()), expected.map(str::to_owned), "{text}");
        };
        let digest = "0a".repeat(32);
        check(&format!(" K10{digest}::abcdef.0123456789abcdef\n"), Ok("abcdef.0123456789abcdef"));
        check(&format!("{digest}::abcdef.0123456789abcdef"), Err(InvalidToken::Form));
        check("abcdef.0123456789abcdef", Err(InvalidToken::Form));
        check("K100a::abcdef.0123456789abcdef", Err(InvalidToken::Digest));
        check(&format!("K10{}::abcdef.0123456789abcdef", "0A".repeat(32)), Err(InvalidToken::Digest));
        check(&format!("K10{digest}::abcdef.0123456789abcde"), Err(InvalidToken::Bootstrap));
        check(&format!("K10{digest}::server:0123456789abcdef"), Err(InvalidToken::Bootstrap));
    }

    #[test]
    fn a_file_keeps_the_token_of_its_authority() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let (one, other) = (Authority::in_memory("a").unwrap(), Authority::in_memory("a").unwrap());
        let first = JoinToken::load_or_create(&path, one.bundle()).unwrap();
        assert_eq!(JoinToken::load_or_create(&path, one.bundle()).unwrap(), first);
        assert_eq!(JoinToken::read(&path).unwrap(), first);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // The signer's digest is the token's, also while another authority is trusted; whoever has the former token has the same secret.
        let both = format!("{}{}", other.bundle(), one.bundle());
        let second = JoinToken::load_or_create(&path, &both).unwrap();
        assert_eq!((&second.digest, second.bearer()), (&tls::digest_of_bundle(other.bundle()).unwrap(), first.bearer()));
        assert_eq!(JoinToken::read(&path).unwrap(), second);
        assert_eq!(JoinToken::load_or_create(&path, other.bundle()).unwrap(), second);
        // Before there were rotations, tokens had the digest of all certificates.
        std::fs::write(&path, JoinToken { digest: tls::digest_of_bundle(&both).unwrap(), ..first.clone() }.to_string()).unwrap();
        assert_eq!(JoinToken::load_or_create(&path, &both).unwrap().digest, tls::digest_of_bundle(&both).unwrap());
        assert_eq!((first.id.len(), first.bearer().len()), (6, 23));
    }
}
