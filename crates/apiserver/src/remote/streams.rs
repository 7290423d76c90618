//! Requests whose bodies, and whose answers, are passed on as they come: those to the servers of aggregated APIs.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use base::budgets::heavy;
use base::budgets::shares::Share as Place;
use base::tasks::OnFailure;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use registry::Registry;

use super::endpoint::{Dialled, Endpoint, Kept, failure};
use super::{Error, HEADERS, resolve};
use crate::body::{BoxError, RequestBody};

/// Time to reach a server.
pub(crate) const DIAL: Duration = Duration::from_secs(30);

impl Endpoint {
    /// Sends a request, on a connection that is kept if there is one, and hands back the beginning of its answer. The connection is
    /// kept for another request when the answer has been read to its end. Work that asks has no place among the heavy ones meanwhile.
    pub(crate) async fn forward(
        self: &Arc<Self>,
        registry: &Registry,
        request: Request<RequestBody>,
        user: Option<&str>,
    ) -> Result<Response<Answer>, Error> {
        heavy::released(self.pass_on(registry, request, user)).await
    }

    async fn pass_on(
        self: &Arc<Self>,
        registry: &Registry,
        mut request: Request<RequestBody>,
        user: Option<&str>,
    ) -> Result<Response<Answer>, Error> {
        let addresses = resolve::addresses(registry, &self.target().place).await?;
        while let Some(mut kept) = Kept::take(&self.streams, &addresses) {
            let place = match self.place(&kept.address, user) {
                Ok(place) => place,
                Err(crowded) => {
                    kept.put(&self.streams);
                    return Err(crowded);
                }
            };
            let again = repeated(&request);
            match kept.sender.try_send_request(request).await {
                Ok(response) => return Ok(self.passed_on(kept, place, response)),
                // It was closed just now, before anything was sent, or before anybody began to answer what may be asked twice.
                Err(mut error) => match (error.take_message(), again) {
                    (Some(unsent), _) => request = unsent,
                    (None, Some(again)) if error.error().is_incomplete_message() || error.error().is_closed() => request = again,
                    (None, _) => return Err(failure(error.error())),
                },
            }
        }
        let dialling = tokio::time::timeout(DIAL, self.dial_one_of(addresses, user));
        let Dialled { address, stream, place } = dialling.await.unwrap_or(Err(Error::Timeout))?;
        let (mut sender, connection) =
            http1::Builder::new().max_headers(HEADERS).handshake(TokioIo::new(stream)).await.map_err(|error| failure(&error))?;
        self.tasks.spawn_until_cancelled("connection to an API server", OnFailure::Log, async move {
            // Its end is told by the answer.
            let _ = connection.await;
            Ok::<_, std::convert::Infallible>(())
        });
        let response = sender.send_request(request).await.map_err(|error| failure(&error))?;
        Ok(self.passed_on(Kept { address, sender, since: Instant::now() }, place, response))
    }

    fn passed_on(
        self: &Arc<Self>,
        kept: Kept<SendRequest<RequestBody>>,
        place: Option<Place>,
        response: Response<Incoming>,
    ) -> Response<Answer> {
        response.map(|body| {
            let mut answer = Answer { body, lent: Some((self.clone(), kept, place)) };
            if answer.body.is_end_stream() {
                answer.give_back();
            }
            answer
        })
    }
}

/// A request that may be sent twice, as it is before it is sent: one that changes nothing, without a body.
fn repeated(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let harmless = matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream();
    if !harmless {
        return None;
    }
    let empty = RequestBody::new(Empty::new().map_err(|never| match never {}));
    let mut again = Request::new(empty);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    again.headers_mut().clone_from(request.headers());
    Some(again)
}

/// The connection of an answer, whose it is, and the place of the user whose request is answered.
type Lent = (Arc<Endpoint>, Kept<SendRequest<RequestBody>>, Option<Place>);

/// The body of an answer, with the connection that it comes on.
pub(crate) struct Answer {
    body: Incoming,
    lent: Option<Lent>,
}

impl Answer {
    fn give_back(&mut self) {
        if let Some((endpoint, kept, _)) = self.lent.take() {
            kept.put(&endpoint.streams);
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => self.give_back(),
            Poll::Ready(Some(Err(_))) => self.lent = None,
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.give_back(),
            _ => {}
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
