//! From an HTTP request to a raw connection: which protocol the client speaks, and the 101 that accepts it.

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::Error;
use crate::websocket::pieces::Pieces;

pub(crate) const SPDY: &str = "SPDY/3.1";
pub(crate) const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Bytes of a session's messages that are kept while its process reads nothing, and of one of them: those of clients come in pieces.
pub(crate) const MAX_MESSAGE: usize = 1 << 20;

/// A request that is not one of the upgrades served here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// 400 or 403.
    pub status: StatusCode,
    /// For people.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

/// How the streams travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    Spdy,
}

/// An accepted upgrade.
pub(crate) struct Accepted {
    pub(crate) transport: Transport,
    /// The negotiated subprotocol; empty when a WebSocket client offered none.
    pub(crate) protocol: &'static str,
    pub(crate) response: Response<()>,
    pub(crate) upgrade: hyper::upgrade::OnUpgrade,
}

/// Whether the request asks for any protocol switch.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// Whether the request asks for WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    is_upgrade(headers) && upgrades_to(headers, "websocket")
}

/// Whether a protocol is among those that are switched to.
pub(crate) fn upgrades_to(headers: &HeaderMap, protocol: &str) -> bool {
    tokens(headers, &UPGRADE).any(|token| token.eq_ignore_ascii_case(protocol))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Negotiates the transport and the subprotocol: the client's first one that is served.
pub(crate) fn negotiate<B>(
    request: &mut Request<B>,
    websocket: &[&'static str],
    spdy: &[&'static str],
) -> Result<Accepted, Refusal> {
    let headers = request.headers();
    if !is_upgrade(headers) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "Upgrade request required"));
    }
    let (transport, protocol, response) = if is_websocket(headers) {
        let offered: Vec<_> = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
        let protocol = if offered.is_empty() && websocket.contains(&"") { Some("") } else { choose(&offered, websocket) };
        let protocol = protocol.ok_or_else(|| unsupported(&offered, websocket))?;
        (Transport::WebSocket, protocol, websocket_response(headers, protocol)?)
    } else if upgrades_to(headers, SPDY) {
        let offered: Vec<_> = tokens(headers, &STREAM_PROTOCOL).collect();
        let protocol = choose(&offered, spdy).ok_or_else(|| unsupported(&offered, spdy))?;
        (Transport::Spdy, protocol, spdy_response(protocol))
    } else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "unable to upgrade: the protocol is not WebSocket or SPDY/3.1"));
    };
    Ok(Accepted { transport, protocol, response, upgrade: hyper::upgrade::on(request) })
}

/// Accepts a WebSocket for messages that have no subprotocol. The client's first one is confirmed: browsers close a
/// connection whose server chose none of theirs.
pub(crate) fn any_websocket<B>(request: &mut Request<B>) -> Result<(Response<()>, hyper::upgrade::OnUpgrade), Refusal> {
    let headers = request.headers();
    if !is_websocket(headers) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "Upgrade request required"));
    }
    let first = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).next().unwrap_or_default();
    let response = websocket_response(headers, first)?;
    Ok((response, hyper::upgrade::on(request)))
}

fn choose(offered: &[&str], served: &[&'static str]) -> Option<&'static str> {
    offered.iter().find_map(|name| served.iter().find(|served| *served == name).copied())
}

fn unsupported(offered: &[&str], served: &[&str]) -> Refusal {
    let message = format!("unable to negotiate protocol: client supports {offered:?}, server accepts {served:?}");
    Refusal::new(StatusCode::FORBIDDEN, message)
}

fn websocket_response(headers: &HeaderMap, protocol: &str) -> Result<Response<()>, Refusal> {
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "the Sec-WebSocket-Key header is missing"))?;
    let mut response = switching("websocket");
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()))
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the Sec-WebSocket-Key header is not valid"))?;
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if !protocol.is_empty() {
        let protocol = HeaderValue::try_from(protocol)
            .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the Sec-WebSocket-Protocol header is not valid"))?;
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

fn spdy_response(protocol: &'static str) -> Response<()> {
    let mut response = switching(SPDY);
    response.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    response
}

fn switching(protocol: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(protocol));
    response
}

pub(crate) type Socket = TokioIo<Upgraded>;

/// Waits for the connection behind the 101.
pub(crate) async fn socket(upgrade: hyper::upgrade::OnUpgrade) -> Result<Socket, Error> {
    Ok(TokioIo::new(upgrade.await?))
}

/// The server's end of a WebSocket over an upgraded connection. Large messages are read in pieces, where each begins with a channel if messages do.
pub(crate) async fn websocket<S>(io: S, channels: bool) -> WebSocketStream<Pieces<S>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE)).write_buffer_size(0);
    WebSocketStream::from_raw_socket(Pieces::new(io, channels), Role::Server, Some(config)).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(headers: &[(&str, &str)], expected: Result<(Transport, &str), StatusCode>) {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let accepted = negotiate(&mut request, &["v5.channel.k8s.io", "v4.channel.k8s.io", ""], &["v4.channel.k8s.io"]);
        let got = accepted.map(|a| (a.transport, a.protocol)).map_err(|refusal| refusal.status);
        assert_eq!(got, expected, "{headers:?}");
    }

    #[test]
    fn negotiation() {
        let ws = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
        let with = |extra: (&'static str, &'static str)| [ws.as_slice(), &[extra]].concat();
        check(&ws, Ok((Transport::WebSocket, "")));
        let offer = with(("sec-websocket-protocol", "v4.channel.k8s.io, v5.channel.k8s.io"));
        check(&offer, Ok((Transport::WebSocket, "v4.channel.k8s.io")));
        check(&with(("sec-websocket-protocol", "v9")), Err(StatusCode::FORBIDDEN));
        check(&ws[..2], Err(StatusCode::BAD_REQUEST));
        check(&ws[..1], Err(StatusCode::BAD_REQUEST));
        let any = |extra: Option<&str>| {
            let pairs = ws.iter().copied().chain(extra.map(|protocols| ("sec-websocket-protocol", protocols)));
            let pairs = pairs.map(|(name, value)| (HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap()));
            let mut request = Request::new(());
            *request.headers_mut() = pairs.collect();
            let (response, _) = any_websocket(&mut request).unwrap();
            response.headers().get(SEC_WEBSOCKET_PROTOCOL).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!((any(None), any(Some("x, y")).as_deref()), (None, Some("x")));
        let spdy = [("connection", "keep-alive, upgrade"), ("upgrade", "SPDY/3.1")];
        check(&spdy, Err(StatusCode::FORBIDDEN));
        let offer = ("x-stream-protocol-version", "v4.channel.k8s.io");
        check(&[spdy[0], spdy[1], ("x-stream-protocol-version", "v9"), offer], Ok((Transport::Spdy, offer.1)));
    }
}
