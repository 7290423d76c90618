//! What lies between the components and the API: every client's transport, with its delays and faults.
//!
//! In production a component of the server's process calls the API as a function; here the same call takes time, may be refused, may
//! be carried out without an answer, and a watch may lag or break off. What arrives is what the real API answered.

mod flow;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use apiserver::Api;
use bytes::Bytes;
use client::Client;
use client::kube::client::Body;
use http::header::{HeaderValue, USER_AGENT};
use http::{Method, Request, Response};
use parking_lot::Mutex;
use registry::User;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::audit::Auditor;
use crate::kubelets::{Kubelets, Question};
use crate::random::Random;
use flow::{Flow, Pace};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How the network behaves, in milliseconds and in cases of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The longest that requests and answers take, as a rule.
    pub(crate) latency: u64,
    /// Writes that are refused.
    pub(crate) refuse: u64,
    /// Writes that are carried out and answered with an error.
    pub(crate) lose: u64,
    /// Pieces of a watch that come late, with all that follow, and by how much at most.
    pub(crate) late: u64,
    pub(crate) lag: u64,
    /// Pieces of a watch at which it breaks off.
    pub(crate) cut: u64,
    /// Watches that cannot go on where they were, since history has gone on too far.
    pub(crate) expire: u64,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<State>>);

struct State {
    server: Option<Up>,
    faults: Faults,
    random: Random,
    /// Who is cut off.
    apart: BTreeSet<String>,
    /// Who is slow, and by how much at most, in milliseconds.
    slow: BTreeMap<String, u64>,
    kubelets: Kubelets,
    auditor: Arc<Auditor>,
}

/// A server that answers.
#[derive(Clone)]
struct Up {
    api: Api,
    gone: CancellationToken,
}

/// What happens to a request.
struct Plan {
    before: Duration,
    after: Duration,
    refused: Option<u16>,
    lost: bool,
    expired: bool,
}

impl Network {
    /// The auditor hears of writes that seem to have failed.
    pub(crate) fn new(random: Random, auditor: Arc<Auditor>) -> Self {
        Self(Arc::new(Mutex::new(State {
            server: None,
            faults: Faults::default(),
            random,
            apart: BTreeSet::new(),
            slow: BTreeMap::new(),
            kubelets: Kubelets::default(),
            auditor,
        })))
    }

