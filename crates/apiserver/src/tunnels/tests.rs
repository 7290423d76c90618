#![allow(clippy::unwrap_used)]
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::Instant;

use super::*;

/// A tunnel whose agent is silent. The second value keeps its connection.
async fn silent() -> (Sender, impl Sized) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
    let mut set = tokio::task::JoinSet::new();
    set.spawn(connection);
    (sender, (far, set))
}

/// An address that answers no further connection, as one that is cut off. The second value keeps what waits there.
async fn deaf() -> (SocketAddr, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    (address, (TcpStream::connect(address).await.unwrap(), listener))
}

/// Upstream's proxies answer at once that no agent is available, once the connection of the agent has ended.
#[tokio::test]
async fn a_node_that_is_gone_is_given_up_soon() {
    let (deaf, _waiting) = deaf().await;
    let (sender, _connection) = silent().await;
    let tunnels = Tunnels::default();
    let check = async |node: Option<&str>, most: Option<Duration>| {
        let begun = Instant::now();
        let asked = tunnels.connect(node, "127.0.0.1", deaf.port(), None);
        // Longer than any of the times, and shorter than those of the callers.
        let answer = tokio::time::timeout(ANSWER + LOST, asked).await;
        let failed = answer.ok().map(|answer| answer.err().unwrap().kind());
        assert_eq!(failed, most.map(|_| io::ErrorKind::TimedOut), "{node:?}");
        assert!(most.is_none_or(|most| (most..most + LOST).contains(&begun.elapsed())), "{node:?}: {:?}", begun.elapsed());
    };
    tunnels.opened("open", sender.clone());
    let ended = tunnels.opened("ended", sender.clone());
    tunnels.closed("ended", ended);
    let former = tunnels.opened("again", sender.clone());
    tunnels.opened("again", sender);
    tunnels.closed("again", former);
    tokio::join!(
        check(Some("open"), Some(ANSWER)),
        check(Some("ended"), Some(LOST)),
        check(Some("again"), Some(ANSWER)),
        // Nodes that never had a tunnel, and what is on no node, have the time that the caller gives.
        check(Some("never"), None),
        check(None, None),
    );
}

/// Ports of an agent's node: at one, somebody sends without an end; another one gives back what is sent; at the last nobody reads.
const ENDLESS: u16 = 1;
const ECHO: u16 = 2;
const DEAF: u16 = 3;

/// A tunnel to an agent at whose node these are. The second value counts what each stream from the first port has taken, the
/// third keeps the agent.
async fn agent() -> (Sender, Arc<Mutex<Vec<Arc<AtomicU64>>>>, impl Sized) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let counts: Arc<Mutex<Vec<Arc<AtomicU64>>>> = Arc::default();
    let (known, streams) = (counts.clone(), Arc::new(Mutex::new(tokio::task::JoinSet::new())));
    let own = streams.clone();
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let port = request.uri().port_u16().unwrap();
        let count: Arc<AtomicU64> = Arc::default();
        if port == ENDLESS {
            known.lock().push(count.clone());
        }
        own.lock().spawn(async move {
            let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            match port {
                ENDLESS => {
                    let piece = [0; 1 << 10];
                    while let Ok(length) = stream.write(&piece).await {
                        count.fetch_add(length as u64, Ordering::Relaxed);
                    }
                }
                ECHO => {
                    let (mut from, mut to) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                }
                _ => std::future::pending().await,
            }
        });
        std::future::ready(Ok::<_, std::convert::Infallible>(http::Response::new(Empty::<Bytes>::new())))
    });
    let mut set = tokio::task::JoinSet::new();
    set.spawn(async move { drop(serving().serve_connection(TokioIo::new(far), service).await) });
    let (sender, connection) = calling().handshake(TokioIo::new(near)).await.unwrap();
    set.spawn(async move { drop(connection.await) });
    (sender, counts, (set, streams))
}

/// What goes through a stream comes back.
async fn goes_on(tunnels: &Tunnels, user: Option<&str>) {
    let stream = tunnels.connect(Some("node"), "10.0.0.1", ECHO, user).await.unwrap();
    let (mut from, mut to) = tokio::io::split(stream);
    let sent = vec![7; 1 << 20];
    let mut came = vec![0; 1 << 20];
    let ((), ()) = tokio::join!(async { to.write_all(&sent).await.unwrap() }, async {
        from.read_exact(&mut came).await.unwrap();
    });
    assert!(sent == came);
}

/// Streams whose readers stand still, at either end, hold up nobody else.
#[tokio::test]
async fn a_stream_goes_on_beside_those_that_stand_still() {
    let (sender, counts, _agent) = agent().await;
    let tunnels = Tunnels::default();
    tunnels.opened("node", sender);
    let mut still = Vec::new();
    for _ in 0..100 {
        still.push(tunnels.connect(Some("node"), "10.0.0.1", ENDLESS, Some("jane")).await.unwrap());
    }
    // Each has as much under way as there can be.
    while counts.lock().iter().any(|count| count.load(Ordering::Relaxed) < u64::from(WINDOW)) {
        tokio::task::yield_now().await;
    }
    goes_on(&tunnels, Some("joe")).await;
    for _ in 0..100 {
        let mut stream = tunnels.connect(Some("node"), "10.0.0.1", DEAF, Some("jane")).await.unwrap();
        stream.write_all(&vec![0; WINDOW as usize]).await.unwrap();
        still.push(stream);
    }
    goes_on(&tunnels, Some("joe")).await;
    goes_on(&tunnels, None).await;
}

/// What users open leaves something for each other, and for the server.
#[tokio::test]
async fn users_have_so_many_streams() {
    let (sender, _, _agent) = agent().await;
    let tunnels = Tunnels::default();
    tunnels.opened("node", sender);
    let open = async |user: &str| {
        let mut streams = Vec::new();
        loop {
            match tunnels.connect(Some("node"), "10.0.0.1", DEAF, Some(user)).await {
                Ok(stream) => streams.push(stream),
                Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => return streams,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let janes = open("jane").await;
    assert_eq!(janes.len(), OF_USER);
    let (joes, anns) = (open("joe").await, open("ann").await);
    assert_eq!((joes.len(), anns.len(), open("sue").await.len()), (OF_USER, OF_USERS - 2 * OF_USER, 0));
    goes_on(&tunnels, None).await;
    drop(janes);
    goes_on(&tunnels, Some("sue")).await;
    assert_eq!(tunnels.place(Some("other"), Some("joe")).map(|place| place.is_none()).ok(), Some(true), "there is no tunnel");
}
