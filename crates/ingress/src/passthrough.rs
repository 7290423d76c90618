//! Connections over TLS that are led to a back end by their name: as they are, where who answers has the certificate, or as what they carry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::balance::{Choice, Member};
use crate::hello::Hello;
use crate::table::Route;
use crate::tunnel;
use crate::upstream::Endpoint;

/// How long both sides may be silent.
const SILENCE: Duration = Duration::from_secs(600);
/// How long a back end may take for its part of a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Endpoints that are tried.
const TRIES: usize = 3;

/// Forwards a connection to the back end of a route, until one of both ends it.
pub(crate) async fn forward(route: Arc<Route>, hello: Hello, client: TcpStream) -> Result<(), String> {
    let (mut backend, _) = dial(&route).await?;
    backend.write_all(&hello.bytes).await.map_err(|error| error.to_string())?;
    tunnel::between_sockets(client, backend, SILENCE).await.map_err(|error| error.to_string())
}

/// Forwards what a connection over TLS carries to the back end of a route: over TLS of its own where a policy says so, and as it is elsewhere.
pub(crate) async fn forward_carried<S>(route: Arc<Route>, client: S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite,
{
    let text = |error: std::io::Error| error.to_string();
    let (backend, endpoint) = dial(&route).await?;
    let Some(trust) = &endpoint.trust else {
        return tunnel::between(client, backend, SILENCE).await.map_err(text);
    };
    let named = endpoint.tls_name.clone().and_then(|name| ServerName::try_from(name).ok());
    let name = named.ok_or("a policy without a host name")?;
    let shaking = TlsConnector::from(trust.bare.clone()).connect(name, backend);
    let backend = tokio::time::timeout(HANDSHAKE, shaking).await.map_err(|_| "no handshake in time")?.map_err(text)?;
    tunnel::between(client, backend, SILENCE).await.map_err(text)
}

/// Connects to a back end of a route: of several endpoints to the first that can be reached.
pub(crate) async fn dial(route: &Route) -> Result<(TcpStream, Arc<Endpoint>), String> {
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
        return Ok((backend, endpoint));
    }
    Err("no endpoint can be reached".to_owned())
}
