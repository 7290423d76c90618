//! Sessions: a call asks for one, and is answered with the address at which it is found, once and for a short time. Addresses are on
//! loopback, where every user of the machine is, so they cannot be guessed.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::listen::accepted;
use base::tasks::{OnFailure, Tasks};
use bytes::Bytes;
use grpc::Error;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use runtime::api::{self, Runtime};
use streaming::exec::Outcome;
use streaming::join::{Process, join, refuse, relay};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use super::{Server, errors};
use crate::messages::*;

/// How long an address is good for.
const LIFE: Duration = Duration::from_secs(60);
/// Most addresses that nobody has come to yet.
const WAITING: usize = 1000;
/// Most connections at a time.
const CONNECTIONS: usize = 256;
/// Time for the headers of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Codes of gRPC for what there is too much of, and for what this process could not do.
const EXHAUSTED: grpc::Code = grpc::Code::Other(8);
const INTERNAL: grpc::Code = grpc::Code::Other(13);

/// What a session is for; identifiers are whole.
enum Purpose {
    Exec(String, api::ExecRequest),
    Attach(String, api::ExecRequest),
    Forward(String),
}

/// Sessions that were asked for.
pub(super) struct Sessions {
    runtime: Arc<dyn Runtime>,
    tasks: Tasks,
    waiting: Mutex<HashMap<String, (Purpose, Instant)>>,
    /// Nothing listens before the first session is asked for.
    address: OnceCell<SocketAddr>,
}

impl Sessions {
    pub(super) fn new(runtime: Arc<dyn Runtime>, tasks: Tasks) -> Self {
        Self { runtime, tasks, waiting: Mutex::default(), address: OnceCell::new() }
    }

    /// The address of a session of its own, of a kind.
    async fn expect(self: &Arc<Self>, kind: &str, purpose: Purpose) -> Result<String, Error> {
        let listen = || async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            self.tasks.spawn_until_cancelled("container sessions", OnFailure::Log, serve(listener, self.clone()));
            Ok::<_, std::io::Error>(address)
        };
        let address = self.address.get_or_try_init(listen).await;
        let address = address.map_err(|error| Error { code: INTERNAL, message: error.to_string() })?;
        let token = uuid::Uuid::new_v4().simple().to_string();
        let now = Instant::now();
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, (_, end)| *end > now);
        if waiting.len() >= WAITING {
            return Err(Error { code: EXHAUSTED, message: format!("{WAITING} sessions wait for their clients already") });
        }
        waiting.insert(token.clone(), (purpose, now + LIFE));
        Ok(format!("http://{address}/{kind}/{token}"))
    }

    /// What the session of an address is for, once.
    fn take(&self, token: &str) -> Option<Purpose> {
        let (purpose, end) = self.waiting.lock().remove(token)?;
        (end > Instant::now()).then_some(purpose)
    }
}

impl Server {
    pub(super) async fn exec(&self, request: ExecRequest) -> Result<ExecResponse, Error> {
        if request.cmd.is_empty() {
            return Err(errors::invalid("a command is required"));
        }
        let ExecRequest { container_id, cmd, tty, stdin, stdout, stderr, .. } = request;
        let ask = wanted(api::ExecRequest { command: cmd, tty, stdin, stdout, stderr })?;
        let container = self.running(&container_id).await?;
        Ok(ExecResponse { url: self.streams.expect("exec", Purpose::Exec(container.id, ask)).await? })
    }

    pub(super) async fn attach(&self, request: AttachRequest) -> Result<AttachResponse, Error> {
        let AttachRequest { container_id, stdin, tty, stdout, stderr, .. } = request;
        let ask = wanted(api::ExecRequest { command: Vec::new(), tty, stdin, stdout, stderr })?;
        let container = self.running(&container_id).await?;
        Ok(AttachResponse { url: self.streams.expect("attach", Purpose::Attach(container.id, ask)).await? })
    }

    pub(super) async fn port_forward(&self, request: PortForwardRequest) -> Result<PortForwardResponse, Error> {
        let sandbox = self.sandbox(&request.pod_sandbox_id).await?;
        if sandbox.state != api::SandboxState::Ready {
            return Err(errors::precondition(format!("sandbox {} is not ready", sandbox.id)));
        }
        let url = self.streams.expect("portforward", Purpose::Forward(sandbox.id)).await?;
        let ports: Vec<String> = request.port.iter().map(|port| format!("port={port}")).collect();
        Ok(PortForwardResponse { url: if ports.is_empty() { url } else { format!("{url}?{}", ports.join("&")) } })
    }
}

