//! Bodies on their way: nothing is kept, everything is bounded in size and in how long it may stand still.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use base::unread::Lent;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::Sleep;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the body is larger than allowed")]
    TooLarge,
    #[error("the other side stood still for too long")]
    Slow,
    #[error("the body that this is a copy of has ended early, or was faster")]
    Behind,
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// How far a request's body is.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
    too_large: AtomicBool,
    slow: AtomicBool,
    broken: AtomicBool,
}

impl Progress {
    fn new() -> Arc<Self> {
        let flag = AtomicBool::default;
        Arc::new(Self { start: Instant::now(), last: AtomicU64::new(0), too_large: flag(), slow: flag(), broken: flag() })
    }

    fn moved(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Relaxed);
    }

    /// When a part of the body was last on its way.
    pub(crate) fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    pub(crate) fn is_too_large(&self) -> bool {
        self.too_large.load(Ordering::Relaxed)
    }

    pub(crate) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Whether what the client has sent is no body, or ended before its end.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// The body of a request, for a back end.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Empty,
    Upload(Box<Upload>),
    Copy(Copied),
}

/// How many parts of a body may wait for who gets a copy.
const COPIES: usize = 64;

/// A copy of another request's body. It breaks when the other does, or when it stays behind: nobody waits for it.
#[derive(Debug)]
pub(crate) struct Copied(mpsc::Receiver<Option<Frame<Bytes>>>);

#[derive(Debug)]
pub(crate) struct Upload {
    incoming: Lent,
    /// Bytes that may still come; none is no limit.
    left: Option<u64>,
    patience: Patience,
    progress: Arc<Progress>,
    copies: Vec<mpsc::Sender<Option<Frame<Bytes>>>>,
}

impl RequestBody {
    /// A copy of what is still to come.
    pub(crate) fn copy(&mut self) -> Self {
        let Self::Upload(upload) = self else { return Self::Empty };
        let (sender, receiver) = mpsc::channel(COPIES);
        upload.copies.push(sender);
        Self::Copy(Copied(receiver))
    }

    /// Bounded to `limit` bytes and to so much time between two parts.
    pub(crate) fn new(incoming: Lent, limit: Option<u64>, patience: Duration) -> (Self, Option<Arc<Progress>>) {
        if incoming.is_end_stream() {
            return (Self::Empty, None);
        }
        let progress = Progress::new();
        let (patience, progress_here) = (Patience::new(patience), progress.clone());
        let upload = Upload { incoming, left: limit, patience, progress: progress_here, copies: Vec::new() };
        (Self::Upload(Box::new(upload)), Some(progress))
    }
}

impl Upload {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = match Pin::new(&mut self.incoming).poll_frame(cx) {
            // Fields behind the body do not go on: some back ends take them for fields of the head, whose names have been looked at (RFC 9110, 6.5.1).
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => Pin::new(&mut self.incoming).poll_frame(cx),
            polled => polled,
        };
        let frame = match self.patience.bound(cx, polled) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(slow)) => {
                self.progress.slow.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(slow)));
            }
            Poll::Ready(Ok(frame)) => frame,
        };
        self.progress.moved();
        if let Some(Err(_)) = &frame {
            self.progress.broken.store(true, Ordering::Relaxed);
        }
        if let (Some(left), Some(Ok(frame))) = (&mut self.left, &frame) {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            let Some(rest) = left.checked_sub(length) else {
                self.progress.too_large.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(Error::TooLarge)));
            };
            *left = rest;
        }
        self.copies.retain(|copy| match &frame {
            Some(Ok(frame)) => copy.try_send(Some(clone(frame))).is_ok(),
            Some(Err(_)) => false,
            None => copy.try_send(None).is_ok(),
        });
        Poll::Ready(frame.map(|frame| frame.map_err(Error::Broken)))
    }
}

fn clone(frame: &Frame<Bytes>) -> Frame<Bytes> {
    Frame::data(frame.data_ref().cloned().unwrap_or_default())
}

impl Copied {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.poll_recv(cx).map(|received| match received {
            Some(frame) => frame.map(Ok),
            None => Some(Err(Error::Behind)),
        })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Upload(upload) => upload.poll(cx),
            Self::Copy(copied) => copied.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Upload(upload) => upload.incoming.is_end_stream(),
            Self::Copy(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Upload(upload) => upload.incoming.size_hint(),
            Self::Copy(_) => SizeHint::default(),
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// Our own.
    Full(Option<Bytes>),
    /// A back end's.
    Download(Box<Download>),
}

/// The body of a back end's answer, with what is let go of at its end.
#[derive(Debug)]
pub(crate) struct Download {
    incoming: Incoming,
    patience: Patience,
    end: Option<Box<dyn End>>,
}

/// What waits for the end of an answer.
pub(crate) trait End: Send + Sync + std::fmt::Debug {
    /// The answer has come whole. Not called when it broke.
    fn complete(self: Box<Self>);
}

impl ResponseBody {
    /// A text of our own.
    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        Self::Full(Some(text.into()).filter(|text: &Bytes| !text.is_empty()))
    }

    /// What a back end sends.
    pub(crate) fn download(incoming: Incoming, patience: Duration, end: Box<dyn End>) -> Self {
        let mut download = Download { incoming, patience: Patience::new(patience), end: Some(end) };
        download.look();
        Self::Download(Box::new(download))
    }
}

impl Download {
    /// Ends when nothing more will come: nobody may ask again.
    fn look(&mut self) {
        if self.incoming.is_end_stream() {
            self.complete();
        }
    }

    fn complete(&mut self) {
        if let Some(end) = self.end.take() {
            end.complete();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let download = match self.get_mut() {
            Self::Full(text) => return Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Download(download) => download,
        };
        let polled = Pin::new(&mut download.incoming).poll_frame(cx);
        let frame = ready!(download.patience.bound(cx, polled));
        Poll::Ready(match frame {
            Err(slow) => Some(Err(slow)),
            Ok(Some(Err(error))) => Some(Err(error.into())),
            Ok(Some(Ok(frame))) => {
                download.look();
                Some(Ok(frame))
            }
            Ok(None) => {
                download.complete();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(text) => text.is_none(),
            Self::Download(download) => download.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Download(download) => download.incoming.size_hint(),
        }
    }
}

/// How long something may stand still.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, waiting: None }
    }

    fn bound<T>(&mut self, cx: &mut Context<'_>, polled: Poll<T>) -> Poll<Result<T, Error>> {
        if let Poll::Ready(value) = polled {
            self.waiting = None;
            return Poll::Ready(Ok(value));
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        waiting.as_mut().poll(cx).map(|()| Err(Error::Slow))
    }
}
