//! Connections at ports of TCP: those for HTTP and TLS are served as at the ports of ingress, others are what TCPRoutes forward.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::budgets::connections::Place;
use base::listen::Listener;
use base::tasks::OnFailure;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::front::At;
use crate::gateway::Entrance;
use crate::gateway::streams::{Carries, Port};
use crate::handshakes::Spoken;
use crate::{passthrough, tunnel};

/// How long both sides may be silent. Databases and brokers keep connections that say nothing for a long time.
const SILENCE: Duration = Duration::from_secs(3600);

/// Accepts connections until the port's end. Those that are there then go on.
pub(super) async fn serve(shared: &Arc<Shared>, port: Port, listeners: &[Listener], end: &CancellationToken) {
    let spoken = OnceLock::new();
    let accepting = listeners.iter().map(async |listener| {
        while let Some((stream, peer, place)) = shared.front.connections.accept(listener, end).await {
            let carries = shared.table.load().carries(port.number);
            let at = |tls| At { entrance: Entrance::Port(port.number), port: port.number, tls };
            match carries {
                Some(Carries::Http) => shared.front.take(stream, peer, place, at(None)),
                Some(Carries::Tls) => {
                    if let Some(spoken) = spoken.get_or_init(|| spoken_at(shared, port)).clone() {
                        shared.front.take(stream, peer, place, at(Some(spoken)));
                    }
                }
                Some(Carries::Stream) | None => stream_on(shared, port, stream, place),
            }
        }
    });
    futures::future::join_all(accepting).await;
}

/// How TLS is spoken at a port; none when the library refuses it.
fn spoken_at(shared: &Shared, port: Port) -> Option<Arc<Spoken>> {
    let spoken = shared.front.handshakes.at(Entrance::Port(port.number));
    spoken.inspect_err(|error| tracing::error!(%port, %error, "no TLS at a port of a Gateway")).ok().map(Arc::new)
}

/// Forwards a connection in the background.
fn stream_on(shared: &Arc<Shared>, port: Port, stream: TcpStream, place: Place) {
    let shared = shared.clone();
    shared.tasks.clone().spawn_until_cancelled("connection of a TCPRoute", OnFailure::Log, async move {
        let ended = place.ended().clone();
        if let Some(Err(why)) = ended.run_until_cancelled(forward(&shared, port, stream, place)).await {
            tracing::trace!(%port, why, "connection ended");
        }
        Ok::<_, Infallible>(())
    });
}

async fn forward(shared: &Shared, port: Port, client: TcpStream, place: Place) -> Result<(), String> {
    let Some(underway) = shared.front.proxy.underway.enter(place.peer()) else {
        // Without the option the connection ends, which says less.
        let _ = client.set_zero_linger();
        return Err("too many requests and connections are under way".to_owned());
    };
    let route = shared.table.load().stream(port).cloned();
    let dialed = match &route {
        Some(route) => passthrough::dial(route).await,
        None => Err("no route".to_owned()),
    };
    let (backend, _) = dialed.inspect_err(|_| {
        // The client is told that nobody has taken its connection: it is reset. Without the option it ends, which says less.
        let _ = client.set_zero_linger();
    })?;
    if !place.prove(&place.peer().to_string()) {
        // Making room would have a connection that comes back to its own port from outside go around for ever.
        let _ = client.set_zero_linger();
        return Err("too many connections of this client".to_owned());
    }
    let result = tunnel::between_sockets(client, backend, SILENCE).await;
    drop(underway);
    result.map_err(|error| error.to_string())
}
