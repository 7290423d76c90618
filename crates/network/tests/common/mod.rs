//! A network namespace for the test itself and more for its pods. All vanish with their threads and descriptors.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

/// Moves the calling thread, and those that it starts, to a new network namespace with its loopback interface
/// up. False when not root: the test must say so and end.
pub fn isolate() -> bool {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: this test needs root for network namespaces");
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    sh("ip link set lo up");
    true
}

/// Runs a shell command in this thread's namespace and returns its output.
pub fn sh(command: &str) -> String {
    let output = std::process::Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A namespace for a pod, held by a descriptor.
pub struct Netns(File);

impl Netns {
    pub fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(made.join().unwrap())
    }

    /// The namespace of the calling thread.
    pub fn current() -> Self {
        Self(File::open("/proc/thread-self/ns/net").unwrap())
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    /// Runs `work` on a thread in the namespace.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let netns = self.0.try_clone().unwrap();
        std::thread::spawn(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work).join().unwrap()
    }

    /// Answers every TCP connection to `port` with `name` and the client's address, and every datagram likewise.
    pub fn serve(&self, address: IpAddr, port: u16, name: &'static str) {
        let (tcp, udp) =
            self.run(move || (TcpListener::bind((address, port)).unwrap(), UdpSocket::bind((address, port)).unwrap()));
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap().ip();
                let _ = write!(stream, "{name} {peer}");
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
            }
        });
    }
}

/// What the server at `address` says, or the kind of error.
pub fn tcp(address: impl Into<SocketAddr>) -> Result<String, std::io::ErrorKind> {
    let read = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|error| error.kind())
}

/// Sends a datagram from `socket` and waits for the answer.
pub fn udp(socket: &UdpSocket, address: SocketAddr) -> Result<String, std::io::ErrorKind> {
    let ask = || -> std::io::Result<String> {
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.send_to(b"?", address)?;
        let mut buffer = [0; 64];
        let (length, _) = socket.recv_from(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    ask().map_err(|error| error.kind())
}
