//! The credentials that a pod has for an image: those of its secrets, and those that the node's providers give. Each is looked for when it is
//! needed, and once.

use runtime::api::Credentials;
use tokio::sync::OnceCell;

use super::keyring::{Credential, Keyring};
use super::providers::Provided;
use super::pull_secrets;
use super::sources::{PullSecret, PullServiceAccount, Source};
use crate::context::Context;
use crate::env::Objects;
use crate::refs::PodReferences;
use crate::spec::Model;

/// The credentials of one pod for one image.
pub(super) struct PodCredentials<'a> {
    cx: &'a Context,
    model: &'a Model,
    refs: &'a PodReferences,
    repository: String,
    secrets: OnceCell<Vec<Credential>>,
    provided: OnceCell<Provided>,
}

impl<'a> PodCredentials<'a> {
    /// For an image of this name, without tag and digest and with its registry.
    pub(super) fn new(cx: &'a Context, model: &'a Model, refs: &'a PodReferences, repository: String) -> Self {
        Self { cx, model, refs, repository, secrets: OnceCell::new(), provided: OnceCell::new() }
    }

    /// Those of the pod's secrets, as far as these can be read.
    pub(super) async fn secrets(&self) -> &[Credential] {
        let read = || async {
            if let Err(error) = self.refs.known().await {
                tracing::debug!(pod = self.model.title(), %error, "looking for image credentials without all secrets");
            }
            let mut keyring = Keyring::default();
            for secret in self.names().filter_map(|name| self.refs.secret(name)) {
                pull_secrets::add(&mut keyring, &secret);
            }
            keyring.lookup(&self.repository)
        };
        self.secrets.get_or_init(read).await
    }

    /// Those that providers give.
    pub(super) async fn provided(&self) -> &Provided {
        self.provided.get_or_init(|| self.cx.providers.credentials(Some(self.model), &self.repository)).await
    }

    /// Names of the pod's secrets that cannot be read.
    pub(super) async fn missing(&self) -> Vec<&str> {
        self.secrets().await;
        self.names().filter(|name| self.refs.secret(name).is_none()).collect()
    }

    /// What is remembered of the secrets.
    pub(super) async fn shown_secrets(&self) -> Vec<PullSecret> {
        let secret = |found: &Credential| match &found.source {
            Source::Secret(secret) => Some(secret.clone()),
            Source::Node | Source::ServiceAccount(_) => None,
        };
        self.secrets().await.iter().filter_map(secret).collect()
    }

    /// The service account, if providers give it credentials: it has one at most.
    pub(super) async fn shown_account(&self) -> Option<PullServiceAccount> {
        self.provided().await.credentials.iter().find_map(|found| match &found.source {
            Source::ServiceAccount(account) => Some(account.clone()),
            Source::Node | Source::Secret(_) => None,
        })
    }

    /// What the image is pulled with, at the place of `at` in the order in which it is tried; none after the last one. Without any the image
    /// is pulled without credentials. Providers are not asked before the secrets have been tried.
    pub(super) async fn attempt(&self, at: usize) -> Option<(Source, Vec<Credentials>)> {
        let secrets = self.secrets().await;
        let found = match secrets.get(at) {
            Some(found) => Some(found),
            None => self.provided().await.credentials.get(at - secrets.len()),
        };
        match found {
            Some(found) => Some((found.source.clone(), vec![found.word.clone()])),
            None => (at == 0).then(|| (Source::Node, Vec::new())),
        }
    }

    /// What providers that have failed say, behind a message; empty when none has been asked.
    pub(super) fn complaint(&self) -> String {
        let failures = self.provided.get().map(|provided| provided.failures.as_slice()).unwrap_or_default();
        failures.iter().map(|failure| format!("; {failure}")).collect()
    }

    fn names(&self) -> impl Iterator<Item = &'a str> {
        self.model.spec().image_pull_secrets.iter().flatten().map(|named| named.name.as_str())
    }
}
