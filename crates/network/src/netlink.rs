//! Netlink by hand: a message builder, an attribute reader, and a blocking socket that waits for the kernel's answer.
//!
//! Both halves of this crate speak netlink (routing, nf_tables, conntrack) and each answer comes back within
//! microseconds, so requests are synchronous and run on blocking threads.

pub(crate) mod generic;
pub(crate) mod listener;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, sendto, setsockopt, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::netns::within;

/// The kernel refused a netlink request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error code from the kernel.
    #[error("{what}: {errno}")]
    Kernel {
        /// What was asked.
        what: &'static str,
        /// The kernel's answer.
        errno: Errno,
        /// Sequence number of the refused message.
        seq: u32,
    },
    /// The socket itself failed.
    #[error("{what}: netlink socket: {source}")]
    Socket {
        /// What was asked.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// The error code, whoever reported it.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            Self::Socket { source, .. } => source.raw_os_error().map(Errno::from_raw),
        }
    }

    /// Whether the same request may succeed another time: it says nothing about what was asked for.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Kernel { errno, .. } => {
                matches!(errno, Errno::ENOMEM | Errno::ENOBUFS | Errno::EINTR | Errno::EAGAIN | Errno::EBUSY)
            }
            Self::Socket { .. } => true,
        }
    }
}

pub(crate) const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
pub(crate) const ACK: u16 = libc::NLM_F_ACK as u16;
pub(crate) const CREATE: u16 = libc::NLM_F_CREATE as u16;
pub(crate) const EXCL: u16 = libc::NLM_F_EXCL as u16;
pub(crate) const REPLACE: u16 = libc::NLM_F_REPLACE as u16;
pub(crate) const APPEND: u16 = libc::NLM_F_APPEND as u16;
pub(crate) const DUMP: u16 = libc::NLM_F_DUMP as u16;

const HEADER: usize = 16;
const NESTED: u16 = libc::NLA_F_NESTED as u16;

/// One or more netlink messages under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    /// Appends a message: header, the protocol's fixed part, and what `body` adds. The sequence number is in host order.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, seq: u32, fixed: &[u8], body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(fixed);
        self.pad();
        body(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Appends an attribute.
    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Appends an attribute in network byte order, as netfilter wants its numbers.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Appends an attribute in host byte order, as routing wants its numbers.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// Appends a string with its terminating zero.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        self.attr(kind, &[value.as_bytes(), &[0]].concat());
    }

    /// Appends an attribute that holds what `body` adds.
    pub(crate) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.attr(kind | NESTED, &[]);
        body(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Appends raw bytes, padded.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Iterates over the attributes in `bytes` as (kind without flags, value). Ends at the first malformed one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & 0x3fff, value))
    })
}

/// The value of attribute `kind`.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A message that the kernel sent.
pub(crate) struct Reply<'a> {
    pub(crate) kind: u16,
    pub(crate) seq: u32,
    /// The address of the socket whose request made it, or made the change that it tells of.
    pub(crate) sender: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages in what was received.
pub(crate) fn replies(mut bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let seq = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let sender = u32::from_ne_bytes(bytes.get(12..16)?.try_into().ok()?);
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Reply { kind, seq, sender, payload })
    })
}

