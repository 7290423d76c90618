//! Tells of changes of the machine's addresses and routes.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use tokio::net::UnixDatagram;

// linux/rtnetlink.h: RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;

/// Changes from now on, in the calling thread's network namespace. Messages are received as from any socket of datagrams; what is in
/// them does not matter.
pub struct Changes(UnixDatagram);

impl Changes {
    /// Begins to listen.
    pub fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self(UnixDatagram::from_std(fd.into())?))
    }

    /// Waits until something has changed. Several changes may be told as one.
    pub async fn next(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 16 << 10];
        harmless(self.0.recv(&mut buffer).await)?;
        loop {
            match self.0.try_recv(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                received => harmless(received)?,
            }
        }
    }
}

/// Too many changes to keep are a change, too.
fn harmless(received: io::Result<usize>) -> io::Result<()> {
    match received {
        Err(error) if error.raw_os_error() != Some(Errno::ENOBUFS as i32) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_new_address_is_told() {
        let alone = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                let mut changes = Changes::new().unwrap();
                let mut links = super::super::open_links().unwrap();
                let lo = links.link("lo").unwrap().unwrap();
                links.add_address(lo.index, "192.0.2.1".parse().unwrap(), 32).unwrap();
                changes.next().await.unwrap();
            });
        });
        alone.join().unwrap();
    }
}
