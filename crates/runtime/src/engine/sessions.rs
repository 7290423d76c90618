//! Commands in containers, attached streams and connections into pods.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::Inner;
use super::state::{ContainerEntry, read_json};
use crate::api::{ContainerState, Error, ExecOutput, ExecRequest, Result, Streams};
use crate::images::blocking;
use crate::shim::client::{Client, read_frame};
use crate::shim::protocol::{DATA, ExecSession, Kind, LAST, Request, encode};

/// Bytes between the session and its user.
const PIPE: usize = 64 << 10;
/// How long a pod may take to accept a connection.
const DIAL: Duration = Duration::from_secs(10);

impl Inner {
    fn running(&self, id: &str) -> Result<Arc<ContainerEntry>> {
        let entry = self.container(id)?;
        match entry.phase() {
            ContainerState::Running => Ok(entry),
            phase => Err(Error::NotFound(format!("container {id} is {phase:?}, not running: it"))),
        }
    }

    async fn connect(&self, entry: &ContainerEntry, request: &Request) -> Result<Client> {
        let mut client = Client::connect(&self.sandbox_dir(&entry.record.sandbox))
            .await
            .map_err(|error| Error::Internal(format!("the pod's shim is gone: {error}")))?;
        client.call(request).await?;
        Ok(client)
    }

    /// The command as a process of the container: same user, environment and privileges.
    /// A `bound` one ends with its session.
    async fn exec_request(&self, entry: &ContainerEntry, request: &ExecRequest, bound: bool) -> Result<Request> {
        let path = entry.dir.join("config.json");
        let spec: Value = blocking(move || read_json(&path)).await?.map_err(super::internal)?;
        let mut process = spec["process"].clone();
        process["args"] = json!(request.command);
        process["terminal"] = json!(request.tty);
        if let (true, Some(env)) = (request.tty, process["env"].as_array_mut())
            && !env.iter().any(|entry| entry.as_str().is_some_and(|entry| entry.starts_with("TERM=")))
        {
            env.push(json!("TERM=xterm"));
        }
        Ok(Request::Exec(ExecSession {
            container: entry.record.id.clone(),
            process: process.to_string(),
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr && !request.tty,
            bound,
        }))
    }

    /// See [`crate::api::Runtime::exec_sync`].
    pub(super) async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration, limit: usize) -> Result<ExecOutput> {
        let entry = self.running(id)?;
        let request = ExecRequest { command: command.to_vec(), stdout: true, stderr: true, ..ExecRequest::default() };
        let request = self.exec_request(&entry, &request, true).await?;
        let timed_out = || Error::Timeout(format!("command {command:?} timed out after {timeout:?}"));
        let deadline = tokio::time::Instant::now() + if timeout.is_zero() { Duration::from_secs(1 << 30) } else { timeout };
        let mut client = match tokio::time::timeout_at(deadline, self.connect(&entry, &request)).await {
            Ok(connected) => connected?,
            Err(_) => return Err(timed_out()),
        };
        match tokio::time::timeout_at(deadline, collect(&mut client, limit)).await {
            Ok(output) => output,
            Err(_) => {
                let _ = client.0.write_all(&encode(Kind::Kill, &[])).await;
                Err(timed_out())
            }
        }
    }

    /// See [`crate::api::Runtime::exec`].
    pub(super) async fn exec(&self, id: &str, request: ExecRequest) -> Result<Streams> {
        let entry = self.running(id)?;
        if request.command.is_empty() {
            return Err(Error::Start("no command specified".to_owned()));
        }
        let client = self.connect(&entry, &self.exec_request(&entry, &request, false).await?).await?;
        Ok(streams(client, &request, &self.options.tasks))
    }

    /// See [`crate::api::Runtime::attach`].
    pub(super) async fn attach(&self, id: &str, request: ExecRequest) -> Result<Streams> {
        let entry = self.running(id)?;
        let config = &entry.record.config;
        let wanted = ExecRequest {
            tty: config.tty,
            stdin: request.stdin && config.stdin,
            stderr: request.stderr && !config.tty,
            ..request
        };
        let attach =
            Request::Attach { container: id.to_owned(), stdin: wanted.stdin, stdout: wanted.stdout, stderr: wanted.stderr };
        let client = self.connect(&entry, &attach).await?;
        Ok(streams(client, &wanted, &self.options.tasks))
    }

    /// See [`crate::api::Runtime::dial`].
    pub(super) async fn dial(&self, sandbox: &str, port: u16) -> Result<TcpStream> {
        let entry = self.sandbox(sandbox)?;
        if !entry.is_ready() {
            return Err(Error::NotFound(format!("sandbox {sandbox} is not ready: it")));
        }
        let netns = entry.record.lock().netns.clone();
        dial(netns, port).await
    }
}

