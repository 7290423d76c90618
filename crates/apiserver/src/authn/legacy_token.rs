//! Tokens that Secrets of the type `kubernetes.io/service-account-token` hold. They have no end: such a token is good as long as its Secret holds
//! it and its account is there (upstream: `pkg/serviceaccount/legacy.go`). The controller `serviceaccount-token` puts them there.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta;
use base::tasks::{OnFailure, Tasks};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pods::legacy_tokens::{INVALID_SINCE, LAST_USED, TYPE, day_of};
use registry::{Annotations, Entry, Patch, Registry, User};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::token::{Claims, Error, Reference};
use crate::bootstrap::context;
use crate::kept::Kept;
use crate::metrics::identity as metrics;

/// The issuer of such tokens, of every cluster's.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";

/// Most Secrets of which it is remembered that their use was written down.
const REMEMBERED: usize = 1000;
/// How long another write of a Secret's last use is not tried.
const REST: Duration = Duration::from_secs(60);
/// Most writes that wait for those before them.
const WAITING: usize = 256;
/// The longest that one write takes, before the next begins: the most that a webhook of its admission may take.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// Writes down on which days such tokens are used, in a task of its own: no request has to wait for that.
pub(super) struct Uses {
    /// Secrets whose use has been sent to be written, which is not done again for a while.
    sent: Kept<String, ()>,
    queue: mpsc::Sender<Use>,
}

/// A use of a Secret's token.
struct Use {
    secret: Arc<Entry>,
    /// In UTC, such as 2026-01-31.
    day: String,
}

impl Uses {
    /// Starts the task.
    pub(super) fn start(registry: &Arc<Registry>, tasks: &Tasks) -> Self {
        let (uses, queue) = Self::new(WAITING);
        tasks.spawn_until_cancelled("uses of tokens", OnFailure::Log, write_down(registry.clone(), queue));
        uses
    }

    fn new(waiting: usize) -> (Self, mpsc::Receiver<Use>) {
        let (queue, receiver) = mpsc::channel(waiting);
        (Self { sent: Kept::new(REMEMBERED), queue }, receiver)
    }

    /// Lets the Secret's label say that its token is used today. While too many others are written it is left to the token's next use.
    fn note(&self, secret: &Arc<Entry>, held: &Held) {
        let day = day_of(jiff::Timestamp::now()).to_string();
        if held.last_used.as_deref() == Some(&day) {
            return;
        }
        let place = format!("{}/{}", secret.namespace(), secret.name());
        if self.sent.get(&place).is_none() && self.queue.try_send(Use { secret: secret.clone(), day }).is_ok() {
            let bytes = place.len();
            self.sent.keep(place, (), bytes, REST);
        }
    }
}

async fn write_down(registry: Arc<Registry>, mut queue: mpsc::Receiver<Use>) -> Result<(), Infallible> {
    while let Some(used) = queue.recv().await {
        used.write(&registry).await;
    }
    Ok(())
}

impl Use {
    async fn write(self, registry: &Registry) {
        let Some(resource) = registry.resource("", "v1", "secrets") else { return };
        let (namespace, name) = (self.secret.namespace(), self.secret.name());
        // A patch loses to no other write of the Secret: who ends unused tokens has to see the use.
        let patch = json!({"metadata": {"uid": meta::uid(&self.secret.value()), "labels": {LAST_USED: self.day}}});
        let cx = context();
        let write = registry.patch(&cx, &resource, "", namespace, name, Patch::Merge(patch.to_string().into()));
        let error = match tokio::time::timeout(PATIENCE, write).await {
            // The token has gone with its Secret.
            Ok(Err(status)) if status.code == 404 => return,
            Ok(Err(status)) => status.to_string(),
            Err(_) => format!("not done within {} s", PATIENCE.as_secs()),
            Ok(Ok(_)) => return,
        };
        tracing::warn!(%error, namespace, name, "the day on which the token of a Secret was used cannot be written");
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
    let secret = registry.get(&*served("secrets")?, namespace, name, None).await.map_err(gone(format!("secrets {name}")))?;
    let found = registry.get(&*served("serviceaccounts")?, namespace, &account.name, None).await;
    let found = found.map_err(gone(format!("serviceaccounts {}", account.name)))?.derived(Account::of);
    let held = secret.derived(Held::of);
    held.check(name, token)?;
    if found.is_going || found.uid != account.uid {
        return Err(Error::Gone(format!("serviceaccounts {}", account.name)));
    }
    let user = super::account_user(namespace, account);
    annotations.add("authentication.k8s.io/legacy-token", user.name.as_str());
    let (key, used) = match (held.is_invalid, found.secrets.contains(name)) {
        (true, _) => ("invalidated", metrics::LegacyToken::Invalid),
        (false, true) => ("autogenerated-secret", metrics::LegacyToken::Generated),
        (false, false) => ("manual-secret", metrics::LegacyToken::Manual),
    };
    let said = if held.is_invalid { format!("{name}/{namespace}") } else { name.to_owned() };
    annotations.add(format!("authentication.k8s.io/legacy-token-{key}"), said);
    metrics::legacy_token_used(used);
    uses.note(&secret, &held);
    if held.is_invalid {
        return Err(Error::Invalidated { namespace: namespace.clone(), secret: name.to_owned() });
    }
    Ok(user)
}

/// What a Secret says of a token, for as long as the Secret is as it is: each request with the token asks.
struct Held {
    /// It is one of those that hold tokens, and does not go.
    is_holder: bool,
    token: Option<Vec<u8>>,
    is_invalid: bool,
    last_used: Option<String>,
}

impl Held {
    fn of(secret: Value) -> Self {
        Self {
            is_holder: secret["type"] == TYPE && meta::deletion_timestamp(&secret).is_none(),
            token: secret["data"]["token"].as_str().and_then(|text| STANDARD.decode(text).ok()),
            is_invalid: meta::label(&secret, INVALID_SINCE).is_some_and(|since| !since.is_empty()),
            last_used: meta::label(&secret, LAST_USED).map(str::to_owned),
        }
    }

