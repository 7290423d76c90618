//! How issuers are asked: HTTPS, one connection for each of the few requests that an order takes.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use base::tls::Trusting;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// For one request.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest answer, a chain of certificates.
const ANSWER: usize = 1 << 20;

/// Connections to issuers.
#[derive(Clone)]
pub(super) struct Transport {
    /// A file with authorities (PEM).
    authorities: Option<PathBuf>,
    tasks: Tasks,
}

/// Nobody can be trusted.
#[derive(Debug, thiserror::Error)]
#[error("authorities of ACME servers: {0}")]
struct Untrusting(base::tls::Error);

type Answer = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl Transport {
    /// Trusts the machine's authorities, and those of a file (PEM).
    pub(super) fn new(authorities: Option<PathBuf>, tasks: Tasks) -> Self {
        Self { authorities, tasks }
    }

    /// Whom to trust now: authorities change while the server runs.
    async fn tls(&self) -> Result<ClientConfig, Error> {
        let file = self.authorities.clone();
        let read = move || match file {
            None => Trusting::new(base::tls::system_roots(), "")?.client(),
            Some(path) => match std::fs::read_to_string(&path) {
                Ok(bundle) => Trusting::beside_system(&bundle)?.client(),
                Err(source) => Err(base::tls::Error::File { path, source }),
            },
        };
        tokio::task::spawn_blocking(read).await.map_err(other)?.map_err(|error| other(Untrusting(error)))
    }

    async fn ask(self, mut request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let uri = std::mem::take(request.uri_mut());
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or(Error::Str("a URL with https://"))?.to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        request.headers_mut().insert(HOST, HeaderValue::from_str(authority).map_err(|error| Error::Http(error.into()))?);
        *request.uri_mut() = uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(other)?;
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(other)?;
        let stream = TlsConnector::from(Arc::new(self.tls().await?)).connect(name, stream).await.map_err(other)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
        self.tasks.spawn_until_cancelled("connection to an ACME server", OnFailure::Log, connection);
        let (parts, body) = sender.send_request(request).await.map_err(other)?.into_parts();
        let body = Limited::new(body, ANSWER).collect().await.map_err(Error::Other)?.to_bytes();
        Ok(BytesResponse { parts, body: Box::new(body) })
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}

impl HttpClient for Transport {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer {
        let asking = self.clone().ask(request);
        Box::pin(async move {
            let late = |_| other(io::Error::new(io::ErrorKind::TimedOut, "the ACME server does not answer in time"));
            tokio::time::timeout(LIMIT, asking).await.map_err(late)?
        })
    }
}
