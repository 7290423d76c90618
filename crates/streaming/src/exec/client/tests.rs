//! The client against the server of this crate, and against servers that nobody would want.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use base::tasks::Tasks;
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;
use crate::exec::{Session, over_spdy};
use crate::join::join;
use crate::spdy::{Frame, Head, Reader, Writer};

const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
const OUTPUT: Streams = Streams { stdin: false, stdout: true, stderr: false, tty: false };
/// A server that does nothing is seen soon; one that goes on has the time of a slow machine.
const SHORT: Patience = Patience { begin: Duration::from_millis(200), ..PATIENCE };
const SHORT_END: Patience = Patience { end: Duration::from_millis(200), ..PATIENCE };
const TERMINAL: Streams = Streams { stdin: true, stdout: true, stderr: false, tty: true };

/// The other end of a process's streams.
struct Command {
    stdin: Option<DuplexStream>,
    stdout: Option<DuplexStream>,
    stderr: Option<DuplexStream>,
    sizes: mpsc::Receiver<(u16, u16)>,
    exit: oneshot::Sender<Outcome>,
}

fn process(streams: Streams) -> (Command, Process) {
    let pipe = |wanted: bool| wanted.then(|| duplex(1024)).unzip();
    let (stdin, to_stdin) = pipe(streams.stdin);
    let (stdout, from_stdout) = pipe(streams.stdout);
    let (stderr, from_stderr) = pipe(streams.stderr);
    let ((resize, sizes), (exit, ended)) = (mpsc::channel(4), oneshot::channel());
    let process = Process {
        stdin: to_stdin.map(|stream| Box::pin(stream) as _),
        stdout: from_stdout.map(|stream| Box::pin(stream) as _),
        stderr: from_stderr.map(|stream| Box::pin(stream) as _),
        resize,
        exit: Box::pin(async { ended.await.unwrap_or(Outcome::Failed("cut off".into())) }),
    };
    (Command { stdin, stdout, stderr, sizes, exit }, process)
}

/// What the client sees of a command that this crate's server runs, with `input`.
async fn run<F>(streams: Streams, input: &[u8], command: impl FnOnce(Command) -> F) -> (Vec<u8>, Vec<u8>, Outcome)
where
    F: Future<Output = ()>,
{
    let (near, far) = duplex(4096);
    let (ready, session) = oneshot::channel::<Session>();
    let (command_end, served) = process(streams);
    let serving = async { join(session.await.unwrap(), Ok(served)).await };
    let client = async {
        let Process { stdin, stdout, stderr, resize, exit } = open(far, streams, PATIENCE).await.unwrap();
        resize.send((80, 24)).await.unwrap();
        resize.send((132, 50)).await.ok();
        let typing = async {
            if let Some(mut stdin) = stdin {
                // A command may end before it has read all.
                let _ = stdin.write_all(input).await;
                let _ = stdin.shutdown().await;
            }
        };
        let all = async |from: Option<Pin<Box<dyn AsyncRead + Send>>>| {
            let mut bytes = Vec::new();
            if let Some(mut from) = from {
                from.read_to_end(&mut bytes).await.unwrap();
            }
            bytes
        };
        let ((), stdout, stderr, outcome) = tokio::join!(typing, all(stdout), all(stderr), exit);
        (stdout, stderr, outcome)
    };
    let transport = async {
        // It stays for a time after the end.
        let _ = over_spdy(near, streams, ready).await;
    };
    tokio::join!(transport, serving, command(command_end), client).3
}

#[tokio::test]
async fn commands_end_with_their_outcomes() {
    for outcome in [Outcome::Exit(0), Outcome::Exit(3), Outcome::Exit(137), Outcome::Failed("no such file".into())] {
        let ends = outcome.clone();
        let (stdout, stderr, seen) = run(ALL, b"", async |command| {
            command.stdout.unwrap().write_all(b"out").await.unwrap();
            command.stderr.unwrap().write_all(b"err").await.unwrap();
            command.exit.send(ends).unwrap();
        })
        .await;
        assert_eq!((stdout.as_slice(), stderr.as_slice(), seen), (&b"out"[..], &b"err"[..], outcome));
    }
}

