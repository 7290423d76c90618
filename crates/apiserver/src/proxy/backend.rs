//! Where a request goes: a pod, a service, a node.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use base::connection;
use http::Response;
use http::request::Parts;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::outbound;
use crate::body::{Body, RequestBody};
use crate::tunnels::{Stream, Way};

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

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The user has too many connections there.
    Crowded(String),
    /// What to tell the user.
    Unreachable(String),
}

impl Failure {
    /// A status: that of too many requests, or what is made of the reason.
    pub(super) fn or(self, told: impl FnOnce(String) -> Status) -> Status {
        match self {
            Self::Crowded(why) => Status::too_many_requests(why, 1),
            Self::Unreachable(why) => told(why),
        }
    }
}

impl Backend {
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    async fn dial(&self, way: &Way<'_>) -> io::Result<Stream> {
        let connecting = async {
            let stream = way.tunnels.connect(self.node.as_deref(), &self.host, self.port, way.user).await?;
            let Some(config) = &self.tls else { return Ok(stream) };
            let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
            Ok(Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?) as Stream)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Sends the request with another path and hands back the answer.
    pub(super) async fn send(
        &self,
        parts: &Parts,
        path: &str,
        body: RequestBody,
        way: Way<'_>,
    ) -> Result<Response<Body>, Failure> {
        let stream = self.dial(&way).await.map_err(|error| match error.kind() {
            io::ErrorKind::QuotaExceeded => Failure::Crowded(error.to_string()),
            _ => Failure::Unreachable(connection::dial(&self.authority(), &error)),
        })?;
        let request = outbound::request(parts, path, &self.authority(), body);
        let request = request.map_err(|error| Failure::Unreachable(error.to_string()))?;
        let sent = outbound::exchange(stream, request, parts, way.tasks, Box::new(way.ongoing)).await;
        sent.map_err(|error| Failure::Unreachable(connection::why(&error)))
    }
}
