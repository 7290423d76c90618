//! Keeps certificates: has them issued when they are wanted, and again when two thirds of their lifetime have passed.

use codec::Decode;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base::tasks::{OnFailure, Tasks};
use base::tls::Identity;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::Api;
use client::events::{Recorder, Type};
use client::kube;
use client::kube::api::{Patch, PatchParams, PostParams};
use client::{Client, Key};
use instant_acme::{Account, AccountCredentials, NewAccount};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::challenges::Challenges;
use super::issue::{Error, issue};
use super::transport::Transport;
use super::{All, Step, Wanted, step};
use crate::issuer::{ISSUER, Issuer};
use crate::metrics;

/// Orders under way at once.
const ORDERS: usize = 4;
/// How long a failed order waits for the next one, doubling. Issuers count failures of an hour.
const RETRY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// The longest sleep: a machine that was suspended has to look at its clock.
const LOOK: Duration = Duration::from_secs(3600);
/// Where accounts are kept.
const SYSTEM: &str = "kube-system";
/// Key of an account's Secret.
const ACCOUNT: &str = "account.json";

/// Keeps certificates.
pub(crate) struct Keeper {
    client: Client,
    transport: Transport,
    challenges: Arc<Challenges>,
    recorder: Recorder,
    tasks: Tasks,
    accounts: Mutex<HashMap<Issuer, Arc<Account>>>,
    orders: Semaphore,
}

impl Keeper {
    /// Trusts issuers by the machine's authorities and those of `roots` (PEM).
    pub(crate) fn new(
        client: Client,
        roots: Option<&str>,
        challenges: Arc<Challenges>,
        recorder: Recorder,
        tasks: Tasks,
    ) -> Result<Self, rustls::Error> {
        let transport = Transport::new(roots, tasks.clone())?;
        Ok(Self { client, transport, challenges, recorder, tasks, accounts: Mutex::default(), orders: Semaphore::new(ORDERS) })
    }

