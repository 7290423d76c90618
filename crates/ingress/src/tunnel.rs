//! Connections that have changed to another protocol: bytes pass in both directions until one side is done, or both are silent for too long.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes under way in one direction.
const BUFFER: usize = 16 << 10;

/// Connects a client with a back end when both have changed their protocol.
pub(crate) async fn run(client: OnUpgrade, backend: OnUpgrade, silence: Duration) -> io::Result<()> {
    let (client, backend) = tokio::try_join!(client, backend).map_err(io::Error::other)?;
    between(TokioIo::new(client), TokioIo::new(backend), silence).await
}

/// Takes bytes between two sockets. Unless both sides are done, both are reset: whoever has half an answer must not take it for the whole.
pub(crate) async fn between_sockets(client: TcpStream, backend: TcpStream, silence: Duration) -> io::Result<()> {
    let mut both = Resetting { client, backend, is_done: false };
    let result = between(&mut both.client, &mut both.backend, silence).await;
    both.is_done = result.is_ok();
    result
}

/// Two sockets that are reset when this is dropped before they are done, as when they have to make room for others.
struct Resetting {
    client: TcpStream,
    backend: TcpStream,
    is_done: bool,
}

impl Drop for Resetting {
    fn drop(&mut self) {
        if !self.is_done {
            // Without the option they end, which says less.
            let _ = self.client.set_zero_linger();
            let _ = self.backend.set_zero_linger();
        }
    }
}

/// Takes bytes from each to the other.
pub(crate) async fn between<A, B>(client: A, backend: B, silence: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let clock = Clock::new();
    let (client_out, client_in) = tokio::io::split(client);
    let (backend_out, backend_in) = tokio::io::split(backend);
    let both = async { tokio::try_join!(pump(client_out, backend_in, &clock), pump(backend_out, client_in, &clock)) };
    tokio::select! {
        result = both => result.map(drop),
        () = clock.silent_for(silence) => Ok(()),
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, clock: &Clock) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
        clock.moved();
    }
}

/// When something was last on its way.
pub(crate) struct Clock {
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
}

impl Clock {
    /// Now.
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    /// Something is on its way.
    pub(crate) fn moved(&self) {
        self.last.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns when nothing was on its way for so long.
    pub(crate) async fn silent_for(&self, limit: Duration) {
        loop {
            let last = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed));
            if last.elapsed() >= limit {
                return;
            }
            tokio::time::sleep_until((last + limit).into()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn both_directions_until_done_or_silent() {
        let (mut client, a) = tokio::io::duplex(64);
        let (mut backend, b) = tokio::io::duplex(64);
        let talk = async {
            client.write_all(b"ping").await.unwrap();
            let mut text = [0; 4];
            backend.read_exact(&mut text).await.unwrap();
            backend.write_all(&text).await.unwrap();
            client.read_exact(&mut text).await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(backend.read(&mut text).await.unwrap(), 0);
            backend.shutdown().await.unwrap();
            text
        };
        let (ended, text) = tokio::join!(between(a, b, Duration::from_secs(60)), talk);
        assert_eq!((ended.is_ok(), &text), (true, b"ping"));
        let (_client, a) = tokio::io::duplex(64);
        let (_backend, b) = tokio::io::duplex(64);
        assert!(between(a, b, Duration::from_millis(5)).await.is_ok());
    }

    /// Both ends of a connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    async fn exchange(from: &mut TcpStream, to: &mut TcpStream, bytes: &mut [u8; 4]) {
        from.write_all(b"half").await.unwrap();
        to.read_exact(bytes).await.unwrap();
    }

    /// What a side reads after the other side has sent half an answer and was reset, or after the tunnel was given up.
    async fn cut(back_end_is_cut: bool, given_up: bool) -> io::Result<usize> {
        let ((client, a), (backend, b)) = (pair().await, pair().await);
        let (cut, mut stays) = if back_end_is_cut { (backend, client) } else { (client, backend) };
        let mut cut = Some(cut);
        let mut half = [0; 4];
        let tunnel = between_sockets(a, b, Duration::from_secs(60));
        let (half, cut, stays) = (&mut half, &mut cut, &mut stays);
        if given_up {
            tokio::select! {
                result = tunnel => panic!("{result:?}"),
                () = exchange(cut.as_mut().unwrap(), stays, half) => {}
            }
        } else {
            let exchange = async {
                exchange(cut.as_mut().unwrap(), stays, half).await;
                cut.take().unwrap().set_zero_linger().unwrap();
            };
            assert!(tokio::join!(tunnel, exchange).0.is_err());
        }
        stays.read(half).await
    }

    #[tokio::test]
    async fn a_reset_is_passed_on_as_a_reset() {
        for (back_end_is_cut, given_up) in [(true, false), (false, false), (true, true), (false, true)] {
            let read = cut(back_end_is_cut, given_up).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{back_end_is_cut} {given_up}");
        }
    }
}