/// Connects to a port in a network namespace, that of the node when none is given.
pub(crate) async fn dial(netns: Option<PathBuf>, port: u16) -> Result<TcpStream> {
    let mut failed = Vec::new();
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let address = SocketAddr::new(address, port);
        match connect(netns.clone(), address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed.push(base::connection::dial(&address.to_string(), &error)),
        }
    }
    Err(Error::Internal(format!("port {port} of the pod: {}", failed.join("; "))))
}

/// A socket stays in the namespace that it was made in, so that no thread waits for who does not answer.
async fn connect(netns: Option<PathBuf>, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = inside(netns, move || socket_for(address)).await?;
    let connecting = TcpSocket::from_std_stream(socket.into()).connect(address);
    tokio::time::timeout(DIAL, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Does something in a network namespace, that of the node when none is given.
pub(super) async fn inside<T: Send + 'static>(
    netns: Option<PathBuf>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = oneshot::channel();
    let enter = move || match netns {
        Some(path) => Ok(setns(std::fs::File::open(path)?.as_fd(), CloneFlags::CLONE_NEWNET)?),
        None => Ok(()),
    };
    // A thread of its own: it never comes back from the pod's network namespace.
    std::thread::Builder::new()
        .name("inside".to_owned())
        .stack_size(128 << 10)
        .spawn(move || drop(sender.send(enter().and_then(|()| work()))))?;
    receiver.await.map_err(|_| io::Error::other("the thread in the network namespace ended"))?
}

fn socket_for(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    Ok(socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?)
}

async fn collect(client: &mut Client, limit: usize) -> Result<ExecOutput> {
    let mut output = ExecOutput::default();
    loop {
        let (kind, payload) = read_frame(&mut client.0).await.map_err(|_| cut_off())?;
        match kind {
            Kind::Stdout => keep(&mut output.stdout, &payload, limit),
            Kind::Stderr => keep(&mut output.stderr, &payload, limit),
            Kind::Exit => {
                output.exit_code = exit_code(&payload);
                return Ok(output);
            }
            _ => {}
        }
    }
}

fn keep(into: &mut Vec<u8>, data: &[u8], limit: usize) {
    let room = limit.saturating_sub(into.len());
    into.extend_from_slice(&data[..data.len().min(room)]);
}

fn exit_code(payload: &[u8]) -> i32 {
    payload.try_into().map_or(-1, i32::from_be_bytes)
}

fn cut_off() -> Error {
    Error::Internal("the session was cut off: the pod's shim is gone".to_owned())
}

/// Connects a session to streams for its user.
fn streams(client: Client, request: &ExecRequest, tasks: &Tasks) -> Streams {
    let (mut read, write) = client.0.into_split();
    let (resize, sizes) = mpsc::channel(8);
    let (exit_sender, exit) = oneshot::channel();
    let pipe = |wanted: bool| if wanted { Some(tokio::io::duplex(PIPE)) } else { None };
    let (stdin, stdin_ours) = pipe(request.stdin).unzip();
    let (stdout, stdout_ours) = pipe(request.stdout).unzip();
    let (stderr, stderr_ours) = pipe(request.stderr && !request.tty).unzip();
    let (ended, end) = oneshot::channel::<()>();
    let (said, all_said) = oneshot::channel::<()>();
    tasks.spawn_until_cancelled("session output", OnFailure::Log, async move {
        if !receive(&mut read, stdout_ours, stderr_ours, exit_sender).await {
            // What the user has said before they went is still to be sent. Output is thrown away: a process that waits to be heard does
            // not read.
            let mut nowhere = tokio::io::sink();
            tokio::select! {
                _ = tokio::io::copy(&mut read, &mut nowhere) => {}
                _ = all_said => {}
                () = tokio::time::sleep(LAST) => {}
            }
        }
        drop(ended);
        Ok::<_, Error>(())
    });
    tasks.spawn_until_cancelled("session input", OnFailure::Log, async move {
        tokio::select! {
            () = transmit(write, stdin_ours, sizes, said) => {}
            _ = end => {}
        }
        Ok::<_, Error>(())
    });
    Streams {
        stdin: stdin.map(|s| Box::pin(s) as _),
        stdout: stdout.map(|s| Box::pin(s) as _),
        stderr: stderr.map(|s| Box::pin(s) as _),
        resize,
        exit,
    }
}

/// Hands out output until the exit code; ends early, and with false, when the user is gone.
async fn receive(
    read: &mut OwnedReadHalf,
    mut stdout: Option<DuplexStream>,
    mut stderr: Option<DuplexStream>,
    mut exit: oneshot::Sender<Result<i32>>,
) -> bool {
    let pump = async {
        loop {
            let Ok((kind, payload)) = read_frame(read).await else { return Err(cut_off()) };
            let target = match kind {
                Kind::Stdout => &mut stdout,
                Kind::Stderr => &mut stderr,
                Kind::Exit => return Ok(exit_code(&payload)),
                _ => continue,
            };
            // A user who closed one stream still wants the other, and the code.
            if let Some(stream) = target
                && stream.write_all(&payload).await.is_err()
            {
                *target = None;
            }
        }
    };
    let result = tokio::select! {
        result = pump => result,
        () = exit.closed() => return false,
    };
    drop((stdout, stderr));
    let _ = exit.send(result);
    true
}

/// Sends input and terminal sizes until the session ends. `said` is dropped when all input is sent.
async fn transmit(
    mut write: OwnedWriteHalf,
    mut stdin: Option<DuplexStream>,
    mut sizes: mpsc::Receiver<(u16, u16)>,
    said: oneshot::Sender<()>,
) {
    let mut said = Some(said).filter(|_| stdin.is_some());
    let mut buffer = vec![0; DATA];
    let mut sizes_open = true;
    loop {
        // Sizes first: what is typed after a resize is for the terminal of the new size.
        let frame = tokio::select! {
            biased;
            size = sizes.recv(), if sizes_open => match size {
                Some((columns, rows)) => {
                    let [a, b] = columns.to_be_bytes();
                    let [c, d] = rows.to_be_bytes();
                    encode(Kind::Resize, &[a, b, c, d])
                }
                None => {
                    sizes_open = false;
                    continue;
                }
            },
            count = read_some(&mut stdin, &mut buffer) => match count {
                0 => {
                    stdin = None;
                    encode(Kind::StdinEnd, &[])
                }
                count => encode(Kind::Stdin, &buffer[..count]),
            },
        };
        if write.write_all(&frame).await.is_err() {
            return;
        }
        if stdin.is_none() {
            drop(said.take());
        }
    }
}

/// Reads from the stream; 0 at its end. Without one it waits for ever.
async fn read_some(stdin: &mut Option<DuplexStream>, buffer: &mut [u8]) -> usize {
    match stdin {
        Some(stream) => stream.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}
