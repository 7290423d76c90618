//! One SPDY connection: frames in, frames out, a pipe per stream.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::frame::{Frame, Head, Reader, Writer};
use super::headers::Headers;
use crate::{PIPE, Stream};

/// Streams that a client has at a time; one counts until both ends have ended it, since only then nothing of it is left here.
const MAX_STREAMS: usize = 1024;
const CHUNK: usize = 16 << 10;
/// Frames that wait to be sent; more than a client opens streams.
const FRAMES: usize = 32;
const REFUSED_STREAM: u32 = 3;
const INVALID_STREAM: u32 = 2;

/// A stream that the client has opened.
pub(crate) struct Opened {
    pub(crate) id: u32,
    pub(crate) headers: Headers,
    pub(crate) stream: Stream,
}

impl Opened {
    /// A header's value, empty when absent. `name` in lower case.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

/// The direction in which a client uses a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the server.
    Out,
    /// From the server.
    In,
}

/// Where a stream that the client has opened is counted.
type Place = Arc<OwnedSemaphorePermit>;

/// What the session writes to a stream.
struct Outgoing {
    id: u32,
    stream: ReadHalf<Stream>,
    _place: Option<Place>,
}

/// What comes on a stream.
struct Arriving {
    stream: WriteHalf<Stream>,
    _place: Option<Place>,
}

/// Drives the connection until the client closes it.
pub(super) async fn serve<S>(io: S, opened: mpsc::Sender<Opened>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (frames, sending) = mpsc::channel(FRAMES);
    drive(io, HashMap::new(), Role::Server(opened), frames, sending).await
}

