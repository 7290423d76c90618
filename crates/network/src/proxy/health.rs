//! Health checks of load balancers: which nodes have endpoints of a service with external traffic policy Local.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::listen::Listener;
use base::tasks::{OnFailure, Tasks};
use client::Key;
use client::events::{Recorder, Type};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::answers::{self, Answer, Answering, RETRY_MIN};
use super::plan::Plan;
use super::status::Status;

/// One server per `healthCheckNodePort`.
pub(super) struct HealthChecks {
    tasks: Tasks,
    events: Recorder,
    /// The node's name.
    node: String,
    /// How the proxy itself is.
    status: Status,
    servers: HashMap<Key, Server>,
    /// Servers that were told to end, and have their ports until they have.
    ending: Vec<(u16, CancellationToken)>,
}

struct Server {
    port: u16,
    endpoints: Arc<AtomicUsize>,
    ended: CancellationToken,
    _stop: DropGuard,
}

impl HealthChecks {
    pub(super) fn new(tasks: Tasks, events: Recorder, node: &str, status: Status) -> Self {
        Self { tasks, events, node: node.to_owned(), status, servers: HashMap::new(), ending: Vec::new() }
    }

    /// Starts, updates or ends the server of a service. `about` is the service for events.
    pub(super) fn update(&mut self, service: &Key, about: ObjectReference, plan: &Plan) {
        if let Some(server) = self.servers.get(service).filter(|server| plan.health_port == Some(server.port)) {
            server.endpoints.store(plan.local_endpoints, Ordering::Relaxed);
            return;
        }
        self.ending.retain(|(_, ended)| !ended.is_cancelled());
        if let Some(Server { port, ended, .. }) = self.servers.remove(service) {
            self.ending.push((port, ended));
        }
        let Some(port) = plan.health_port else { return };
        let endpoints = Arc::new(AtomicUsize::new(plan.local_endpoints));
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        // Whoever has it now may be about to give it up.
        let servers = self.servers.values().map(|server| (server.port, &server.ended));
        let all = self.ending.iter().map(|(port, ended)| (*port, ended)).chain(servers);
        let former = all.filter(|(other, _)| *other == port).map(|(_, ended)| ended.clone()).collect();
        let (status, endpoints_now) = (self.status.clone(), endpoints.clone());
        let probed = Probed { service: service.clone(), about, port, endpoints: endpoints_now, status, former };
        let server = probed.serve(self.tasks.clone(), self.events.clone(), self.node.clone());
        let guarded = stop.clone().run_until_cancelled_owned(server);
        let name = format!("health check of {service}");
        let at_end = ended.clone().drop_guard();
        self.tasks.spawn_until_cancelled(name, OnFailure::Log, async move {
            guarded.await;
            drop(at_end);
            Ok::<_, Infallible>(())
        });
        self.servers.insert(service.clone(), Server { port, endpoints, ended, _stop: stop.drop_guard() });
    }
}

/// What is probed.
struct Probed {
    service: Key,
    about: ObjectReference,
    port: u16,
    endpoints: Arc<AtomicUsize>,
    status: Status,
    /// The ends of our own servers that have the port, or had it before.
    former: Vec<CancellationToken>,
}

impl Probed {
    /// Answers probes until dropped.
    async fn serve(self, tasks: Tasks, events: Recorder, node: String) -> Infallible {
        let listener = self.listen(&events, &node).await;
        let Self { service, endpoints, status, .. } = self;
        let answering: Answering =
            Arc::new(move |_| answer(&service, endpoints.load(Ordering::Relaxed), status.is_healthy(Instant::now())));
        answers::serve(listener, tasks, "health check", answering).await
    }

    /// Waits for the port as long as somebody else has it.
    async fn listen(&self, events: &Recorder, node: &str) -> Listener {
        let all_ended = async {
            for former in &self.former {
                former.cancelled().await;
            }
        };
        // Trying tells whether they have.
        let _ = tokio::time::timeout(RETRY_MIN, all_ended).await;
        let failed = |error: &std::io::Error| {
            // kube-proxy's reason.
            let text =
                format!("node {node} failed to start healthcheck {:?} on port {}: {error}", self.service.to_string(), self.port);
            tracing::warn!(service = %self.service, port = self.port, %error, "the health check port of a service cannot be listened on, trying again");
            events.event(&self.about, Type::Warning, "FailedToStartServiceHealthcheck", text);
        };
        answers::listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.port)), failed).await
    }
}

