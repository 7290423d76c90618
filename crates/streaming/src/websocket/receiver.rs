//! What a client says over channels, on its way to the session.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::{CLOSE, Encoding, decode, is_end};
use crate::upgrade::MAX_MESSAGE;
use crate::{LAST, Stream};

/// Hands on what the client sends. It may be stopped at any time, and goes on where it was.
pub(super) struct Receiver {
    pub(super) channels: Vec<(u8, Option<WriteHalf<Stream>>)>,
    encoding: Encoding,
    /// How long what the client has said may still be read once it has gone, by who reads at all.
    last: Duration,
    ahead: Ahead,
    /// What is being written, and to which of the channels.
    current: Option<(usize, Bytes)>,
    /// Once the client has gone: how, and until when what it has said before may still be read.
    end: Option<(Result<(), WsError>, Instant)>,
}

impl Receiver {
    pub(super) fn new(channels: Vec<(u8, Option<WriteHalf<Stream>>)>, encoding: Encoding, last: Duration) -> Self {
        Self { channels, encoding, last, ahead: Ahead::default(), current: None, end: None }
    }

    /// Forgets everything.
    pub(super) fn deaf() -> Self {
        Self::new(Vec::new(), Encoding::Binary, LAST)
    }

    /// Runs until the client ends the connection, or nobody reads what it has said.
    pub(super) async fn run(
        &mut self,
        source: &mut (impl futures::Stream<Item = Result<Message, WsError>> + Unpin),
    ) -> Result<(), WsError> {
        loop {
            if !self.hand_on(source).await {
                return Ok(());
            }
            match (self.ahead.take(), self.end.take()) {
                (Some(message), end) => {
                    self.end = end;
                    self.begin(message).await;
                }
                (None, Some((end, _))) => return end,
                (None, None) => {
                    let next = source.next().await;
                    self.arrived(next);
                }
            }
        }
    }

    fn arrived(&mut self, next: Option<Result<Message, WsError>>) {
        let end = match next {
            Some(Ok(Message::Close(_))) | None => Ok(()),
            Some(Ok(message)) => return self.ahead.add(message),
            Some(Err(error)) if is_end(&error) => Ok(()),
            Some(Err(error)) => Err(error),
        };
        self.end = Some((end, Instant::now() + self.last));
    }

    async fn begin(&mut self, message: Message) {
        let Some((id, data)) = decode(message, self.encoding) else { return };
        let (id, ends) = if id == CLOSE { (data.first().copied().unwrap_or(CLOSE), true) } else { (id, false) };
        let Some(index) = self.channels.iter().position(|(channel, _)| *channel == id) else { return };
        if !ends {
            self.current = Some((index, data));
        } else if let Some(mut writer) = self.channels[index].1.take() {
            // Fails when the session no longer reads this stream, which is no reason to end the others.
            let _ = writer.shutdown().await;
        }
    }

    /// Writes the message that was begun, and meanwhile takes what comes behind it. False when nobody reads for too long.
    async fn hand_on(&mut self, source: &mut (impl futures::Stream<Item = Result<Message, WsError>> + Unpin)) -> bool {
        let idle = Instant::now() + crate::IDLE;
        while let Some((index, data)) = &mut self.current {
            let Some(writer) = &mut self.channels[*index].1 else { break };
            let until = self.end.as_ref().map_or(idle, |(_, until)| *until);
            let index = *index;
            tokio::select! {
                biased;
                written = writer.write_all_buf(data) => {
                    if written.is_err() {
                        self.channels[index].1 = None;
                    }
                    break;
                }
                () = tokio::time::sleep_until(until) => return false,
                next = source.next(), if self.end.is_none() && self.ahead.has_room() => self.arrived(next),
            }
        }
        self.current = None;
        true
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
