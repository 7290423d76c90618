//! Requests whose `:authority` is no host. Clients of gRPC name the path of the socket there, percent-encoded or plain (grpc/grpc#38142,
//! grpc/grpc-java#12664), and the HTTP/2 library answers those with PROTOCOL_ERROR (hyperium/h2#487). Nobody asks for the name, so it is
//! replaced on the way in.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What clients of HTTP/2 send first (RFC 9113, section 3.4), bytes.
const PREFACE: usize = 24;
/// Length of a frame's head (RFC 9113, section 4.1).
const HEAD: usize = 9;
/// Longest frame that a client may send to who has not said otherwise.
const FRAME: usize = 16 << 10;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// Index of `:authority` in the static table (RFC 7541, appendix A).
const AUTHORITY: u64 = 1;
/// Its name, and the same in Huffman's code (RFC 7541, appendix B): some clients write it out.
const NAMES: [&[u8]; 2] = [b":authority", &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f]];
/// A host as short as one can be: who decodes the header block must not run out of table space before the client does.
const HOST: &[u8] = &[1, b'k'];

/// A connection of a client whose requests are for the host `k`, whatever it says.
pub(crate) struct AnyAuthority<S> {
    stream: S,
    /// Bytes that go through as they are, before the next head of a frame.
    passing: usize,
    read: BytesMut,
    ready: BytesMut,
}

impl<S> AnyAuthority<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, passing: PREFACE, read: BytesMut::new(), ready: BytesMut::new() }
    }

    /// Makes ready what can be told of what has been read.
    fn advance(&mut self) {
        loop {
            let whole = self.passing.min(self.read.len());
            self.ready.extend_from_slice(&self.read.split_to(whole));
            self.passing -= whole;
            if self.passing > 0 || self.read.len() < HEAD {
                return;
            }
            let length = HEAD + (usize::from(self.read[0]) << 16 | usize::from(self.read[1]) << 8 | usize::from(self.read[2]));
            if self.read[3] != HEADERS || length > HEAD + FRAME {
                self.passing = length;
            } else if self.read.len() < length {
                return;
            } else {
                let frame = self.read.split_to(length);
                self.ready.extend_from_slice(&renamed(&frame).unwrap_or_else(|| frame.to_vec()));
            }
        }
    }
}

/// A HEADERS frame with the other host; none where it names none.
fn renamed(frame: &[u8]) -> Option<Vec<u8>> {
    let (flags, payload) = (frame[4], &frame[HEAD..]);
    let padding = if flags & PADDED == 0 { 0 } else { usize::from(*payload.first()?) };
    let begin = usize::from(flags & PADDED != 0) + if flags & PRIORITY == 0 { 0 } else { 5 };
    let end = payload.len().checked_sub(padding)?;
    let block = replaced(payload.get(begin..end)?)?;
    let length = u32::try_from(begin + block.len() + padding).ok()?.to_be_bytes();
    let parts = [&length[1..], &frame[3..HEAD], &payload[..begin], &block, &payload[end..]];
    Some(parts.concat())
}

/// A header block (RFC 7541, section 6) with the other host.
fn replaced(block: &[u8]) -> Option<Vec<u8>> {
    let mut rest = block;
    while let Some(first) = rest.first().copied() {
        let at = block.len() - rest.len();
        let prefix = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let index = integer(&mut rest, prefix)?;
        if first >= 0x80 && index == AUTHORITY {
            // An empty one, which is in the static table: a literal that is not indexed takes its place.
            return Some([&block[..at], &[1], HOST, rest].concat());
        }
        if first >= 0x80 || (0x20..0x40).contains(&first) {
            continue;
        }
        let named = index == AUTHORITY || index == 0 && NAMES.contains(&string(&mut rest)?);
        let value = block.len() - rest.len();
        string(&mut rest)?;
        if named {
            return Some([&block[..value], HOST, rest].concat());
        }
    }
    None
}

