//! TCPRoutes and UDPRoutes of the Gateway API (GEP-2644, GEP-2645): ports of their own, forwarded as they are.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use base::tasks::OnFailure;
use http::Request;
use k8s_openapi::api::core::v1::{Node, Service as ApiService};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::gateway::{API, gateway, install, post, status};
use crate::world::World;

const LIMIT: Duration = Duration::from_secs(60);

/// A port that nobody has, below those that the kernel gives to clients.
pub(crate) fn free() -> u16 {
    free_after(0)
}

/// One that is so far behind the first that others do not have it either.
pub(crate) fn free_after(distance: u16) -> u16 {
    let start = 12_000 + distance + (std::process::id() % 10_000) as u16;
    let is_free = |port: &u16| {
        std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok() && std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok()
    };
    (start..start + 1000).find(is_free).unwrap()
}

/// A back end that says its name to whoever connects, then whatever it is told.
async fn echo(world: &World, name: &'static str) -> SocketAddr {
    echo_at(world, ([127, 0, 0, 1], 0).into(), name).await
}

async fn echo_at(world: &World, at: SocketAddr, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(at).await.unwrap();
    let (address, tasks) = (listener.local_addr().unwrap(), world.tasks.clone());
    world.tasks.spawn_until_cancelled("back end", OnFailure::Log, async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tasks.spawn_until_cancelled("connection of a back end", OnFailure::Log, async move {
                let (mut from, mut to) = stream.split();
                // A connection that breaks is a test's own doing.
                let _ = to.write_all(name.as_bytes()).await;
                let _ = tokio::io::copy(&mut from, &mut to).await;
                Ok::<_, Infallible>(())
            });
        }
        #[allow(unreachable_code)]
        Ok::<_, Infallible>(())
    });
    address
}

/// The name of the back end that a new connection leads to; none when it is refused or reset.
async fn connect(at: SocketAddr) -> Option<(TcpStream, String)> {
    let mut stream = TcpStream::connect(at).await.ok()?;
    let mut name = [0; 3];
    stream.read_exact(&mut name).await.ok()?;
    Some((stream, String::from_utf8(name.to_vec()).unwrap()))
}

async fn still_talks(stream: &mut TcpStream) {
    stream.write_all(b"hello").await.unwrap();
    let mut said = [0; 5];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hello");
}

/// Asks until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, asking).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

async fn put_route(world: &World, kind: &str, backends: Value) {
    let plural = format!("{}s", kind.to_lowercase());
    let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": "r", "namespace": "a"},
        "spec": {"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": backends}]}});
    let path = format!("{API}/namespaces/a/{plural}/r");
    let request = Request::patch(path).header("content-type", "application/merge-patch+json");
    let request = request.body(json!({"spec": route["spec"]}).to_string().into_bytes()).unwrap();
    if world.fake.client().request::<Value>(request).await.is_err() {
        post(world, &format!("{API}/namespaces/a/{plural}"), &route).await;
    }
}

fn condition(place: usize, status: &str, reason: &str) -> impl Fn(&Value) -> bool {
    let (path, status, reason) = (format!("/listeners/0/conditions/{place}"), status.to_owned(), reason.to_owned());
    move |value| value.pointer(&path).is_some_and(|one| one["status"] == *status && one["reason"] == *reason)
}

#[tokio::test]
async fn connections_are_forwarded_by_port() {
    let world = World::new();
    world.service("one", &[echo(&world, "one").await]);
    world.service("two", &[echo(&world, "two").await]);
    let handle = world.start_with(world.options());
    let port = free();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    // Somebody else has the port at first.
    let other = std::net::TcpListener::bind(at).unwrap();
    install(&world).await;
    gateway(&world, json!([{"name": "tcp", "port": port, "protocol": "TCP"}])).await;
    status(&world, "/namespaces/a/gateways/g", condition(0, "False", "PortUnavailable")).await;
    drop(other);
    status(&world, "/namespaces/a/gateways/g", condition(2, "True", "Programmed")).await;
    let mut ports = handle.ports();
    ports.wait_for(|ports| ports.len() == 1).await.unwrap();
    assert!(connect(at).await.is_none(), "nobody is there without a route");

    put_route(&world, "TCPRoute", json!([{"name": "one", "port": 80}])).await;
    let (mut first, name) = until("a connection", async || connect(at).await).await;
    assert_eq!(name, "one");
    still_talks(&mut first).await;
    let accepted = |status: &Value| status["parents"][0]["conditions"][0]["status"] == "True";
    status(&world, "/namespaces/a/tcproutes/r", accepted).await;

    // TCPRoute, backendRefs: "if an invalid backend is requested to have 80% of connections, then 80% of connections must be rejected".
    put_route(&world, "TCPRoute", json!([{"name": "two", "port": 80}, {"name": "missing", "port": 80}])).await;
    until("the other back end", async || connect(at).await.filter(|(_, name)| name == "two")).await;
    until("a connection that is reset", async || connect(at).await.is_none().then_some(())).await;
    put_route(&world, "TCPRoute", json!([{"name": "two", "port": 80}])).await;
    let mut in_a_row = 0;
    until("no connection is reset", async || {
        in_a_row = if connect(at).await.is_some() { in_a_row + 1 } else { 0 };
        (in_a_row == 20).then_some(())
    })
    .await;
    still_talks(&mut first).await;

    let request = Request::delete(format!("{API}/namespaces/a/gateways/g")).body(Vec::new()).unwrap();
    world.fake.client().request::<Value>(request).await.unwrap();
    ports.wait_for(|ports| ports.is_empty()).await.unwrap();
    until("the port is closed", async || TcpStream::connect(at).await.is_err().then_some(())).await;
    still_talks(&mut first).await;
}

