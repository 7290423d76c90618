//! The PROXY protocol, versions 1 and 2: a load balancer in front says whose connection it passes on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1.
const LINE: usize = 107;
/// The longest part behind the head of version 2: more is nobody's address.
const REST: usize = 4096;

/// Reads the header that a connection begins with. None when it speaks for itself, such as a health check.
///
/// # Errors
/// The connection breaks, or begins with something else.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut head = [0; 16];
    stream.read_exact(&mut head[..12]).await?;
    if &head[..12] == SIGNATURE {
        stream.read_exact(&mut head[12..]).await?;
        let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
        if length > REST {
            return Err(invalid());
        }
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await?;
        return binary(head[12], head[13], &rest);
    }
    let mut line = head[..12].to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LINE {
            return Err(invalid());
        }
        line.push(stream.read_u8().await?);
    }
    text(&line)
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no PROXY protocol header")
}

fn text(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    let line = std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix("\r\n")).ok_or_else(invalid)?;
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, _, port, _] => {
            let address: IpAddr = source.parse().map_err(|_| invalid())?;
            let port = port.parse().map_err(|_| invalid())?;
            if address.is_ipv4() == (family == "TCP4") { Ok(Some(SocketAddr::new(address, port))) } else { Err(invalid()) }
        }
        _ => Err(invalid()),
    }
}

fn binary(version_and_command: u8, family: u8, rest: &[u8]) -> io::Result<Option<SocketAddr>> {
    match version_and_command {
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(invalid()),
    }
    let port = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    let source = match family {
        0x11 => rest.first_chunk::<4>().map(|bytes| IpAddr::V4(Ipv4Addr::from(*bytes))).zip(port(8)),
        0x21 => rest.first_chunk::<16>().map(|bytes| IpAddr::V6(Ipv6Addr::from(*bytes))).zip(port(32)),
        // Other families have no address that could be used.
        _ => return Ok(None),
    };
    source.map(|(address, port)| Some(SocketAddr::new(address, port))).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn check(bytes: &[u8], expected: Result<Option<&str>, ()>) {
        let with_data = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        let mut stream = &with_data[..];
        let found = read(&mut stream).await.map_err(drop);
        assert_eq!(found, expected.map(|address| address.map(|address| address.parse().unwrap())), "{bytes:?}");
        if expected.is_ok() {
            assert_eq!(stream, b"GET / HTTP/1.1\r\n");
        }
    }

    #[tokio::test]
    async fn headers() {
        check(b"PROXY TCP4 192.0.2.7 10.0.0.1 1234 443\r\n", Ok(Some("192.0.2.7:1234"))).await;
        check(b"PROXY TCP6 2001:db8::7 2001:db8::1 1234 443\r\n", Ok(Some("[2001:db8::7]:1234"))).await;
        check(b"PROXY UNKNOWN\r\n", Ok(None)).await;
        check(b"PROXY TCP4 2001:db8::7 10.0.0.1 1234 443\r\n", Err(())).await;
        check(b"PROXY TCP4 192.0.2.7 10.0.0.1 x 443\r\n", Err(())).await;
        check(b"GET / HTTP/1.1\r\n\r\n", Err(())).await;
        check(&[b'P'; 300], Err(())).await;
        let with = |tail: &[u8]| [&SIGNATURE[..], tail].concat();
        check(&with(&[0x21, 0x11, 0, 12, 192, 0, 2, 7, 10, 0, 0, 1, 4, 210, 1, 187]), Ok(Some("192.0.2.7:1234"))).await;
        check(&with(&[0x20, 0, 0, 0]), Ok(None)).await;
        check(&with(&[0x21, 0x11, 0, 2, 192, 0]), Err(())).await;
        check(&with(&[0x21, 0x11, 255, 255]), Err(())).await;
        check(&with(&[0x31, 0x11, 0, 0]), Err(())).await;
    }
}
