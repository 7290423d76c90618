//! One request, from its first byte to its answer.

mod attributes;

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use apimachinery::Status;
use base::budgets::heavy;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::CatchUnwind;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use kinds::Verb;
use registry::{Annotations, Layer, Registry, Remote, Served, User, Warnings};

use crate::audit::{self, Record};
use crate::authn::impersonate::modes::{MODES, Mode};
use crate::authn::{self, ANONYMOUS, Identity, impersonate};
use crate::authz::{Attributes, Decision};
use crate::body::{Body, BoxError, RequestBody};
use crate::call::{Call, Inner, On};
use crate::dispatch::{Handler, Plan};
use crate::fairness::seat::{Entry, Seat};
use crate::metrics::load::{InFlight, Ongoing};
use crate::metrics::{self, Asked, SelfDefense};
use crate::negotiate::{self, Accept, Restrictions};
use crate::respond;
use crate::route::{self, Route};
use crate::server::Unauthenticated;
use crate::stages::{self, InProcess, seats};

/// The API of a cluster. Cheap to clone; a `tower::Service`.
#[derive(Clone)]
pub struct Api(pub(crate) Arc<Inner>);

/// Where a request leads: known before it is known who sends it.
struct Routed<'a> {
    route: Route<'a>,
    /// None for what is not served.
    resource: Option<Arc<Served>>,
    /// The other server that it is forwarded to.
    remote: Option<Arc<Remote>>,
    plan: Plan,
    /// How its client can be answered, or why it cannot.
    negotiated: Result<Accept, Status>,
    started: Instant,
}

impl<'a> Routed<'a> {
    fn new(registry: &Registry, parts: &'a Parts, path: &'a str, query: &str, started: Instant) -> Self {
        let route = route::parse(path);
        let catalog = registry.catalog();
        let remote = match &route {
            Route::Resource(target) => catalog.remote(target.group, target.version).cloned(),
            Route::Other => route::group_version(path).and_then(|(group, version)| catalog.remote(group, version)).cloned(),
        };
        let resource = match (&route, &remote) {
            (Route::Resource(target), None) => catalog.get(target.group, target.version, target.plural).cloned(),
            _ => None,
        };
        let mut plan = Plan::of(&parts.method, &route, query, resource.as_ref().map(|resource| &*resource.def));
        if remote.is_some() {
            plan.handler = Ok(Handler::Remote);
        }
        let negotiated = negotiate::accept(&parts.headers, query, restrictions(&route, resource.as_ref()));
        Self { route, resource, remote, plan, negotiated, started }
    }

    fn accept(&self) -> Accept {
        self.negotiated.as_ref().copied().unwrap_or(Accept::RAW)
    }
}

/// The API with an identity: what components of this process hold.
#[derive(Clone)]
pub struct AsUser {
    api: Api,
    identity: Identity,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Api {
    /// The same service for a component of this process. `system:authenticated` is added to its groups.
    pub fn as_user(&self, user: User) -> AsUser {
        let user = User { groups: crate::authn::user(user.name.as_str(), user.groups).groups, ..user };
        AsUser { api: self.clone(), identity: Identity::User(Arc::new(user)) }
    }

    /// The registry behind it.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.0.registry
    }

    /// A token of the account of this name and UID that is good as long as the Secret `secret` of its namespace holds it.
    pub fn sign_kept(&self, namespace: &str, secret: &str, account: (&str, &str)) -> Result<String, Status> {
        self.0.keys.issue_kept(namespace, secret, account)
    }

    /// Answers one request. Panics become 500.
    pub fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut parts, body) = request.into_parts();
        authn::websocket::take_token(&mut parts);
        let body = match body.is_end_stream() {
            true => RequestBody::new(Empty::new().map_err(|never| match never {})),
            false => RequestBody::new(body.map_err(Into::into)),
        };
        self.0.clone().answer(parts, body)
    }
}

impl Inner {
    /// Answers one request, in a function of one type: all below it is compiled here, and once.
    fn answer(self: Arc<Self>, parts: Parts, body: RequestBody) -> Answer {
        Box::pin(async move {
            let answer = AssertUnwindSafe(self.serve(parts, body)).catch_unwind().await;
            Ok(answer.unwrap_or_else(|panic| {
                tracing::error!(panic = text_of(&*panic), "a request handler panicked");
                let status = Status::internal("this request caused apiserver to panic. Look in the logs for details.");
                respond::failure(Accept::default(), &status)
            }))
        })
    }
}