/// A back end that answers with its name and with who asked.
async fn answers(world: &World, name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    world.tasks.spawn_until_cancelled("back end", OnFailure::Log, async move {
        let mut buffer = [0; 64];
        loop {
            let (_, peer) = socket.recv_from(&mut buffer).await.unwrap();
            socket.send_to(format!("{name} {peer}").as_bytes(), peer).await.unwrap();
        }
        #[allow(unreachable_code)]
        Ok::<_, Infallible>(())
    });
    address
}

/// A Service with UDP endpoints behind its port 53.
fn datagrams(world: &World, name: &str, endpoints: &[SocketAddr]) {
    let spec = json!({"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]});
    let metadata = json!({"namespace": "a", "name": name});
    world.fake.put::<ApiService>(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap());
    for place in 0..2 {
        let list: Vec<Value> = endpoints.get(place).iter().map(|at| json!({"addresses": [at.ip()]})).collect();
        let port = endpoints.get(place).map_or(1, SocketAddr::port);
        let metadata =
            json!({"namespace": "a", "name": format!("{name}-{place}"), "labels": {"kubernetes.io/service-name": name}});
        let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": list,
            "ports": [{"name": "dns", "port": port, "protocol": "UDP"}]});
        world.fake.put::<EndpointSlice>(&serde_json::from_value(slice).unwrap());
    }
}

/// What a client is told; none when nothing comes for a moment.
async fn told(client: &UdpSocket) -> Option<String> {
    client.send(b"who?").await.unwrap();
    let mut buffer = [0; 64];
    let length = tokio::time::timeout(Duration::from_secs(1), client.recv(&mut buffer)).await.ok()?.ok()?;
    Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
}

async fn client(at: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(at).await.unwrap();
    client
}

#[tokio::test]
async fn sessions_are_forwarded_by_port() {
    let world = World::new();
    let (one, two) = (answers(&world, "one").await, answers(&world, "two").await);
    datagrams(&world, "names", &[one]);
    world.start_with(world.options());
    let port = free();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    install(&world).await;
    gateway(&world, json!([{"name": "udp", "port": port, "protocol": "UDP"}])).await;
    put_route(&world, "UDPRoute", json!([{"name": "names", "port": 53}])).await;
    status(&world, "/namespaces/a/gateways/g", condition(2, "True", "Programmed")).await;
    let (first, second) = (client(at).await, client(at).await);
    let of_first = until("an answer", async || told(&first).await).await;
    assert!(of_first.starts_with("one "), "{of_first}");
    let of_second = until("an answer to another client", async || told(&second).await).await;
    assert_ne!(of_first, of_second, "each client has a session");
    assert_eq!(until("the next answer", async || told(&first).await).await, of_first, "and keeps it");
    // Another endpoint comes: sessions stay. Their own goes: they move.
    datagrams(&world, "names", &[one, two]);
    until("new sessions reach both", async || told(&client(at).await).await.filter(|name| name.starts_with("two "))).await;
    assert_eq!(until("the next answer", async || told(&first).await).await, of_first);
    datagrams(&world, "names", &[two]);
    until("the session moves", async || told(&first).await.filter(|name| name.starts_with("two "))).await;
    // A back end that is not there: what comes is dropped.
    put_route(&world, "UDPRoute", json!([{"name": "missing", "port": 53}])).await;
    until("no answer", async || told(&first).await.is_none().then_some(())).await;
    put_route(&world, "UDPRoute", json!([{"name": "names", "port": 53}])).await;
    until("answers again", async || told(&first).await).await;
}

