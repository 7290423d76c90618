//! Names while the name servers of the machine are away, and once they are back.
#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use testing::{Cluster, eventually, machine};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
/// Longer than resolvers of clients wait (resolv.conf, `timeout:5`).
const WAIT: Duration = Duration::from_secs(10);
const NO_ERROR: u8 = 0;
const SERVFAIL: u8 = 2;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: asks}
spec:
  nodeName: n2
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: '127.0.0.1:5000/busybox:1.36', command: [sleep, '3600']}]
"#;

/// A question for the IPv4 address of a name (RFC 1035, 4.1).
fn question(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    let head = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    head.into_iter().chain(labels).chain([0, 0, 1, 0, 1]).collect()
}

/// The answer to a question, as one that only holds for a second unless the name says that it may be kept.
fn answer(question: &[u8]) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let has_address = question[end - 4..end] == [0, 1, 0, 1];
    let ttl = if question[12..].starts_with(b"\x04kept") { 250 } else { 1 };
    let mut reply = [&question[..2], &[0x81, 0x80, 0, 1, 0, u8::from(has_address), 0, 0, 0, 0], &question[12..end]].concat();
    if has_address {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl, 0, 4, 192, 0, 2, 7]);
    }
    reply
}

/// The name server of all machines.
struct Upstream {
    end: Arc<AtomicBool>,
    silent: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Upstream {
    fn start() -> Self {
        let socket = UdpSocket::bind((machine::ADDRESS, 53)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (end, silent) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (ended, silenced) = (end.clone(), silent.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while !ended.load(Ordering::Relaxed) {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                if !silenced.load(Ordering::Relaxed) {
                    socket.send_to(&answer(&buffer[..length]), peer).unwrap();
                }
            }
        });
        Self { end, silent, thread }
    }

    /// Nobody listens any more.
    fn stop(self) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Sends a question to the cluster DNS of this node.
fn ask(dns: SocketAddr, name: &str) -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket.connect(dns).unwrap();
    socket.send(&question(name)).unwrap();
    socket
}

/// The code of the answer.
fn code(asked: &UdpSocket) -> u8 {
    let mut buffer = [0; 512];
    let length = asked.recv(&mut buffer).expect("an answer before clients give up");
    assert!(length > 12);
    buffer[3] & 15
}

/// RFC 9520, 3.2: "Resolvers MUST implement a cache for resolution failures", for "at least 1 second".
#[test]
fn name_servers_are_lost_and_come_back() {
    let mut c = Cluster::prepare(KNARR);
    let file = c.scratch().join("resolv.conf");
    std::fs::write(&file, format!("nameserver {}\n", machine::ADDRESS)).unwrap();
    assert!(c.machine().command(Path::new("mount")).arg("--bind").arg(&file).arg("/etc/resolv.conf").status().unwrap().success());
    c.add_host(2);
    c.start_server();
    c.start_agent(2);
    c.wait_nodes(2);
    c.k_with("apply -f -", POD);
    c.k("wait --for=condition=Ready pod/asks --timeout=60s");
    let dns: SocketAddr =
        format!("{}:53", c.k("get service kube-dns -n kube-system -o jsonpath={.spec.clusterIP}")).parse().unwrap();
    let from_pod = |name: &str| c.try_kubectl(&["exec", "asks", "--", "nslookup", name]).code == Some(0);
    let (outside, kept, inside) = ("www.example.com", "kept.example.com", "kubernetes.default.svc.cluster.local");
    let mut upstream = Upstream::start();
    for name in [outside, kept, inside] {
        eventually(&format!("{name} resolves"), || (code(&ask(dns, name)) == NO_ERROR).then_some(()));
        eventually(&format!("{name} from a pod"), || from_pod(name).then_some(()));
    }
    let mut times = Vec::new();
    for round in 0..2 {
        // It is still there and says nothing, or the machine says that nobody listens.
        upstream.silent.store(true, Ordering::Relaxed);
        let silent = match round {
            0 => Some(upstream),
            _ => {
                upstream.stop();
                None
            }
        };
        let lost = format!("lost{round}.example.com");
        let asked = ask(dns, &lost);
        // Names of the cluster, and what is known already, are told while others wait.
        for _ in 0..20 {
            assert_eq!((code(&ask(dns, inside)), code(&ask(dns, kept))), (NO_ERROR, NO_ERROR));
        }
        if round == 0 {
            asked.set_nonblocking(true).unwrap();
            assert_eq!(asked.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "{lost} is asked for all the time");
            asked.set_nonblocking(false).unwrap();
        }
        eventually(&format!("{inside} from a pod"), || from_pod(inside).then_some(()));
        assert_eq!(code(&asked), SERVFAIL);
        let start = Instant::now();
        upstream = silent.unwrap_or_else(Upstream::start);
        upstream.silent.store(false, Ordering::Relaxed);
        eventually(&format!("{lost} resolves"), || (code(&ask(dns, &lost)) == NO_ERROR).then_some(()));
        times.push(start.elapsed());
        eventually("also from pods", || from_pod(&lost).then_some(()));
    }
    println!("names resolved again after {times:?}");
    // Before clients give up. What others do on the machine may hold up one of the two.
    assert!(times.iter().min() < Some(&WAIT), "{times:?}");
    upstream.stop();
}
