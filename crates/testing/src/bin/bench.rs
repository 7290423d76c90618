//! Measures a `knarr` binary and prints a table: `bench PATH [PART...]`, or `bench alone PART...` what needs no binary. Started by `cargo
//! xtask bench`. `bench drive KUBECONFIG LOAD
//! SECONDS` puts one load on a server that runs, for a profiler.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails says where")]

use std::path::Path;
use std::time::{Duration, Instant};

use http::Method;
use testing::api::Endpoint;
use testing::bench::alone::{self, row};
use testing::bench::load::{Ask, Until, run};
use testing::bench::{CLIENTS, MAPS, PODS, config_map, extensions, hollow, pods, ratios, scale, usage, yardstick};
use testing::{Api, Cluster};

/// mimalloc, which the program has, too, so that what is measured alone is measured nearly as it is there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LOAD: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(20);
/// How long after a load memory is looked at: longer than changes are kept for watchers.
const REST: Duration = Duration::from_secs(90);
const STARTED: usize = 20;
const MANY: u64 = 100_000;
const FEW: u64 = 1000;
const WATCHERS: usize = 500;
const CREATES: u64 = 10_000;
const HOLLOW: usize = 1000;
const DEFINITIONS: u64 = 1000;

type Part = (&'static str, fn(&mut Cluster));

/// What is measured, in this order, on one cluster.
const PARTS: [Part; 9] = [
    ("idle", idle),
    ("start", start_pods),
    ("load", load_api),
    ("compare", compare),
    ("watchers", many_watchers),
    ("clean", clean_up),
    ("many", many_pods),
    ("extensions", extended),
    ("hollow", hollow_nodes),
];

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn micros(time: Duration) -> String {
    format!("{:.0} us", time.as_secs_f64() * 1e6)
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [word, directory] = arguments.as_slice()
        && word == "yardstick"
    {
        return yardstick::serve(directory.as_ref()).unwrap();
    }
    if let [word, kubeconfig, load, seconds] = arguments.as_slice()
        && word == "drive"
    {
        let (endpoint, time) = (Api::endpoint_of(kubeconfig.as_ref()), Duration::from_secs(seconds.parse().unwrap()));
        assert!(ratios::LOADS.contains(&load.as_str()), "loads are {:?}", ratios::LOADS);
        let rate = runtime().block_on(ratios::drive(&endpoint, load, time)).unwrap();
        return println!("{rate:.0} /s");
    }
    if let [word, role, rest @ ..] = arguments.as_slice()
        && word == "alone"
    {
        return alone::play(role, rest).unwrap();
    }
    let (binary, parts) = arguments.split_first().expect("usage: bench PATH-OF-KNARR [PART...]");
    let unknown = parts.iter().find(|part| PARTS.iter().map(|(name, _)| *name).chain(alone::PARTS).all(|name| *part != name));
    assert_eq!(unknown, None, "parts are {:?} and {:?}", PARTS.map(|(name, _)| name), alone::PARTS);
    let wants = |name: &str| parts.is_empty() || parts.iter().any(|part| part == name);
    let size = std::fs::metadata(binary).unwrap().len();
    let start = Instant::now();
    let mut cluster = Cluster::prepare(binary);
    let machine = start.elapsed();
    cluster.start_server();
    let ready = start.elapsed() - machine;
    row("measure", "goal", "here");
    row("---", "---", "---");
    row("empty data directory to node Ready", "150 ms", format!("{} ms", ready.as_millis()));
    for (name, measure) in PARTS {
        if wants(name) {
            measure(&mut cluster);
        }
    }
    drop(cluster);
    for name in alone::PARTS.into_iter().filter(|name| wants(name)) {
        alone::run(name, &[]).unwrap();
    }
    row("release binary", "50 MB", megabytes(size));
}

/// Memory and CPU with nothing to do.
fn idle(cluster: &mut Cluster) {
    pause(Duration::from_secs(5));
    let before = usage::cpu(cluster.machine());
    pause(IDLE);
    let used = usage::cpu(cluster.machine()) - before;
    let memory = usage::memory(cluster.machine());
    row("memory of the idle cluster, all processes (PSS)", "45 MB", megabytes(memory));
    row("CPU of the idle cluster, of one core", "0.5 %", format!("{:.2} %", used.as_secs_f64() * 100.0 / IDLE.as_secs_f64()));
}

fn start_pods(cluster: &mut Cluster) {
    let client = cluster.api().client();
    let run = |names: &[String]| {
        let time = cluster.api().block_on(pods::start(&client, names)).unwrap();
        let memory = usage::memory(cluster.machine());
        cluster.api().block_on(pods::remove(&client, names)).unwrap();
        (time, memory)
    };
    // The first one pulls the image.
    run(&["pull".to_owned()]);
    let mut times: Vec<_> = (0..STARTED).map(|number| run(&[format!("one-{number}")]).0).collect();
    times.sort();
    row("create a pod to Ready, one at a time, median", "25 ms", format!("{} ms", times[STARTED / 2].as_millis()));
    let names: Vec<_> = (0..30).map(|number| format!("many-{number}")).collect();
    let (time, memory) = run(&names);
    row("30 pods at once, all Ready", "0.5 s", format!("{:.2} s", time.as_secs_f64()));
    row("memory with those 30 pods, shims included (PSS)", "", megabytes(memory));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn load_api(cluster: &mut Cluster) {
    let endpoint = Api::endpoint_of(&cluster.kubeconfig());
    let runtime = runtime();
    let load = |clients, make: &dyn Fn(u64) -> Ask| runtime.block_on(run(&endpoint, clients, Until::Time(LOAD), make)).unwrap();
    let creates = load(CLIENTS, &|number| Ask::post(MAPS, config_map("load", number)));
    row("create 2 KB ConfigMaps durably, 64 clients, TLS", "", format!("{:.0} /s", creates.rate()));
    let gets = load(CLIENTS, &|number| Ask::get(format!("{MAPS}/load-{}", number % 1000)));
    row("get one object, 64 clients, TLS", "", format!("{:.0} /s", gets.rate()));
    let lists = load(2, &|_| Ask::get(format!("{MAPS}?limit=3000")));
    row("list 3,000 x 2 KB objects, 2 clients, TLS", "", format!("{:.0} MB/s", lists.bytes as f64 / lists.seconds / 1e6));
}

/// CPU time of an operation, also as a multiple of what a bare server needs for it.
fn compare(cluster: &mut Cluster) {
    let (endpoint, pid) = (Api::endpoint_of(&cluster.kubeconfig()), cluster.server_pid());
    let (runtime, time) = (runtime(), LOAD / 2);
    let directory = cluster.scratch().join("yardstick");
    std::fs::create_dir_all(&directory).unwrap();
    let number = |time: Duration| time.as_secs_f64() * 1e6;
    for ratio in runtime.block_on(ratios::measure(&endpoint, pid, &directory, time)).unwrap() {
        let (ours, bare) = (number(ratio.server), number(ratio.yardstick));
        let times = format!("{:.2} x", ours / bare.max(0.001));
        row(&format!("server CPU, {}: {ours:.0} us, bare server {bare:.0} us", ratio.name), ratio.goal, times);
    }
    let apply = runtime.block_on(ratios::apply(&endpoint, pid, time)).unwrap();
    row("server CPU, server-side apply of a Deployment, dry run", "500 us", micros(apply));
    let rbac = runtime.block_on(ratios::authorization(&endpoint, pid, time)).unwrap();
    row("server CPU, a right among 5,000 bindings and impersonation", "10 us", micros(rbac));
}

/// Many watchers of a busy kind.
fn many_watchers(cluster: &mut Cluster) {
    let (endpoint, pid) = (Api::endpoint_of(&cluster.kubeconfig()), cluster.server_pid());
    let watched = runtime().block_on(scale::watchers(&endpoint, pid, WATCHERS, 2000, CREATES)).unwrap();
    row("500 watchers of 2,000 creates/s: creates", "2,000 /s", format!("{:.0} /s", watched.rate));
    row("... the last watcher behind the last create", "", format!("{:.1} s", watched.behind));
    row("... cut off and resumed; lost", "0; 0", format!("{}; {}", watched.resumed, watched.lost));
    row("... memory that they take", "", megabytes(watched.memory));
}

/// Memory after everything that was made is deleted.
fn clean_up(cluster: &mut Cluster) {
    let endpoint = Api::endpoint_of(&cluster.kubeconfig());
    for path in [MAPS, PODS] {
        let all = Ask { method: Method::DELETE, ..Ask::get(path) };
        // What takes longer than a request may is asked for again.
        let deleted = |_| runtime().block_on(run(&endpoint, 1, Until::Count(1), |_| all.clone())).is_ok();
        assert!((0..20).any(deleted), "{path} cannot be deleted");
    }
    row("memory after all that, everything deleted (PSS)", "", megabytes(usage::memory(cluster.machine())));
    pause(REST);
    row("... and 90 s later", "80 MB", megabytes(usage::memory(cluster.machine())));
}

/// Pages, a Table, memory and restart with pods that nobody runs.
fn many_pods(cluster: &mut Cluster) {
    let (endpoint, runtime, time) = (Api::endpoint_of(&cluster.kubeconfig()), runtime(), LOAD / 2);
    let page = |pid, pods| micros(runtime.block_on(scale::page(&endpoint, pid, pods, time)).unwrap());
    runtime.block_on(scale::fill(&endpoint, 0, FEW)).unwrap();
    row("server CPU, page of 500 pods among 1,000", "", page(cluster.server_pid(), FEW));
    let seconds = runtime.block_on(scale::fill(&endpoint, FEW, MANY)).unwrap();
    row("create 100,000 pods of 4 KB", "", format!("{seconds:.0} s"));
    row("server CPU, page of 500 pods among 100,000", "as among 1,000", page(cluster.server_pid(), MANY));
    row("memory with them and all of the above (PSS)", "700 MB", megabytes(usage::memory(cluster.machine())));
    let (seconds, memory) = runtime.block_on(scale::table(&endpoint, cluster.server_pid())).unwrap();
    row("all of them as a Table", "", format!("{seconds:.1} s"));
    row("... memory that it takes", "100 MB", megabytes(memory));
    let (_, stopped) = cluster.stop_server();
    let start = Instant::now();
    cluster.start_server();
    row("restart with them, to Ready", "2 s", format!("{:.2} s", start.elapsed().as_secs_f64()));
    row("memory after that restart (PSS)", "700 MB", megabytes(usage::memory(cluster.machine())));
    row("stop with them", "10 s", format!("{:.2} s", stopped.as_secs_f64()));
}

/// Custom resources, policies and definitions, in a cluster of their own.
fn extended(_: &mut Cluster) {
    let mut cluster = Cluster::prepare(std::env::args().nth(1).unwrap());
    cluster.start_server_with(&["--no-agent"]);
    let (endpoint, pid) = (Api::endpoint_of(&cluster.kubeconfig()), cluster.server_pid());
    let (runtime, time) = (runtime(), LOAD / 2);
    for one in runtime.block_on(extensions::compare(&endpoint, pid, time)).unwrap() {
        let (custom, built_in) = (micros(one.custom), micros(one.built_in));
        let times = format!("{:.2} x", one.custom.as_secs_f64() / one.built_in.as_secs_f64().max(1e-9));
        row(&format!("server CPU, {} of a custom resource of 2 KB: {custom}, ConfigMap {built_in}", one.name), "1.5 x", times);
    }
    let rule = runtime.block_on(extensions::rule(&endpoint, pid, time)).unwrap();
    row("server CPU, a rule in CEL of a custom resource, one of 100", "20 us", format!("{:.1} us", rule.as_secs_f64() * 1e6));
    webhook(&endpoint, pid, time, cluster.scratch());
    let policies = runtime.block_on(extensions::policies(&endpoint, pid, time)).unwrap();
    row("server CPU, ten validating policies on a write", "100 us", micros(policies));
    let millis = |time: Duration| format!("{} ms", time.as_millis());
    let many = runtime.block_on(extensions::definitions::many(&endpoint, pid, DEFINITIONS)).unwrap();
    row("1,000 CustomResourceDefinitions of 21 fields: memory", "250 MB", megabytes(many.memory));
    row("... one more created and served, median of 20", "", millis(many.served[0]));
    row("... one more created and served, slowest of 20", "100 ms", millis(many.served[1]));
    row("... aggregated discovery after it, slowest", "100 ms", millis(many.discovery));
    row("... OpenAPI v3, index and its group, after it, slowest", "100 ms", millis(many.openapi));
    let ended = runtime.block_on(extensions::definitions::end(&endpoint, pid, MANY)).unwrap();
    row("a definition with 100,000 objects deleted, until it is gone", "", format!("{:.1} s", ended.time.as_secs_f64()));
    row("... others' reads and writes, median", "", millis(ended.median));
    row("... others' reads and writes, p99 of the worst second", "100 ms", millis(ended.others));
    row("... the slowest of them", "", millis(ended.slowest));
    row("... memory that it takes", "", megabytes(ended.memory));
}

/// What one webhook adds to a write.
fn webhook(endpoint: &Endpoint, pid: i32, time: Duration, scratch: &Path) {
    let added = runtime().block_on(extensions::webhook::added(endpoint, pid, time, scratch)).unwrap();
    let more = added.with.saturating_sub(added.without);
    let trips = format!("{:.2} x", more.as_secs_f64() / added.bare.as_secs_f64().max(1e-9));
    let name = format!(
        "a webhook on a write: {} more ({} without), a bare trip {}",
        micros(more),
        micros(added.without),
        micros(added.bare)
    );
    row(&name, "1 trip", trips);
    row("... calls for each write", "1", format!("{:.2}", added.calls));
    row("... server CPU", "", micros(added.cpu));
}

/// A thousand nodes that are hollow, in a cluster of their own.
fn hollow_nodes(_: &mut Cluster) {
    let mut cluster = Cluster::prepare(std::env::args().nth(1).unwrap());
    let nodes = HOLLOW.to_string();
    let start = Instant::now();
    cluster.start_server_with(&["--no-agent", "--hollow-nodes", &nodes]);
    let (endpoint, runtime) = (Api::endpoint_of(&cluster.kubeconfig()), runtime());
    runtime.block_on(hollow::nodes(&endpoint, HOLLOW)).unwrap();
    row("empty data directory to 1,000 hollow nodes Ready", "", format!("{:.1} s", start.elapsed().as_secs_f64()));
    pause(Duration::from_secs(5));
    let before = usage::cpu(cluster.machine());
    pause(IDLE);
    let used = usage::cpu(cluster.machine()) - before;
    let memory = || megabytes(usage::memory(cluster.machine()));
    row("... CPU with nothing else, of one core", "", format!("{:.1} %", used.as_secs_f64() * 100.0 / IDLE.as_secs_f64()));
    row("... memory (PSS)", "", memory());
    let rate = |pods: f64, went: &hollow::Went| format!("{:.1} s, {:.0} /s", went.seconds, pods / went.seconds);
    let slow = |went: &hollow::Went| row("... API p99 meanwhile", "1 s", format!("{} ms", went.p99.as_millis()));
    let decided = || runtime.block_on(hollow::decided(&endpoint)).unwrap();
    let per_second = |from: (f64, f64), to: (f64, f64)| format!("{:.0} /s", (to.1 - from.1) / (to.0 - from.0).max(1e-9));

    let start = decided();
    let went = runtime.block_on(hollow::deploy(&endpoint, "web", 20, 1000, hollow::Placement::Free)).unwrap();
    row("20,000 pods of 20 Deployments, all Ready", "5,000 /s", rate(20_000.0, &went));
    row("... scheduler's decisions", "10,000 /s", per_second(start, decided()));
    slow(&went);
    let went = runtime.block_on(hollow::deploy(&endpoint, "large", 1, 10_000, hollow::Placement::Free)).unwrap();
    row("10,000 more of one Deployment", "", rate(10_000.0, &went));
    slow(&went);
    row("... memory with 30,000 pods (PSS)", "1.2 GB", memory());
    let went = runtime.block_on(hollow::roll(&endpoint, "large-0")).unwrap();
    row("rolling update of its 10,000 pods", "60 s", format!("{:.1} s", went.seconds));
    slow(&went);
    row("... memory then (PSS)", "1.2 GB", memory());
    let went = runtime.block_on(hollow::jobs(&endpoint, 1000, 10)).unwrap();
    row("1,000 Jobs of 10 pods, all complete", "90 s", format!("{:.1} s", went.seconds));
    slow(&went);
    let start = decided();
    let went = runtime.block_on(hollow::deploy(&endpoint, "apart", 5, 1000, hollow::Placement::Spread)).unwrap();
    row("5,000 pods that are spread and apart", "2,000 /s", rate(5000.0, &went));
    row("... scheduler's decisions", "", per_second(start, decided()));
    row("... memory with 35,000 pods and the Jobs (PSS)", "1.2 GB", memory());
    let went = runtime.block_on(hollow::remove(&endpoint)).unwrap();
    row("all Deployments deleted, pods gone", "", format!("{:.1} s", went.seconds));
}

/// Lets time pass that is measured.
fn pause(time: Duration) {
    // The timer is of the runtime in which it is made.
    runtime().block_on(async { tokio::time::sleep(time).await });
}
