//! One request to one back end: the choice of the endpoint, the attempts, and the head of the answer.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::body::Incoming;

use crate::balance::{Choice, Member};
use crate::body::{Progress, RequestBody};
use crate::connect::{self, Connector, Failed, Lease};
use crate::metrics;
use crate::policy::{Policy, Retry};
use crate::upstream::{Endpoint, Upstream};

/// A request that is ready to go.
pub(crate) struct Outgoing {
    pub(crate) parts: Parts,
    pub(crate) body: RequestBody,
    /// How far its body is; none when it has none.
    pub(crate) progress: Option<Arc<Progress>>,
    /// The host that it is for.
    pub(crate) host: HeaderValue,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
    pub(crate) active: Active,
    /// Whether it comes from the endpoint that was asked first.
    pub(crate) first: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no endpoint")]
    NoEndpoint,
    #[error(transparent)]
    Connect(connect::Error),
    #[error("the endpoint broke off: {}", base::connection::why(.0))]
    Broken(hyper::Error),
    #[error("the endpoint did not answer in time")]
    Timeout,
    #[error("the body of the request is too large")]
    TooLarge,
    #[error("the body of the request did not come in time")]
    Slow,
    #[error("the body of the request is broken")]
    NoBody,
}

/// A request that an endpoint has under way.
#[derive(Debug)]
pub(crate) struct Active(Arc<Endpoint>);

impl Active {
    fn of(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.load().begin();
        Self(endpoint.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.load().end();
    }
}

/// What became of one attempt.
enum Attempt {
    Answered(Box<(Response<Incoming>, Lease)>),
    /// Nothing was sent: anybody may have the request.
    Unsent(Box<Request<RequestBody>>, Error),
    /// Perhaps it has had its effect.
    Lost(Error),
}

/// Sends a request to an endpoint of `upstream`, to another one when that fails and the request may be sent again.
pub(crate) async fn forward(
    connector: &Connector,
    upstream: &Upstream,
    choice: Choice,
    policy: &Policy,
    outgoing: Outgoing,
) -> Result<Answered, Error> {
    let Outgoing { parts, body, progress, host } = outgoing;
    let empty = matches!(body, RequestBody::Empty);
    let repeats = empty && (policy.retry.non_idempotent || is_idempotent(&parts.method));
    let copy = repeats.then(|| parts.clone());
    let copy = || copy.clone().map(|parts| Request::from_parts(parts, RequestBody::Empty));
    let mut budget = Budget::new(&policy.retry, upstream.len());
    let mut request = Some(Request::from_parts(parts, body));
    let mut tried = Vec::new();
    let mut last = Error::NoEndpoint;
    upstream.refresh().await;
    while let Some(ready) = request.take() {
        let again = || if policy.retry.same_endpoint { upstream.choose(choice, &[]) } else { None };
        let Some(endpoint) = upstream.choose(choice, &tried).or_else(again) else { return Err(last) };
        if !tried.is_empty() {
            metrics::retried();
            if !policy.retry.wait.is_zero() {
                // Boxed, as few requests need it.
                Box::pin(tokio::time::sleep(policy.retry.wait)).await;
            }
        }
        let active = Active::of(&endpoint);
        let sender = Sender { connector, endpoint: &endpoint, policy, host: &host, progress: progress.as_deref() };
        match sender.attempt(ready, &copy).await {
            Attempt::Answered(answer) => {
                let (response, lease) = *answer;
                let others = policy.retry.same_endpoint || tried.len() + 1 < upstream.len();
                let again = policy.retry.statuses.contains(&response.status().as_u16()) && others;
                if !again || !budget.another() || copy().is_none() {
                    return Ok(Answered { response, lease, active, first: tried.is_empty() });
                }
                (request, last) = (copy(), Error::NoEndpoint);
            }
            Attempt::Unsent(unsent, error) => {
                fails(&endpoint);
                request = Some(*unsent).filter(|_| policy.retry.error && budget.another());
                last = error;
            }
            Attempt::Lost(error) => {
                if matches!(error, Error::Broken(_)) {
                    fails(&endpoint);
                }
                let wanted = if matches!(error, Error::Timeout) { policy.retry.timeout } else { policy.retry.error };
                let ours = matches!(error, Error::TooLarge | Error::Slow | Error::NoBody);
                request = Some(()).filter(|()| wanted && !ours && budget.another()).and_then(|()| copy());
                last = error;
            }
        }
        tried.push(endpoint.id());
    }
    Err(last)
}

/// How often and how long is tried.
struct Budget {
    attempts: usize,
    until: Option<Instant>,
}

impl Budget {
    fn new(retry: &Retry, endpoints: usize) -> Self {
        let attempts = if retry.tries == 0 { endpoints } else { retry.tries };
        Self { attempts, until: Some(retry.time).filter(|time| !time.is_zero()).map(|time| Instant::now() + time) }
    }

