//! SPDY/3.1, both ends, as far as Kubernetes uses it: streams that the client opens, data, half-close, reset and ping.
//!
//! There is no flow control on purpose. The one library that still speaks this protocol (moby/spdystream, in clients and in
//! container runtimes) sends no WINDOW_UPDATE and expects none; waiting for a window would stop every transfer at 64 KiB.
//! The connection under it holds back a sender, and each stream's pipe is bounded.

mod connection;
mod frame;
mod headers;

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub(crate) use connection::{Direction, Opened, open};
#[cfg(test)]
pub(crate) use frame::{Frame, Head, Reader, Writer};

/// Drives the connection until the client closes it or `consumer` ends, which takes the streams from the other end of `opened`. A client that
/// has opened its streams, said all and gone is heard all the same: `consumer` takes what was opened before, and has `patience` to do so.
pub(crate) async fn serve<S>(
    io: S,
    opened: mpsc::Sender<Opened>,
    consumer: impl Future<Output = Result<(), crate::Error>>,
    patience: Duration,
) -> Result<(), crate::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut consumer = pin!(consumer);
    tokio::select! {
        result = connection::serve(io, opened) => {
            // Polls the consumer before it looks at the time. What the consumer says of a client that is gone concerns nobody.
            let _ = tokio::time::timeout(patience, consumer).await;
            result.map_err(crate::Error::from)
        }
        result = &mut consumer => result,
    }
}
