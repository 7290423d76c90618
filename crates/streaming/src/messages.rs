//! A stream of messages over WebSocket, one way: the events of a watch for browsers.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{Request, Response};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::upgrade::{self, Refusal};
use crate::{Error, websocket};

/// Sends messages until their end, or until the client goes away.
pub type Sending = futures::future::BoxFuture<'static, Result<(), Error>>;

/// Starts to send, once the answer to the handshake is on its way.
pub type Send = Box<dyn FnOnce(BoxStream<'static, Bytes>) -> Sending + std::marker::Send>;

/// Accepts the upgrade, whatever subprotocol the client offers. What the client sends is read and forgotten. Messages are
/// sent as text where they are `text`.
pub fn accept<B>(request: &mut Request<B>, text: bool) -> Result<(Response<()>, Send), Refusal> {
    let (response, upgraded) = upgrade::any_websocket(request)?;
    let send: Send = Box::new(move |messages: BoxStream<'static, Bytes>| -> Sending {
        Box::pin(async move {
            let socket = upgrade::websocket(upgrade::socket(upgraded).await?, false).await;
            crate::ended(websocket::send_all(socket, messages.map(|bytes| message(bytes, text))).await)
        })
    });
    Ok((response, send))
}

fn message(bytes: Bytes, text: bool) -> Message {
    match Utf8Bytes::try_from(bytes.clone()) {
        Ok(utf8) if text => Message::Text(utf8),
        _ => Message::Binary(bytes),
    }
}
