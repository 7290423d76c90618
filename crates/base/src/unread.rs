//! Requests that are answered before their body has been read: a refusal, a wrong path. Over HTTP/1.1 the rest of the body stands before the
//! next request, so that the connection cannot go on as it is. hyper closes it and tells nobody, and the next request of a client that keeps its
//! connections fails. As Go's server does, a small rest is read for nothing, and for a larger one the answer says `Connection: close`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Buf, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, EXPECT, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode, Version};
use parking_lot::Mutex;

/// Bytes that are read for nothing (net/http: `maxPostHandlerReadBytes`).
const MOST: u64 = 256 << 10;
/// How long the rest of a body may take. What a client sends along with its request is there by then; who sends slowly gets a new connection, and
/// holds nothing.
const PATIENCE: Duration = Duration::from_millis(200);

/// A body that the server has back when its reader lets go of it before its end.
#[derive(Debug)]
pub struct Lent<B = Incoming> {
    /// None once it has been given back.
    body: Option<B>,
    is_begun: bool,
    /// None where the server has no use for it.
    back: Option<Back<B>>,
}

type Back<B> = Arc<Mutex<Option<Unread<B>>>>;

/// A body whose end nobody has read.
#[derive(Debug)]
struct Unread<B> {
    body: B,
    is_begun: bool,
}

