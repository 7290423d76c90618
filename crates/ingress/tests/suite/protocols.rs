//! What passes: HTTP/2, trailers, upgrades, streams, and what is too large.

use std::net::SocketAddr;
use std::time::Duration;

use base::tasks::OnFailure;
use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{Answer, BoxBody, World, ask, connect_tls, full, get, rule, send};

async fn send_http2<I>(stream: I, request: Request<BoxBody>) -> (Answer, Option<http::HeaderMap>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let answer = async {
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned();
        (Answer { status: parts.status, headers: parts.headers, body: collected.to_bytes() }, trailers)
    };
    tokio::select! {
        answer = answer => answer,
        _ = connection => panic!("the connection ended first"),
    }
}

#[tokio::test]
async fn http2_over_tls_and_grpc_to_the_back_end() {
    let world = World::new();
    let backend = world.backend("web").await;
    world.service("web", &[backend]);
    world.service_of("h2c", &json!({"ports": [{"name": "web", "port": 80, "appProtocol": "kubernetes.io/h2c"}]}), &[backend]);
    world.certificate("cert", "a.example");
    let tls = json!([{"hosts": ["a.example"], "secretName": "cert"}]);
    world.ingress("plain", &[], &json!({"tls": tls, "rules": [rule("a.example", "/", "Prefix", "web")]}));
    world.simple("grpc.example", "web", &[("backend-protocol", "GRPC")]);
    world.simple("h2c.example", "h2c", &[]);
    let (http, https) = world.start_tls().await;
    let stream = connect_tls(&world, https, "a.example", "h2").await.unwrap();
    let request = Request::get("https://a.example/x").header("cookie", "a=1").header("cookie", "b=2").body(full("")).unwrap();
    let seen = send_http2(stream, request).await.0.seen();
    assert_eq!(
        (&seen["version"], &seen["headers"]["cookie"], &seen["headers"]["host"]),
        (&json!("HTTP/1.1"), &json!("a=1; b=2"), &json!("a.example"))
    );
    for host in ["grpc.example", "h2c.example"] {
        let stream = TcpStream::connect(http).await.unwrap();
        let request = Request::post(format!("http://{host}/trailers")).version(Version::HTTP_2).header("te", "trailers");
        let (answer, trailers) = send_http2(stream, request.body(full("")).unwrap()).await;
        assert_eq!((&answer.body[..], &trailers.unwrap()["grpc-status"]), (&b"message"[..], &"0".parse().unwrap()), "{host}");
        // Fields behind a request's body have names that nobody has looked at.
        let stream = TcpStream::connect(http).await.unwrap();
        let request = Request::post(format!("http://{host}/echo")).version(Version::HTTP_2).header("trailer", "x-user");
        let behind = http::HeaderMap::from_iter([("x-user".parse().unwrap(), "root".parse().unwrap())]);
        let frames = [Ok(Frame::data(Bytes::from_static(b"message"))), Ok(Frame::trailers(behind))];
        let body = StreamBody::new(futures::stream::iter(frames)).boxed_unsync();
        let (answer, trailers) = send_http2(stream, request.body(body).unwrap()).await;
        assert_eq!((&answer.body[..], trailers), (&b"message"[..], None), "{host}");
        let seen = ask(http, get(host, "/x")).await.seen();
        assert_eq!((&seen["version"], &seen["authority"]), (&json!("HTTP/2.0"), &json!(host)));
    }
}

#[tokio::test]
async fn upgrades_pass() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.simple("a.example", "web", &[]);
    let mut stream = TcpStream::connect(world.start().await).await.unwrap();
    stream.write_all(b"GET /upgrade HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    // It goes on while the rules change.
    world.simple("a.example", "other", &[]);
    world.simple("b.example", "web", &[]);
    for text in [b"ping", b"pong"] {
        stream.write_all(text).await.unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, text);
    }
}

async fn short_or_endless(request: Request<Incoming>) -> Result<http::Response<BoxBody>, std::convert::Infallible> {
    let endless = futures::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b'x'; 16 << 10]))));
    let is_endless = request.uri().path() == "/endless";
    Ok(http::Response::new(if is_endless { StreamBody::new(endless).boxed_unsync() } else { full("short") }))
}

