//! Requests to a registry (OCI distribution specification).
//!
//! A registry is whoever the name of an image leads to. What it says is read here and nowhere else, each document up to a size and within a
//! time, and the bytes of layers have to come at a pace.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use http_auth::parser::ChallengeParser;
use oci_spec::distribution::Reference;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::failure::{Failure, Refusal};
use super::reach::Reach;
use crate::api::Credentials;
use crate::images::layer::digest_of;
use crate::images::manifest::ACCEPTED;
use crate::images::pace::{Pace, paced};

/// Most bytes of a document. Registries take no larger manifests (distribution specification, "Pushing Manifests": 4 megabytes).
pub(super) const DOCUMENT: usize = 4 << 20;
/// Bytes of a document for which nobody waits, and how many that are larger are read at the same time on a node.
const SMALL: usize = 128 << 10;
static LARGE: Semaphore = Semaphore::const_new(8);
/// Most bytes of an answer that is a refusal. What is beyond them is not read.
const REFUSAL: usize = 64 << 10;
/// Longest that a document takes, from the first request for it to its last byte.
const DOCUMENT_TIME: Duration = Duration::from_secs(120);
/// Longest that a registry takes to begin with a layer. Its bytes are waited for as long in all, and longer the more have come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes a second of a layer that are fast enough.
const SLOWEST: u64 = 8 << 10;

/// A document of a registry. While it is there, and is large, few others are read.
pub(crate) struct Document {
    pub(crate) bytes: Bytes,
    _large: Option<SemaphorePermit<'static>>,
}

/// One place to ask for an image, with what is shown there.
pub(crate) struct Endpoint {
    http: reqwest::Client,
    /// Where the registry may send us.
    reach: Arc<Reach>,
    pub(super) scheme: &'static str,
    pub(crate) reference: Reference,
    pub(super) credentials: Option<Credentials>,
    /// What the registry has asked for.
    authorization: Mutex<Option<HeaderValue>>,
    time: Duration,
}

/// What a token server answers.
#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// How a registry wants to be shown credentials.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Bearer { realm: String, service: Option<String> },
    Basic,
}

impl Endpoint {
    pub(super) fn new(
        (http, reach): (reqwest::Client, Arc<Reach>),
        scheme: &'static str,
        reference: Reference,
        credentials: Option<Credentials>,
    ) -> Self {
        Self { http, reach, scheme, reference, credentials, authorization: Mutex::default(), time: DOCUMENT_TIME }
    }

    /// The host that is asked.
    pub(crate) fn host(&self) -> &str {
        self.reference.resolve_registry()
    }

    /// Whether nothing is shown there.
    pub(crate) fn is_open(&self) -> bool {
        self.credentials.is_none()
    }

    /// Whether the registry gives a blob to who asks.
    pub(crate) async fn has_blob(&self, digest: &str) -> bool {
        let url = self.url("blobs", digest);
        matches!(tokio::time::timeout(PATIENCE, self.ask(Method::HEAD, &url)).await, Ok(Ok(_)))
    }

    /// The manifest or index of the image, and its digest.
    pub(crate) async fn manifest(&self) -> Result<(Document, String), Failure> {
        let reference = &self.reference;
        let name = reference.digest().or(reference.tag()).unwrap_or("latest");
        let (document, told) = self.document(&self.url("manifests", name), DOCUMENT).await?;
        let actual = digest_of(&document.bytes);
        let expected = reference.digest().or(told.as_deref().filter(|told| told.starts_with("sha256:")));
        same(expected.unwrap_or(&actual), &actual)?;
        Ok((document, actual))
    }

    /// The manifest that has this digest, of an index.
    pub(crate) async fn child(&self, digest: &str) -> Result<Document, Failure> {
        let (document, _) = self.document(&self.url("manifests", digest), DOCUMENT).await?;
        same(digest, &digest_of(&document.bytes))?;
        Ok(document)
    }

    /// A blob that is kept in memory, such as a configuration.
    pub(crate) async fn small_blob(&self, digest: &str, most: usize) -> Result<Document, Failure> {
        let (document, _) = self.document(&self.url("blobs", digest), most).await?;
        same(digest, &digest_of(&document.bytes))?;
        Ok(document)
    }

    /// A blob as it comes; its digest is not looked at.
    pub(crate) async fn blob(&self, digest: &str) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Failure> {
        let asking = async { self.get(&self.url("blobs", digest)).await };
        let response = tokio::time::timeout(PATIENCE, asking).await.map_err(|_| Failure::Slow(PATIENCE))??;
        let pieces = futures::stream::unfold(Some(response), |response| async move {
            let mut response = response?;
            match response.chunk().await {
                Ok(piece) => Some((Ok(piece?), Some(response))),
                Err(error) => Some((Err(Failure::Request(error)), None)),
            }
        });
        Ok(paced(Box::pin(pieces), Pace::new(PATIENCE, SLOWEST)))
    }

    fn url(&self, kind: &str, name: &str) -> String {
        let (scheme, host, repository) = (self.scheme, self.host(), self.reference.repository());
        // Mirrors of several registries are told which one is meant.
        let namespace = self.reference.namespace().map(|of| format!("?ns={of}")).unwrap_or_default();
        format!("{scheme}://{host}/v2/{repository}/{kind}/{name}{namespace}")
    }

