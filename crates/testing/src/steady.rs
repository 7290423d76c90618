//! Requests at a steady rate to something that must not notice what happens behind it: each client has one connection, which it keeps as long
//! as the other side does.
//!
//! Whoever keeps connections has to expect that one is closed just when it is used (RFC 9112, 9.5). So a request that gets no answer on a
//! connection that was used before is sent once more on a new one, as every client of HTTP does. Whatever else goes wrong is a failure,
//! unless the network itself is bad: clients with [`Patience::LONG`] ask again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base::tasks::Tasks;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use tokio_util::sync::CancellationToken;

use crate::api::Endpoint;

/// Clients, each with a connection of its own.
const CLIENTS: u32 = 8;
/// How long an attempt without an answer, or one that failed, is left behind before a client with patience asks again.
const PAUSE: Duration = Duration::from_millis(100);
/// Of all clients one opens a connection for each request.
const ONE_OFF: u32 = 0;

/// How long clients wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For an answer to one attempt.
    attempt: Duration,
    /// For an answer at all. A client that waits longer than for one attempt asks again, on a new connection, whatever went wrong.
    whole: Duration,
}

impl Patience {
    /// One attempt.
    pub const SHORT: Self = Self { attempt: Duration::from_secs(5), whole: Duration::from_secs(5) };
    /// A network that loses packets: half a dozen retransmissions are an attempt, and a dozen attempts are made.
    pub const LONG: Self = Self { attempt: Duration::from_secs(4), whole: Duration::from_secs(50) };
}

/// Requests that go on in the background.
pub struct Steady {
    end: CancellationToken,
    thread: JoinHandle<Report>,
}

/// What became of them.
#[derive(Debug, Default)]
pub struct Report {
    /// Requests that were answered with 200.
    pub answered: u64,
    /// Why others were not.
    pub failures: Vec<String>,
    /// Connections that the other side closed.
    pub closed: u64,
    /// Attempts after which a client with patience has asked again.
    pub again: u64,
    /// The answer that took longest.
    pub slowest: Duration,
}

impl Steady {
    /// Starts to send `GET /` to an address, so many times a second, from the calling thread's network.
    ///
    /// # Panics
    /// When there can be no thread.
    pub fn start(address: SocketAddr, rate: u32) -> Self {
        Self::with_patience(address, rate, Patience::SHORT)
    }

    /// The same by clients of another patience.
    ///
    /// # Panics
    /// When there can be no thread.
    pub fn with_patience(address: SocketAddr, rate: u32, patience: Patience) -> Self {
        let end = CancellationToken::new();
        let ended = end.clone();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(load(address, rate, patience, &ended))
        };
        let thread = std::thread::Builder::new().name("steady".into()).spawn(run).unwrap();
        Self { end, thread }
    }

    /// Ends them.
    ///
    /// # Panics
    /// When the load has panicked.
    pub fn stop(self) -> Report {
        self.end.cancel();
        self.thread.join().unwrap()
    }
}

async fn load(address: SocketAddr, rate: u32, patience: Patience, end: &CancellationToken) -> Report {
    let (start, number) = (Instant::now(), AtomicU64::new(0));
    let clients = (0..CLIENTS).map(|client| Client::new(address, client == ONE_OFF, patience)).map(async |mut client| {
        loop {
            let at = start + Duration::from_secs(1) * u32::try_from(number.fetch_add(1, Ordering::Relaxed)).unwrap() / rate;
            if end.run_until_cancelled(tokio::time::sleep_until(at.into())).await.is_none() {
                return client.report;
            }
            client.ask().await;
        }
    });
    let mut all = Report::default();
    for report in futures::future::join_all(clients).await {
        all.answered += report.answered;
        all.closed += report.closed;
        all.again += report.again;
        all.failures.extend(report.failures);
        all.slowest = all.slowest.max(report.slowest);
    }
    all
}

struct Client {
    endpoint: Endpoint,
    tasks: Tasks,
    kept: Option<SendRequest<Full<Bytes>>>,
    one_off: bool,
    patience: Patience,
    report: Report,
}

impl Client {
    fn new(address: SocketAddr, one_off: bool, patience: Patience) -> Self {
        let (endpoint, tasks) = (Endpoint::plain(address), Tasks::root().0);
        Self { endpoint, tasks, kept: None, one_off, patience, report: Report::default() }
    }

    async fn ask(&mut self) {
        let start = Instant::now();
        let asked = tokio::time::timeout(self.patience.whole, self.attempts()).await.context("no answer in time").flatten();
        match asked {
            Ok(()) => self.report.answered += 1,
            Err(error) => {
                self.kept = None;
                self.report.failures.push(format!("{error:#}"));
            }
        }
        self.report.slowest = self.report.slowest.max(start.elapsed());
        if self.one_off {
            self.kept = None;
        }
    }

    async fn attempts(&mut self) -> Result<()> {
        loop {
            let asked = tokio::time::timeout(self.patience.attempt, self.answer()).await.context("no answer in time").flatten();
            if asked.is_ok() || self.patience.whole == self.patience.attempt {
                return asked;
            }
            self.kept = None;
            self.report.again += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn answer(&mut self) -> Result<()> {
        if let Some(mut kept) = self.kept.take() {
            if get(&mut kept, self.endpoint.address).await.is_ok() {
                self.kept = Some(kept);
                return Ok(());
            }
            self.report.closed += 1;
        }
        let mut fresh = self.endpoint.connect(&self.tasks).await.context("no connection")?;
        get(&mut fresh, self.endpoint.address).await.context("on a new connection")?;
        self.kept = Some(fresh);
        Ok(())
    }
}

async fn get(connection: &mut SendRequest<Full<Bytes>>, host: SocketAddr) -> Result<()> {
    connection.ready().await?;
    let answer = connection.send_request(Request::get("/").header("host", host.to_string()).body(Full::default())?).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    ensure!(status == 200, "{status}: {body:?}");
    Ok(())
}
