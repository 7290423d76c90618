//! Measures a `knarr` binary and prints a table: `bench PATH`. Started by `cargo xtask bench`.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails says where")]

use std::time::{Duration, Instant};

use testing::bench::{load, pods, usage};
use testing::{Api, Cluster, eventually};

const LOAD: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(20);
const PODS: usize = 20;

fn row(measure: &str, goal: &str, value: String) {
    println!("| {measure:<58} | {goal:<18} | {value:>12} |");
}

fn main() {
    let binary = std::env::args().nth(1).expect("usage: bench PATH-OF-KNARR");
    let size = std::fs::metadata(&binary).unwrap().len();
    let start = Instant::now();
    let mut cluster = Cluster::prepare(&binary);
    let machine = start.elapsed();
    cluster.start_server();
    let ready = start.elapsed() - machine;
    row("measure", "goal", "here".into());
    row("---", "---", "---".into());
    row("empty data directory to node Ready", "1.5 s (0.5 s)", format!("{:.2} s", ready.as_secs_f64()));
    idle(&cluster);
    start_pods(&cluster);
    load_api(&cluster);
    row("release binary", "50 MB", format!("{:.1} MB", size as f64 / 1e6));
}

/// Memory and CPU with nothing to do.
fn idle(cluster: &Cluster) {
    pause(Duration::from_secs(5));
    let before = usage::cpu(cluster.machine());
    pause(IDLE);
    let used = usage::cpu(cluster.machine()) - before;
    let memory = usage::memory(cluster.machine());
    row("memory of the idle cluster, all processes (PSS)", "100 MB (60 MB)", format!("{:.1} MB", memory as f64 / 1e6));
    row(
        "CPU of the idle cluster, of one core",
        "1 % (0.5 %)",
        format!("{:.2} %", used.as_secs_f64() * 100.0 / IDLE.as_secs_f64()),
    );
}

fn start_pods(cluster: &Cluster) {
    let client = cluster.api().client();
    let run = |names: &[String]| {
        let time = cluster.api().block_on(pods::start(&client, names)).unwrap();
        let memory = usage::memory(cluster.machine());
        cluster.api().block_on(pods::remove(&client, names)).unwrap();
        (time, memory)
    };
    // The first one pulls the image.
    run(&["pull".to_owned()]);
    let mut times: Vec<_> = (0..PODS).map(|number| run(&[format!("one-{number}")]).0).collect();
    times.sort();
    row("create a pod to Ready, one at a time, median", "120 ms (50 ms)", format!("{} ms", times[PODS / 2].as_millis()));
    let names: Vec<_> = (0..30).map(|number| format!("many-{number}")).collect();
    let (time, memory) = run(&names);
    row("30 pods at once, all Ready", "4 s (1.5 s)", format!("{:.2} s", time.as_secs_f64()));
    row("memory with those 30 pods, shims included (PSS)", "", format!("{:.1} MB", memory as f64 / 1e6));
}

fn load_api(cluster: &Cluster) {
    let endpoint = Api::endpoint_of(&cluster.kubeconfig());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let creates = runtime.block_on(load::creates(&endpoint, LOAD)).unwrap();
    row("create 2 KB ConfigMaps durably, 64 clients, TLS", "8,000 /s (15,000)", format!("{creates:.0} /s"));
    let gets = runtime.block_on(load::gets(&endpoint, LOAD)).unwrap();
    row("get one object, 64 clients, TLS", "25,000 /s (40,000)", format!("{gets:.0} /s"));
    let lists = runtime.block_on(load::lists(&endpoint, LOAD)).unwrap();
    row("list 3,000 x 2 KB objects, 2 clients, TLS", "(1,000 MB/s)", format!("{:.0} MB/s", lists / 1e6));
}

/// Lets time pass that is measured.
fn pause(time: Duration) {
    let start = Instant::now();
    eventually("time passes", || (start.elapsed() >= time).then_some(()));
}
