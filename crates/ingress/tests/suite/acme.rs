//! Certificates by ACME, from pebble: a server of the protocol that is made for tests.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use base::tls::Authority;
use client::Api;
use client::kube::client::{Body, Client};
use http::{Method, Request};
use ingress::issuer::Issuers;
use k8s_openapi::api::core::v1::{Event, Secret};
use k8s_openapi::api::networking::v1::Ingress;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tempfile::TempDir;
use testing::pebble::{Pebble, PebbleOptions, free_port};
use tokio::sync::watch;
use tower::Service as _;

use crate::world::{World, connect_anyway, get, rule, until};

const ISSUER: &str = "acme.knarr.io/issuer";
const EMAIL: &str = "acme.knarr.io/email";
const HOST: &str = "shop.example";
const WAIT: Duration = Duration::from_secs(60);

/// Starts pebble, with its files in this directory.
fn pebble(world: &World, directory: &TempDir, proofs: u16, validity: u64) -> Pebble {
    Pebble::start(directory.path(), &PebbleOptions { authority: &world.authority, proofs, validity })
}

/// Starts ingress with a port for plain HTTP and issuers that it may ask; pebble is trusted by it.
async fn start(world: &World, http_port: u16, issuers: &[&str]) -> (SocketAddr, SocketAddr) {
    start_with(world, world.fake.client(), http_port, issuers).await
}

async fn start_with(world: &World, client: Client, http_port: u16, issuers: &[&str]) -> (SocketAddr, SocketAddr) {
    let acme_issuers = Issuers::with(issuers.iter().map(|listed| listed.parse().unwrap()));
    let acme_authorities = Some(world.authorities(world.authority.bundle()));
    let options = ingress::Options { client, acme_issuers, acme_authorities, http_port, ..world.options() };
    let handle = world.start_with(options);
    let served = async { (handle.http().await.unwrap(), handle.https().await.unwrap()) };
    tokio::time::timeout(WAIT, served).await.expect("both ports in time")
}

fn put(world: &World, issuer: &str) {
    put_named(world, "shop", HOST, issuer, "ops@shop.example");
}

fn put_named(world: &World, name: &str, host: &str, issuer: &str, email: &str) {
    let tls = json!([{"hosts": [host, format!("*.{host}")], "secretName": format!("{name}-tls")}]);
    let metadata = json!({"namespace": "a", "name": name, "uid": name, "annotations": {ISSUER: issuer, EMAIL: email}});
    let spec = json!({"ingressClassName": "knarr", "tls": tls, "rules": [rule(host, "/", "Prefix", "web")]});
    world.fake.put::<Ingress>(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap());
}

/// The certificate in the Secret, once it is another than before.
async fn issued(world: &World, before: &[u8]) -> Vec<u8> {
    let of = |secrets: &[Secret]| {
        let secret = secrets.iter().find(|secret| secret.metadata.name.as_deref() == Some("shop-tls"))?;
        let text = secret.data.as_ref()?.get("tls.crt")?.0.clone();
        let leaf = CertificateDer::pem_slice_iter(&text).next()?.ok()?;
        (leaf.as_ref() != before).then(|| leaf.as_ref().to_vec())
    };
    tokio::time::timeout(WAIT, world.fake.until::<Secret>(|secrets| of(secrets).is_some())).await.expect("a certificate in time");
    of(&world.fake.all::<Secret>()).unwrap()
}

