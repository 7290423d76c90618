//! What the host has itself: its addresses, and the ports where its programs listen.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of the host.
pub(crate) fn addresses() -> HashSet<IpAddr> {
    let links = nix::ifaddrs::getifaddrs().inspect_err(|error| tracing::warn!(%error, "the host's addresses cannot be read"));
    let addresses = links.into_iter().flatten().filter_map(|link| link.address);
    let v4 = |address: &nix::sys::socket::SockaddrStorage| Some(IpAddr::V4(address.as_sockaddr_in()?.ip()));
    let v6 = |address: &nix::sys::socket::SockaddrStorage| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip()));
    addresses.filter_map(|address| v4(&address).or_else(|| v6(&address))).collect()
}

/// Where programs wait for TCP connections in this thread's network namespace.
pub(crate) fn listeners() -> HashSet<(IpAddr, u16)> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    listening(&read("tcp")).chain(listening(&read("tcp6"))).collect()
}

/// The local ends of listening sockets in a table of the kernel.
fn listening(table: &str) -> impl Iterator<Item = (IpAddr, u16)> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (address, port) = words.next()?.split_once(':')?;
        let state = words.nth(1)?;
        let port = u16::from_str_radix(port, 16).ok()?;
        (state == LISTEN).then_some((address_of(address)?, port))
    })
}

/// An address as words in the byte order of the host.
fn address_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?);
            Some(address.to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn listening_sockets_are_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9407 1\n\
            1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9408 1\n\
            2: 020011AC:A1B2 0101A8C0:01BB 01 00000000:00000000 00:00000000 00000000     0        0 9409 1\n\
            3: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 9410 1\n\
            4: 0000000000000000FFFF0000020011AC:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 9411 1\n";
        let found: Vec<String> = listening(table).map(|(address, port)| format!("{address} {port}")).collect();
        assert_eq!(found, ["127.0.0.1 5000", "0.0.0.0 22", ":: 8080", "172.17.0.2 80"]);
    }

    #[test]
    fn own_listeners_and_addresses_are_among_them() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap();
        assert!(listeners().contains(&(own.ip(), own.port())) && addresses().contains(&own.ip()));
    }
}