/// A back end over HTTP/2 in the clear that takes so many requests at once on a connection. Answers of `/endless` never end.
async fn h2c(world: &World, at_once: u32) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ports = json!({"ports": [{"name": "web", "port": 80, "appProtocol": "kubernetes.io/h2c"}]});
    world.service_of("h2c", &ports, &[listener.local_addr().unwrap()]);
    world.simple("h2c.example", "h2c", &[]);
    let tasks = world.tasks.clone();
    world.tasks.spawn_until_cancelled("back end", OnFailure::Log, async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let serving =
                builder.max_concurrent_streams(at_once).serve_connection(TokioIo::new(stream), service_fn(short_or_endless));
            tasks.spawn_until_cancelled("connection of a back end", OnFailure::Log, async move {
                // A connection that breaks is a test's own doing.
                let _ = serving.await;
                Ok::<_, std::convert::Infallible>(())
            });
        }
        #[allow(unreachable_code)]
        Ok::<_, std::convert::Infallible>(())
    });
}

/// Clients that have the heads of endless answers, and read no more.
async fn slow_readers(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut readers = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /endless HTTP/1.1\r\nhost: h2c.example\r\n\r\n").await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        readers.push(stream);
    }
    readers
}

/// RFC 9113, 5.1.2: "Endpoints MUST NOT exceed the limit set by their peer." What is beyond it has other connections.
#[tokio::test]
async fn streams_beyond_the_limit_have_other_connections() {
    let world = World::new();
    h2c(&world, 2).await;
    let address = world.start().await;
    let _readers = slow_readers(address, 5).await;
    let answer = tokio::time::timeout(Duration::from_secs(20), ask(address, get("h2c.example", "/x"))).await;
    assert_eq!(answer.expect("an answer").body, "short");
}

/// The window of a connection is that of all its streams together: those who read nothing keep nobody else waiting.
#[tokio::test]
async fn slow_readers_keep_nobody_waiting() {
    let world = World::new();
    h2c(&world, 100).await;
    let address = world.start().await;
    let _readers = slow_readers(address, 40).await;
    for _ in 0..5 {
        let answer = tokio::time::timeout(Duration::from_secs(20), ask(address, get("h2c.example", "/x"))).await;
        assert_eq!(answer.expect("an answer").body, "short");
    }
}

#[tokio::test]
async fn answers_and_requests_are_streamed() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.simple("a.example", "web", &[("proxy-body-size", "0")]);
    let address = world.start().await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let first = async {
        let mut answer = sender.send_request(get("a.example", "/trickle").body(full("")).unwrap()).await.unwrap();
        answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap()
    };
    tokio::select! {
        first = first => assert_eq!(first, "first"),
        _ = connection => panic!("the connection ended first"),
    }
    // Each part of the body comes back before the next one is sent.
    let (parts, received) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = futures::stream::unfold(received, |mut received| async {
        let part = received.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(part)), received))
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let echo = async {
        parts.send("one".into()).await.unwrap();
        let request = Request::post("/echo").header("host", "a.example").body(StreamBody::new(body).boxed_unsync()).unwrap();
        let mut answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        parts.send("two".into()).await.unwrap();
        assert_eq!(answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "two");
    };
    tokio::select! {
        () = echo => {}
        _ = connection => panic!("the connection ended first"),
    }
}

#[tokio::test]
async fn large_bodies_and_heads_are_refused() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.simple("a.example", "web", &[("proxy-body-size", "1k")]);
    world.simple("free.example", "web", &[("proxy-body-size", "0")]);
    let address = world.start().await;
    let post = async |host: &str, size: usize, chunked: bool| {
        let frames = (0..size.div_ceil(512)).map(|_| Ok(Frame::data(Bytes::from(vec![b'x'; 512]))));
        let body = match chunked {
            true => StreamBody::new(futures::stream::iter(frames)).boxed_unsync(),
            false => full(vec![b'x'; size]),
        };
        let request = Request::post("/echo").header("host", host).body(body).unwrap();
        let answer = send(TcpStream::connect(address).await.unwrap(), request).await;
        (answer.status.as_u16(), answer.body.len())
    };
    assert_eq!(post("a.example", 1024, false).await, (200, 1024));
    assert_eq!(post("a.example", 1025, false).await.0, 413);
    assert_eq!(post("a.example", 1024, true).await, (200, 1024));
    assert_eq!(post("free.example", 3 << 20, true).await, (200, 3 << 20));
    assert_eq!(post("free.example", 3 << 20, false).await, (200, 3 << 20));
    let raw = async |head: &[u8]| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // What is too large is not read to its end: the connection may close before all is written.
        let _ = stream.write_all(head).await;
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    assert_eq!(
        raw(format!("GET / HTTP/1.1\r\nhost: a.example\r\na: {}\r\n\r\n", "b".repeat(128 << 10)).as_bytes()).await,
        "HTTP/1.1 431"
    );
    let long = format!("GET /{} HTTP/1.1\r\nhost: a.example\r\n\r\n", "a/".repeat(5000));
    assert_eq!(raw(long.as_bytes()).await, "HTTP/1.1 414");
    assert_eq!(raw(b"GET / HTTP/1.1\r\n\r\n").await, "HTTP/1.1 400");
    assert_eq!(raw(b"POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: x\r\n\r\n").await, "HTTP/1.1 400");
    let chunked = "POST /echo HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n";
    for broken in ["-3\r\nabc\r\n", "x\r\n", "3\nabc\r\n", "fffffffffffffffff\r\n"] {
        assert_eq!(raw(format!("{chunked}{broken}").as_bytes()).await, "HTTP/1.1 400", "{broken:?}");
    }
}

