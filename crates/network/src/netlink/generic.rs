//! Generic netlink: families of messages that have names, whose numbers the kernel gives when it starts or loads them.

use std::io;

use nix::sys::socket::SockProtocol;

use super::{Buffer, Error, Reply, Socket, attribute};

// linux/genetlink.h
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// struct genlmsghdr
const HEADER: usize = 4;

/// A family of messages, in the network namespace in which it was opened.
pub(crate) struct Family {
    socket: Socket,
    number: u16,
}

impl Family {
    /// The family of this name. The kernel says `ENOENT` of one that it does not have.
    pub(crate) fn open(what: &'static str, name: &str) -> Result<Self, Error> {
        let mut socket = Socket::open(SockProtocol::NetlinkGeneric).map_err(|source| Error::Socket { what, source })?;
        let mut number = None;
        socket.query(
            what,
            CONTROLLER,
            &[GET_FAMILY, 1, 0, 0],
            |b| b.string(FAMILY_NAME, name),
            |reply| number = attributes(reply).and_then(|all| attribute(all, FAMILY_ID)?.try_into().ok()).map(u16::from_ne_bytes),
        )?;
        let none = || Error::Socket { what, source: io::ErrorKind::InvalidData.into() };
        Ok(Self { socket, number: number.ok_or_else(none)? })
    }

    /// Sends a command of the first version and waits for its acknowledgement.
    pub(crate) fn request(&mut self, what: &'static str, command: u8, body: impl FnOnce(&mut Buffer)) -> Result<(), Error> {
        self.socket.request(what, (self.number, 0), &[command, 1, 0, 0], body)
    }

    /// Sends a command that lists, and hands the attributes of every answer to `each`.
    pub(crate) fn dump(
        &mut self,
        what: &'static str,
        command: u8,
        body: impl FnOnce(&mut Buffer),
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        self.socket.dump(what, self.number, &[command, 1, 0, 0], body, |reply| attributes(reply).into_iter().for_each(&mut each))
    }
}

fn attributes<'a>(reply: &Reply<'a>) -> Option<&'a [u8]> {
    reply.payload.get(HEADER..)
}