    /// Whether one more attempt is allowed after this one.
    fn another(&mut self) -> bool {
        self.attempts = self.attempts.saturating_sub(1);
        self.attempts > 0 && self.until.is_none_or(|until| Instant::now() < until)
    }
}

fn is_idempotent(method: &Method) -> bool {
    !matches!(*method, Method::POST | Method::PATCH | Method::CONNECT) && method.as_str() != "LOCK"
}

fn fails(endpoint: &Endpoint) {
    if endpoint.load().failed(Instant::now()) {
        metrics::ejected();
        tracing::debug!(address = %endpoint.address, "an endpoint failed several times and is left out for a while");
    }
}

/// What an attempt needs.
struct Sender<'a> {
    connector: &'a Connector,
    endpoint: &'a Arc<Endpoint>,
    policy: &'a Policy,
    host: &'a HeaderValue,
    progress: Option<&'a Progress>,
}

impl Sender<'_> {
    /// Asks one endpoint. A connection that the other side closed while nobody used it is no failure: a new one follows.
    async fn attempt(&self, mut request: Request<RequestBody>, copy: &impl Fn() -> Option<Request<RequestBody>>) -> Attempt {
        let mut fresh = false;
        loop {
            let mut lease = match self.connector.lease(self.endpoint, self.policy.connect_timeout, fresh).await {
                Ok(lease) => lease,
                Err(error) => return Attempt::Unsent(Box::new(request), Error::Connect(error)),
            };
            self.fit(&mut request);
            let sent = self.wait(&mut lease, request).await;
            let reused = lease.reused && !fresh;
            match sent {
                Ok(Ok(response)) => {
                    self.endpoint.load().succeeded();
                    return Attempt::Answered(Box::new((response, lease)));
                }
                Ok(Err(Failed::Unsent(unsent, _))) if reused => request = *unsent,
                Ok(Err(Failed::Unsent(unsent, error))) => return Attempt::Unsent(unsent, Error::Broken(error)),
                Ok(Err(Failed::Broken(error))) => match copy().filter(|_| reused) {
                    Some(again) => request = again,
                    None => return Attempt::Lost(self.ours().unwrap_or(Error::Broken(error))),
                },
                Err(Elapsed) => return Attempt::Lost(self.ours().unwrap_or(Error::Timeout)),
            }
            fresh = true;
        }
    }

    /// What went wrong with the request itself.
    fn ours(&self) -> Option<Error> {
        let progress = self.progress?;
        let large = progress.is_too_large().then_some(Error::TooLarge);
        large.or_else(|| progress.is_slow().then_some(Error::Slow)).or_else(|| progress.is_broken().then_some(Error::NoBody))
    }

    /// Sends it, and waits as long as something moves.
    async fn wait(
        &self,
        lease: &mut Lease,
        request: Request<RequestBody>,
    ) -> Result<Result<Response<Incoming>, Failed>, Elapsed> {
        let (start, limit) = (Instant::now(), self.policy.read_timeout);
        let mut sending = pin!(lease.send(request));
        loop {
            let since = self.progress.map_or(start, |progress| progress.last().max(start));
            match tokio::time::timeout_at((since + limit).into(), sending.as_mut()).await {
                Ok(sent) => return Ok(sent),
                Err(_) if self.progress.is_some_and(|progress| progress.last() > since) => {}
                Err(_) => return Err(Elapsed),
            }
        }
    }

    /// Gives a request the form that the endpoint's protocol has.
    fn fit(&self, request: &mut Request<RequestBody>) {
        let host = self.policy.vhost.as_ref().unwrap_or(self.host);
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
        let mut uri = Uri::builder().path_and_query(path);
        if self.endpoint.protocol.is_http2() {
            let scheme = if self.endpoint.protocol.is_tls() { "https" } else { "http" };
            uri = uri.scheme(scheme).authority(host.as_bytes());
            request.headers_mut().remove(header::HOST);
            *request.version_mut() = Version::HTTP_2;
        } else {
            request.headers_mut().insert(header::HOST, host.clone());
            *request.version_mut() = Version::HTTP_11;
        }
        // A host that is no authority cannot be told to HTTP/2; the path alone is sent, which is refused there.
        if let Ok(uri) = uri.build() {
            *request.uri_mut() = uri;
        }
    }
}

struct Elapsed;

/// The status by which a client learns why there is no answer.
impl Error {
    pub(crate) fn status(&self) -> http::StatusCode {
        match self {
            Self::NoEndpoint => http::StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect(connect::Error::Timeout) | Self::Timeout => http::StatusCode::GATEWAY_TIMEOUT,
            Self::Connect(_) | Self::Broken(_) => http::StatusCode::BAD_GATEWAY,
            Self::TooLarge => http::StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => http::StatusCode::REQUEST_TIMEOUT,
            Self::NoBody => http::StatusCode::BAD_REQUEST,
        }
    }
}