type Panic = Box<dyn Any + Send>;

/// Does something that may panic. No async function, in whose future the other one would lie twice.
fn caught<F: Future>(work: F) -> CatchUnwind<AssertUnwindSafe<F>> {
    AssertUnwindSafe(work).catch_unwind()
}

/// Tells of a panic, and lets it go on to where it is answered.
fn go_on(panic: Panic, record: Option<&Record>) -> ! {
    record.into_iter().for_each(|record| record.panicked(text_of(&*panic)));
    std::panic::resume_unwind(panic)
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("unknown cause")
}

impl<B> tower::Service<Request<B>> for Api
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answer {
        self.answer(request)
    }
}

impl<B> tower::Service<Request<B>> for AsUser
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Answer {
        request.extensions_mut().insert(self.identity.clone());
        request.extensions_mut().insert(InProcess);
        self.api.answer(request)
    }
}

/// What answers may be asked for: tables and metadata of what is stored, not of documents and reviews.
fn restrictions<'a>(route: &Route<'a>, resource: Option<&Arc<Served>>) -> Restrictions<'a> {
    match route {
        Route::Resource(target) => Restrictions {
            shapes: resource.is_none_or(|resource| resource.def.stored || resource.def.computed.is_some()),
            version: target.version,
            protobuf: resource.is_none_or(|resource| !resource.is_custom()),
        },
        Route::Other => Restrictions { shapes: false, version: "", protobuf: true },
    }
}

impl Inner {
    async fn serve(&self, mut parts: Parts, body: RequestBody) -> Response<Body> {
        let started = Instant::now();
        audit::name(&mut parts.headers);
        let path = route::decode(parts.uri.path(), false);
        let query = parts.uri.query().unwrap_or_default();
        // Where it leads decides what must be allowed, so routing comes first.
        let routed = Routed::new(&self.registry, &parts, &path, query, started);
        let asked = Asked::of(&routed.plan, &routed.route, routed.resource.as_ref().map(|resource| &*resource.def), &parts);
        let _in_flight = InFlight::begin(&asked);
        let ongoing = Ongoing::begin(&asked, started);
        let (user, warnings) = (Arc::default(), Warnings::default());
        let call = Call {
            parts: &parts,
            path: &path,
            query,
            accept: routed.accept(),
            user,
            warnings,
            annotations: Annotations::default(),
            ongoing: ongoing.clone(),
            record: None,
        };
        let mut response = self.stages(call, &routed, body).await;
        if let Some(id) = parts.headers.get(audit::ID) {
            response.headers_mut().insert(audit::ID, id.clone());
        }
        if response.extensions_mut().remove::<SelfDefense>().is_some() {
            metrics::terminated(&asked, response.status().as_u16());
        }
        match ongoing {
            Some(ongoing) => {
                ongoing.answered(response.status().as_u16());
                response.body_mut().hold(ongoing);
            }
            None => metrics::answered(&asked, response.status().as_u16(), Some(response.body()), started.elapsed()),
        }
        response
    }

    /// The stages of a request, in their order.
    async fn stages(&self, mut call: Call<'_>, routed: &Routed<'_>, body: RequestBody) -> Response<Body> {
        let (accept, warnings, ongoing) = (call.accept, call.warnings.clone(), call.ongoing.clone());
        let mut seat = None;
        let admitted = match stages::time_limit(&routed.plan, call.query) {
            Ok(limit) => match caught(self.admit(&mut call, routed, limit, &mut seat)).await {
                Ok(admitted) => admitted.map(|()| limit),
                Err(panic) => go_on(panic, call.record.as_deref()),
            },
            Err(status) => Err(status),
        };
        let record = call.record.clone();
        let unauthenticated = match &admitted {
            Err(status) if status.code == 401 => true,
            // Who has no name was not even asked.
            _ => call.user.name == ANONYMOUS || call.user.name.is_empty(),
        };
        let answer = match admitted {
            Ok(limit) => match caught(self.bounded(call, routed, limit, body)).await {
                Ok(answer) => answer,
                Err(panic) => go_on(panic, record.as_deref()),
            },
            Err(status) => Err(status),
        };
        // The one place where errors become an answer.
        let mut response = match seat.as_ref().and_then(Seat::retry_after) {
            Some(seconds) => {
                let mut response = respond::too_many_requests(seconds);
                response.extensions_mut().insert(SelfDefense);
                response
            }
            None => answer.unwrap_or_else(|status| respond::failure(accept, &status)),
        };
        if let Some(seat) = seat {
            seats::tell(response.headers_mut(), &seat);
            seats::release(seat, &routed.plan, &mut response);
        }
        // Who is refused is warned too.
        respond::warn(&mut response, &warnings);
        if unauthenticated {
            response.extensions_mut().insert(Unauthenticated);
        }
        if let Some(record) = record {
            Box::pin(record.answered(&mut response, ongoing.as_ref())).await;
        }
        response
    }

