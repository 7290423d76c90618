//! Hollow nodes: nodes without a machine, for clusters that are larger than the machine that runs them (`knarr server --hollow-nodes`).
//!
//! To the API they are nodes like others: each is registered and renews its lease with an identity of its own, and the pods that are
//! bound to it run, become ready and end, as a kubelet would report it. No container starts. All of them share the informers of the
//! process, two controllers and one task for their leases, so a thousand cost little more than their objects.

mod leases;
mod nodes;
mod pod;
mod pods;

use std::sync::{Arc, OnceLock};

use base::readiness::Gate;
use base::tasks::{OnFailure, Tasks};
use client::events::Recorder;
use client::{Client, Informers};
use controllers::{Clock, Controller, Cx};

use nodes::HollowNodes;
use pods::HollowPods;

/// What every hollow node's name begins with; its number follows.
const PREFIX: &str = "hollow-";

/// What hollow nodes need from the composition.
#[derive(Clone)]
pub struct Options {
    /// How many.
    pub count: usize,
    /// Shared caches.
    pub informers: Informers,
    /// A client with the identity of a node's kubelet, by the node's name.
    pub clients: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    /// The version that kubelets say they are.
    pub version: &'static str,
}

/// The kubelets of all hollow nodes.
struct Fleet {
    clients: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    version: &'static str,
    /// By number. A client is made when it is needed first.
    nodes: Vec<OnceLock<Client>>,
}

impl Fleet {
    /// The number of a node; none when it is no hollow one.
    fn number(&self, node: &str) -> Option<usize> {
        let number = node.strip_prefix(PREFIX)?.parse().ok()?;
        (number < self.nodes.len() && name(number) == node).then_some(number)
    }

    fn client(&self, number: usize) -> Option<Client> {
        let client = self.nodes.get(number)?.get_or_init(|| (self.clients)(&name(number)));
        Some(client.clone())
    }
}

/// The name of a node by its number.
fn name(number: usize) -> String {
    format!("{PREFIX}{number}")
}

/// Starts the nodes under `tasks`. `gate` is ready when what is there already is known.
pub fn run(options: Options, tasks: &Tasks, gate: Gate) {
    let Options { count, informers, clients, version } = options;
    let fleet = Arc::new(Fleet { clients, version, nodes: (0..count).map(|_| OnceLock::new()).collect() });
    let parts = gate.parts([HollowNodes::NAME, HollowPods::NAME]);
    let Ok([of_nodes, of_pods]) = <[_; 2]>::try_from(parts) else { return };
    let client = (fleet.clients)(&name(0));
    let cx = Cx { events: Recorder::new(client.clone(), "kubelet", &name(0), tasks), client, clock: Clock::system() };
    let (nodes, pods) = (HollowNodes::new(fleet.clone(), &informers), HollowPods::new(fleet.clone(), &informers));
    tasks.spawn_until_cancelled("hollow leases", OnFailure::Shutdown, leases::renew(fleet, informers.of()));
    controllers::start(nodes, cx.clone(), tasks, of_nodes);
    controllers::start(pods, cx, tasks, of_pods);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nodes_are_known_by_their_names() {
        let (tasks, _failures) = Tasks::root();
        let client = client::fake::Fake::default().client();
        let fleet =
            Fleet { clients: Arc::new(move |_| client.clone()), version: "", nodes: (0..11).map(|_| OnceLock::new()).collect() };
        for (name, expected) in [
            ("hollow-0", Some(0)),
            ("hollow-10", Some(10)),
            ("hollow-11", None),
            ("hollow-01", None),
            ("hollow-", None),
            ("a", None),
        ] {
            assert_eq!(fleet.number(name), expected, "{name}");
        }
        assert!(fleet.client(10).is_some() && fleet.client(11).is_none());
        drop(tasks);
    }
}
