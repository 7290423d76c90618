//! Health checks of load balancers: which nodes have endpoints of a service with external traffic policy Local.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::listen::accepted;
use base::tasks::{OnFailure, Tasks};
use client::Key;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::plan::Plan;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// One server per `healthCheckNodePort`.
pub(super) struct HealthChecks {
    tasks: Tasks,
    servers: HashMap<Key, Server>,
}

struct Server {
    port: u16,
    endpoints: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl HealthChecks {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { tasks, servers: HashMap::new() }
    }

    /// Starts, updates or ends the server of a service.
    pub(super) fn update(&mut self, service: &Key, plan: &Plan) {
        let Some(port) = plan.health_port else {
            self.servers.remove(service);
            return;
        };
        if let Some(server) = self.servers.get(service).filter(|server| server.port == port) {
            server.endpoints.store(plan.local_endpoints, Ordering::Relaxed);
            return;
        }
        let endpoints = Arc::new(AtomicUsize::new(plan.local_endpoints));
        let stop = CancellationToken::new();
        let server = serve(service.clone(), port, endpoints.clone());
        let guarded = stop.clone().run_until_cancelled_owned(server);
        let name = format!("health check of {service}");
        self.tasks.spawn_until_cancelled(name, OnFailure::Log, async { guarded.await.unwrap_or(Ok(())) });
        self.servers.insert(service.clone(), Server { port, endpoints, _stop: stop.drop_guard() });
    }
}

/// Answers one probe after the other: they are few and short, and each has a time limit.
async fn serve(service: Key, port: u16, endpoints: Arc<AtomicUsize>) -> std::io::Result<()> {
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await?,
    };
    loop {
        let (stream, _) = accepted(|| listener.accept()).await;
        let reply = reply(&service, endpoints.load(Ordering::Relaxed));
        // A probe that fails is the prober's to notice.
        let _ = tokio::time::timeout(REQUEST_TIMEOUT, answer(stream, &reply)).await;
    }
}

async fn answer(mut stream: TcpStream, reply: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < 8192 {
        match stream.read(&mut chunk).await? {
            0 => return Ok(()),
            length => request.extend_from_slice(&chunk[..length]),
        }
    }
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await
}

/// The body that kube-proxy sends, 200 with endpoints and 503 without.
fn reply(service: &Key, endpoints: usize) -> String {
    let status = if endpoints > 0 { "200 OK" } else { "503 Service Unavailable" };
    let body = serde_json::json!({
        "service": {"namespace": service.ns(), "name": service.name},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": true,
    })
    .to_string();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Load-Balancing-Endpoint-Weight: {endpoints}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