/// A netlink socket of one protocol in one network namespace. It stays in the namespace in which it was opened.
pub(crate) struct Socket {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = nix::sys::socket::socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        // An answer that never comes is a kernel bug; do not hang on it.
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(10))?;
        Ok(Self { fd, seq: 1, buffer: vec![0; 64 * 1024] })
    }

    /// Opens a socket that receives the messages of the multicast groups (a bit mask).
    pub(crate) fn subscribe(protocol: SockProtocol, groups: u32) -> io::Result<Self> {
        let socket = Self::open(protocol)?;
        bind(socket.fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(socket)
    }

    /// The address of the socket, by which the kernel says whose change it tells of. It has one from its first request on.
    pub(crate) fn address(&self) -> io::Result<u32> {
        Ok(getsockname::<NetlinkAddr>(self.fd.as_raw_fd())?.pid())
    }

    /// Opens a socket in the network namespace at `path`.
    pub(crate) fn open_in(path: &Path, protocol: SockProtocol) -> io::Result<Self> {
        within(path, move || Self::open(protocol))?
    }

    /// Sequence number for the next message.
    pub(crate) fn next_seq(&mut self) -> u32 {
        self.seq += 1;
        self.seq
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn request(
        &mut self,
        what: &'static str,
        (kind, flags): (u16, u16),
        fixed: &[u8],
        body: impl FnOnce(&mut Buffer),
    ) -> Result<(), Error> {
        self.ask(what, (kind, flags | ACK), fixed, body, |_| ())
    }

    /// Sends one request and hands what comes before its acknowledgement to `each`.
    pub(crate) fn query(
        &mut self,
        what: &'static str,
        kind: u16,
        fixed: &[u8],
        body: impl FnOnce(&mut Buffer),
        each: impl FnMut(&Reply<'_>),
    ) -> Result<(), Error> {
        self.ask(what, (kind, ACK), fixed, body, each)
    }

    /// Waits for a message of a subscribed group. False when none came within `timeout`.
    pub(crate) fn event(&mut self, timeout: Duration) -> io::Result<bool> {
        setsockopt(&self.fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(timeout.as_millis() as i64 + 1))?;
        match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
            // Too many events to keep: that is one, too.
            Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends one dump request and hands every answer to `each`.
    pub(crate) fn dump(
        &mut self,
        what: &'static str,
        kind: u16,
        fixed: &[u8],
        body: impl FnOnce(&mut Buffer),
        each: impl FnMut(&Reply<'_>),
    ) -> Result<(), Error> {
        self.ask(what, (kind, DUMP), fixed, body, each)
    }

    /// Sends one message and hands its answers to `each`.
    fn ask(
        &mut self,
        what: &'static str,
        (kind, flags): (u16, u16),
        fixed: &[u8],
        body: impl FnOnce(&mut Buffer),
        each: impl FnMut(&Reply<'_>),
    ) -> Result<(), Error> {
        let seq = self.next_seq();
        let mut buffer = Buffer::default();
        buffer.message(kind, flags, seq, fixed, body);
        self.exchange(what, &buffer, seq, each)
    }

    /// Sends `buffer` and reads until message `last` is answered. The first error wins.
    pub(crate) fn exchange(
        &mut self,
        what: &'static str,
        buffer: &Buffer,
        last: u32,
        mut each: impl FnMut(&Reply<'_>),
    ) -> Result<(), Error> {
        let socket_error = |errno: Errno| Error::Socket { what, source: errno.into() };
        // A batch must fit into one kernel buffer; the accounting counts twice the size and some overhead.
        if buffer.len() > 64 * 1024 {
            setsockopt(&self.fd, sockopt::SndBufForce, &(buffer.len() * 2 + (1 << 20))).map_err(socket_error)?;
        }
        sendto(self.fd.as_raw_fd(), buffer.as_slice(), &NetlinkAddr::new(0, 0), MsgFlags::empty()).map_err(socket_error)?;
        let mut failure = None;
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(errno) => {
                    // Of too many answers the first ones are there: those that were refused are told from those that were lost.
                    let rest = self.drain(what);
                    return Err(failure.or(rest).unwrap_or(socket_error(errno)));
                }
            };
            for reply in replies(&self.buffer[..length]) {
                let end = match i32::from(reply.kind) {
                    libc::NLMSG_ERROR => {
                        failure = failure.or(error_of(what, &reply));
                        reply.seq == last
                    }
                    libc::NLMSG_DONE => reply.seq == last,
                    _ => {
                        each(&reply);
                        false
                    }
                };
                if end {
                    return failure.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Takes what has been answered, which the next request would take for its own answer. Returns the first error.
    fn drain(&mut self, what: &'static str) -> Option<Error> {
        let mut failure = None;
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let mut errors = replies(&self.buffer[..length]).filter(|reply| i32::from(reply.kind) == libc::NLMSG_ERROR);
                    failure = failure.or_else(|| errors.find_map(|reply| error_of(what, &reply)));
                }
                Err(Errno::EINTR | Errno::ENOBUFS) => (),
                Err(_) => return failure,
            }
        }
    }

    /// Sets the size of a buffer: of that which requests must fit into, or of that for answers, of which it then loses some when there are many at once.
    #[cfg(test)]
    pub(crate) fn limit(&self, buffer: impl nix::sys::socket::SetSockOpt<Val = usize>, bytes: usize) {
        setsockopt(&self.fd, buffer, &bytes).expect("test socket");
    }
}

/// The error that an NLMSG_ERROR carries, none for an acknowledgement.
fn error_of(what: &'static str, reply: &Reply<'_>) -> Option<Error> {
    let code = i32::from_ne_bytes(reply.payload.get(..4)?.try_into().ok()?);
    if code == 0 {
        return None;
    }
    Some(Error::Kernel { what, errno: Errno::from_raw(-code), seq: reply.seq })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn builder_and_reader_agree() {
        let mut buffer = Buffer::default();
        buffer.message(7, CREATE, 42, &[9, 9, 9], |b| {
            b.string(1, "abc");
            b.nested(2, |b| b.be32(3, 0x0102_0304));
        });
        let all: Vec<_> = replies(buffer.as_slice()).collect();
        assert_eq!((all.len(), all[0].kind, all[0].seq), (1, 7, 42));
        let body = &all[0].payload[4..];
        assert_eq!(attribute(body, 1), Some(&b"abc\0"[..]));
        assert_eq!(attribute(attribute(body, 2).unwrap(), 3), Some(&[1, 2, 3, 4][..]));
        assert_eq!(attributes(&[200, 0, 1, 0]).count(), 0, "a length beyond the end ends the iteration");
    }
}
