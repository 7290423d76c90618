//! pebble, an ACME server for tests, with a DNS in which every name is this machine.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base::tls::{Authority, Request};
use serde_json::json;

use crate::eventually;
use crate::programs::fetched;

/// The server. It ends with this value.
pub struct Pebble {
    processes: [Child; 2],
    /// The URL of its directory.
    pub url: String,
    /// File with the authority of its own certificate.
    pub authority: PathBuf,
}

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Pebble {
    /// Starts it in the calling thread's network, with its files in a directory. It looks for proofs over HTTP at port 80 of this machine.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let programs = fetched("pebble/usr/bin", "KNARR_PEBBLE", "pebble");
        let authority = Authority::in_memory("pebble").unwrap();
        let identity = authority.issue(&Request::Server { name: "pebble".into(), sans: vec!["127.0.0.1".into()] }).unwrap();
        let path = |name: &str| directory.join(name);
        fs::write(path("authority"), authority.bundle()).unwrap();
        fs::write(path("crt"), identity.certificate).unwrap();
        fs::write(path("key"), identity.key).unwrap();
        let [listen, management, dns, control] = [port(), port(), port(), port()];
        let local = |port: u16| format!("127.0.0.1:{port}");
        let options = json!({"pebble": {"listenAddress": local(listen), "managementListenAddress": local(management),
            "certificate": path("crt"), "privateKey": path("key"), "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "",
            "externalAccountBindingRequired": false}});
        fs::write(path("json"), options.to_string()).unwrap();
        let spawn =
            |command: &mut Command| command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut names = Command::new(programs.join("pebble-challtestsrv"));
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", "", "-defaultIPv4", "127.0.0.1"]);
        names.args(["-dns01", &local(dns), "-management", &local(control)]);
        let mut pebble = Command::new(programs.join("pebble"));
        pebble.arg("-config").arg(path("json")).args(["-dnsserver", &local(dns)]).env("PEBBLE_VA_NOSLEEP", "1");
        let processes = [spawn(&mut names), spawn(&mut pebble)];
        for port in [dns, listen] {
            eventually("pebble listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        }
        Self { processes, url: format!("https://{}/dir", local(listen)), authority: path("authority") }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
