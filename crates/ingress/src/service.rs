//! Follows the API: what changes there becomes the next routing table, and what people have to know goes back as status and events.

mod back_ends;
mod gateways;
mod room;
mod singles;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use base::readiness::Gate;
use base::tasks::{OnFailure, Tasks};
use base::tls::{Authority, Request, Resolver, client_of_anybody};
use client::events::{Recorder, Type};
use client::kube::Resource;
use client::{Change, Changes, Client, Informer, Informers, Key, ServiceWatch};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Secret};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use tokio::sync::watch;

use crate::acme;
use crate::acme::challenges::Challenges;
use crate::acme::keeper::Keeper;
use crate::classes::{CLASS, Classes};
use crate::cluster_addresses::ClusterAddresses;
use crate::connect::Connector;
use crate::endpoints::PortRef;
use crate::front::{self, Front};
use crate::gateway::status::Kind;
use crate::gateway::streams::Port;
use crate::gateway::{self, Around, Entrance, Offer, TakenPorts};
use crate::handshakes::Handshakes;
use crate::issuer::Issuers;
use crate::loops::Loops;
use crate::model::Model;
use crate::ports::{self, Ports};
use crate::proxy::Proxy;
use crate::proxy::mirror;
use crate::table::Table;
use crate::underway::{self, Underway};
use crate::upstream::Upstreams;
use gateways::Gateways;
use singles::Singles;
use status::Statuses;

/// Label of the Services by which all nodes lead to ports of Gateways beside the two of ingress: `tcp-5432`.
pub const GATEWAY_PORT: &str = "ingress.knarr.io/gateway-port";

/// The namespace of the Services by which all nodes lead here.
const SYSTEM: &str = "kube-system";

/// The one of them for HTTP and HTTPS.
pub const WEB: &str = "knarr-ingress";

/// How long the start waits for the certificates of Ingresses that are there already.
const CERTIFICATES: Duration = Duration::from_secs(2);

/// How ingress serves.
#[derive(Clone)]
pub struct Options {
    /// The API, with ingress's own identity.
    pub client: Client,
    /// Addresses to listen on.
    pub listen: Vec<IpAddr>,
    /// Port of plain HTTP.
    pub http_port: u16,
    /// Port of HTTPS.
    pub https_port: u16,
    /// By which addresses clients reach it: the status of Ingresses and Gateways. At these the ports for TCP and UDP are opened where
    /// `listen` is every address of the machine: a whole port would be more than they ask for.
    pub addresses: Vec<IpAddr>,
    /// The ports of all nodes lead here. Else only the addresses above do.
    pub nodes_lead_here: bool,
    /// Addresses of the node that it runs on.
    pub own: Vec<IpAddr>,
    /// Ports of the node that no listener of a Gateway gets, beside the two of ingress.
    pub reserved: BTreeSet<Port>,
    /// Ranges of the cluster's pods and Services.
    pub ranges: Vec<IpNet>,
    /// Domain of the cluster.
    pub domain: String,
    /// Connections begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Proxies whose word on clients counts.
    pub trusted: Vec<IpNet>,
    /// Each request is logged.
    pub access_log: bool,
    /// Requests and led connections that may be under way at once; as many as the process's descriptors allow when it says none.
    pub at_once: Option<usize>,
    /// Who may be asked for certificates by ACME.
    pub acme_issuers: Issuers,
    /// A file (PEM) with authorities by which ACME servers are trusted beside the machine's own; it is read whenever one is asked.
    pub acme_authorities: Option<PathBuf>,
}

/// Ingress cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate for hosts without one of their own, or the client of back ends.
    #[error(transparent)]
    Certificates(#[from] base::tls::Error),
    /// TLS.
    #[error("TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
}

/// Ingress, built and not started.
pub struct Service {
    options: Options,
    tasks: Tasks,
    table: Arc<ArcSwap<Table>>,
    front: Arc<Front>,
    upstreams: Arc<Upstreams>,
    cluster: Arc<ClusterAddresses>,
    challenges: Arc<Challenges>,
}

