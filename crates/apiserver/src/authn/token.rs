//! What a ServiceAccount token says, and whether that is still true (KEP-1205).

use std::borrow::Cow;

use base::tls::PodIdentity;
use jiff::Timestamp;
use registry::{Registry, TokenSubject, User};
use serde_json::{Map, Value, json};

/// Seconds that a token outlives its pod's deletion, so that a pod can end in order.
const DELETION_LEEWAY: i64 = 60;

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a JSON Web Signature of ours.
    #[error("invalid bearer token")]
    Malformed,
    /// Signed in a way that is not accepted.
    #[error("the token is not signed with ES256")]
    Algorithm,
    /// Somebody else signed it.
    #[error("invalid bearer token, signature does not match")]
    Signature,
    /// Issued by somebody else.
    #[error("the token's issuer is not this cluster")]
    Issuer,
    /// Too old.
    #[error("service account token has expired")]
    Expired,
    /// Too young.
    #[error("service account token is not valid yet")]
    NotYet,
    /// For somebody else.
    #[error("token audiences do not match the wanted ones")]
    Audience,
    /// What another issuer has signed is not good.
    #[error("oidc: {0}")]
    Oidc(#[from] super::oidc::Error),
    /// The account, or what the token is bound to, is gone.
    #[error("{0} has been deleted or replaced")]
    Gone(String),
    /// The Secret that should hold it holds another one, or none.
    #[error("token does not match server's copy")]
    Replaced,
    /// A label of the Secret that holds it says so.
    #[error(
        "the token in secret {namespace}/{secret} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the 'kubernetes.io/legacy-token-invalid-since' label from the secret to temporarily allow use of this token"
    )]
    Invalidated {
        /// Where the Secret is.
        namespace: String,
        /// Its name.
        secret: String,
    },
}

/// An object that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub(super) name: String,
    pub(super) uid: String,
}

/// A node that a token names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OnNode {
    name: String,
    /// None of a pod's node of which the Node object was gone when the token was issued.
    uid: Option<String>,
}

/// The claims of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// For whom.
    pub audiences: Vec<String>,
    expires: i64,
    not_before: i64,
    id: String,
    pub(super) namespace: String,
    pub(super) account: Reference,
    pod: Option<Reference>,
    secret: Option<Reference>,
    node: Option<OnNode>,
    warn_after: Option<i64>,
    /// The Secret that holds the token itself.
    holder: Option<String>,
}

impl Claims {
    /// The claims of a new token.
    pub fn of(subject: &TokenSubject, issuer: &str, now: i64) -> Value {
        let reference = |name: &str, uid: &str| json!({"name": name, "uid": uid});
        let mut own = Map::new();
        own.insert("namespace".into(), subject.namespace.as_str().into());
        own.insert("serviceaccount".into(), reference(&subject.service_account, &subject.uid));
        if let Some((kind, name, uid)) = &subject.bound_to {
            own.insert(kind.to_lowercase(), reference(name, uid));
        }
        match &subject.node {
            Some((name, Some(uid))) => _ = own.insert("node".into(), reference(name, uid)),
            Some((name, None)) => _ = own.insert("node".into(), json!({"name": name})),
            None => {}
        }
        if let Some(seconds) = subject.warn_after {
            own.insert("warnafter".into(), now.saturating_add(seconds).into());
        }
        let account = format!("system:serviceaccount:{}:{}", subject.namespace, subject.service_account);
        json!({
            "iss": issuer, "sub": account, "aud": subject.audiences, "iat": now, "nbf": now, "exp": now.saturating_add(subject.seconds),
            "jti": subject.id, "kubernetes.io": own,
        })
    }

