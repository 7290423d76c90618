//! The tunnel by which the server reaches this node and its pods: see `apiserver::tunnels`.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::tunnels::{PATH, PROTOCOL, serving};
use base::tasks::{OnFailure, Tasks};
use bytes::Bytes;
use client::remote::Server;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Time to connect, to the server and to what is asked for.
const CONNECT: Duration = Duration::from_secs(10);
/// Delay before a tunnel is opened again, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// What the server may reach by the tunnel: this node.
#[derive(Debug)]
pub(super) struct Reach {
    /// The node's addresses.
    pub(super) node: Vec<IpAddr>,
    /// Where its kubelet listens; an unspecified address is all of them.
    pub(super) kubelet: SocketAddr,
    /// The ranges of the cluster's pods: which of them are here, the server knows.
    pub(super) pods: Vec<IpNet>,
}

impl Reach {
    /// Where a stream to this address leads, if it may.
    fn target(&self, asked: SocketAddr) -> Option<SocketAddr> {
        let of_node = self.node.contains(&asked.ip());
        if of_node && asked.port() == self.kubelet.port() && !self.kubelet.ip().is_unspecified() {
            return Some(self.kubelet);
        }
        (of_node || self.pods.iter().any(|range| range.contains(&asked.ip()))).then_some(asked)
    }
}

/// Keeps a tunnel open, for ever. Who waits for `opened` is told of each one: the server may be another process than before.
pub(super) async fn keep(
    server: Server,
    tls: ClientConfig,
    reach: Arc<Reach>,
    opened: Arc<Notify>,
    tasks: Tasks,
) -> Result<(), Infallible> {
    let mut tls = tls;
    // Only HTTP/1.1 upgrades.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tls = Arc::new(tls);
    let mut delay = RETRY.0;
    loop {
        match open(&server, tls.clone(), &tasks).await {
            Ok(stream) => {
                delay = RETRY.0;
                opened.notify_one();
                if let Err(error) = serve(stream, &reach, &tasks).await {
                    tracing::debug!(%error, "the tunnel to the server has ended");
                }
            }
            Err(error) => tracing::debug!(%error, "no tunnel to the server, trying again"),
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
}

/// Connects to the server and changes the protocol.
async fn open(server: &Server, tls: Arc<ClientConfig>, tasks: &Tasks) -> Result<Upgraded> {
    let connecting = async {
        let stream = server.connect(tls).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tasks.spawn_until_cancelled("connection of the tunnel", OnFailure::Log, async move {
            // Its end is told by the upgrade.
            let _ = connection.with_upgrades().await;
            Ok::<_, Infallible>(())
        });
        let request = Request::get(PATH).header(HOST, server.host()).header(CONNECTION, "Upgrade").header(UPGRADE, PROTOCOL);
        let mut response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            bail!("the server answers {}", response.status());
        }
        Ok(hyper::upgrade::on(&mut response).await?)
    };
    tokio::time::timeout(CONNECT, connecting).await.context("the server does not answer")?
}

/// Serves the streams that the server opens, until the tunnel ends.
async fn serve(stream: Upgraded, reach: &Arc<Reach>, tasks: &Tasks) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let (reach, tasks) = (reach.clone(), tasks.clone());
        async move { Ok::<_, Infallible>(connect(request, &reach, &tasks).await) }
    });
    serving().serve_connection(stream, service).await
}

/// Answers a request for a stream: 200, and then its bytes, or why there is none.
async fn connect(request: Request<Incoming>, reach: &Reach, tasks: &Tasks) -> Response<Full<Bytes>> {
    let refuse = |code: StatusCode, why: String| {
        let mut response = Response::new(Full::new(Bytes::from(why)));
        *response.status_mut() = code;
        response
    };
    let asked = request.uri().authority().and_then(|authority| authority.as_str().parse::<SocketAddr>().ok());
    let Some(asked) = asked.filter(|_| request.method() == Method::CONNECT) else {
        return refuse(StatusCode::BAD_REQUEST, "a stream is a CONNECT to an address and a port".to_owned());
    };
    let Some(target) = reach.target(asked) else {
        return refuse(StatusCode::FORBIDDEN, format!("{asked} is not of this node"));
    };
    let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(target)).await;
    let near = match connecting.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
        Ok(stream) => stream,
        Err(error) => return refuse(StatusCode::BAD_GATEWAY, base::connection::why(&error)),
    };
    let _ = base::sockets::keep_alive(&near);
    tasks.spawn_until_cancelled("stream of the tunnel", OnFailure::Log, async move {
        let far = TokioIo::new(hyper::upgrade::on(request).await?);
        streaming::join::splice(near, far).await;
        Ok::<_, hyper::Error>(())
    });
    Response::new(Full::default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_this_node_is_reached() {
        let check = |kubelet: &str, asked: &str, expected: Option<&str>| {
            let reach = Reach {
                node: vec!["192.168.77.2".parse().unwrap(), "fd77::2".parse().unwrap()],
                kubelet: kubelet.parse().unwrap(),
                pods: vec!["10.42.0.0/16".parse().unwrap()],
            };
            let found = reach.target(asked.parse().unwrap()).map(|target| target.to_string());
            assert_eq!(found.as_deref(), expected, "{asked}");
        };
        check("0.0.0.0:10250", "192.168.77.2:10250", Some("192.168.77.2:10250"));
        check("127.0.0.1:10250", "192.168.77.2:10250", Some("127.0.0.1:10250"));
        check("127.0.0.1:10250", "[fd77::2]:8080", Some("[fd77::2]:8080"));
        check("127.0.0.1:10250", "127.0.0.1:22", None);
        check("127.0.0.1:10250", "10.42.1.7:80", Some("10.42.1.7:80"));
        check("127.0.0.1:10250", "10.43.0.1:443", None);
        check("127.0.0.1:10250", "192.168.77.1:6443", None);
    }
}
