//! Joins the streams of a client's session with those of the runtime.

use std::pin::Pin;

use runtime::api::{Result as RuntimeResult, Streams};
use streaming::exec::{Outcome, Session};
use streaming::portforward::Connection;
use tokio::io::{AsyncRead, AsyncWriteExt, copy, copy_bidirectional};

use super::api::{Api, ApiError};

/// Copies until the command has ended and all its output was sent, or the client is gone. Who is `attached` learns from
/// the pod how its container ended, not here: that is no failure of the session.
pub async fn join(session: Session, streams: Result<Streams, ApiError>, attached: bool) {
    let Session { stdin, stdout, stderr, resize, mut finisher } = session;
    let streams = match streams {
        Ok(streams) => streams,
        Err(error) => {
            drop((stdin, stdout, stderr));
            return finisher.finish(Outcome::Failed(error.to_string()));
        }
    };
    let Streams { stdin: to_stdin, stdout: from_stdout, stderr: from_stderr, resize: to_resize, exit } = streams;
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
    finisher.finish(match exit {
        Ok(RuntimeResult::Ok(_)) if attached => Outcome::Exit(0),
        Ok(RuntimeResult::Ok(code)) => Outcome::Exit(code),
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Failed("the session was cut off".to_owned()),
    });
}

/// Copies one output to its end and closes it at the client.
async fn pump(from: Option<Pin<Box<dyn AsyncRead + Send>>>, to: Option<streaming::Stream>) {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        // A terminal's end reads as an error; a client that is gone is noticed elsewhere.
        let _ = copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    }
}

/// Forwards one connection to a port of the pod.
pub async fn forward(api: Api, namespace: String, pod: String, connection: Connection) {
    let Connection { port, mut data, mut error, .. } = connection;
    match api.dial(&namespace, &pod, port).await {
        Ok(mut target) => {
            // Either end may go at any time: that is the end of the connection, not an error.
            let _ = copy_bidirectional(&mut data, &mut target).await;
        }
        Err(why) => {
            let text = format!("error forwarding port {port} to pod {pod}, uid : {why}");
            let _ = error.write_all(text.as_bytes()).await;
        }
    }
    let _ = error.shutdown().await;
}
