//! Addresses by names that strangers choose.
//!
//! The system's resolver waits in the thread that asks it, and whoever has the zone decides for how long. Tokio asks it in its pool of blocking
//! threads, which all work on files needs: a few hundred names of one evil zone would stop the process. So it is asked in threads of their own, of
//! which there are some.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};

/// What a lookup needs of a stack, bytes.
const STACK: usize = 512 << 10;

/// Lookups for one purpose: other purposes do not wait for them.
pub struct Lookups(Semaphore);

impl Lookups {
    /// At most so many at the same time.
    pub const fn new(most: usize) -> Self {
        Self(Semaphore::const_new(most))
    }

    /// The addresses of a host, a name or an address in brackets or without. Who does not wait for ever bounds the time.
    ///
    /// # Errors
    /// The name has none.
    pub async fn addresses(&'static self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.addresses_holding(host, port, ()).await
    }

    /// The same, with something that is held until nobody is asked any more, also when who waited has left before.
    ///
    /// # Errors
    /// The name has no address.
    pub async fn addresses_holding(
        &'static self,
        host: &str,
        port: u16,
        held: impl Send + 'static,
    ) -> io::Result<Vec<SocketAddr>> {
        let host = host.trim_matches(['[', ']']);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        // Never closed.
        let turn = self.0.acquire().await.map_err(io::Error::other)?;
        let (sender, receiver) = oneshot::channel();
        let name = host.to_owned();
        let look = move || {
            let _until_the_end = (turn, held);
            // Who has asked may have left.
            let _ = sender.send((name.as_str(), port).to_socket_addrs().map(Iterator::collect));
        };
        std::thread::Builder::new().name("lookup".to_owned()).stack_size(STACK).spawn(look)?;
        receiver.await.map_err(io::Error::other)?
    }

    /// A connection to a host, at the first of its addresses that takes one.
    ///
    /// # Errors
    /// The name has no address, or nothing listens at the last one.
    pub async fn connect(&'static self, host: &str, port: u16) -> io::Result<TcpStream> {
        TcpStream::connect(&*self.addresses(host, port).await?).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    static LOOKUPS: Lookups = Lookups::new(1);

    #[tokio::test]
    async fn names_have_addresses() {
        assert!(
            LOOKUPS.addresses("localhost", 80).await.unwrap().iter().all(|found| found.ip().is_loopback() && found.port() == 80)
        );
        assert!(LOOKUPS.addresses("no such name", 80).await.is_err());
        // Addresses are no names: they wait for no turn.
        let _all = LOOKUPS.0.acquire().await.unwrap();
        assert_eq!(LOOKUPS.addresses("[::1]", 1).await.unwrap(), ["[::1]:1".parse().unwrap()]);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        LOOKUPS.connect("127.0.0.1", listener.local_addr().unwrap().port()).await.unwrap();
    }
}
