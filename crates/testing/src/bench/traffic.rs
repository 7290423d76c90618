//! Throughput between two pods of a node, and between the ends of a plain veth pair, one after the other.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use network::hosts::within;
use nix::sched::{CloneFlags, unshare};

use super::alone::{command, row};

const TIME: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
const PORT: u16 = 5201;

/// Measures both, the better of some rounds of each.
pub fn measure() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let directory = tempfile::tempdir()?;
    let (pods, bare) = ([Namespace::new()?, Namespace::new()?], [Namespace::new()?, Namespace::new()?]);
    let options = network::Options {
        holders: Vec::new(),
        mtu: Some(1500),
        ..network::Options::new(directory.path(), vec!["10.42.0.0/24".parse()?], vec!["10.43.0.0/16".parse()?])
    };
    let address = runtime.block_on(async {
        let network = network::PodNetwork::start(options).await?;
        network.attach("one", &pods[0].path, &network::Attachment::default()).await?;
        let addresses = network.attach("two", &pods[1].path, &network::Attachment::default()).await?;
        addresses.first().copied().context("a pod has an address")
    })?;
    let plain = plain_pair(&bare)?;
    let (mut best_pods, mut best_plain) = (0.0_f64, 0.0_f64);
    for _ in 0..ROUNDS {
        best_pods = best_pods.max(throughput(&pods, address)?);
        best_plain = best_plain.max(throughput(&bare, plain)?);
    }
    row("TCP between two pods of a node", "", format!("{:.1} Gbit/s", best_pods * 8.0 / 1e9));
    row("... as a part of that of a plain veth pair", "95 %", format!("{:.0} %", best_pods / best_plain * 100.0));
    Ok(())
}

/// A network namespace that lives as long as this value.
struct Namespace {
    path: PathBuf,
    _file: File,
}

impl Namespace {
    fn new() -> Result<Self> {
        let made = std::thread::Builder::new().spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })?;
        let file = made.join().map_err(|_| anyhow::anyhow!("the thread of a namespace panicked"))??;
        let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
        Ok(Self { path, _file: file })
    }
}

/// Connects two namespaces with a veth pair; the address of the second.
fn plain_pair([one, two]: &[Namespace; 2]) -> Result<IpAddr> {
    let address = |host| IpAddr::from(Ipv4Addr::new(192, 0, 2, host));
    let pid = std::process::id();
    let end = |namespace: &Namespace| namespace.path.to_string_lossy().replace("self", &pid.to_string());
    command(&format!(
        "ip link add bench0 type veth peer name bench1 && ip link set bench0 netns {} && ip link set bench1 netns {}",
        end(one),
        end(two)
    ))?;
    for (namespace, name, host) in [(one, "bench0", 1), (two, "bench1", 2)] {
        let line = format!("ip address add {}/24 dev {name} && ip link set {name} up", address(host));
        within(&namespace.path, move || command(&line))??;
    }
    Ok(address(2))
}

/// Bytes a second from the first namespace to an address in the second.
fn throughput([from, to]: &[Namespace; 2], address: IpAddr) -> Result<f64> {
    let listener = within(&to.path, move || TcpListener::bind((address, PORT)))??;
    let reader = std::thread::Builder::new().spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let (mut buffer, mut total) = (vec![0; 256 << 10], 0_u64);
        loop {
            match stream.read(&mut buffer)? {
                0 => return std::io::Result::Ok(total),
                length => total += length as u64,
            }
        }
    })?;
    let mut stream = within(&from.path, move || TcpStream::connect((address, PORT)))??;
    let (start, block) = (Instant::now(), vec![0; 256 << 10]);
    while start.elapsed() < TIME {
        stream.write_all(&block)?;
    }
    drop(stream);
    let total = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    Ok(total as f64 / start.elapsed().as_secs_f64())
}