/// An integer (RFC 7541, section 5.1) of which the first byte has `bits`.
fn integer(rest: &mut &[u8], bits: u32) -> Option<u64> {
    let most = (1 << bits) - 1;
    let mut value = u64::from(rest.first()? & most as u8);
    *rest = &rest[1..];
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = *rest.first()?;
        *rest = &rest[1..];
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes a string (RFC 7541, section 5.2) as it is written.
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(integer(rest, 7)?).ok()?;
    let (string, others) = rest.split_at_checked(length)?;
    *rest = others;
    Some(string)
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyAuthority<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.ready.is_empty() {
            let mut bytes = [0; 4096];
            let mut read = ReadBuf::new(&mut bytes);
            std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // The rest of a frame that was cut off is the library's to judge.
                this.ready = this.read.split();
                break;
            }
            this.read.extend_from_slice(read.filled());
            this.advance();
        }
        let count = this.ready.len().min(buffer.remaining());
        buffer.put_slice(&this.ready[..count]);
        this.ready.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn authorities_are_replaced_wherever_they_stand() {
        let check = |block: &[u8], expected: Option<&[u8]>| assert_eq!(replaced(block).as_deref(), expected, "{block:?}");
        // POST, then a literal with incremental indexing, then a path.
        check(&[0x83, 0x41, 3, b'/', b'a', b'b', 0x44, 1, b'/'], Some(&[0x83, 0x41, 1, b'k', 0x44, 1, b'/']));
        check(&[0x83, 0x41, 0x82, 9, 9], Some(&[0x83, 0x41, 1, b'k']));
        check(&[0x01, 2, b'%', b'2'], Some(&[0x01, 1, b'k']));
        check(&[0x81, 0x83], Some(&[0x01, 1, b'k', 0x83]));
        check(
            &[0x3f, 0xe1, 0x1f, 0x40, 1, b'x', 1, b'y', 0x11, 0],
            Some(&[0x3f, 0xe1, 0x1f, 0x40, 1, b'x', 1, b'y', 0x11, 1, b'k']),
        );
        let written_out = |value: &[u8]| [b"\x40\x05:path\x01/\x40\x0a:authority", value, &[0x83]].concat();
        check(&written_out(b"\x03%2F"), Some(&written_out(b"\x01k")));
        let coded = |value: &[u8]| [&[0x40, 0x88], NAMES[1], value].concat();
        check(&coded(&[2, b'/', b'a']), Some(&coded(&[1, b'k'])));
        check(&[0x83, 0x44, 1, b'/'], None);
        // What is no header block is passed on as it is.
        check(&[0x41, 9, b'a'], None);
        check(&[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff], None);
        check(&[], None);
    }

    #[tokio::test]
    async fn frames_are_read_byte_by_byte_or_at_once() {
        let frame = |kind: u8, flags: u8, payload: &[u8]| {
            [&(payload.len() as u32).to_be_bytes()[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
        };
        let padded = |block: &[u8]| [&[2, 0, 0, 0, 0, 7], block, &[0, 0]].concat();
        let stream = |block: &[u8]| {
            let parts = [
                vec![b'P'; PREFACE],
                frame(4, 0, &[]),
                frame(HEADERS, PADDED | PRIORITY, &padded(block)),
                frame(0, 1, &[1; 300]),
            ];
            parts.concat()
        };
        let (sent, expected) = (stream(&[0x83, 0x41, 2, b'/', b'a']), stream(&[0x83, 0x41, 1, b'k']));
        for size in [1, 7, sent.len()] {
            let (mut client, server) = tokio::io::duplex(64);
            let mut server = AnyAuthority::new(server);
            let write = async {
                for part in sent.chunks(size) {
                    client.write_all(part).await.unwrap();
                }
                client.shutdown().await.unwrap();
            };
            let mut read = Vec::new();
            let (_, result) = tokio::join!(write, server.read_to_end(&mut read));
            result.unwrap();
            assert_eq!(read, expected);
        }
    }
}
