//! Keys of nodes.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Node;

use crate::pod::{Error, IpamError};

/// In which annotation of its Node a node tells its public key. Only the node itself writes it (NodeRestriction).
pub const ANNOTATION: &str = "knarr.io/wireguard-public-key";

/// By what others know a node (a point of Curve25519). Displayed in base64, as `wg` does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl From<[u8; 32]> for PublicKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The key that a node tells.
pub(in crate::pod) fn of_node(node: &Node) -> Option<PublicKey> {
    PublicKey::parse(node.metadata.annotations.as_ref()?.get(ANNOTATION)?)
}

/// The private key of the node with this directory, which is made on first use. Blocking.
pub(crate) fn private(directory: &Path) -> Result<[u8; 32], Error> {
    stored(directory).map(clamped)
}

/// The scalar that the kernel makes of any 32 bytes (RFC 7748, section 5), and tells when it is asked for the key.
fn clamped(mut key: [u8; 32]) -> [u8; 32] {
    key[0] &= 0b1111_1000;
    key[31] = key[31] & 0b0111_1111 | 0b0100_0000;
    key
}

fn stored(directory: &Path) -> Result<[u8; 32], Error> {
    let path = directory.join("wireguard.key");
    let failed = |source: io::Error| Error::Ipam(IpamError::File { path: path.clone(), source });
    match std::fs::read(&path) {
        Ok(bytes) => bytes.try_into().map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidData, "it is not 32 bytes long"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut key = [0; 32];
            std::fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut key)).map_err(failed)?;
            base::files::replace_private(&path, &key).map_err(failed)?;
            Ok(key)
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_a_node_tells() {
        let check = |text: &str, expected: Option<PublicKey>| {
            let node = serde_json::from_value(json!({"metadata": {"annotations": {ANNOTATION: text}}})).unwrap();
            assert_eq!(of_node(&node), expected, "{text}");
        };
        let key = PublicKey([7; 32]);
        check(&key.to_string(), Some(key));
        check("", None);
        check("BwcHBwc=", None);
        check(&"A".repeat(100_000), None);
        assert_eq!(of_node(&Node::default()), None);
    }

    #[test]
    fn a_key_stays_and_is_nobody_elses_to_read() {
        let directory = tempfile::tempdir().unwrap();
        let first = private(directory.path()).unwrap();
        assert_eq!(private(directory.path()).unwrap(), first);
        assert_eq!((first[0] & 7, first[31] >> 6), (0, 1));
        let path = directory.path().join("wireguard.key");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "short").unwrap();
        assert!(private(directory.path()).is_err(), "another key would cut the node off without a word");
    }
}
