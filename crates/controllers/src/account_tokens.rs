//! Secrets of the type `kubernetes.io/service-account-token` hold a token of the ServiceAccount that an annotation of theirs names, which has
//! no end but that of the Secret and the account (docs page "Managing Service Accounts", "Token controller").

use std::sync::Arc;

use apimachinery::Status;
use client::kube::api::PostParams;
use client::{Api, Informer, Informers, Key, kube};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use pods::legacy_tokens::TYPE;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::{meta, write};

const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Keys of the data.
const TOKEN: &str = "token";
const CERTIFICATES: &str = "ca.crt";
const NAMESPACE: &str = "namespace";

/// Whose a token is and where it is kept.
#[derive(Clone, Copy, Debug)]
pub struct KeptToken<'a> {
    /// Namespace of the account and the Secret.
    pub namespace: &'a str,
    /// Name of the Secret.
    pub secret: &'a str,
    /// Name of the account.
    pub account: &'a str,
    /// UID of the account.
    pub uid: &'a str,
}

/// Signs such a token.
pub type SignKept = Arc<dyn Fn(KeptToken<'_>) -> Result<String, Status> + Send + Sync>;

pub(crate) struct AccountTokens {
    /// Only those of the type: the other secrets of the cluster do not belong in this process's memory.
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    certificates: String,
    sign: SignKept,
}

impl AccountTokens {
    pub(crate) fn new(informers: &Informers, certificates: String, sign: SignKept) -> Self {
        Self { secrets: holders(informers), accounts: informers.of(), certificates, sign }
    }

    /// The account of the Secret. One that the cache does not have may be younger than the cache is: a Secret is not deleted for that.
    async fn account(&self, cx: &Cx, secret: &Secret, namespace: &str) -> kube::Result<Option<Arc<ServiceAccount>>> {
        let name = account_name(secret);
        let known = self.accounts.get(Some(namespace), name).filter(|account| is_of(secret, account));
        if known.is_some() {
            return Ok(known);
        }
        // Whoever has the Secret chooses the name: what can be none leads elsewhere.
        if !apimachinery::names::dns1123_subdomain(name).is_empty() {
            return Ok(None);
        }
        let api: Api<ServiceAccount> = Api::namespaced(cx.client.clone(), namespace);
        Ok(api.get_opt(name).await?.filter(|account| is_of(secret, account)).map(Arc::new))
    }
}

/// The Secrets of the type.
pub(crate) fn holders(informers: &Informers) -> Informer<Secret> {
    informers.of_selected(&format!("type={TYPE}"))
}

/// Whether the Secret is of the type.
pub(crate) fn is_holder(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(TYPE)
}

/// The name of the account that the Secret is for; may be empty.
pub(crate) fn account_name(secret: &Secret) -> &str {
    annotation(secret, ACCOUNT_NAME)
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> &'a str {
    secret.metadata.annotations.as_ref().and_then(|all| all.get(key)).map_or("", String::as_str)
}

/// Whether the Secret is for this account, and not for one before it that had the same name.
pub(crate) fn is_of(secret: &Secret, account: &ServiceAccount) -> bool {
    let uid = annotation(secret, ACCOUNT_UID);
    account_name(secret) == meta::name(account) && (uid.is_empty() || uid == meta::uid(account))
}

/// What the Secret should hold, with a token by `sign` where it has none; None when it holds that.
fn filled(
    secret: &Secret,
    account: &ServiceAccount,
    certificates: &str,
    sign: impl FnOnce() -> Result<String, Status>,
) -> Result<Option<Secret>, Status> {
    let has = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map_or(&[][..], |bytes| bytes.0.as_slice());
    let mut missing = Vec::new();
    if has(CERTIFICATES) != certificates.as_bytes() {
        missing.push((CERTIFICATES, certificates.to_owned()));
    }
    if has(NAMESPACE).is_empty() {
        missing.push((NAMESPACE, meta::namespace(secret).to_owned()));
    }
    if has(TOKEN).is_empty() {
        missing.push((TOKEN, sign()?));
    }
    if missing.is_empty() {
        return Ok(None);
    }
    let mut secret = secret.clone();
    let data = secret.data.get_or_insert_default();
    data.extend(missing.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))));
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.insert(ACCOUNT_UID.to_owned(), meta::uid(account).to_owned());
    Ok(Some(secret))
}

impl Controller for AccountTokens {
    const NAME: &'static str = "serviceaccount-token";
    const ACCOUNT: &'static str = "tokens-controller";