/// `kubectl exec -i pod -- cat < file`, with more than fits any pipe on the way: the command reads to the end of its input, and goes on.
#[tokio::test]
async fn input_ends_before_output_begins_and_both_are_large() {
    let input: Vec<u8> = (0..3 << 20).map(|at: u32| (at % 251) as u8).collect();
    let (stdout, _, outcome) = run(ALL, &input, async |command| {
        let mut read = Vec::new();
        command.stdin.unwrap().read_to_end(&mut read).await.unwrap();
        drop(command.stderr);
        command.stdout.unwrap().write_all(&read).await.unwrap();
        command.exit.send(Outcome::Exit(0)).unwrap();
    })
    .await;
    assert!(stdout == input, "{} of {} bytes", stdout.len(), input.len());
    assert_eq!(outcome, Outcome::Exit(0));
    // As it comes.
    let (stdout, _, _) = run(ALL, &input, async |command| {
        let (mut stdin, mut stdout) = (command.stdin.unwrap(), command.stdout.unwrap());
        drop(command.stderr);
        tokio::io::copy(&mut stdin, &mut stdout).await.unwrap();
        command.exit.send(Outcome::Exit(0)).unwrap();
    })
    .await;
    assert!(stdout == input);
    // A command that reads nothing.
    let (_, _, outcome) = run(ALL, &input, async |command| command.exit.send(Outcome::Exit(1)).unwrap()).await;
    assert_eq!(outcome, Outcome::Exit(1));
}

#[tokio::test]
async fn terminals_have_sizes() {
    let (stdout, _, outcome) = run(TERMINAL, b"", async |mut command| {
        let sizes = [command.sizes.recv().await, command.sizes.recv().await];
        command.stdout.unwrap().write_all(format!("{sizes:?}").as_bytes()).await.unwrap();
        command.exit.send(Outcome::Exit(0)).unwrap();
    })
    .await;
    assert_eq!(String::from_utf8(stdout).unwrap(), "[Some((80, 24)), Some((132, 50))]");
    assert_eq!(outcome, Outcome::Exit(0));
}

/// A client that goes away: the command's streams end, and with them many a command.
#[tokio::test]
async fn a_session_that_is_dropped_ends_at_the_server() {
    let (near, far) = duplex(4096);
    let (ready, session) = oneshot::channel::<Session>();
    let (mut command, served) = process(ALL);
    let client = async {
        let mut process = open(far, ALL, PATIENCE).await.unwrap();
        let mut hello = [0; 5];
        tokio::select! {
            _ = &mut process.exit => panic!("it has not ended"),
            read = process.stdout.as_mut().unwrap().read_exact(&mut hello) => { read.unwrap(); }
        }
    };
    let ended = async {
        command.stdout.as_mut().unwrap().write_all(b"hello").await.unwrap();
        command.stdin.unwrap().read_to_end(&mut Vec::new()).await.unwrap();
    };
    let serving = async { join(session.await.unwrap(), Ok(served)).await };
    let ((), served, (), ()) = tokio::join!(client, over_spdy(near, ALL, ready), serving, ended);
    served.unwrap();
    assert!(command.exit.is_closed(), "who waits for the command has gone, too");
}

/// The runtime's end of a connection, without manners.
struct Hostile {
    reader: Reader<ReadHalf<DuplexStream>>,
    writer: Writer<WriteHalf<DuplexStream>>,
}

impl Hostile {
    async fn say(&mut self, frame: Frame) {
        // The client may have had enough.
        let _ = self.writer.write(frame).await;
        let _ = self.writer.flush().await;
    }

    async fn data(&mut self, stream: u32, fin: bool, data: &'static [u8]) {
        self.say(Frame::Data { stream, fin, data: Bytes::from_static(data) }).await;
    }

