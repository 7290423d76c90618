//! Exec and attach: standard streams, terminal sizes, and how it ended.

pub mod client;

use std::future::Future;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use http::{Request, Response};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};

use crate::upgrade::{self, Accepted, Refusal, Transport};
use crate::websocket::{self, Channel, Encoding, Way};
use crate::{Error, LINGER, OPEN_TIMEOUT, PIPE, Stream, ended, resize, spdy};

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V4_BASE64: &str = "v4.base64.channel.k8s.io";
const V1: &str = "channel.k8s.io";
const V1_BASE64: &str = "base64.channel.k8s.io";

/// The streams that the client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; never with a terminal, which has one output.
    pub stderr: bool,
    /// A terminal, with sizes.
    pub tty: bool,
}

/// How the command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran and exited with this code; 0 is success.
    Exit(i32),
    /// It could not be run, or was lost; why.
    Failed(String),
}

/// One exec or attach.
pub struct Session {
    /// What the client types; at its end the client has closed it.
    pub stdin: Option<Stream>,
    /// To the client.
    pub stdout: Option<Stream>,
    /// To the client.
    pub stderr: Option<Stream>,
    /// `(width, height)` of the client's terminal, latest last; ends when the client goes away.
    pub resize: mpsc::Receiver<(u16, u16)>,
    /// Ends the session.
    pub finisher: Finisher,
}

/// Tells the client how the command ended. Dropped unused, the client sees a lost connection.
pub struct Finisher(oneshot::Sender<Outcome>);

impl Finisher {
    /// Sends the outcome after everything that was written to the streams. Drop or shut down the outputs first.
    pub fn finish(self, outcome: Outcome) {
        // The client may be gone: then nobody is left to tell.
        let _ = self.0.send(outcome);
    }

    /// Returns when the client is gone.
    pub async fn closed(&mut self) {
        self.0.closed().await;
    }
}

impl Streams {
    /// Reads the query of an API request (`stdin=true&stdout=true&tty=true`) or of a kubelet request (`input=1`...).
    pub fn from_query(query: &str) -> Self {
        let mut streams = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
            let on = !matches!(value, "" | "0" | "false" | "False" | "f");
            match name {
                "stdin" | "input" => streams.stdin = on,
                "stdout" | "output" => streams.stdout = on,
                "stderr" | "error" => streams.stderr = on,
                "tty" => streams.tty = on,
                _ => {}
            }
        }
        streams.stderr &= !streams.tty;
        streams
    }
}

/// Accepts the upgrade: answer with the response, then wait for the session. `tasks` runs the connection.
pub fn accept<B>(
    request: &mut Request<B>,
    streams: Streams,
    tasks: &Tasks,
) -> Result<(Response<()>, impl Future<Output = Result<Session, Error>> + Send + use<B>), Refusal> {
    let accepted = upgrade::negotiate(request, &[V5, V4, V4_BASE64, V1, V1_BASE64, ""], &[V4])?;
    let Accepted { transport, protocol, response, upgrade } = accepted;
    let (ready, session) = oneshot::channel();
    tasks.spawn_until_cancelled("exec stream", OnFailure::Log, async move {
        let io = upgrade::socket(upgrade).await?;
        ended(match transport {
            Transport::Spdy => over_spdy(io, streams, ready).await,
            Transport::WebSocket => over_websocket(io, streams, protocol, ready).await,
        })
    });
    Ok((response, async move { session.await.map_err(|_| Error::Closed) }))
}

/// The connection's ends of the session's streams.
#[derive(Default)]
struct Parts {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Parts {
    fn slot(&mut self, name: &str) -> Option<&mut Option<Stream>> {
        Some(match name {
            "error" => &mut self.error,
            "stdin" => &mut self.stdin,
            "stdout" => &mut self.stdout,
            "stderr" => &mut self.stderr,
            "resize" => &mut self.resize,
            _ => return None,
        })
    }

