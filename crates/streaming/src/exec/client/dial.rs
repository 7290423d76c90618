//! From the address of a session to a raw connection.

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Error;
use crate::exec::V4;
use crate::upgrade::{SPDY, STREAM_PROTOCOL, Socket, upgrades_to};

/// Most bytes of the head of an answer.
const MAX_HEAD: usize = 64 << 10;
/// Most bytes of what a server says of a refusal.
const MAX_TEXT: usize = 1 << 10;

/// Connects and switches to SPDY.
pub(super) async fn dial(url: &str) -> Result<Socket, Error> {
    let uri: Uri = url.parse().map_err(|_| Error::Address)?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(Error::Tls),
        _ => return Err(Error::Address),
    }
    let (host, port) = (uri.host().filter(|host| !host.is_empty()).ok_or(Error::Address)?, uri.port_u16().unwrap_or(80));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(HOST, format!("{host}:{port}"))
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, SPDY)
        .header(STREAM_PROTOCOL, V4)
        .body(Empty::<Bytes>::new())
        .map_err(|_| Error::Address)?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
    let switching = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(response).await);
        }
        let spoken = response.headers().get(STREAM_PROTOCOL).is_some_and(|protocol| protocol == V4);
        if !spoken || !upgrades_to(response.headers(), SPDY) {
            return Err(Error::Protocol);
        }
        Ok(TokioIo::new(hyper::upgrade::on(response).await?))
    };
    tokio::pin!(switching);
    // The connection ends when it is taken over; where it breaks before, the request is told.
    tokio::select! {
        switched = &mut switching => switched,
        _ = connection.with_upgrades() => switching.await,
    }
}

async fn refused(response: Response<Incoming>) -> Error {
    let (status, mut body, mut text) = (response.status(), response.into_body(), Vec::new());
    while text.len() < MAX_TEXT
        && let Some(Ok(frame)) = body.frame().await
    {
        text.extend_from_slice(frame.data_ref().map(|data| &data[..]).unwrap_or_default());
    }
    text.truncate(MAX_TEXT);
    let text: String = String::from_utf8_lossy(&text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Error::Refused { status, text: text.trim().to_owned() }
}
