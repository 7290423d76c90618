//! Cluster DNS alone, on one core, with 10,000 services, asked from another core.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base::readiness::Readiness;
use base::tasks::Tasks;
use client::Informers;
use client::fake::Fake;
use dns::batch::Batch;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::alone::{Serving, at_percent, row, stay_on};
use super::usage;

const SERVICES: usize = 10_000;
const TIME: Duration = Duration::from_secs(5);
/// Questions that wait for their answers at any time.
const WINDOW: u16 = 64;

/// Measures answers for services and denials of what the search path makes of a name, and first what any program could do on this
/// machine: one that sends back what it gets, a datagram at a time and in batches.
pub fn measure() -> Result<()> {
    stay_on(1)?;
    for (what, role) in [("sent back one by one", "single"), ("sent back in batches", "batches")] {
        let server = Serving::start("echo", &[role.to_owned()])?;
        told(&format!("UDP, {what}: datagrams on one core"), &server, ".bench.svc.cluster.local", ["", ""])?;
    }
    let server = Serving::start("answering", &[])?;
    for (what, suffix) in [
        ("a service's address", ".bench.svc.cluster.local"),
        ("a name that is not there", ".example.com.bench.svc.cluster.local"),
    ] {
        let measure = format!("DNS, {what}: answers on one core, with {SERVICES} services");
        told(&measure, &server, suffix, ["100,000 /s", "2 ms"])?;
    }
    Ok(())
}

/// Asks a server, and prints what came of it.
fn told(measure: &str, server: &Serving, suffix: &str, [rate_goal, time_goal]: [&str; 2]) -> Result<()> {
    let address: SocketAddr = server.line.parse().with_context(|| server.line.clone())?;
    let cpu = || (usage::cpu_of(server.pid()), usage::cpu_of(std::process::id().cast_signed()));
    let (before, start) = (cpu(), Instant::now());
    let mut times = ask(address, suffix)?;
    let (after, time) = (cpu(), start.elapsed());
    let [used, own] = [after.0 - before.0, after.1 - before.1].map(|used| used.as_secs_f64().max(0.01));
    let count = times.len() as f64;
    row(measure, rate_goal, format!("{:.0} /s", count / time.as_secs_f64()));
    row("... for each second of CPU time; the same of who asks", "", format!("{:.0}; {:.0}", count / used, count / own));
    let p99 = f64::from(at_percent(&mut times, 99)) / 1e3;
    row("... p99 with 64 questions under way", time_goal, format!("{p99:.2} ms"));
    Ok(())
}

/// Microseconds that answers took. Questions go out in batches too: who asks must not be what is measured.
fn ask(server: SocketAddr, suffix: &str) -> Result<Vec<u32>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let questions: Vec<Vec<u8>> = (0..SERVICES).map(|number| question(&format!("s{number}{suffix}"))).collect();
    let start = Instant::now();
    let mut sent = vec![start; usize::from(WINDOW)];
    let (mut times, mut batch, mut number) = (Vec::new(), Batch::at(server), 0);
    let mut say = |place: u16, batch: &mut Batch, sent: &mut [Instant]| {
        number += 17;
        sent[usize::from(place)] = Instant::now();
        batch.say(|buffer| {
            buffer.extend_from_slice(&place.to_be_bytes());
            buffer.extend_from_slice(&questions[number % SERVICES]);
        });
    };
    let flush = |batch: &mut Batch| -> Result<()> {
        while batch.left() > 0 {
            batch.send(socket.as_fd())?;
        }
        Ok(())
    };
    for place in 0..WINDOW {
        say(place, &mut batch, &mut sent);
    }
    flush(&mut batch)?;
    while start.elapsed() < TIME {
        let Ok(came) = batch.receive(socket.as_fd()) else {
            // Lost: begin with a full window again.
            for place in 0..WINDOW {
                say(place, &mut batch, &mut sent);
            }
            flush(&mut batch)?;
            continue;
        };
        for answer in 0..came {
            let bytes = batch.message(answer);
            anyhow::ensure!(bytes.len() > 12, "an answer of {} bytes", bytes.len());
            let place = u16::from_be_bytes([bytes[0], bytes[1]]) % WINDOW;
            times.push(u32::try_from(sent[usize::from(place)].elapsed().as_micros())?);
            say(place, &mut batch, &mut sent);
        }
        flush(&mut batch)?;
    }
    Ok(times)
}

/// Sends back what it gets, until the process is killed.
pub fn echo(arguments: &[String]) -> Result<()> {
    stay_on(0)?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    println!("{}", socket.local_addr()?);
    if arguments.iter().any(|argument| argument == "batches") {
        let (mut batch, mut copy) = (Batch::at(socket.local_addr()?), Vec::new());
        loop {
            for place in 0..batch.receive(socket.as_fd())? {
                copy.clear();
                copy.extend_from_slice(batch.message(place));
                batch.reply(place, |reply| reply.extend_from_slice(&copy));
            }
            while batch.left() > 0 {
                batch.send(socket.as_fd())?;
            }
        }
    }
    let mut buffer = [0; 2048];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], peer)?;
    }
}

/// A question for the IPv4 address of a name, as programs send it, without its id.
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
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
