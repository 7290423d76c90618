//! The service proxy: follows Services and EndpointSlices and keeps the table's maps as they want them.
//!
//! A change of a service replans that service only ([`plan`]), and changes as many map elements as differ. What
//! arrives while a batch is under way is programmed together by the next.

mod answers;
mod endpoints;
mod health;
pub mod node;
pub mod plan;
mod report;
mod status;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use base::readiness::Gate;
use base::tasks::Tasks;
use client::events::{Recorder, Type};
use client::kube::Resource;
use client::taken_ports::TakenPort;
use client::{Client, Informer, Informers, Key, ServiceWatch};
use k8s_openapi::api::core::v1::Node as ApiNode;
use tokio::time::{Instant, MissedTickBehavior};

use crate::netlink;
use crate::nft::Family;
use crate::nft::claims::{Refused, Taken};
use crate::nft::contents::Change;
use crate::nft::element;
use crate::nft::table::{Holder, Table};
use crate::retry::Retry;
use health::HealthChecks;
use node::Node;
use plan::{Balanced, Plan};
use report::Reports;
pub use status::Listen;
use status::Status;

/// The proxy cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process stops.
    #[error("the process is shutting down")]
    Stopped,
}

/// Services that are planned before the table takes them.
const PART: usize = 500;
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// What had to be left out for an error that may pass is tried rarely: each time it fails, the kernel gets the whole table anew.
const LEFT_OUT_MIN: Duration = Duration::from_secs(30);
const LEFT_OUT_MAX: Duration = Duration::from_secs(600);
/// How often programs of the host are looked at while somebody waits for a port of theirs.
const PROGRAMS: Duration = Duration::from_secs(10);
/// Ports of a Service of which each is told by an event of its own, at once.
const MOST_TOLD: usize = 10;
const ZONE: &str = "topology.kubernetes.io/zone";

/// What the proxy must know of its node.
#[derive(Clone)]
pub struct Options {
    /// The node's name.
    pub node_name: String,
    /// The node itself, which writes to its Node.
    pub node_client: Client,
    /// This node's pod ranges.
    pub pod_cidrs: Vec<ipnet::IpNet>,
    /// Ranges of all pods and services of the cluster, which no external address is in.
    pub inner_cidrs: Vec<ipnet::IpNet>,
    /// Where it says how it is.
    pub listen: Listen,
}

/// Proxies services until dropped. Ready when every service that was there at the start is programmed, not ready while the
/// kernel refuses a change; `tasks` runs the health check servers of load balancers.
pub async fn run(options: Options, informers: Informers, table: Table, gate: Gate, tasks: Tasks) -> Result<Infallible, Error> {
    let status = Status::default();
    status.serve(options.listen, &tasks);
    let events = Recorder::new(informers.client().clone(), "kube-proxy", &options.node_name, &tasks);
    let nodes = informers.of_selected::<ApiNode>(&format!("metadata.name={}", options.node_name));
    let mut node_changes = nodes.changes();
    let mut watch = ServiceWatch::new(&informers);
    watch.synced().await;
    nodes.synced().await;
    let Options { node_name: name, node_client, pod_cidrs, inner_cidrs, .. } = options;
    let reports = Reports::start(node_client, nodes.clone(), &name, &tasks);
    let decided = table.decided();
    let health = HealthChecks::new(tasks, events.clone(), &name, status.clone());
    let node = Node { families: table.families(), pod_cidrs, inner_cidrs, name, zone: None };
    let mut proxy = Proxy {
        table,
        node,
        plans: HashMap::new(),
        health,
        status,
        events,
        told: HashMap::new(),
        reports,
        lost: HashMap::new(),
        addresses: Vec::new(),
        is_due: true,
        is_held: true,
        unsettled: BTreeSet::new(),
        retry: Retry::new(RETRY_MIN, RETRY_MAX),
        left_out: BTreeSet::new(),
        again: Retry::new(LEFT_OUT_MIN, LEFT_OUT_MAX),
    };
    proxy.update_node(&nodes);
    while node_changes.try_next().is_some() {}
    let mut changed = watch.pending();
    let mut programs = tokio::time::interval(PROGRAMS);
    programs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        proxy.apply(&watch, changed, &gate).await?;
        proxy.report(&watch).await?;
        changed = tokio::select! {
            changed = watch.changed() => changed,
            () = decided.notified() => {
                proxy.is_due = true;
                BTreeSet::new()
            }
            _ = programs.tick(), if proxy.table.waits_for_programs() || proxy.reports.is_telling() => {
                proxy.is_due = true;
                proxy.look_again(&watch).await?;
                BTreeSet::new()
            }
            () = proxy.retry.due() => BTreeSet::new(),
            () = proxy.again.due() => BTreeSet::new(),
            _ = node_changes.next() => match proxy.update_node(&nodes) {
                true => proxy.plans.keys().cloned().collect(),
                false => BTreeSet::new(),
            },
        };
    }
}

