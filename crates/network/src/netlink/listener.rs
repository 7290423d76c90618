//! Messages of multicast groups, for those who wait for what others change.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, setsockopt, socket};
use tokio::net::UnixDatagram;

/// A socket that hears of changes from now on, in the network namespace of the calling thread.
pub(crate) struct Listener {
    socket: UnixDatagram,
    buffer: Vec<u8>,
}

/// Most bytes of what the kernel tells at once.
const MESSAGES: usize = 64 << 10;

impl Listener {
    /// For these groups (a bit mask), with room for so many bytes of messages that are still to be read.
    pub(crate) fn open(protocol: SockProtocol, groups: u32, room: usize) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        // With less room it only misses more.
        let _ = setsockopt(&fd, RcvBufForce, &room);
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self { socket: UnixDatagram::from_std(fd.into())?, buffer: vec![0; MESSAGES] })
    }

    /// Waits until `find` sees something in messages. What comes together is told together, by the greatest. When there were more messages
    /// than could be read, that is `missed`.
    pub(crate) async fn find<T: Ord>(&mut self, missed: T, find: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
        let Self { socket, buffer } = self;
        let mut missed = Some(missed);
        loop {
            let received = socket.recv(buffer).await;
            let mut found = look(received, buffer, &mut missed, &find)?;
            loop {
                match socket.try_recv(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    received => found = found.max(look(received, buffer, &mut missed, &find)?),
                }
            }
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }
}

fn look<T>(
    received: io::Result<usize>,
    buffer: &[u8],
    missed: &mut Option<T>,
    find: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    match received {
        Ok(length) => Ok(find(&buffer[..length])),
        Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => Ok(missed.take()),
        Err(error) => Err(error),
    }
}