impl Service {
    /// Builds everything and starts nothing. `tasks` will run it.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn build(options: Options, tasks: Tasks) -> Result<Self, Error> {
        let authority = Arc::new(Authority::in_memory("Knarr ingress")?);
        let request = Request::Server { name: "ingress.local".into(), sans: vec!["ingress.local".into()] };
        let fallback = Resolver::memory(authority, request)?;
        let table = Arc::new(ArcSwap::from_pointee(Table::default()));
        let handshakes = Handshakes { table: table.clone(), fallback };
        let challenges = Arc::new(Challenges::default());
        let proxy = Proxy {
            table: table.clone(),
            challenges: challenges.clone(),
            connector: Connector::new(tasks.clone(), client_of_anybody()?),
            underway: Underway::new(options.at_once.unwrap_or_else(underway::of_process)),
            mirrors: mirror::at_once(),
            tasks: tasks.clone(),
            https_port: options.https_port,
            trusted: options.trusted.clone(),
            access_log: options.access_log,
        };
        let front = Front {
            proxy: Arc::new(proxy),
            spoken: Arc::new(handshakes.at(Entrance::Ingress)?),
            handshakes,
            tasks: tasks.clone(),
            connections: front::connections(),
            proxy_protocol: options.proxy_protocol,
        };
        let own = options.own.iter().chain(&options.addresses).copied().collect();
        let cluster = Arc::new(ClusterAddresses::new(options.ranges.clone(), own));
        let upstreams = Arc::new(Upstreams::new(cluster.clone()));
        Ok(Self { options, tasks, table, front: Arc::new(front), upstreams, cluster, challenges })
    }

    /// Starts it: the doors open when the rules are known and there is the first one. `gate` is ready then, also when somebody else has a port.
    pub fn start(self, gate: Gate) -> Handle {
        let tasks = self.tasks.clone();
        let upstreams = self.upstreams.clone();
        let end = tasks.token();
        let doors = [watch::channel(None), watch::channel(None)];
        let [(http, http_receiver), (https, https_receiver)] = doors;
        let (ports, ports_receiver) = watch::channel(BTreeSet::new());
        tasks.spawn_until_cancelled("ingress", OnFailure::Shutdown, self.run(gate, [http, https], ports));
        tasks.spawn("ingress connections that are not used", OnFailure::Log, async move {
            end.cancelled().await;
            upstreams.all().iter().for_each(|upstream| upstream.close());
            Ok::<_, Infallible>(())
        });
        Handle { http: http_receiver, https: https_receiver, ports: ports_receiver }
    }

    async fn run(self, gate: Gate, doors: [Door; 2], open: watch::Sender<BTreeSet<Port>>) -> Result<(), Infallible> {
        let Self { options, tasks, table, front, upstreams, cluster, challenges } = self;
        let informers = Informers::new(options.client.clone(), tasks.clone());
        let (ingresses, classes, nodes) = (informers.of::<Ingress>(), informers.of::<IngressClass>(), informers.of::<Node>());
        let (wanted, wants) = watch::channel(false);
        let (certificates, orders) = watch::channel(Arc::default());
        let recorder = Recorder::new(options.client.clone(), "knarr-ingress", "", &tasks);
        let authorities = options.acme_authorities.clone();
        let keeper = Keeper::new(options.client.clone(), authorities, challenges, recorder.clone(), tasks.clone());
        tasks.spawn_until_cancelled("certificates by ACME", OnFailure::Log, keeper.keep(orders));
        let shared = ports::Shared {
            table: table.clone(),
            front: front.clone(),
            sessions: ports::sessions(),
            session_addresses: Default::default(),
            addresses: if options.listen.iter().any(IpAddr::is_unspecified) { &options.addresses } else { &options.listen }
                .clone(),
            tasks: tasks.clone(),
        };
        let own = [options.http_port, options.https_port].map(Port::tcp);
        let mut follower = Follower {
            ports: Ports::new(shared, open),
            reserved: options.reserved.iter().copied().chain(own).collect(),
            balancers: BTreeMap::new(),
            taken: TakenPorts::new(),
            left_out: BTreeMap::new(),
            wanted_ports: BTreeSet::new(),
            ingress_changes: ingresses.changes(),
            class_changes: classes.changes(),
            services: ServiceWatch::new(&informers),
            node_changes: nodes.changes(),
            nodes: nodes.clone(),
            cluster,
            loops: Loops::default(),
            suspects: BTreeSet::new(),
            secrets: Singles::new(options.client.clone(), tasks.clone()),
            config_maps: Singles::new(options.client.clone(), tasks.clone()),
            bundles: BTreeMap::new(),
            statuses: Statuses::start(&options, ingresses.clone(), &tasks),
            recorder,
            certificates,
            classes: Classes::default(),
            gateways: Gateways::start(&options.client, &tasks),
            namespaces: None,
            services_there: BTreeMap::new(),
            replan: false,
            planned: false,
            has_gateway: false,
            wanted,
            informers: informers.clone(),
            options: options.clone(),
            model: Model::new(options.domain.clone(), options.acme_issuers.clone(), upstreams.clone()),
            room: Default::default(),
            ingresses: ingresses.clone(),
            upstreams,
            table,
        };
        ingresses.synced().await;
        classes.synced().await;
        nodes.synced().await;
        follower.services.synced().await;
        follower.drain();
        // Nobody gets a wrong certificate because the process has only just started.
        let _ = tokio::time::timeout(CERTIFICATES, follower.certificates()).await;
        let ports = [(options.http_port, false), (options.https_port, true)];
        for ((port, tls), door) in ports.into_iter().zip(doors) {
            let (recorder, class) = (follower.recorder.clone(), classes.get(None, CLASS));
            let taken = move |address: SocketAddr, error: &std::io::Error| {
                if let Some(class) = &class {
                    let message = format!("ingress cannot listen on {address}: {error}");
                    recorder.about(class.as_ref(), Type::Warning, "PortTaken", message);
                }
            };
            let addresses = options.listen.iter().map(|address| SocketAddr::new(*address, port)).collect();
            listen(&tasks, front.clone(), (addresses, tls), door, wants.clone(), taken);
        }
        gate.ready();
        follower.run().await
    }
}

