//! gRPC over Unix sockets, both ways: how a kubelet and its plugins talk. As a client of plugins there is a connection for
//! each call, since calls are few and plugins are replaced while we run; of a container runtime there is one for all.
//!
//! | module | what |
//! |---|---|
//! | [`channel`] | one connection for all calls |
//! | [`stream`] | the messages of an answer that goes on |
//! | [`server`] | unary calls that plugins make |

mod authority;
pub mod channel;
pub mod server;
pub mod stream;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use prost::Message;
use tokio::net::UnixStream;

pub use channel::Channel;
pub use stream::Messages;

/// Most bytes of an answer; the limit of other gRPC clients.
const ANSWER: usize = 4 << 20;
/// Most bytes of headers, in which errors are told; the limit of other gRPC clients.
const HEADERS: u32 = 16 << 20;
/// Length of what stands before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Why a call failed, by the codes of gRPC. Only those are named that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The deadline passed.
    DeadlineExceeded,
    /// What is asked about is not there.
    NotFound,
    /// Not at this time.
    Aborted,
    /// What is asked for makes no sense.
    InvalidArgument,
    /// The driver does not know the call.
    Unimplemented,
    /// Nobody answers.
    Unavailable,
    /// Another one.
    Other(i32),
}

impl Code {
    fn of(number: i32) -> Self {
        match number {
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            10 => Self::Aborted,
            12 => Self::Unimplemented,
            14 => Self::Unavailable,
            other => Self::Other(other),
        }
    }

    /// The number of a code.
    fn number(self) -> i32 {
        match self {
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::Aborted => 10,
            Self::Unimplemented => 12,
            Self::Unavailable => 14,
            Self::Other(number) => number,
        }
    }

    /// As upstream's events write it.
    fn name(self) -> &'static str {
        match self {
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::NotFound => "NotFound",
            Self::Aborted => "Aborted",
            Self::InvalidArgument => "InvalidArgument",
            Self::Unimplemented => "Unimplemented",
            Self::Unavailable => "Unavailable",
            Self::Other(1) => "Canceled",
            Self::Other(6) => "AlreadyExists",
            Self::Other(7) => "PermissionDenied",
            Self::Other(8) => "ResourceExhausted",
            Self::Other(9) => "FailedPrecondition",
            Self::Other(11) => "OutOfRange",
            Self::Other(13) => "Internal",
            Self::Other(15) => "DataLoss",
            Self::Other(16) => "Unauthenticated",
            Self::Other(_) => "Unknown",
        }
    }

    /// Whether the call may still be under way, or may have had its effect (CSI specification, "Timeouts").
    pub fn is_uncertain(self) -> bool {
        matches!(self, Self::DeadlineExceeded | Self::Aborted | Self::Unavailable | Self::Other(1))
    }
}

/// A call that failed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("rpc error: code = {} desc = {message}", code.name())]
pub struct Error {
    /// The kind of failure.
    pub code: Code,
    /// What the driver says.
    pub message: String,
}

impl Error {
    fn unavailable(error: impl std::fmt::Display) -> Self {
        Self { code: Code::Unavailable, message: error.to_string() }
    }

    fn unknown(message: &str) -> Self {
        Self { code: Code::Other(2), message: message.to_owned() }
    }
}

/// A connection that is held; it is over when the other side has ended it.
pub type Held = BoxFuture<'static, ()>;

/// Who listens at a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

impl Endpoint {
    /// At a path, which may also be written as a URL.
    pub fn new(path: &str) -> Self {
        Self(PathBuf::from(path.strip_prefix("unix://").or_else(|| path.strip_prefix("unix:")).unwrap_or(path)))
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Calls `method`, such as `/csi.v1.Node/NodeGetInfo`.
    ///
    /// # Errors
    /// Nobody answers in time, or the answer is an error.
    pub async fn call<A: Message, B: Message + Default>(&self, method: &str, request: &A, limit: Duration) -> Result<B, Error> {
        match tokio::time::timeout(limit, self.exchange(method, frame(request))).await {
            Ok(answer) => B::decode(answer?).map_err(|error| Error::unknown(&format!("the answer to {method}: {error}"))),
            Err(_) => Err(Error { code: Code::DeadlineExceeded, message: "context deadline exceeded".to_owned() }),
        }
    }

    /// Calls `method`, whose answer is one message after another. The limit is for the begin of the answer.
    ///
    /// # Errors
    /// Nobody answers in time.
    pub async fn stream<A: Message, B: Message + Default>(
        &self,
        method: &str,
        request: &A,
        limit: Duration,
    ) -> Result<Messages<B>, Error> {
        let begin = async {
            let (mut sender, connection) = self.connect().await?;
            let response = sender.send_request(post(method, frame(request))?);
            let mut connection = Box::pin(connection);
            let response = tokio::select! {
                response = response => response.map_err(Error::unavailable)?,
                _ = &mut connection => return Err(Error::unavailable("the connection was closed")),
            };
            Ok(Messages::new(response, sender, connection))
        };
        match tokio::time::timeout(limit, begin).await {
            Ok(messages) => messages,
            Err(_) => Err(Error { code: Code::DeadlineExceeded, message: "context deadline exceeded".to_owned() }),
        }
    }

    /// Connects, and holds the connection until the other side ends it, as when its process does: what is given waits for that.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn hold(&self) -> Result<Held, Error> {
        let (sender, connection) = self.connect().await?;
        Ok(Box::pin(async move {
            // How it ends makes no difference.
            let _ = connection.await;
            drop(sender);
        }))
    }

