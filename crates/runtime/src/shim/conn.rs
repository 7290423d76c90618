//! One connection to a shim.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use super::protocol::{Kind, Reply, decode, encode, encode_json};

/// Output that waits for a peer before its producers are asked to wait, bytes.
const OUTPUT_LIMIT: usize = 256 << 10;

/// What a connection became with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// No request yet.
    New,
    /// Waits for its one reply.
    Control,
    /// Gets events.
    Watch,
    /// Streams of the task of that number.
    Session { task: u64, owner: bool, stdin: bool, outputs: [bool; 2] },
}

/// A connection with what was read and what is to be written.
pub(super) struct Conn {
    pub(super) stream: UnixStream,
    pub(super) role: Role,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Close when everything is written.
    pub(super) closing: bool,
    pub(super) dead: bool,
    /// The peer takes nothing any more. What it has said before is still to be read.
    deaf: bool,
}

impl Conn {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, role: Role::New, input: Vec::new(), output: Vec::new(), closing: false, dead: false, deaf: false })
    }

    /// Reads what has arrived.
    pub(super) fn fill(&mut self) {
        let mut buffer = [0; 32 << 10];
        match self.stream.read(&mut buffer) {
            Ok(count) if count > 0 => self.input.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            _ => self.dead = true,
        }
    }

    /// The next whole frame. A peer that breaks the protocol is cut off.
    pub(super) fn frame(&mut self) -> Option<(Kind, Vec<u8>)> {
        decode(&mut self.input).unwrap_or_else(|_| {
            self.dead = true;
            None
        })
    }

    /// Queues a frame and writes as much as goes.
    pub(super) fn send(&mut self, kind: Kind, payload: &[u8]) {
        self.output.extend_from_slice(&encode(kind, payload));
        self.flush();
    }

    /// Queues the one reply of a request.
    pub(super) fn reply(&mut self, reply: &Reply) {
        self.output.extend_from_slice(&encode_json(Kind::Reply, reply));
        self.closing |= matches!(self.role, Role::New | Role::Control) || matches!(reply, Reply::Error { .. });
        self.flush();
    }

    /// Writes as much as goes.
    pub(super) fn flush(&mut self) {
        while !self.output.is_empty() && !self.dead {
            match self.stream.write(&self.output) {
                Ok(count) if count > 0 => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => self.deaf = true,
            }
            if self.deaf {
                self.output.clear();
            }
        }
    }

    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether so much waits that its producer should.
    pub(super) fn is_full(&self) -> bool {
        self.output.len() > OUTPUT_LIMIT
    }

    /// Whether it can be forgotten.
    pub(super) fn finished(&self) -> bool {
        self.dead || (self.closing && self.output.is_empty())
    }
}
