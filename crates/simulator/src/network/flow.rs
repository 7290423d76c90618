//! The body of an answer on its way: it breaks off with the server that it comes from, and that of a watch has faults of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{Failure, Network};

/// When the next piece of a watch comes.
pub(super) enum Pace {
    Now,
    After(Duration),
    /// Never: the watch breaks off before it.
    Cut,
}

/// An answer's body.
pub(crate) struct Flow {
    body: Option<apiserver::Body>,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Whose watch it is; none for other answers.
    watch: Option<(Network, Arc<str>)>,
    held: Option<(Frame<Bytes>, Pin<Box<Sleep>>)>,
}

impl Flow {
    pub(super) fn new(body: apiserver::Body, gone: CancellationToken, watch: Option<(Network, Arc<str>)>) -> Self {
        Self { body: Some(body), gone: Box::pin(gone.cancelled_owned()), watch, held: None }
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::new(apiserver::Body::Whole(bytes), CancellationToken::new(), None)
    }
}

impl Body for Flow {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if this.gone.as_mut().poll(cx).is_ready() {
            this.body = None;
            return Poll::Ready(Some(Err("connection reset".into())));
        }
        if let Some((_, due)) = &mut this.held {
            ready!(due.as_mut().poll(cx));
            return Poll::Ready(this.held.take().map(|(frame, _)| Ok(frame)));
        }
        let frame = ready!(Pin::new(body).poll_frame(cx));
        let (Some((network, who)), Some(Ok(_))) = (&this.watch, &frame) else { return Poll::Ready(frame) };
        match network.pace(who) {
            Pace::Now => Poll::Ready(frame),
            Pace::Cut => {
                this.body = None;
                Poll::Ready(None)
            }
            Pace::After(delay) => {
                let mut due = Box::pin(tokio::time::sleep(delay));
                // Registers the timer; it is not due yet.
                let _ = due.as_mut().poll(cx);
                this.held = frame.and_then(Result::ok).map(|frame| (frame, due));
                Poll::Pending
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
