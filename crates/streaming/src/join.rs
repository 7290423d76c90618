//! Joins what a client has asked for with what a node has: a session with the streams of a process, a connection with that of a pod.

use std::pin::{Pin, pin};

use futures::future::{BoxFuture, Either, maybe_done, select};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::LAST;
use crate::exec::{Outcome, Session};
use crate::portforward::Connection;

/// Bytes that are copied at a time.
const CHUNK: usize = 16 << 10;

/// A process that a session is for.
pub struct Process {
    /// Its standard input.
    pub stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// Its standard output.
    pub stdout: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Its standard error.
    pub stderr: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Takes sizes of the terminal.
    pub resize: mpsc::Sender<(u16, u16)>,
    /// Its end.
    pub exit: BoxFuture<'static, Outcome>,
}

/// Copies until the process has ended and all its output was sent, or the client is gone and what it has said before was handed on.
/// Without a process the client is told why.
pub async fn join(session: Session, process: Result<Process, String>) {
    let Session { stdin, stdout, stderr, resize, mut finisher } = session;
    let process = match process {
        Ok(process) => process,
        Err(why) => {
            drop((stdin, stdout, stderr));
            return finisher.finish(Outcome::Failed(why));
        }
    };
    let Process { stdin: to_stdin, stdout: from_stdout, stderr: from_stderr, resize: to_resize, exit } = process;
    let mut input = pin!(maybe_done(async {
        if let (Some(mut from), Some(mut to)) = (stdin, to_stdin) {
            // The command may end without reading all of it.
            let _ = copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        }
    }));
    let others = async {
        let mut resize = resize;
        let sizes = async {
            while let Some(size) = resize.recv().await {
                if to_resize.send(size).await.is_err() {
                    break;
                }
            }
        };
        tokio::join!(input.as_mut(), sizes);
        std::future::pending::<()>().await
    };
    let mut output = pin!(async {
        let ((), (), exit) = tokio::join!(pump(from_stdout, stdout), pump(from_stderr, stderr), exit);
        exit
    });
    let exit = tokio::select! {
        exit = &mut output => Some(exit),
        () = others => None,
        () = finisher.closed() => None,
    };
    match exit {
        Some(exit) => finisher.finish(exit),
        // Upstream hands on each message before it reads the next one, so that the end comes behind all of them. Meanwhile output is
        // thrown away: a process that waits to be heard does not read.
        None => {
            let _ = timeout(LAST, select(input, output)).await;
        }
    }
}

/// Copies one output to its end and closes it at the client. Without a client it is thrown away.
async fn pump(from: Option<Pin<Box<dyn AsyncRead + Send>>>, to: Option<crate::Stream>) {
    let Some(mut from) = from else { return };
    if let Some(mut to) = to {
        // A terminal's end reads as an error, and again as one.
        let _ = copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
        let _ = copy(&mut from, &mut sink()).await;
    }
}

/// Tells the client why its connection is none.
pub async fn refuse(connection: Connection, why: &str) {
    let mut error = connection.error;
    let _ = error.write_all(why.as_bytes()).await;
    let _ = error.shutdown().await;
}

/// Copies in both directions until both have ended. Either end may go at any time: that is the end of the connection, not an
/// error.
pub async fn relay(connection: Connection, target: TcpStream) {
    let Connection { data, mut error, .. } = connection;
    let (mut from_client, mut to_client) = tokio::io::split(data);
    let (mut from_pod, mut to_pod) = target.into_split();
    let mut up = pin!(maybe_done(async {
        let _ = copy(&mut from_client, &mut to_pod).await;
        let _ = to_pod.shutdown().await;
    }));
    let down = async {
        let _ = copy(&mut from_pod, &mut to_client).await;
        // Nothing more comes, no error either. A WebSocket whose channels have all ended is closed: its client has no other way
        // to learn of it, and cannot end its own side.
        let _ = to_client.shutdown().await;
        let _ = error.shutdown().await;
    };
    let both = async {
        up.as_mut().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = down => {}
        () = both => {}
    }
    // A client that is gone hears nothing; a pod that waits to be heard does not read what the client has said before.
    let forgetting = async {
        let _ = copy(&mut from_pod, &mut sink()).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = up => {}
        () = forgetting => {}
    }
}

/// Copies between two connections until both directions have ended. An end that breaks gets its other direction cut off only after
/// [`LAST`]: what a client has said before it went is handed on, also when it does not wait for what is said to it.
pub async fn splice(near: impl AsyncRead + AsyncWrite, far: impl AsyncRead + AsyncWrite) {
    let ((near_read, near_write), (far_read, far_write)) = (tokio::io::split(near), tokio::io::split(far));
    match select(pin!(carry(near_read, far_write)), pin!(carry(far_read, near_write))).await {
        Either::Left((clean, rest)) => last(clean, rest).await,
        Either::Right((clean, rest)) => last(clean, rest).await,
    }
}

async fn last(unbounded: bool, rest: impl Future<Output = bool>) {
    // How it ends is of no interest any more.
    let _ = match unbounded {
        true => Ok(rest.await),
        false => timeout(LAST, rest).await,
    };
}

/// Copies to the end and ends the other side; false when a side breaks. All that was read before is written (`tokio::io::copy` drops
/// what it has read when the next read fails), and what nobody takes is thrown away for a while.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> bool {
    let mut buffer = vec![0; CHUNK];
    let clean = loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) => break true,
            Ok(length) => length,
            Err(_) => break false,
        };
        if to.write_all(&buffer[..length]).await.is_err() || to.flush().await.is_err() {
            let _ = timeout(LAST, copy(&mut from, &mut sink())).await;
            break false;
        }
    };
    let _ = to.shutdown().await;
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn the_end_of_the_pods_side_reaches_a_client_that_ends_nothing() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut pod, _) = listener.accept().await.unwrap();
        let ((data, mut near), (error, mut near_error)) = (duplex(64), duplex(64));
        let client = async {
            near.write_all(b"ping").await.unwrap();
            let mut ping = [0; 4];
            pod.read_exact(&mut ping).await.unwrap();
            pod.write_all(b"pong").await.unwrap();
            pod.shutdown().await.unwrap();
            let (mut text, mut errors) = (String::new(), String::new());
            near.read_to_string(&mut text).await.unwrap();
            near_error.read_to_string(&mut errors).await.unwrap();
            // The other direction is open for as long as the client wants.
            near.write_all(b"more").await.unwrap();
            pod.read_exact(&mut ping).await.unwrap();
            drop(near);
            (ping, text, errors, pod.read(&mut [0]).await.unwrap())
        };
        let ((), seen) = tokio::join!(relay(Connection { port: 80, data, error }, target), client);
        assert_eq!(seen, (*b"more", "pong".to_owned(), String::new(), 0));
    }

    /// A proxy hands on what a client has said before it went, also to who speaks while nobody listens.
    #[tokio::test]
    async fn what_is_said_before_an_end_goes_is_carried() {
        let ((mut client, near), (far, mut server)) = (duplex(1 << 20), duplex(100));
        client.write_all(&[7; 100_000]).await.unwrap();
        drop(client);
        let serving = async {
            server.write_all(&[1; 200_000]).await.unwrap();
            let mut said = Vec::new();
            server.read_to_end(&mut said).await.unwrap();
            drop(server);
            said.len()
        };
        let both = async { tokio::join!(splice(near, far), serving).1 };
        assert_eq!(timeout(LAST, both).await.expect("both end"), 100_000);
    }
}
