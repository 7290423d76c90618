//! Handshakes of servers.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How requests begin, as far as Go's `net/http` looks (`tlsRecordHeaderLooksLikeHTTP`).
const REQUESTS: [&[u8; 5]; 5] = [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO"];
/// What its server answers to them.
const ANSWER: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// Bytes of such a request that are read and thrown away: a connection that is closed before may lose the answer.
const DISCARDED: u64 = 64 << 10;

/// Shakes hands with a client. One that speaks HTTP in the clear is told so: what TLS says to it, its user could not read. How long that may take
/// is the caller's to bound.
///
/// # Errors
/// There is no TLS with this client.
pub async fn accept(acceptor: &TlsAcceptor, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    // No record of TLS begins with a letter.
    if stream.peek(&mut first).await? == 0 || !first[0].is_ascii_uppercase() {
        return acceptor.accept(stream).await;
    }
    refuse(&mut stream).await?;
    Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS"))
}

async fn refuse(stream: &mut TcpStream) -> io::Result<()> {
    let mut begin = [0; 5];
    stream.read_exact(&mut begin).await?;
    if !REQUESTS.contains(&&begin) {
        return Ok(());
    }
    stream.write_all(ANSWER).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(DISCARDED), &mut tokio::io::sink()).await.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::tls::{Authority, Request, Resolver, client, server};
    use rustls::pki_types::ServerName;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    #[tokio::test]
    async fn who_speaks_http_is_told_so() {
        let authority = Arc::new(Authority::in_memory("ca").unwrap());
        let own = Request::Server { name: "s".into(), sans: vec!["localhost".into()] };
        let acceptor = TlsAcceptor::from(server(Resolver::memory(authority.clone(), own).unwrap(), None).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = async || accept(&acceptor, listener.accept().await.unwrap().0).await;
        let check = async |sent: &[u8], expected: &[u8]| {
            let asked = async {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(sent).await.unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await.unwrap();
                answer
            };
            let (served, answer) = tokio::join!(accepted(), asked);
            let text = String::from_utf8_lossy(sent);
            assert!(served.is_err() && answer == expected, "{text}: {}", String::from_utf8_lossy(&answer));
        };
        let body = "x".repeat(10_000);
        for line in ["GET / HTTP/1.1", "HEAD / HTTP/1.1", "POST /api HTTP/1.1", "PUT /api HTTP/1.0", "OPTIONS * HTTP/1.1"] {
            check(format!("{line}\r\nhost: x\r\n\r\n{body}").as_bytes(), ANSWER).await;
        }
        check(b"QUERY", b"").await;
        let connected = async {
            let connector = TlsConnector::from(Arc::new(client(authority.bundle(), None).unwrap()));
            let stream = TcpStream::connect(address).await.unwrap();
            connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
        };
        let (served, connected) = tokio::join!(accepted(), connected);
        assert!(served.is_ok() && connected.is_ok());
    }
}