/// RFC 9112, 6.3: "the Transfer-Encoding overrides the Content-Length", and RFC 9110, 7.6.1: what `Connection` names stays here, but for what
/// every request has.
#[tokio::test]
async fn headers_of_one_connection_stay_there() {
    let world = World::new();
    let odd = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.service("odd", &[odd.local_addr().unwrap()]);
    world.simple("odd.example", "odd", &[]);
    let address = world.start().await;
    let answering = async {
        let (mut stream, _) = odd.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        head
    };
    let named = "close, host, x-own, x-real-ip, upgrade, http2-settings";
    let request = get("odd.example", "/").header("connection", named).header("x-own", "1").header("upgrade", "h2c");
    let request = request.header("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA").header("x_real_ip", "192.0.2.66");
    let (head, answer) = tokio::join!(answering, ask(address, request));
    assert_eq!(answer.body, "hello");
    assert!(head.contains("host: odd.example\r\n") && head.contains("x-real-ip: 127.0.0.1\r\n"), "{head}");
    for gone in ["x-own", "upgrade", "h2c", "http2-settings", "x_real_ip"] {
        assert!(!head.contains(gone), "{gone}: {head}");
    }
}

/// nginx bounds heads by their bytes (`large_client_header_buffers`, `proxy_buffer_size`), and so does Go (`MaxHeaderBytes`,
/// `MaxResponseHeaderBytes`): many short lines are no reason to refuse a message, in either direction.
#[tokio::test]
async fn heads_may_have_many_lines() {
    let world = World::new();
    let wordy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.service("wordy", &[wordy.local_addr().unwrap()]);
    world.simple("wordy.example", "wordy", &[]);
    let address = world.start().await;
    let lines = |count: usize, length: usize| -> String {
        (0..count).map(|number| format!("x-line-{number}: {}\r\n", "v".repeat(length))).collect()
    };
    let exchange = async |asked: String, answered: String| {
        let answering = async {
            let (mut stream, _) = wordy.accept().await.unwrap();
            let head = read_head(&mut stream).await;
            // What is too large is not read to its end.
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{answered}\r\n").as_bytes()).await;
            head
        };
        let asking = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = format!("GET / HTTP/1.1\r\nhost: wordy.example\r\nconnection: close\r\n{asked}\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            read_head(&mut stream).await
        };
        tokio::join!(answering, asking)
    };
    let count = |head: &str| head.lines().filter(|line| line.starts_with("x-line-")).count();
    let (request, answer) = exchange(lines(900, 10), lines(900, 10)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!((count(&request), count(&answer)), (900, 900));
    let (_, answer) = exchange(String::new(), lines(300, 1000)).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "the bytes are bounded: {}", answer.lines().next().unwrap_or_default());
}