    /// A document, and the digest that the registry gives it.
    async fn document(&self, url: &str, most: usize) -> Result<(Document, Option<String>), Failure> {
        let reading = async {
            let response = self.get(url).await?;
            let told = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok()).map(str::to_owned);
            Ok((read(response, most).await?, told))
        };
        tokio::time::timeout(self.time, reading).await.unwrap_or(Err(Failure::Slow(self.time)))
    }

    async fn get(&self, url: &str) -> Result<Response, Failure> {
        self.ask(Method::GET, url).await
    }

    /// Asks, and shows credentials where the registry wants to see any.
    async fn ask(&self, method: Method, url: &str) -> Result<Response, Failure> {
        let own = Url::parse(url).map(|url| origin(&url)).ok();
        let shown = self.authorization.lock().clone();
        let response = self.send(method.clone(), url, shown.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return accepted(response, own.as_deref()).await;
        }
        // The credentials are for the registry, and not for whom it sends us to.
        let is_registry = own.as_ref().is_some_and(|own| *own == origin(response.url()));
        let wanted = if is_registry { self.authorize(response.headers()).await? } else { None };
        let Some(wanted) = wanted.filter(|wanted| Some(wanted) != shown.as_ref()) else { return Err(Failure::Unauthorized) };
        let response = self.send(method, url, Some(&wanted)).await?;
        *self.authorization.lock() = Some(wanted);
        accepted(response, own.as_deref()).await
    }

    async fn send(&self, method: Method, url: &str, authorization: Option<&HeaderValue>) -> Result<Response, Failure> {
        let mut request = self.http.request(method, url).header(ACCEPT, ACCEPTED);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(Failure::Request)
    }

    /// What the registry wants to be shown; none when there is nothing to show.
    async fn authorize(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Failure> {
        match challenge(headers) {
            Some(Challenge::Bearer { realm, service }) => self.token(&realm, service.as_deref()).await.map(Some),
            Some(Challenge::Basic) | None => Ok(self.credentials.as_ref().and_then(basic)),
        }
    }

    /// A token for pulling, of the server that the registry names (distribution's "Token Authentication Specification").
    async fn token(&self, realm: &str, service: Option<&str>) -> Result<HeaderValue, Failure> {
        let refused = |text: String| Failure::Token(text);
        let mut url = Url::parse(realm).map_err(|error| refused(format!("{realm:?}: {error}")))?;
        self.reach.check(self.scheme, &url, false).map_err(|why| refused(why.to_string()))?;
        url.query_pairs_mut().append_pair("scope", &format!("repository:{}:pull", self.reference.repository()));
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", service);
        }
        let own = Url::parse(&self.url("", "")).map(|url| origin(&url)).ok();
        let mut request = self.http.get(url);
        if let Some(shown) = self.credentials.as_ref().and_then(basic) {
            request = request.header(AUTHORIZATION, shown);
        }
        let response = request.send().await.map_err(|error| refused(Failure::Request(error).to_string()))?;
        let response = match accepted(response, own.as_deref()).await {
            Err(Failure::Refused(Refusal { status, .. })) if status != 429 && status < 500 => return Err(Failure::Unauthorized),
            other => other.map_err(|error| refused(error.to_string()))?,
        };
        let answer = read(response, DOCUMENT).await.map_err(|error| refused(error.to_string()))?;
        let answer: Token =
            serde_json::from_slice(&answer.bytes).map_err(|_| refused("its answer is none that has a token".to_owned()))?;
        let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
        let header = Some(format!("Bearer {token}")).filter(|_| !token.is_empty());
        let header = header.and_then(|header| HeaderValue::try_from(header).ok());
        let mut header = header.ok_or_else(|| refused("its token is none".to_owned()))?;
        header.set_sensitive(true);
        Ok(header)
    }
}

fn basic(credentials: &Credentials) -> Option<HeaderValue> {
    use base64::Engine as _;
    let shown = format!("{}:{}", credentials.username, credentials.password);
    let mut header = HeaderValue::try_from(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(shown))).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// How credentials are to be shown: by a token before a password, as the safer way.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut found = None;
    for header in headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()) {
        for challenge in ChallengeParser::new(header).map_while(Result::ok) {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("Bearer")
                && let Some(realm) = parameter("realm")
            {
                return Some(Challenge::Bearer { realm, service: parameter("service") });
            }
            if challenge.scheme.eq_ignore_ascii_case("Basic") {
                found = Some(Challenge::Basic);
            }
        }
    }
    found
}

fn same(expected: &str, actual: &str) -> Result<(), Failure> {
    if expected == actual {
        return Ok(());
    }
    Err(Failure::Digest { expected: expected.to_owned(), actual: actual.to_owned() })
}

/// Who answers at a URL: its scheme, host and port.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The answer unless it is a refusal. What is said with that is repeated to who asked for the image only if the registry, at `own`, says it: what
/// others say, it may be that they say it to this machine alone.
async fn accepted(mut response: Response, own: Option<&str>) -> Result<Response, Failure> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    if status == StatusCode::UNAUTHORIZED {
        return Err(Failure::Unauthorized);
    }
    if own != Some(&origin(response.url())) {
        return Err(Failure::Refused(Refusal::new(status.as_u16(), b"")));
    }
    let mut body = BytesMut::new();
    // What it says is of use as far as it has come.
    while let Ok(Some(piece)) = response.chunk().await {
        body.extend_from_slice(&piece[..piece.len().min(REFUSAL - body.len())]);
        if body.len() == REFUSAL {
            break;
        }
    }
    Err(Failure::Refused(Refusal::new(status.as_u16(), &body)))
}

/// Reads an answer of at most `most` bytes.
async fn read(mut response: Response, most: usize) -> Result<Document, Failure> {
    let (mut bytes, mut large) = (BytesMut::new(), None);
    while let Some(piece) = response.chunk().await.map_err(Failure::Request)? {
        if piece.len() > most - bytes.len() {
            return Err(Failure::TooLarge(most));
        }
        if large.is_none() && bytes.len() + piece.len() > SMALL {
            // Never closed.
            large = LARGE.acquire().await.ok();
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Document { bytes: bytes.freeze(), _large: large })
}

#[cfg(test)]
mod tests;
