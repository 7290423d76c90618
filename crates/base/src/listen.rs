//! Listening to TCP connections on addresses of both families. Each sends what is small at once and is asked whether its client is still there.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::sockets;

/// Connections that wait to be accepted; the kernel may allow fewer.
const BACKLOG: u32 = 4096;

/// Pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// The next connection, asked for until there is one. An error is of a client that has left, or of descriptors that are short: connections
/// that end free some, nothing tells when, and asking at once would spin.
pub async fn accepted<T, F: Future<Output = io::Result<T>>>(mut accept: impl FnMut() -> F) -> T {
    loop {
        match accept().await {
            Ok(connection) => return connection,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// A listening socket. Clients of both families are seen with their own addresses.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Listens on an address. An unspecified one, of whichever family, stands for every address of the machine (as it does for
    /// kube-apiserver's `--bind-address`).
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        if !address.ip().is_unspecified() {
            return Self::listen(address);
        }
        match Self::listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port())) {
            // A kernel without IPv6, or one in which it is switched off.
            Err(error) if is_without_ipv6(&error) => Self::listen(SocketAddr::new(IpAddr::from([0; 4]), address.port())),
            listening => listening,
        }
    }

    fn listen(address: SocketAddr) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => {
                let socket = TcpSocket::new_v6()?;
                setsockopt(&socket, sockopt::Ipv6V6Only, &!address.ip().is_unspecified())?;
                socket
            }
        };
        socket.set_reuseaddr(true)?;
        // Each connection that is accepted has the options, too. One without them works all the same.
        let _ = sockets::keep_alive(&socket);
        socket.bind(address)?;
        socket.listen(BACKLOG).map(Self)
    }

    /// The next connection, and who it is from.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((stream, canonical(peer)))
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// An address of IPv4 as such, also where a socket of IPv6 shows it.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(code) if code == nix::libc::EAFNOSUPPORT || code == nix::libc::EADDRNOTAVAIL)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn who_cannot_be_accepted_is_asked_for_again() {
        let mut answers = vec![Ok(7), Err(io::Error::from_raw_os_error(nix::libc::EMFILE))];
        let accept = || std::future::ready(answers.pop().unwrap_or_else(|| Err(io::ErrorKind::Other.into())));
        assert_eq!(accepted(accept).await, 7);
    }
    use nix::sys::socket::getsockopt;

    /// Where a client that connects to `target` is seen, when `address` is listened on.
    async fn seen(address: &str, target: &str) -> io::Result<IpAddr> {
        let listener = Listener::bind(SocketAddr::new(address.parse().unwrap(), 0))?;
        let port = listener.local_addr()?.port();
        let client = TcpStream::connect((target.parse::<IpAddr>().unwrap(), port)).await?;
        let (stream, peer) = listener.accept().await?;
        assert_eq!(peer, client.local_addr()?);
        assert!(getsockopt(&stream, sockopt::KeepAlive)? && getsockopt(&stream, sockopt::TcpNoDelay)?);
        Ok(peer.ip())
    }

    #[tokio::test]
    async fn unspecified_addresses_are_those_of_both_families() {
        for address in ["0.0.0.0", "::"] {
            assert_eq!(seen(address, "127.0.0.1").await.unwrap(), IpAddr::from([127, 0, 0, 1]));
            assert_eq!(seen(address, "::1").await.unwrap(), IpAddr::from(Ipv6Addr::LOCALHOST));
        }
        assert_eq!(seen("127.0.0.1", "127.0.0.1").await.unwrap(), IpAddr::from([127, 0, 0, 1]));
        assert_eq!(seen("127.0.0.1", "::1").await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(seen("::1", "127.0.0.1").await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_port_is_taken_once() {
        let first = Listener::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = first.local_addr().unwrap().port();
        for address in ["0.0.0.0", "127.0.0.1"] {
            let second = Listener::bind(SocketAddr::new(address.parse().unwrap(), port));
            assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse, "{address}");
        }
    }
}
