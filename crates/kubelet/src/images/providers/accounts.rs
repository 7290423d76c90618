//! Who a pod is, for plugins that are shown it: the service account, what they may know of its annotations, and a token (KEP-4412).

use std::collections::{BTreeMap, HashMap};

use client::Api;
use k8s_openapi::api::core::v1::ServiceAccount;
use parking_lot::Mutex;

use super::Failure;
use super::cache::Owner;
use super::configuration::Tokens;
use crate::images::sources::PullServiceAccount;
use crate::spec::Model;
use crate::volumes::tokens::{self, Token};

/// Most tokens that are kept; beyond them all are asked for again.
const MOST: usize = 1000;

/// What a plugin is shown of a pod's service account.
pub(super) struct Shown {
    /// Which it is.
    pub(super) account: PullServiceAccount,
    /// For whom answers are kept.
    pub(super) owner: Owner,
    /// A token, bound to the pod.
    pub(super) token: String,
}

/// Reads service accounts, and asks for tokens.
pub(super) struct Accounts {
    client: kube::Client,
    /// By pod, service account and audience. They are renewed as those of volumes are.
    tokens: Mutex<HashMap<[String; 3], Token>>,
}

impl Accounts {
    /// By the node's own rights.
    pub(super) fn new(client: kube::Client) -> Self {
        Self { client, tokens: Mutex::default() }
    }

    /// What is shown of the pod's account. None when an annotation that the plugin needs is not there: those who set it ask for its credentials.
    pub(super) async fn show(&self, model: &Model, name: &str, wanted: &Tokens) -> Result<Option<Shown>, Failure> {
        let api = Api::<ServiceAccount>::namespaced(self.client.clone(), model.namespace());
        let failed = |error: kube::Error| Failure::Account(format!("cannot read service account {name:?}: {error}"));
        let metadata = api.get(name).await.map_err(failed)?.metadata;
        let Some(annotations) = chosen(wanted, &metadata.annotations.unwrap_or_default()) else {
            tracing::debug!(pod = model.title(), account = name, "the service account lacks an annotation");
            return Ok(None);
        };
        let uid = metadata.uid.unwrap_or_default();
        let token = self.token(model, &uid, &wanted.audience).await?;
        let (namespace, name) = (model.namespace().to_owned(), name.to_owned());
        let account = PullServiceAccount { uid: uid.clone(), namespace: namespace.clone(), name: name.clone() };
        let of_token = wanted.per_token.then(|| pods::csi::digest(&token));
        Ok(Some(Shown { account, owner: Owner { namespace, name, uid, annotations, token: of_token }, token }))
    }

    async fn token(&self, model: &Model, account_uid: &str, audience: &str) -> Result<String, Failure> {
        let key = [model.uid(), account_uid, audience].map(str::to_owned);
        if let Some(token) = self.tokens.lock().get(&key).filter(|token| token.is_fresh()) {
            return Ok(token.text().to_owned());
        }
        let token = tokens::for_plugin(&self.client, model, audience, account_uid).await.map_err(Failure::Account)?;
        let text = token.text().to_owned();
        let mut tokens = self.tokens.lock();
        tokens.retain(|_, token| token.is_fresh());
        if tokens.len() >= MOST {
            tokens.clear();
        }
        tokens.insert(key, token);
        Ok(text)
    }
}

/// What a plugin is shown of annotations; none when one is not there that it needs.
fn chosen(wanted: &Tokens, annotations: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    let value = |key: &String| annotations.get(key).map(|value| (key.clone(), value.clone()));
    let required: Option<BTreeMap<_, _>> = wanted.required_annotations.iter().map(value).collect();
    let optional = wanted.optional_annotations.iter().filter_map(value);
    required.map(|required| required.into_iter().chain(optional).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KEP-4412: "If any of the keys defined in this list are not present in the service account, kubelet will not invoke the plugin"; optional
    /// ones are passed where they are there, and nothing else is.
    #[test]
    fn annotations_that_a_plugin_is_shown() {
        let map = |text: &str| -> BTreeMap<String, String> {
            text.split(' ').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
        };
        let wanted = Tokens {
            audience: "a".into(),
            per_token: false,
            required: true,
            required_annotations: vec!["r".into()],
            optional_annotations: vec!["o".into(), "p".into()],
        };
        let check = |has: &str, expected: Option<&str>| assert_eq!(chosen(&wanted, &map(has)), expected.map(map), "{has}");
        check("", None);
        check("o=1", None);
        check("r=1", Some("r=1"));
        check("r= o=2 x=3", Some("r= o=2"));
    }
}
