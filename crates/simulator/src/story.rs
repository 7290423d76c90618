//! What happens in one seed: a server that crashes and comes back, nodes, users who change their minds; then calm, and the checks.

use std::sync::Arc;
use std::time::Duration;

use apiserver::authn::user;
use base::tasks::{OnFailure, Tasks};
use client::Client;
use http::Method;
use parking_lot::Mutex;
use serde_json::json;
use store::memory::{Disk, Verdict};

use crate::ask::{ask, code};
use crate::audit::{Auditor, digest};
use crate::check;
use crate::hollow::{Node, Running};
use crate::machine;
use crate::network::{Faults, Network};
use crate::observer::observe;
use crate::random::Random;
use crate::server::{Crash, Server, Site};
use crate::workload::Workload;

/// For so long nothing may be written until the cluster counts as settled: longer than any retry or grace that is left of the faults.
const QUIET: u64 = 400_000;
/// By then it must have settled, in milliseconds after the last fault.
const SETTLED: u64 = 3_600_000;

/// What one seed came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What may not be, in the order in which it was seen.
    pub violations: Vec<String>,
    /// Of every commit.
    pub digest: u64,
    /// How many commits there were.
    pub commits: u64,
    /// Simulated milliseconds.
    pub millis: u64,
}

/// How wild a seed is.
#[derive(Clone, Copy, Debug)]
struct Profile {
    nodes: u64,
    faults: Faults,
    /// How many times the server ends and starts again.
    crashes: u64,
    partitions: u64,
    jumps: u64,
    /// How many times a node is slow for a while.
    lags: u64,
    /// Nodes that never come back.
    deaths: u64,
    /// For how long users are there, in milliseconds.
    lasts: u64,
}

impl Profile {
    fn draw(random: &mut Random) -> Self {
        let some = |random: &mut Random, most: u64| if random.chance(500) { random.between(1, most) } else { 0 };
        let faults = Faults {
            latency: *random.pick(&[0, 2, 10, 50]),
            refuse: some(random, 50),
            lose: some(random, 50),
            late: some(random, 100),
            lag: *random.pick(&[10, 100, 1000, 5000]),
            cut: some(random, 20),
            expire: some(random, 500),
        };
        let (nodes, lasts) = (random.between(1, 4), random.between(20_000, 180_000));
        let (crashes, partitions, jumps, lags) = (some(random, 4), some(random, 2), some(random, 2), some(random, 2));
        let deaths = if nodes > 1 && random.chance(250) { 1 } else { 0 };
        Self { nodes, faults, crashes, partitions, jumps, lags, deaths, lasts }
    }
}

/// The parts of the world that outlive servers.
#[derive(Clone)]
struct World {
    seed: u64,
    network: Network,
    auditor: Arc<Auditor>,
}

/// Starts a server over an empty disk, so that seeds begin with what every cluster has.
pub(crate) async fn found(site: &Site) -> anyhow::Result<()> {
    let auditor = Arc::new(Auditor::default());
    let network = Network::new(Random::new(0), auditor.clone());
    let server = Server::start(site, &network, &auditor, Random::new(0), None, Tasks::root()).await?;
    server.readiness.wait(&["controllers", "scheduler"]).await;
    classes(&network).await?;
    settle(&auditor, 5000).await;
    anyhow::ensure!(server.stop().await, "the first server does not end");
    Ok(())
}

