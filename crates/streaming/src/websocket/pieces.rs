//! Messages of any size: what a client sends as one large message is read as several, each of which is small enough to be kept until somebody reads it.
//!
//! A channel is a stream of bytes, and where its messages begin and end says nothing. Clients send whole files as one message, of which upstream takes 32 MiB; a
//! server that kept them would be filled by clients whose processes read nothing. So a large message is cut on its way from the transport to
//! the WebSocket: each piece is a message of its own, with the same channel in front.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a piece, behind its channel. A multiple of four: a piece of base64 is base64.
pub(crate) const PIECE: u64 = 256 << 10;

/// What is read of the transport at once.
const INPUT: usize = 16 << 10;
/// The opcode of all that is handed on. Text is bytes here, too: a piece of it may end inside of a character.
const BINARY: u8 = 2;
/// The longest header of a frame (RFC 6455, 5.2).
const HEADER: usize = 14;

/// The transport of a server's WebSocket, whose client's messages come in pieces.
pub(crate) struct Pieces<S> {
    io: S,
    cutter: Cutter,
    input: BytesMut,
}

impl<S> Pieces<S> {
    /// `channels`: the first byte of each message is its channel, which each piece has, too.
    pub(crate) fn new(io: S, channels: bool) -> Self {
        let cutter =
            Cutter { channels: u64::from(channels), head: BytesMut::with_capacity(HEADER + 1), at: At::Frame, message: None };
        Self { io, cutter, input: BytesMut::with_capacity(INPUT) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Pieces<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        loop {
            this.cutter.cut(&mut this.input, out);
            if out.filled().len() > before || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            this.input.reserve(INPUT);
            if ready!(tokio_util::io::poll_read_buf(Pin::new(&mut this.io), cx, &mut this.input))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Pieces<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Turns the frames of a client into frames of pieces. Pure.
struct Cutter {
    /// Bytes of the channel in front of each message: one, or none.
    channels: u64,
    /// The beginning of a frame that was not handed on yet.
    head: BytesMut,
    at: At,
    /// The client's message that is not at its end.
    message: Option<Unfinished>,
}

/// Where the client's bytes are.
enum At {
    /// A frame begins.
    Frame,
    /// Inside of a frame that is handed on as it is: control frames, and what breaks the protocol, of which the WebSocket tells the client.
    Through(u64),
    /// Inside of a frame of a message.
    Data(Data),
}

struct Data {
    /// Bytes of the frame that are still to come.
    left: u64,
    /// How many of them are of the present piece.
    piece: u64,
    /// The key by which the client has masked the next byte first.
    key: [u8; 4],
    /// The message ends with the frame.
    is_last: bool,
}

struct Unfinished {
    channel: Option<u8>,
    /// Bytes of the present piece so far.
    sent: u64,
    /// The next frame begins a piece.
    begins: bool,
}

/// The header of a frame.
struct Frame {
    is_last: bool,
    opcode: u8,
    is_plain: bool,
    length: u64,
    key: Option<[u8; 4]>,
    size: usize,
}

impl Frame {
    /// None where not all of the header is there.
    fn read(input: &[u8]) -> Option<Self> {
        let [first, second, rest @ ..] = input else { return None };
        let (length, rest) = match second & 0x7f {
            126 => rest.split_first_chunk().map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest))?,
            127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
            length => (u64::from(length), rest),
        };
        let (key, rest) = match second & 0x80 {
            0 => (None, rest),
            _ => rest.split_first_chunk().map(|(key, rest)| (Some(*key), rest))?,
        };
        let size = input.len() - rest.len();
        Some(Self { is_last: first & 0x80 != 0, opcode: first & 0x0f, is_plain: first & 0x70 == 0, length, key, size })
    }
}

impl Cutter {
    /// Hands on what there is, as far as there is room.
    fn cut(&mut self, input: &mut BytesMut, out: &mut ReadBuf<'_>) {
        while out.remaining() > 0 {
            if !self.head.is_empty() {
                let length = self.head.len().min(out.remaining());
                out.put_slice(&self.head.split_to(length));
                continue;
            }
            match &mut self.at {
                At::Frame => {
                    let Some(frame) = Frame::read(input) else { return };
                    self.begin(&frame, input);
                }
                At::Through(0) => self.at = At::Frame,
                At::Data(Data { left: 0, .. }) => self.at = At::Frame,
                At::Data(data) if data.piece == 0 => {
                    let (left, key, is_last) = (data.left, data.key, data.is_last);
                    self.piece(left, key, is_last);
                }
                At::Through(left) => {
                    let length = available(*left, input, out);
                    if length == 0 {
                        return;
                    }
                    out.put_slice(&input.split_to(length));
                    *left -= length as u64;
                }
                At::Data(data) => {
                    let length = available(data.piece, input, out);
                    if length == 0 {
                        return;
                    }
                    let mut bytes = input.split_to(length);
                    bytes.iter_mut().zip(data.key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
                    data.key.rotate_left(length % 4);
                    data.left -= length as u64;
                    data.piece -= length as u64;
                    if let Some(message) = &mut self.message {
                        message.channel.get_or_insert(bytes[0]);
                    }
                    out.put_slice(&bytes);
                }
            }
        }
    }

    /// A frame of the client begins.
    fn begin(&mut self, frame: &Frame, input: &mut BytesMut) {
        let key = frame.key.filter(|_| frame.is_plain);
        match (key, frame.opcode, &self.message) {
            (Some(_), 1 | 2, None) => {
                self.message = Some(Unfinished { channel: None, sent: 0, begins: true });
            }
            (Some(_), 0, Some(_)) => {}
            _ => {
                // What breaks the protocol has no end that could be relied on.
                let length = frame.size as u64;
                self.at = At::Through(length.saturating_add(frame.length));
                return;
            }
        }
        input.advance(frame.size);
        self.piece(frame.length, key.unwrap_or_default(), frame.is_last);
    }

    /// A piece begins, or goes on with another frame of the client: as much of the frame as there is room for in it.
    fn piece(&mut self, left: u64, key: [u8; 4], is_last: bool) {
        let Some(message) = &mut self.message else { return };
        let channel = message.channel.filter(|_| message.begins && self.channels > 0);
        let front = u64::from(channel.is_some());
        let most = PIECE + self.channels;
        let piece = left.min(most - message.sent - front);
        message.sent += front + piece;
        let ends = is_last && piece == left;
        let is_whole = ends || message.sent == most;
        let opcode = if message.begins { BINARY } else { 0 };
        self.head.extend_from_slice(&[if is_whole { 0x80 | opcode } else { opcode }]);
        put_length(&mut self.head, front + piece);
        // A key that changes nothing.
        self.head.extend_from_slice(&[0; 4]);
        self.head.extend(channel);
        message.begins = is_whole;
        if is_whole {
            message.sent = 0;
        }
        if ends {
            self.message = None;
        }
        self.at = At::Data(Data { left, piece, key, is_last });
    }
}

fn available(left: u64, input: &BytesMut, out: &ReadBuf<'_>) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(input.len()).min(out.remaining())
}

/// The length of a masked frame.
fn put_length(head: &mut BytesMut, length: u64) {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..126), _) => head.extend_from_slice(&[0x80 | short]),
        (_, Ok(medium)) => {
            head.extend_from_slice(&[0x80 | 126]);
            head.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            head.extend_from_slice(&[0x80 | 127]);
            head.extend_from_slice(&length.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::{SinkExt, StreamExt};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame as Raw;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data as Kind, OpCode};
    use tokio_tungstenite::tungstenite::{Error, Message};

    use super::*;

    /// What a server hears of a client: messages as channel and bytes, those in a row on one channel together; and the length of the longest.
    async fn heard(frames: Vec<Message>, channels: bool, pipe: usize) -> (Vec<(u8, Vec<u8>)>, usize) {
        let (client, server) = tokio::io::duplex(pipe);
        let sending = async move {
            let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
            for frame in frames {
                client.send(frame).await.unwrap();
            }
            client.close(None).await.unwrap();
            // Who goes before the close is answered breaks the connection.
            client
        };
        let hearing = async move {
            let mut server = crate::upgrade::websocket(server, channels).await;
            let (mut all, mut longest): (Vec<(u8, Vec<u8>)>, usize) = Default::default();
            while let Some(message) = server.next().await {
                let data = match message.unwrap() {
                    Message::Binary(data) => data.to_vec(),
                    Message::Text(text) => text.as_bytes().to_vec(),
                    _ => continue,
                };
                longest = longest.max(data.len());
                let (channel, bytes) =
                    if channels { data.split_first().map_or((255, &[][..]), |(id, rest)| (*id, rest)) } else { (0, &data[..]) };
                match all.last_mut().filter(|(last, _)| *last == channel) {
                    Some((_, before)) => before.extend_from_slice(bytes),
                    None => all.push((channel, bytes.to_vec())),
                }
            }
            (all, longest)
        };
        tokio::join!(sending, hearing).1
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|number| (number % 251) as u8).collect()
    }

    /// A message in frames of these lengths, a ping behind each.
    fn frames(data: &[u8], lengths: &[usize]) -> Vec<Message> {
        let (mut rest, mut all) = (data, Vec::new());
        for (index, length) in lengths.iter().enumerate() {
            let (part, after) = rest.split_at(*length);
            rest = after;
            let kind = if index == 0 { Kind::Binary } else { Kind::Continue };
            all.push(Message::Frame(Raw::message(part.to_vec(), OpCode::Data(kind), index + 1 == lengths.len())));
            all.push(Message::Ping(vec![1, 2, 3].into()));
        }
        assert!(rest.is_empty());
        all
    }

    const MOST: usize = PIECE as usize;

    #[tokio::test]
    async fn messages_of_any_size_on_channels() {
        for length in [0, 1, 125, 126, 65_535, 65_536, MOST - 1, MOST, MOST + 1, 3 * MOST, 3 * MOST + 1, 5 << 20] {
            let data = bytes(length);
            let of = |id: u8| Message::Binary([&[id], &data[..]].concat().into());
            let (all, longest) = heard(vec![of(0), of(4), of(0)], true, 1 << 16).await;
            assert!(all == [(0, data.clone()), (4, data.clone()), (0, data.clone())], "{length}");
            assert!(longest <= MOST + 1, "{longest}");
        }
    }

    #[tokio::test]
    async fn messages_in_frames() {
        let all = [
            vec![MOST],
            vec![0, 1, MOST],
            vec![1, MOST, 0],
            vec![MOST, 1, 1, 0, MOST],
            vec![1, 3 * MOST + 7, 5, 2 * MOST],
            vec![4096; 300],
        ];
        for lengths in all {
            for pipe in [1 << 16, 7].into_iter().take(if lengths.len() > 1 { 1 } else { 2 }) {
                let mut data = bytes(lengths.iter().sum());
                data[0] = 3;
                let (heard, longest) = heard(frames(&data, &lengths), true, pipe).await;
                assert!(heard == [(3, data[1..].to_vec())], "{lengths:?}");
                assert!(longest <= MOST + 1, "{longest}");
            }
        }
    }

    /// Where a piece ends inside of a character, nothing is lost of it.
    #[tokio::test]
    async fn text_of_many_bytes_a_character() {
        let text = "ä€".repeat(MOST);
        let (all, _) = heard(vec![Message::Text(format!("\0{text}").into())], true, 1 << 16).await;
        assert!(all == [(0, text.into_bytes())]);
    }

    #[tokio::test]
    async fn a_stream_of_bytes_has_no_channels() {
        let data = bytes(5 * MOST + 3);
        let (all, longest) = heard(vec![Message::Binary(data.clone().into())], false, 1 << 16).await;
        assert!(all == [(0, data)] && longest <= MOST, "{longest}");
    }

    /// Each piece of base64 is base64.
    #[tokio::test]
    async fn text() {
        use base64::Engine;
        let data = bytes(MOST * 2);
        let text = base64::engine::general_purpose::STANDARD.encode(&data);
        let (client, server) = tokio::io::duplex(1 << 16);
        let sending = async {
            let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
            client.send(Message::Text(format!("0{text}").into())).await.unwrap();
            client.close(None).await.unwrap();
            client
        };
        let hearing = async {
            let mut server = crate::upgrade::websocket(server, true).await;
            let (mut all, mut count) = (Vec::new(), 0);
            while let Some(message) = server.next().await {
                if let Some((0, piece)) = crate::websocket::decode(message.unwrap(), crate::websocket::Encoding::Base64) {
                    all.extend_from_slice(&piece);
                    count += 1;
                }
            }
            assert!(all == data && count == 3, "{count}");
        };
        tokio::join!(sending, hearing);
    }

    /// What breaks the protocol is refused as it would be without us.
    #[tokio::test]
    async fn what_breaks_the_protocol() {
        let key = [9, 9, 9, 9];
        for (what, bytes) in [
            ("no mask", [&[0x82, 1][..], b"a"].concat()),
            ("a reserved bit", [&[0xc2, 0x81][..], &key, b"a"].concat()),
            ("a frame that continues nothing", [&[0x80, 0x81][..], &key, b"a"].concat()),
            ("a message inside of another", [&[0x02, 0x81][..], &key, b"a", &[0x82, 0x81], &key, b"b"].concat()),
            ("an unknown kind", [&[0x83, 0x81][..], &key, b"a"].concat()),
        ] {
            let (mut client, server) = tokio::io::duplex(1 << 16);
            tokio::io::AsyncWriteExt::write_all(&mut client, &bytes).await.unwrap();
            drop(client);
            let mut server = crate::upgrade::websocket(server, true).await;
            let told = server.next().await.unwrap();
            assert!(matches!(told, Err(Error::Protocol(_))), "{what}: {told:?}");
        }
    }
}
