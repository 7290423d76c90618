//! How a tunnel begins.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use base::tasks::{OnFailure, Tasks};
use base::tls::Credential;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use hyper::client::conn::http2;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::{NODE, PROTOCOL, Tunnels};
use crate::body::Body;
use crate::call::{Call, Inner};

/// Silence after which the agent is asked whether it is there, and how long it has to answer.
const SILENCE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));
/// Bytes under way on a stream, and on all streams of a tunnel: one whose reader is slow does not stop the others.
const WINDOWS: (u32, u32) = (256 << 10, 16 << 20);

/// Ends with the certificate of a node, never for one that is known without.
async fn certified(credential: Option<Arc<Credential>>) {
    match credential {
        Some(credential) => credential.ended().await,
        None => std::future::pending().await,
    }
}

impl Inner {
    /// By what nodes and pods are reached.
    pub(crate) fn way(&self) -> (&Tasks, &Tunnels) {
        (&self.tasks, &self.tunnels)
    }

    /// Opens the tunnel of the node that asks.
    pub(crate) fn tunnel(&self, call: &Call<'_>) -> Result<Response<Body>, Status> {
        let of_node = call.user.name.strip_prefix(NODE).filter(|_| call.user.groups.iter().any(|group| group == "system:nodes"));
        let node = of_node.ok_or_else(|| Status::bad_request("only nodes open tunnels"))?.to_owned();
        let upgrades = call.parts.headers.get(UPGRADE).is_some_and(|protocol| protocol == PROTOCOL);
        let upgrade = call.parts.extensions.get::<OnUpgrade>().cloned().filter(|_| upgrades);
        let upgrade = upgrade.ok_or_else(|| Status::bad_request(format!("a tunnel is an upgrade to {PROTOCOL}")))?;
        let tunnels = self.tunnels.clone();
        let credential = call.parts.extensions.get::<Arc<Credential>>().cloned();
        self.tasks.spawn_until_cancelled("tunnel of a node", OnFailure::Log, async move {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .keep_alive_interval(SILENCE.0)
                .keep_alive_timeout(SILENCE.1)
                .keep_alive_while_idle(true);
            builder.initial_stream_window_size(WINDOWS.0).initial_connection_window_size(WINDOWS.1);
            let (sender, connection) = builder.handshake(upgrade.await?).await?;
            let number = tunnels.opened(&node, sender);
            tracing::info!(node, "the node is reached by its tunnel");
            // The agent has a newer certificate by then, and opens another tunnel with it.
            let ended = tokio::select! {
                ended = connection => ended,
                () = certified(credential) => Ok(()),
            };
            tunnels.closed(&node, number);
            ended
        });
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
        Ok(response)
    }
}
