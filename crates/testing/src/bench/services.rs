//! The service proxy alone, with the API that tests use: what it takes until all services are in the kernel, for one change, and for the
//! first packet of a connection.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base::readiness::Readiness;
use base::tasks::{OnFailure, Tasks};
use client::Informers;
use client::fake::Fake;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use network::nft::table::Table;
use serde_json::json;

use super::alone::{self, at_percent, command, row};
use super::usage;

const MANY: usize = 10_000;
const FEW: usize = 10;
const ENDPOINTS: usize = 5;
const CHANGES: usize = 50;
const CONNECTIONS: usize = 2000;
/// Where all endpoints listen.
const PORT: u16 = 8080;
/// How long a change may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures with few services and with many.
pub fn measure() -> Result<()> {
    for count in [FEW, MANY] {
        alone::run("proxied", &[count.to_string()])?;
    }
    Ok(())
}

/// Measures with so many services, in the network namespace of whoever asks.
pub fn proxied(arguments: &[String]) -> Result<()> {
    let count: usize = arguments.first().context("a number of services")?.parse()?;
    // A network namespace of its own again: the table has one owner.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    command("ip link set lo up && ip route add local 10.42.0.0/16 dev lo")?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    std::thread::Builder::new().spawn(move || listener.incoming().for_each(drop))?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(count))
}

async fn run(count: usize) -> Result<()> {
    let (tasks, _failures) = Tasks::root();
    let directory = tempfile::tempdir()?;
    let fake = Fake::default();
    for number in 0..count {
        fake.put(&service(number));
        fake.put(&slice(number, ENDPOINTS));
    }
    let options = network::Options {
        cluster_cidrs: vec!["10.42.0.0/16".parse()?],
        holders: vec![network::nft::table::Holder::Services],
        ..network::Options::new(directory.path(), vec!["10.42.255.0/24".parse()?], vec!["10.43.0.0/16".parse()?])
    };
    let network = network::PodNetwork::start(options).await?;
    let pid = std::process::id().cast_signed();
    let before = usage::forget_peak(pid)?;
    let start = Instant::now();
    // The caches of Services and slices are those of the whole node: what they take is told apart.
    let informers = Informers::new(fake.client(), tasks.clone());
    let (services, slices) = (informers.of::<Service>(), informers.of::<EndpointSlice>());
    services.synced().await;
    slices.synced().await;
    let (caches, with_caches) = (usage::peak(pid), usage::forget_peak(pid)?);
    follow(&informers, network.table().clone(), &tasks).await?;
    let of = |what: &str| format!("{count} services of {ENDPOINTS} endpoints: {what}");
    row(&of("first sync"), "2 s", format!("{:.0} ms", start.elapsed().as_secs_f64() * 1e3));
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    row("... memory of the node's caches of them, at its peak", "", megabytes(caches.saturating_sub(before)));
    row(
        "... memory that the proxy takes beside them, at its peak",
        "100 MB",
        megabytes(usage::peak(pid).saturating_sub(with_caches)),
    );
    let settled = usage::forget_peak(pid)?;
    row("... and afterwards", "", megabytes(settled.saturating_sub(with_caches)));
    let mut changes = tokio::task::block_in_place(|| changes(&fake, count))?;
    let median = at_percent(&mut changes, 50);
    row("... one change until a connection finds it, median", "5 ms", format!("{:.1} ms", f64::from(median) / 1e3));
    row("... the slowest of 50", "", format!("{:.1} ms", f64::from(at_percent(&mut changes, 100)) / 1e3));
    let mut times = tokio::task::block_in_place(|| connections(count))?;
    row("... a connection by a cluster address, median", "flat", format!("{} us", at_percent(&mut times, 50)));
    tasks.drain(Duration::from_secs(1)).await;
    Ok(())
}

/// Starts the proxy, and returns when all services are in the kernel.
async fn follow(informers: &Informers, table: Table, tasks: &Tasks) -> Result<()> {
    let readiness = Readiness::default();
    let options = network::proxy::Options {
        node_name: "n1".into(),
        node_client: informers.client().clone(),
        pod_cidrs: vec!["10.42.255.0/24".parse()?],
        inner_cidrs: vec!["10.42.0.0/16".parse()?, "10.43.0.0/16".parse()?],
        listen: network::proxy::Listen::default(),
    };
    let run = network::proxy::run(options, informers.clone(), table, readiness.gate("service-proxy"), tasks.clone());
    tasks.spawn_until_cancelled("service proxy", OnFailure::Log, async { run.await.map(|never| match never {}) });
    readiness.wait(&["service-proxy"]).await;
    Ok(())
}

/// Gives services that had no endpoint one, each time another service, and waits until it answers. Microseconds.
fn changes(fake: &Fake, count: usize) -> Result<Vec<u32>> {
    let mut times = Vec::new();
    for round in 0..CHANGES {
        let number = round * 7 % count;
        fake.put(&slice(number, 0));
        let refused = until(|| TcpStream::connect_timeout(&address(number), PATIENCE).is_err());
        refused.context("a service without endpoints goes on answering")?;
        fake.put(&slice(number, 1));
        let taken = until(|| TcpStream::connect_timeout(&address(number), PATIENCE).is_ok());
        times.push(u32::try_from(taken.context("a service with an endpoint does not answer")?.as_micros())?);
    }
    Ok(times)
}

/// How long it takes until a condition holds.
fn until(mut holds: impl FnMut() -> bool) -> Option<Duration> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if holds() {
            return Some(start.elapsed());
        }
    }
    None
}

/// Microseconds that connections take to be there.
fn connections(count: usize) -> Result<Vec<u32>> {
    let connect = |number: usize| {
        let start = Instant::now();
        TcpStream::connect(address(number * 31 % count))?;
        Ok(u32::try_from(start.elapsed().as_micros())?)
    };
    (0..CONNECTIONS).map(connect).collect()
}

/// The address of a service.
fn address(number: usize) -> SocketAddr {
    (Ipv4Addr::from(0x0a2b_0100 + number as u32), 80).into()
}

fn service(number: usize) -> Service {
    let port = json!({"name": "web", "port": 80, "targetPort": PORT, "protocol": "TCP"});
    let spec = json!({"clusterIP": address(number).ip(), "clusterIPs": [address(number).ip()], "ports": [port]});
    let metadata = json!({"namespace": "bench", "name": format!("s{number}"), "creationTimestamp": "2026-01-01T00:00:00Z"});
    object(&json!({"metadata": metadata, "spec": spec}))
}

fn slice(number: usize, endpoints: usize) -> EndpointSlice {
    let name = format!("s{number}");
    let address = |index: usize| Ipv4Addr::from(0x0a2a_0100 + (number * ENDPOINTS + index) as u32);
    let endpoints: Vec<_> =
        (0..endpoints).map(|index| json!({"addresses": [address(index)], "conditions": {"ready": true}})).collect();
    let metadata = json!({"namespace": "bench", "name": format!("{name}-x"), "labels": {"kubernetes.io/service-name": name}});
    let ports = json!([{"name": "web", "port": PORT, "protocol": "TCP"}]);
    object(&json!({"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints}))
}

/// An object of a type that the test knows.
#[allow(clippy::expect_used, reason = "the literals above are objects")]
fn object<K: serde::de::DeserializeOwned>(value: &serde_json::Value) -> K {
    serde_json::from_value(value.clone()).expect("an object of this kind")
}
