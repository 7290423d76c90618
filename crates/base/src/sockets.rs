//! Options of TCP connections that last, by which an end that is gone is noticed.
//!
//! Without them the kernel sends again for a quarter of an hour what nobody acknowledges, with pauses that double up to two minutes, and never
//! asks an end that owes nothing. client-go's connections have HTTP/2 pings (30 s of silence, 15 s for the answer) and Go's keep-alive.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

/// Silence after which the kernel asks the other end whether it is there, time between two questions, and questions without an answer after which
/// it is gone: a minute in all.
const KEEP_ALIVE: (u32, u32, u32) = (30, 10, 3);

/// How long what was sent may stay unacknowledged: a node renews its lease every ten seconds, and is taken for dead after forty.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// For a connection that may last: what is small is sent at once, and an end that is gone is noticed while nothing is sent.
///
/// # Errors
/// The kernel refuses an option. Without it, the connection works all the same.
pub fn keep_alive(stream: &impl AsFd) -> io::Result<()> {
    setsockopt(stream, sockopt::TcpNoDelay, &true)?;
    let (idle, interval, count) = KEEP_ALIVE;
    setsockopt(stream, sockopt::TcpKeepIdle, &idle)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &interval)?;
    setsockopt(stream, sockopt::TcpKeepCount, &count)?;
    Ok(setsockopt(stream, sockopt::KeepAlive, &true)?)
}

/// Like [`keep_alive`], and given up when what was sent is not acknowledged (TCP_USER_TIMEOUT): rather a new connection than one whose pauses
/// get longer with each packet that is lost. Only for a connection whose other end always reads, as those of HTTP/2 do: the kernel
/// counts the pauses of a reader, too.
///
/// # Errors
/// As [`keep_alive`].
pub fn keep_alive_and_time_out(stream: &impl AsFd) -> io::Result<()> {
    keep_alive(stream)?;
    let most = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
    Ok(setsockopt(stream, sockopt::TcpUserTimeout, &most)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::sys::socket::getsockopt;

    #[test]
    fn options_are_set() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        keep_alive(&stream).unwrap();
        assert!(getsockopt(&stream, sockopt::TcpNoDelay).unwrap() && getsockopt(&stream, sockopt::KeepAlive).unwrap());
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepIdle).unwrap(), 30);
        assert_eq!(getsockopt(&stream, sockopt::TcpUserTimeout).unwrap(), 0, "whoever reads may pause");
        keep_alive_and_time_out(&stream).unwrap();
        assert_eq!(getsockopt(&stream, sockopt::TcpUserTimeout).unwrap(), 10_000);
    }
}
