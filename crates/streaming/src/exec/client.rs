//! The client's end of exec and attach: at the streaming server of a container runtime, which names an address for each session.
//!
//! SPDY/3.1 and no WebSocket: containerd and CRI-O serve both, but their WebSocket has no way to end standard input before the
//! connection (that came with `v5.channel.k8s.io`), for which commands such as `cat` wait.
//!
//! The server is not trusted with this process: what it sends is bounded by the pipes of the streams, its answers have a time, and
//! where it breaks off or tells no outcome, that is a failure and no success.

mod dial;

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use futures::future::{MaybeDone, maybe_done};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{Outcome, Streams};
use crate::join::Process;
use crate::spdy::{self, Direction};
use crate::{LINGER, OPEN_TIMEOUT, Stream};

/// How long is waited for a server.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For its answer, and then for it to accept the streams.
    begin: Duration,
    /// For it to end the streams after the report.
    end: Duration,
}

const PATIENCE: Patience = Patience { begin: OPEN_TIMEOUT, end: LINGER };
/// Most bytes of a report of how a command ended.
const MAX_REPORT: u64 = 64 << 10;

/// A session that did not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("the address that the container runtime gives for the session is not of the form http://HOST:PORT/PATH")]
    Address,
    /// Which nobody serves without a certificate of the runtime's own.
    #[error(
        "the container runtime serves its streams by TLS, which is not supported: configure it to serve them without, on loopback"
    )]
    Tls,
    /// Nobody answers there.
    #[error("the streaming server of the container runtime: {0}")]
    Io(#[from] io::Error),
    /// It does not speak HTTP.
    #[error("the streaming server of the container runtime: {0}")]
    Http(#[from] hyper::Error),
    /// It serves something else, or not this session.
    #[error("the streaming server of the container runtime answers {status}: {text}")]
    Refused {
        /// Its answer.
        status: http::StatusCode,
        /// The beginning of what it says of that.
        text: String,
    },
    /// It switches to another protocol.
    #[error("the streaming server of the container runtime does not speak SPDY/3.1 with v4.channel.k8s.io")]
    Protocol,
    /// It answers, but has not accepted all streams.
    #[error("the streaming server of the container runtime has ended the connection before it accepted the streams")]
    Closed,
    /// It does not go on.
    #[error("the streaming server of the container runtime does not answer")]
    Timeout,
}

/// Begins the session at an address that a runtime has given. It lasts for as long as [`Process::exit`] is polled, and ends with it,
/// whether it has ended or was dropped.
///
/// # Errors
/// The server does not answer in time, not as it should, or not with this session.
pub async fn connect(url: &str, streams: Streams) -> Result<Process, Error> {
    let io = tokio::time::timeout(PATIENCE.begin, dial::dial(url)).await.map_err(|_| Error::Timeout)??;
    open(io, streams, PATIENCE).await
}

/// Opens the streams on a connection.
async fn open<S>(io: S, streams: Streams, patience: Patience) -> Result<Process, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    use Direction::{In, Out};
    let kinds = [
        ("error", In, true),
        ("stdin", Out, streams.stdin),
        ("stdout", In, streams.stdout),
        ("stderr", In, streams.stderr),
        ("resize", Out, streams.tty),
    ];
    let kinds: Vec<_> = kinds.iter().filter(|(_, _, wanted)| *wanted).map(|(kind, direction, _)| (*kind, *direction)).collect();
    let (opened, mut accepted, connection) = spdy::open(io, &kinds);
    let mut connection = Box::pin(maybe_done(connection));
    let accepting = async {
        tokio::select! {
            accepted = &mut accepted => accepted.is_ok(),
            // A short command may have ended already.
            () = &mut connection => accepted.try_recv().is_ok(),
        }
    };
    if !tokio::time::timeout(patience.begin, accepting).await.map_err(|_| Error::Timeout)? {
        return Err(connection.as_mut().take_output().and_then(Result::err).map_or(Error::Closed, Error::Io));
    }
    let mut opened: Vec<_> = kinds.iter().map(|(kind, _)| *kind).zip(opened).collect();
    let mut take = |kind: &str| Some(opened.remove(opened.iter().position(|(of, _)| *of == kind)?).1);
    let (error, terminal) = (take("error").ok_or(Error::Closed)?, take("resize"));
    let (resize, sizes) = mpsc::channel(16);
    let exit = async move {
        tokio::select! {
            outcome = converse(connection, error, patience.end) => outcome,
            never = forward(sizes, terminal) => match never {},
        }
    };
    Ok(Process {
        stdin: take("stdin").map(|stream| Box::pin(stream) as _),
        stdout: take("stdout").map(|stream| Box::pin(stream) as _),
        stderr: take("stderr").map(|stream| Box::pin(stream) as _),
        resize,
        exit: Box::pin(exit),
    })
}

/// Drives the connection until the server has told how the command ended, and ended the streams.
async fn converse<C>(mut connection: Pin<Box<MaybeDone<C>>>, error: Stream, patience: Duration) -> Outcome
where
    C: Future<Output = io::Result<()>>,
{
    let mut reading = std::pin::pin!(read_report(error));
    let report = tokio::select! {
        report = &mut reading => {
            // Output comes before the report. A server that ends no stream after it does not hold up the session.
            let _ = tokio::time::timeout(patience, &mut connection).await;
            report
        }
        () = &mut connection => reading.await,
    };
    match (report, connection.as_mut().take_output()) {
        (Some(outcome), _) => outcome,
        (None, Some(Err(error))) => Outcome::Failed(format!("the connection to the container runtime has broken: {error}")),
        (None, _) => Outcome::Failed("the container runtime has ended the session without telling how it ended".to_owned()),
    }
}

async fn read_report(error: Stream) -> Option<Outcome> {
    let mut text = Vec::new();
    // A stream of this process: its end is all that can happen to it.
    let _ = error.take(MAX_REPORT + 1).read_to_end(&mut text).await;
    match text.len() as u64 {
        0 => None,
        1..=MAX_REPORT => Some(parse(&text)),
        _ => Some(Outcome::Failed(format!("the container runtime tells how the session ended in more than {MAX_REPORT} bytes"))),
    }
}

/// What the `metav1.Status` of the error stream says (`v4.channel.k8s.io`).
fn parse(text: &[u8]) -> Outcome {
    let Ok(status) = serde_json::from_slice::<Value>(text) else {
        return Outcome::Failed("the container runtime tells in no known form how the session ended".to_owned());
    };
    if status["status"] == "Success" {
        return Outcome::Exit(0);
    }
    let causes = status["details"]["causes"].as_array().filter(|_| status["reason"] == "NonZeroExitCode");
    let code = causes.into_iter().flatten().find(|cause| cause["reason"] == "ExitCode");
    let code = code.and_then(|cause| cause["message"].as_str()?.parse().ok()).filter(|code| *code != 0);
    let message = status["message"].as_str().filter(|message| !message.is_empty());
    match code {
        Some(code) => Outcome::Exit(code),
        None => Outcome::Failed(message.unwrap_or("the container runtime does not tell why the session failed").to_owned()),
    }
}

/// Sends the sizes of the terminal.
async fn forward(mut sizes: mpsc::Receiver<(u16, u16)>, terminal: Option<Stream>) -> Infallible {
    if let Some(mut stream) = terminal {
        while let Some((width, height)) = sizes.recv().await {
            let size = json!({"Width": width, "Height": height}).to_string();
            if stream.write_all(size.as_bytes()).await.is_err() {
                break;
            }
        }
    }
    drop(sizes);
    std::future::pending().await
}

#[cfg(test)]
mod tests;
