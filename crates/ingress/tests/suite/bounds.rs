//! What one client may have under way.

use futures::stream::{FuturesUnordered, StreamExt};
use http::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{World, ask, full, get, until};

/// One connection of HTTP/2 carries many requests, each of which needs a connection to a back end.
#[tokio::test]
async fn requests_of_one_client_are_bounded_over_all_its_connections() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.simple("a.example", "web", &[]);
    let address = world.start_with(ingress::Options { at_once: Some(16), ..world.options() }).http().await.unwrap();
    let (mut connections, mut senders) = (Vec::new(), Vec::new());
    let mut asked = FuturesUnordered::new();
    for _ in 0..3 {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        connections.push(connection);
        let request = || Request::get("http://a.example/silent").body(full("")).unwrap();
        asked.extend((0..20).map(|_| sender.send_request(request())));
        senders.push(sender);
    }
    let mut driven = futures::future::join_all(connections);
    let refused = async {
        // Twelve wait for the back end, which says nothing; the others are told at once.
        let refused: Vec<StatusCode> = asked.by_ref().take(48).map(|answer| answer.unwrap().status()).collect().await;
        assert!(refused.iter().all(|status| *status == StatusCode::SERVICE_UNAVAILABLE), "{refused:?}");
    };
    tokio::select! {
        () = refused => {}
        _ = &mut driven => panic!("the connections ended first"),
    }
    // That there is no place for one more proves that the twelve still have theirs.
    assert_eq!(ask(address, get("a.example", "/x")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(asked.len(), 12);
    drop((asked, senders, driven));
    // What has ended makes room, as soon as the server has seen the end.
    until(address, || get("a.example", "/x"), |answer| answer.status == StatusCode::OK).await;
}

/// An upgraded connection is under way until its end, though its request was answered.
#[tokio::test]
async fn upgraded_connections_count() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.simple("a.example", "web", &[]);
    let address = world.start_with(ingress::Options { at_once: Some(2), ..world.options() }).http().await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /upgrade HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    assert_eq!(ask(address, get("a.example", "/x")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    drop(stream);
    until(address, || get("a.example", "/x"), |answer| answer.status == StatusCode::OK).await;
}
