//! Tells the load balancer controller and other nodes which ports this node does not give to load balancers and external addresses, in an
//! annotation of the Node.

use std::collections::BTreeSet;

use base::tasks::Tasks;
use client::taken_ports::{TAKEN_PORTS, TakenPort};
use client::{Client, Informer, Key};
use k8s_openapi::api::core::v1::Node;

use crate::annotation::Annotation;

/// What has been told.
pub(super) struct Reports {
    annotation: Annotation,
    /// Services that there was no room for before.
    left_out: BTreeSet<Key>,
}

impl Reports {
    /// Begins to write; `client` is the node itself.
    pub(super) fn start(client: Client, nodes: Informer<Node>, name: &str, tasks: &Tasks) -> Self {
        Self { annotation: Annotation::start(client, nodes, name, TAKEN_PORTS, tasks), left_out: BTreeSet::new() }
    }

    /// What is to be told from now on. Returns the Services of whose ports some are left out only now.
    pub(super) fn tell(&mut self, ports: &BTreeSet<TakenPort>) -> BTreeSet<Key> {
        let told = TakenPort::tell(ports);
        let before = std::mem::replace(&mut self.left_out, told.left_out);
        self.annotation.set(told.text);
        self.left_out.difference(&before).cloned().collect()
    }

    /// Whether there is something to tell.
    pub(super) fn is_telling(&self) -> bool {
        self.annotation.is_set()
    }
}