    fn sources(&self) -> Vec<Source> {
        let secrets = self.secrets.clone();
        let of_account = Source::stepped(&self.accounts, move |step, queue| {
            let account = step.key();
            for secret in secrets.in_namespace(account.ns()) {
                if account_name(&secret) == account.name {
                    queue.add(Key { namespace: account.namespace.clone(), name: meta::name(secret.as_ref()).to_owned() });
                }
            }
        });
        vec![Source::own(&self.secrets), of_account]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let secret = self.secrets.by_key(key).filter(|secret| is_holder(secret) && !meta::ends(secret.as_ref()));
        let Some(secret) = secret else { return Ok(Action::Done) };
        let api: Api<Secret> = Api::namespaced(cx.client.clone(), key.ns());
        let Some(account) = self.account(cx, &secret, key.ns()).await? else {
            write::delete(&api, secret.as_ref()).await?;
            return Ok(Action::Done);
        };
        // What an immutable Secret lacks nobody can give it.
        if secret.immutable == Some(true) {
            return Ok(Action::Done);
        }
        let token = KeptToken {
            namespace: key.ns(),
            secret: &key.name,
            account: meta::name(account.as_ref()),
            uid: meta::uid(account.as_ref()),
        };
        let filled = filled(&secret, &account, &self.certificates, || (self.sign)(token));
        if let Some(filled) = filled.map_err(|status| Error::Other(status.message))? {
            api.replace(&key.name, &PostParams::default(), &filled).await?;
        }
        Ok(Action::Done)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{World, object};
    use serde_json::{Value, json};

    fn put_account(world: &World, uid: &str) {
        let metadata = json!({"namespace": "n", "name": "robot", "uid": uid});
        world.fake.put::<ServiceAccount>(&object(json!({"metadata": metadata})));
    }

    fn put(world: &World, name: &str, kind: &str, annotations: Value) {
        let metadata = json!({"namespace": "n", "name": name, "uid": name, "annotations": annotations});
        world.fake.put::<Secret>(&object(json!({"metadata": metadata, "type": kind})));
    }

    fn told(secret: &Secret, key: &str) -> String {
        let data = secret.data.as_ref().and_then(|data| data.get(key));
        data.map(|bytes| String::from_utf8(bytes.0.clone()).unwrap()).unwrap_or_default()
    }

    /// "watches for ServiceAccount token Secret addition, and ensures the referenced ServiceAccount exists, and adds a token to the Secret if needed"; "watches for
    /// ServiceAccount deletion and deletes all corresponding ServiceAccount token Secrets".
    #[tokio::test]
    async fn secrets_get_the_tokens_of_their_accounts_and_go_with_them() {
        let world = World::new();
        put_account(&world, "u1");
        put(&world, "plain", TYPE, json!({ACCOUNT_NAME: "robot"}));
        put(&world, "known", TYPE, json!({ACCOUNT_NAME: "robot", ACCOUNT_UID: "u1"}));
        put(&world, "of-another", TYPE, json!({ACCOUNT_NAME: "robot", ACCOUNT_UID: "u0"}));
        put(&world, "of-nobody", TYPE, json!({ACCOUNT_NAME: "nobody"}));
        put(&world, "of-no-name", TYPE, json!({ACCOUNT_NAME: "../../n/serviceaccounts/robot?watch=true"}));
        put(&world, "opaque", "Opaque", json!({ACCOUNT_NAME: "robot"}));
        world.start(&["serviceaccount-token"]);
        let is_filled = |secret: &Secret| !told(secret, TOKEN).is_empty();
        world.fake.until::<Secret>(|all| all.len() == 3 && all.iter().filter(|secret| is_filled(secret)).count() == 2).await;
        for secret in world.fake.all::<Secret>() {
            let name = meta::name(&secret);
            assert_eq!(is_filled(&secret), name != "opaque", "{name}");
            if name != "opaque" {
                let of = [told(&secret, TOKEN), told(&secret, CERTIFICATES), told(&secret, NAMESPACE)];
                assert_eq!(of, [format!("n/{name} robot u1"), "PEM".to_owned(), "n".to_owned()]);
                assert_eq!(annotation(&secret, ACCOUNT_UID), "u1");
            }
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(world.fake.client(), "n");
        accounts.delete("robot", &Default::default()).await.unwrap();
        world.fake.until::<Secret>(|all| all.len() == 1).await;
    }

    /// A token that is taken away is made again; what is there stays.
    #[test]
    fn what_is_missing_is_filled_in() {
        let account: ServiceAccount = object(json!({"metadata": {"name": "robot", "uid": "u1"}}));
        let check = |data: &[(&str, &str)], expected: Option<&[(&str, &str)]>| {
            let map = |of: &[(&str, &str)]| {
                of.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec()))).collect()
            };
            let mut secret: Secret = object(json!({"metadata": {"namespace": "n", "name": "s"}}));
            secret.data = Some(map(data));
            let filled = filled(&secret, &account, "PEM", || Ok("new".to_owned())).unwrap();
            assert_eq!(filled.and_then(|secret| secret.data), expected.map(map), "{data:?}");
        };
        let all = [("token", "old"), ("ca.crt", "PEM"), ("namespace", "n"), ("extra", "x")];
        check(&all, None);
        check(&all[1..], Some(&[("token", "new"), ("ca.crt", "PEM"), ("namespace", "n"), ("extra", "x")]));
        check(
            &[("token", "old"), ("ca.crt", "other"), ("namespace", "m")],
            Some(&[("token", "old"), ("ca.crt", "PEM"), ("namespace", "m")]),
        );
        check(&[], Some(&all.map(|(key, text)| (key, if key == "token" { "new" } else { text }))[..3]));
    }
}