    fn complete(&self, streams: Streams) -> bool {
        self.error.is_some()
            && (!streams.stdin || self.stdin.is_some())
            && (!streams.stdout || self.stdout.is_some())
            && (!streams.stderr || self.stderr.is_some())
            && (!streams.tty || self.resize.is_some())
    }
}

async fn over_spdy<S>(io: S, streams: Streams, ready: oneshot::Sender<Session>) -> Result<(), Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (sender, mut opened) = mpsc::channel::<spdy::Opened>(8);
    let session = async {
        let mut parts = Parts::default();
        let collecting = async {
            while !parts.complete(streams) {
                let opened = opened.recv().await.ok_or(Error::Closed)?;
                if let Some(slot) = parts.slot(opened.header("streamtype")) {
                    *slot = Some(opened.stream);
                }
            }
            Ok::<(), Error>(())
        };
        tokio::time::timeout(OPEN_TIMEOUT, collecting).await.map_err(|_| Error::Timeout)??;
        converse(parts, true, ready).await;
        tokio::time::sleep(LINGER).await;
        Ok(())
    };
    // A session ends soon after its client is gone: it is handed over in one step, and nobody is left to hear more of it.
    spdy::serve(io, sender, session, Duration::ZERO).await
}

async fn over_websocket<S>(io: S, streams: Streams, protocol: &str, ready: oneshot::Sender<Session>) -> Result<(), Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let encoding = if matches!(protocol, V4_BASE64 | V1_BASE64) { Encoding::Base64 } else { Encoding::Binary };
    let mut socket = upgrade::websocket(io, true).await;
    // An empty message on the first output says that the session is there, before the command says anything.
    let first = if streams.stdout {
        1
    } else if streams.stderr {
        2
    } else {
        3
    };
    // A client that takes nothing any more may have said something before.
    let _ = futures::SinkExt::send(&mut socket, websocket::encode(first, b"", encoding)).await;
    let wanted = [
        (0, "stdin", streams.stdin, Way::In),
        (1, "stdout", streams.stdout, Way::Out),
        (2, "stderr", streams.stderr, Way::Out),
        (3, "error", true, Way::Out),
        (4, "resize", streams.tty, Way::In),
    ];
    let (mut parts, mut channels) = (Parts::default(), Vec::new());
    for (id, name, _, way) in wanted.into_iter().filter(|(_, _, wanted, _)| *wanted) {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        channels.push(Channel { id, stream: ours, way });
        if let Some(slot) = parts.slot(name) {
            *slot = Some(theirs);
        }
    }
    let structured = matches!(protocol, V5 | V4 | V4_BASE64);
    let session = async {
        converse(parts, structured, ready).await;
        std::future::pending::<()>().await;
    };
    // The session is handed over first: a client may have said all and be gone when it is looked at for the first time.
    tokio::select! {
        biased;
        () = session => Ok(()),
        result = websocket::serve(socket, channels, encoding) => result,
    }
}

/// Hands the session over and waits for its end.
async fn converse(parts: Parts, structured: bool, ready: oneshot::Sender<Session>) {
    let (sizes, resize) = mpsc::channel(16);
    let (finisher, outcome) = oneshot::channel();
    let Parts { error, stdin, stdout, stderr, resize: resize_stream } = parts;
    let session = Session { stdin, stdout, stderr, resize, finisher: Finisher(finisher) };
    if ready.send(session).is_err() {
        return;
    }
    let sizing = async {
        match resize_stream {
            Some(stream) => resize::forward(stream, sizes).await,
            None => drop(sizes),
        }
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = outcome => outcome.unwrap_or_else(|_| Outcome::Failed("the session was lost".into())),
        () = sizing => return,
    };
    if let Some(mut error) = error {
        // A client that is gone does not read how the command ended.
        let _ = error.write_all(&report(&outcome, structured)).await;
        let _ = error.shutdown().await;
    }
}

/// What the error stream carries: since v4 a `metav1.Status`, before that text for failures only.
fn report(outcome: &Outcome, structured: bool) -> Vec<u8> {
    let failure = match outcome {
        Outcome::Exit(0) => None,
        Outcome::Exit(code) => Some(format!("command terminated with non-zero exit code: exit status {code}")),
        Outcome::Failed(why) => Some(why.clone()),
    };
    if !structured {
        return failure.unwrap_or_default().into_bytes();
    }
    let status: Value = match (outcome, failure) {
        (_, None) => json!({"metadata": {}, "status": "Success"}),
        (Outcome::Exit(code), Some(message)) => json!({
            "metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        (Outcome::Failed(_), Some(message)) => json!({
            "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError",
            "details": {"causes": [{"message": message}]}, "code": 500,
        }),
    };
    status.to_string().into_bytes()
}

#[cfg(test)]
mod tests;
