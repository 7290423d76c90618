//! Credentials in secrets of the types `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg`. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use k8s_openapi::api::core::v1::Secret;
use runtime::api::Credentials;
use serde::Deserialize;

use super::keyring::{Credential, Keyring};
use super::sources::{PullSecret, Source};

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

/// As programs in Go read it: with padding or without, and whatever the bits are that no byte needs.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Auth {
    /// What `auth` says, which comes before the other two, as upstream.
    fn credentials(self) -> Option<Credentials> {
        let Some(mut auth) = self.auth.filter(|auth| !auth.is_empty()) else {
            return Some(Credentials { username: self.username?, password: self.password? });
        };
        // Programs that encode wrap their lines.
        auth.retain(|c| !matches!(c, '\r' | '\n'));
        let text = String::from_utf8(BASE64.decode(auth).ok()?).ok()?;
        let (username, password) = text.split_once(':')?;
        Some(Credentials { username: username.to_owned(), password: password.to_owned() })
    }
}

/// Adds the credentials of a secret.
pub(super) fn add(keyring: &mut Keyring, secret: &Secret) {
    let data = secret.data.as_ref();
    let field = |name: &str| data.and_then(|data| data.get(name)).map(|bytes| bytes.0.as_slice());
    let auths = match (field(".dockerconfigjson"), field(".dockercfg")) {
        (Some(json), _) => serde_json::from_slice::<DockerConfig>(json).map(|config| config.auths).unwrap_or_default(),
        (None, Some(json)) => serde_json::from_slice(json).unwrap_or_default(),
        (None, None) => return,
    };
    for (key, auth) in auths {
        if let Some(word) = auth.credentials() {
            let source = Source::Secret(origin(secret, &word));
            keyring.add(&key, Credential { word, source });
        }
    }
}

fn origin(secret: &Secret, word: &Credentials) -> PullSecret {
    PullSecret {
        uid: secret.metadata.uid.clone().unwrap_or_default(),
        namespace: secret.metadata.namespace.clone().unwrap_or_default(),
        name: secret.metadata.name.clone().unwrap_or_default(),
        credential_hash: pods::csi::digest(&format!("{}\0{}", word.username, word.password)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_forms() {
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let plain = encode("user:secret");
        assert!(plain.ends_with('='), "it is padded");
        let wrapped = format!("{}\n{}\r\n", &plain[..7], &plain[7..]);
        let auths = json!({"r.io": {"auth": encode("u:p:q")}, "s.io": {"username": "v", "password": "w"}, "t.io": {"auth": "?"},
            "unpadded.io": {"auth": plain.trim_end_matches('=')}, "wrapped.io": {"auth": wrapped},
            "both.io": {"auth": plain, "username": "v", "password": "w"}, "empty.io": {"auth": "", "username": "v", "password": "w"},
            "half.io": {"username": "v"}});
        let new = json!({".dockerconfigjson": encode(&json!({"auths": auths}).to_string())});
        for data in [new, json!({".dockercfg": encode(&auths.to_string())})] {
            let metadata = json!({"namespace": "n", "name": "s", "uid": "1"});
            let secret: Secret = serde_json::from_value(json!({"metadata": metadata, "data": data})).unwrap();
            let mut keyring = Keyring::default();
            add(&mut keyring, &secret);
            let check = |repository: &str, expected: Option<(&str, &str)>| {
                let found = keyring.lookup(repository);
                let words = found.first().map(|found| (found.word.username.as_str(), found.word.password.as_str()));
                assert_eq!(words, expected, "{repository}");
            };
            check("r.io/x", Some(("u", "p:q")));
            check("s.io/x", Some(("v", "w")));
            check("t.io/x", None);
            for registry in ["unpadded.io/x", "wrapped.io/x", "both.io/x"] {
                check(registry, Some(("user", "secret")));
            }
            check("empty.io/x", Some(("v", "w")));
            check("half.io/x", None);
            check("docker.io/library/x", None);
            let source = keyring.lookup("r.io/x").remove(0).source;
            let Source::Secret(secret) = source else { panic!("{source:?}") };
            assert_eq!((secret.uid.as_str(), secret.namespace.as_str(), secret.name.as_str()), ("1", "n", "s"));
        }
    }
}
