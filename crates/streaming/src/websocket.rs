//! Several byte streams over one WebSocket: the first byte of a message names the channel. And one byte stream over
//! a WebSocket: its binary messages put together.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, Bytes};
use futures::stream::{FuturesUnordered, SplitSink, SplitStream};
use futures::{Sink, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

use crate::upgrade::MAX_MESSAGE;
use crate::{Error, Stream};

/// Says that no more comes on the channel named by the next byte (v5).
const CLOSE: u8 = 255;
const CHUNK: usize = 32 << 10;
/// How long a process has to read what a client has said before it went.
const LAST: Duration = Duration::from_secs(30);

/// How channel messages look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Binary messages that start with the channel's number.
    Binary,
    /// Text messages that start with the channel's digit, the rest base64.
    Base64,
}

/// One channel of a connection.
pub(crate) struct Channel {
    pub(crate) id: u8,
    pub(crate) stream: Stream,
    /// Whether what the session writes goes to the client.
    pub(crate) outgoing: bool,
}

/// Drives the connection until the client closes it. Closes it itself when every outgoing channel has ended.
pub(crate) async fn serve<S>(socket: WebSocketStream<S>, channels: Vec<Channel>, encoding: Encoding) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sink, mut source) = socket.split();
    let (messages, outgoing) = mpsc::channel(8);
    let mut incoming = Vec::new();
    let pumps = FuturesUnordered::new();
    for channel in channels {
        let (read, write) = tokio::io::split(channel.stream);
        incoming.push((channel.id, Some(write)));
        if channel.outgoing {
            pumps.push(pump(channel.id, read, messages.clone(), encoding));
        }
    }
    drop(messages);
    let sending = async { tokio::join!(pumps.collect::<()>(), write(sink, outgoing)).1 };
    let sent = {
        let mut receiving = pin!(receive(&mut source, incoming, encoding, LAST));
        tokio::select! {
            result = &mut receiving => return result,
            result = sending => match result {
                Ok(sink) => Ok(sink),
                Err(error) => {
                    // The client takes nothing any more; what it has said before may still be read.
                    let _ = tokio::time::timeout(LAST, receiving).await;
                    Err(error)
                }
            },
        }
    };
    finish(sent?, source).await
}

/// Sends messages until their end and ends the connection; or until the client goes away. What it sends is forgotten.
pub(crate) async fn send_all<S>(
    socket: WebSocketStream<S>,
    mut messages: impl futures::Stream<Item = Message> + Unpin,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    let sending = async {
        while let Some(message) = messages.next().await {
            sink.send(message).await?;
        }
        Ok::<_, Error>(sink)
    };
    let receiving = async { while let Some(Ok(_)) = source.next().await {} };
    let sink = tokio::select! {
        result = sending => result?,
        () = receiving => return Ok(()),
    };
    finish(sink, source).await
}

/// Ends a connection on which everything is sent: with the close frame, then with our half of the transport.
async fn finish<S>(sink: Sender<S>, source: SplitStream<WebSocketStream<S>>) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut socket = sink.reunite(source).map_err(|_| Error::Closed)?;
    // Clients take a close without the code for a normal end as a connection that broke.
    let normal = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    match socket.send(Message::Close(Some(normal))).await {
        Ok(()) | Err(WsError::ConnectionClosed) => {}
        Err(error) => return Err(error.into()),
    }
    crate::hang_up(socket.get_mut()).await
}

async fn pump(id: u8, mut stream: ReadHalf<Stream>, messages: mpsc::Sender<Message>, encoding: Encoding) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if messages.send(encode(id, &buffer[..length], encoding)).await.is_err() {
            return;
        }
    }
}

type Sender<S> = SplitSink<WebSocketStream<S>, Message>;

async fn write<S>(mut sink: Sender<S>, mut outgoing: mpsc::Receiver<Message>) -> Result<Sender<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut failed = None;
    // What cannot be sent is thrown away: a process that waits to be heard does not read what the client has said before it closed.
    while let Some(message) = outgoing.recv().await {
        if failed.is_none() {
            failed = sink.send(message).await.err();
        }
    }
    failed.map_or(Ok(sink), |error| Err(error.into()))
}

