//! Response bodies.

use std::any::Any;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use tokio::time::{Instant, Sleep};

/// The longest run of bytes that anybody copies at once. glibc copies more than 2,112 bytes with `rep movsb`, which on
/// processors of AMD has a third of the speed.
pub(crate) const SLICE: usize = 2 << 10;

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body, whatever the transport.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// How much of a list goes out in one piece.
const PIECE: usize = 64 << 10;

/// What the API server answers with.
#[derive(Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// Bytes, often shared with the cache.
    Whole(Bytes),
    /// A list, put together from shared bytes while it is sent.
    List(Box<ListBody>),
    /// Frames as they come.
    Stream(BoxStream<'static, Result<Bytes, BoxError>>),
    /// Another server's body.
    Proxied(UnsyncBoxBody<Bytes, BoxError>),
}

impl Body {
    /// Keeps `guard` until what is made while it is sent has ended, or the body of another server.
    pub(crate) fn hold<T: Send + 'static>(&mut self, guard: T) {
        match self {
            Self::List(list) => list._held = Some(Box::new(guard)),
            Self::Proxied(body) => *body = Held { body: std::mem::take(body), _guard: guard }.boxed_unsync(),
            Self::Stream(stream) => {
                let all = std::mem::replace(stream, futures::stream::empty().boxed());
                *stream = all
                    .map(move |item| {
                        let _held = &guard;
                        item
                    })
                    .boxed();
            }
            _ => {}
        }
    }

    /// The body of another server breaks off when the time of its request is over, or when it is longer than `most` bytes. All else ends by
    /// itself.
    pub(crate) fn bounded(self, end: Instant, most: Option<usize>) -> Self {
        let Self::Proxied(body) = self else { return self };
        let body = match most {
            Some(most) => Limited::new(body, most).boxed_unsync(),
            None => body,
        };
        Self::Proxied(Timed { body, end: Box::pin(tokio::time::sleep_until(end)) }.boxed_unsync())
    }
}

/// A body that has to be over at some time.
struct Timed {
    body: UnsyncBoxBody<Bytes, BoxError>,
    end: Pin<Box<Sleep>>,
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // The time first, and by the clock: one that always has more leaves no turn to the timer.
        if self.end.deadline() <= Instant::now() || self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err("the answer has not ended within the time of the request".into())));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that something lives as long as.
struct Held<T> {
    body: UnsyncBoxBody<Bytes, BoxError>,
    _guard: T,
}

// Nothing of it is pinned.
impl<T> Unpin for Held<T> {}

impl<T> http_body::Body for Held<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The text of a list, put together from shared bytes piece by piece.
pub struct ListBody {
    parts: Box<dyn Iterator<Item = Bytes> + Send>,
    /// What is left of the part that is being copied.
    part: Bytes,
    left: u64,
    /// Lives as long.
    _held: Option<Box<dyn Any + Send>>,
}

impl ListBody {
    /// `head` ends with the bracket that opens the items, `tail` starts with the one that closes them.
    pub fn new(head: Bytes, items: Vec<Bytes>, tail: Bytes) -> Self {
        let length: usize = items.iter().map(Bytes::len).sum();
        let left = (head.len() + length + items.len().saturating_sub(1) + tail.len()) as u64;
        let commas = std::iter::once(Bytes::new()).chain(std::iter::repeat(Bytes::from_static(b",")));
        let items = commas.zip(items).flat_map(|(comma, item)| [comma, item]);
        Self { parts: Box::new(items.chain([tail])), part: head, left, _held: None }
    }

    /// Bytes in pieces as they come, `length` of them in all.
    pub(crate) fn of(parts: impl Iterator<Item = Bytes> + Send + 'static, length: usize) -> Self {
        Self { parts: Box::new(parts), part: Bytes::new(), left: length as u64, _held: None }
    }

