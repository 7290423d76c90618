#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, WriteHalf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::spdy::{Frame, Head, Reader, Writer};

const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };

/// Upper-cases standard input, says done on standard error, exits with 3.
async fn command(session: oneshot::Receiver<Session>) {
    let mut session = session.await.unwrap();
    let mut input = String::new();
    session.stdin.take().unwrap().read_to_string(&mut input).await.unwrap();
    session.stdout.take().unwrap().write_all(input.to_uppercase().as_bytes()).await.unwrap();
    session.stderr.take().unwrap().write_all(b"done").await.unwrap();
    session.finisher.finish(Outcome::Exit(3));
}

fn binary(bytes: &'static [u8]) -> Message {
    Message::Binary(Bytes::from_static(bytes))
}

#[tokio::test]
async fn websocket_v5() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (ready, session) = oneshot::channel();
    let client = async {
        let mut socket = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        socket.send(binary(b"\x00hello ")).await.unwrap();
        socket.send(binary(b"\x00world")).await.unwrap();
        socket.send(binary(b"\xff\x00")).await.unwrap();
        let mut received = [Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Binary(data) = message {
                received[usize::from(data[0])].extend_from_slice(&data[1..]);
            }
        }
        received
    };
    let (served, (), received) = tokio::join!(over_websocket(near, ALL, V5, ready), command(session), client);
    served.unwrap();
    assert_eq!((received[1].as_slice(), received[2].as_slice()), (&b"HELLO WORLD"[..], &b"done"[..]));
    let status: Value = serde_json::from_slice(&received[3]).unwrap();
    assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
}

/// A client that waits for bytes and looks at no frame: the end of the connection is all that it notices.
#[tokio::test]
async fn the_connection_ends_with_the_command() {
    for (streams, protocol) in [(Streams::default(), V5), (ALL, V5), (ALL, V4), (ALL, V4_BASE64), (ALL, V1)] {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let (ready, session) = oneshot::channel::<Session>();
        let client = async {
            let mut everything = Vec::new();
            tokio::time::timeout(LINGER / 3, far.read_to_end(&mut everything)).await.expect("the server ends it").unwrap();
            drop(far);
            everything
        };
        let finish = async { session.await.unwrap().finisher.finish(Outcome::Exit(3)) };
        let (served, (), everything) = tokio::join!(over_websocket(near, streams, protocol, ready), finish, client);
        served.unwrap();
        // The last frame is a close with code 1000.
        assert!(everything.ends_with(b"\x88\x02\x03\xe8"), "{protocol}: {everything:?}");
    }
}

/// Opens the streams of [`ALL`].
async fn open(writer: &mut Writer<WriteHalf<DuplexStream>>) {
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        let headers = vec![("streamtype", kind.to_owned())];
        writer.write(Frame::Open { stream, headers }).await.unwrap();
    }
}

