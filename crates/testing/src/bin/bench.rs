//! Measures a `knarr` binary and prints a table: `bench PATH`. Started by `cargo xtask bench`.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails says where")]

use std::time::{Duration, Instant};

use testing::bench::load::{Ask, Until, run};
use testing::bench::{CLIENTS, MAPS, config_map, pods, ratios, usage, yardstick};
use testing::{Api, Cluster, eventually};

const LOAD: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(20);
const PODS: usize = 20;
const MANY: u64 = 100_000;

fn row(measure: &str, goal: &str, value: String) {
    println!("| {measure:<58} | {goal:<18} | {value:>12} |");
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [word, directory] = arguments.as_slice()
        && word == "yardstick"
    {
        return yardstick::serve(directory.as_ref()).unwrap();
    }
    let binary = arguments.first().expect("usage: bench PATH-OF-KNARR").clone();
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
    compare(&cluster);
    many_pods(&mut cluster);
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

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn load_api(cluster: &Cluster) {
    let endpoint = Api::endpoint_of(&cluster.kubeconfig());
    let runtime = runtime();
    let load = |clients, make: &dyn Fn(u64) -> Ask| runtime.block_on(run(&endpoint, clients, Until::Time(LOAD), make)).unwrap();
    let creates = load(CLIENTS, &|number| Ask::post(MAPS, config_map("load", number)));
    row("create 2 KB ConfigMaps durably, 64 clients, TLS", "8,000 /s (15,000)", format!("{:.0} /s", creates.rate()));
    let gets = load(CLIENTS, &|number| Ask::get(format!("{MAPS}/load-{}", number % 1000)));
    row("get one object, 64 clients, TLS", "25,000 /s (40,000)", format!("{:.0} /s", gets.rate()));
    let lists = load(2, &|_| Ask::get(format!("{MAPS}?limit=3000")));
    row(
        "list 3,000 x 2 KB objects, 2 clients, TLS",
        "(1,000 MB/s)",
        format!("{:.0} MB/s", lists.bytes as f64 / lists.seconds / 1e6),
    );
}

/// CPU time of an operation, also as a multiple of what a bare server needs for it.
fn compare(cluster: &Cluster) {
    let (endpoint, pid) = (Api::endpoint_of(&cluster.kubeconfig()), cluster.server_pid());
    let (runtime, time) = (runtime(), LOAD / 2);
    let directory = cluster.scratch().join("yardstick");
    std::fs::create_dir_all(&directory).unwrap();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    for ratio in runtime.block_on(ratios::measure(&endpoint, pid, &directory, time)).unwrap() {
        let (ours, bare) = (micros(ratio.server), micros(ratio.yardstick));
        let times = format!("{:.2} x", ours / bare.max(0.001));
        row(&format!("server CPU, {}: {ours:.0} us, bare server {bare:.0} us", ratio.name), ratio.goal, times);
    }
    let apply = runtime.block_on(ratios::apply(&endpoint, pid, time)).unwrap();
    row("server CPU, server-side apply of a Deployment, dry run", "500 us", format!("{:.0} us", micros(apply)));
    let rbac = runtime.block_on(ratios::authorization(&endpoint, pid, time)).unwrap();
    row("server CPU, a right among 5,000 bindings and impersonation", "10 us", format!("{:.0} us", micros(rbac)));
}

/// Memory and restart with pods that nobody runs.
fn many_pods(cluster: &mut Cluster) {
    let endpoint = Api::endpoint_of(&cluster.kubeconfig());
    let seconds = runtime().block_on(ratios::fill(&endpoint, MANY)).unwrap();
    row("create 100,000 pods of 4 KB", "", format!("{seconds:.0} s"));
    row(
        "memory with them and all of the above (PSS)",
        "700 MB",
        format!("{:.0} MB", usage::memory(cluster.machine()) as f64 / 1e6),
    );
    let (_, stopped) = cluster.stop_server();
    let start = Instant::now();
    cluster.start_server();
    row("restart with them, to Ready", "2 s", format!("{:.2} s", start.elapsed().as_secs_f64()));
    row("memory after that restart (PSS)", "700 MB", format!("{:.0} MB", usage::memory(cluster.machine()) as f64 / 1e6));
    row("stop with them", "10 s", format!("{:.2} s", stopped.as_secs_f64()));
}

/// Lets time pass that is measured.
fn pause(time: Duration) {
    let start = Instant::now();
    eventually("time passes", || (start.elapsed() >= time).then_some(()));
}