/// Where a port tells the first address that it is served at.
type Door = watch::Sender<Option<SocketAddr>>;

/// Serves a port in the background, at all its addresses, from when there is something to serve.
fn listen(
    tasks: &Tasks,
    front: Arc<Front>,
    (addresses, tls): (Vec<SocketAddr>, bool),
    door: Door,
    mut wants: watch::Receiver<bool>,
    taken: impl Fn(SocketAddr, &std::io::Error) + Send + Sync + 'static,
) {
    let end = tasks.token();
    tasks.spawn("ingress listener", OnFailure::Log, async move {
        let closed = AtomicUsize::new(addresses.len());
        let wanted = async {
            if wants.wait_for(|wanted| *wanted).await.is_err() {
                // Without the one who tells there is nobody left who could want it.
                std::future::pending::<()>().await;
            }
        };
        if end.run_until_cancelled(wanted).await.is_none() {
            return Ok::<_, Infallible>(());
        }
        let at = addresses.into_iter().map(|address| {
            let (front, door, taken, closed, end) = (front.clone(), &door, &taken, &closed, &end);
            async move {
                if let Some(listener) = end.run_until_cancelled(front::open(address, closed, taken)).await {
                    door.send_if_modified(|first| {
                        let is_first = first.is_none();
                        *first = first.or(listener.local_addr().ok());
                        is_first
                    });
                    front.serve(listener, address.port(), tls).await;
                }
            }
        });
        futures::future::join_all(at).await;
        Ok(())
    });
}

/// Ingress that was started.
#[derive(Clone, Debug)]
pub struct Handle {
    http: watch::Receiver<Option<SocketAddr>>,
    https: watch::Receiver<Option<SocketAddr>>,
    ports: watch::Receiver<BTreeSet<Port>>,
}

impl Handle {
    /// Where plain HTTP is served, once it is; none when it never will be.
    pub async fn http(&self) -> Option<SocketAddr> {
        self.http.clone().wait_for(Option::is_some).await.ok().and_then(|address| *address)
    }

    /// Where HTTPS is served, once it is; none when it never will be.
    pub async fn https(&self) -> Option<SocketAddr> {
        self.https.clone().wait_for(Option::is_some).await.ok().and_then(|address| *address)
    }

    /// The ports beside the two of ingress that are open.
    pub fn ports(&self) -> watch::Receiver<BTreeSet<Port>> {
        self.ports.clone()
    }
}

