//! Health checks of load balancers: which nodes have endpoints of a service with external traffic policy Local.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::listen::{Listener, accepted};
use base::tasks::{OnFailure, Tasks};
use client::Key;
use client::events::{Recorder, Type};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::plan::Plan;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Probes of one service at once. They are short: of more, those that came first make room, so that nobody who says nothing keeps others waiting.
const PROBES: usize = 64;
/// How long a port that is somebody else's is waited for.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// One server per `healthCheckNodePort`.
pub(super) struct HealthChecks {
    tasks: Tasks,
    events: Recorder,
    /// The node's name.
    node: String,
    servers: HashMap<Key, Server>,
}

struct Server {
    port: u16,
    endpoints: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl HealthChecks {
    pub(super) fn new(tasks: Tasks, events: Recorder, node: &str) -> Self {
        Self { tasks, events, node: node.to_owned(), servers: HashMap::new() }
    }

    /// Starts, updates or ends the server of a service. `about` is the service for events.
    pub(super) fn update(&mut self, service: &Key, about: ObjectReference, plan: &Plan) {
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
        let probed = Probed { service: service.clone(), about, port, endpoints: endpoints.clone() };
        let server = probed.serve(self.tasks.clone(), self.events.clone(), self.node.clone());
        let guarded = stop.clone().run_until_cancelled_owned(server);
        let name = format!("health check of {service}");
        self.tasks.spawn_until_cancelled(name, OnFailure::Log, async {
            guarded.await;
            Ok::<_, Infallible>(())
        });
        self.servers.insert(service.clone(), Server { port, endpoints, _stop: stop.drop_guard() });
    }
}

/// What is probed.
struct Probed {
    service: Key,
    about: ObjectReference,
    port: u16,
    endpoints: Arc<AtomicUsize>,
}

impl Probed {
    /// Answers probes until dropped.
    async fn serve(self, tasks: Tasks, events: Recorder, node: String) {
        let listener = self.listen(&events, &node).await;
        let mut probes: VecDeque<DropGuard> = VecDeque::with_capacity(PROBES + 1);
        loop {
            let (stream, _) = accepted(|| listener.accept()).await;
            let ends = CancellationToken::new();
            let reply = reply(&self.service, self.endpoints.load(Ordering::Relaxed));
            let answered = ends.clone().run_until_cancelled_owned(async move {
                // A probe that fails is the prober's to notice.
                let _ = tokio::time::timeout(REQUEST_TIMEOUT, answer(stream, &reply)).await;
            });
            tasks.spawn_until_cancelled("health check", OnFailure::Log, async {
                answered.await;
                Ok::<_, Infallible>(())
            });
            probes.push_back(ends.drop_guard());
            if probes.len() > PROBES {
                probes.pop_front();
            }
        }
    }

    /// Waits for the port as long as somebody else has it.
    async fn listen(&self, events: &Recorder, node: &str) -> Listener {
        let mut retry = RETRY_MIN;
        loop {
            let error = match Listener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.port))) {
                Ok(listener) => return listener,
                Err(error) => error,
            };
            // kube-proxy's reason.
            let text =
                format!("node {node} failed to start healthcheck {:?} on port {}: {error}", self.service.to_string(), self.port);
            tracing::warn!(service = %self.service, port = self.port, %error, "the health check port of a service cannot be listened on, trying again");
            events.event(&self.about, Type::Warning, "FailedToStartServiceHealthcheck", text);
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use client::fake::Fake;
    use std::time::Instant;
    use tokio::net::TcpListener;

    async fn ask(stream: &mut TcpStream) -> std::io::Result<String> {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await?;
        Ok(reply)
    }

    /// kube-proxy opens the port again at each of its rounds, and asks nobody to wait for another one's probe.
    #[tokio::test]
    async fn a_port_that_was_taken_is_served_when_it_is_free() {
        let (tasks, _) = Tasks::root();
        let events = Recorder::new(Fake::default().client(), "kube-proxy", "n", &tasks);
        let mut checks = HealthChecks::new(tasks, events, "n");
        let taken = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let (service, about) = (Key::namespaced("a", "web"), ObjectReference::default());
        let plan = |local_endpoints| Plan { health_port: Some(port), local_endpoints, ..Plan::default() };
        checks.update(&service, about.clone(), &plan(1));
        drop(taken);
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut silent = loop {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => break vec![stream],
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        // Who says nothing keeps nobody waiting, however many they are.
        let begun = Instant::now();
        for _ in 0..2 * PROBES {
            silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        }
        let mut probe = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert!(ask(&mut probe).await.unwrap().starts_with("HTTP/1.1 200 OK"));
        assert!(begun.elapsed() < REQUEST_TIMEOUT);
        assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0, "the first has made room");
        checks.update(&service, about.clone(), &plan(0));
        let mut probe = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert!(ask(&mut probe).await.unwrap().starts_with("HTTP/1.1 503"));
        checks.update(&service, about, &Plan::default());
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            assert!(Instant::now() < deadline, "the port stays open");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