    async fn connect(&self) -> Result<(Sender, Connection), Error> {
        let stream = UnixStream::connect(&self.0).await;
        let stream = stream.map_err(|error| Error::unavailable(format!("dial unix {}: {error}", self.0.display())))?;
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.max_header_list_size(HEADERS);
        builder.handshake(TokioIo::new(stream)).await.map_err(Error::unavailable)
    }

    async fn exchange(&self, method: &str, message: Bytes) -> Result<Bytes, Error> {
        let (mut sender, connection) = self.connect().await?;
        let request = post(method, message)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(Error::unavailable)?;
            let early = response.headers().clone();
            let body = Limited::new(response.into_body(), ANSWER).collect().await.map_err(Error::unavailable)?;
            judge(&early, body.trailers())?;
            Ok(body.to_bytes())
        };
        tokio::pin!(answer, connection);
        // The connection is driven here, not by a task of its own; it may end before its last answer has been read.
        let whole = tokio::select! {
            whole = &mut answer => whole,
            _ = &mut connection => answer.await,
        };
        message_of(whole?)
    }
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;
type Connection = hyper::client::conn::http2::Connection<TokioIo<UnixStream>, Full<Bytes>, TokioExecutor>;

fn post(method: &str, message: Bytes) -> Result<Request<Full<Bytes>>, Error> {
    let request = Request::post(format!("http://localhost{method}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers");
    request.body(Full::new(message)).map_err(Error::unavailable)
}

/// A message with its length before it.
fn frame(message: &impl Message) -> Bytes {
    frame_of(&message.encode_to_vec())
}

fn frame_of(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// The message of an answer that has one.
fn message_of(mut frame: Bytes) -> Result<Bytes, Error> {
    if frame.len() < PREFIX {
        return Err(Error::unknown("the answer has no message"));
    }
    if frame.get_u8() != 0 {
        return Err(Error::unknown("the answer is compressed, which nobody asked for"));
    }
    match usize::try_from(frame.get_u32()) {
        Ok(length) if length == frame.len() => Ok(frame),
        _ => Err(Error::unknown("the answer is not one message")),
    }
}

/// What the end of an answer says; an answer without a body says it at its begin.
fn judge(early: &HeaderMap, trailers: Option<&HeaderMap>) -> Result<(), Error> {
    let find = |name: &str| {
        let value = trailers.and_then(|trailers| trailers.get(name)).or_else(|| early.get(name));
        value.and_then(|value| value.to_str().ok())
    };
    match find("grpc-status").and_then(|status| status.parse::<i32>().ok()) {
        Some(0) => Ok(()),
        Some(number) => {
            Err(Error { code: Code::of(number), message: find("grpc-message").map(percent_decoded).unwrap_or_default() })
        }
        None => Err(Error::unknown("the answer has no status: this is not gRPC")),
    }
}

/// What stands as it is in a message of gRPC in headers: printable ASCII but the sign of what does not.
const PRINTABLE: &AsciiSet = &CONTROLS.add(b'%');

/// A message as gRPC writes it in headers.
fn percent_encoded(text: &str) -> String {
    utf8_percent_encode(text, PRINTABLE).to_string()
}

/// A message as gRPC writes it in headers: bytes that are no printable ASCII as `%XX`.
fn percent_decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    #[test]
    fn ends_of_answers() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        let check = |early: &[_], trailers: Option<&[_]>, expected: Result<(), &str>| {
            let judged = judge(&headers(early), trailers.map(headers).as_ref());
            assert_eq!(judged.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
        };
        check(&[], Some(&[("grpc-status", "0")]), Ok(()));
        check(&[("grpc-status", "0")], None, Ok(()));
        let text = "rpc error: code = NotFound desc = no volume: \u{e4}%";
        check(&[], Some(&[("grpc-status", "5"), ("grpc-message", "no volume: %C3%A4%")]), Err(text));
        check(&[("grpc-status", "13")], None, Err("rpc error: code = Internal desc = "));
        check(&[], None, Err("rpc error: code = Unknown desc = the answer has no status: this is not gRPC"));
    }

    #[test]
    fn messages_of_answers() {
        let check = |bytes: &'static [u8], expected: Option<&'static [u8]>| {
            assert_eq!(message_of(Bytes::from_static(bytes)).ok().as_deref(), expected, "{bytes:?}");
        };
        check(&[0, 0, 0, 0, 2, 8, 1], Some(&[8, 1]));
        check(&[0, 0, 0, 0, 0], Some(&[]));
        check(&[1, 0, 0, 0, 2, 8, 1], None);
        check(&[0, 0, 0, 0, 3, 8, 1], None);
        check(&[0, 0, 0, 0, 1, 8, 1], None);
        check(&[], None);
        assert_eq!(&frame(&"n".to_owned())[..], [0, 0, 0, 0, 3, 10, 1, b'n']);
    }

    /// A process that is killed leaves its socket's file.
    #[tokio::test]
    async fn a_connection_ends_with_the_other_side() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dra.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let endpoint = Endpoint::new(&path.display().to_string());
        let (held, accepted) = tokio::join!(endpoint.hold(), listener.accept());
        let mut ended = held.unwrap();
        let (other, _) = accepted.unwrap();
        assert!((&mut ended).now_or_never().is_none());
        drop((other, listener));
        ended.await;
        assert!(path.exists() && endpoint.hold().await.is_err());
    }

    #[tokio::test]
    async fn nobody_listens_or_nobody_answers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("csi.sock");
        let endpoint = Endpoint::new(&format!("unix://{}", path.display()));
        let call = || endpoint.call::<_, String>("/csi.v1.Node/NodeGetInfo", &(), Duration::from_millis(200));
        assert_eq!(call().await.unwrap_err().code, Code::Unavailable);
        let _silent = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(call().await.unwrap_err().code, Code::DeadlineExceeded);
    }
}
