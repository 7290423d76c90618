//! The whole of a server's process but its node: store, API, controllers and scheduler, as `knarr server` composes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use apiserver::authn::{service_account, user};
use apiserver::{Build, Core};
use base::readiness::Readiness;
use base::tasks::{Failures, Tasks};
use base::tls::Authority;
use client::Informers;
use parking_lot::Mutex;
use store::Revision;
use store::memory::{Disk, Fate, Memory, Verdict};
use tokio_util::sync::CancellationToken;

use crate::audit::Auditor;
use crate::network::Network;
use crate::random::Random;

/// What servers of all seeds share: made once, before any seed runs.
pub(crate) struct Site {
    /// What the server before this one has left.
    pub(crate) disk: Arc<Disk>,
    pub(crate) authority: Arc<Authority>,
    /// Where keys are kept.
    pub(crate) pki: PathBuf,
}

/// When the process ends in the middle of its work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crash {
    /// At this many commits from its start on.
    pub(crate) commits: u64,
    /// What becomes of the batch.
    pub(crate) verdict: Verdict,
}

/// How the server's disk behaves.
struct Failing {
    random: Mutex<Random>,
    /// Revision and verdict.
    crash: Option<(Revision, Verdict)>,
    /// Nobody answers any more.
    network: Network,
    gone: CancellationToken,
}

impl Fate for Failing {
    fn delay(&self) -> Duration {
        self.random.lock().latency(0, 2)
    }

    fn judge(&self, revision: Revision) -> Verdict {
        let Some((_, verdict)) = self.crash.filter(|(at, _)| revision >= *at) else { return Verdict::Written };
        self.network.down();
        self.gone.cancel();
        verdict
    }
}

/// A server that runs.
pub(crate) struct Server {
    tasks: Tasks,
    failures: Failures,
    network: Network,
    pub(crate) readiness: Readiness,
}

impl Server {
    /// Starts it. When it crashes over it, this never returns; `gone` is cancelled then.
    pub(crate) async fn start(
        site: &Site,
        network: &Network,
        auditor: &Arc<Auditor>,
        random: Random,
        crash: Option<Crash>,
        (tasks, failures): (Tasks, Failures),
    ) -> Result<Self> {
        let gone = tasks.token();
        let crash =
            crash.map(|crash| (site.disk.history().last().map_or(0, |event| event.revision) + crash.commits, crash.verdict));
        let fate = Failing { random: Mutex::new(random), crash, network: network.clone(), gone: gone.clone() };
        let engine = Memory::open(site.disk.clone(), Arc::new(fate), &tasks);
        auditor.follow(&engine, &site.disk);
        let readiness = Readiness::default();
        let core = Core::open(Arc::new(engine), &site.authority, &options(site), readiness.clone(), &tasks).await?;
        network.up(core.api().clone(), gone);
        let api = core.api().clone();
        core.start(&tasks);
        let client = |user, agent| network.client(user, agent, agent);
        let manager = "kube-controller-manager";
        let informers = Informers::new(client(user("system:kube-controller-manager", Vec::new()), manager), tasks.clone());
        let wire = network.clone();
        let controllers = controllers::Options {
            informers: informers.clone(),
            clients: Arc::new(move |account| wire.client(service_account("kube-system", account), manager, manager)),
            // The same for every process: it is in what the API stores, and the authority's own is not.
            root_ca: include_str!("root.pem").to_owned(),
            sign_kept: Arc::new(move |of| api.sign_kept(of.namespace, of.secret, (of.account, of.uid))),
            authority: site.authority.clone(),
            reserved: controllers::Reserved::default(),
            cluster_cidrs: vec![controllers::ClusterCidr { network: "10.42.0.0/16".parse()?, node_prefix: 24 }],
            finished_pods: None,
            node_ports: Default::default(),
            clock: controllers::Clock::system(),
        };
        controllers::run(&controllers, &tasks, readiness.gate("controllers"));
        let agent = "kube-scheduler";
        let client = client(user("system:kube-scheduler", Vec::new()), agent);
        let scheduler = scheduler::Options { informers, client, configuration: scheduler::Configuration::default() };
        scheduler::run(&scheduler, &tasks, readiness.gate("scheduler"));
        Ok(Self { tasks, failures, network: network.clone(), readiness })
    }

    /// Returns when it has crashed, or a part of it has failed: then with what.
    pub(crate) async fn ended(&mut self) -> Option<String> {
        let gone = self.tasks.token();
        tokio::select! {
            biased;
            failure = self.failures.recv() => failure.map(|failure| failure.to_string()),
            () = gone.cancelled() => None,
        }
    }

    /// Ends it in an orderly way. False when some of it did not end in time.
    pub(crate) async fn stop(self) -> bool {
        let drained = self.tasks.drain(Duration::from_secs(3)).await;
        self.network.down();
        drained
    }
}

fn options(site: &Site) -> apiserver::Options {
    let address = std::net::SocketAddr::from(([10, 0, 0, 1], 6443));
    apiserver::Options {
        listen: address,
        tls: Default::default(),
        pki: site.pki.clone(),
        names: Vec::new(),
        public_address: address.to_string(),
        advertised: address,
        domain: "cluster.local".into(),
        service_accounts: apiserver::Issuers::from("https://kubernetes.default.svc.cluster.local").into(),
        authentication: apiserver::authn::Options::anonymous(true),
        admission: None,
        admission_plugins: Vec::new(),
        tolerations: Default::default(),
        authorization: Default::default(),
        audit: None,
        build: Build::default(),
        flags: Default::default(),
        registry: registry::Options::new("10.43.0.0/16".parse().into_iter().collect()),
    }
}