/// "Intermediaries that process HTTP messages (i.e., all intermediaries other than those acting as tunnels) MUST send their own HTTP-version in forwarded
/// messages" (RFC 9112, 2.3): a client's connection stays open, whatever its back ends speak.
#[tokio::test]
async fn answers_have_the_version_of_their_client() {
    let world = World::new();
    let old = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.service("old", &[old.local_addr().unwrap()]);
    world.simple("old.example", "old", &[]);
    let address = world.start().await;
    world.tasks.spawn_until_cancelled("back end", OnFailure::Log, async move {
        for head in ["content-length: 5\r\n", ""].iter().cycle() {
            let (mut stream, _) = old.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.write_all(format!("HTTP/1.0 200 OK\r\n{head}\r\nhello").as_bytes()).await.unwrap();
        }
        Ok::<_, std::convert::Infallible>(())
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    for length in [true, false] {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: old.example\r\n\r\n").await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && !head.contains("connection:"), "{head}");
        let expected = if length { "hello" } else { "5\r\nhello\r\n0\r\n\r\n" };
        let mut body = vec![0; expected.len()];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&body), expected);
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\nhost: old.example\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
}

/// RFC 9110, 8.6: a recipient of equal lengths "MUST either reject the message as invalid or replace the duplicate field values with a single valid
/// Content-Length field". Over HTTP/2 lengths that differ from each other make a message malformed (RFC 9113, 8.1.1).
#[tokio::test]
async fn there_is_one_length() {
    let world = World::new();
    let back_end = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.service("web", &[back_end.local_addr().unwrap()]);
    world.simple("a.example", "web", &[]);
    let address = world.start().await;
    let post = async |lengths: [&str; 2]| {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        let mut request = Request::post("http://a.example/").version(Version::HTTP_2);
        for length in lengths {
            request = request.header("content-length", length);
        }
        let request = request.body(full("hello")).unwrap();
        tokio::select! {
            answer = sender.send_request(request) => answer.map(|answer| answer.status().as_u16()),
            _ = connection => panic!("the connection ended first"),
        }
    };
    for lengths in [["5", "5"], ["5", "05"]] {
        let answering = async {
            let (mut stream, _) = back_end.accept().await.unwrap();
            let head = read_head(&mut stream).await;
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
            (head, body)
        };
        let ((head, body), status) = tokio::join!(answering, post(lengths));
        assert_eq!((status.unwrap(), &body), (200, b"hello"));
        let found: Vec<&str> = head.lines().filter(|line| line.starts_with("content-length")).collect();
        assert_eq!(found, ["content-length: 5"], "{lengths:?}");
    }
    assert!(post(["5", "6"]).await.is_err());
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn the_proxy_protocol_says_who_asks() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.simple("a.example", "web", &[("whitelist-source-range", "192.0.2.0/24")]);
    let options = ingress::Options { proxy_protocol: true, ..world.options() };
    let address: SocketAddr = world.start_with(options).http().await.unwrap();
    let ask = async |source: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("PROXY TCP4 {source} 10.0.0.1 1234 80\r\n").as_bytes()).await.unwrap();
        send(stream, get("a.example", "/").body(full("")).unwrap()).await
    };
    assert_eq!(ask("192.0.2.7").await.seen()["headers"]["x-real-ip"], "192.0.2.7");
    assert_eq!(ask("198.51.100.1").await.status, 403);
}

#[tokio::test]
async fn requests_under_way_end_well_when_the_process_ends() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.simple("a.example", "web", &[("proxy-body-size", "0")]);
    let tasks = world.tasks.child();
    let service = ingress::Service::build(world.options(), tasks.clone()).unwrap();
    let address = service.start(world.readiness.gate("ingress")).http().await.unwrap();
    let (parts, received) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = futures::stream::unfold(received, |mut received| async {
        let part = received.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(part)), received))
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let request = Request::post("/echo").header("host", "a.example").body(StreamBody::new(body).boxed_unsync()).unwrap();
    let talk = async {
        parts.send("one".into()).await.unwrap();
        let mut answer = sender.send_request(request).await.unwrap();
        answer.body_mut().frame().await.unwrap().unwrap();
        tasks.token().cancel();
        parts.send("two".into()).await.unwrap();
        drop(parts);
        answer.into_body().collect().await.unwrap().to_bytes()
    };
    let (body, _) = tokio::join!(talk, connection);
    assert_eq!(body, "two");
    assert!(tasks.drain(Duration::from_secs(60)).await, "nothing is left");
}

/// Who has the certificate for `a.example`, behind another ingress that leads TLS on to it and has `b.example` itself.
#[tokio::test]
async fn tls_is_led_on_to_who_has_the_certificate() {
    let (inner, world) = (World::new(), World::new());
    let serve = async |world: &World, host: &str, name: &'static str| {
        world.service("web", &[world.backend(name).await]);
        world.certificate("cert", host);
        let tls = json!([{"hosts": [host], "secretName": "cert"}]);
        world.ingress("own", &[], &json!({"tls": tls, "rules": [rule(host, "/", "Prefix", "web")]}));
    };
    serve(&inner, "a.example", "inner").await;
    serve(&world, "b.example", "outer").await;
    let (_, behind) = inner.start_tls().await;
    world.service("behind", &[behind]);
    world.simple("a.example", "behind", &[("ssl-passthrough", "true")]);
    let (_, https) = world.start_tls().await;
    for (whose, host, name) in [(&inner, "a.example", "inner"), (&world, "b.example", "outer")] {
        let stream = connect_tls(whose, https, host, "http/1.1").await.unwrap();
        let seen = send(stream, get(host, "/x").body(full("")).unwrap()).await.seen();
        assert_eq!(seen["name"], name, "{host}");
    }
}