async fn receive<S>(
    source: &mut SplitStream<WebSocketStream<S>>,
    mut channels: Vec<(u8, Option<WriteHalf<Stream>>)>,
    encoding: Encoding,
    last: Duration,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut ahead = Ahead::default();
    // Once the client has gone: until when what it has said before may still be read, by who reads at all.
    let mut until = None;
    loop {
        let message = match (ahead.take(), until) {
            (Some(message), _) => Some(Ok(message)),
            (None, Some(_)) => return Ok(()),
            (None, None) => source.next().await,
        };
        let Some(message) = message else { return Ok(()) };
        let (id, data) = match message {
            Ok(Message::Close(_)) => return Ok(()),
            Err(error) if is_end(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(message) => match decode(message, encoding) {
                Some(decoded) => decoded,
                None => continue,
            },
        };
        let (id, ends) = if id == CLOSE { (data.first().copied().unwrap_or(CLOSE), true) } else { (id, false) };
        let Some((_, stream)) = channels.iter_mut().find(|(channel, _)| *channel == id) else { continue };
        let Some(writer) = stream else { continue };
        // A session that no longer reads this stream is no reason to end the others.
        if ends {
            let _ = writer.shutdown().await;
            *stream = None;
            continue;
        }
        let mut writing = pin!(tokio::time::timeout(crate::IDLE, writer.write_all(&data)));
        let written = loop {
            tokio::select! {
                biased;
                written = &mut writing => break written,
                () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return Ok(()),
                next = source.next(), if until.is_none() && ahead.has_room() => match next {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => until = Some(Instant::now() + last),
                    Some(Ok(message)) => ahead.add(message),
                },
            }
        };
        match written {
            Ok(Ok(())) => {}
            Ok(Err(_)) => *stream = None,
            Err(_) => return Ok(()),
        }
    }
}

/// What a client says while a process does not read: it is taken, up to a bound, since the end of the connection comes behind it.
#[derive(Default)]
struct Ahead {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl Ahead {
    fn has_room(&self) -> bool {
        self.bytes < MAX_MESSAGE
    }

    /// Keeps a message, unless it says nothing: pings are answered by whoever reads them.
    fn add(&mut self, message: Message) {
        if !message.is_ping() && !message.is_pong() {
            self.bytes += Self::cost(&message);
            self.messages.push_back(message);
        }
    }

    fn take(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= Self::cost(&message);
        Some(message)
    }

    /// Bytes that a message holds: what says little takes a place, too.
    fn cost(message: &Message) -> usize {
        message.len() + size_of::<Message>()
    }
}

pub(crate) fn encode(id: u8, data: &[u8], encoding: Encoding) -> Message {
    match encoding {
        Encoding::Binary => {
            let mut message = Vec::with_capacity(data.len() + 1);
            message.push(id);
            message.extend_from_slice(data);
            Message::Binary(message.into())
        }
        Encoding::Base64 => {
            let mut message = String::with_capacity(data.len() * 4 / 3 + 5);
            message.push(char::from(b'0' + id));
            BASE64.encode_string(data, &mut message);
            Message::Text(message.into())
        }
    }
}

fn decode(message: Message, encoding: Encoding) -> Option<(u8, Bytes)> {
    let mut data = match message {
        Message::Binary(data) => data,
        Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
        _ => return None,
    };
    if data.is_empty() {
        return None;
    }
    match encoding {
        Encoding::Binary => Some((data.get_u8(), data)),
        Encoding::Base64 => {
            let id = data.get_u8().checked_sub(b'0')?;
            Some((id, BASE64.decode(&data).ok()?.into()))
        }
    }
}

/// A WebSocket as a byte stream: SPDY travels in it (KEP-4006, port-forward).
pub(crate) struct ByteStream<S> {
    socket: WebSocketStream<S>,
    pending: Bytes,
}

impl<S> ByteStream<S> {
    pub(crate) fn new(socket: WebSocketStream<S>) -> Self {
        Self { socket, pending: Bytes::new() }
    }
}

/// Clients that just close the connection have ended it too.
fn is_end(error: &WsError) -> bool {
    use WsError::{AlreadyClosed, ConnectionClosed, Protocol};
    matches!(error, ConnectionClosed | AlreadyClosed | Protocol(ProtocolError::ResetWithoutClosingHandshake))
}

fn broken(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::BrokenPipe, other),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.pending.is_empty() {
            match ready!(self.socket.poll_next_unpin(cx)) {
                Some(Ok(Message::Binary(data))) => self.pending = data,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) if is_end(&error) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let length = buffer.remaining().min(self.pending.len());
        buffer.put_slice(&self.pending.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(broken)?;
        let length = data.len().min(CHUNK);
        socket.start_send(Message::Binary(Bytes::copy_from_slice(&data[..length]))).map_err(broken)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn channel_messages() {
        for encoding in [Encoding::Binary, Encoding::Base64] {
            let message = encode(2, b"abc", encoding);
            assert_eq!(decode(message, encoding), Some((2, Bytes::from_static(b"abc"))));
            assert_eq!(decode(encode(1, b"", encoding), encoding), Some((1, Bytes::new())));
        }
        assert_eq!(encode(1, b"hi", Encoding::Base64), Message::Text("1aGk=".into()));
        assert_eq!(decode(Message::Text("!".into()), Encoding::Base64), None);
        assert_eq!(decode(Message::Ping(Bytes::new()), Encoding::Binary), None);
    }

    /// A watch or a log: the client sees the end although it answers nothing.
    #[tokio::test]
    async fn messages_end_with_the_connection() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let socket = crate::upgrade::websocket(server).await;
        let messages = futures::stream::iter([Message::Text("a".into()), Message::Binary(Bytes::from_static(b"b"))]);
        let reading = async {
            let mut bytes = Vec::new();
            tokio::time::timeout(crate::LINGER / 3, client.read_to_end(&mut bytes)).await.expect("the server ends it").unwrap();
            drop(client);
            bytes
        };
        let (sent, bytes) = tokio::join!(send_all(socket, messages), reading);
        sent.unwrap();
        assert_eq!(bytes, b"\x81\x01a\x82\x01b\x88\x02\x03\xe8");
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    /// A process that reads nothing keeps no connection whose client has gone.
    #[tokio::test]
    async fn a_client_that_goes_is_seen_while_nobody_reads() {
        use tokio_tungstenite::tungstenite::protocol::Role;
        let (client, server) = tokio::io::duplex(1 << 20);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        for _ in 0..3 {
            client.send(encode(0, &[1; 100], Encoding::Binary)).await.unwrap();
            client.send(Message::Ping(Bytes::new())).await.unwrap();
        }
        drop(client);
        let (_unread, theirs) = tokio::io::duplex(10);
        let channels = vec![(0, Some(tokio::io::split(theirs).1))];
        let (_sink, mut source) = crate::upgrade::websocket(server).await.split();
        let receiving = receive(&mut source, channels, Encoding::Binary, Duration::from_millis(1));
        tokio::time::timeout(Duration::from_secs(30), receiving).await.expect("it is seen").unwrap();
    }

    /// A client of v4 ends its input by going: what it has said before is read whole, also by a process that answers what nobody takes.
    #[tokio::test]
    async fn what_a_client_has_said_before_it_goes_is_read() {
        use tokio_tungstenite::tungstenite::protocol::Role;
        const SAID: usize = 100_000;
        for round in 0..100 {
            let (client, server) = tokio::io::duplex(1 << 20);
            let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
            for number in 0..5 {
                client.send(encode(0, &[number; SAID / 5], Encoding::Binary)).await.unwrap();
            }
            if round % 2 == 0 {
                client.close(None).await.unwrap();
            }
            // Who has closed may stay, and is gone at once otherwise.
            let client = (round % 4 == 0).then_some(client);
            let ((mut input, theirs), (mut answers, output)) = (tokio::io::duplex(100 + round), tokio::io::duplex(10));
            let channels =
                vec![Channel { id: 0, stream: theirs, outgoing: false }, Channel { id: 1, stream: output, outgoing: true }];
            let echo = async {
                let (mut got, mut buffer) = (Vec::new(), [0; 1000]);
                while let Ok(length @ 1..) = input.read(&mut buffer).await {
                    got.extend_from_slice(&buffer[..length]);
                    // Nobody may listen any more.
                    let _ = answers.write_all(&buffer[..length]).await;
                }
                got
            };
            let serving = serve(crate::upgrade::websocket(server).await, channels, Encoding::Binary);
            let both = tokio::time::timeout(LAST, async { tokio::join!(serving, echo) });
            let (served, got) = both.await.expect("both end");
            drop((served, client));
            assert!(got.chunks(SAID / 5).map(|part| part[0]).eq(0..5) && got.len() == SAID, "{round}: {}", got.len());
        }
    }

    /// A connection's bytes with faults in them end it, with an error or without.
    #[test]
    fn fuzz_messages() {
        use tokio_tungstenite::tungstenite::protocol::Role;
        let mut bytes = Vec::new();
        wait(async {
            let (client, server) = tokio::io::duplex(1 << 16);
            let mut writer = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
            for text in ["first", "second", "third"] {
                writer.send(encode(0, text.as_bytes(), Encoding::Binary)).await.unwrap();
                writer.send(Message::Text("0YWJj".into())).await.unwrap();
                writer.send(Message::Ping(Bytes::new())).await.unwrap();
            }
            drop(writer);
            tokio::io::BufReader::new(server).read_to_end(&mut bytes).await.unwrap();
        });
        fuzz::fuzz(&[&bytes], &["\u{0}", "\u{7f}"], |input| {
            for encoding in [Encoding::Binary, Encoding::Base64] {
                let got = wait(async {
                    let (mut client, server) = tokio::io::duplex(fuzz::MAX_INPUT);
                    client.write_all(input).await.unwrap();
                    client.shutdown().await.unwrap();
                    let socket = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
                    let (mut ours, theirs) = tokio::io::duplex(fuzz::MAX_INPUT);
                    let channels = vec![(0, Some(tokio::io::split(theirs).1))];
                    let (_sink, mut source) = socket.split();
                    let reading = async {
                        let mut got = Vec::new();
                        ours.read_to_end(&mut got).await.unwrap();
                        got
                    };
                    tokio::join!(receive(&mut source, channels, encoding, LAST), reading).1
                });
                assert!(got.len() <= input.len());
            }
        });
    }
}