/// "One of stdin, stdout, and stderr MUST be true"; "If tty is true, stderr MUST be false" (`ExecRequest`).
fn wanted(ask: api::ExecRequest) -> Result<api::ExecRequest, Error> {
    if !(ask.stdin || ask.stdout || ask.stderr) {
        return Err(errors::invalid("one of stdin, stdout, and stderr must be set"));
    }
    if ask.tty && ask.stderr {
        return Err(errors::invalid("tty and stderr cannot both be set: a terminal has one output"));
    }
    Ok(ask)
}

async fn serve(listener: TcpListener, sessions: Arc<Sessions>) -> Result<(), Infallible> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let (stream, _) = accepted(|| listener.accept()).await;
        let known = sessions.clone();
        sessions.tasks.spawn_until_cancelled("connection of a session", OnFailure::Log, async move {
            connection(stream, known).await;
            drop(place);
            Ok::<_, Infallible>(())
        });
    }
}

async fn connection(stream: TcpStream, sessions: Arc<Sessions>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(request, &sessions);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%error, "a connection of a session has ended");
    }
}

fn text(status: StatusCode, message: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(message.into()));
    *response.status_mut() = status;
    response
}

fn answer(mut request: Request<Incoming>, sessions: &Arc<Sessions>) -> Response<Full<Bytes>> {
    let token = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let Some(purpose) = sessions.take(&token) else {
        return text(StatusCode::NOT_FOUND, "no such session: its address is good once, and for a minute");
    };
    let accepted = match purpose {
        Purpose::Exec(id, ask) => session(&mut request, sessions, id, ask, false),
        Purpose::Attach(id, ask) => session(&mut request, sessions, id, ask, true),
        Purpose::Forward(id) => forward(&mut request, sessions, id),
    };
    match accepted {
        Ok(response) => response.map(|()| Full::default()),
        Err(refusal) => text(refusal.status, refusal.message),
    }
}

fn session(
    request: &mut Request<Incoming>,
    sessions: &Arc<Sessions>,
    id: String,
    ask: api::ExecRequest,
    attached: bool,
) -> Result<Response<()>, streaming::Refusal> {
    let wanted = streaming::exec::Streams { stdin: ask.stdin, stdout: ask.stdout, stderr: ask.stderr, tty: ask.tty };
    let (response, session) = streaming::exec::accept(request, wanted, &sessions.tasks)?;
    let runtime = sessions.runtime.clone();
    sessions.tasks.spawn_until_cancelled(format!("session in {id}"), OnFailure::Log, async move {
        let session = session.await?;
        let streams = if attached { runtime.attach(&id, ask).await } else { runtime.exec(&id, ask).await };
        join(session, streams.map(|streams| process(streams, attached)).map_err(|error| error.to_string())).await;
        Ok::<_, streaming::Error>(())
    });
    Ok(response)
}

/// Who has attached learns from the container's status how it ended.
fn process(streams: api::Streams, attached: bool) -> Process {
    let api::Streams { stdin, stdout, stderr, resize, exit } = streams;
    let exit = async move {
        match exit.await.map_err(|_| api::Error::Internal("the session was cut off".to_owned())).and_then(|ended| ended) {
            Ok(code) => Outcome::Exit(if attached { 0 } else { code }),
            Err(error) => Outcome::Failed(error.to_string()),
        }
    };
    Process { stdin, stdout, stderr, resize, exit: Box::pin(exit) }
}

fn forward(
    request: &mut Request<Incoming>,
    sessions: &Arc<Sessions>,
    sandbox: String,
) -> Result<Response<()>, streaming::Refusal> {
    let (response, mut connections) = streaming::portforward::accept(request, &sessions.tasks)?;
    let (runtime, group) = (sessions.runtime.clone(), sessions.tasks.clone());
    sessions.tasks.spawn_until_cancelled(format!("port-forward to {sandbox}"), OnFailure::Log, async move {
        while let Some(connection) = connections.recv().await {
            let (runtime, sandbox) = (runtime.clone(), sandbox.clone());
            group.spawn_until_cancelled("forwarded connection", OnFailure::Log, async move {
                match runtime.dial(&sandbox, connection.port).await {
                    Ok(target) => relay(connection, target).await,
                    Err(why) => {
                        let text = format!("error forwarding port {} of sandbox {sandbox}: {why}", connection.port);
                        refuse(connection, &text).await;
                    }
                }
                Ok::<_, Infallible>(())
            });
        }
        Ok::<_, Infallible>(())
    });
    Ok(response)
}
