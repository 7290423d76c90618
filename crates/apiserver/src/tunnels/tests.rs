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
#[tokio::test(start_paused = true)]
async fn a_node_that_is_gone_is_given_up_soon() {
    let (deaf, _waiting) = deaf().await;
    let (sender, _connection) = silent().await;
    let tunnels = Tunnels::default();
    let number = tunnels.opened("n2", sender.clone());
    let check = async |node: Option<&str>, most: Option<Duration>| {
        let begun = Instant::now();
        let asked = tunnels.connect(node, "127.0.0.1", deaf.port());
        let answer = tokio::time::timeout(Duration::from_secs(60), asked).await;
        let failed = answer.ok().map(|answer| answer.err().unwrap().kind());
        assert_eq!(
            (failed, failed.map(|_| begun.elapsed().as_secs())),
            (most.map(|_| io::ErrorKind::TimedOut), most.map(|most| most.as_secs()))
        );
    };
    check(Some("n2"), Some(ANSWER)).await;
    // An older tunnel of the node says nothing of the newest.
    tunnels.closed("n2", number + 1);
    check(Some("n2"), Some(ANSWER)).await;
    tunnels.closed("n2", number);
    check(Some("n2"), Some(LOST)).await;
    // What never had a tunnel has the time that its caller gives.
    check(Some("n1"), None).await;
    check(None, None).await;
    tunnels.opened("n2", sender);
    check(Some("n2"), Some(ANSWER)).await;
}
