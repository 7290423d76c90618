//! The host's name servers, from its resolv.conf.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// What systemd-resolved forwards to, while resolv.conf names its own stub.
const SYSTEMD: &str = "/run/systemd/resolve/resolv.conf";
/// A changed file is noticed by the first question after this long.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Name servers of a file, read again when the file changes.
pub(crate) struct HostServers {
    path: PathBuf,
    own: Vec<SocketAddr>,
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    checked: Option<Instant>,
    modified: Option<SystemTime>,
    servers: Vec<SocketAddr>,
}

impl HostServers {
    /// Servers of the file at `path` other than ourselves, who listen on `own`.
    pub(crate) fn new(path: &Path, own: Vec<SocketAddr>) -> Self {
        Self { path: path.to_owned(), own, read: Mutex::default() }
    }

    /// The servers now, in the file's order.
    pub(crate) fn servers(&self) -> Vec<SocketAddr> {
        let mut read = self.read.lock();
        if read.checked.is_none_or(|checked| checked.elapsed() > CHECK_EVERY) {
            let modified = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
            if modified != read.modified || read.checked.is_none() {
                read.servers = self.load();
                read.modified = modified;
            }
            read.checked = Some(Instant::now());
        }
        read.servers.clone()
    }

    fn load(&self) -> Vec<SocketAddr> {
        let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        choose(&text(&self.path), &text(Path::new(SYSTEMD)), &self.own)
    }
}

/// The servers of `text` that are not `own`; those behind the stub of systemd-resolved when there is nothing else than it.
fn choose(text: &str, behind_stub: &str, own: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_own = |server: &SocketAddr| {
        own.iter().any(|own| {
            own.port() == server.port() && (own.ip() == server.ip() || own.ip().is_unspecified() && server.ip().is_loopback())
        })
    };
    let servers: Vec<SocketAddr> = parse(text).filter(|server| !is_own(server)).collect();
    let behind: Vec<SocketAddr> = parse(behind_stub).filter(|server| !is_own(server)).collect();
    if servers.iter().all(|server| server.ip().is_loopback()) && !behind.is_empty() { behind } else { servers }
}

fn parse(text: &str) -> impl Iterator<Item = SocketAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then_some(())?;
        let address: IpAddr = words.next()?.split('%').next()?.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(text: &str, behind: &str, own: &str, expected: &[&str]) {
        let servers = choose(text, behind, &[own.parse().unwrap()]);
        assert_eq!(servers.iter().map(|server| server.ip().to_string()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn never_asks_itself() {
        let host = "# comment\nsearch x\nnameserver 10.43.0.10\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver bad\n";
        check(host, "", "10.43.0.10:53", &["192.0.2.53", "fe80::1"]);
        check("nameserver 127.0.0.53", "nameserver 192.0.2.1", "10.43.0.10:53", &["192.0.2.1"]);
        check("nameserver 127.0.0.53", "", "10.43.0.10:53", &["127.0.0.53"]);
        check("nameserver 127.0.0.53", "", "0.0.0.0:53", &[]);
        check("nameserver 127.0.0.53", "", "0.0.0.0:5353", &["127.0.0.53"]);
        check("", "", "0.0.0.0:53", &[]);
    }
}
