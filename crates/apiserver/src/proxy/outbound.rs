//! One request to another server, upgrades included: the bytes of an upgraded connection are copied both ways, unread.

use std::any::Any;

use base::tasks::{OnFailure, Tasks};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::{Body, BoxError, RequestBody};
use crate::remote::HEADERS;
use crate::respond;

const HOP_BY_HOP: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// What is sent in the place of a client's request.
pub(crate) fn request(
    parts: &Parts,
    path: &str,
    authority: &str,
    body: RequestBody,
) -> Result<Request<RequestBody>, http::Error> {
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
    headers.insert(HOST, HeaderValue::try_from(authority)?);
    Ok(request)
}

/// Sends a request over a new connection, and hands back the answer. Something is held until what comes back has ended.
pub(crate) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<RequestBody>,
    parts: &Parts,
    tasks: &Tasks,
    held: Box<dyn Any + Send>,
) -> Result<Response<Body>, hyper::Error> {
    let (mut sender, connection) = http1::Builder::new().max_headers(HEADERS).handshake(TokioIo::new(stream)).await?;
    tasks.spawn_until_cancelled("proxied connection", OnFailure::Log, async move {
        // Its end is told by the body or by the upgrade.
        let _ = connection.with_upgrades().await;
        Ok::<_, std::convert::Infallible>(())
    });
    let asked = streaming::is_upgrade(request.headers());
    let mut response = sender.send_request(request).await?;
    if asked && response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (near, far) = (upgrade_of(parts), hyper::upgrade::on(&mut response));
        let (parts, _) = response.into_parts();
        if let Some(near) = near {
            tasks.spawn_until_cancelled("proxied upgrade", OnFailure::Log, async move {
                let _held = held;
                splice(near, far).await
            });
        }
        return Ok(Response::from_parts(parts, Body::Empty));
    }
    let mut response = passed_on(response);
    response.body_mut().hold(held);
    Ok(response)
}

/// The answer of another server, without what concerns the connection to it. One that switches to another protocol unasked is not passed
/// on: the client would take what follows on its connection for that protocol.
pub(crate) fn passed_on<B>(response: Response<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let text = "the backend tried to switch to another protocol, which was not requested";
        return respond::text(StatusCode::BAD_GATEWAY, text.to_owned());
    }
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    parts.headers.remove(CONNECTION);
    Response::from_parts(parts, Body::Proxied(body.map_err(Into::into).boxed_unsync()))
}

fn strip(headers: &mut HeaderMap) {
    // A length beside a coding of the transfer says nothing (RFC 9112, 6.3).
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(name)));
}

/// The upgrade behind a request whose parts are borrowed.
fn upgrade_of(parts: &Parts) -> Option<hyper::upgrade::OnUpgrade> {
    parts.extensions.get::<hyper::upgrade::OnUpgrade>().cloned()
}

async fn splice(near: hyper::upgrade::OnUpgrade, far: hyper::upgrade::OnUpgrade) -> Result<(), hyper::Error> {
    let (near, far) = tokio::try_join!(near, far)?;
    // Either side may break the connection whenever it likes.
    streaming::join::splice(TokioIo::new(near), TokioIo::new(far)).await;
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
        let body = RequestBody::new(Empty::new().map_err(|never| match never {}));
        let request = request(&parts, "/x", "10.0.0.1:80", body).unwrap();
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

    /// Go's `httputil.ReverseProxy`, which upstream's proxies are: "backend tried to switch protocol when none was requested".
    #[test]
    fn a_protocol_is_not_switched_unasked() {
        let check = |code: u16, expected: u16| {
            let response = Response::builder().status(code).body(Empty::<Bytes>::new()).unwrap();
            assert_eq!(passed_on(response).status().as_u16(), expected);
        };
        check(101, 502);
        check(200, 200);
        check(426, 426);
    }
}
