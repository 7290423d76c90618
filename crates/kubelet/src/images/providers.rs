//! Image credential providers: programs of the node that are asked for credentials of the images that they are configured for
//! (`--image-credential-provider-config`, KEP-2133), and that may be shown who the pod is (KEP-4412).
//!
//! A program runs once at a time for one question; whoever asks the same meanwhile gets the same answer. What it answers is kept for as long as
//! it says.

mod accounts;
mod cache;
pub mod configuration;
mod exchange;
mod plugin;
#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, HashMap};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared, join_all};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::accounts::{Accounts, Shown};
use self::cache::{Auths, Cache, Owner};
use self::configuration::Provider;
use self::exchange::{Request, Response};
use self::plugin::Plugin;
use super::keyring::{Credential, Keyring};
use super::sources::Source;
use crate::spec::Model;

/// Most programs that run at the same time. Who waits for one looks first whether another has given what is wanted.
const RUNS: usize = 16;
/// Longest that an answer is kept: as good as for ever.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a provider has given no credentials.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The program cannot be executed, or not be talked to.
    #[error("it cannot be run: {0}")]
    Start(String),
    /// It says that it has failed.
    #[error("it has ended with {0}")]
    Exit(ExitStatus),
    /// It does not end.
    #[error("it has not ended within {0}")]
    Timeout(String),
    /// It writes without end.
    #[error("it has written more than {0} bytes")]
    TooLong(u64),
    /// It answers in another version.
    #[error("its answer is not in the version {0} that it was asked in")]
    Version(String),
    /// It answers something else.
    #[error("its answer is no CredentialProviderResponse")]
    Decode,
    /// It does not say for which images its answer is.
    #[error("its answer has a cacheKeyType that is none of Image, Registry, Global")]
    CacheKeyType,
    /// Credentials that are a pod's token would be kept for other pods.
    #[error("its answer has the service account's token as a password, for which the cacheType Token is needed")]
    Echo,
    /// It cannot be shown who the pod is.
    #[error("{0}")]
    Account(String),
}

/// What all providers have given for an image and a pod.
#[derive(Default)]
pub struct Provided {
    /// Credentials, those that are to be tried first in front.
    pub credentials: Vec<Credential>,
    /// What those say that have failed.
    pub failures: Vec<String>,
}

/// A run of a program, which many may wait for.
type Run = BoxFuture<'static, Result<Arc<Auths>, Failure>>;
/// What makes one question different from another: the image, the digest of a token, and annotations.
type Question = (String, String, BTreeMap<String, String>);

/// The providers of a node.
pub struct Providers {
    all: Vec<Program>,
    accounts: Accounts,
}

/// One of them.
struct Program {
    provider: Provider,
    plugin: Arc<Plugin>,
    cache: Arc<Mutex<Cache>>,
    running: Mutex<HashMap<Question, WeakShared<Run>>>,
    places: Arc<Semaphore>,
}

impl Providers {
    /// Those that are configured. Service accounts are read with `client`.
    pub fn new(configured: &[Provider], client: kube::Client) -> Self {
        let places = Arc::new(Semaphore::new(RUNS));
        let program = |provider: &Provider| Program::new(provider.clone(), places.clone());
        Self { all: configured.iter().map(program).collect(), accounts: Accounts::new(client) }
    }

    /// Credentials for an image of this name, without tag and digest and with its registry.
    ///
    /// `model` is the pod that needs it; none when somebody pulls by hand, to whom no service account belongs.
    pub async fn credentials(&self, model: Option<&Model>, repository: &str) -> Provided {
        let asked: Vec<_> = self.all.iter().filter(|program| program.is_for(repository)).collect();
        let answers = join_all(asked.iter().map(|program| program.provide(&self.accounts, model, repository))).await;
        let (mut keyring, mut failures) = (Keyring::default(), Vec::new());
        for (program, answer) in asked.into_iter().zip(answers) {
            match answer {
                Ok((source, auths)) => {
                    for (key, word) in auths.iter() {
                        keyring.add(key, Credential { word: word.clone(), source: source.clone() });
                    }
                }
                Err(failure) => failures.push(format!("credential provider {:?}: {failure}", program.provider.name)),
            }
        }
        Provided { credentials: keyring.lookup(repository), failures }
    }
}