/// Takes changes, makes tables.
struct Follower {
    ingresses: Informer<Ingress>,
    ingress_changes: Changes<Ingress>,
    class_changes: Changes<IngressClass>,
    services: ServiceWatch,
    nodes: Informer<Node>,
    node_changes: Changes<Node>,
    cluster: Arc<ClusterAddresses>,
    loops: Loops,
    /// Services with endpoints that may lead to others, and so back here.
    suspects: BTreeSet<Key>,
    secrets: Singles<Secret>,
    config_maps: Singles<ConfigMap>,
    /// The certificates in ConfigMaps.
    bundles: BTreeMap<Key, Option<String>>,
    statuses: Statuses,
    recorder: Recorder,
    classes: Classes,
    gateways: Gateways,
    /// Followed when a listener asks for the labels of namespaces.
    namespaces: Option<(Informer<Namespace>, Changes<Namespace>)>,
    ports: Ports,
    /// Ports that no listener gets.
    reserved: BTreeSet<Port>,
    /// Ports of TCP and UDP that load balancers have, by Service.
    balancers: BTreeMap<Key, BTreeSet<Port>>,
    /// Ports that lead here and that nodes have given to others.
    taken: TakenPorts,
    /// The endpoints of Services that are left out, as their events tell.
    left_out: BTreeMap<Key, BTreeMap<PortRef, BTreeSet<SocketAddr>>>,
    /// Ports that listeners have by the last plan.
    wanted_ports: BTreeSet<Port>,
    /// What the Services that there are offer to routes.
    services_there: BTreeMap<Key, Arc<Offer>>,
    /// The plan for the Gateway API may be another one.
    replan: bool,
    /// There was something to plan.
    planned: bool,
    /// A Gateway is ours.
    has_gateway: bool,
    /// What issuers are asked for.
    certificates: watch::Sender<Arc<acme::All>>,
    /// There was something to serve. Until then the ports are for others.
    wanted: watch::Sender<bool>,
    informers: Informers,
    options: Options,
    model: Model,
    room: room::Room,
    upstreams: Arc<Upstreams>,
    table: Arc<ArcSwap<Table>>,
}

impl Follower {
    async fn run(mut self) -> Result<(), Infallible> {
        loop {
            tokio::select! {
                change = self.ingress_changes.next() => self.ingress(&change),
                change = self.class_changes.next() => self.class(&change),
                changed = self.services.changed() => self.services(&changed),
                _ = self.node_changes.next() => self.nodes(),
                (key, secret) = self.secrets.next() => self.secret(&key, secret),
                (key, map) = self.config_maps.next() => self.config_map(key, map),
                news = self.gateways.next() => self.gateway(news),
                told = self.ports.next() => self.port(told),
                () = changed(&mut self.namespaces) => self.replan = true,
            }
            self.drain();
            self.find_room();
        }
    }

    /// Returns when every Secret that is referred to was looked for.
    async fn certificates(&mut self) {
        while !self.secrets.all_known() {
            let (key, secret) = self.secrets.next().await;
            self.model.set_secret(&key, secret);
            self.publish();
        }
        while !self.config_maps.all_known() {
            let (key, map) = self.config_maps.next().await;
            self.config_map(key, map);
            self.drain();
        }
    }

    /// Takes what is there, then makes the next table: a burst of changes makes one.
    fn drain(&mut self) {
        while let Some(change) = self.class_changes.try_next() {
            self.class(&change);
        }
        while let Some(change) = self.ingress_changes.try_next() {
            self.ingress(&change);
        }
        let mut nodes = false;
        while self.node_changes.try_next().is_some() {
            nodes = true;
        }
        if nodes {
            self.nodes();
        }
        let changed = self.services.pending();
        self.services(&changed);
        while let Some((key, secret)) = self.secrets.try_next() {
            self.secret(&key, secret);
        }
        while let Some((key, map)) = self.config_maps.try_next() {
            self.config_map(key, map);
        }
        while let Some(news) = self.gateways.try_next() {
            self.gateway(news);
        }
        if std::mem::take(&mut self.replan) && (self.planned || !self.gateways.is_empty()) {
            self.planned = !self.gateways.is_empty();
            self.plan();
        }
        self.publish();
        // A port opens when all is known that decides where it leads.
        if self.gateways.are_known() {
            self.ports.want(&self.wanted_ports);
        }
        // Definitions and classes come with whoever serves Gateways: they are no reason to take ports.
        if self.has_gateway || !self.table.load().is_empty() {
            self.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        }
    }

    fn gateway(&mut self, news: gateways::News) {
        self.gateways.take(news);
        self.replan = true;
    }

    fn port(&mut self, told: ports::Told) {
        self.ports.take(told);
        self.replan = true;
    }

    fn secret(&mut self, key: &Key, secret: Option<Arc<Secret>>) {
        self.model.set_secret(key, secret);
        self.replan = true;
    }

    fn config_map(&mut self, key: Key, map: Option<Arc<ConfigMap>>) {
        let bundle = map.and_then(|map| map.data.as_ref()?.get("ca.crt").cloned());
        self.replan |= self.bundles.insert(key, bundle.clone()) != Some(bundle);
    }