    pub(super) fn read(payload: &Value) -> Result<Self, Error> {
        let own = &payload["kubernetes.io"];
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or(Error::Malformed);
        let reference = |value: &Value| Ok::<_, Error>(Reference { name: text(&value["name"])?, uid: text(&value["uid"])? });
        let bound = |key: &str| own.get(key).map(reference).transpose();
        let on_node = |value: &Value| {
            let uid = value.get("uid").map(text).transpose()?;
            Ok::<_, Error>(OnNode { name: text(&value["name"])?, uid })
        };
        let audiences = match &payload["aud"] {
            Value::String(one) => vec![one.clone()],
            Value::Array(all) => all.iter().map(text).collect::<Result<_, _>>()?,
            _ => return Err(Error::Malformed),
        };
        Ok(Self {
            audiences,
            expires: payload["exp"].as_i64().ok_or(Error::Malformed)?,
            not_before: payload["nbf"].as_i64().unwrap_or(0),
            id: payload["jti"].as_str().unwrap_or_default().to_owned(),
            namespace: text(&own["namespace"])?,
            account: reference(&own["serviceaccount"])?,
            pod: bound("pod")?,
            secret: bound("secret")?,
            node: own.get("node").map(on_node).transpose()?,
            warn_after: own["warnafter"].as_i64(),
            holder: None,
        })
    }

    /// Those of a token without an end, which the Secret `holder` holds.
    pub(super) fn kept(namespace: String, account: Reference, holder: String, audiences: Vec<String>) -> Self {
        let (id, holder) = (String::new(), Some(holder));
        let (pod, secret, node, warn_after) = (None, None, None, None);
        Self { audiences, expires: i64::MAX, not_before: 0, id, namespace, account, pod, secret, node, warn_after, holder }
    }

    /// The Secret that holds the token itself, and by that keeps it good.
    pub(super) fn holder(&self) -> Option<&str> {
        self.holder.as_deref()
    }

    pub(super) fn valid_at(&self, now: i64) -> Result<(), Error> {
        match now {
            now if now >= self.expires => Err(Error::Expired),
            now if now + 1 < self.not_before => Err(Error::NotYet),
            _ => Ok(()),
        }
    }
}

/// How many seconds ago the client should have read a newer token; None when this one is not stale.
pub(super) fn stale_for(claims: &Claims, now: i64) -> Option<i64> {
    claims.warn_after.map(|end| now - end).filter(|seconds| *seconds > 0)
}

/// The user of the claims, if the account and all that the token is bound to still exist.
pub async fn live(registry: &Registry, claims: &Claims) -> Result<User, Error> {
    exists(registry, "serviceaccounts", &claims.namespace, &claims.account).await?;
    if let Some(pod) = &claims.pod {
        exists(registry, "pods", &claims.namespace, pod).await?;
    }
    if let Some(secret) = &claims.secret {
        exists(registry, "secrets", &claims.namespace, secret).await?;
    }
    if let (Some(OnNode { name, uid }), None) = (&claims.node, &claims.pod) {
        // What is bound to a node itself was issued when it was there.
        let node = Reference { name: name.clone(), uid: uid.clone().ok_or(Error::Malformed)? };
        exists(registry, "nodes", "", &node).await?;
    }
    let Claims { namespace, account, pod, node, id, .. } = claims;
    Ok(bound_user(namespace, account, pod.as_ref(), node.as_ref(), format!("JTI={id}")))
}

/// The user of a pod's certificate, if its account and the pod still exist: "authenticating via a PodIdentity-bearing cert has the same
/// object-bound behavior as authenticating via a bound service account token" (KEP-4317).
pub(super) async fn live_pod(registry: &Registry, identity: &PodIdentity, credential: &str) -> Result<User, Error> {
    let of = |name: &str, uid: &str| Reference { name: name.to_owned(), uid: uid.to_owned() };
    let account = of(&identity.service_account, &identity.service_account_uid);
    let pod = of(&identity.pod, &identity.pod_uid);
    let node = OnNode { name: identity.node.clone(), uid: Some(identity.node_uid.clone()) };
    exists(registry, "serviceaccounts", &identity.namespace, &account).await?;
    exists(registry, "pods", &identity.namespace, &pod).await?;
    Ok(bound_user(&identity.namespace, &account, Some(&pod), Some(&node), credential.to_owned()))
}

/// The user of a ServiceAccount, with what its credential is bound to.
fn bound_user(namespace: &str, account: &Reference, pod: Option<&Reference>, node: Option<&OnNode>, credential: String) -> User {
    let mut user = super::account_user(namespace, account);
    let mut extra = |key: &str, value: &str| {
        user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
    };
    let pod = pod.map(|pod| ("pod", &pod.name, Some(&pod.uid)));
    let node = node.map(|node| ("node", &node.name, node.uid.as_ref()));
    for (kind, name, uid) in pod.into_iter().chain(node) {
        extra(&format!("{kind}-name"), name);
        uid.into_iter().for_each(|uid| extra(&format!("{kind}-uid"), uid));
    }
    user.extra.insert(super::CREDENTIAL_ID.into(), vec![credential]);
    user
}

