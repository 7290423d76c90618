//! The API of another machine: HTTPS over few connections, with a client certificate that is renewed while it is in use, or with a token.
//!
//! Connections are HTTP/2. A server carries a bounded number of requests on one, and every watch is one: those of single objects, of which a
//! node has as many as its pods refer to, have connections of their own, so that they never keep others waiting. A connection whose
//! other end is silent is given up, so that a server that has moved, or has died with its machine, is noticed; and so is one on which nothing
//! arrives while packets are lost (`base::sockets`).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::Body;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// Silence after which the other end is asked whether it is there, and how long it has to answer.
const SILENCE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));
/// Connections for the watches of single objects.
const SINGLES: usize = 3;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    authority: Authority,
    name: ServerName<'static>,
    address: Arc<str>,
}

/// An address of a server that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not the address of a server: it looks like https://HOST:PORT")]
pub struct InvalidServer(String);

impl std::str::FromStr for Server {
    type Err = InvalidServer;

    fn from_str(text: &str) -> Result<Self, InvalidServer> {
        let wrong = || InvalidServer(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let plain = matches!(uri.path_and_query().map(PathAndQuery::as_str), None | Some("" | "/"));
        let authority = uri.authority().filter(|_| plain && uri.scheme() == Some(&Scheme::HTTPS)).ok_or_else(wrong)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| wrong())?;
        let address = match authority.port_u16() {
            Some(_) => authority.as_str().to_owned(),
            None => format!("{authority}:6443"),
        };
        Ok(Self { authority: authority.clone(), name, address: address.into() })
    }
}

impl Server {
    /// Its name or address, and its port, as requests name it.
    pub fn host(&self) -> &str {
        self.authority.as_str()
    }

    async fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address.as_ref()).await?;
        // A kernel that refuses the options connects all the same.
        let _ = base::sockets::keep_alive_and_time_out(&stream);
        Ok(stream)
    }

    /// A new connection to it.
    pub async fn connect(&self, tls: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(tls).connect(self.name.clone(), self.dial().await?).await
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "https://{}", self.authority)
    }
}

type Http = legacy::Client<Connector, Body>;

/// A transport for [`kube::Client`]. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    server: Server,
    agent: HeaderValue,
    token: Option<HeaderValue>,
    common: Http,
    singles: Arc<[Http; SINGLES]>,
}

impl Remote {
    /// Requests go to `server`, as `tls` proves who it is and who we are; `agent` says which program it is.
    pub fn new(server: Server, tls: ClientConfig, agent: HeaderValue) -> Self {
        let mut tls = tls;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let tls = Arc::new(tls);
        let http = || {
            let connector = Connector { server: server.clone(), tls: tls.clone() };
            let mut builder = legacy::Client::builder(TokioExecutor::new());
            builder.http2_only(true).timer(TokioTimer::new()).pool_timer(TokioTimer::new());
            builder.http2_keep_alive_interval(SILENCE.0).http2_keep_alive_timeout(SILENCE.1).http2_keep_alive_while_idle(true);
            builder.build(connector)
        };
        let (common, singles) = (http(), Arc::new(std::array::from_fn(|_| http())));
        Self { server, agent, token: None, common, singles }
    }

    /// The same with a bearer token.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        let header = HeaderValue::try_from(format!("Bearer {token}")).ok();
        let token = header.map(|mut header| {
            header.set_sensitive(true);
            header
        });
        Self { token, ..self }
    }

    /// The same for another program.
    #[must_use]
    pub fn with_agent(self, agent: HeaderValue) -> Self {
        Self { agent, ..self }
    }

    fn http(&self, uri: &Uri) -> &Http {
        match uri.query().filter(|query| is_single_watch(query)) {
            Some(query) => &self.singles[shard(uri.path(), query)],
            None => &self.common,
        }
    }
}

fn is_single_watch(query: &str) -> bool {
    query.contains("watch=") && query.contains("fieldSelector=metadata.name")
}

fn shard(path: &str, query: &str) -> usize {
    // FNV-1a
    let bytes = path.bytes().chain(query.bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash as usize % SINGLES
}

impl tower::Service<Request<Body>> for Remote {
    type Response = Response<Incoming>;
    type Error = legacy::Error;
    type Future = legacy::ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), legacy::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> legacy::ResponseFuture {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.server.authority.clone());
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        // All three parts are there, and were parsed: they make a URI.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        request.headers_mut().insert(USER_AGENT, self.agent.clone());
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        self.http(request.uri()).request(request)
    }
}

/// Opens connections to one server.
#[derive(Clone)]
struct Connector {
    server: Server,
    tls: Arc<ClientConfig>,
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { server, tls } = self.clone();
        Box::pin(async move {
            let stream =
                tokio::time::timeout(CONNECT, server.connect(tls)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
            Ok(Stream(TokioIo::new(stream?)))
        })
    }
}

/// A connection, as the HTTP client wants it.
struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().negotiated_h2()
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::sys::socket::{getsockopt, sockopt};

    #[test]
    fn servers() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let server = text.parse::<Server>().ok();
            let found = server.as_ref().map(|server| (server.authority.as_str(), server.address.as_ref()));
            assert_eq!(found, expected, "{text}");
        };
        check("https://10.0.0.1:6443", Some(("10.0.0.1:6443", "10.0.0.1:6443")));
        check("https://example.com/", Some(("example.com", "example.com:6443")));
        check("https://[fd00::1]:1", Some(("[fd00::1]:1", "[fd00::1]:1")));
        check("http://10.0.0.1:6443", None);
        check("https://10.0.0.1:6443/x", None);
        check("10.0.0.1:6443", None);
        check("", None);
    }

    #[tokio::test]
    async fn a_connection_on_which_nothing_arrives_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server: Server = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let stream = server.dial().await.unwrap();
        assert_eq!(getsockopt(&stream, sockopt::TcpUserTimeout).unwrap(), 10_000);
    }

    #[test]
    fn watches_of_single_objects_are_apart() {
        let check = |query: &str, expected: bool| assert_eq!(is_single_watch(query), expected, "{query}");
        check("watch=true&fieldSelector=metadata.name%3Da", true);
        check("&watch=1&fieldSelector=metadata.name=a", true);
        check("watch=true&fieldSelector=spec.nodeName%3Da", false);
        check("fieldSelector=metadata.name%3Da", false);
        let shards: std::collections::BTreeSet<_> = (0..50).map(|n| shard("/api/v1/configmaps", &n.to_string())).collect();
        assert_eq!(shards.len(), SINGLES);
    }
}