/// Opens one stream for each kind, which is its header `streamtype`. The future drives the connection until the server has ended all
/// streams that come from it; the receiver is told when the server has accepted all streams, and closed when it has not.
pub(crate) fn open<S>(
    io: S,
    kinds: &[(&str, Direction)],
) -> (Vec<Stream>, oneshot::Receiver<()>, impl Future<Output = io::Result<()>> + use<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (frames, sending) = mpsc::channel(FRAMES);
    let (accepted, ready) = oneshot::channel();
    let (mut ours, mut streams, mut unanswered, mut opening) = (Vec::new(), HashMap::new(), HashMap::new(), Vec::new());
    for (id, (kind, direction)) in (1..).step_by(2).zip(kinds) {
        let (near, far) = tokio::io::duplex(PIPE);
        let (read, write) = tokio::io::split(near);
        opening.push(Frame::Open { stream: id, headers: vec![("streamtype", (*kind).to_owned())] });
        unanswered.insert(id, (*direction == Direction::Out).then_some(read));
        if *direction == Direction::In {
            streams.insert(id, Arriving { stream: write, _place: None });
        }
        ours.push(far);
    }
    let driving = async move {
        for frame in opening {
            frames.send(frame).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        drive(io, streams, Role::Client { unanswered, accepted: Some(accepted) }, frames, sending).await
    };
    (ours, ready, driving)
}

async fn drive<S>(
    io: S,
    streams: HashMap<u32, Arriving>,
    role: Role,
    frames: mpsc::Sender<Frame>,
    mut sending: mpsc::Receiver<Frame>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (read, write) = tokio::io::split(io);
    let (pumps, new_pumps) = mpsc::channel(16);
    let (is_client, writer) = (matches!(role, Role::Client { .. }), Writer::new(write)?);
    let sending = async {
        let result = send(writer, &mut sending).await;
        // The peer goes without having read everything: what it has said before is still to be read. At a server's end only for so
        // long as somebody reads it.
        let forgetting = async { while sending.recv().await.is_some() {} };
        match is_client {
            true => forgetting.await,
            false => drop(tokio::time::timeout(crate::LAST, forgetting).await),
        }
        result
    };
    let places = Arc::new(Semaphore::new(MAX_STREAMS));
    let receiver = Receiver { reader: Reader::new(read), streams, role, frames: frames.clone(), pumps, places };
    tokio::select! {
        result = receiver.run() => result,
        result = sending => result,
        () = pump_all(new_pumps, frames) => Ok(()),
    }
}

/// Which end of the connection this is.
enum Role {
    /// Hands on the streams that the peer opens.
    Server(mpsc::Sender<Opened>),
    /// Has opened all streams itself.
    Client {
        /// Streams that the server has not accepted yet, with what goes out on them: servers drop data that comes before.
        unanswered: HashMap<u32, Option<ReadHalf<Stream>>>,
        /// Told when the last one was accepted.
        accepted: Option<oneshot::Sender<()>>,
    },
}

struct Receiver<R> {
    reader: Reader<R>,
    /// Streams that the peer has not ended.
    streams: HashMap<u32, Arriving>,
    role: Role,
    frames: mpsc::Sender<Frame>,
    pumps: mpsc::Sender<Outgoing>,
    places: Arc<Semaphore>,
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    async fn run(mut self) -> io::Result<()> {
        while let Some(head) = self.reader.next().await? {
            match head {
                Head::Open { stream, fin, headers } => self.open(stream, fin, headers).await?,
                Head::Reply { stream, fin } => self.accepted(stream, fin).await?,
                Head::Data { stream, fin, length } => self.data(stream, fin, length).await?,
                Head::Ping(id) => self.send(Frame::Ping(id)).await?,
                Head::Reset { stream } => self.reset(stream).await?,
                Head::Ignored { fin: Some(stream) } => self.end(stream).await,
                Head::GoAway | Head::Ignored { fin: None } => {}
            }
            if self.is_done() {
                break;
            }
        }
        Ok(())
    }

    /// A server serves until its client goes; a client has what it came for when nothing more can come.
    fn is_done(&self) -> bool {
        matches!(self.role, Role::Client { .. }) && self.streams.is_empty()
    }

    async fn send(&mut self, frame: Frame) -> io::Result<()> {
        self.frames.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn pump(&mut self, id: u32, stream: ReadHalf<Stream>, place: Option<Place>) -> io::Result<()> {
        self.pumps.send(Outgoing { id, stream, _place: place }).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) -> io::Result<()> {
        let opened = match &self.role {
            Role::Server(opened) if !id.is_multiple_of(2) => opened.clone(),
            _ => return self.send(Frame::Reset { stream: id, status: REFUSED_STREAM }).await,
        };
        let place = self.places.clone().try_acquire_owned().ok().filter(|_| !self.streams.contains_key(&id)).map(Arc::new);
        let Some(place) = place else {
            return self.send(Frame::Reset { stream: id, status: REFUSED_STREAM }).await;
        };
        let (near, far) = tokio::io::duplex(PIPE);
        let (read, mut write) = tokio::io::split(near);
        self.send(Frame::Reply { stream: id }).await?;
        if fin {
            write.shutdown().await?;
        } else {
            self.streams.insert(id, Arriving { stream: write, _place: Some(place.clone()) });
        }
        self.pump(id, read, Some(place)).await?;
        if opened.send(Opened { id, headers, stream: far }).await.is_err() {
            self.end(id).await;
        }
        Ok(())
    }

    /// The peer has accepted a stream.
    async fn accepted(&mut self, id: u32, fin: bool) -> io::Result<()> {
        if let Role::Client { unanswered, accepted } = &mut self.role {
            let outgoing = unanswered.remove(&id).flatten();
            if unanswered.is_empty()
                && let Some(accepted) = accepted.take()
            {
                // Whoever opened the streams may have given up.
                let _ = accepted.send(());
            }
            if let Some(from) = outgoing {
                self.pump(id, from, None).await?;
            }
        }
        if fin {
            self.end(id).await;
        }
        Ok(())
    }

    async fn reset(&mut self, id: u32) -> io::Result<()> {
        match &self.role {
            Role::Client { unanswered, .. } if unanswered.contains_key(&id) => {
                Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("stream {id} was refused")))
            }
            _ => {
                self.end(id).await;
                Ok(())
            }
        }
    }

    async fn data(&mut self, id: u32, fin: bool, length: usize) -> io::Result<()> {
        let mut left = length;
        let mut buffer = [0; CHUNK];
        let mut stream = self.streams.get_mut(&id);
        if stream.is_none() && length > 0 {
            let reset = Frame::Reset { stream: id, status: INVALID_STREAM };
            self.frames.send(reset).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        while left > 0 {
            let got = self.reader.data(&mut buffer, left).await?;
            left -= got;
            let Some(writer) = &mut stream else { continue };
            match tokio::time::timeout(crate::IDLE, writer.stream.write_all(&buffer[..got])).await {
                Ok(Ok(())) => {}
                // A session that has left this stream does not stop the others: the rest is thrown away.
                Ok(Err(_)) => stream = None,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        if fin {
            self.end(id).await;
        }
        Ok(())
    }

    async fn end(&mut self, id: u32) {
        if let Some(mut writer) = self.streams.remove(&id) {
            // Fails when the session has dropped the stream already.
            let _ = writer.stream.shutdown().await;
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(mut writer: Writer<W>, frames: &mut mpsc::Receiver<Frame>) -> io::Result<()> {
    while let Some(frame) = frames.recv().await {
        writer.write(frame).await?;
        while let Ok(frame) = frames.try_recv() {
            writer.write(frame).await?;
        }
        writer.flush().await?;
    }
    Ok(())
}

/// Carries what sessions write to the connection, all streams side by side.
async fn pump_all(mut new: mpsc::Receiver<Outgoing>, frames: mpsc::Sender<Frame>) {
    let mut pumps = FuturesUnordered::new();
    loop {
        tokio::select! {
            outgoing = new.recv() => match outgoing {
                Some(outgoing) => pumps.push(pump(outgoing, frames.clone())),
                None => return,
            },
            Some(()) = pumps.next(), if !pumps.is_empty() => {}
        }
    }
}

async fn pump(outgoing: Outgoing, frames: mpsc::Sender<Frame>) {
    let Outgoing { id, mut stream, _place } = outgoing;
    loop {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        let fin = !matches!(stream.read_buf(&mut buffer).await, Ok(1..));
        let frame = Frame::Data { stream: id, fin, data: buffer.freeze() };
        if frames.send(frame).await.is_err() || fin {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn a_stream_counts_until_both_ends_have_ended_it() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (sender, mut opened) = mpsc::channel(MAX_STREAMS + 1);
        let (read, write) = tokio::io::split(far);
        let (mut reader, mut writer) = (Reader::new(read), Writer::new(write).unwrap());
        let client = async {
            for stream in (1..).step_by(2).take(MAX_STREAMS + 1) {
                writer.write(Frame::Open { stream, headers: Vec::new() }).await.unwrap();
                writer.write(Frame::Data { stream, fin: true, data: Bytes::new() }).await.unwrap();
            }
            writer.flush().await.unwrap();
            let mut accepted = 0;
            loop {
                match reader.next().await.unwrap().unwrap() {
                    Head::Reply { .. } => accepted += 1,
                    Head::Reset { stream } => return (accepted, stream as usize),
                    _ => {}
                }
            }
        };
        let refused = tokio::select! {
            refused = client => refused,
            result = serve(near, sender) => panic!("the server ends: {result:?}"),
        };
        assert_eq!(refused, (MAX_STREAMS, 2 * MAX_STREAMS + 1));
        assert!(opened.recv().await.is_some(), "the session has not ended them");
    }
}
