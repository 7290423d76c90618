//! Joins the streams of a client's session with those of the runtime.

use runtime::api::Streams;
use streaming::exec::{Outcome, Session};
use streaming::join::{Process, refuse, relay};
use streaming::portforward::Connection;

use super::api::{Api, ApiError};

/// Copies until the command has ended and all its output was sent, or the client is gone. Who is `attached` learns from
/// the pod how its container ended, not here: that is no failure of the session.
pub async fn join(session: Session, streams: Result<Streams, ApiError>, attached: bool) {
    let process = streams.map(|Streams { stdin, stdout, stderr, resize, exit }| {
        let exit = async move {
            match exit.await {
                Ok(Ok(_)) if attached => Outcome::Exit(0),
                Ok(Ok(code)) => Outcome::Exit(code),
                Ok(Err(error)) => Outcome::Failed(error.to_string()),
                Err(_) => Outcome::Failed("the session was cut off".to_owned()),
            }
        };
        Process { stdin, stdout, stderr, resize, exit: Box::pin(exit) }
    });
    streaming::join::join(session, process.map_err(|error| error.to_string())).await;
}

/// Forwards one connection to a port of the pod.
pub async fn forward(api: Api, namespace: String, pod: String, connection: Connection) {
    match api.dial(&namespace, &pod, connection.port).await {
        Ok(target) => relay(connection, target).await,
        Err(why) => {
            let text = format!("error forwarding port {} to pod {pod}, uid : {why}", connection.port);
            refuse(connection, &text).await;
        }
    }
}
