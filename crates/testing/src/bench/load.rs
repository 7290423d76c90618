//! Many clients at once over TLS, each on a connection that it keeps.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use base::tasks::Tasks;
use bytes::Bytes;
use futures::future::try_join_all;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;

use crate::api::Endpoint;

/// A request.
#[derive(Clone)]
pub struct Ask {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Content type of the body.
    pub content_type: &'static str,
    /// What the answer may be.
    pub accept: &'static str,
    /// Whom the administrator impersonates.
    pub user: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Ask {
    /// GET.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, ..Self::post(path, Bytes::new()) }
    }

    /// POST of JSON.
    pub fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let (path, body) = (path.into(), body.into());
        Self { method: Method::POST, path, content_type: "application/json", accept: "", user: None, body }
    }

    /// PATCH.
    pub fn patch(path: impl Into<String>, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { method: Method::PATCH, content_type, ..Self::post(path, body) }
    }

    /// As hyper sends it.
    pub(super) fn request(self) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(self.method).uri(self.path).header("host", "knarr");
        request = request.header("content-type", self.content_type);
        if !self.accept.is_empty() {
            request = request.header("accept", self.accept);
        }
        if let Some(user) = self.user {
            request = request.header("impersonate-user", user);
        }
        Ok(request.body(Full::new(self.body))?)
    }
}

/// When a load ends.
#[derive(Clone, Copy)]
pub enum Until {
    /// After so long.
    Time(Duration),
    /// After so many requests.
    Count(u64),
}

/// What a load did.
pub struct Done {
    /// Requests that were answered.
    pub operations: u64,
    /// Bytes of the bodies of the answers.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Microseconds that each answer took.
    times: Vec<u32>,
}

impl Done {
    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.seconds
    }

    /// So many percent of the answers took no longer.
    pub fn at_percent(&mut self, percent: usize) -> Duration {
        Duration::from_micros(super::alone::at_percent(&mut self.times, percent).into())
    }
}

/// Sends what `make` makes of 0, 1, 2 and so on, from so many clients.
///
/// # Errors
/// When the server refuses one.
pub async fn run(endpoint: &Endpoint, clients: usize, until: Until, make: impl Fn(u64) -> Ask) -> Result<Done> {
    let start = Instant::now();
    run_paced(endpoint, clients, until, move |_| start, make).await
}

/// The same, each request not before its time.
///
/// # Errors
/// When the server refuses one.
pub async fn run_paced(
    endpoint: &Endpoint,
    clients: usize,
    until: Until,
    pace: impl Fn(u64) -> Instant,
    make: impl Fn(u64) -> Ask,
) -> Result<Done> {
    let (tasks, _failures) = Tasks::root();
    let (next, bytes, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let load = Load { until, pace, make, start: Instant::now(), next, bytes, done, times: Mutex::default() };
    let connections = try_join_all((0..clients).map(|_| endpoint.connect(&tasks))).await?;
    try_join_all(connections.into_iter().map(|connection| load.client(connection))).await?;
    let seconds = load.start.elapsed().as_secs_f64();
    tasks.drain(Duration::from_secs(1)).await;
    let times = load.times.into_inner().unwrap_or_default();
    Ok(Done { operations: load.done.into_inner(), bytes: load.bytes.into_inner(), seconds, times })
}

struct Load<P, F> {
    until: Until,
    pace: P,
    make: F,
    start: Instant,
    next: AtomicU64,
    bytes: AtomicU64,
    done: AtomicU64,
    times: Mutex<Vec<u32>>,
}

impl<P: Fn(u64) -> Instant, F: Fn(u64) -> Ask> Load<P, F> {
    /// The number of the next request, if there is one.
    fn next(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let more = match self.until {
            Until::Time(time) => self.start.elapsed() < time,
            Until::Count(count) => number < count,
        };
        more.then_some(number)
    }

    async fn client(&self, mut connection: SendRequest<Full<Bytes>>) -> Result<()> {
        let mut times = Vec::new();
        while let Some(number) = self.next() {
            let at = (self.pace)(number);
            if at > Instant::now() {
                tokio::time::sleep_until(at.into()).await;
            }
            connection.ready().await?;
            let start = Instant::now();
            let answer = connection.send_request((self.make)(number).request()?).await?;
            let status = answer.status();
            let mut body = answer.into_body();
            while let Some(frame) = body.frame().await {
                let length = frame?.data_ref().map_or(0, Bytes::len);
                self.bytes.fetch_add(length as u64, Ordering::Relaxed);
            }
            if !matches!(status, StatusCode::OK | StatusCode::CREATED) {
                bail!("the server answered {status}");
            }
            self.done.fetch_add(1, Ordering::Relaxed);
            times.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
        if let Ok(mut all) = self.times.lock() {
            all.extend(times);
        }
        Ok(())
    }
}

/// A client that keeps its connection.
pub struct Client {
    connection: SendRequest<Full<Bytes>>,
    _tasks: Tasks,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn connect(endpoint: &Endpoint) -> Result<Self> {
        let (tasks, _failures) = Tasks::root();
        Ok(Self { connection: endpoint.connect(&tasks).await?, _tasks: tasks })
    }

    /// The body of the answer to a request.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn ask(&mut self, ask: Ask) -> Result<Bytes> {
        self.connection.ready().await?;
        let answer = self.connection.send_request(ask.request()?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("the server answered {status}: {body:?}");
        }
        Ok(body)
    }
}

/// The body of the answer to one request.
///
/// # Errors
/// When the server refuses.
pub async fn once(endpoint: &Endpoint, ask: Ask) -> Result<Bytes> {
    Client::connect(endpoint).await?.ask(ask).await
}

/// Watchers that are open, and the events that they have not yet read.
pub struct Watchers {
    tasks: Tasks,
    bodies: Vec<hyper::body::Incoming>,
}

impl Watchers {
    /// Opens so many watches, each on a connection of its own.
    ///
    /// # Errors
    /// When the server refuses one.
    pub async fn open(endpoint: &Endpoint, count: usize, path: &str) -> Result<Self> {
        let (tasks, _failures) = Tasks::root();
        let open = async |_| {
            let mut connection = endpoint.connect(&tasks).await?;
            let answer = connection.send_request(Ask::get(path).request()?).await?;
            if answer.status() != StatusCode::OK {
                bail!("the server answered a watch with {}", answer.status());
            }
            Ok(answer.into_body())
        };
        let bodies = try_join_all((0..count).map(open)).await?;
        Ok(Self { tasks, bodies })
    }

    /// Reads so many events from each watch, then closes them. Returns what the last one read.
    ///
    /// # Errors
    /// When a watch ends before.
    pub async fn read(self, events: usize) -> Result<Vec<u8>> {
        let read = async |mut body: hyper::body::Incoming| {
            let (mut lines, mut bytes) = (0, Vec::new());
            while lines < events {
                let Some(frame) = body.frame().await else { bail!("a watch ended after {lines} of {events} events") };
                let frame = frame?;
                let data = frame.data_ref().map_or(&[][..], Bytes::as_ref);
                lines += data.iter().filter(|byte| **byte == b'\n').count();
                bytes.clear();
                bytes.extend_from_slice(data);
            }
            Ok(bytes)
        };
        let mut last = try_join_all(self.bodies.into_iter().map(read)).await?;
        self.tasks.drain(Duration::from_secs(1)).await;
        Ok(last.pop().unwrap_or_default())
    }
}
