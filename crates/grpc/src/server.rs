//! A server of calls at a Unix socket. Who may open the socket is said by its directory; who does may still be hostile, so that
//! connections, calls, messages and times are bounded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::listen::accepted;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{BoxStream, FuturesUnordered};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};

use crate::authority::AnyAuthority;
use crate::{Code, Error, frame_of, message_of, percent_encoded};

/// What clients can have of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at a time; more wait.
    pub connections: usize,
    /// Most calls of one connection at a time.
    pub calls: u32,
    /// Most bytes of a request.
    pub request: usize,
    /// How long a connection may last; clients take its end for nothing special.
    pub life: Duration,
}

impl Limits {
    /// Those for programs that seldom say little.
    pub fn few(life: Duration) -> Self {
        Self { connections: 32, calls: 8, request: 64 << 10, life }
    }
}

/// How long a call may take to be read.
const READ: Duration = Duration::from_secs(10);
/// Most bytes of the text of a failure, in a header.
const MESSAGE: usize = 4096;

/// What answers calls.
pub trait Service: Send + Sync + 'static {
    /// Answers the call of `method`, such as `/v1beta1.Registration/Register`, with an encoded message.
    fn call(&self, method: &str, message: Bytes) -> impl Future<Output = Result<Vec<u8>, Error>> + Send;

    /// The encoded messages of a method that is answered by many; none for every other one.
    fn messages(&self, _method: &str, _message: &Bytes) -> Option<Messages> {
        None
    }
}

/// Encoded messages, one after another. An error is the last of them.
pub type Messages = BoxStream<'static, Result<Vec<u8>, Error>>;

/// What a call is answered with.
enum Answer {
    One(Vec<u8>),
    Many(Messages),
}

type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;

/// A method that is not there.
pub fn unimplemented(method: &str) -> Error {
    Error { code: Code::Unimplemented, message: format!("unknown method {method}") }
}

/// Reads the message of a call.
///
/// # Errors
/// It is not one.
pub fn decode<A: Message + Default>(message: Bytes) -> Result<A, Error> {
    A::decode(message).map_err(|error| Error { code: Code::InvalidArgument, message: error.to_string() })
}

/// Serves until it is dropped.
pub async fn serve<S: Service>(listener: UnixListener, service: Arc<S>, limits: Limits) -> Infallible {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            (stream, _) = accepted(|| listener.accept()), if connections.len() < limits.connections => {
                connections.push(connection(stream, service.clone(), limits));
            }
            Some(()) = connections.next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection<S: Service>(stream: UnixStream, service: Arc<S>, limits: Limits) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(response(answer(&*service, request, limits.request).await)) }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(limits.calls).max_header_list_size(16 << 10);
    let served = builder.serve_connection(TokioIo::new(AnyAuthority::new(stream)), answer);
    // What goes wrong on a connection is the client's.
    let _ = tokio::time::timeout(limits.life, served).await;
}

async fn answer<S: Service>(service: &S, request: Request<Incoming>, most: usize) -> Result<Answer, Error> {
    let method = request.uri().path().to_owned();
    let read = tokio::time::timeout(READ, Limited::new(request.into_body(), most).collect()).await;
    let late = |_| Error { code: Code::DeadlineExceeded, message: "the request does not end".to_owned() };
    let body = read.map_err(late)?.map_err(|error| Error { code: Code::InvalidArgument, message: error.to_string() })?;
    let message = message_of(body.to_bytes())?;
    match service.messages(&method, &message) {
        Some(messages) => Ok(Answer::Many(messages)),
        None => service.call(&method, message).await.map(Answer::One),
    }
}