/// A datagram has no count of its hops: one that came back to its own port would go around for ever.
#[tokio::test]
async fn what_ingress_sends_to_itself_is_dropped() {
    let world = World::new();
    let (port, one) = (free(), answers(&world, "one").await);
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    datagrams(&world, "names", &[one, at]);
    world.start_with(world.options());
    install(&world).await;
    gateway(&world, json!([{"name": "udp", "port": port, "protocol": "UDP"}])).await;
    put_route(&world, "UDPRoute", json!([{"name": "names", "port": 53}])).await;
    status(&world, "/namespaces/a/gateways/g", condition(2, "True", "Programmed")).await;
    until("an answer", async || told(&client(at).await).await).await;
    // Sessions are spread over both endpoints. Without the rule the one that comes back begins another, until one has the good endpoint.
    let (mut answered, mut dropped) = (0, 0);
    for _ in 0..6 {
        match told(&client(at).await).await {
            Some(_) => answered += 1,
            None => dropped += 1,
        }
    }
    assert!(answered > 0 && dropped > 0, "{answered} answered, {dropped} dropped");
}

/// A connection that came back to its own port would be taken around until there is no room for others: its endpoint is left out.
#[tokio::test]
async fn an_endpoint_that_leads_back_is_left_out() {
    let world = World::new();
    let (port, one) = (free(), echo(&world, "one").await);
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    // The Service names the port before a Gateway has it.
    world.service("names", &[one, at]);
    world.service("itself", &[at]);
    world.start_with(ingress::Options { addresses: vec![at.ip()], ..world.options() });
    install(&world).await;
    gateway(&world, json!([{"name": "tcp", "port": port, "protocol": "TCP"}])).await;
    put_route(&world, "TCPRoute", json!([{"name": "names", "port": 80}])).await;
    status(&world, "/namespaces/a/gateways/g", condition(2, "True", "Programmed")).await;
    until("a connection", async || connect(at).await).await;
    for _ in 0..6 {
        assert_eq!(connect(at).await.unwrap().1, "one");
    }
    put_route(&world, "TCPRoute", json!([{"name": "itself", "port": 80}])).await;
    until("a reset, at once", async || connect(at).await.is_none().then_some(())).await;
}

/// Ingress that is hidden at an address of its own is not behind the nodes' ports: who has the same number there is somebody else.
#[tokio::test]
async fn ports_of_nodes_that_do_not_lead_here_are_others() {
    let world = World::new();
    let port = free();
    let (at, node) = (SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([127, 0, 0, 2], port)));
    world.service("names", &[echo_at(&world, node, "own").await]);
    let (addresses, own) = (vec![at.ip()], vec![node.ip()]);
    world.start_with(ingress::Options { addresses, own, nodes_lead_here: false, ..world.options() });
    install(&world).await;
    gateway(&world, json!([{"name": "tcp", "port": port, "protocol": "TCP"}])).await;
    put_route(&world, "TCPRoute", json!([{"name": "names", "port": 80}])).await;
    status(&world, "/namespaces/a/gateways/g", condition(2, "True", "Programmed")).await;
    let (_, name) = until("a connection", async || connect(at).await).await;
    assert_eq!(name, "own");
}

/// A node writes its addresses itself: one that it cannot have alone makes no endpoint there one that leads back.
#[tokio::test]
async fn what_a_node_says_of_others_addresses_shuts_nobody_out() {
    let world = World::new();
    let port = free();
    let (at, other) = (SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([127, 0, 0, 3], port)));
    world.service("names", &[echo_at(&world, other, "own").await]);
    let addresses = json!([{"type": "InternalIP", "address": "192.0.2.7"}, {"type": "InternalIP", "address": other.ip()}]);
    let node = json!({"metadata": {"name": "liar"}, "status": {"addresses": addresses}});
    world.fake.put::<Node>(&serde_json::from_value(node).unwrap());
    world.start_with(ingress::Options { addresses: vec![at.ip()], ..world.options() });
    install(&world).await;
    gateway(&world, json!([{"name": "tcp", "port": port, "protocol": "TCP"}])).await;
    put_route(&world, "TCPRoute", json!([{"name": "names", "port": 80}])).await;
    status(&world, "/namespaces/a/gateways/g", condition(2, "True", "Programmed")).await;
    let (_, name) = until("a connection", async || connect(at).await).await;
    assert_eq!(name, "own");
}
