//! What the host has itself: its addresses, and the ports where its programs listen. The tables of `/proc/net` are there on every kernel;
//! netlink's would need modules (`inet_diag`, `udp_diag`), and they are read only when somebody claims a port.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::element::{Key, Protocol};

/// The addresses of the host.
pub(crate) fn addresses() -> HashSet<IpAddr> {
    let links = nix::ifaddrs::getifaddrs().inspect_err(|error| tracing::warn!(%error, "the host's addresses cannot be read"));
    let addresses = links.into_iter().flatten().filter_map(|link| link.address);
    let v4 = |address: &nix::sys::socket::SockaddrStorage| Some(IpAddr::V4(address.as_sockaddr_in()?.ip()));
    let v6 = |address: &nix::sys::socket::SockaddrStorage| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip()));
    addresses.filter_map(|address| v4(&address).or_else(|| v6(&address))).collect()
}

/// Where programs of this thread's network namespace serve others.
pub(crate) fn listeners() -> HashSet<Key> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let ephemeral = ephemeral(&std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default());
    let tcp = ["tcp", "tcp6"].into_iter().flat_map(|name| bound(&read(name), Protocol::Tcp));
    let udp = ["udp", "udp6"].into_iter().flat_map(|name| bound(&read(name), Protocol::Udp));
    let udp = udp.filter(|key| !ephemeral.contains(&key.port));
    tcp.chain(udp).chain(sctp(&read("sctp/eps"))).collect()
}

/// The ports that the kernel gives to clients. Datagrams come back to a client at a socket that looks like a server's: in this range nobody can tell
/// them apart, and a client is there for a moment only.
fn ephemeral(text: &str) -> RangeInclusive<u16> {
    let mut ends = text.split_ascii_whitespace().map_while(|end| end.parse().ok());
    ends.next().zip(ends.next()).map_or(32768..=60999, |(first, last)| first..=last)
}

/// The local ends of sockets that wait for anybody, in a table of the kernel: those that listen, or have no peer where nobody listens.
fn bound(table: &str, protocol: Protocol) -> Vec<Key> {
    let waits = if protocol == Protocol::Tcp { "0A" } else { "07" };
    let key = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (address, port) = words.next()?.split_once(':')?;
        let state = words.nth(1)?;
        let port = u16::from_str_radix(port, 16).ok()?;
        (state == waits).then_some(Key { address: address_of(address)?, protocol, port })
    };
    table.lines().skip(1).filter_map(key).collect()
}

/// The same of the kernel's table of SCTP endpoints, which is there once its module is.
fn sctp(table: &str) -> Vec<Key> {
    const LISTENING: &str = "10";
    let keys = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, _, _, LISTENING, _, port, _, _, addresses @ ..] = &words[..] else { return Vec::new() };
        let key = |address: &&str| {
            let address = address.parse::<IpAddr>().ok()?.to_canonical();
            Some(Key { address, protocol: Protocol::Sctp, port: port.parse().ok()? })
        };
        addresses.iter().filter_map(key).collect()
    };
    table.lines().skip(1).flat_map(keys).collect()
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
        let found = texts(bound(table, Protocol::Tcp));
        assert_eq!(found, ["TCP 127.0.0.1 5000", "TCP 0.0.0.0 22", "TCP :: 8080", "TCP 172.17.0.2 80"]);
        // A server, and a client with its peer.
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            0: 00000000:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 9407 2 0 0\n\
            1: 020011AC:007B 0101A8C0:007B 01 00000000:00000000 00:00000000 00000000     0        0 9408 2 0 0\n";
        assert_eq!(texts(bound(table, Protocol::Udp)), ["UDP 0.0.0.0 5353"]);
        let table = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n\
            0 0 2   10  29   9999      0 14566 172.17.0.2 0000:0000:0000:0000:0000:0000:0000:0000 \n\
            0 0 2   7   29   9998      0 14567 172.17.0.2 \n";
        assert_eq!(texts(sctp(table)), ["SCTP 172.17.0.2 9999", "SCTP :: 9999"]);
        assert_eq!([ephemeral("1024\t65535\n"), ephemeral("")], [1024..=65535, 32768..=60999]);
    }

    fn texts(keys: Vec<Key>) -> Vec<String> {
        keys.into_iter().map(|key| format!("{} {} {}", key.protocol, key.address, key.port)).collect()
    }

    #[test]
    fn own_listeners_and_addresses_are_among_them() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap();
        let key = Key { address: own.ip(), protocol: Protocol::Tcp, port: own.port() };
        assert!(listeners().contains(&key) && addresses().contains(&own.ip()));
        // A client's socket, to which the kernel gave a port, is none.
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(!listeners().contains(&Key { address: client.ip(), protocol: Protocol::Udp, port: client.port() }));
    }
}