    pub(crate) fn set(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// A server answers from now on, until `gone` is cancelled.
    pub(crate) fn up(&self, api: Api, gone: CancellationToken) {
        self.0.lock().server = Some(Up { api, gone });
    }

    /// Nobody answers.
    pub(crate) fn down(&self) {
        self.0.lock().server = None;
    }

    /// Cuts a client off, or lets it back.
    pub(crate) fn part(&self, who: &str, apart: bool) {
        let mut state = self.0.lock();
        if apart {
            state.apart.insert(who.to_owned());
        } else {
            state.apart.remove(who);
        }
    }

    /// Makes a client slow by so many milliseconds at most, or as fast as others.
    pub(crate) fn slow(&self, who: &str, by: u64) {
        let mut state = self.0.lock();
        if by > 0 {
            state.slow.insert(who.to_owned(), by);
        } else {
            state.slow.remove(who);
        }
    }

    pub(crate) fn kubelets(&self) -> Kubelets {
        self.0.lock().kubelets.clone()
    }

    fn is_apart(&self, who: &str) -> bool {
        self.0.lock().apart.contains(who)
    }

    /// A client with an identity. `who` is whom [`Network::part`] knows it as.
    pub(crate) fn client(&self, user: User, agent: &'static str, who: &str) -> Client {
        let agent = HeaderValue::from_static(agent);
        Client::new(Wire { network: self.clone(), user, agent, who: who.into() }, "default")
    }

    fn plan(&self, method: &Method, who: &str) -> Plan {
        let write = !matches!(*method, Method::GET | Method::HEAD);
        let mut state = self.0.lock();
        let faults = state.faults;
        let slow = state.slow.get(who).copied().unwrap_or(0);
        let random = &mut state.random;
        let (before, after) = match faults.latency {
            _ if slow > 0 => (random.millis(0, slow), random.millis(0, slow)),
            0 => Default::default(),
            most => (random.latency(0, most), random.latency(0, most)),
        };
        // Whoever creates something in vain is never told of a conflict.
        let codes: &[u16] = if *method == Method::POST { &[500, 503, 429] } else { &[500, 503, 429, 409] };
        let refused = (write && random.chance(faults.refuse)).then(|| *random.pick(codes));
        let (lost, expired) = (write && random.chance(faults.lose), random.chance(faults.expire));
        Plan { before, after, refused, lost, expired }
    }

    /// What kubelets answer by way of the API server, which says so when it reaches no kubelet.
    fn ask_kubelets(&self, question: &Question) -> Response<Flow> {
        if question.node().is_some_and(|node| self.is_apart(node)) {
            return status(503, "the simulated kubelet does not answer");
        }
        let (kubelets, auditor) = {
            let state = self.0.lock();
            (state.kubelets.clone(), state.auditor.clone())
        };
        Response::new(Flow::whole(kubelets.answer(question, &auditor)))
    }

    /// The next piece of a watch.
    fn pace(&self, who: &str) -> Pace {
        let mut state = self.0.lock();
        let (faults, apart) = (state.faults, state.apart.contains(who));
        let slow = state.slow.get(who).copied().unwrap_or(0);
        let random = &mut state.random;
        match () {
            () if apart || random.chance(faults.cut) => Pace::Cut,
            () if slow > 0 => Pace::After(random.millis(1, slow)),
            () if faults.lag > 0 && random.chance(faults.late) => Pace::After(random.millis(1, faults.lag)),
            () => Pace::Now,
        }
    }
}

/// One client's way to the API.
#[derive(Clone)]
struct Wire {
    network: Network,
    user: User,
    agent: HeaderValue,
    who: Arc<str>,
}

impl Service<Request<Body>> for Wire {
    type Response = Response<Flow>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Flow>, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(USER_AGENT, self.agent.clone());
        Box::pin(self.clone().send(request))
    }
}

impl Wire {
    async fn send(self, request: Request<Body>) -> Result<Response<Flow>, Failure> {
        let query = request.uri().query().unwrap_or_default();
        let watch = query.contains("watch=true");
        let goes_on = watch && !query.contains("sendInitialEvents=true");
        let plan = self.network.plan(request.method(), &self.who);
        sleep(plan.before).await;
        if let Some(code) = plan.refused {
            return Ok(status(code, "the simulated API refuses"));
        }
        if plan.expired && goes_on {
            return Ok(status(410, "too old resource version"));
        }
        let server = self.network.0.lock().server.clone();
        let Some(server) = server.filter(|_| !self.network.is_apart(&self.who)) else {
            // As long as it takes to notice.
            sleep(Duration::from_millis(50)).await;
            return Err("connection refused".into());
        };
        if let Some(question) = Question::of(&request) {
            return Ok(self.network.ask_kubelets(&question));
        }
        let gone = server.gone.clone();
        let answer = gone.run_until_cancelled(server.api.as_user(self.user.clone()).call(request)).await;
        let Some(Ok(answer)) = answer else { return Err("connection reset".into()) };
        if plan.lost {
            let auditor = self.network.0.lock().auditor.clone();
            auditor.lost();
            return Ok(status(504, "the simulated API does not answer in time"));
        }
        sleep(plan.after).await;
        if self.network.is_apart(&self.who) {
            return Err("connection reset".into());
        }
        let pace = watch.then(|| (self.network.clone(), self.who.clone()));
        Ok(answer.map(|body| Flow::new(body, server.gone, pace)))
    }
}

async fn sleep(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn status(code: u16, message: &str) -> Response<Flow> {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let body = serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    let mut response = Response::new(Flow::whole(Bytes::from(body.to_string())));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}