    /// Accepts the streams 1, 3 and so on.
    async fn accept(&mut self, count: u32) {
        for stream in (1..).step_by(2).take(count as usize) {
            assert!(matches!(self.reader.next().await, Ok(Some(Head::Open { stream: opened, .. })) if opened == stream));
            self.say(Frame::Reply { stream }).await;
        }
    }

    /// Until the client has gone.
    async fn wait(&mut self) {
        while let Ok(Some(head)) = self.reader.next().await {
            if let Head::Data { length, .. } = head {
                self.reader.data(&mut vec![0; length], length).await.unwrap();
            }
        }
    }
}

/// How a session with standard output alone goes at a server that does what `serve` does: what it said, and how it has ended.
async fn at<F>(serve: impl FnOnce(Hostile) -> F) -> Result<(String, Outcome), Error>
where
    F: Future<Output = ()>,
{
    within(PATIENCE, serve).await
}

async fn within<F>(patience: Patience, serve: impl FnOnce(Hostile) -> F) -> Result<(String, Outcome), Error>
where
    F: Future<Output = ()>,
{
    let (near, far) = duplex(4096);
    let (read, write) = split(near);
    let server = serve(Hostile { reader: Reader::new(read), writer: Writer::new(write).unwrap() });
    let client = async {
        let Process { stdout, exit, .. } = open(far, OUTPUT, patience).await?;
        let (mut stdout, mut text) = (stdout.unwrap(), String::new());
        let (read, outcome) = tokio::join!(stdout.read_to_string(&mut text), exit);
        read.unwrap();
        Ok((text, outcome))
    };
    tokio::join!(server, client).1
}

fn failed(seen: Result<(String, Outcome), Error>, part: &str) {
    assert!(matches!(&seen, Ok((_, Outcome::Failed(why))) if why.contains(part)), "{seen:?} is not {part:?}");
}

