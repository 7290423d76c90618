//! The server's end of `kubectl exec`, `attach`, `port-forward`, and of logs and watches over WebSocket; and the client's end of
//! exec and attach at a container runtime ([`exec::client`]).
//!
//! Two transports carry several byte streams over one upgraded connection: WebSocket with a channel byte per message
//! (KEP-4006) and SPDY/3.1 with a SYN_STREAM per stream, which can itself travel inside WebSocket messages. What comes
//! out is the same for all of them: a [`exec::Session`] or [`portforward::Connection`]s made of in-memory pipes.

pub mod exec;
pub mod join;
pub mod logs;
pub mod messages;
pub mod portforward;
mod resize;
mod spdy;
mod upgrade;
mod websocket;

pub use upgrade::{Refusal, is_upgrade, is_websocket};

/// One byte stream of a session: a pipe to the task that drives the connection. Shutting it down, or dropping it,
/// ends the stream at the client.
pub type Stream = tokio::io::DuplexStream;

/// Bytes that a pipe holds before its writer waits.
const PIPE: usize = 64 << 10;

/// How long a client may take to open the streams that it asked for.
const OPEN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// How long a process may read nothing of what a client has said: upstream's default of `streaming-connection-idle-timeout`.
const IDLE: std::time::Duration = std::time::Duration::from_secs(4 * 3600);

/// How long a process has to read what a client has said before it went.
pub const LAST: std::time::Duration = std::time::Duration::from_secs(30);

/// How long the connection stays after the last byte, for the client to close it.
const LINGER: std::time::Duration = std::time::Duration::from_secs(30);

/// Why a streaming connection ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection could not be taken over from HTTP.
    #[error("upgrade: {0}")]
    Upgrade(#[from] hyper::Error),
    /// The transport failed.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// The WebSocket peer broke the protocol or went away.
    #[error("websocket: {0}")]
    WebSocket(#[from] tokio_tungstenite::tungstenite::Error),
    /// The client did not open its streams in time.
    #[error("timed out waiting for the client to create its streams")]
    Timeout,
    /// The connection ended before the session could start.
    #[error("the client closed the connection")]
    Closed,
}

impl Error {
    /// Whether the client just went away. Most do: Go's clients close the socket without ending TLS or WebSocket first.
    fn is_hang_up(&self) -> bool {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
        use tokio_tungstenite::tungstenite::Error as WebSocket;
        let kind = match self {
            Self::Io(error) | Self::WebSocket(WebSocket::Io(error)) => error.kind(),
            Self::WebSocket(WebSocket::ConnectionClosed | WebSocket::AlreadyClosed) | Self::Closed => return true,
            _ => return false,
        };
        matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
    }
}

/// Ends our half of a connection and waits for the client to end the other half. Some clients wait for bytes and not for
/// what these bytes say: they see the end of a stream or a close frame only when the connection ends. What the client
/// still sends is read, since a connection that is closed over it is reset, and loses what the client has not read.
async fn hang_up<S>(connection: &mut S) -> Result<(), Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    tokio::io::AsyncWriteExt::shutdown(connection).await?;
    let rest = tokio::time::timeout(LINGER, tokio::io::copy(connection, &mut tokio::io::sink())).await;
    rest.map_or(Ok(()), |copied| Ok(copied.map(drop)?))
}

/// The end of a connection, where a client that went away is a good one.
fn ended(result: Result<(), Error>) -> Result<(), Error> {
    result.or_else(|error| if error.is_hang_up() { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_goes_away_is_no_failure() {
        let eof = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let refused = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        assert!(ended(Err(eof().into())).is_ok());
        assert!(ended(Err(tokio_tungstenite::tungstenite::Error::Io(eof()).into())).is_ok());
        assert!(ended(Err(refused().into())).is_err());
        assert!(ended(Err(Error::Timeout)).is_err());
    }
}
