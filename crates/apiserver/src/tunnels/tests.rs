#![allow(clippy::unwrap_used)]
use std::net::SocketAddr;

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
        let asked = tunnels.connect(node, "127.0.0.1", deaf.port());
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