#[tokio::test]
async fn servers_that_do_not_accept() {
    assert!(matches!(within(SHORT, async |mut server| server.wait().await).await, Err(Error::Timeout)));
    assert!(matches!(at(async |server| drop(server)).await, Err(Error::Closed | Error::Io(_))));
    // One stream of two.
    let some = within(SHORT, async |mut server| {
        server.accept(1).await;
        server.wait().await;
    });
    assert!(matches!(some.await, Err(Error::Timeout)));
    let refused = at(async |mut server| {
        server.accept(1).await;
        server.say(Frame::Reset { stream: 3, status: 3 }).await;
        server.wait().await;
    });
    assert!(matches!(refused.await, Err(Error::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused));
    // Ends before there is a stream to end.
    let ended = at(async |mut server| {
        server.data(1, true, b"").await;
        server.data(3, true, b"").await;
        server.wait().await;
    });
    assert!(matches!(ended.await, Err(Error::Closed)));
}

#[tokio::test]
async fn servers_that_break_off() {
    let silent = "without telling how it ended";
    failed(at(async |mut server| server.accept(2).await).await, silent);
    let resets = at(async |mut server| {
        server.accept(2).await;
        server.data(3, false, b"half").await;
        server.say(Frame::Reset { stream: 1, status: 5 }).await;
        server.say(Frame::Reset { stream: 3, status: 5 }).await;
        server.wait().await;
    });
    let seen = resets.await;
    assert!(matches!(&seen, Ok((text, _)) if text == "half"));
    failed(seen, silent);
    let garbage = at(async |mut server| {
        server.accept(2).await;
        server.writer.raw(b"\x80\x09nonsense").await.unwrap();
        server.wait().await;
    });
    failed(garbage.await, "has broken");
    // Half a report is none.
    let half = at(async |mut server| {
        server.accept(2).await;
        server.data(1, false, br#"{"status":"Suc"#).await;
    });
    failed(half.await, "in no known form");
}

/// `yes | kubectl exec -i pod -- head -1`: the command ends before its input does, and the server closes with input that nobody has read.
#[tokio::test]
async fn input_that_is_not_taken_costs_no_output() {
    let (client_reads, server_writes) = duplex(4096);
    let (client_writes, server_reads) = duplex(4096);
    let output = "x".repeat(256 << 10);
    let server = async {
        let mut reader = Reader::new(server_reads);
        let mut writer = Writer::new(server_writes).unwrap();
        for stream in [1, 3, 5] {
            assert!(matches!(reader.next().await, Ok(Some(Head::Open { stream: opened, .. })) if opened == stream));
            writer.write(Frame::Reply { stream }).await.unwrap();
            writer.flush().await.unwrap();
        }
        assert!(matches!(reader.next().await, Ok(Some(Head::Data { stream: 3, .. }))));
        // From here on the client cannot write.
        drop(reader);
        let report = br#"{"status":"Success"}"#;
        for (stream, data) in [(5, output.as_bytes()), (1, report)] {
            for part in data.chunks(8192) {
                writer.write(Frame::Data { stream, fin: false, data: Bytes::copy_from_slice(part) }).await.unwrap();
            }
            writer.write(Frame::Data { stream, fin: true, data: Bytes::new() }).await.unwrap();
            writer.flush().await.unwrap();
        }
    };
    let client = async {
        let streams = Streams { stdin: true, ..OUTPUT };
        let io = tokio::io::join(client_reads, client_writes);
        let Process { stdin, stdout, exit, .. } = open(io, streams, PATIENCE).await.unwrap();
        let (mut stdin, mut stdout, mut text) = (stdin.unwrap(), stdout.unwrap(), String::new());
        let typing = async { while stdin.write_all(&[b'y'; 1024]).await.is_ok() {} };
        let seen = async { tokio::join!(stdout.read_to_string(&mut text), exit).1 };
        let outcome = tokio::select! {
            outcome = seen => outcome,
            () = async { typing.await; std::future::pending().await } => unreachable!(),
        };
        (text, outcome)
    };
    let (text, outcome) = tokio::join!(server, client).1;
    assert_eq!((text.len(), outcome), (output.len(), Outcome::Exit(0)));
}

/// As containerd ends a session: with the report, and with resets in place of ends.
#[tokio::test]
async fn servers_that_reset_at_the_end() {
    let seen = at(async |mut server| {
        server.accept(2).await;
        server.say(Frame::Ping(2)).await;
        server.data(3, false, b"said").await;
        server.data(1, false, br#"{"status":"Failure","reason":"NonZeroExitCode","#).await;
        server.data(1, false, br#""details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#).await;
        server.say(Frame::Reset { stream: 1, status: 5 }).await;
        server.say(Frame::Reset { stream: 3, status: 5 }).await;
        server.wait().await;
    });
    assert_eq!(seen.await.unwrap(), ("said".to_owned(), Outcome::Exit(7)));
}

#[tokio::test]
async fn servers_that_go_on() {
    // No stream ends after the report.
    let stalled = within(SHORT_END, async |mut server| {
        server.accept(2).await;
        server.data(3, false, b"x").await;
        server.data(1, true, br#"{"status":"Success"}"#).await;
        server.wait().await;
    });
    assert_eq!(stalled.await.unwrap(), ("x".to_owned(), Outcome::Exit(0)));
    // A report without end.
    let long = within(SHORT_END, async |mut server| {
        server.accept(2).await;
        for _ in 0..MAX_REPORT / 1024 + 1 {
            server.data(1, false, &[b' '; 1024]).await;
        }
        server.wait().await;
    });
    failed(long.await, "in more than");
    // Streams of its own, headers and data of none, and replies again: nothing comes of them.
    let inventive = at(async |mut server| {
        server.accept(2).await;
        for stream in [2, 4, 5, 1] {
            server.say(Frame::Open { stream, headers: vec![("streamtype", "stdin".to_owned())] }).await;
            assert!(matches!(server.reader.next().await, Ok(Some(Head::Reset { stream: reset })) if reset == stream));
        }
        server.say(Frame::Reply { stream: 3 }).await;
        server.say(Frame::Reply { stream: 99 }).await;
        server.data(99, false, b"what").await;
        server.data(3, true, b"said").await;
        server.data(1, true, br#"{"status":"Success"}"#).await;
        server.wait().await;
    });
    assert_eq!(inventive.await.unwrap(), ("said".to_owned(), Outcome::Exit(0)));
}

/// What nobody reads is not taken: the server is held up, and this process keeps no more than the pipes hold.
#[tokio::test]
async fn output_that_nobody_reads() {
    let (near, far) = duplex(4096);
    let (read, write) = split(near);
    let mut server = Hostile { reader: Reader::new(read), writer: Writer::new(write).unwrap() };
    let sent = std::cell::Cell::new(0);
    let flood = async {
        server.accept(2).await;
        while sent.get() < 100 * crate::PIPE {
            server.data(3, false, &[0; 1024]).await;
            sent.set(sent.get() + 1024);
        }
    };
    // Until nothing moves any more.
    let held_up = async {
        let mut before = 0;
        while before == 0 || before != sent.get() {
            before = sent.get();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
    };
    let process = async {
        let process = open(far, OUTPUT, PATIENCE).await.unwrap();
        process.exit.await
    };
    tokio::select! {
        outcome = process => panic!("{outcome:?}"),
        () = flood => panic!("everything is taken"),
        () = held_up => {}
    }
    assert!((crate::PIPE..3 * crate::PIPE).contains(&sent.get()), "{} bytes", sent.get());
}

#[test]
fn reports() {
    let check = |text: &str, expected: Outcome| assert_eq!(parse(text.as_bytes()), expected, "{text}");
    let failed = |why: &str| Outcome::Failed(why.to_owned());
    let exit = |code: &str, reason: &str| {
        format!(
            r#"{{"status":"Failure","message":"m","reason":"{reason}","details":{{"causes":[{{"reason":"ExitCode","message":{code}}}]}}}}"#
        )
    };
    check(r#"{"metadata":{},"status":"Success"}"#, Outcome::Exit(0));
    check(&exit(r#""137""#, "NonZeroExitCode"), Outcome::Exit(137));
    for (code, reason) in
        [(r#""0""#, "NonZeroExitCode"), (r#""x""#, "NonZeroExitCode"), ("1", "NonZeroExitCode"), (r#""1""#, "InternalError")]
    {
        check(&exit(code, reason), failed("m"));
    }
    check(r#"{"status":"Failure","message":"Internal error occurred: no"}"#, failed("Internal error occurred: no"));
    check("{}", failed("the container runtime does not tell why the session failed"));
    check("[]", failed("the container runtime does not tell why the session failed"));
    check("exit 1", failed("the container runtime tells in no known form how the session ended"));
}

/// A server's bytes with faults in them end the session, with an outcome or without.
#[test]
fn fuzz_sessions() {
    let wait = |future: Pin<Box<dyn Future<Output = Vec<u8>>>>| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    };
    let bytes = wait(Box::pin(async {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes).unwrap();
        for stream in [1, 3, 5, 7] {
            writer.write(Frame::Reply { stream }).await.unwrap();
        }
        writer.write(Frame::Ping(2)).await.unwrap();
        writer.write(Frame::Data { stream: 5, fin: true, data: Bytes::from_static(b"said") }).await.unwrap();
        writer.write(Frame::Reset { stream: 7, status: 5 }).await.unwrap();
        let report = Bytes::from_static(br#"{"status":"Success"}"#);
        writer.write(Frame::Data { stream: 1, fin: true, data: report }).await.unwrap();
        bytes
    }));
    fuzz::fuzz(&[&bytes], &["\u{0}", "\u{3}", "Failure"], |input| {
        let sent = input.to_vec();
        let said = wait(Box::pin(async move {
            let (mut near, far) = duplex(fuzz::MAX_INPUT);
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
            let mut said = Vec::new();
            if let Ok(Process { stdout, exit, .. }) = open(far, ALL, PATIENCE).await {
                let mut stdout = stdout.unwrap();
                tokio::join!(stdout.read_to_end(&mut said), exit).0.unwrap();
            }
            said
        }));
        assert!(said.len() <= input.len());
    });
}

/// What a server answers to the request for the session at `/exec/token`.
async fn answered(answer: impl Fn(Request<hyper::body::Incoming>) -> http::Response<String>) -> Error {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/exec/token", listener.local_addr().unwrap());
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(|request| {
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = serving => unreachable!(),
        connected = connect(&url, ALL) => connected.map(drop).unwrap_err(),
    }
}

#[tokio::test]
async fn addresses_and_answers() {
    for address in
        ["", "/exec/token", "127.0.0.1:80", "unix:///run/x.sock", "ftp://127.0.0.1/x", "http:///x", "http://a b/", "\u{0}"]
    {
        let refused = connect(address, ALL).await.map(drop).unwrap_err();
        assert!(matches!(refused, Error::Address), "{address}: {refused:?}");
    }
    assert!(matches!(connect("https://127.0.0.1:1/x", ALL).await.map(drop), Err(Error::Tls)));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(matches!(connect(&format!("http://{closed}/x"), ALL).await.map(drop), Err(Error::Io(_))));

    let status = |status: u16, text: &str| http::Response::builder().status(status).body(text.to_owned()).unwrap();
    let refused = answered(|request| {
        assert_eq!((request.method(), request.uri().path()), (&http::Method::POST, "/exec/token"));
        status(404, &format!("no\u{1b}such {}", "x".repeat(1 << 20)))
    });
    match refused.await {
        Error::Refused { status, text } => {
            assert!(status == 404 && text.starts_with("no such xx") && text.len() <= 1 << 10, "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(answered(|_| status(200, "")).await, Error::Refused { .. }));
    let switched = |upgrade: &str, protocol: &str| {
        let answer = http::Response::builder().status(101).header("connection", "Upgrade").header("upgrade", upgrade);
        answer.header("x-stream-protocol-version", protocol).body(String::new()).unwrap()
    };
    assert!(matches!(answered(|_| switched("websocket", "v4.channel.k8s.io")).await, Error::Protocol));
    assert!(matches!(answered(|_| switched("SPDY/3.1", "channel.k8s.io")).await, Error::Protocol));
}

/// Over a real connection, from the address to the outcome.
#[tokio::test]
async fn a_session_at_an_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/exec/token?x=1", listener.local_addr().unwrap());
    let (tasks, _failures) = Tasks::root();
    let serving = async {
        let (stream, _): (TcpStream, _) = listener.accept().await.unwrap();
        let service = service_fn(|mut request: Request<hyper::body::Incoming>| {
            assert_eq!(request.uri(), "/exec/token?x=1");
            let (response, session) = crate::exec::accept(&mut request, ALL, &tasks).unwrap();
            tasks.spawn_until_cancelled("command", base::tasks::OnFailure::Log, async move {
                let mut session = session.await?;
                let mut input = String::new();
                session.stdin.take().unwrap().read_to_string(&mut input).await?;
                session.stdout.take().unwrap().write_all(input.to_uppercase().as_bytes()).await?;
                drop(session.stderr);
                session.finisher.finish(Outcome::Exit(3));
                Ok::<_, crate::Error>(())
            });
            async move { Ok::<_, Infallible>(response.map(|()| Empty::<Bytes>::new())) }
        });
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await.unwrap();
    };
    let client = async {
        let Process { stdin, stdout, exit, .. } = connect(&url, ALL).await.unwrap();
        let (mut stdin, mut stdout, mut text) = (stdin.unwrap(), stdout.unwrap(), String::new());
        let talking = async {
            stdin.write_all(b"hello").await.unwrap();
            stdin.shutdown().await.unwrap();
            stdout.read_to_string(&mut text).await.unwrap();
        };
        let ((), outcome) = tokio::join!(talking, exit);
        (text, outcome)
    };
    let ((), seen) = tokio::join!(serving, client);
    assert_eq!(seen, ("HELLO".to_owned(), Outcome::Exit(3)));
    assert!(tasks.drain(Duration::from_secs(60)).await);
}
