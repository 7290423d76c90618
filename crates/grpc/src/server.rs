//! A server of unary calls at a Unix socket. Who may open the socket is said by its directory; who does may still be hostile, so that
//! connections, calls, messages and times are bounded.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};

use crate::authority::AnyAuthority;
use crate::{Code, Error, frame_of, message_of, percent_encoded};

/// Most connections at a time; more wait.
const CONNECTIONS: usize = 32;
/// Most calls of one connection at a time.
const CALLS: u32 = 8;
/// Most bytes of a request.
const REQUEST: usize = 64 << 10;
/// How long a call may take to be read.
const READ: Duration = Duration::from_secs(10);

/// What answers calls.
pub trait Service: Send + Sync + 'static {
    /// Answers the call of `method`, such as `/v1beta1.Registration/Register`, with an encoded message.
    fn call(&self, method: &str, message: Bytes) -> impl Future<Output = Result<Vec<u8>, Error>> + Send;
}

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

/// Serves until it is dropped. A connection ends after `life`, which clients take for nothing special.
///
/// # Errors
/// The socket is of no use any more.
pub async fn serve<S: Service>(listener: UnixListener, service: Arc<S>, life: Duration) -> Result<(), io::Error> {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                connections.push(connection(accepted?.0, service.clone(), life));
            }
            Some(()) = connections.next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection<S: Service>(stream: UnixStream, service: Arc<S>, life: Duration) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(response(answer(&*service, request).await)) }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(CALLS).max_header_list_size(16 << 10);
    let served = builder.serve_connection(TokioIo::new(AnyAuthority::new(stream)), answer);
    // What goes wrong on a connection is the client's.
    let _ = tokio::time::timeout(life, served).await;
}

async fn answer<S: Service>(service: &S, request: Request<Incoming>) -> Result<Vec<u8>, Error> {
    let method = request.uri().path().to_owned();
    let read = tokio::time::timeout(READ, Limited::new(request.into_body(), REQUEST).collect()).await;
    let late = |_| Error { code: Code::DeadlineExceeded, message: "the request does not end".to_owned() };
    let body = read.map_err(late)?.map_err(|error| Error { code: Code::InvalidArgument, message: error.to_string() })?;
    service.call(&method, message_of(body.to_bytes())?).await
}

/// An answer, or an error, as gRPC has them: the status comes last.
fn response(outcome: Result<Vec<u8>, Error>) -> Response<impl Body<Data = Bytes, Error = Infallible>> {
    let mut trailers = HeaderMap::new();
    let (message, code) = match outcome {
        Ok(message) => (frame_of(&message), 0),
        Err(error) => {
            if let Ok(text) = HeaderValue::from_str(&percent_encoded(&error.message)) {
                trailers.insert("grpc-message", text);
            }
            (Bytes::new(), error.code.number())
        }
    };
    trailers.insert("grpc-status", HeaderValue::from(code));
    let body = Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
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
    }

    #[tokio::test]
    async fn calls_are_answered_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let server = serve(UnixListener::bind(&path).unwrap(), Arc::new(Echo), Duration::from_secs(60));
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
            assert_eq!(call("/t.T/Echo", REQUEST).await, Err(Code::InvalidArgument));
            let mut messages = endpoint.stream::<_, String>("/t.T/Echo", &text(5), limit).await.unwrap();
            assert_eq!(messages.next().await.unwrap().map(|text| text.len()), Some(5));
            assert_eq!(messages.next().await.unwrap(), None);
        };
        tokio::select! {
            ended = server => panic!("{ended:?}"),
            () = calls => {}
        }
    }
}
