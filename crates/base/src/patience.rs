//! A connection that does not take what is written to it ends after a while. Otherwise whoever asks for much and reads nothing holds
//! it in memory for ever. Streams are exempt: who follows logs or a watch may look at a page for as long as they like.

use std::fmt::Display;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// How long a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// For its first request. Neither version of HTTP bounds the wait for the very first byte.
    pub first: Duration,
    /// To finish what it does once it is asked to end.
    pub drain: Duration,
}

/// Runs a connection to its end. `asked` tells that a request has come, `leave` that it should end, which `shut_down` begins. The error says why
/// it did not end well.
pub async fn hold<C, E>(
    connection: C,
    times: Times,
    asked: &CancellationToken,
    leave: &CancellationToken,
    shut_down: impl FnOnce(Pin<&mut C>),
) -> Result<(), String>
where
    C: Future<Output = Result<(), E>>,
    E: Display,
{
    let mut connection = std::pin::pin!(connection);
    let silent = async {
        if tokio::time::timeout(times.first, asked.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = silent => return Err("no request in time".into()),
        () = leave.cancelled() => {
            shut_down(connection.as_mut());
            match tokio::time::timeout(times.drain, connection).await {
                Ok(result) => result,
                Err(_) => return Ok(()),
            }
        }
    };
    result.map_err(|error| error.to_string())
}

/// A transport whose writes may wait so long.
pub struct Patient<I> {
    io: I,
    limit: Duration,
    exempt: Arc<AtomicBool>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<I> Patient<I> {
    /// Once `exempt` is set, writes may wait for ever.
    pub fn new(io: I, limit: Duration, exempt: Arc<AtomicBool>) -> Self {
        Self { io, limit, exempt, waiting: None }
    }

    fn bound<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() || self.exempt.load(Ordering::Relaxed) {
            self.waiting = None;
            return result;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Patient<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Patient<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.bound(cx, result)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bytes);
        self.bound(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.bound(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_shutdown(cx);
        self.bound(cx, result)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn connections_end() {
        let short = Duration::from_millis(5);
        let check = async |asked: bool, leave: bool, expected: Result<(), &str>| {
            let tokens = (CancellationToken::new(), CancellationToken::new());
            for (token, is_cancelled) in [(&tokens.0, asked), (&tokens.1, leave)] {
                if is_cancelled {
                    token.cancel();
                }
            }
            let (end, ended) = tokio::sync::oneshot::channel::<()>();
            let connection = async { ended.await.map_err(|_| "it was cut off") };
            let times = Times { first: short, drain: short };
            let held = hold(Box::pin(connection), times, &tokens.0, &tokens.1, |_| drop(end)).await;
            assert_eq!(held, expected.map_err(str::to_owned), "{asked} {leave}");
        };
        check(false, false, Err("no request in time")).await;
        check(true, true, Err("it was cut off")).await;
        // What does not end by itself is left after a while.
        let (asked, leave) = (CancellationToken::new(), CancellationToken::new());
        leave.cancel();
        let endless = std::future::pending::<Result<(), &str>>();
        assert_eq!(hold(endless, Times { first: short, drain: short }, &asked, &leave, |_| {}).await, Ok(()));
        let over = std::future::ready(Ok::<(), &str>(()));
        let (asked, leave) = (CancellationToken::new(), CancellationToken::new());
        assert_eq!(hold(over, Times { first: short, drain: short }, &asked, &leave, |_| {}).await, Ok(()));
    }

    #[tokio::test]
    async fn who_reads_nothing_is_left() {
        let limit = Duration::from_millis(5);
        let check = async |exempt: bool, expected: Option<io::ErrorKind>| {
            let (mut client, server) = tokio::io::duplex(16);
            let mut server = Patient::new(server, limit, Arc::new(AtomicBool::new(exempt)));
            server.write_all(b"some").await.unwrap();
            let written = tokio::time::timeout(limit * 100, server.write_all(&[0; 64])).await;
            assert_eq!(written.ok().map(|result| result.unwrap_err().kind()), expected);
            client.read_exact(&mut [0; 16]).await.unwrap();
        };
        check(false, Some(io::ErrorKind::TimedOut)).await;
        check(true, None).await;
    }
}