async fn spdy_client(far: DuplexStream) -> [Vec<u8>; 4] {
    let (read, write) = tokio::io::split(far);
    let (mut reader, mut writer) = (Reader::new(read), Writer::new(write).unwrap());
    open(&mut writer).await;
    writer.write(Frame::Ping(9)).await.unwrap();
    writer.write(Frame::Data { stream: 3, fin: true, data: Bytes::from_static(b"hello world") }).await.unwrap();
    writer.flush().await.unwrap();
    let (mut received, mut open, mut pinged) = ([const { Vec::new() }; 4], 3, false);
    while open > 0 {
        match reader.next().await.unwrap().unwrap() {
            Head::Data { stream, fin, mut length } => {
                let mut buffer = [0; 64];
                while length > 0 {
                    let got = reader.data(&mut buffer, length).await.unwrap();
                    received[(stream / 2) as usize].extend_from_slice(&buffer[..got]);
                    length -= got;
                }
                open -= i32::from(fin && stream != 3);
            }
            Head::Ping(9) => pinged = true,
            Head::Reply { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(pinged);
    received
}

#[tokio::test]
async fn spdy_v4() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (ready, session) = oneshot::channel();
    let (served, (), received) = tokio::join!(over_spdy(near, ALL, ready), command(session), spdy_client(far));
    served.unwrap();
    assert_eq!((received[2].as_slice(), received[3].as_slice()), (&b"HELLO WORLD"[..], &b"done"[..]));
    let status: Value = serde_json::from_slice(&received[0]).unwrap();
    assert_eq!((&status["reason"], &status["status"]), (&json!("NonZeroExitCode"), &json!("Failure")));
}

#[test]
fn reports() {
    let text = |outcome, structured| String::from_utf8(report(&outcome, structured)).unwrap();
    assert_eq!(text(Outcome::Exit(0), true), r#"{"metadata":{},"status":"Success"}"#);
    assert_eq!(text(Outcome::Exit(0), false), "");
    assert_eq!(text(Outcome::Failed("no such container".into()), false), "no such container");
    assert!(text(Outcome::Failed("x".into()), true).contains("InternalError"));
}

#[test]
fn queries() {
    let check = |query, expected| assert_eq!(Streams::from_query(query), expected, "{query}");
    check("command=ls&stdin=true&stdout=true&stderr=true", ALL);
    check("input=1&output=1&error=1&command=a", ALL);
    check("stdout=1&stderr=1&tty=true", Streams { stdin: false, stdout: true, stderr: false, tty: true });
    check("stdin=false", Streams::default());
}

/// Upstream hands each message on before it reads the next one, so that the end of the connection comes behind all of them: what a client
/// says before it goes reaches the command, also one that repeats all of it to nobody. With v4 that is the only way to end the input.
#[tokio::test]
async fn what_a_client_says_before_it_goes_reaches_the_command() {
    const SAID: usize = 300_000;
    for protocol in [V4, V5] {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (ready, session) = oneshot::channel();
        let client = async {
            let mut socket = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
            for _ in 0..3 {
                socket.send(Message::Binary([&[0][..], &[7; SAID / 3]].concat().into())).await.unwrap();
            }
            socket.close(None).await.unwrap();
        };
        let ((stdin, mut input), (mut output, stdout)) = (tokio::io::duplex(100), tokio::io::duplex(100));
        let process = crate::join::Process {
            stdin: Some(Box::pin(stdin)),
            stdout: Some(Box::pin(stdout)),
            stderr: None,
            resize: mpsc::channel(1).0,
            exit: Box::pin(std::future::pending()),
        };
        let command = async {
            let (mut got, mut buffer) = (0, [0; 1000]);
            while let Ok(length @ 1..) = input.read(&mut buffer).await {
                got += length;
                // Nobody may listen any more.
                let _ = output.write_all(&buffer[..length]).await;
            }
            got
        };
        let joined = async { crate::join::join(session.await.unwrap(), Ok(process)).await };
        let all = async { tokio::join!(client, over_websocket(near, ALL, protocol, ready), joined, command).3 };
        assert_eq!(tokio::time::timeout(crate::LAST, all).await.expect("all end"), SAID, "{protocol}");
    }
}

/// A client that has said all and closed before anybody looks at its connection has a session as any other: kubectl's `exec -i` of a few bytes.
#[tokio::test]
async fn who_is_gone_before_the_session_begins_is_heard() {
    async fn check(session: oneshot::Receiver<Session>) {
        let mut said = String::new();
        session.await.expect("a session").stdin.take().unwrap().read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "hello");
    }
    // Which of two futures is polled first is left to chance.
    for _ in 0..20 {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (ready, session) = oneshot::channel();
        let mut socket = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        socket.send(binary(b"\0hello")).await.unwrap();
        socket.close(None).await.unwrap();
        over_websocket(near, ALL, V4, ready).await.unwrap();
        check(session).await;

        let (near, far) = tokio::io::duplex(1 << 20);
        let (ready, session) = oneshot::channel();
        let (read, write) = tokio::io::split(far);
        let mut writer = Writer::new(write).unwrap();
        open(&mut writer).await;
        writer.write(Frame::Data { stream: 3, fin: true, data: Bytes::from_static(b"hello") }).await.unwrap();
        writer.flush().await.unwrap();
        drop((read, writer));
        // Whether the server could answer is of no interest.
        let _ = over_spdy(near, ALL, ready).await;
        check(session).await;
    }
}
