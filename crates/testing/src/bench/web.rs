//! Ingress and nginx before the same back end under the same load, one after the other, and a changed route among 3,000.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base::readiness::Readiness;
use base::tasks::Tasks;
use base::tls::{Authority, Request as Certificate};
use client::fake::Fake;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use serde_json::{Value, json};

use super::CLIENTS;
use super::alone::{Serving, at_percent, has, row};
use super::load::{Ask, Until, run};
use super::usage::{self, cpu_of};
use crate::api::Endpoint;

const TIME: Duration = Duration::from_secs(5);
const ROUTES: usize = 3000;
const CHANGES: usize = 50;
const PATIENCE: Duration = Duration::from_secs(10);
/// Where nginx listens: as a back end, as a proxy, as a proxy over TLS.
const PORTS: [u16; 3] = [8081, 8082, 8083];
/// The host of all requests, see [`Ask`].
const HOST: &str = "knarr";

/// Measures ingress in a process of its own beside nginx in one of its own, both before the same nginx.
pub fn measure() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let directories = [tempfile::tempdir()?, tempfile::tempdir()?];
    if has("nginx") {
        let backend = Nginx::start(directories[0].path(), &serving(), PORTS[0])?;
        let proxy = Nginx::start(directories[1].path(), &proxying(directories[1].path()), PORTS[2])?;
        let ours = Serving::start("ingressing", &[PORTS[0].to_string()])?;
        runtime.block_on(compare(&proxy, &ours))?;
        drop(backend);
    } else {
        row("ingress beside nginx", "", "no nginx");
    }
    runtime.block_on(routes())
}

/// Requests a second through both, and what each takes for one.
async fn compare(nginx: &Nginx, ours: &Serving) -> Result<()> {
    let (http, https) = ours.line.split_once(' ').context("two addresses")?;
    for (what, ours_at, theirs_at) in [
        ("keep-alive", Endpoint::plain(http.parse()?), Endpoint::plain(local(PORTS[1]))),
        ("keep-alive over TLS", Endpoint::of_anybody(https.parse()?)?, Endpoint::of_anybody(local(PORTS[2]))?),
    ] {
        let before = nginx.cpu();
        let mut their = run(&theirs_at, CLIENTS, Until::Time(TIME), |_| Ask::get("/page")).await?;
        let their_cpu = nginx.cpu() - before;
        let before = cpu_of(ours.pid());
        let mut our = run(&ours_at, CLIENTS, Until::Time(TIME), |_| Ask::get("/page")).await?;
        let our_cpu = cpu_of(ours.pid()) - before;
        row(&format!("ingress, requests a second, {what} (nginx {:.0})", their.rate()), "as nginx", format!("{:.0}", our.rate()));
        row("... as a multiple of nginx's", "1", format!("{:.2} x", our.rate() / their.rate()));
        let each = our_cpu.as_secs_f64() / our.operations as f64 * 1e6;
        let their_each = their_cpu.as_secs_f64() / their.operations as f64 * 1e6;
        row(&format!("... CPU time of a request (nginx {their_each:.1} us)"), "as nginx", format!("{each:.1} us"));
        let (p99, theirs) = (our.at_percent(99), their.at_percent(99));
        row(
            &format!("... p99 (nginx {:.1} ms)", theirs.as_secs_f64() * 1e3),
            "as nginx",
            format!("{:.1} ms", p99.as_secs_f64() * 1e3),
        );
    }
    row("... memory of nginx's processes and of ingress's", "", nginx.memory(ours.pid()));
    Ok(())
}

/// Ingress before the back end at this port of this machine, until the process is killed.
pub fn ingressing(arguments: &[String]) -> Result<()> {
    let port = arguments.first().context("a port")?.parse()?;
    // As many threads as nginx has processes.
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let (tasks, _failures) = Tasks::root();
        let fake = Fake::default();
        fill(&fake, 1, local(port))?;
        let (http, https) = start(&fake, &tasks).await?;
        println!("{http} {https}");
        std::future::pending().await
    })
}