    /// Whether the Secret, which has this name, holds this token.
    fn check(&self, name: &str, token: &str) -> Result<(), Error> {
        if !self.is_holder {
            return Err(Error::Gone(format!("secrets {name}")));
        }
        if self.token.as_deref() == Some(token.as_bytes()) { Ok(()) } else { Err(Error::Replaced) }
    }
}

/// What an account says of its tokens, for as long as it is as it is.
struct Account {
    uid: String,
    is_going: bool,
    /// The Secrets that it names.
    secrets: HashSet<String>,
}

impl Account {
    fn of(account: Value) -> Self {
        let secrets = account["secrets"].as_array().into_iter().flatten();
        Self {
            uid: meta::uid(&account).to_owned(),
            is_going: meta::deletion_timestamp(&account).is_some(),
            secrets: secrets.filter_map(|secret| secret["name"].as_str().map(str::to_owned)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::open;

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
            assert_eq!(Held::of(secret).check("s", "t").is_ok(), expected, "{kind} {text} {deleted:?}");
        };
        check(TYPE, "t", None, true);
        check(TYPE, "other", None, false);
        check("Opaque", "t", None, false);
        check(TYPE, "t", Some("2026-01-01T00:00:00Z"), false);
    }

    /// Kubernetes documentation, "Well-Known Labels", `kubernetes.io/legacy-token-last-used`: "The control plane only adds this label to Secrets
    /// that have the type `kubernetes.io/service-account-token`. The value of this label records the date".
    #[tokio::test]
    async fn uses_are_written_once_a_day_and_wait_in_a_bounded_queue() {
        let opened = open().await;
        let served = |plural: &str| opened.registry.resource("", "v1", plural).unwrap();
        let (secrets, cx) = (served("secrets"), context());
        let namespace = json!({"metadata": {"name": "n"}});
        opened.registry.create(&cx, &served("namespaces"), "", None, namespace).await.unwrap();
        for name in ["a", "b"] {
            let annotations = json!({"kubernetes.io/service-account.name": "robot"});
            let secret = json!({"metadata": {"name": name, "namespace": "n", "annotations": annotations}, "type": TYPE});
            opened.registry.create(&cx, &secrets, "n", None, secret).await.unwrap();
        }
        let (uses, mut queue) = Uses::new(1);
        let note = async |name: &str| {
            let secret = opened.registry.get(&secrets, "n", name, None).await.unwrap();
            uses.note(&secret, &secret.derived(Held::of));
        };
        let mut next = || queue.try_recv().ok();
        let name = |used: Option<&Use>| used.map(|used| used.secret.name().to_owned());
        note("a").await;
        note("b").await;
        let used = next();
        assert_eq!((name(used.as_ref()).as_deref(), next().is_none()), (Some("a"), true), "there is room for one");
        note("a").await;
        note("b").await;
        assert_eq!(name(next().as_ref()).as_deref(), Some("b"), "what had no room is told at the next use");
        used.unwrap().write(&opened.registry).await;
        let written = opened.registry.get(&secrets, "n", "a", None).await.unwrap();
        assert_eq!(written.derived(Held::of).last_used, Some(day_of(jiff::Timestamp::now()).to_string()));
        let (later, mut queue) = Uses::new(1);
        later.note(&written, &written.derived(Held::of));
        assert!(queue.try_recv().is_err(), "the day is known");
    }

    /// Who declares a token invalid, or writes anything else of its Secret, does not make its last use unknown. A Secret of the same name that
    /// came later was not used.
    #[tokio::test]
    async fn other_writes_of_a_secret_lose_no_use() {
        let opened = open().await;
        let served = |plural: &str| opened.registry.resource("", "v1", plural).unwrap();
        let (secrets, cx) = (served("secrets"), context());
        opened.registry.create(&cx, &served("namespaces"), "", None, json!({"metadata": {"name": "n"}})).await.unwrap();
        let create = async || {
            let annotations = json!({"kubernetes.io/service-account.name": "robot"});
            let secret = json!({"metadata": {"name": "s", "namespace": "n", "annotations": annotations}, "type": TYPE});
            opened.registry.create(&cx, &secrets, "n", None, secret).await.unwrap();
        };
        let read = async || opened.registry.get(&secrets, "n", "s", None).await.unwrap();
        let used = |secret: &Arc<Entry>| Use { secret: secret.clone(), day: "2026-01-31".to_owned() };
        create().await;
        let first = read().await;
        let mut changed = first.value();
        meta::set_label(&mut changed, INVALID_SINCE, "2026-01-31");
        opened.registry.update(&cx, &secrets, "", "n", "s", changed).await.unwrap();
        used(&first).write(&opened.registry).await;
        let held = read().await.derived(Held::of);
        assert_eq!((held.last_used.as_deref(), held.is_invalid), (Some("2026-01-31"), true));
        opened.registry.delete(&cx, &secrets, "n", "s", registry::DeleteOptions::default()).await.unwrap();
        create().await;
        used(&first).write(&opened.registry).await;
        assert_eq!(read().await.derived(Held::of).last_used, None);
    }
}
