//! Connections over TLS that are led to a back end as they are: who answers has the certificate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::balance::{Choice, Member};
use crate::hello::Hello;
use crate::table::Route;
use crate::tunnel;

/// How long both sides may be silent.
const SILENCE: Duration = Duration::from_secs(600);
/// Endpoints that are tried.
const TRIES: usize = 3;

/// Forwards a connection to the back end of a route, until one of both ends it.
pub(crate) async fn forward(route: Arc<Route>, hello: Hello, client: TcpStream) -> Result<(), String> {
    let mut backend = dial(&route).await?;
    backend.write_all(&hello.bytes).await.map_err(|error| error.to_string())?;
    tunnel::between_sockets(client, backend, SILENCE).await.map_err(|error| error.to_string())
}

/// Connects to a back end of a route: of several endpoints to the first that can be reached.
pub(crate) async fn dial(route: &Route) -> Result<TcpStream, String> {
    let upstream = route.chosen().ok_or("no back end")?;
    upstream.refresh().await;
    let mut tried = Vec::new();
    while tried.len() < TRIES {
        let endpoint = upstream.choose(Choice::Any(route.policy.balance), &tried).ok_or("no endpoint")?;
        tried.push(endpoint.id());
        let dialed = tokio::time::timeout(route.policy.connect_timeout, TcpStream::connect(endpoint.address)).await;
        let Ok(Ok(backend)) = dialed else {
            endpoint.load().failed(Instant::now());
            continue;
        };
        endpoint.load().succeeded();
        // A socket that refuses the options works all the same.
        let _ = base::sockets::keep_alive(&backend);
        return Ok(backend);
    }
    Err("no endpoint can be reached".to_owned())
}
