//! The least that a server can do: hyper and rustls, which answer bytes that they have, and a log with one fsync per group.
//!
//! It runs as a process of its own beside the server that is measured, under the same load in the same minutes, so that the ratio
//! of both holds on a slow machine too.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};

use anyhow::{Context, Result};
use base::tasks::{OnFailure, Tasks};
use base::tls::{self, Authority, Request as Certificate, Resolver};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, oneshot};
use tokio_rustls::TlsAcceptor;

use crate::api::Endpoint;

/// What the yardstick answers: the name of a file in its directory is the path.
pub const ANSWERS: [&str; 4] = ["get", "list", "create", "status"];
/// What a watcher gets for each POST to `/event`, which is a write as others are: were it sent before it is durable, watchers would get
/// several events at once, which no server can do whose client waits for its answer.
pub const EVENT: &str = "event";
const AUTHORITY: &str = "authority.pem";
/// Events that a slow watcher may be behind.
const BEHIND: usize = 4096;

/// The process.
pub struct Yardstick {
    child: Child,
    endpoint: Endpoint,
}

impl Yardstick {
    /// Starts this program again as the yardstick (`PROGRAM yardstick DIRECTORY`), with its answers in files of the directory.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(directory: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("yardstick").arg(directory).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("the yardstick said {line:?}"))?;
        let endpoint = Endpoint::trusting(address, &fs::read_to_string(directory.join(AUTHORITY))?)?;
        Ok(Self { child, endpoint })
    }

    /// Where it serves.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves what the directory holds until it is killed.
///
/// # Errors
/// When it cannot listen.
pub fn serve(directory: &Path) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(listen(directory))
}

async fn listen(directory: &Path) -> Result<()> {
    let (tasks, _failures) = Tasks::root();
    let authority = Arc::new(Authority::in_memory("yardstick")?);
    let certificate = Certificate::Server { name: "yardstick".into(), sans: vec!["127.0.0.1".into()] };
    let config = tls::server(Resolver::memory(authority.clone(), certificate)?, None)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    fs::write(directory.join(AUTHORITY), authority.bundle())?;
    let server = Arc::new(Server::new(directory)?);
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let acceptor = TlsAcceptor::from(config);
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, server) = (acceptor.clone(), server.clone());
        tasks.spawn_until_cancelled("connection", OnFailure::Log, async move { server.connection(acceptor, stream).await });
    }
}

type Body = Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

struct Server {
    answers: HashMap<String, Bytes>,
    event: Bytes,
    events: broadcast::Sender<Bytes>,
    log: mpsc::Sender<(Bytes, oneshot::Sender<()>)>,
}

impl Server {
    fn new(directory: &Path) -> Result<Self> {
        let read = |name: &str| anyhow::Ok(Bytes::from(fs::read(directory.join(name)).with_context(|| name.to_owned())?));
        let answers = ANSWERS.iter().map(|name| Ok((format!("/{name}"), read(name)?))).collect::<Result<_>>()?;
        let file = File::create(directory.join("log"))?;
        let (log, records) = mpsc::channel();
        std::thread::Builder::new().name("log".into()).spawn(move || write_groups(file, &records))?;
        Ok(Self { answers, event: read(EVENT)?, events: broadcast::channel(BEHIND).0, log })
    }

    async fn connection(&self, acceptor: TlsAcceptor, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let stream = acceptor.accept(stream).await?;
        let service = service_fn(|request| self.answer(request));
        Ok(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let path = request.uri().path().to_owned();
        if path == "/watch" {
            let watcher = self.events.subscribe();
            let events = stream::unfold(watcher, async |mut watcher| {
                let event = watcher.recv().await.ok()?;
                Some((Ok(Frame::data(event)), watcher))
            });
            return respond(Either::Right(StreamBody::new(events.boxed())));
        }
        let writes = request.method() != Method::GET;
        let body = request.into_body().collect().await?.to_bytes();
        if writes {
            let (written, done) = oneshot::channel();
            self.log.send((body, written))?;
            done.await?;
        }
        if path == "/event" {
            // Nobody may watch.
            let _ = self.events.send(self.event.clone());
            return respond(Either::Left(Full::default()));
        }
        respond(Either::Left(Full::new(self.answers.get(&path).context("no such path")?.clone())))
    }
}

fn respond(body: Body) -> Result<Response<Body>> {
    Ok(Response::builder().status(StatusCode::OK).header("content-type", "application/json").body(body)?)
}

/// Writes what is there as one group, with one fsync, and then says so to each.
fn write_groups(mut file: File, records: &mpsc::Receiver<(Bytes, oneshot::Sender<()>)>) {
    while let Ok(first) = records.recv() {
        let (mut group, mut waiting) = (Vec::new(), Vec::new());
        for (record, written) in std::iter::once(first).chain(records.try_iter()) {
            group.extend_from_slice(&record);
            waiting.push(written);
        }
        if file.write_all(&group).and_then(|()| file.sync_data()).is_err() {
            return;
        }
        for written in waiting {
            // The client may have gone.
            let _ = written.send(());
        }
    }
}