/// How long a changed route among many takes to hold.
async fn routes() -> Result<()> {
    let (tasks, _failures) = Tasks::root();
    let fake = Fake::default();
    fill(&fake, ROUTES, local(PORTS[0]))?;
    let (http, _) = start(&fake, &tasks).await?;
    let mut connection = Endpoint::plain(http).connect(&tasks).await?;
    let mut times = Vec::new();
    for round in 0..CHANGES {
        let number = round * 61 % ROUTES;
        let target = format!("/changed-{round}");
        fake.put(&ingress(number, &[("nginx.ingress.kubernetes.io/permanent-redirect", &target)])?);
        let start = Instant::now();
        loop {
            ensure!(start.elapsed() < PATIENCE, "a changed route does not hold");
            let request = http::Request::get("/").header("host", host(number)).body(http_body_util::Full::default())?;
            // The answer's end has been read here before the connection knows of it.
            connection.ready().await?;
            let answer = connection.send_request(request).await?;
            let holds = answer.headers().get("location").is_some_and(|location| location.as_bytes() == target.as_bytes());
            answer.into_body().collect().await?;
            if holds {
                break;
            }
        }
        times.push(u32::try_from(start.elapsed().as_micros())?);
    }
    let median = f64::from(at_percent(&mut times, 50)) / 1e3;
    row(&format!("a changed route among {ROUTES} until it holds, median"), "20 ms", format!("{median:.1} ms"));
    row("... the slowest of 50", "20 ms", format!("{:.1} ms", f64::from(at_percent(&mut times, 100)) / 1e3));
    tasks.drain(Duration::from_secs(1)).await;
    Ok(())
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Starts ingress; where it serves HTTP and HTTPS.
async fn start(fake: &Fake, tasks: &Tasks) -> Result<(SocketAddr, SocketAddr)> {
    let options = ingress::Options {
        client: fake.client(),
        listen: vec![[127, 0, 0, 1].into()],
        http_port: 0,
        https_port: 0,
        addresses: Vec::new(),
        nodes_lead_here: true,
        own: Vec::new(),
        reserved: Default::default(),
        ranges: Vec::new(),
        domain: "cluster.local".into(),
        proxy_protocol: false,
        at_once: None,
        trusted: Vec::new(),
        access_log: false,
        acme_issuers: Default::default(),
        acme_authorities: None,
    };
    let handle = ingress::Service::build(options, tasks.clone())?.start(Readiness::default().gate("ingress"));
    Ok((handle.http().await.context("ingress serves")?, handle.https().await.context("ingress serves over TLS")?))
}

/// One Service, and so many Ingresses that lead to it.
fn fill(fake: &Fake, count: usize, backend: SocketAddr) -> Result<()> {
    let metadata = json!({"name": "knarr"});
    fake.put(&object::<IngressClass>(&json!({"metadata": metadata, "spec": {"controller": "knarr.io/ingress"}}))?);
    let metadata = json!({"namespace": "bench", "name": "web"});
    fake.put(&object::<Service>(&json!({"metadata": metadata, "spec": {"ports": [{"name": "web", "port": 80}]}}))?);
    let metadata = json!({"namespace": "bench", "name": "web-x", "labels": {"kubernetes.io/service-name": "web"}});
    let (ports, endpoints) = (json!([{"name": "web", "port": backend.port()}]), json!([{"addresses": [backend.ip()]}]));
    let slice = json!({"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
    fake.put(&object::<EndpointSlice>(&slice)?);
    (0..count).try_for_each(|number| {
        fake.put(&ingress(number, &[])?);
        Ok(())
    })
}

fn host(number: usize) -> String {
    if number == 0 { HOST.to_owned() } else { format!("h{number}.example") }
}

fn ingress(number: usize, annotations: &[(&str, &str)]) -> Result<Ingress> {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let rule = json!({"host": host(number), "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}});
    let metadata =
        json!({"namespace": "bench", "name": format!("i{number}"), "uid": format!("u{number}"), "annotations": annotations});
    object(&json!({"metadata": metadata, "spec": {"ingressClassName": "knarr", "rules": [rule]}}))
}

fn object<K: serde::de::DeserializeOwned>(value: &Value) -> Result<K> {
    Ok(serde_json::from_value(value.clone())?)
}

/// nginx, as a back end or as a proxy.
struct Nginx {
    child: Child,
}

impl Nginx {
    /// Starts it with servers that listen at a port, among others.
    fn start(directory: &Path, servers: &str, port: u16) -> Result<Self> {
        let authority = Arc::new(Authority::in_memory("bench")?);
        let identity = authority.issue(&Certificate::Server { name: HOST.into(), sans: vec![HOST.into()] })?;
        fs::write(directory.join("page"), "x".repeat(1024))?;
        fs::write(directory.join("tls.crt"), identity.certificate)?;
        fs::write(directory.join("tls.key"), identity.key)?;
        let path = directory.join("nginx.conf");
        fs::write(&path, configuration(directory, servers))?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&path).arg("-p").arg(directory).arg("-g").arg("daemon off;");
        let child = command.stdin(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
        let nginx = Self { child };
        let start = Instant::now();
        while std::net::TcpStream::connect(local(port)).is_err() {
            ensure!(start.elapsed() < PATIENCE, "nginx does not listen");
            std::thread::yield_now();
        }
        Ok(nginx)
    }

    /// Its processes.
    fn processes(&self) -> Vec<i32> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([pid.cast_signed()]).collect()
    }

    /// CPU time of its processes.
    fn cpu(&self) -> Duration {
        self.processes().into_iter().map(cpu_of).sum()
    }

    /// Peak memory of its processes, and of another.
    fn memory(&self, own: i32) -> String {
        let theirs: u64 = self.processes().into_iter().map(usage::peak).sum();
        format!("{:.0}, {:.0} MB", theirs as f64 / 1e6, usage::peak(own) as f64 / 1e6)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Asked first: the master ends its workers.
        let _ =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id().cast_signed()), nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// A back end that serves its directory.
fn serving() -> String {
    format!("server {{ listen 127.0.0.1:{}; }}", PORTS[0])
}

/// A proxy before it, over HTTP and over TLS.
fn proxying(directory: &Path) -> String {
    let directory = directory.display();
    let [back, http, https] = PORTS;
    let proxy = "location / { proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; }";
    format!(
        "upstream back {{ server 127.0.0.1:{back}; keepalive 128; keepalive_requests 10000000; }}\n\
         server {{ listen 127.0.0.1:{http}; {proxy} }}\n\
         server {{ listen 127.0.0.1:{https} ssl; ssl_certificate {directory}/tls.crt; ssl_certificate_key {directory}/tls.key; {proxy} }}"
    )
}

fn configuration(directory: &Path, servers: &str) -> String {
    let directory = directory.display();
    format!(
        "worker_processes 2; pid {directory}/pid; error_log {directory}/error.log; user root;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 10000000; default_type text/plain; root {directory};\n\
         client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;\n\
         uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;\n\
         {servers} }}\n"
    )
}
