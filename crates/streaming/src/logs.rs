//! A response body over WebSocket: `binary.k8s.io` or `base64.binary.k8s.io`, one message per chunk.

use base64::Engine;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::ready;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tokio_tungstenite::tungstenite::Message;

use crate::upgrade::{self, Refusal};
use crate::{Error, websocket};

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

/// Sends a body until its end.
pub type Copying = futures::future::BoxFuture<'static, Result<(), Error>>;

/// Accepts the upgrade. The future sends the body that it is given, to its end or until the client goes away.
pub fn accept<B, D>(request: &mut Request<B>) -> Result<(Response<()>, impl FnOnce(D) -> Copying + use<B, D>), Refusal>
where
    D: Body<Data = Bytes> + Send + Unpin + 'static,
    D::Error: std::fmt::Display + Send,
{
    let accepted = upgrade::negotiate(request, &[BINARY, BASE64, ""], &[])?;
    let base64 = accepted.protocol == BASE64;
    let copy = move |body: D| -> Copying {
        Box::pin(async move {
            let socket = upgrade::websocket(upgrade::socket(accepted.upgrade).await?, false).await;
            let data = body.into_data_stream().take_while(|data| ready(data.is_ok()));
            websocket::send_all(socket, data.filter_map(|data| ready(data.ok().map(|data| message(data, base64))))).await
        })
    };
    Ok((accepted.response, copy))
}

fn message(data: Bytes, base64: bool) -> Message {
    match base64 {
        true => Message::Text(base64::engine::general_purpose::STANDARD.encode(&data).into()),
        false => Message::Binary(data),
    }
}
