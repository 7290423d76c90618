//! The first message of a client over TLS, read and kept: it names the host, before anybody has decided who answers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// The longest first message.
const MOST: usize = 64 << 10;

/// The first message of a client.
pub(crate) struct Hello {
    /// The host that it names, in small letters; empty when it names none.
    pub(crate) name: String,
    /// As it came.
    pub(crate) bytes: Vec<u8>,
}

impl Hello {
    /// Reads it.
    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let (mut acceptor, mut bytes, mut part) = (Acceptor::default(), Vec::new(), [0; 4096]);
        while bytes.len() < MOST {
            let length = stream.read(&mut part).await?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&part[..length]);
            let mut rest = &part[..length];
            while !rest.is_empty() {
                acceptor.read_tls(&mut rest)?;
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let name = accepted.client_hello().server_name().unwrap_or_default().to_ascii_lowercase();
                    return Ok(Self { name, bytes });
                }
                Err((error, _)) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the first message is too long"))
    }
}

/// A stream of which something was read already.
pub(crate) struct Replayed<S> {
    bytes: Vec<u8>,
    at: usize,
    stream: S,
}

impl<S> Replayed<S> {
    /// These bytes come first.
    pub(crate) fn new(bytes: Vec<u8>, stream: S) -> Self {
        Self { bytes, at: 0, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = this.bytes.get(this.at..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        this.at += length;
        if this.at == this.bytes.len() {
            (this.bytes, this.at) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    /// The first message of rustls' own client, in pieces of any size.
    #[tokio::test]
    async fn a_first_message_names_its_host() {
        let config = Arc::new(base::tls::client_of_anybody().unwrap());
        let mut client = rustls::ClientConnection::new(config, "A.Example".try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        for size in [1, 7, 4096, bytes.len()] {
            let pieces: Vec<_> = bytes.chunks(size).map(<[u8]>::to_vec).collect();
            let (mut one, mut other) = tokio::io::duplex(size);
            let write = async {
                for piece in &pieces {
                    tokio::io::AsyncWriteExt::write_all(&mut one, piece).await.unwrap();
                }
            };
            let (hello, ()) = tokio::join!(Hello::read(&mut other), write);
            let hello = hello.unwrap();
            assert_eq!((hello.name.as_str(), hello.bytes == bytes), ("a.example", true), "{size}");
        }
        assert!(Hello::read(&mut &b"GET / HTTP/1.1\r\n\r\n"[..]).await.is_err());
        assert!(Hello::read(&mut &bytes[..20]).await.is_err());
    }

    #[tokio::test]
    async fn what_was_read_comes_again() {
        let mut text = String::new();
        Replayed::new(b"first, ".to_vec(), &b"then"[..]).read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "first, then");
    }
}