impl<B: Body + Unpin> Body for Lent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let lent = self.get_mut();
        let Some(body) = &mut lent.body else { return Poll::Ready(None) };
        lent.is_begun = true;
        let polled = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = &polled {
            lent.back = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> Drop for Lent<B> {
    fn drop(&mut self) {
        if let (Some(back), Some(body)) = (self.back.take(), self.body.take()) {
            *back.lock() = Some(Unread { body, is_begun: self.is_begun });
        }
    }
}

/// What an answer leaves of the body of its request.
#[derive(Debug)]
pub struct Rest<B = Incoming> {
    back: Option<Back<B>>,
    /// The client waits to be asked for it.
    waits: bool,
}

/// Lends the body of a request to whoever answers it.
pub fn lend<B: Body>(request: Request<B>) -> (Request<Lent<B>>, Rest<B>) {
    let is_bounded = request.version() < Version::HTTP_2 && !request.body().is_end_stream();
    let back = is_bounded.then(Back::default);
    let waits = back.is_some() && waits(request.headers());
    let lent = request.map(|body| Lent { body: Some(body), is_begun: false, back: back.clone() });
    (lent, Rest { back, waits })
}

impl<B: Body + Unpin> Rest<B> {
    /// Reads what is left, or tells the client that the connection ends with this answer. A body that somebody still reads is theirs, and the connection
    /// ends with a refusal meanwhile.
    pub async fn settle<R>(self, response: &mut Response<R>) {
        // Whoever hands the request on to another server still holds the body of one that is refused there, and may let go of it unread.
        let is_held = self.back.as_ref().is_some_and(|back| Arc::strong_count(back) > 1);
        if is_held && (response.status().is_client_error() || response.status().is_server_error()) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return;
        }
        let unread = self.back.and_then(|back| back.lock().take());
        if let Some(unread) = unread.filter(|_| response.status() != StatusCode::SWITCHING_PROTOCOLS)
            && !unread.finish(self.waits).await
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Whether the client sends the body only when it is asked to (RFC 9110, section 10.1.1).
fn waits(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

impl<B: Body + Unpin> Unread<B> {
    /// Reads the rest. False when that is too much, too slow or broken, or `waits` for a word that it has not got: reading it would be that word.
    async fn finish(mut self, waits: bool) -> bool {
        if waits && !self.is_begun || self.body.size_hint().lower() > MOST {
            return false;
        }
        let mut left = MOST;
        let read = std::future::poll_fn(|cx| {
            loop {
                let frame = match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                    None => return Poll::Ready(true),
                    Some(Err(_)) => return Poll::Ready(false),
                    Some(Ok(frame)) => frame,
                };
                let length = frame.data_ref().map_or(0, Buf::remaining) as u64;
                match left.checked_sub(length) {
                    Some(rest) => left = rest,
                    None => return Poll::Ready(false),
                }
            }
        });
        tokio::time::timeout(PATIENCE, read).await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;
    use std::convert::Infallible;

    /// Sends so many parts of so many bytes; one that is not complete says nothing afterwards.
    struct Parts {
        parts: usize,
        size: usize,
        is_complete: bool,
        says_length: bool,
    }

    impl Body for Parts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.parts.checked_sub(1) {
                Some(rest) => {
                    self.parts = rest;
                    Poll::Ready(Some(Ok(Frame::data(vec![b'x'; self.size].into()))))
                }
                None if self.is_complete => Poll::Ready(None),
                None => Poll::Pending,
            }
        }

        fn size_hint(&self) -> SizeHint {
            match self.says_length {
                true => SizeHint::with_exact((self.parts * self.size) as u64),
                false => SizeHint::default(),
            }
        }
    }

    /// Whether the connection ends with an answer of this status for which so many parts have been read.
    async fn ends(request: Request<Parts>, reads: usize, status: StatusCode) -> bool {
        let (mut request, rest) = lend(request);
        for _ in 0..reads {
            std::future::poll_fn(|cx| Pin::new(request.body_mut()).poll_frame(cx)).await;
        }
        drop(request);
        let mut response = Response::new(());
        *response.status_mut() = status;
        rest.settle(&mut response).await;
        response.headers().get(CONNECTION).is_some_and(|value| value == "close")
    }

    /// net/http, `chunkWriter.writeHeader`: "we should consume the request body before replying".
    #[tokio::test]
    async fn what_is_left_is_read_or_the_connection_ends() {
        let check = async |(parts, size): (usize, usize), is_complete: bool, reads: usize, expected: bool| {
            for says_length in [true, false] {
                let body = Parts { parts, size, is_complete, says_length };
                let found = ends(Request::new(body), reads, StatusCode::FORBIDDEN).await;
                assert_eq!(found, expected, "{parts} times {size}, of which {reads} are read, {is_complete} {says_length}");
            }
        };
        let most = usize::try_from(MOST).unwrap();
        check((1, 1), true, 0, false).await;
        check((1, 1), true, 2, false).await;
        check((4, most / 4), true, 0, false).await;
        check((5, most / 4), true, 0, true).await;
        check((5, most / 4), true, 1, false).await;
        // Who does not send it in time, or at all.
        check((1, 1), false, 0, true).await;
        check((0, 0), false, 0, true).await;
        // Nobody has asked who waits to be asked, and is not asked for nothing.
        for (reads, expected) in [(0, true), (1, false)] {
            let body = Parts { parts: 2, size: 1, is_complete: true, says_length: false };
            let request = Request::builder().header(EXPECT, "100-Continue").body(body).unwrap();
            assert_eq!(ends(request, reads, StatusCode::OK).await, expected);
        }
        // Somebody who hands it on still has it.
        for (status, expected) in [(StatusCode::PAYLOAD_TOO_LARGE, "close"), (StatusCode::OK, "")] {
            let body = Parts { parts: 2, size: 1, is_complete: true, says_length: false };
            let (held, rest) = lend(Request::new(body));
            let mut response = Response::new(());
            *response.status_mut() = status;
            rest.settle(&mut response).await;
            drop(held);
            assert_eq!(response.headers().get(CONNECTION).map_or("", |value| value.to_str().unwrap()), expected);
        }
        // Streams of HTTP/2 end by themselves, and what is upgraded is no longer HTTP.
        let endless = || Parts { parts: 0, size: 0, is_complete: false, says_length: false };
        let request = Request::builder().version(Version::HTTP_2).body(endless()).unwrap();
        assert!(!ends(request, 0, StatusCode::OK).await);
        assert!(!ends(Request::new(endless()), 0, StatusCode::SWITCHING_PROTOCOLS).await);
    }
}
