//! Calls of one extender.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::tls::{Identity, Resolver};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use serde_json::json;
use tokio::sync::Semaphore;

use super::protocol::{self, AnswerError};
use super::settings::{Settings, TlsSettings};
use crate::pod::PodInfo;

/// Bytes of an answer, beyond twice those of what was asked: an extender may send the nodes back, and has a reason for each.
const MAX_ANSWER: usize = 4 << 20;
/// Pods that an extender is asked to bind at once.
const BINDINGS: usize = 32;
/// Connections without use are closed after this.
const KEPT_FOR: Duration = Duration::from_secs(90);

/// Why a call has come to nothing. Upstream's words where it has some.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("Post {url:?}: {why}")]
    Http { url: String, why: String },
    #[error("Post {url:?}: context deadline exceeded (no answer within {limit:?})")]
    Late { url: String, limit: Duration },
    #[error("Post {url:?}: the answer breaks off, or is larger than {limit} bytes")]
    Body { url: String, limit: usize },
    #[error("failed {verb} with extender at URL {url}, code {code}")]
    Status { verb: String, url: String, code: u16 },
    #[error("extender {url}: {why}")]
    Answer { url: String, why: AnswerError },
}

/// Why an extender cannot be called.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{0}")]
    Tls(#[from] base::tls::Error),
    #[error("{file}: {why}")]
    File { file: String, why: std::io::Error },
    #[error("specifying a root certificates file with the insecure flag is not allowed")]
    InsecureWithAuthority,
    #[error("a client certificate needs both a certificate and a key")]
    Half,
    #[error("serverName {0:?} is no name")]
    Name(String),
}

/// An extender.
pub(crate) struct Extender {
    pub(crate) settings: Settings,
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    binding: Semaphore,
}

impl std::fmt::Debug for Extender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.fmt(f)
    }
}

impl PartialEq for Extender {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl Extender {
    /// Reads the files that the settings name.
    pub(crate) fn new(settings: Settings) -> Result<Self, TlsError> {
        let tls = tls(&settings)?;
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let builder = match settings.tls_config.server_name.as_str() {
            "" => builder,
            name => {
                let parsed = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
                builder.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(parsed))
            }
        };
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(KEPT_FOR);
        let http = client.build(builder.enable_http1().build());
        Ok(Self { settings, http, binding: Semaphore::new(BINDINGS) })
    }

    /// What people know it by.
    pub(crate) fn url(&self) -> &str {
        &self.settings.url_prefix
    }

    /// Sends something and reads what comes back.
    pub(crate) async fn post(&self, verb: &str, body: Vec<u8>) -> Result<Bytes, CallError> {
        let (url, limit) = (self.settings.url(verb), self.settings.timeout());
        let answer = self.exchange(verb, &url, body);
        tokio::time::timeout(limit, answer).await.unwrap_or(Err(CallError::Late { url: url.clone(), limit }))
    }

    async fn exchange(&self, verb: &str, url: &str, body: Vec<u8>) -> Result<Bytes, CallError> {
        let failed = |why: String| CallError::Http { url: url.to_owned(), why };
        let limit = MAX_ANSWER + 2 * body.len();
        let request = Request::post(url).header(CONTENT_TYPE, "application/json").body(Full::from(body));
        let request = request.map_err(|error| failed(error.to_string()))?;
        let response = self.http.request(request).await.map_err(|error| failed(base::connection::why(&error)))?;
        if response.status() != StatusCode::OK {
            return Err(CallError::Status { verb: verb.to_owned(), url: url.to_owned(), code: response.status().as_u16() });
        }
        let body = Limited::new(response.into_body(), limit).collect().await;
        Ok(body.map_err(|_| CallError::Body { url: url.to_owned(), limit })?.to_bytes())
    }

    /// An answer that is wrong, as an error of this extender.
    pub(crate) fn wrong(&self, why: AnswerError) -> CallError {
        CallError::Answer { url: self.url().to_owned(), why }
    }

    /// Has the pod bound.
    pub(crate) async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), CallError> {
        let _turn = self.binding.acquire().await;
        let body = json!({"PodName": pod.name(), "PodNamespace": pod.namespace(), "PodUID": pod.uid(), "Node": node});
        let answer = self.post(&self.settings.bind_verb, body.to_string().into_bytes()).await?;
        protocol::bound(&answer).map_err(|why| self.wrong(why))
    }
}

fn tls(settings: &Settings) -> Result<ClientConfig, TlsError> {
    let own = &settings.tls_config;
    let authority = one_of(&own.ca_data.0, &own.ca_file)?;
    if own.insecure && authority.is_some() {
        return Err(TlsError::InsecureWithAuthority);
    }
    let mut config = match authority {
        Some(bundle) => base::tls::Trusting::new(base::tls::roots(&bundle)?, &bundle)?.client()?,
        // As upstream: who asks for HTTPS and names no authority takes any certificate.
        None if own.insecure || settings.enable_https => base::tls::client_of_anybody()?,
        None => of_the_system()?,
    };
    if let Some(certified) = identity(own)? {
        config.client_auth_cert_resolver = certified;
    }
    // The connector sets what it speaks itself.
    config.alpn_protocols.clear();
    Ok(config)
}

fn of_the_system() -> Result<ClientConfig, TlsError> {
    let provider = base::tls::provider();
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(base::tls::Error::from)?;
    Ok(builder.with_root_certificates(base::tls::system_roots()).with_no_client_auth())
}

fn one_of(data: &str, file: &str) -> Result<Option<String>, TlsError> {
    match (data, file) {
        ("", "") => Ok(None),
        ("", file) => match std::fs::read_to_string(file) {
            Ok(text) => Ok(Some(text)),
            Err(why) => Err(TlsError::File { file: file.to_owned(), why }),
        },
        (data, _) => Ok(Some(data.to_owned())),
    }
}

/// The scheduler's own certificate. Files are read again when they change.
fn identity(own: &TlsSettings) -> Result<Option<Arc<dyn rustls::client::ResolvesClientCert>>, TlsError> {
    let has = |data: &str, file: &str| !data.is_empty() || !file.is_empty();
    match (has(&own.cert_data.0, &own.cert_file), has(&own.key_data.0, &own.key_file)) {
        (false, false) => return Ok(None),
        (true, true) => {}
        _ => return Err(TlsError::Half),
    }
    if own.cert_data.0.is_empty() && own.key_data.0.is_empty() {
        return Ok(Some(Resolver::files(Path::new(&own.cert_file), Path::new(&own.key_file))?));
    }
    let certificate = one_of(&own.cert_data.0, &own.cert_file)?.unwrap_or_default();
    let key = one_of(&own.key_data.0, &own.key_file)?.unwrap_or_default();
    let certified = Identity { certificate, key }.certified()?;
    Ok(Some(Arc::new(SingleCertAndKey::from(certified))))
}
