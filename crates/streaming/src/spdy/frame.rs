//! Frames on the wire (SPDY protocol draft 3.1, section 2.2).

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::headers::{Deflater, Headers, Inflater};

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FIN: u8 = 1;
const STREAM_MASK: u32 = 0x7fff_ffff;
/// Control frames hold headers at most.
const MAX_CONTROL: usize = 64 << 10;

/// The head of a received frame; the data of a data frame is read apart, in pieces.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Open {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    Reply {
        stream: u32,
        fin: bool,
    },
    Reset {
        stream: u32,
    },
    Ping(u32),
    GoAway,
    Data {
        stream: u32,
        fin: bool,
        length: usize,
    },
    /// Headers after the first, settings, window updates: nothing to do.
    Ignored {
        fin: Option<u32>,
    },
}

/// A frame to send.
#[derive(Debug)]
pub(crate) enum Frame {
    Open { stream: u32, headers: Vec<(&'static str, String)> },
    Reply { stream: u32 },
    Reset { stream: u32, status: u32 },
    Ping(u32),
    Data { stream: u32, fin: bool, data: Bytes },
}

pub(crate) struct Reader<R> {
    input: BufReader<R>,
    inflater: Inflater,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY: {what}"))
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    let chunk = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    chunk.map(|chunk| u32::from_be_bytes(*chunk)).ok_or_else(|| invalid("truncated frame"))
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input: BufReader::with_capacity(32 << 10, input), inflater: Inflater::default() }
    }

    /// The next frame's head, none at the end of the connection.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Head>> {
        let mut head = [0; 8];
        if self.input.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        self.input.read_exact(&mut head[1..]).await?;
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let fin = head[4] & FIN != 0;
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if first & !STREAM_MASK == 0 {
            return Ok(Some(Head::Data { stream: first, fin, length }));
        }
        if (first >> 16) as u16 & 0x7fff != VERSION {
            return Err(invalid("unknown version"));
        }
        if length > MAX_CONTROL {
            return Err(invalid("control frame too large"));
        }
        let mut payload = vec![0; length];
        self.input.read_exact(&mut payload).await?;
        self.control(first as u16, fin, &payload).map(Some)
    }

    fn control(&mut self, kind: u16, fin: bool, payload: &[u8]) -> io::Result<Head> {
        let stream = || word(payload, 0).map(|stream| stream & STREAM_MASK);
        let block = |at: usize| payload.get(at..).ok_or_else(|| invalid("truncated frame"));
        Ok(match kind {
            SYN_STREAM => Head::Open { stream: stream()?, fin, headers: self.inflater.read(block(10)?)? },
            SYN_REPLY => {
                // The compression state spans all blocks: each must be read.
                self.inflater.read(block(4)?)?;
                Head::Reply { stream: stream()?, fin }
            }
            RST_STREAM => Head::Reset { stream: stream()? },
            PING => Head::Ping(word(payload, 0)?),
            GOAWAY => Head::GoAway,
            HEADERS => {
                self.inflater.read(block(4)?)?;
                Head::Ignored { fin: if fin { Some(stream()?) } else { None } }
            }
            _ => Head::Ignored { fin: None },
        })
    }

    /// Reads a piece of a data frame of which `left` bytes remain.
    pub(crate) async fn data(&mut self, buffer: &mut [u8], left: usize) -> io::Result<usize> {
        let end = buffer.len().min(left);
        match self.input.read(&mut buffer[..end]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => Ok(length),
        }
    }
}

pub(crate) struct Writer<W> {
    output: W,
    deflater: Deflater,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(crate) fn new(output: W) -> io::Result<Self> {
        Ok(Self { output, deflater: Deflater::new()? })
    }

