//! Several byte streams over one WebSocket: the first byte of a message names the channel. And one byte stream over
//! a WebSocket: its binary messages put together.

pub(crate) mod pieces;
mod receiver;

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, Bytes};
use futures::stream::{FuturesUnordered, SplitSink};
use futures::{Sink, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use self::receiver::Receiver;
use crate::{Error, LAST, Stream};

/// Says that no more comes on the channel named by the next byte (v5).
const CLOSE: u8 = 255;
const CHUNK: usize = 32 << 10;

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
    pub(crate) way: Way,
}

/// Who writes on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The client.
    In,
    /// The session. What the client sends there nonetheless is dropped (upstream: `DataFromSocket` of `util/wsstream`): nobody reads it, and
    /// what comes behind it would wait.
    Out,
    Both,
}

/// Drives the connection until the client closes it. Closes it itself when the session has ended every channel on which it writes.
pub(crate) async fn serve<S>(socket: WebSocketStream<S>, channels: Vec<Channel>, encoding: Encoding) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    let (messages, outgoing) = mpsc::channel(8);
    let mut receiver = Receiver::new(Vec::new(), encoding, LAST);
    let pumps = FuturesUnordered::new();
    for channel in channels {
        let (read, write) = tokio::io::split(channel.stream);
        if channel.way != Way::Out {
            receiver.channels.push((channel.id, Some(write)));
        }
        if channel.way != Way::In {
            pumps.push(pump(channel.id, read, messages.clone(), encoding));
        }
    }
    drop(messages);
    // How the client has ended it; none when everything is sent to it.
    let end = {
        let sending = async { tokio::join!(pumps.collect::<()>(), write(&mut sink, outgoing)).1 };
        let mut receiving = pin!(receiver.run(&mut source));
        tokio::select! {
            result = &mut receiving => Some(result),
            result = sending => match result {
                Ok(()) => None,
                Err(error) => {
                    // The client takes nothing any more; what it has said before may still be read.
                    let _ = tokio::time::timeout(LAST, receiving).await;
                    return Err(error);
                }
            },
        }
    };
    let socket = sink.reunite(source).map_err(|_| Error::Closed)?;
    match end {
        None => finish(socket, receiver).await,
        Some(Ok(())) => {
            // Input ends before the client hears that its close was seen.
            drop(receiver);
            acknowledge(socket).await
        }
        Some(Err(error)) => Err(error.into()),
    }
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
    let socket = sink.reunite(source).map_err(|_| Error::Closed)?;
    finish(socket, Receiver::deaf()).await
}

/// Ends a connection on which everything is sent: with the close frame, then with our half of the transport. What the client has sent
/// before it saw the close frame is handed on: a pod that has ended its side of a forwarded connection may still read.
async fn finish<S>(mut socket: WebSocketStream<S>, mut receiver: Receiver) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Clients take a close without the code for a normal end as a connection that broke.
    match socket.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await {
        Ok(()) | Err(WsError::ConnectionClosed) => {}
        // The client was first.
        Err(WsError::Protocol(ProtocolError::SendAfterClosing)) => {
            let _ = receiver.run(&mut socket).await;
            drop(receiver);
            return acknowledge(socket).await;
        }
        Err(error) => return Err(error.into()),
    }
    socket.get_mut().shutdown().await?;
    let rest = tokio::time::timeout(crate::LINGER, async {
        // A client that breaks the connection now has what it came for.
        let _ = receiver.run(&mut socket).await;
        drop(receiver);
    });
    let _ = rest.await;
    crate::hang_up(socket.get_mut()).await
}

/// Answers the client's close frame and ends the connection: "upon receiving such a frame, the other peer sends a Close frame in
/// response" (RFC 6455, 1.4 and 5.5.1). The library has the answer ready, and sends it when the socket is flushed.
async fn acknowledge<S>(mut socket: WebSocketStream<S>) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answering = async {
        match socket.flush().await {
            Ok(()) | Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(socket.get_mut().shutdown().await?)
    };
    // A client that takes no answer is gone.
    tokio::time::timeout(crate::LINGER, answering).await.unwrap_or(Ok(()))
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

async fn write<S>(sink: &mut Sender<S>, mut outgoing: mpsc::Receiver<Message>) -> Result<(), Error>
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
    failed.map_or(Ok(()), |error| Err(error.into()))
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
                None => return Poll::Ready(Ok(())),
                // A close frame, too: what comes next is that it was answered (RFC 6455, 5.5.1).
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
mod tests;
