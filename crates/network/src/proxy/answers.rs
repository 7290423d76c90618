//! Answers over plain HTTP to whoever asks how things are: one for each connection, which is short.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::listen::{Listener, accepted};
use base::tasks::{OnFailure, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections to one port at once. They are short: of more, those that came first make room, so that nobody who says nothing keeps others waiting.
pub(super) const MOST: usize = 64;
/// How long a port that is somebody else's is waited for.
pub(super) const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Status code and its text.
    pub(super) status: &'static str,
    pub(super) media_type: &'static str,
    /// Further headers.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(is_good: bool, body: String) -> Self {
        let status = if is_good { "200 OK" } else { "503 Service Unavailable" };
        Self { status, media_type: "application/json", headers: Vec::new(), body }
    }

    pub(super) fn text(body: impl Into<String>) -> Self {
        Self { status: "200 OK", media_type: "text/plain; charset=utf-8", headers: Vec::new(), body: body.into() }
    }

    pub(super) fn not_found() -> Self {
        Self { status: "404 Not Found", ..Self::text("404 page not found\n") }
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { status, media_type, headers, body } = self;
        let mut text = format!("HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nX-Content-Type-Options: nosniff\r\n");
        for (name, value) in headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        text.into_bytes()
    }
}

/// Answers a path.
pub(super) type Answering = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// Listens at an address, and waits for it as long as somebody else has it; each try that fails is told by `failed`.
pub(super) async fn listen(address: SocketAddr, failed: impl Fn(&io::Error)) -> Listener {
    let mut retry = RETRY_MIN;
    loop {
        match Listener::bind(address) {
            Ok(listener) => return listener,
            Err(error) => failed(&error),
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
}

/// Answers whoever connects, until dropped. `what` is what the tasks are called.
pub(super) async fn serve(listener: Listener, tasks: Tasks, what: &'static str, answering: Answering) -> Infallible {
    let mut open: VecDeque<DropGuard> = VecDeque::with_capacity(MOST + 1);
    loop {
        let (stream, _) = accepted(|| listener.accept()).await;
        let (ends, answering) = (CancellationToken::new(), answering.clone());
        let answered = ends.clone().run_until_cancelled_owned(async move {
            // An answer that does not arrive is noticed by who asks.
            let _ = tokio::time::timeout(REQUEST_TIMEOUT, answer(stream, &answering)).await;
        });
        tasks.spawn_until_cancelled(what, OnFailure::Log, async {
            answered.await;
            Ok::<_, Infallible>(())
        });
        open.push_back(ends.drop_guard());
        if open.len() > MOST {
            open.pop_front();
        }
    }
}

async fn answer(mut stream: TcpStream, answering: &Answering) -> io::Result<()> {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < 8192 {
        match stream.read(&mut chunk).await? {
            0 => return Ok(()),
            length => request.extend_from_slice(&chunk[..length]),
        }
    }
    stream.write_all(&answering(path(&request)).bytes()).await?;
    stream.shutdown().await
}

/// The path of a request, without its query.
fn path(request: &[u8]) -> &str {
    let target = request.split(|byte| byte.is_ascii_whitespace()).nth(1).unwrap_or_default();
    std::str::from_utf8(target).ok().and_then(|target| target.split('?').next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |request: &str, expected: &str| assert_eq!(path(request.as_bytes()), expected, "{request:?}");
        check("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "/healthz");
        check("GET /livez?verbose=1 HTTP/1.0\r\n\r\n", "/livez");
        check("GET\r\n\r\n", "");
        check("", "");
    }
}