/// An event about the Ingress with this reason.
async fn told(world: &World, reason: &str) -> String {
    let about = |event: &&Event| event.involved_object.name.as_deref() == Some("shop") && event.reason.as_deref() == Some(reason);
    let wait = world.fake.until::<Event>(|events| events.iter().any(|event| about(&event)));
    tokio::time::timeout(WAIT, wait).await.expect("an event in time");
    let events = world.fake.all::<Event>();
    events.iter().find(about).and_then(|event| event.message.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_issued_shown_and_renewed() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    // Two thirds of twelve seconds pass before the next one.
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let pebble = pebble(&world, &directory, port, 12);
    let (http, https) = start(&world, port, &[&format!("ours={}", pebble.url)]).await;
    put(&world, "ours");
    let first = issued(&world, &[]).await;
    let message = told(&world, "CertificateIssued").await;
    assert!(message.contains(HOST) && message.contains("a/shop-tls"), "{message}");
    // A wildcard cannot be proved over HTTP: that is told, and the rest is issued.
    assert!(told(&world, "CertificateNotIssued").await.contains("*.shop.example"));
    let secrets = world.fake.all::<Secret>();
    let kept = |name: &str| {
        secrets.iter().find(|secret| secret.metadata.name.as_deref().is_some_and(|one| one.starts_with(name))).unwrap()
    };
    assert_eq!(kept("shop-tls").type_.as_deref(), Some("kubernetes.io/tls"));
    assert_eq!(kept("shop-tls").metadata.annotations.as_ref().unwrap()[ISSUER], pebble.url);
    assert_eq!(kept("acme-account-").metadata.namespace.as_deref(), Some("kube-system"));
    let shown = async || connect_anyway(https, HOST).await.get_ref().1.peer_certificates().unwrap()[0].as_ref().to_vec();
    tokio::time::timeout(WAIT, async { while shown().await != first {} }).await.expect("the certificate is shown");
    // Paths of proofs lead nowhere when nothing is proved.
    let asked = until(http, || get(HOST, "/.well-known/acme-challenge/x"), |_| true).await;
    assert_eq!(asked.status, 308, "as any other path, to HTTPS");
    let second = issued(&world, &first).await;
    assert_ne!(first, second);
    let secrets: Api<Secret> = Api::namespaced(world.fake.client(), "a");
    secrets.delete("shop-tls", &Default::default()).await.unwrap();
    let third = issued(&world, &second).await;
    assert!(third != first && third != second, "a Secret that is deleted is made again");
}

/// The answer to a write may come after everybody has seen what was written.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_issued_is_told_though_the_answer_comes_late() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let pebble = pebble(&world, &directory, port, 3600);
    let (release, released) = watch::channel(false);
    let fake = world.fake.clone();
    let late = tower::service_fn(move |request: Request<Body>| {
        let (mut fake, mut released) = (fake.clone(), released.clone());
        async move {
            let is_stored = request.method() != Method::GET && request.uri().path().starts_with("/api/v1/namespaces/a/secrets");
            let answer = fake.call(request).await?;
            if is_stored && answer.status().is_success() {
                let _ = released.wait_for(|released| *released).await;
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let (_, https) = start_with(&world, Client::new(late, "default"), port, &[&format!("ours={}", pebble.url)]).await;
    put(&world, "ours");
    let first = issued(&world, &[]).await;
    let shown = async || connect_anyway(https, HOST).await.get_ref().1.peer_certificates().unwrap()[0].as_ref().to_vec();
    tokio::time::timeout(WAIT, async { while shown().await != first {} }).await.expect("the certificate is shown");
    release.send(true).unwrap();
    assert!(told(&world, "CertificateIssued").await.contains(HOST));
}

/// An order that is under way is not given up, which would count as a failure and have the next one wait, since another Ingress wants the same now.
#[tokio::test(flavor = "multi_thread")]
async fn another_ingress_takes_over_an_order() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let pebble = pebble(&world, &directory, port, 3600);
    let ((asked, mut is_asked), (release, released)) = (watch::channel(false), watch::channel(false));
    let fake = world.fake.clone();
    let late = tower::service_fn(move |request: Request<Body>| {
        let (mut fake, mut released, asked) = (fake.clone(), released.clone(), asked.clone());
        async move {
            let is_noted =
                request.method() != Method::GET && request.uri().path().starts_with("/api/v1/namespaces/kube-system/secrets");
            let answer = fake.call(request).await?;
            if is_noted && answer.status().is_success() {
                asked.send_replace(true);
                let _ = released.wait_for(|released| *released).await;
            }
            Ok::<_, Infallible>(answer)
        }
    });
    start_with(&world, Client::new(late, "default"), port, &[&format!("ours={}", pebble.url)]).await;
    let ingress = |name: &str| {
        let tls = json!([{"hosts": [HOST], "secretName": "shop-tls"}]);
        let metadata = json!({"namespace": "a", "name": name, "uid": name, "annotations": {ISSUER: "ours"}});
        let spec = json!({"ingressClassName": "knarr", "tls": tls, "rules": [rule(HOST, "/", "Prefix", "web")]});
        world.fake.put::<Ingress>(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap());
    };
    ingress("before");
    tokio::time::timeout(WAIT, is_asked.wait_for(|asked| *asked)).await.expect("an order is noted").unwrap();
    ingress("shop");
    let ingresses: Api<Ingress> = Api::namespaced(world.fake.client(), "a");
    ingresses.delete("before", &Default::default()).await.unwrap();
    // Who is told of the issuer of the third one has seen the end of the first.
    put_named(&world, "last", "last.example", "unlisted", "ops@shop.example");
    let is_told = |events: &[Event]| events.iter().any(|event| event.involved_object.name.as_deref() == Some("last"));
    tokio::time::timeout(WAIT, world.fake.until::<Event>(is_told)).await.expect("an event in time");
    release.send(true).unwrap();
    let done = async {
        issued(&world, &[]).await;
        told(&world, "CertificateIssued").await
    };
    let message = tokio::time::timeout(WAIT / 2, done).await.expect("no order waits for a minute");
    assert!(message.contains("a/shop-tls"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_proved_is_told() {
    let world = World::new();
    // Nobody listens where the proof is looked for.
    let directory = tempfile::tempdir().unwrap();
    let pebble = pebble(&world, &directory, free_port(), 3600);
    start(&world, 0, &[&pebble.url]).await;
    put(&world, &pebble.url);
    let wait = world.fake.until::<Event>(|events| {
        events.iter().any(|event| event.message.as_deref().is_some_and(|text| text.contains("could not be proved")))
    });
    tokio::time::timeout(WAIT, wait).await.expect("an event in time");
    assert!(!world.fake.all::<Secret>().iter().any(|secret| secret.metadata.name.as_deref() == Some("shop-tls")));
}

#[tokio::test]
async fn a_secret_of_somebody_else_stays() {
    let world = World::new();
    world.certificate("shop-tls", "other.example");
    let before = world.fake.all::<Secret>();
    put(&world, "https://127.0.0.1:1/");
    start(&world, 0, &["https://127.0.0.1:1/"]).await;
    assert!(told(&world, "SecretNotOwned").await.contains("a/shop-tls"));
    assert_eq!(world.fake.all::<Secret>().len(), before.len());
}

/// Whoever writes an Ingress does not choose whom the server asks.
#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_not_listed_is_told_and_not_asked() {
    let world = World::new();
    let listen = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        (format!("https://{}/directory", listener.local_addr().unwrap()), listener)
    };
    let ((listed, asked), (other, silent)) = (listen(), listen());
    start(&world, 0, &[&listed]).await;
    put(&world, &other);
    let message = told(&world, "IssuerNotAllowed").await;
    assert!(message.contains(&other) && message.contains(&listed), "{message}");
    // What came before this one would have been asked by now.
    put_named(&world, "other", "other.example", &listed, "ops@shop.example");
    let asked = tokio::net::TcpListener::from_std(asked).unwrap();
    tokio::time::timeout(WAIT, asked.accept()).await.expect("the listed one is asked").unwrap();
    assert_eq!(silent.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

/// Whom to trust is read anew for each question; another account has not failed yet.
#[tokio::test(flavor = "multi_thread")]
async fn authorities_change_while_the_server_runs() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let pebble = pebble(&world, &directory, port, 3600);
    start(&world, port, &[&pebble.url]).await;
    world.authorities(Authority::in_memory("another").unwrap().bundle());
    put(&world, &pebble.url);
    let wait = world.fake.until::<Event>(|events| {
        events.iter().any(|event| event.message.as_deref().is_some_and(|text| text.contains("UnknownIssuer")))
    });
    tokio::time::timeout(WAIT, wait).await.expect("an event in time");
    world.authorities(world.authority.bundle());
    put_named(&world, "shop", HOST, &pebble.url, "others@shop.example");
    issued(&world, &[]).await;
}

/// A server that starts again and again asks no more often than one that runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_order_waits_across_a_restart() {
    let world = World::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/directory", listener.local_addr().unwrap());
    let asked = async || drop(tokio::time::timeout(WAIT, listener.accept()).await.expect("the issuer is asked").unwrap());
    put(&world, &url);
    start(&world, 0, &[&url]).await;
    asked().await;
    told(&world, "CertificateNotIssued").await;
    let noted = || {
        let secrets = world.fake.all::<Secret>();
        let account = secrets.into_iter().find(|secret| secret.metadata.name.as_deref().unwrap().starts_with("acme-account-"));
        account.unwrap().data.unwrap()
    };
    let before = noted();
    assert_eq!(before.len(), 1, "{before:?}");
    world.tasks.token().cancel();
    let again = world.again();
    put_named(&again, "zzz", "other.example", &url, "ops@shop.example");
    start(&again, 0, &[&url]).await;
    // Only the other one is ordered, and what is noted of the first is as it was.
    asked().await;
    let wait = world.fake.until::<Event>(|events| {
        events.iter().any(|event| event.message.as_deref().is_some_and(|text| text.contains("other.example: ")))
    });
    tokio::time::timeout(WAIT, wait).await.expect("an event in time");
    let after = noted();
    assert_eq!(after.len(), 2, "{after:?}");
    assert!(before.iter().all(|(key, text)| after.get(key) == Some(text)), "{before:?} {after:?}");
    let more = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(more.is_err(), "nobody else asks");
}