    /// Makes the rules and statuses of the Gateway API anew.
    fn plan(&mut self) {
        if self.namespaces.is_none() && self.gateways.objects.select_namespaces() {
            let informer = self.informers.of::<Namespace>();
            let changes = informer.changes();
            self.namespaces = Some((informer, changes));
        }
        let labels = |name: &str| {
            let namespace = self.namespaces.as_ref()?.0.get(None, name)?;
            Some(namespace.metadata.labels.clone().unwrap_or_default())
        };
        let of_balancers = self.balancers.iter().flat_map(|(key, ports)| ports.iter().map(move |port| (*port, key.clone())));
        let around = Around {
            balancers: &of_balancers.collect(),
            http_port: self.options.http_port,
            https_port: self.options.https_port,
            reserved: &self.reserved,
            opened: &|port| self.ports.outcome(port),
            taken: &self.taken,
            addresses: &self.options.addresses,
            leads_here: &|address| self.options.addresses.contains(&address) || self.cluster.is_node(address),
            issuers: &self.options.acme_issuers,
            labels: &labels,
            ingresses: &|host| self.model.of_host(host),
            service: &|key| self.services_there.get(key).cloned(),
            bundle: &|key| self.bundles.get(key).cloned(),
            has_certificate: &|key| self.model.has_certificate(key),
        };
        let plan = gateway::plan(&self.gateways.objects, &around);
        self.room.planned(&plan);
        self.gateways.settle(&plan);
        for (about, problem) in self.gateways.untold(&plan) {
            self.recorder.event(&about, Type::Warning, problem.reason, problem.message);
        }
        for key in self.config_maps.want(&plan.config_maps) {
            self.bundles.remove(&key);
        }
        self.has_gateway = plan.statuses.iter().any(|(kind, ..)| *kind == Kind::Gateway);
        let ports: BTreeSet<Port> = plan.ports.keys().copied().collect();
        if self.wanted_ports != ports {
            self.wanted_ports = ports;
            self.look_behind_suspects();
        }
        self.model.set_gateway(plan);
    }

    fn publish(&mut self) {
        let Some(step) = self.model.step() else { return };
        for key in self.secrets.want(&self.model.wanted_secrets()) {
            self.model.forget_secret(&key);
        }
        // New back ends have their endpoints before anybody is led to them.
        for upstream in &step.fresh {
            self.look_behind(upstream);
        }
        self.table.store(step.table);
        let wanted = self.model.wanted_certificates();
        self.certificates.send_if_modified(|known| {
            let changed = **known != wanted;
            if changed {
                *known = Arc::new(wanted);
            }
            changed
        });
        for (key, problem) in step.problems {
            if let Some(ingress) = self.ingresses.by_key(&key) {
                self.recorder.about(ingress.as_ref(), Type::Warning, problem.reason, problem.message);
            }
        }
    }

    fn class(&mut self, change: &Change<IngressClass>) {
        if self.classes.set(&change.key.name, change.new.as_deref()) {
            for ingress in self.ingresses.list() {
                self.set(&Key::of(ingress.as_ref()), Some(&ingress));
            }
        }
    }

    fn ingress(&mut self, change: &Change<Ingress>) {
        let same = change.old.as_deref().zip(change.new.as_deref()).is_some_and(|(old, new)| means_the_same(old, new));
        if !same {
            self.set(&change.key, change.new.as_deref());
        }
        self.statuses.look(&change.key);
    }

    fn set(&mut self, key: &Key, ingress: Option<&Ingress>) {
        let ours = ingress.filter(|ingress| self.classes.claims(ingress));
        if ours.is_some() || self.model.has(key) {
            self.model.set_ingress(key, ours);
            // Hosts of older Ingresses are not for routes.
            self.replan = true;
            self.statuses.claim(key, ours.is_some());
        }
    }
}

/// Returns when a namespace has changed, if anybody looks at them.
async fn changed(namespaces: &mut Option<(Informer<Namespace>, Changes<Namespace>)>) {
    match namespaces {
        Some((_, changes)) => drop(changes.next().await),
        None => std::future::pending().await,
    }
}

/// Whether only what we do not look at has changed, such as the status that we have written.
fn means_the_same(old: &Ingress, new: &Ingress) -> bool {
    let (a, b) = (old.meta(), new.meta());
    (&a.uid, &a.annotations, &old.spec) == (&b.uid, &b.annotations, &new.spec)
}
