//! Keeps certificates: has them issued when they are wanted, and again when two thirds of their lifetime have passed.

use codec::Decode;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::path::PathBuf;
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
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use serde_json::json;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::attempts::{self, Attempts, Entries};
use super::challenges::Challenges;
use super::issue::{Error, issue};
use super::transport::Transport;
use super::{All, Step, Wanted, digest, step};
use crate::issuer::{ISSUER, Issuer};
use crate::metrics;

/// Orders under way at once.
const ORDERS: usize = 4;
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

/// A certificate that is kept.
struct Running {
    /// What it was when it was begun.
    wanted: Wanted,
    /// Whom to tell of it. Another object that wants the same takes over the order that is under way: one that is given up counts as one that failed.
    about: watch::Sender<ObjectReference>,
    token: CancellationToken,
}

impl Keeper {
    /// Trusts issuers by the machine's authorities and those of a file (PEM).
    pub(crate) fn new(
        client: Client,
        authorities: Option<PathBuf>,
        challenges: Arc<Challenges>,
        recorder: Recorder,
        tasks: Tasks,
    ) -> Self {
        let transport = Transport::new(authorities, tasks.clone());
        Self { client, transport, challenges, recorder, tasks, accounts: Mutex::default(), orders: Semaphore::new(ORDERS) }
    }

    /// Keeps what is wanted.
    pub(crate) async fn keep(self, mut wanted: watch::Receiver<Arc<All>>) -> Result<(), Infallible> {
        let keeper = Arc::new(self);
        let mut running: BTreeMap<Key, Running> = BTreeMap::new();
        loop {
            let now = wanted.borrow_and_update().clone();
            running.retain(|key, one| {
                let next = now.get(key).filter(|next| next.is_same_order(&one.wanted));
                match next {
                    Some(next) if *one.about.borrow() != next.about => {
                        one.about.send_replace(next.about.clone());
                    }
                    Some(_) => {}
                    None => one.token.cancel(),
                }
                next.is_some()
            });
            for (key, one) in now.iter() {
                if !running.contains_key(key) {
                    running.insert(key.clone(), keeper.start(key, one));
                }
            }
            if wanted.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    fn start(self: &Arc<Self>, key: &Key, wanted: &Wanted) -> Running {
        let token = self.tasks.token().child_token();
        let (about, mut told) = watch::channel(wanted.about.clone());
        let (keeper, ended, key, one) = (self.clone(), token.clone(), key.clone(), wanted.clone());
        self.tasks.spawn(format!("certificate of Secret {key}"), OnFailure::Log, async move {
            keeper.one(&key, &one, &mut told, &ended).await;
            Ok::<_, Infallible>(())
        });
        Running { wanted: wanted.clone(), about, token }
    }

    /// Keeps one until it has been issued: then the Secret is another one, and this begins anew.
    ///
    /// The Secret's change ends this, also before the answer to the write has come. What is `ended` therefore are the
    /// waits alone: a certificate that was issued is stored, and told of.
    async fn one(&self, key: &Key, wanted: &Wanted, about: &mut watch::Receiver<ObjectReference>, ended: &CancellationToken) {
        if ended.run_until_cancelled(self.due(key, wanted, about)).await != Some(true) {
            return;
        }
        let names = wanted.names.iter().cloned().collect::<Vec<_>>().join(", ");
        let mut attempts = None;
        loop {
            let attempt = self.attempt(key, wanted, &mut attempts);
            let Some(issued) = ended.run_until_cancelled(attempt).await else { return };
            let stored = match issued {
                Ok(identity) => self.store(key, wanted, &identity, attempts.as_ref()).await,
                Err(error) => Err(error),
            };
            metrics::ordered(stored.is_ok());
            match stored {
                Ok(until) => {
                    let until = jiff::Timestamp::try_from(until).map(|until| until.to_string()).unwrap_or_default();
                    let text = format!("Secret {key} has a certificate for {names} until {until}");
                    return self.recorder.event(&about.borrow(), Type::Normal, "CertificateIssued", text);
                }
                Err(error) => {
                    let pause = attempts.get_or_insert_with(|| Attempts::after(None, &wanted.names, SystemTime::now())).pause();
                    tracing::warn!(secret = %key, names, %error, "no certificate was issued");
                    let text = format!("no certificate for {names}: {error}; it is tried again in {} s", pause.as_secs());
                    self.recorder.event(&about.borrow(), Type::Warning, "CertificateNotIssued", text);
                }
            }
        }
    }

    /// Has a certificate issued, when the orders before it allow. It is noted before the issuer is asked: whoever is killed meanwhile
    /// has asked, too.
    async fn attempt(&self, key: &Key, wanted: &Wanted, attempts: &mut Option<Attempts>) -> Result<Identity, Error> {
        if attempts.is_none() {
            *attempts = attempts::noted(&self.entries(&wanted.issuer).await?, key);
        }
        let wait = attempts.as_ref().map_or(Duration::ZERO, |attempts| attempts.wait(&wanted.names, SystemTime::now()));
        if !wait.is_zero() {
            tracing::info!(secret = %key, seconds = wait.as_secs(), "a certificate is ordered later, since the last order came to nothing");
            tokio::time::sleep(wait).await;
        }
        let _place = self.orders.acquire().await;
        let now = attempts.insert(Attempts::after(attempts.as_ref(), &wanted.names, SystemTime::now()));
        self.note(key, &wanted.issuer, Some(now)).await?;
        self.issue(wanted).await
    }

    /// Waits until a certificate is to be issued; not at all when none is.
    async fn due(&self, key: &Key, wanted: &Wanted, about: &mut watch::Receiver<ObjectReference>) -> bool {
        loop {
            match step(wanted, SystemTime::now()) {
                Step::Rest => return false,
                Step::Issue => return true,
                Step::IssueIn(left) => tokio::time::sleep(left.min(LOOK)).await,
                Step::Foreign => {
                    let why =
                        "it has no certificate for all of the names, and it was not made here: delete it, or name another Secret";
                    let text = format!("Secret {key} stays as it is: {why}");
                    self.recorder.event(&about.borrow_and_update(), Type::Warning, "SecretNotOwned", text);
                    if about.changed().await.is_err() {
                        return false;
                    }
                }
            }
        }
    }

    /// Has a certificate issued.
    async fn issue(&self, wanted: &Wanted) -> Result<Identity, Error> {
        let account = self.account(&wanted.issuer, None).await?;
        match issue(&account, &wanted.names, &self.challenges).await {
            Err(error) if error.is_without_account() => {
                let account = self.account(&wanted.issuer, Some(&account)).await?;
                issue(&account, &wanted.names, &self.challenges).await
            }
            issued => issued,
        }
    }

    /// Puts a certificate into its Secret; until when it is valid. Orders before it are forgotten first, for whoever sees the Secret may delete it
    /// to have another certificate; they are noted again when it cannot be written.
    async fn store(
        &self,
        key: &Key,
        wanted: &Wanted,
        identity: &Identity,
        attempts: Option<&Attempts>,
    ) -> Result<SystemTime, Error> {
        let (_, until) = identity.validity()?;
        self.note(key, &wanted.issuer, None).await?;
        let object = json!({
            "metadata": {"name": key.name, "annotations": {(ISSUER): wanted.issuer.url}},
            "type": "kubernetes.io/tls",
            "data": {"tls.crt": STANDARD.encode(&identity.certificate), "tls.key": STANDARD.encode(&identity.key)},
        });
        if let Err(error) = self.put(key.ns(), &key.name, &object).await {
            self.note(key, &wanted.issuer, attempts).await?;
            return Err(error);
        }
        Ok(until)
    }

    /// Makes or changes a Secret.
    async fn put(&self, namespace: &str, name: &str, object: &serde_json::Value) -> Result<(), Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let params = PatchParams { field_manager: Some("knarr-ingress".to_owned()), ..PatchParams::default() };
        match secrets.patch(name, &params, &Patch::Merge(object)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                let mut new = object.clone();
                // What is to be removed from one that is there.
                new["data"].as_object_mut().into_iter().for_each(|data| data.retain(|_, text| !text.is_null()));
                let new: Secret = Secret::from_tree(&new).map_err(kube::Error::SerdeError)?;
                let made = PostParams { field_manager: params.field_manager.clone(), ..PostParams::default() };
                match secrets.create(&made, &new).await {
                    // Another order has made it meanwhile.
                    Err(kube::Error::Api(status)) if status.is_already_exists() => {
                        Ok(secrets.patch(name, &params, &Patch::Merge(object)).await.map(drop)?)
                    }
                    created => Ok(created.map(drop)?),
                }
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
                self.put_entries(issuer, [(ACCOUNT.to_owned(), Some(text))].into()).await?;
                account
            }
        };
        let account = Arc::new(account);
        accounts.insert(issuer.clone(), account.clone());
        Ok(account)
    }