    /// Keeps what is wanted.
    pub(crate) async fn keep(self, mut wanted: watch::Receiver<Arc<All>>) -> Result<(), Infallible> {
        let keeper = Arc::new(self);
        let mut running: BTreeMap<Key, (Wanted, CancellationToken)> = BTreeMap::new();
        loop {
            let now = wanted.borrow_and_update().clone();
            running.retain(|key, (known, token)| {
                let same = now.get(key) == Some(known);
                if !same {
                    token.cancel();
                }
                same
            });
            for (key, one) in now.iter() {
                if !running.contains_key(key) {
                    running.insert(key.clone(), (one.clone(), keeper.start(key, one)));
                }
            }
            if wanted.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    fn start(self: &Arc<Self>, key: &Key, wanted: &Wanted) -> CancellationToken {
        let token = self.tasks.token().child_token();
        let (keeper, ended, key, wanted) = (self.clone(), token.clone(), key.clone(), wanted.clone());
        self.tasks.spawn(format!("certificate of Secret {key}"), OnFailure::Log, async move {
            keeper.one(&key, &wanted, &ended).await;
            Ok::<_, Infallible>(())
        });
        token
    }

    /// Keeps one until it has been issued: then the Secret is another one, and this begins anew.
    ///
    /// The Secret's change ends this, also before the answer to the write has come. What is `ended` therefore are the
    /// waits alone: a certificate that was issued is stored, and told of.
    async fn one(&self, key: &Key, wanted: &Wanted, ended: &CancellationToken) {
        if ended.run_until_cancelled(self.due(key, wanted)).await != Some(true) {
            return;
        }
        let names = wanted.names.iter().cloned().collect::<Vec<_>>().join(", ");
        let mut pause = RETRY.0;
        loop {
            let Some(issued) = ended.run_until_cancelled(self.issue(wanted)).await else { return };
            let stored = match issued {
                Ok(identity) => self.store(key, wanted, &identity).await,
                Err(error) => Err(error),
            };
            metrics::ordered(stored.is_ok());
            match stored {
                Ok(until) => {
                    let until = jiff::Timestamp::try_from(until).map(|until| until.to_string()).unwrap_or_default();
                    let text = format!("Secret {key} has a certificate for {names} until {until}");
                    return self.recorder.event(&wanted.about, Type::Normal, "CertificateIssued", text);
                }
                Err(error) => {
                    tracing::warn!(secret = %key, names, %error, "no certificate was issued");
                    let text = format!("no certificate for {names}: {error}; it is tried again in {} s", pause.as_secs());
                    self.recorder.event(&wanted.about, Type::Warning, "CertificateNotIssued", text);
                }
            }
            if ended.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Waits until a certificate is to be issued; not at all when none is.
    async fn due(&self, key: &Key, wanted: &Wanted) -> bool {
        loop {
            match step(wanted, SystemTime::now()) {
                Step::Rest => return false,
                Step::Issue => return true,
                Step::IssueIn(left) => tokio::time::sleep(left.min(LOOK)).await,
                Step::Foreign => {
                    let why =
                        "it has no certificate for all of the names, and it was not made here: delete it, or name another Secret";
                    let text = format!("Secret {key} stays as it is: {why}");
                    self.recorder.event(&wanted.about, Type::Warning, "SecretNotOwned", text);
                    return false;
                }
            }
        }
    }

    /// Has a certificate issued.
    async fn issue(&self, wanted: &Wanted) -> Result<Identity, Error> {
        let _place = self.orders.acquire().await;
        let account = self.account(&wanted.issuer, None).await?;
        match issue(&account, &wanted.names, &self.challenges).await {
            Err(error) if error.is_without_account() => {
                let account = self.account(&wanted.issuer, Some(&account)).await?;
                issue(&account, &wanted.names, &self.challenges).await
            }
            issued => issued,
        }
    }

    /// Puts a certificate into its Secret; until when it is valid.
    async fn store(&self, key: &Key, wanted: &Wanted, identity: &Identity) -> Result<SystemTime, Error> {
        let (_, until) = identity.validity()?;
        let object = json!({
            "metadata": {"name": key.name, "annotations": {(ISSUER): wanted.issuer.url}},
            "type": "kubernetes.io/tls",
            "data": {"tls.crt": STANDARD.encode(&identity.certificate), "tls.key": STANDARD.encode(&identity.key)},
        });
        self.put(key.ns(), &key.name, &object).await?;
        Ok(until)
    }

    /// Makes or changes a Secret.
    async fn put(&self, namespace: &str, name: &str, object: &serde_json::Value) -> Result<(), Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let params = PatchParams { field_manager: Some("knarr-ingress".to_owned()), ..PatchParams::default() };
        match secrets.patch(name, &params, &Patch::Merge(object)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                let new: Secret = Secret::from_tree(object).map_err(kube::Error::SerdeError)?;
                let params = PostParams { field_manager: Some("knarr-ingress".to_owned()), ..PostParams::default() };
                Ok(secrets.create(&params, &new).await.map(drop)?)
            }
            patched => Ok(patched.map(drop)?),
        }
    }

    /// The account with an issuer, a new one when there is none, or when it is the one that is `lost`.
    async fn account(&self, issuer: &Issuer, lost: Option<&Arc<Account>>) -> Result<Arc<Account>, Error> {
        // One at a time: two would both make one.
        let mut accounts = self.accounts.lock().await;
        let is_lost = |account: &Arc<Account>| lost.is_some_and(|lost| Arc::ptr_eq(lost, account));
        if let Some(account) = accounts.get(issuer).filter(|account| !is_lost(account)) {
            return Ok(account.clone());
        }
        let kept = if lost.is_some() { None } else { self.kept(issuer).await? };
        let builder = Account::builder_with_http(Box::new(self.transport.clone()));
        let account = match kept {
            Some(credentials) => builder.from_credentials(credentials).await?,
            None => {
                let contact = issuer.email.as_ref().map(|email| format!("mailto:{email}"));
                let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
                let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
                let (account, credentials) = builder.create(&new, issuer.url.clone(), None).await?;
                let text = serde_json::to_string(&credentials).map_err(kube::Error::SerdeError)?;
                let name = secret_of(issuer);
                let object = json!({
                    "metadata": {"name": name, "annotations": {(ISSUER): issuer.url}}, "type": "Opaque",
                    "data": {(ACCOUNT): STANDARD.encode(text)},
                });
                self.put(SYSTEM, &name, &object).await?;
                account
            }
        };
        let account = Arc::new(account);
        accounts.insert(issuer.clone(), account.clone());
        Ok(account)
    }

    /// The account that a Secret has.
    async fn kept(&self, issuer: &Issuer) -> Result<Option<AccountCredentials>, Error> {
        let name = secret_of(issuer);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), SYSTEM);
        let Some(secret) = secrets.get_opt(&name).await? else { return Ok(None) };
        let text = secret.data.as_ref().and_then(|data| data.get(ACCOUNT));
        let read = text.and_then(|text| serde_json::from_slice(&text.0).ok());
        read.map(Some).ok_or_else(|| Error::Account(format!("{SYSTEM}/{name}")))
    }
}

/// The Secret of an account.
fn secret_of(issuer: &Issuer) -> String {
    let text = format!("{}\n{}", issuer.url, issuer.email.as_deref().unwrap_or_default());
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let hex: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("acme-account-{hex}")
}
