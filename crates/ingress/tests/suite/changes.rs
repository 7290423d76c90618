//! Nothing breaks while rules, endpoints and ports change.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base::tasks::OnFailure;
use http::Request;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::world::{World, ask, full, get, nobody, rule, send, until};

#[tokio::test]
async fn a_dead_endpoint_is_passed_by() {
    let world = World::new();
    world.service("web", &[nobody().await, world.backend("web").await]);
    world.simple("a.example", "web", &[]);
    world.simple("never.example", "web", &[("proxy-next-upstream", "off")]);
    world.service("statuses", &[world.backend("one").await, world.backend("two").await]);
    world.simple("status.example", "statuses", &[("proxy-next-upstream", "error http_503")]);
    let address = world.start().await;
    for _ in 0..4 {
        // What could not be sent may be sent to another, whatever it is.
        let post = Request::post("/").header("host", "a.example").body(full("body")).unwrap();
        assert_eq!(send(TcpStream::connect(address).await.unwrap(), post).await.status, 200);
    }
    let again = ask(address, get("status.example", "/unavailable")).await;
    assert_eq!(again.status, 503, "all endpoints say so");
    // Both were asked: the endpoint that failed three times is left out from then on.
    let mut failures = 0;
    for _ in 0..10 {
        failures += usize::from(ask(address, get("never.example", "/")).await.status != 200);
    }
    assert!(failures <= 3, "{failures}");
}

/// Clients ask all the time, over kept connections, while endpoints come and go: every request is answered.
#[tokio::test(flavor = "multi_thread")]
async fn endpoints_change_under_load() {
    let world = Arc::new(World::new());
    let backends = [world.backend("one").await, world.backend("two").await, world.backend("three").await];
    world.service("web", &backends[..1]);
    world.simple("a.example", "web", &[]);
    let address = world.start().await;
    let (done, answered, failed) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients = world.tasks.child();
    for _ in 0..4 {
        let (done, answered, failed) = (done.clone(), answered.clone(), failed.clone());
        clients.spawn("client", OnFailure::Log, async move {
            load(address, &done, &answered, &failed).await;
            Ok::<_, std::convert::Infallible>(())
        });
    }
    for round in 0..60 {
        let chosen: Vec<SocketAddr> = backends.iter().cycle().skip(round % 3).take(1 + round % 2).copied().collect();
        world.endpoints("web", &chosen);
        world.simple(&format!("other{}.example", round % 5), "web", &[]);
        let before = answered.load(Ordering::Relaxed);
        while answered.load(Ordering::Relaxed) < before + 20 {
            tokio::task::yield_now().await;
        }
    }
    done.store(true, Ordering::Relaxed);
    assert!(clients.drain(Duration::from_secs(60)).await);
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {}", answered.load(Ordering::Relaxed));
}

async fn load(address: SocketAddr, done: &AtomicBool, answered: &AtomicUsize, failed: &AtomicUsize) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let asking = async {
        while !done.load(Ordering::Relaxed) {
            sender.ready().await.unwrap();
            let answer = sender.send_request(get("a.example", "/").body(full("")).unwrap()).await.unwrap();
            let good = answer.status() == 200 && http_body_util::BodyExt::collect(answer.into_body()).await.is_ok();
            failed.fetch_add(usize::from(!good), Ordering::Relaxed);
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    tokio::select! {
        () = asking => {}
        _ = connection => panic!("the connection was cut"),
    }
}

#[tokio::test]
async fn rules_change_while_a_connection_is_kept() {
    let world = World::new();
    world.service("one", &[world.backend("one").await]);
    world.service("two", &[world.backend("two").await]);
    for n in 0..200 {
        world.simple(&format!("h{n}.example"), "one", &[]);
    }
    let address = world.start().await;
    assert_eq!(ask(address, get("h7.example", "/")).await.seen()["name"], "one");
    let start = Instant::now();
    world.simple("h7.example", "two", &[]);
    until(address, || get("h7.example", "/"), |answer| answer.seen()["name"] == "two").await;
    println!("a changed route was used after {:?}", start.elapsed());
    world.simple("new.example", "two", &[]);
    until(address, || get("new.example", "/"), |answer| answer.status == 200).await;
    // Another class takes an Ingress away, and its rules with it.
    let mut ingress =
        world.fake.all::<Ingress>().into_iter().find(|one| one.metadata.name.as_deref() == Some("h7.example")).unwrap();
    ingress.spec.as_mut().unwrap().ingress_class_name = Some("other".into());
    world.fake.put(&ingress);
    until(address, || get("h7.example", "/"), |answer| answer.status == 404).await;
    let class = json!({"metadata": {"name": "other"}, "spec": {"controller": "knarr.io/ingress"}});
    world.fake.put::<IngressClass>(&serde_json::from_value(class).unwrap());
    until(address, || get("h7.example", "/"), |answer| answer.status == 200).await;
}

#[tokio::test]
async fn a_taken_port_is_told_and_taken_when_it_is_free() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.ingress("i", &[], &json!({"rules": [rule("a.example", "/", "Prefix", "web")]}));
    let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = holder.local_addr().unwrap();
    let handle = world.start_with(ingress::Options { http_port: address.port(), ..world.options() });
    world.readiness.wait(&["ingress"]).await;
    let told =
        |events: &[k8s_openapi::api::core::v1::Event]| events.iter().any(|event| event.reason.as_deref() == Some("PortTaken"));
    world.fake.until(told).await;
    drop(holder);
    assert_eq!(handle.http().await, Some(address));
    assert_eq!(ask(address, get("a.example", "/")).await.status, 200);
}

#[tokio::test]
async fn nobody_listens_before_there_is_something_to_serve() {
    let world = World::new();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let options = ingress::Options { http_port: free.port(), ..world.options() };
    let handle = ingress::Service::build(options, world.tasks.child()).unwrap().start(world.readiness.gate("ingress"));
    world.readiness.wait(&["ingress"]).await;
    assert!(tokio::net::TcpStream::connect(free).await.is_err());
    world.service("web", &[world.backend("web").await]);
    world.simple("a.example", "web", &[]);
    assert_eq!(handle.http().await, Some(free));
    until(free, || get("a.example", "/"), |answer| answer.status == 200).await;
}
