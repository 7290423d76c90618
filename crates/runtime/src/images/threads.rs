//! Threads of their own, for streams that a peer takes its time with: those of the async runtime are for work that ends by itself.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::api::{Error, Result};

/// Pieces of a stream that wait for the disk or for who reads them, each some tens of KiB.
pub(super) const PIECES: usize = 32;
/// Bytes of a piece of an archive.
pub(super) const PIECE: usize = 64 << 10;

/// Begins work in a thread of its own.
pub(super) fn begin(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let begun = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    begun.map(drop).map_err(|error| Error::Internal(format!("{name}: no thread: {error}")))
}

/// Does work in a thread of its own.
pub(super) async fn thread<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    begin(name, move || {
        // Nobody may wait any more.
        let _ = sender.send(work());
    })?;
    receiver.await.map_err(|_| Error::Internal(format!("{name} failed")))
}

/// A piece of a stream on its way to the thread that reads it.
pub(super) enum Piece {
    Data(Bytes),
    /// The whole of it was sent. A channel that closes without it was cut off.
    End,
    Failed(String),
}

/// Reads the pieces of a stream, blocking.
pub(super) struct PieceReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
    failure: Option<String>,
}

impl PieceReader {
    pub(super) fn new(pieces: mpsc::Receiver<Piece>) -> Self {
        Self { pieces, current: Bytes::new(), ended: false, failure: None }
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            if let Some(text) = &self.failure {
                return Err(io::Error::other(text.clone()));
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => self.current = data,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Failed(text)) => self.failure = Some(text),
                None => self.failure = Some("the stream was cut off".to_owned()),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// Hands a stream on to the thread that reads it.
pub(super) async fn feed<E: Display>(
    mut stream: impl Stream<Item = std::result::Result<Bytes, E>> + Unpin,
    sender: mpsc::Sender<Piece>,
) {
    loop {
        let piece = match stream.next().await {
            Some(Ok(data)) => Piece::Data(data),
            Some(Err(error)) => Piece::Failed(error.to_string()),
            None => Piece::End,
        };
        let last = !matches!(piece, Piece::Data(_));
        // A reader that is gone has an answer already.
        if sender.send(piece).await.is_err() || last {
            break;
        }
    }
}

/// Sends what is written to it.
pub(super) struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    /// How long the reader may leave a piece; for ever, if none.
    patience: Option<Duration>,
    runtime: Handle,
}

impl Pieces {
    /// Made where the async runtime is, written to in a thread.
    pub(super) fn new(sender: mpsc::Sender<io::Result<Bytes>>, patience: Option<Duration>) -> Self {
        Self { sender, patience, runtime: Handle::current() }
    }

    /// The last piece: why there is no other. Whether it was taken is no matter.
    pub(super) fn fail(&self, error: io::Error) {
        self.send(Err(error));
    }

    fn send(&self, piece: io::Result<Bytes>) -> bool {
        match self.patience {
            None => self.sender.blocking_send(piece).is_ok(),
            Some(patience) => self.runtime.block_on(self.sender.send_timeout(piece, patience)).is_ok(),
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let sent = self.send(Ok(Bytes::copy_from_slice(buffer)));
        if sent { Ok(buffer.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