    /// The next 64 KiB: four full TLS records.
    fn piece(&mut self) -> Option<Bytes> {
        let size = PIECE.min(usize::try_from(self.left).unwrap_or(PIECE));
        if size == 0 {
            return None;
        }
        let mut piece = BytesMut::with_capacity(size);
        while piece.len() < size {
            let part = self.part.split_to(self.part.len().min(SLICE).min(size - piece.len()));
            piece.extend_from_slice(&part);
            if self.part.is_empty() {
                self.part = self.parts.next().unwrap_or_default();
            }
        }
        self.left -= size as u64;
        Some(piece.freeze())
    }

    /// All that is left, which is still sent.
    pub(crate) fn look(&mut self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.left as usize);
        while let Some(piece) = self.piece() {
            all.extend_from_slice(&piece);
        }
        let all = all.freeze();
        (self.left, self.part) = (all.len() as u64, all.clone());
        all
    }

    /// All of it.
    pub fn concat(mut self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.left as usize);
        while let Some(piece) = self.piece() {
            all.extend_from_slice(&piece);
        }
        all.freeze()
    }

    /// Bytes still to come.
    pub fn len(&self) -> u64 {
        self.left
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Whole(bytes) }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::List(list) => Poll::Ready(list.piece().map(|piece| Ok(Frame::data(piece)))),
            Self::Stream(stream) => stream.as_mut().poll_next(cx).map(|next| next.map(|piece| piece.map(Frame::data))),
            Self::Proxied(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::List(list) => list.is_empty(),
            Self::Proxied(body) => body.is_end_stream(),
            Self::Whole(_) | Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::List(list) => SizeHint::with_exact(list.len()),
            Self::Stream(_) => SizeHint::default(),
            Self::Proxied(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::StreamBody;

    use super::*;

    /// `WithTimeoutForNonLongRunningRequests`: what has begun to be answered ends with its time, too.
    #[tokio::test]
    async fn bodies_of_others_end() {
        async fn frames(time: Duration, body: BoxStream<'static, Result<Bytes, BoxError>>, most: Option<usize>) -> (usize, bool) {
            let body = StreamBody::new(body.map(|piece| piece.map(Frame::data)));
            let (mut body, mut read) = (Body::Proxied(body.boxed_unsync()).bounded(Instant::now() + time, most), 0);
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return (read, false) };
                read += frame.into_data().map_or(0, |data| data.len());
            }
            (read, true)
        }
        let (soon, late) = (Duration::from_millis(20), Duration::from_secs(600));
        let piece = || Ok(Bytes::from_static(b"0123456789"));
        let begun = || futures::stream::iter([piece()]).chain(futures::stream::pending()).boxed();
        assert_eq!(frames(soon, begun(), None).await, (10, false));
        assert!(!frames(soon, futures::stream::repeat_with(piece).boxed(), None).await.1);
        assert_eq!(frames(late, futures::stream::repeat_with(piece).boxed(), Some(95)).await, (90, false));
        let whole = || futures::stream::iter([piece(), piece()]).boxed();
        assert_eq!((frames(late, whole(), None).await, frames(late, whole(), Some(20)).await), ((20, true), (20, true)));
    }

    #[test]
    fn lists_come_in_pieces() {
        let check = |sizes: &[usize], pieces: &[usize]| {
            let items = sizes.iter().map(|size| "x".repeat(*size).into()).collect();
            let mut list = ListBody::new(Bytes::from_static(b"["), items, Bytes::from_static(b"]"));
            let (length, mut text, mut found) = (list.len(), Vec::new(), Vec::new());
            while let Some(piece) = list.piece() {
                found.push(piece.len());
                text.extend_from_slice(&piece);
            }
            let expected: Vec<String> = sizes.iter().map(|size| "x".repeat(*size)).collect();
            assert_eq!(String::from_utf8_lossy(&text), format!("[{}]", expected.join(",")));
            assert_eq!((found.as_slice(), length, list.is_empty()), (pieces, text.len() as u64, true));
        };
        check(&[], &[2]);
        check(&[1], &[3]);
        check(&[3, 0, 2], &[9]);
        check(&[PIECE - 2], &[PIECE]);
        check(&[PIECE, PIECE], &[PIECE, PIECE, 3]);
    }
}