/// An answer, or an error, as gRPC has them: the status comes last.
fn response(outcome: Result<Answer, Error>) -> Response<AnswerBody> {
    let messages = match outcome {
        Ok(Answer::One(message)) => futures::stream::once(async { Ok(message) }).boxed(),
        Ok(Answer::Many(messages)) => messages,
        Err(error) => futures::stream::once(async { Err(error) }).boxed(),
    };
    let frames = futures::stream::unfold(Some(messages), |messages| async {
        let mut messages = messages?;
        Some(match messages.next().await {
            Some(Ok(message)) => (Frame::data(frame_of(&message)), Some(messages)),
            Some(Err(error)) => (Frame::trailers(trailers(Err(error))), None),
            None => (Frame::trailers(trailers(Ok(()))), None),
        })
    });
    let mut response = Response::new(StreamBody::new(frames.map(Ok)).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The text of a failure as a header has it. What does not fit is cut off: clients refuse an answer whose headers are too long, with its code.
fn message(text: &str) -> String {
    let mut header = String::new();
    for character in text.chars() {
        let encoded = percent_encoded(character.encode_utf8(&mut [0; 4]));
        if header.len() + encoded.len() > MESSAGE {
            return header + "...";
        }
        header.push_str(&encoded);
    }
    header
}

fn trailers(outcome: Result<(), Error>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let code = match outcome {
        Ok(()) => 0,
        Err(error) => {
            if let Ok(text) = HeaderValue::from_str(&message(&error.message)) {
                trailers.insert("grpc-message", text);
            }
            error.code.number()
        }
    };
    trailers.insert("grpc-status", HeaderValue::from(code));
    trailers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Endpoint;

    struct Echo;

    impl Service for Echo {
        async fn call(&self, method: &str, message: Bytes) -> Result<Vec<u8>, Error> {
            match method {
                "/t.T/Echo" => Ok(decode::<String>(message)?.encode_to_vec()),
                other => Err(unimplemented(other)),
            }
        }

        fn messages(&self, method: &str, message: &Bytes) -> Option<Messages> {
            let encoded = |text: &str| Ok(text.to_owned().encode_to_vec());
            match (method, decode::<String>(message.clone()).ok()?.as_str()) {
                ("/t.T/Many", "long") => {
                    let error = Error { code: Code::NotFound, message: "\u{e4} ".repeat(1 << 20) };
                    Some(futures::stream::iter([Err(error)]).boxed())
                }
                ("/t.T/Many", "fail") => Some(futures::stream::iter([encoded("one"), Err(unimplemented("two"))]).boxed()),
                ("/t.T/Many", text) => {
                    Some(futures::stream::iter(text.chars().map(|c| encoded(&c.to_string())).collect::<Vec<_>>()).boxed())
                }
                _ => None,
            }
        }
    }

    /// Reads an answer to its end.
    async fn read(endpoint: &Endpoint, text: &str) -> (Vec<String>, Option<Code>) {
        let mut messages = endpoint.stream::<_, String>("/t.T/Many", &text.to_owned(), Duration::from_secs(20)).await.unwrap();
        let mut read = Vec::new();
        loop {
            match messages.next().await {
                Ok(Some(message)) => read.push(message),
                Ok(None) => return (read, None),
                Err(error) => return (read, Some(error.code)),
            }
        }
    }

    #[tokio::test]
    async fn calls_are_answered_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let server = serve(UnixListener::bind(&path).unwrap(), Arc::new(Echo), Limits::few(Duration::from_secs(60)));
        let endpoint = Endpoint::new(path.to_str().unwrap());
        let limit = Duration::from_secs(20);
        let calls = async {
            let text = |length: usize| "n".repeat(length);
            let call = async |method: &str, length| {
                let answer: Result<String, _> = endpoint.call(method, &text(length), limit).await;
                answer.map(|answer| answer.len()).map_err(|error| error.code)
            };
            assert_eq!(call("/t.T/Echo", 1000).await, Ok(1000));
            assert_eq!(call("/t.T/Other", 1).await, Err(Code::Unimplemented));
            assert_eq!(call("/t.T/Echo", 64 << 10).await, Err(Code::InvalidArgument));
            let mut messages = endpoint.stream::<_, String>("/t.T/Echo", &text(5), limit).await.unwrap();
            assert_eq!(messages.next().await.unwrap().map(|text| text.len()), Some(5));
            assert_eq!(messages.next().await.unwrap(), None);
            assert_eq!(read(&endpoint, "abc").await, (["a", "b", "c"].map(str::to_owned).to_vec(), None));
            assert_eq!(read(&endpoint, "fail").await, (vec!["one".to_owned()], Some(Code::Unimplemented)));
            // gRPC's C library takes headers of 8 KiB (`GRPC_ARG_MAX_METADATA_SIZE`).
            let mut messages = endpoint.stream::<_, String>("/t.T/Many", &"long".to_owned(), limit).await.unwrap();
            let error = messages.next().await.unwrap_err();
            assert_eq!(error.code, Code::NotFound);
            assert!(error.message.ends_with("...") && error.message.len() < 4096, "{}", error.message.len());
        };
        tokio::select! {
            ended = server => panic!("{ended:?}"),
            () = calls => {}
        }
    }
}