    /// Authentication, impersonation, a seat, authorization: who it is comes before what may be done, and what is asked for is told to
    /// nobody who may not ask.
    async fn admit(
        &self,
        call: &mut Call<'_>,
        routed: &Routed<'_>,
        limit: Option<Duration>,
        seat: &mut Option<Seat>,
    ) -> Result<(), Status> {
        let Routed { route, plan, .. } = routed;
        let started = Instant::now();
        // Whoever says who it is may be another server, which may be silent.
        let left = limit.unwrap_or(stages::DEADLINE).saturating_sub(routed.started.elapsed());
        let authenticating = Box::pin(self.authenticator.authenticate(call.parts, &call.annotations));
        let user = tokio::time::timeout(left, authenticating).await.unwrap_or_else(|_| Err(stages::late()));
        metrics::identity::authenticated(user.as_deref(), started.elapsed());
        call.annotations.took(Layer::Authentication, started.elapsed());
        if let Some(audit) = &self.audit {
            let (what, who) = ((plan.verbs[0], call.ongoing.is_some()), (user.as_deref().ok(), &call.annotations));
            call.record = Box::pin(audit.begin(call.parts, route, call.path, what, who, routed.started)).await;
        }
        call.user = user?;
        if call.parts.headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
            Box::pin(self.impersonate(call, routed)).await?;
        }
        stages::prove(call.parts, &call.user)?;
        match self.enter(call, routed) {
            None => {}
            Some(Entry::Seated(taken)) => *seat = Some(taken),
            Some(Entry::Waits(taken, turn)) => {
                let waiting = Instant::now();
                Box::pin(seats::wait(seat.insert(taken), turn, routed.started, limit)).await;
                call.annotations.took(Layer::Queue, waiting.elapsed());
            }
            Some(Entry::Refused(without)) => *seat = Some(without),
        }
        if seat.as_ref().is_some_and(|seat| seat.retry_after().is_some()) {
            return Err(Status::too_many_requests("Too many requests, please try again later.", 1));
        }
        let selecting = self.selecting(call, route, plan);
        let started = Instant::now();
        let (mut allowed, mut decision) = (Ok(()), Decision::default());
        for verb in &plan.verbs {
            let attributes = self.attributes(call, route, verb, selecting.as_ref());
            decision = self.authorizer.authorize(&self.registry, &attributes).await;
            if !decision.allowed {
                allowed = Err(attributes.refused(&decision));
                break;
            }
        }
        metrics::identity::authorized(&allowed, started.elapsed());
        call.annotations.took(Layer::Authorization, started.elapsed());
        if let Some(record) = &call.record {
            record.annotate("authorization.k8s.io/decision", if allowed.is_ok() { "allow" } else { "forbid" });
            record.annotate("authorization.k8s.io/reason", &decision.why());
        }
        allowed
    }

    fn enter(&self, call: &Call<'_>, routed: &Routed<'_>) -> Option<Entry> {
        let asking = seats::Asking {
            parts: call.parts,
            path: call.path,
            query: call.query,
            user: &call.user,
            route: &routed.route,
            plan: &routed.plan,
            resource: routed.resource.as_deref(),
        };
        seats::enter(&self.budgets.fairness, &asking)
    }

    /// What a request does, within its time. Work on much is done aside.
    async fn bounded(
        &self,
        call: Call<'_>,
        routed: &Routed<'_>,
        limit: Option<Duration>,
        body: RequestBody,
    ) -> Result<Response<Body>, Status> {
        let Some(limit) = limit else { return Box::pin(self.dispatch(call, routed, body)).await };
        let (stored, call_parts, user) = (self.stored_size(&call, routed), call.parts, call.user.clone());
        let request = async {
            let (body, sent) = stages::large_body(body, stored).await?;
            // In a place of its own: what is handed through async functions lies in each of them twice.
            heavy::run(Some(&user.name), sent.max(stored), Box::pin(self.dispatch(call, routed, body))).await
        };
        let (left, most) = (limit.saturating_sub(routed.started.elapsed()), stages::most_of_others(call_parts));
        let response = stages::within(left, request).await?;
        // The answer of another API server has only begun.
        let end = tokio::time::Instant::from_std(routed.started + limit);
        Ok(response.map(|body| body.bounded(end, most)))
    }

    /// How large the object is that a request has to read, change or render: what is sent may be small, and the work is not. Zero
    /// where its bytes are only passed on.
    fn stored_size(&self, call: &Call<'_>, routed: &Routed<'_>) -> usize {
        let (Route::Resource(target), Some(resource), Ok(handler)) = (&routed.route, &routed.resource, routed.plan.handler)
        else {
            return 0;
        };
        let passed_on = handler == Handler::Object(Verb::Get) && call.accept.is_plain();
        let reads = matches!(handler, Handler::Object(_) | Handler::Part(_)) && !target.name.is_empty() && !passed_on;
        if reads { self.registry.size(resource, target.namespace, target.name) } else { 0 }
    }

    async fn dispatch(&self, call: Call<'_>, routed: &Routed<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
        if let Some(remote) = &routed.remote {
            return Box::pin(self.forward_to(&call, remote, body)).await;
        }
        let (target, resource) = match (&routed.route, &routed.resource) {
            (Route::Resource(target), Some(resource)) => (*target, resource),
            (Route::Resource(target), None) => return self.unknown(target),
            (Route::Other, _) => return Ok(Box::pin(self.document(&call, body)).await),
        };
        let handler = routed.plan.handler?;
        // What is proxied has its own media types.
        if !matches!(handler, Handler::Connect(_)) {
            routed.negotiated.as_ref().map_err(Status::clone)?;
        }
        if let Some(text) = &resource.def.deprecated {
            call.warnings.push(text.as_ref());
            call.annotations.add("k8s.io/deprecated", "true");
            crate::metrics::deprecated::asked(&resource.def, target.sub);
        }
        self.handle(&On { call, target, resource }, handler, body).await
    }

    /// Makes the request one of the user whom the caller wants to be, in the first mode that is allowed.
    async fn impersonate(&self, call: &mut Call<'_>, routed: &Routed<'_>) -> Result<(), Status> {
        let Some(wanted) = impersonate::wanted(&call.parts.headers)? else { return Ok(()) };
        let mut refused = None;
        for mode in MODES.into_iter().filter(|mode| mode.fits(&call.user, &wanted)) {
            match self.may_impersonate(call, routed, mode, &wanted).await {
                Ok(()) => {
                    call.user = Arc::new(mode.complete(wanted));
                    call.record.iter().for_each(|record| record.impersonates(&call.user, mode));
                    return Ok(());
                }
                // What the first mode lacks is told, as upstream.
                Err(status) => refused = refused.or(Some(status)),
            }
        }
        Err(refused.unwrap_or_else(|| Attributes::new(&call.user).forbidden("no mode of impersonation is allowed")))
    }

    async fn may_impersonate(&self, call: &Call<'_>, routed: &Routed<'_>, mode: Mode, wanted: &User) -> Result<(), Status> {
        let Routed { route, plan, .. } = routed;
        let (seen, selecting) = (mode.seen(&call.user), self.selecting(call, route, plan));
        for verb in plan.verbs.iter().filter_map(|verb| mode.verb_on(verb)) {
            let attributes = Attributes { user: &seen, ..self.attributes(call, route, &verb, selecting.as_ref()) };
            self.authorizer.decide(&self.registry, &attributes).await?;
        }
        for checks in mode.requirements(&seen, wanted)? {
            if let Some(wide) = &checks.wide
                && self.authorizer.decide(&self.registry, wide).await.is_ok()
            {
                continue;
            }
            for attributes in &checks.each {
                self.authorizer.decide(&self.registry, attributes).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function gives, without a call of it.
    fn size<A, B, C, F>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// The future of a request is allocated and moved for each, whatever it asks for. One of 100 KB once took half of the time of a get.
    #[test]
    fn requests_are_small() {
        let serve = size(|inner: &'static Inner, parts, body| inner.serve(parts, body));
        let dispatch = size(|inner: &'static Inner, (call, routed): (Call<'static>, &'static Routed<'static>), body| {
            inner.dispatch(call, routed, body)
        });
        let object = size(|inner: &'static Inner, on: &'static On<'static>, (verb, body)| inner.object(on, verb, body));
        assert!(serve < 4 << 10 && dispatch < 2 << 10 && object < 4 << 10, "{serve} {dispatch} {object}");
    }
}
