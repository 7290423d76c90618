//! Tokens that Secrets of the type `kubernetes.io/service-account-token` hold. They have no end: such a token is good as long as its Secret holds
//! it and its account is there (upstream: `pkg/serviceaccount/legacy.go`). The controller `serviceaccount-token` puts them there.

use std::time::Duration;

use apimachinery::meta;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use registry::{Annotations, Registry, User};
use serde_json::{Map, Value};

use super::token::{Claims, Error, Reference};
use crate::bootstrap::context;
use crate::kept::Kept;
use crate::metrics::identity as metrics;

/// The issuer of such tokens, of every cluster's.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";

const TYPE: &str = "kubernetes.io/service-account-token";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// Most Secrets of which it is remembered that their use was written down.
const REMEMBERED: usize = 1000;
/// How long another write of a Secret's last use is not tried.
const REST: Duration = Duration::from_secs(60);
/// The longest that a request waits for that write.
const PATIENCE: Duration = Duration::from_secs(2);

fn claim(name: &str) -> String {
    format!("kubernetes.io/serviceaccount/{name}")
}

/// The claims of a token that the Secret `secret` of a namespace holds, for the account of this name and UID.
pub(super) fn claims(namespace: &str, secret: &str, (account, uid): (&str, &str)) -> Value {
    let mut claims = Map::new();
    claims.insert("iss".into(), ISSUER.into());
    claims.insert("sub".into(), super::account_name(namespace, account).into());
    for (name, value) in
        [("namespace", namespace), ("secret.name", secret), ("service-account.name", account), ("service-account.uid", uid)]
    {
        claims.insert(claim(name), value.into());
    }
    Value::Object(claims)
}

/// Reads them. They name no audience: they are for the API server, `own`.
pub(super) fn read(payload: &Value, own: &[String]) -> Result<Claims, Error> {
    let text = |name: &str| {
        let text = payload[claim(name)].as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or(Error::Malformed)
    };
    let account = Reference { name: text("service-account.name")?, uid: text("service-account.uid")? };
    let claims = Claims::kept(text("namespace")?, account, text("secret.name")?, own.to_vec());
    if payload["sub"] != super::account_name(&claims.namespace, &claims.account.name) {
        Err(Error::Malformed)
    } else {
        Ok(claims)
    }
}

/// Writes down on which days such tokens are used.
pub(super) struct Uses(Kept<String, ()>);

impl Default for Uses {
    fn default() -> Self {
        Self(Kept::new(REMEMBERED))
    }
}

impl Uses {
    /// Tells in the Secret's label that its token is used today, in UTC. A failure refuses nobody.
    async fn note(&self, registry: &Registry, mut secret: Value) {
        let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        if meta::label(&secret, LAST_USED) == Some(&today) {
            return;
        }
        let (namespace, name) = (meta::namespace(&secret).to_owned(), meta::name(&secret).to_owned());
        let place = format!("{namespace}/{name}");
        if self.0.get(&place).is_some() {
            return;
        }
        self.0.keep(place, (), REST);
        let Some(resource) = registry.resource("", "v1", "secrets") else { return };
        meta::set_label(&mut secret, LAST_USED, &today);
        let cx = context();
        let write = registry.update(&cx, &resource, "", &namespace, &name, secret);
        match tokio::time::timeout(PATIENCE, write).await {
            // Somebody else has written it.
            Ok(Err(error)) if error.code != 409 => {
                tracing::warn!(%error, namespace, name, "the day on which the token of a Secret was used cannot be written");
            }
            _ => {}
        }
    }
}

/// The user of a token whose claims say that the Secret `name` holds it.
pub(super) async fn live(
    registry: &Registry,
    (claims, name): (&Claims, &str),
    token: &str,
    uses: &Uses,
    annotations: &Annotations,
) -> Result<User, Error> {
    let gone = |what: String| move |_| Error::Gone(what);
    let served = |plural: &str| registry.resource("", "v1", plural).ok_or(Error::Malformed);
    let Claims { namespace, account, .. } = claims;
    let secret =
        registry.get(&*served("secrets")?, namespace, name, None).await.map_err(gone(format!("secrets {name}")))?.value();
    let found = registry.get(&*served("serviceaccounts")?, namespace, &account.name, None).await;
    let found = found.map_err(gone(format!("serviceaccounts {}", account.name)))?.value();
    held(&secret, token)?;
    if meta::deletion_timestamp(&found).is_some() || meta::uid(&found) != account.uid {
        return Err(Error::Gone(format!("serviceaccounts {}", account.name)));
    }
    let user = super::account_user(namespace, account);
    annotations.add("authentication.k8s.io/legacy-token", user.name.as_str());
    let invalid = meta::label(&secret, INVALID_SINCE).is_some_and(|since| !since.is_empty());
    let listed = found["secrets"].as_array().is_some_and(|all| all.iter().any(|secret| secret["name"] == name));
    let (key, used) = match (invalid, listed) {
        (true, _) => ("invalidated", metrics::LegacyToken::Invalid),
        (false, true) => ("autogenerated-secret", metrics::LegacyToken::Generated),
        (false, false) => ("manual-secret", metrics::LegacyToken::Manual),
    };
    let said = if invalid { format!("{name}/{namespace}") } else { name.to_owned() };
    annotations.add(format!("authentication.k8s.io/legacy-token-{key}"), said);
    metrics::legacy_token_used(used);
    uses.note(registry, secret).await;
    if invalid { Err(Error::Invalidated { namespace: namespace.clone(), secret: name.to_owned() }) } else { Ok(user) }
}

/// Whether the Secret is one that holds this token.
fn held(secret: &Value, token: &str) -> Result<(), Error> {
    let known = secret["data"]["token"].as_str().and_then(|text| STANDARD.decode(text).ok());
    if secret["type"] != TYPE || meta::deletion_timestamp(secret).is_some() {
        return Err(Error::Gone(format!("secrets {}", meta::name(secret))));
    }
    if known.as_deref() == Some(token.as_bytes()) { Ok(()) } else { Err(Error::Replaced) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_are_read_as_they_are_written() {
        let own = ["api".to_owned()];
        let written = claims("n", "s", ("robot", "u1"));
        let read = read(&written, &own).unwrap();
        assert_eq!((read.namespace.as_str(), read.account.name.as_str(), read.account.uid.as_str()), ("n", "robot", "u1"));
        assert_eq!((read.audiences.as_slice(), read.holder()), (&own[..], Some("s")));
        for (key, value) in [("sub", "system:serviceaccount:n:other"), ("kubernetes.io/serviceaccount/secret.name", "")] {
            let mut changed = written.clone();
            changed[key] = value.into();
            assert!(super::read(&changed, &own).is_err(), "{key}");
        }
    }

    #[test]
    fn only_the_secret_of_the_type_holds_a_token() {
        let check = |kind: &str, text: &str, deleted: Option<&str>, expected: bool| {
            let secret =
                json!({"type": kind, "metadata": {"deletionTimestamp": deleted}, "data": {"token": STANDARD.encode(text)}});
            assert_eq!(held(&secret, "t").is_ok(), expected, "{kind} {text} {deleted:?}");
        };
        check(TYPE, "t", None, true);
        check(TYPE, "other", None, false);
        check("Opaque", "t", None, false);
        check(TYPE, "t", Some("2026-01-01T00:00:00Z"), false);
    }
}
