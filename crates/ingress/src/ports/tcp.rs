//! Connections that TCPRoutes forward.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::budgets::connections::Place;
use base::listen::Listener;
use base::tasks::OnFailure;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::gateway::streams::Port;
use crate::{passthrough, tunnel};

/// How long both sides may be silent. Databases and brokers keep connections that say nothing for a long time.
const SILENCE: Duration = Duration::from_secs(3600);

/// Accepts connections until the port's end. Those that are there then go on.
pub(super) async fn serve(shared: &Arc<Shared>, port: Port, listeners: &[Listener], end: &CancellationToken) {
    let accepting = listeners.iter().map(async |listener| {
        while let Some((stream, _, place)) = shared.connections.accept(listener, end).await {
            let shared = shared.clone();
            shared.tasks.clone().spawn_until_cancelled("connection of a TCPRoute", OnFailure::Log, async move {
                let ended = place.ended().clone();
                if let Some(Err(why)) = ended.run_until_cancelled(forward(&shared, port, stream, place)).await {
                    tracing::trace!(%port, why, "connection ended");
                }
                Ok::<_, Infallible>(())
            });
        }
    });
    futures::future::join_all(accepting).await;
}

async fn forward(shared: &Shared, port: Port, client: TcpStream, place: Place) -> Result<(), String> {
    let route = shared.table.load().stream(port).cloned();
    let dialed = match &route {
        Some(route) => passthrough::dial(route).await,
        None => Err("no route".to_owned()),
    };
    let backend = dialed.inspect_err(|_| {
        // The client is told that nobody has taken its connection: it is reset. Without the option it ends, which says less.
        let _ = client.set_zero_linger();
    })?;
    if !place.prove(&place.peer().to_string()) {
        // Making room would have a connection that comes back to its own port from outside go around for ever.
        let _ = client.set_zero_linger();
        return Err("too many connections of this client".to_owned());
    }
    tunnel::between_sockets(client, backend, SILENCE).await.map_err(|error| error.to_string())
}
