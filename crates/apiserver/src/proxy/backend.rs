//! One request to another server, upgrades included: the bytes of an upgraded connection are copied both ways, unread.

use std::sync::Arc;

use base::tasks::{OnFailure, Tasks};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body::{Body, RequestBody};
use crate::metrics::load::Ongoing;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const HOP_BY_HOP: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// Where a request goes.
pub(super) struct Backend {
    pub(super) host: String,
    pub(super) port: u16,
    /// TLS, if it is spoken.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

impl Backend {
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    async fn dial(&self) -> std::io::Result<Box<dyn Duplex>> {
        let connecting = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            let Some(config) = &self.tls else { return Ok(Box::new(stream) as Box<dyn Duplex>) };
            let name = ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
            Ok(Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?) as Box<dyn Duplex>)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }

    /// Sends the request with another path and hands back the answer. The error says what to tell the user.
    pub(super) async fn send(
        &self,
        parts: &Parts,
        path: &str,
        body: RequestBody,
        tasks: &Tasks,
        ongoing: Option<Arc<Ongoing>>,
    ) -> Result<Response<Body>, String> {
        let unreachable = |error: &dyn std::fmt::Display| format!("dial tcp {}: {error}", self.authority());
        let stream = self.dial().await.map_err(|error| unreachable(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
        tasks.spawn_until_cancelled("proxied connection", OnFailure::Log, async move {
            // Its end is told by the body or by the upgrade.
            let _ = connection.with_upgrades().await;
            Ok::<_, std::convert::Infallible>(())
        });
        let request = self.request(parts, path, body).map_err(|error| error.to_string())?;
        let mut response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let (near, far) = (upgrade_of(parts), hyper::upgrade::on(&mut response));
            let (parts, _) = response.into_parts();
            if let Some(near) = near {
                tasks.spawn_until_cancelled("proxied upgrade", OnFailure::Log, async move {
                    let _ongoing = ongoing;
                    splice(near, far).await
                });
            }
            return Ok(Response::from_parts(parts, Body::Empty));
        }
        let (mut parts, body) = response.into_parts();
        strip(&mut parts.headers);
        parts.headers.remove(CONNECTION);
        Ok(Response::from_parts(parts, Body::Proxied(body.map_err(Into::into).boxed_unsync())))
    }

    fn request(&self, parts: &Parts, path: &str, body: RequestBody) -> Result<Request<RequestBody>, http::Error> {
        let mut request = Request::builder().method(parts.method.clone()).uri(path.parse::<Uri>()?).body(body)?;
        *request.headers_mut() = parts.headers.clone();
        let headers = request.headers_mut();
        // A length beside a transfer encoding is what smuggled requests are made of.
        if headers.contains_key(TRANSFER_ENCODING) {
            headers.remove(CONTENT_LENGTH);
        }
        strip(headers);
        if !streaming::is_upgrade(headers) {
            headers.remove(CONNECTION);
            headers.remove(UPGRADE);
        }
        // The credentials are for this server, and nobody is to believe a client's word on who it is.
        let own = |name: &&HeaderName| {
            let front_proxy = ["x-remote-user", "x-remote-uid", "x-remote-group"].contains(&name.as_str());
            let prefixed = ["impersonate-", "x-remote-extra-"].iter().any(|prefix| name.as_str().starts_with(prefix));
            **name == AUTHORIZATION || front_proxy || prefixed
        };
        let own: Vec<HeaderName> = headers.keys().filter(own).cloned().collect();
        own.iter().for_each(|name| drop(headers.remove(name)));
        headers.insert(HOST, HeaderValue::try_from(self.authority())?);
        Ok(request)
    }
}

fn strip(headers: &mut HeaderMap) {
    HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(name)));
}

/// The upgrade behind a request whose parts are borrowed.
fn upgrade_of(parts: &Parts) -> Option<hyper::upgrade::OnUpgrade> {
    parts.extensions.get::<hyper::upgrade::OnUpgrade>().cloned()
}

async fn splice(near: hyper::upgrade::OnUpgrade, far: hyper::upgrade::OnUpgrade) -> Result<(), hyper::Error> {
    let (near, far) = tokio::try_join!(near, far)?;
    // Either side may break the connection whenever it likes.
    let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::Empty;

    /// The headers `Name: value` that reach the other server.
    fn check(headers: &[(&str, &str)], expected: &[&str]) {
        let mut builder = Request::builder().uri("/api/v1/namespaces/n/pods/p/proxy/x");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let (parts, ()) = builder.body(()).unwrap().into_parts();
        let backend = Backend { host: "10.0.0.1".into(), port: 80, tls: None };
        let body = RequestBody::new(Empty::new().map_err(|never| match never {}));
        let request = backend.request(&parts, "/x", body).unwrap();
        let mut got: Vec<String> =
            request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        got.sort();
        assert_eq!(got, expected);
    }

    #[test]
    fn headers() {
        let host = "host: 10.0.0.1:80";
        check(&[("authorization", "Bearer t"), ("impersonate-user", "u"), ("accept", "a")], &["accept: a", host]);
        check(&[("x-remote-user", "root"), ("x-remote-group", "system:masters"), ("x-remote-extra-a", "b")], &[host]);
        check(&[("content-length", "5"), ("transfer-encoding", "chunked")], &[host]);
        check(&[("content-length", "5")], &["content-length: 5", host]);
        check(
            &[("connection", "close, upgrade"), ("upgrade", "x"), ("te", "trailers")],
            &["connection: close, upgrade", host, "upgrade: x"],
        );
        check(&[("connection", "keep-alive"), ("keep-alive", "timeout=5")], &[host]);
    }
}