    /// Writes a frame; [`Writer::flush`] sends it.
    pub(crate) async fn write(&mut self, frame: Frame) -> io::Result<()> {
        match frame {
            Frame::Data { stream, fin, data } => {
                let mut head = [0; 8];
                head[..4].copy_from_slice(&stream.to_be_bytes());
                head[4..].copy_from_slice(&(data.len() as u32).to_be_bytes());
                head[4] = u8::from(fin) * FIN;
                self.output.write_all(&head).await?;
                self.output.write_all(&data).await
            }
            Frame::Open { stream, headers } => {
                let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let mut payload = Vec::from(stream.to_be_bytes());
                payload.extend_from_slice(&[0; 6]);
                payload.extend(self.deflater.write(&headers)?);
                self.control(SYN_STREAM, &payload).await
            }
            Frame::Reply { stream } => {
                let mut payload = Vec::from(stream.to_be_bytes());
                payload.extend(self.deflater.write(&[])?);
                self.control(SYN_REPLY, &payload).await
            }
            Frame::Reset { stream, status } => {
                let payload = [stream.to_be_bytes(), status.to_be_bytes()].concat();
                self.control(RST_STREAM, &payload).await
            }
            Frame::Ping(id) => self.control(PING, &id.to_be_bytes()).await,
        }
    }

    async fn control(&mut self, kind: u16, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(8 + payload.len());
        frame.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
        frame.extend_from_slice(&kind.to_be_bytes());
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        self.output.write_all(&frame).await
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.output.flush().await
    }

    /// Writes what may be no frame.
    #[cfg(test)]
    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn check(frame: Frame, expected: Head) {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).unwrap().write(frame).await.unwrap();
        assert_eq!(Reader::new(bytes.as_slice()).next().await.unwrap(), Some(expected));
        for cut in 1..8 {
            assert!(Reader::new(&bytes[..cut]).next().await.is_err(), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn frames() {
        let headers = vec![("streamtype", "data".to_owned())];
        let expected = vec![("streamtype".to_owned(), "data".to_owned())];
        check(Frame::Open { stream: 1, headers }, Head::Open { stream: 1, fin: false, headers: expected }).await;
        check(Frame::Reply { stream: 3 }, Head::Reply { stream: 3, fin: false }).await;
        check(Frame::Reset { stream: 5, status: 1 }, Head::Reset { stream: 5 }).await;
        check(Frame::Ping(7), Head::Ping(7)).await;
        let data = Bytes::from_static(b"abc");
        check(Frame::Data { stream: 9, fin: true, data }, Head::Data { stream: 9, fin: true, length: 3 }).await;
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    /// A connection's bytes with faults in them end it, with an error or without.
    #[test]
    fn fuzz_frames() {
        let mut bytes = Vec::new();
        wait(async {
            let mut writer = Writer::new(&mut bytes).unwrap();
            for stream in [1, 3, 5] {
                let headers = vec![("streamtype", "data".to_owned()), ("port", "80".to_owned())];
                writer.write(Frame::Open { stream, headers }).await.unwrap();
                writer.write(Frame::Data { stream, fin: false, data: Bytes::from_static(b"abc") }).await.unwrap();
            }
        });
        fuzz::fuzz(&[&bytes], &["\u{0}", "\u{3}", "port"], |input| {
            let frames = wait(async {
                let mut reader = Reader::new(input);
                let mut frames = 0;
                while let Ok(Some(head)) = reader.next().await {
                    frames += 1;
                    let mut left = if let Head::Data { length, .. } = head { length } else { 0 };
                    while left > 0 {
                        let Ok(got) = reader.data(&mut [0; 64], left).await else { return frames };
                        left -= got;
                    }
                }
                frames
            });
            assert!(frames <= input.len() / 8);
        });
    }

    #[tokio::test]
    async fn hostile_frames() {
        for bytes in [&[0x80, 2, 0, 1, 0, 0, 0, 0][..], &[0x80, 3, 0, 1, 0, 255, 255, 255], &[0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0]] {
            assert!(Reader::new(bytes).next().await.is_err(), "{bytes:?}");
        }
        assert_eq!(Reader::new(&[][..]).next().await.unwrap(), None);
        let window_update = [0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 1, 0];
        assert_eq!(Reader::new(&window_update[..]).next().await.unwrap(), Some(Head::Ignored { fin: None }));
    }
}
