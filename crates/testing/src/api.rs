//! HTTPS requests to the cluster as they are, and kube-rs on the same connections.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::tasks::{OnFailure, Tasks};
use base64::Engine;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use crate::wait::PATIENCE;

/// What the server answered.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// Where the server is and how one proves to be its administrator.
#[derive(Clone)]
pub struct Endpoint {
    /// Its address.
    pub address: SocketAddr,
    /// None speaks plain HTTP.
    tls: Option<Arc<ClientConfig>>,
}

impl Endpoint {
    /// The current context of a kubeconfig file whose certificates are in it.
    ///
    /// # Errors
    /// When the file lacks something.
    pub fn of_kubeconfig(path: &Path) -> Result<Self> {
        let config: Value = serde_saphyr::from_str(&fs::read_to_string(path)?)?;
        let field = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer}"));
        let pem = |pointer: &str| anyhow::Ok(base64::engine::general_purpose::STANDARD.decode(field(pointer)?)?);
        let server = field("/clusters/0/cluster/server")?.trim_start_matches("https://").trim_end_matches('/');
        let authority = String::from_utf8(pem("/clusters/0/cluster/certificate-authority-data")?)?;
        let chain = pem("/users/0/user/client-certificate-data")?;
        let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&pem("/users/0/user/client-key-data")?)?;
        let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(base::tls::roots(&authority)?)
            .with_client_auth_cert(chain, key)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { address: server.parse()?, tls: Some(Arc::new(tls)) })
    }

    /// A server with a certificate of this authority (PEM), which asks nobody who they are.
    ///
    /// # Errors
    /// When the bundle is not readable.
    pub fn trusting(address: SocketAddr, authority: &str) -> Result<Self> {
        Ok(Self { address, tls: Some(Arc::new(base::tls::client(authority, None)?)) })
    }

    /// A server whose certificate nobody looks at.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn of_anybody(address: SocketAddr) -> Result<Self> {
        let mut tls = base::tls::client_of_anybody()?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { address, tls: Some(Arc::new(tls)) })
    }

    /// A server without TLS.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// Opens a connection; its driver belongs to `tasks`.
    ///
    /// # Errors
    /// When the server does not answer or is not the one of the kubeconfig.
    pub async fn connect(&self, tasks: &Tasks) -> Result<http1::SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => speak(stream, tasks).await,
            Some(tls) => {
                speak(TlsConnector::from(tls.clone()).connect(ServerName::from(self.address.ip()), stream).await?, tasks).await
            }
        }
    }
}

/// HTTP on a connection.
async fn speak<S>(stream: S, tasks: &Tasks) -> Result<http1::SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tasks.spawn_until_cancelled("connection", OnFailure::Log, connection);
    Ok(sender)
}

/// A client for tests, which are synchronous.
pub struct Api {
    endpoint: Endpoint,
    tasks: Tasks,
    runtime: Runtime,
}

impl Api {
    /// A client of the server in this kubeconfig.
    ///
    /// # Panics
    /// When the file is not usable.
    pub fn of_kubeconfig(path: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { endpoint: Endpoint::of_kubeconfig(path).unwrap(), tasks: Tasks::root().0, runtime }
    }

    /// Where this kubeconfig leads.
    ///
    /// # Panics
    /// When the file is not usable.
    pub fn endpoint_of(path: &Path) -> Endpoint {
        Endpoint::of_kubeconfig(path).unwrap()
    }

    /// One request on a connection of its own.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn send(&self, method: Method, path: &str, content_type: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("host", "knarr").header("content-type", content_type);
        let request = request.header("accept", "application/json").body(Full::new(body.into())).unwrap();
        self.block_on(async {
            let answer = send(&self.endpoint, &self.tasks, request).await.unwrap();
            let (parts, body) = answer.into_parts();
            let content_type = parts.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
            Answer {
                status: parts.status.as_u16(),
                content_type: content_type.to_owned(),
                body: body.collect().await.unwrap().to_bytes(),
            }
        })
    }

    /// Requests with these bodies on one connection, one after the other, which all succeed.
    ///
    /// # Panics
    /// When one does not.
    pub fn send_all(&self, method: &Method, path: &str, content_type: &str, bodies: impl IntoIterator<Item = String>) {
        let mut connection = self.block_on(async { self.endpoint.connect(&self.tasks).await.unwrap() });
        for body in bodies {
            let request = Request::builder().method(method).uri(path).header("host", "knarr");
            let request = request.header("content-type", content_type).body(Full::new(Bytes::from(body))).unwrap();
            // Each has the time of one: all of them may take a slow machine longer.
            self.block_on(async {
                let answer = connection.send_request(request).await.unwrap();
                let status = answer.status();
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                assert!(status.is_success(), "{method} {path}: {status} {body:?}");
            });
        }
    }

    /// GET.
    pub fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "application/json", "")
    }

    /// POST of an object.
    pub fn post(&self, path: &str, object: &Value) -> Answer {
        self.send(Method::POST, path, "application/json", object.to_string())
    }

    /// GET of an object that is there.
    ///
    /// # Panics
    /// When it is not.
    pub fn object(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.body);
        answer.json()
    }

    /// Runs a future, at most for [`PATIENCE`].
    ///
    /// # Panics
    /// When it takes longer.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let limited = async { tokio::time::timeout(*PATIENCE, future).await };
        self.runtime.block_on(limited).expect("an answer in time")
    }

    /// kube-rs.
    pub fn client(&self) -> kube::Client {
        let (endpoint, tasks) = (self.endpoint.clone(), self.tasks.clone());
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (endpoint, tasks) = (endpoint.clone(), tasks.clone());
            async move {
                let (mut parts, body) = request.into_parts();
                parts.headers.insert("host", http::HeaderValue::from_static("knarr"));
                let body = body.collect_bytes().await?;
                send(&endpoint, &tasks, Request::from_parts(parts, Full::new(body))).await
            }
        });
        // It starts a task of its own at once.
        let _entered = self.runtime.enter();
        kube::Client::new(service, "default")
    }
}

async fn send(endpoint: &Endpoint, tasks: &Tasks, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
    let answer = async { anyhow::Ok(endpoint.connect(tasks).await?.send_request(request).await?) };
    match tokio::time::timeout(Duration::from_secs(30), answer).await {
        Ok(answer) => answer,
        Err(_) => bail!("no answer from {} in 30 s", endpoint.address),
    }
}