    /// The account that a Secret has.
    async fn kept(&self, issuer: &Issuer) -> Result<Option<AccountCredentials>, Error> {
        let Some(text) = self.entries(issuer).await?.remove(ACCOUNT) else { return Ok(None) };
        let read = serde_json::from_slice(&text.0).ok();
        read.map(Some).ok_or_else(|| Error::Account(format!("{SYSTEM}/{}", secret_of(issuer))))
    }

    /// Notes the orders for a Secret, or forgets them; and forgets those of others that are of no use any more.
    async fn note(&self, key: &Key, issuer: &Issuer, attempts: Option<&Attempts>) -> Result<(), Error> {
        let entries = self.entries(issuer).await?;
        let surplus = attempts::surplus(&entries, SystemTime::now()).into_iter().map(|entry| (entry, None));
        let text = attempts.map(serde_json::to_string).transpose().map_err(kube::Error::SerdeError)?;
        self.put_entries(issuer, surplus.chain([(attempts::entry(key), text)]).collect()).await
    }

    /// What stands in an account's Secret.
    async fn entries(&self, issuer: &Issuer) -> Result<Entries, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), SYSTEM);
        Ok(secrets.get_opt(&secret_of(issuer)).await?.and_then(|secret| secret.data).unwrap_or_default())
    }

    /// Writes entries of an account's Secret, and removes others.
    async fn put_entries(&self, issuer: &Issuer, entries: BTreeMap<String, Option<String>>) -> Result<(), Error> {
        let name = secret_of(issuer);
        let data: BTreeMap<_, _> =
            entries.into_iter().map(|(entry, text)| (entry, text.map(|text| STANDARD.encode(text)))).collect();
        let object = json!({"metadata": {"name": name, "annotations": {(ISSUER): issuer.url}}, "type": "Opaque", "data": data});
        self.put(SYSTEM, &name, &object).await
    }
}

/// The Secret of an account.
fn secret_of(issuer: &Issuer) -> String {
    let text = format!("{}\n{}", issuer.url, issuer.email.as_deref().unwrap_or_default());
    format!("acme-account-{}", digest(&text))
}