/// The classes of volumes, and the rights of whoever makes them (`knarr` makes these when it starts).
async fn classes(network: &Network) -> anyhow::Result<()> {
    let admin = network.client(user("admin", vec!["system:masters".into()]), "kubectl", "kubectl");
    let class = |name: &str, provisioner: &str, mode: &str| json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode, "reclaimPolicy": "Delete"});
    let binding = json!({"metadata": {"name": "local-path"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:persistent-volume-provisioner"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "kube-system", "name": "local-path-provisioner"}]});
    let classes = "/apis/storage.k8s.io/v1/storageclasses";
    for (path, object) in [
        (classes, class("local-path", controllers::LOCAL_PROVISIONER, "WaitForFirstConsumer")),
        (classes, class("by-hand", "kubernetes.io/no-provisioner", "Immediate")),
        ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding),
    ] {
        ask(&admin, Method::POST, path, Some(&object)).await?;
    }
    Ok(())
}

/// Plays a seed.
pub(crate) async fn play(site: Site, seed: u64, trace: bool) -> Report {
    let mut random = Random::part(seed, "profile");
    let profile = Profile::draw(&mut random);
    if trace {
        println!("{profile:?}");
    }
    let auditor = Arc::new(Auditor::tracing(trace));
    let network = Network::new(Random::part(seed, "network"), auditor.clone());
    network.set(profile.faults);
    let world = World { seed, network: network.clone(), auditor: auditor.clone() };
    let (disk, (tasks, mut failures)) = (site.disk.clone(), Tasks::root());
    let crashes: Arc<Mutex<u64>> = Arc::new(Mutex::new(profile.crashes));
    let operator = operate(site, world.clone(), crashes.clone());
    tasks.spawn_until_cancelled("operator", OnFailure::Shutdown, operator);
    let running = start_nodes(&world, profile.nodes, &tasks);
    let watcher = network.client(user("watcher", vec!["system:masters".into()]), "watcher", "watcher");
    tasks.spawn_until_cancelled("observer", OnFailure::Shutdown, observe(watcher, auditor.clone()));
    let admin = network.client(user("admin", vec!["system:masters".into()]), "kubectl", "kubectl");
    let local = profile.deaths == 0;
    let mut users = Workload::new(Random::part(seed, "users"), admin.clone(), auditor.clone(), network.kubelets(), local);
    let disturbances = Disturbances { world: &world, profile, running, admin, random: Random::part(seed, "disturbances") };
    let disturbed = disturbances.run();
    tokio::join!(users.run(Duration::from_millis(profile.lasts)), disturbed);
    // Calm.
    network.set(Faults::default());
    *crashes.lock() = 0;
    let calm = machine::millis();
    users.stop().await;
    let settled = tokio::select! {
        () = settle(&auditor, QUIET) => true,
        () = tokio::time::sleep(Duration::from_millis(SETTLED)) => false,
        failure = failures.recv() => {
            auditor.violated(failure.map_or_else(String::new, |failure| failure.to_string()));
            false
        }
    };
    if settled {
        check::all(&auditor, &network.kubelets());
    } else {
        auditor.violated(format!("the cluster has not settled {} ms after the last fault", machine::millis() - calm));
    }
    let (_, commits) = auditor.activity();
    Report { violations: auditor.violations(), digest: history(&disk), commits, millis: machine::millis() }
}

fn history(disk: &Disk) -> u64 {
    digest(&disk.history())
}

/// Returns when nothing has been written for so long, in milliseconds.
async fn settle(auditor: &Auditor, quiet: u64) {
    let begun = machine::millis();
    loop {
        let last = auditor.activity().0.max(begun);
        let over = machine::millis() - last;
        if over >= quiet {
            return;
        }
        tokio::time::sleep(Duration::from_millis(quiet - over)).await;
    }
}

fn start_nodes(world: &World, count: u64, tasks: &Tasks) -> Running {
    let running = Running::default();
    for index in 0..count {
        let name = format!("node-{index}");
        let node = Node {
            random: Random::part(world.seed, &name),
            name,
            index: index as u8,
            network: world.network.clone(),
            auditor: world.auditor.clone(),
            running: running.clone(),
        };
        node.start(tasks);
    }
    running
}

/// Runs servers one after the other. Each of the first `left` ends in the middle of something.
async fn operate(site: Site, world: World, left: Arc<Mutex<u64>>) -> anyhow::Result<()> {
    let mut random = Random::part(world.seed, "operator");
    loop {
        let crash = (*left.lock() > 0)
            .then(|| Crash { commits: random.between(1, 400), verdict: *random.pick(&[Verdict::Lost, Verdict::Kept]) });
        let (tasks, failures) = Tasks::root();
        let (gone, stream) = (tasks.token(), Random::new(random.next()));
        let start = Server::start(&site, &world.network, &world.auditor, stream, crash, (tasks, failures));
        if let Some(server) = gone.run_until_cancelled(start).await {
            let failed = run(server?, &left, &mut random).await;
            failed.into_iter().for_each(|why| world.auditor.violated(why));
        }
        {
            let mut left = left.lock();
            *left = left.saturating_sub(1);
        }
        world.network.down();
        tokio::time::sleep(random.millis(10, 20_000)).await;
    }
}

/// Until the server has ended: by a crash, or now and then in an orderly way. Gives what must not happen.
async fn run(mut server: Server, left: &Mutex<u64>, random: &mut Random) -> Option<String> {
    let orderly = *left.lock() > 0 && random.chance(250);
    let until = random.millis(5_000, 60_000);
    let stop = async { if orderly { tokio::time::sleep(until).await } else { std::future::pending().await } };
    tokio::select! {
        failure = server.ended() => return failure,
        () = stop => {}
    }
    // Its end must not take longer than it is given.
    (!server.stop().await).then(|| "a server does not end in time".to_owned())
}

/// What happens to nodes and clocks.
struct Disturbances<'w> {
    world: &'w World,
    profile: Profile,
    running: Running,
    admin: Client,
    random: Random,
}

impl Disturbances<'_> {
    /// Cuts nodes off, lets them back or not, and sets clocks.
    async fn run(mut self) {
        let Profile { mut partitions, mut jumps, mut lags, mut deaths, lasts, nodes, .. } = self.profile;
        let mut left = lasts;
        while left > 0 && partitions + jumps + lags + deaths > 0 {
            let wait = self.random.between(1, 1 + lasts / 3).min(left);
            left -= wait;
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let node = format!("node-{}", self.random.between(0, nodes - 1));
            match self.random.between(0, 3) {
                0 if partitions > 0 => {
                    partitions -= 1;
                    self.cut_off(&node).await;
                }
                1 if jumps > 0 => {
                    jumps -= 1;
                    // Back by less than the time in which nothing happens at the end: readiness in the future must have passed.
                    machine::jump(self.random.between(0, 3600) as i64 - 180);
                }
                2 if lags > 0 => {
                    lags -= 1;
                    self.lag(&node).await;
                }
                3 if deaths > 0 => {
                    deaths -= 1;
                    self.remove(&node).await;
                }
                _ => {}
            }
        }
    }

    async fn cut_off(&mut self, node: &str) {
        self.world.network.part(node, true);
        let lasts = self.random.between(100, 500_000);
        tokio::time::sleep(Duration::from_millis(lasts)).await;
        self.world.network.part(node, false);
    }

    async fn lag(&mut self, node: &str) {
        let (by, lasts) = (*self.random.pick(&[500, 3000, 20_000]), self.random.between(1000, 100_000));
        self.world.network.slow(node, by);
        tokio::time::sleep(Duration::from_millis(lasts)).await;
        self.world.network.slow(node, 0);
    }

    /// The machine breaks, and somebody takes its node away after a while.
    async fn remove(&mut self, node: &str) {
        self.world.network.part(node, true);
        self.running.died(node);
        let notices = self.random.millis(1000, 100_000);
        tokio::time::sleep(notices).await;
        let path = format!("/api/v1/nodes/{node}");
        while let Err(error) = ask(&self.admin, Method::DELETE, &path, None).await {
            if code(&error) == Some(404) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
