//! pebble, an ACME server for tests, with a DNS in which every name is this machine.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use base::tls::{Authority, Request};
use serde_json::json;

use crate::eventually;
use crate::programs::fetched;

/// What a test asks of it.
pub struct PebbleOptions<'a> {
    /// Signs the certificate of the server itself.
    pub authority: &'a Authority,
    /// The port of this machine at which it looks for proofs over HTTP.
    pub proofs: u16,
    /// How many seconds its certificates are valid.
    pub validity: u64,
}

/// The server. It ends with this value.
pub struct Pebble {
    processes: [Running; 2],
    /// The URL of its directory.
    pub url: String,
    /// File with the authority of its own certificate.
    pub authority: PathBuf,
}

/// Ports from which [`free_port`] chooses, below those that the kernel gives to outgoing connections and to listeners of port 0 (32768 to
/// 60999, ip_sysctl): one of these could be taken between the choice and its use.
const PORTS: std::ops::Range<u32> = 12_000..28_000;
/// How many of them a process looks at before it comes to those of the next one.
const OF_PROCESS: u32 = 16;

/// A port that nobody has at the moment, another one each time.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(OF_PROCESS);
    let ports = PORTS.map(|_| first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32 + PORTS.start);
    let mut ports = ports.map(|port| u16::try_from(port).unwrap());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// A program that runs, and what it says.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, log }
    }

    /// Waits until it listens at a port of this machine. A program that has ended never will.
    fn listens(&mut self, port: u16) {
        eventually("a port of pebble is open", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", fs::read_to_string(&self.log).unwrap());
            }
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
    }
}

impl Pebble {
    /// Starts it in the calling thread's network, with its files in a directory.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(directory: &Path, options: &PebbleOptions<'_>) -> Self {
        fs::create_dir_all(directory).unwrap();
        let programs = fetched("pebble/usr/bin", "KNARR_PEBBLE", "pebble");
        let identity =
            options.authority.issue(&Request::Server { name: "pebble".into(), sans: vec!["127.0.0.1".into()] }).unwrap();
        let path = |name: &str| directory.join(name);
        fs::write(path("authority"), options.authority.bundle()).unwrap();
        fs::write(path("crt"), identity.certificate).unwrap();
        fs::write(path("key"), identity.key).unwrap();
        let [listen, management, dns, control] = [free_port(), free_port(), free_port(), free_port()];
        let local = |port: u16| format!("127.0.0.1:{port}");
        let config = json!({"pebble": {"listenAddress": local(listen), "managementListenAddress": local(management),
            "certificate": path("crt"), "privateKey": path("key"), "httpPort": options.proofs, "tlsPort": options.proofs,
            "ocspResponderURL": "", "externalAccountBindingRequired": false, "retryAfter": {"authz": 1, "order": 1},
            "profiles": {"default": {"description": "the only one", "validityPeriod": options.validity}}}});
        fs::write(path("json"), config.to_string()).unwrap();
        let mut names = Command::new(programs.join("pebble-challtestsrv"));
        names.args([
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-doh",
            "",
            "-defaultIPv6",
            "",
            "-defaultIPv4",
            "127.0.0.1",
        ]);
        names.args(["-dnsserver", &local(dns), "-management", &local(control)]);
        let mut pebble = Command::new(programs.join("pebble"));
        pebble.arg("-config").arg(path("json")).args(["-dnsserver", &local(dns)]).env("PEBBLE_VA_NOSLEEP", "1");
        let mut processes = [Running::start(&mut names, path("names.log")), Running::start(&mut pebble, path("pebble.log"))];
        for (process, port) in processes.iter_mut().zip([dns, listen]) {
            process.listens(port);
        }
        Self { processes, url: format!("https://{}/dir", local(listen)), authority: path("authority") }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended already.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}