impl Program {
    fn new(provider: Provider, places: Arc<Semaphore>) -> Self {
        let plugin = Arc::new(Plugin::new(&provider));
        Self { provider, plugin, cache: Arc::default(), running: Mutex::default(), places }
    }

    fn is_for(&self, repository: &str) -> bool {
        self.provider.images.iter().any(|pattern| pattern.matches(repository))
    }

    /// What it gives a pod, and who may use what is pulled with it.
    async fn provide(
        &self,
        accounts: &Accounts,
        model: Option<&Model>,
        repository: &str,
    ) -> Result<(Source, Arc<Auths>), Failure> {
        let request = Request::new(&self.provider.api_version, repository);
        let named = |model: &'_ Model| model.spec().service_account_name.clone().filter(|name| !name.is_empty());
        let account = model.and_then(|model| Some((model, named(model)?)));
        let (tokens, model, name) = match (&self.provider.tokens, &account) {
            (Some(tokens), Some((model, name))) => (tokens, *model, name.as_str()),
            (Some(tokens), None) if tokens.required => return Ok((Source::Node, Arc::default())),
            _ => return Ok((Source::Node, self.answer(request, repository, None).await?)),
        };
        let shown = match accounts.show(model, name, tokens).await {
            Ok(shown) => shown,
            Err(failure) => {
                tracing::warn!(provider = self.provider.name, pod = model.title(), %failure, "no image credentials");
                return Err(failure);
            }
        };
        let Some(Shown { account, owner, token }) = shown else { return Ok((Source::Node, Arc::default())) };
        let request = request.with(token.clone(), owner.annotations.clone());
        let auths = self.answer(request, repository, Some((owner, token))).await?;
        Ok((Source::ServiceAccount(account), auths))
    }

    /// The answer to a question: a kept one, that of a run that goes on, or that of a new one.
    async fn answer(&self, request: Request, repository: &str, of: Option<(Owner, String)>) -> Result<Arc<Auths>, Failure> {
        let owner = of.as_ref().map(|(owner, _)| owner);
        if let Some(known) = self.cache.lock().get(repository, owner, Instant::now()) {
            return Ok(known);
        }
        let shown = of.as_ref().map(|(owner, token)| (pods::csi::digest(token), owner.annotations.clone()));
        let (token, annotations) = shown.unwrap_or_default();
        let question = (repository.to_owned(), token, annotations);
        let run = {
            let mut running = self.running.lock();
            running.retain(|_, run| run.upgrade().is_some_and(|run| run.peek().is_none()));
            let goes_on = running.get(&question).and_then(WeakShared::upgrade);
            goes_on.unwrap_or_else(|| {
                let run = self.run(request, repository.to_owned(), of.map(|(owner, _)| owner));
                running.extend(run.downgrade().map(|weak| (question, weak)));
                run
            })
        };
        run.await
    }

    /// A run of the program, which ends when nobody waits for it.
    fn run(&self, request: Request, repository: String, owner: Option<Owner>) -> Shared<Run> {
        let (plugin, cache, places) = (self.plugin.clone(), self.cache.clone(), self.places.clone());
        let (lifetime, tokens) = (self.provider.lifetime, self.provider.tokens.as_ref());
        let may_echo = tokens.is_some_and(|tokens| tokens.per_token);
        let run: Run = Box::pin(async move {
            // The semaphore is never closed.
            let _place = places.acquire().await;
            if let Some(known) = cache.lock().get(&repository, owner.as_ref(), Instant::now()) {
                return Ok(known);
            }
            let Response { auths, scope, lifetime: own } = plugin.ask(&request).await?;
            if !may_echo && request.is_echoed_by(&auths) {
                return Err(Failure::Echo);
            }
            let (auths, now) = (Arc::new(auths), Instant::now());
            let lifetime = own.unwrap_or(lifetime).min(LONGEST);
            if !lifetime.is_zero() {
                cache.lock().insert(scope, owner, auths.clone(), now + lifetime, now);
            }
            Ok(auths)
        });
        run.shared()
    }
}

#[cfg(test)]
mod tests;
