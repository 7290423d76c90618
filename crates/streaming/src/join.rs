//! Joins what a client has asked for with what a node has: a session with the streams of a process, a connection with that of a pod.

use std::pin::Pin;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::exec::{Outcome, Session};
use crate::portforward::Connection;

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

/// Copies until the process has ended and all its output was sent, or the client is gone. Without a process the client is told why.
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
    let input = async {
        if let (Some(mut from), Some(mut to)) = (stdin, to_stdin) {
            // The command may end without reading all of it.
            let _ = copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        }
        std::future::pending::<()>().await
    };
    let sizes = async {
        let mut resize = resize;
        while let Some(size) = resize.recv().await {
            if to_resize.send(size).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await
    };
    let output = async {
        let ((), (), exit) = tokio::join!(pump(from_stdout, stdout), pump(from_stderr, stderr), exit);
        exit
    };
    let exit = tokio::select! {
        exit = output => exit,
        () = input => return,
        () = sizes => return,
        () = finisher.closed() => return,
    };
    finisher.finish(exit);
}

/// Copies one output to its end and closes it at the client.
async fn pump(from: Option<Pin<Box<dyn AsyncRead + Send>>>, to: Option<crate::Stream>) {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        // A terminal's end reads as an error; a client that is gone is noticed elsewhere.
        let _ = copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
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
    let down = async {
        let _ = copy(&mut from_pod, &mut to_client).await;
        // Nothing more comes, no error either. A WebSocket whose channels have all ended is closed: its client has no other way
        // to learn of it, and cannot end its own side.
        let _ = to_client.shutdown().await;
        let _ = error.shutdown().await;
    };
    let up = async {
        let _ = copy(&mut from_client, &mut to_pod).await;
        let _ = to_pod.shutdown().await;
    };
    tokio::join!(down, up);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, duplex};

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
}