async fn exists(registry: &Registry, plural: &str, namespace: &str, reference: &Reference) -> Result<(), Error> {
    let gone = || Error::Gone(format!("{plural} {}", reference.name));
    let resource = registry.resource("", "v1", plural).ok_or_else(gone)?;
    let entry = registry.get(&resource, namespace, &reference.name, None).await.map_err(|_| gone())?;
    if is_there(&entry.json, &reference.uid, Timestamp::now()) { Ok(()) } else { Err(gone()) }
}

/// Whether an encoded object is the one of this UID, and does not go, or has not for long.
fn is_there(json: &[u8], uid: &str, now: Timestamp) -> bool {
    let Ok(Object { metadata }) = serde_json::from_slice(json) else { return false };
    let deleted = metadata.deletion_timestamp.as_deref().and_then(apimachinery::time::parse);
    let over = deleted.is_some_and(|time| now.as_second() > time.as_second() + DELETION_LEEWAY);
    metadata.uid == uid && !over
}

/// What tells that an object is the one that is meant, and still there. Each request with a token asks, so that nothing else is decoded.
#[derive(serde::Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    deletion_timestamp: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::keys::Issuers;
    use super::*;
    use crate::authn::TokenKeys;

    /// KEP-1205: a token is good as long as the object exists that it is bound to. Upstream leaves it a minute when that is deleted.
    #[test]
    fn objects_that_tokens_are_bound_to() {
        let check = |metadata: Value, expected: bool| {
            let json = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"metadata": {"uid": "other"}}})
                .to_string();
            let now = "2026-01-01T00:01:00Z".parse().unwrap();
            assert_eq!(is_there(json.as_bytes(), "u", now), expected, "{json}");
        };
        check(json!({"uid": "u", "labels": {"uid": "x"}}), true);
        check(json!({"uid": "v"}), false);
        check(json!({}), false);
        check(json!({"uid": "u", "annotations": {"a": "\n\""}, "deletionTimestamp": "2026-01-01T00:00:00Z"}), true);
        check(json!({"uid": "u", "deletionTimestamp": "2025-12-31T23:59:59Z"}), false);
        assert!(!is_there(b"{}", "", Timestamp::now()));
    }

    fn subject(seconds: i64) -> TokenSubject {
        TokenSubject {
            namespace: "n".into(),
            service_account: "a".into(),
            uid: "u1".into(),
            seconds,
            audiences: vec!["https://cluster".into()],
            bound_to: Some(("Pod".into(), "p".into(), "u2".into())),
            ..TokenSubject::default()
        }
    }

    fn check(keys: &TokenKeys, token: &str, expected: Result<(), Error>) {
        assert_eq!(keys.verify(token).map(drop), expected);
    }

    #[test]
    fn tokens() {
        let keys = TokenKeys::in_memory("https://cluster").unwrap();
        let now = Timestamp::now().as_second();
        let issue = |issuer: &str, seconds| keys.issue(&Claims::of(&subject(seconds), issuer, now)).unwrap();
        let token = issue("https://cluster", 600);
        check(&keys, &token, Ok(()));
        let claims = keys.verify(&token).unwrap();
        assert_eq!(
            (claims.audiences.as_slice(), claims.pod.as_ref().unwrap().uid.as_str()),
            (&["https://cluster".to_owned()][..], "u2")
        );
        check(&keys, &issue("https://cluster", -1), Err(Error::Expired));
        check(&keys, &issue("https://other", 600), Err(Error::Issuer));
        check(&TokenKeys::in_memory("https://cluster").unwrap(), &token, Err(Error::Signature));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        check(&keys, &format!("{signed}x.{signature}"), Err(Error::Signature));
        check(&keys, "a.b", Err(Error::Malformed));
        check(&keys, "", Err(Error::Malformed));
    }

    /// kube-apiserver(1), --service-account-issuer: "the first is used to generate tokens and all are used to determine which issuers are
    /// accepted"; --api-audiences: "defaults to a single element list containing the issuer URL".
    #[test]
    fn an_issuer_of_before_is_still_good() {
        let pem = base::tls::generate_key().unwrap();
        let keys = |issuers: Issuers| TokenKeys::from_pem(&pem, issuers).unwrap();
        let issue = |keys: &TokenKeys| registry::TokenSigner::sign(keys, &subject(600)).unwrap();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (old, new) =
            (keys("https://old".into()), keys(Issuers::new("https://new".into(), names(&["https://old"]), Vec::new())));
        check(&new, &issue(&old), Ok(()));
        check(&old, &issue(&new), Err(Error::Issuer));
        assert_eq!(new.audiences(), names(&["https://new", "https://old"]));
        let own = keys(Issuers::new("https://new".into(), Vec::new(), names(&["api", "vault"])));
        assert_eq!(own.audiences(), names(&["api", "vault"]));
    }

    /// Upstream (`TokenREST.Create`): of a pod whose Node object is gone "we still embed just the" name.
    #[test]
    fn a_node_that_is_gone_is_named() {
        let keys = TokenKeys::in_memory("https://cluster").unwrap();
        let check = |uid: Option<&str>, claim: Value, expected: [Option<&str>; 2]| {
            let subject = TokenSubject { node: Some(("n1".into(), uid.map(str::to_owned))), ..subject(600) };
            let claims = Claims::of(&subject, "https://cluster", Timestamp::now().as_second());
            assert_eq!(claims["kubernetes.io"]["node"], claim);
            let Claims { namespace, account, pod, node, .. } = &*keys.verify(&keys.issue(&claims).unwrap()).unwrap();
            let user = bound_user(namespace, account, pod.as_ref(), node.as_ref(), "JTI=".into());
            let extra = |key: &str| user.extra.get(&format!("authentication.kubernetes.io/{key}")).map(|all| all[0].as_str());
            assert_eq!(["node-name", "node-uid"].map(extra), expected);
        };
        check(Some("u3"), json!({"name": "n1", "uid": "u3"}), [Some("n1"), Some("u3")]);
        check(None, json!({"name": "n1"}), [Some("n1"), None]);
    }

    #[test]
    fn tokens_get_stale_before_they_end() {
        let keys = TokenKeys::in_memory("https://cluster").unwrap();
        let check = |warn_after: Option<i64>, ago: i64, expected: Option<i64>| {
            let now = Timestamp::now().as_second();
            let subject = TokenSubject { warn_after, ..subject(31_536_000) };
            let token = keys.issue(&Claims::of(&subject, "https://cluster", now - ago)).unwrap();
            assert_eq!(stale_for(&keys.verify(&token).unwrap(), now), expected);
        };
        check(None, 9999, None);
        check(Some(3607), 3607, None);
        check(Some(3607), 3617, Some(10));
    }

    #[test]
    fn keys_are_rotated() {
        let (old, new) = (base::tls::generate_key().unwrap(), base::tls::generate_key().unwrap());
        let keys = |pem: &str| TokenKeys::from_pem(pem, "https://cluster".into()).unwrap();
        let issue =
            |keys: &TokenKeys| keys.issue(&Claims::of(&subject(600), "https://cluster", Timestamp::now().as_second())).unwrap();
        let (before, both) = (keys(&old), keys(&format!("{new}{old}")));
        check(&both, &issue(&before), Ok(()));
        check(&keys(&new), &issue(&both), Ok(()));
        check(&before, &issue(&both), Err(Error::Signature));
        let ids = |keys: &TokenKeys| {
            keys.key_set()["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&both), [ids(&keys(&new)), ids(&before)].concat(), "the signing key first");
        let public = TokenKeys::public_pem(&old).unwrap();
        check(&keys(&format!("{new}{public}")), &issue(&before), Ok(()));
        assert!(TokenKeys::from_pem(&public, "https://cluster".into()).is_err(), "nothing to sign with");
        assert!(TokenKeys::from_pem("", "https://cluster".into()).is_err());
    }

    #[test]
    fn unsigned_tokens_are_refused() {
        use base64::Engine;
        let encode = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
        let keys = TokenKeys::in_memory("https://cluster").unwrap();
        let claims = Claims::of(&subject(600), "https://cluster", Timestamp::now().as_second());
        let token = format!("{}.{}.", encode(json!({"alg": "none"})), encode(claims));
        check(&keys, &token, Err(Error::Algorithm));
    }
}
