//! Where a request goes: a pod, a service, a node.

use std::sync::Arc;
use std::time::Duration;

use base::tasks::Tasks;
use http::Response;
use http::request::Parts;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::outbound;
use crate::body::{Body, RequestBody};
use crate::metrics::load::Ongoing;
use crate::tunnels::{Stream, Tunnels};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a request goes.
pub(super) struct Backend {
    /// The node where it is, if it is at one.
    pub(super) node: Option<String>,
    pub(super) host: String,
    pub(super) port: u16,
    /// TLS, if it is spoken.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Backend {
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    async fn dial(&self, tunnels: &Tunnels) -> std::io::Result<Stream> {
        let connecting = async {
            let stream = tunnels.connect(self.node.as_deref(), &self.host, self.port).await?;
            let Some(config) = &self.tls else { return Ok(stream) };
            let name = ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
            Ok(Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?) as Stream)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }

    /// Sends the request with another path and hands back the answer. The error says what to tell the user.
    pub(super) async fn send(
        &self,
        parts: &Parts,
        path: &str,
        body: RequestBody,
        (tasks, tunnels): (&Tasks, &Tunnels),
        ongoing: Option<Arc<Ongoing>>,
    ) -> Result<Response<Body>, String> {
        let unreachable = |error: &dyn std::fmt::Display| format!("dial tcp {}: {error}", self.authority());
        let stream = self.dial(tunnels).await.map_err(|error| unreachable(&error))?;
        let request = outbound::request(parts, path, &self.authority(), body).map_err(|error| error.to_string())?;
        outbound::exchange(stream, request, parts, tasks, ongoing).await.map_err(|error| unreachable(&error))
    }
}
