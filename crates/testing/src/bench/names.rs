//! Cluster DNS alone, on one core, with 10,000 services, asked from another core.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base::readiness::Readiness;
use base::tasks::Tasks;
use client::Informers;
use client::fake::Fake;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::alone::{Serving, at_percent, row, stay_on};
use super::usage;

const SERVICES: usize = 10_000;
const TIME: Duration = Duration::from_secs(5);
/// Questions that wait for their answers at any time.
const WINDOW: u16 = 64;

/// Measures answers for services and denials of what the search path makes of a name.
pub fn measure() -> Result<()> {
    let server = Serving::start("answering", &[])?;
    let address: SocketAddr = server.line.parse().with_context(|| server.line.clone())?;
    stay_on(1)?;
    for (what, suffix) in [
        ("a service's address", ".bench.svc.cluster.local"),
        ("a name that is not there", ".example.com.bench.svc.cluster.local"),
    ] {
        let (before, start) = (usage::cpu_of(server.pid()), Instant::now());
        let mut times = ask(address, suffix)?;
        let (used, time) = (usage::cpu_of(server.pid()) - before, start.elapsed());
        let rate = times.len() as f64 / time.as_secs_f64();
        row(&format!("DNS, {what}: answers on one core, with {SERVICES} services"), "100,000 /s", format!("{rate:.0} /s"));
        row("... for each second of CPU time", "", format!("{:.0}", times.len() as f64 / used.as_secs_f64().max(0.01)));
        row("... p99", "2 ms", format!("{:.2} ms", f64::from(at_percent(&mut times, 99)) / 1e3));
    }
    Ok(())
}

/// Microseconds that answers took.
fn ask(server: SocketAddr, suffix: &str) -> Result<Vec<u32>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let start = Instant::now();
    let mut sent = vec![start; usize::from(WINDOW)];
    let (mut times, mut buffer, mut number) = (Vec::new(), [0; 1500], 0);
    let mut send = |place: u16, sent: &mut [Instant]| {
        number += 1;
        sent[usize::from(place)] = Instant::now();
        socket.send(&question(place, &format!("s{}{suffix}", number * 17 % SERVICES))).map(drop)
    };
    for place in 0..WINDOW {
        send(place, &mut sent)?;
    }
    while start.elapsed() < TIME {
        let Ok(length) = socket.recv(&mut buffer) else {
            // Lost: begin with a full window again.
            for place in 0..WINDOW {
                send(place, &mut sent)?;
            }
            continue;
        };
        anyhow::ensure!(length > 12, "an answer of {length} bytes");
        let place = u16::from_be_bytes([buffer[0], buffer[1]]) % WINDOW;
        times.push(u32::try_from(sent[usize::from(place)].elapsed().as_micros())?);
        send(place, &mut sent)?;
    }
    Ok(times)
}

/// A question for the IPv4 address of a name, as programs send it.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// Serves until the process is killed.
pub fn answering(_: &[String]) -> Result<()> {
    stay_on(0)?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(async {
        let (tasks, _failures) = Tasks::root();
        let (fake, readiness) = (Fake::default(), Readiness::default());
        for number in 0..SERVICES {
            let address = std::net::Ipv4Addr::from(0x0a2b_0100 + number as u32);
            let metadata = json!({"namespace": "bench", "name": format!("s{number}")});
            fake.put::<Service>(&serde_json::from_value(json!({"metadata": metadata, "spec": {"clusterIP": address}}))?);
        }
        let options = dns::Options {
            listen: vec!["127.0.0.1:0".parse()?],
            domain: "cluster.local".into(),
            upstreams: dns::Upstreams::Servers(Vec::new()),
            stub_domains: Default::default(),
        };
        let server = dns::Server::bind(options, tasks.clone()).await?;
        let address = server.addresses().first().copied().context("an address")?;
        server.run(&Informers::new(fake.client(), tasks.clone()), readiness.gate("dns"));
        readiness.wait(&["dns"]).await;
        println!("{address}");
        std::future::pending().await
    })
}