/// What kube-proxy answers: 200 with endpoints here and a proxy that works, otherwise 503.
fn answer(service: &Key, endpoints: usize, works: bool) -> Answer {
    let body = serde_json::json!({
        "service": {"namespace": service.ns(), "name": service.name},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": works,
    });
    let headers = vec![("X-Load-Balancing-Endpoint-Weight", endpoints.to_string())];
    Answer { headers, ..Answer::json(endpoints > 0 && works, body.to_string()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use client::fake::Fake;
    use k8s_openapi::api::core::v1::Event;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use crate::proxy::answers::{MOST, REQUEST_TIMEOUT};

    async fn ask(stream: &mut TcpStream) -> std::io::Result<String> {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await?;
        Ok(reply)
    }

    /// A port that nobody has.
    async fn free() -> u16 {
        TcpListener::bind("0.0.0.0:0").await.unwrap().local_addr().unwrap().port()
    }

    fn checks() -> (HealthChecks, Fake, Recorder) {
        let ((tasks, _), fake) = (Tasks::root(), Fake::default());
        let events = Recorder::new(fake.client(), "kube-proxy", "n", &tasks);
        (HealthChecks::new(tasks, events.clone(), "n", Status::default()), fake, events)
    }

    fn plan(health_port: u16, local_endpoints: usize) -> Plan {
        Plan { health_port: Some(health_port), local_endpoints, ..Plan::default() }
    }

    fn about() -> ObjectReference {
        ObjectReference { namespace: Some("a".to_owned()), name: Some("web".to_owned()), ..ObjectReference::default() }
    }

    /// The task that listens has had its turn before a connection is there: connecting goes through the same thread.
    async fn connect(port: u16) -> TcpStream {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::task::yield_now().await;
        }
    }

    /// kube-proxy opens the port again at each of its rounds.
    #[tokio::test]
    async fn a_port_that_was_taken_is_served_when_it_is_free() {
        let (_, fake, events) = checks();
        let taken = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let service = Key::namespaced("a", "web");
        let probed =
            Probed { service, about: about(), port, endpoints: Arc::default(), status: Status::default(), former: Vec::new() };
        let told = async {
            fake.until(|events: &[Event]| {
                events.iter().any(|one| one.reason.as_deref() == Some("FailedToStartServiceHealthcheck"))
            })
            .await;
            drop(taken);
        };
        let both = async { tokio::join!(probed.listen(&events, "n"), told) };
        let (_listener, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
        connect(port).await;
    }

    /// Who answers at a port. Connections that one accepts who ends are closed without an answer.
    async fn answers(port: u16) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match ask(&mut connect(port).await).await {
                Ok(reply) if !reply.is_empty() => return reply,
                other => assert!(Instant::now() < deadline, "{other:?}"),
            }
        }
    }

    /// Whoever gives a port up to another one, or to itself, has it until its task has ended, and may be told to end only after the other one was told to begin: that
    /// is nothing to tell.
    #[tokio::test]
    async fn a_port_goes_from_one_service_to_another() {
        let (mut checks, fake, _) = checks();
        let (one, other, ports) = (Key::namespaced("a", "web"), Key::namespaced("a", "db"), [free().await, free().await]);
        checks.update(&one, about(), &plan(ports[0], 1));
        connect(ports[0]).await;
        for _ in 0..5 {
            // It changes its port, the other one takes the first and gives it up, and it has the first again.
            checks.update(&one, about(), &plan(ports[1], 1));
            checks.update(&other, about(), &plan(ports[0], 1));
            checks.update(&other, about(), &Plan::default());
            checks.update(&one, about(), &plan(ports[0], 1));
            let reply = answers(ports[0]).await;
            assert!(reply.contains("\"name\":\"web\""), "{reply}");
            // The other one takes the port first, as who is older does.
            checks.update(&other, about(), &plan(ports[0], 1));
            tokio::task::yield_now().await;
            checks.update(&one, about(), &plan(ports[1], 1));
            let reply = answers(ports[0]).await;
            assert!(reply.contains("\"name\":\"db\""), "{reply}");
            checks.update(&other, about(), &Plan::default());
            checks.update(&one, about(), &plan(ports[0], 1));
        }
        assert_eq!(fake.all::<Event>().len(), 0);
        assert!(checks.ending.len() <= 20, "{}", checks.ending.len());
    }

    /// Load balancers leave a node alone whose proxy does not come after.
    #[test]
    fn a_proxy_that_is_stuck_is_told() {
        let check = |endpoints: usize, works: bool, expected: &str| {
            let answer = answer(&Key::namespaced("a", "web"), endpoints, works);
            assert!(answer.status.starts_with(expected), "{endpoints} {works}");
            assert!(answer.body.contains(&format!("\"serviceProxyHealthy\":{works}")), "{}", answer.body);
        };
        check(1, true, "200");
        check(0, true, "503");
        check(1, false, "503");
    }

    /// Nobody is asked to wait for another one's probe.
    #[tokio::test]
    async fn who_says_nothing_keeps_nobody_waiting() {
        let (mut checks, _, _) = checks();
        let (service, port) = (Key::namespaced("a", "web"), free().await);
        checks.update(&service, about(), &plan(port, 1));
        let mut silent = vec![connect(port).await];
        let begun = Instant::now();
        for _ in 0..2 * MOST {
            silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        }
        let mut probe = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert!(ask(&mut probe).await.unwrap().starts_with("HTTP/1.1 200 OK"));
        assert!(begun.elapsed() < REQUEST_TIMEOUT);
        assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0, "the first has made room");
        checks.update(&service, about(), &plan(port, 0));
        let mut probe = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert!(ask(&mut probe).await.unwrap().starts_with("HTTP/1.1 503"));
        checks.update(&service, about(), &Plan::default());
        let (_, ended) = checks.ending.pop().unwrap();
        tokio::time::timeout(Duration::from_secs(60), ended.cancelled()).await.unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "the port stays open");
    }
}