struct Proxy {
    table: Table,
    node: Node,
    plans: HashMap<Key, Plan>,
    health: HealthChecks,
    status: Status,
    events: Recorder,
    /// What services were told that they have not got.
    told: HashMap<Key, HashSet<Refused>>,
    reports: Reports,
    /// What load balancers have lost.
    lost: HashMap<Key, Vec<Refused>>,
    /// Addresses of our node, as its object tells.
    addresses: Vec<IpAddr>,
    /// What load balancers and external addresses have lost is to be looked at.
    is_due: bool,
    /// The table of an earlier process, if there is one, still serves services.
    is_held: bool,
    /// Services that are not programmed as they are, for an error that may pass.
    unsettled: BTreeSet<Key>,
    retry: Retry,
    /// Services that were left out as such an error did not pass.
    left_out: BTreeSet<Key>,
    again: Retry,
}

impl Proxy {
    /// Takes over what our node says of itself; whether its zone changed.
    fn update_node(&mut self, nodes: &Informer<ApiNode>) -> bool {
        let node = nodes.get(None, &self.node.name);
        self.status.of_node(node.as_deref());
        let addresses = node.as_ref().and_then(|node| node.status.as_ref()?.addresses.as_ref());
        let addresses = addresses.into_iter().flatten().filter_map(|one| one.address.parse().ok()).collect::<Vec<_>>();
        self.is_due |= addresses != self.addresses;
        self.addresses = addresses;
        let zone = node.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned());
        std::mem::replace(&mut self.node.zone, zone.clone()) != zone
    }

    /// Programs the changed services, and those of which it failed before. What fails in passing is kept for the next time.
    async fn apply(&mut self, watch: &ServiceWatch, mut changed: BTreeSet<Key>, gate: &Gate) -> Result<(), Error> {
        let now = Instant::now();
        let is_again = self.again.is_due(now);
        // A try that fails says that claims were decided, too: that is no reason for the next one.
        if changed.is_empty() && self.retry.is_waiting(now) && !is_again {
            return Ok(());
        }
        changed.append(&mut self.unsettled);
        if !changed.is_empty() {
            self.status.queued(now);
        }
        // What did not pass before is not waited for another time.
        let patience = self.retry.patience(is_again);
        if is_again {
            changed.append(&mut self.left_out);
        }
        self.left_out.retain(|key| !changed.contains(key));
        // Who came first has what two of them want.
        let mut changed: Vec<Key> = changed.into_iter().collect();
        changed.sort_by_cached_key(|key| watch.created(key));
        // What a part contributes has gone into the table before the next one is looked at: all at once would take twice the memory.
        let mut parts = changed.chunks(PART);
        let mut failure = loop {
            let part = parts.next().unwrap_or_default();
            let changes = part.iter().map(|key| self.plan(watch, key)).collect();
            match self.table.settle(changes, patience).await.ok_or(Error::Stopped)? {
                Ok(refused) => self.withdraw(watch, part, &refused),
                Err(refusal) => {
                    let left: HashSet<&str> = refusal.changes.iter().map(|(owner, _)| owner.as_str()).collect();
                    self.unsettled.extend(part.iter().filter(|key| left.contains(owner(key).as_str())).cloned());
                    self.unsettled.extend(parts.by_ref().flatten().cloned());
                    break Some(refusal.source.to_string());
                }
            }
            if parts.len() == 0 {
                break None;
            }
        };
        if failure.is_none() && self.is_held {
            failure = self.table.let_go(Holder::Services).await.ok_or(Error::Stopped)?.err().map(|error| error.to_string());
            self.is_held = failure.is_some();
        }
        self.settle(failure, gate);
        self.tell(watch, &changed);
        Ok(())
    }

    /// Sees to it that what has failed is tried again, at the latest in a while.
    fn settle(&mut self, failure: Option<String>, gate: &Gate) {
        let now = Instant::now();
        match failure {
            Some(error) => {
                tracing::error!(error, "services cannot be programmed, trying again");
                gate.not_ready(error);
                self.retry.failed(now);
            }
            None => {
                self.retry.settled();
                self.status.updated();
                gate.ready();
            }
        }
        if !self.left_out.is_empty() || self.again.is_due(now) && !self.unsettled.is_empty() {
            self.again.failed(now);
        } else if self.unsettled.is_empty() {
            self.again.settled();
        }
    }

    /// Plans a service as it is now: what it contributes.
    fn plan(&mut self, watch: &ServiceWatch, key: &Key) -> Change {
        let (service, slices) = watch.get(key);
        let old = self.plans.remove(key).unwrap_or_default();
        let new = service.as_ref().map(|service| plan::plan(service, &slices, &self.node, &old)).unwrap_or_default();
        let change = (owner(key), plan::fragment(&new));
        if let Some(service) = service.as_ref().filter(|_| new.left_out > old.left_out) {
            let (node, ports, most) = (&self.node.name, new.left_out, plan::MOST);
            let text = format!(
                "node {node}: the last {ports} ports of the service are not served: all ports at all addresses may have {most} endpoints and source ranges together"
            );
            self.events.about(service.as_ref(), Type::Warning, "NotProgrammed", text);
        }
        self.is_due |= [&old, &new].iter().any(|plan| !plan.balanced.is_empty() || !plan.external.is_empty());
        self.health.update(key, service.map(|service| service.object_ref(&())).unwrap_or_default(), &new);
        if new != Plan::default() {
            self.plans.insert(key.clone(), new);
        }
        change
    }

    /// What the kernel has taken of these services before stays in force, until they change or, where the error may pass, until they are tried again.
    fn withdraw(&mut self, watch: &ServiceWatch, part: &[Key], refused: &[(Change, netlink::Error)]) {
        if refused.is_empty() {
            return;
        }
        let refused: HashMap<&str, &netlink::Error> = refused.iter().map(|((owner, _), error)| (owner.as_str(), error)).collect();
        for key in part {
            let Some(error) = refused.get(owner(key).as_str()) else { continue };
            if error.is_passing() {
                self.left_out.insert(key.clone());
            }
            tracing::error!(service = %key, %error, "the kernel refuses the rules of a service, going on without them");
            if let (Some(service), _) = watch.get(key) {
                let text = format!(
                    "node {}: the kernel refuses the rules of the service, its earlier ones stay: {error}",
                    self.node.name
                );
                self.events.about(service.as_ref(), Type::Warning, "NotProgrammed", text);
            }
        }
    }

    /// Tells the controller and the other nodes which ports load balancers and external addresses have not got here, if they may be others than
    /// before.
    async fn report(&mut self, watch: &ServiceWatch) -> Result<(), Error> {
        if !std::mem::take(&mut self.is_due) {
            return Ok(());
        }
        let mut asked = Vec::new();
        let mut ports = Vec::new();
        let mut told = BTreeSet::new();
        for (service, plan) in &self.plans {
            told.extend(self.lost_externals(service, plan));
            for Balanced { family, protocol, port, programs } in &plan.balanced {
                for address in self.addresses.iter().filter(|address| Family::of(**address) == *family) {
                    let place = element::Key { address: *address, protocol: *protocol, port: *port };
                    asked.push((owner(service), place, programs.clone()));
                    let port = (i32::from(*port), protocol.name().to_owned());
                    ports.push((TakenPort { service: service.clone(), port }, place));
                }
            }
        }
        let table = self.table.clone();
        let look = move || if asked.is_empty() { Vec::new() } else { table.lost(&asked) };
        let lost = tokio::task::spawn_blocking(look).await.map_err(|_| Error::Stopped)?;
        let mut now: HashMap<Key, Vec<Refused>> = HashMap::new();
        for ((port, key), taken) in ports.into_iter().zip(lost) {
            let Some(taken) = taken else { continue };
            now.entry(port.service.clone()).or_default().push(Refused { key, taken });
            told.insert(port);
        }
        for key in self.reports.tell(&told) {
            let (Some(service), _) = watch.get(&key) else { continue };
            let text = format!("node {}: there is no room to tell all ports that the service has not got here", self.node.name);
            self.events.about(service.as_ref(), Type::Warning, "PortsNotTold", text);
        }
        let before = std::mem::replace(&mut self.lost, now);
        let other = |key: &&Key| before.get(*key) != self.lost.get(*key);
        let others: BTreeSet<Key> = before.keys().chain(self.lost.keys()).filter(other).cloned().collect();
        self.tell(watch, &others.into_iter().collect::<Vec<_>>());
        Ok(())
    }

    /// The ports that a service asks for at addresses of this node and has not got: at the other nodes, what goes there is not for it.
    fn lost_externals(&self, service: &Key, plan: &Plan) -> Vec<TakenPort> {
        let asked: HashSet<&element::Key> = plan.external.iter().filter(|key| self.addresses.contains(&key.address)).collect();
        if asked.is_empty() {
            return Vec::new();
        }
        let here = |key: &element::Key| asked.contains(key);
        let refused = self.table.refused(&owner(service)).into_iter().map(|refused| refused.key).filter(here);
        let port = |key: element::Key| (i32::from(key.port), key.protocol.name().to_owned());
        refused.map(|key| TakenPort { service: service.clone(), port: port(key) }).collect()
    }

    /// Lets services have the ports of programs that have ended.
    async fn look_again(&mut self, watch: &ServiceWatch) -> Result<(), Error> {
        let table = self.table.clone();
        match tokio::task::spawn_blocking(move || table.look_again()).await.map_err(|_| Error::Stopped)? {
            Ok(owners) => {
                let services = self.plans.keys().filter(|key| owners.contains(owner(key).as_str()));
                let services: Vec<Key> = services.cloned().collect();
                self.tell(watch, &services);
            }
            Err(error) => tracing::warn!(%error, "ports of programs that have ended cannot be programmed, trying again"),
        }
        Ok(())
    }

    /// Tells who has not got a port or an address.
    fn tell(&mut self, watch: &ServiceWatch, services: &[Key]) {
        for key in services {
            let mut refused = self.table.refused(&owner(key));
            refused.retain(|one| !matches!(one.taken, Taken::Elsewhere | Taken::Own));
            let known: HashSet<Refused> = refused.iter().cloned().collect();
            refused.extend(self.lost.get(key).into_iter().flatten().filter(|lost| !known.contains(lost)).cloned());
            if refused.is_empty() {
                self.told.remove(key);
                continue;
            }
            let told = self.told.insert(key.clone(), refused.iter().cloned().collect()).unwrap_or_default();
            let (Some(service), _) = watch.get(key) else { continue };
            let mut news = refused.iter().filter(|one| !told.contains(one));
            for one in news.by_ref().take(MOST_TOLD) {
                let text = format!("node {}: {one}", self.node.name);
                self.events.about(service.as_ref(), Type::Warning, "PortAlreadyAllocated", text);
            }
            let more = news.count();
            if more > 0 {
                let text = format!("node {}: {more} more ports of the service are taken or reserved", self.node.name);
                self.events.about(service.as_ref(), Type::Warning, "PortAlreadyAllocated", text);
            }
        }
    }
}

/// The service as an owner of what it contributes to the table.
fn owner(service: &Key) -> String {
    format!("service:{service}")
}

#[cfg(test)]
mod tests;
