//! One issuer: where its keys are, the keys, and the check of its tokens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::json_syntax;
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use http::Request;
use http_body_util::Full;
use jiff::Timestamp;
use parking_lot::Mutex;
use registry::{Registry, User};
use serde_json::Value;

use super::Error;
use super::configuration::Authenticator;
use super::jwt::{KeySet, KeySetError, Token};
use crate::remote::{self, Limits, Remotes, Target};

/// What the issuer is given for each of its documents.
const LIMITS: Limits = Limits { time: Duration::from_secs(10), bytes: 1 << 20 };
/// Time between two looks at an issuer's keys, so that tokens with keys that nobody knows do not wear it out.
const RENEWAL: Duration = Duration::from_secs(1);
/// How long it counts that an issuer's keys could not be had: one that is silent is waited for by one request after the other else.
const FAILURE: Duration = Duration::from_secs(3);
/// How much earlier than `nbf` a token may be used: clocks differ.
const LEEWAY: i64 = 300;

/// Why an issuer's keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfetched {
    #[error(transparent)]
    Target(remote::Error),
    #[error("Get {url:?}: {source}")]
    Get { url: String, source: remote::Error },
    #[error("Get {url:?}: status {code}")]
    Status { url: String, code: u16 },
    #[error("invalid discovery document: {0}")]
    Document(String),
    #[error("issuer did not match the issuer returned by provider, expected {expected:?} got {found:?}")]
    Other { expected: String, found: String },
    #[error("provider did not return JWKS URL")]
    NoKeys,
    #[error(transparent)]
    KeySet(#[from] KeySetError),
    #[error(transparent)]
    Request(#[from] http::Error),
}

/// A time of a token, in seconds since the Unix epoch, as upstream's library reads it: a number, which may be written as a text.
fn seconds(claims: &Value, claim: &str) -> Result<Option<i64>, Error> {
    match &claims[claim] {
        Value::Null => Ok(None),
        Value::Number(number) => Ok(number.as_f64().map(|seconds| seconds as i64)),
        Value::String(text) => match serde_json::from_str::<serde_json::Number>(text) {
            Ok(number) => Ok(number.as_f64().map(|seconds| seconds as i64)),
            Err(_) => Err(Error::Malformed),
        },
        _ => Err(Error::Malformed),
    }
}

/// An issuer of tokens.
pub(in crate::authn) struct Issuer {
    authenticator: Authenticator,
    remotes: Arc<Remotes>,
    keys: ArcSwap<KeySet>,
    asked: Mutex<Asked>,
}

/// The keys, or why they cannot be had.
type Looked = Result<Arc<KeySet>, Error>;

/// When and how the issuer was asked for its keys.
#[derive(Default)]
struct Asked {
    /// All who need the keys wait for one look at them, which goes on as long as one of them waits.
    under_way: Option<WeakShared<BoxFuture<'static, Looked>>>,
    /// When the last look ended, and why in vain.
    last: Option<(Instant, Option<Error>)>,
}

impl Asked {
    /// What the last look has found, as long as that counts.
    fn recent(&self) -> Option<Result<(), Error>> {
        let (ended, failure) = self.last.as_ref()?;
        let counts = if failure.is_some() { FAILURE } else { RENEWAL };
        (ended.elapsed() < counts).then(|| failure.clone().map_or(Ok(()), Err))
    }
}

impl Issuer {
    pub(in crate::authn) fn new(authenticator: Authenticator, remotes: Arc<Remotes>) -> Self {
        Self { authenticator, remotes, keys: ArcSwap::default(), asked: Mutex::default() }
    }

    /// The issuer as its tokens name it.
    pub(in crate::authn) fn url(&self) -> &str {
        &self.authenticator.url
    }

    /// The user of a token.
    pub(in crate::authn) async fn verify(self: &Arc<Self>, registry: &Arc<Registry>, text: &str) -> Result<User, Error> {
        let token = Token::parse(text)?;
        token.is_signed_by(&self.authenticator.algorithms)?;
        let known = self.keys.load_full();
        if !known.signed(&token) && !self.renewed(registry, &known).await?.signed(&token) {
            return Err(Error::Signature);
        }
        self.check(&token.claims, Timestamp::now().as_second())?;
        self.authenticator.mapping.user(&token.claims)
    }

    fn check(&self, claims: &Value, now: i64) -> Result<(), Error> {
        let (end, begin) = (seconds(claims, "exp")?, seconds(claims, "nbf")?);
        seconds(claims, "iat")?;
        let found: Vec<String> = match &claims["aud"] {
            Value::String(one) => vec![one.clone()],
            Value::Array(all) => all.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        };
        let expected = &self.authenticator.audiences;
        if !found.iter().any(|audience| expected.contains(audience)) {
            return Err(Error::Audience { expected: expected.clone(), found });
        }
        match (end, begin) {
            (Some(end), _) if now >= end => Err(Error::Expired),
            (None, _) => Err(Error::Expired),
            (_, Some(begin)) if now + LEEWAY < begin => Err(Error::NotYet),
            _ => Ok(()),
        }
    }

    /// The issuer's keys, asked for again unless somebody else has just done that, or does it.
    async fn renewed(self: &Arc<Self>, registry: &Arc<Registry>, known: &Arc<KeySet>) -> Looked {
        let look = {
            let mut asked = self.asked.lock();
            let current = self.keys.load_full();
            if !Arc::ptr_eq(&current, known) {
                return Ok(current);
            }
            if let Some(found) = asked.recent() {
                return found.map(|()| current);
            }
            match asked.under_way.as_ref().and_then(WeakShared::upgrade) {
                Some(look) => look,
                None => {
                    let look = self.clone().look(registry.clone()).boxed().shared();
                    asked.under_way = Shared::downgrade(&look);
                    look
                }
            }
        };
        look.await
    }

    /// Asks for the keys, and remembers what came of it.
    async fn look(self: Arc<Self>, registry: Arc<Registry>) -> Looked {
        let fetched = self.fetch(&registry).await.map(Arc::new);
        let found = fetched.map_err(|why| Error::Issuer { url: self.url().to_owned(), why: why.to_string() });
        if let Ok(keys) = &found {
            self.keys.store(keys.clone());
        }
        // The time counts from here on: the look itself may have taken longer.
        self.asked.lock().last = Some((Instant::now(), found.as_ref().err().cloned()));
        found
    }

    async fn fetch(&self, registry: &Registry) -> Result<KeySet, Unfetched> {
        let discovery = self.get(registry, &self.authenticator.discovery()).await?;
        let unreadable = |error| Unfetched::Document(json_syntax::told(&discovery, &error));
        let document: Value = serde_json::from_slice(&discovery).map_err(unreadable)?;
        let found = document["issuer"].as_str().unwrap_or_default();
        if found != self.url() {
            return Err(Unfetched::Other { expected: self.url().to_owned(), found: found.to_owned() });
        }
        let uri = document["jwks_uri"].as_str().filter(|uri| !uri.is_empty()).ok_or(Unfetched::NoKeys)?;
        Ok(KeySet::parse(&self.get(registry, uri).await?)?)
    }

    async fn get(&self, registry: &Registry, url: &str) -> Result<Bytes, Unfetched> {
        let (target, path) = Target::of_url(url, self.authenticator.authority.clone()).map_err(Unfetched::Target)?;
        let request = Request::get(path).body(Full::default())?;
        let answer = self.remotes.endpoint(&target).call(registry, request, LIMITS).await;
        let answer = answer.map_err(|source| Unfetched::Get { url: url.to_owned(), source })?;
        match answer.status().as_u16() {
            200 => Ok(answer.into_body()),
            code => Err(Unfetched::Status { url: url.to_owned(), code }),
        }
    }
}
