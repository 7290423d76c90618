//! Whether rpc.statd runs on this node. The kernel's locks of NFS version 3 need it, and say so only when a file is locked.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Address of the node's port mapper (RFC 1833).
const PORTMAPPER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 111);
const PATIENCE: Duration = Duration::from_secs(1);
/// RFC 1833, "Port Mapper Program Protocol": program, version and procedure.
const GET_PORT: [u32; 3] = [100_000, 2, 3];
/// The status monitor, its version, UDP, and no port.
const STATUS: [u32; 4] = [100_024, 1, 17, 0];

/// Asks the node's port mapper.
pub(super) fn is_there() -> bool {
    asked(PORTMAPPER).is_ok_and(|port| port != 0)
}

/// The port of the status monitor, 0 where it has none.
fn asked(mapper: SocketAddr) -> std::io::Result<u32> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(mapper)?;
    let number = std::process::id();
    socket.send(&request(number))?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    port(number, &answer[..length]).ok_or_else(|| std::io::Error::other("it is no answer of a port mapper"))
}

/// A call without credentials (RFC 5531).
fn request(number: u32) -> Vec<u8> {
    let words = [&[number, 0, 2], &GET_PORT[..], &[0; 4], &STATUS].concat();
    words.into_iter().flat_map(u32::to_be_bytes).collect()
}

fn port(number: u32, answer: &[u8]) -> Option<u32> {
    let words: Vec<u32> = answer.chunks_exact(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]])).collect();
    // A reply that was accepted, without a verifier, and with success.
    (words.get(..6)? == [number, 1, 0, 0, 0, 0]).then(|| words.get(6).copied())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_mapper_tells_the_port() {
        let mapper = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = mapper.local_addr().unwrap();
        let serve = move || {
            let mut asked = [0; 512];
            let (length, from) = mapper.recv_from(&mut asked).unwrap();
            assert_eq!((length, &asked[4..24]), (56, &request(0)[4..24]));
            let answer = [&asked[..4], &[0, 0, 0, 1], &[0; 16], &[0, 0, 3, 1]].concat();
            mapper.send_to(&answer, from).unwrap();
        };
        let serving = std::thread::spawn(serve);
        assert_eq!(asked(address).unwrap(), 769);
        serving.join().unwrap();
        assert!(asked(address).is_err(), "nobody is there any more");
        assert_eq!(port(1, &[0; 8]), None);
    }
}
