//! Registers the node and keeps its status and its lease current.

use codec::Encode;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::readiness::Gate;
use client::Api;
use client::Informer;
use client::events::Type;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeStatus, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::extended;
use super::status::{self, Health};
use crate::context::Context;

/// Namespace of node leases.
const LEASES: &str = "kube-node-lease";
/// What a server answers whose disk or quota is full (507 Insufficient Storage, RFC 4918).
const FULL: u16 = 507;
/// Life of a lease, seconds; it is renewed four times in that.
const LEASE_SECONDS: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);
/// How often the status is sent when nothing changes.
const REPORT: Duration = Duration::from_secs(300);
/// Least time between two reports.
const COALESCE: Duration = Duration::from_secs(10);
/// Delay before a failed call is repeated, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(7));

type Pairs = BTreeMap<String, String>;

/// The node's own tasks.
pub struct Agent {
    cx: Arc<Context>,
    nodes: Api<Node>,
}

impl Agent {
    /// For this kubelet's node.
    pub fn new(cx: Arc<Context>) -> Self {
        let nodes = Api::all(cx.options.client.clone());
        Self { cx, nodes }
    }

    async fn health(&self) -> Health {
        let runtime = self.cx.runtime();
        let images = runtime.images().await;
        Health {
            runtime_error: images.as_ref().err().map(ToString::to_string),
            network_error: self.cx.options.network.borrow().clone(),
            shuts_down: *self.cx.shutdown.borrow(),
            conditions: self.cx.conditions.borrow().clone(),
            images: images.unwrap_or_default(),
        }
    }

    /// Creates the Node, or brings the one that is there up to date; repeats until the API server takes it.
    pub async fn register(&self) -> Node {
        let mut delay = RETRY.0;
        loop {
            match self.try_register().await {
                Ok(node) => return node,
                Err(error) => tracing::warn!(error = client::why(&error), "cannot register the node yet"),
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY.1);
        }
    }

    async fn try_register(&self) -> Result<Node, kube::Error> {
        let cx = &self.cx;
        let health = self.health().await;
        let status = status::status(cx, &health, &NodeStatus::default(), Timestamp::now());
        let node = status::node(&cx.options, status);
        match self.nodes.create(&PostParams::default(), &node).await {
            // A full store says so first, also where there is the Node.
            Err(kube::Error::Api(error)) if matches!(error.code, 409 | FULL) => {}
            other => return other,
        }
        let name = &cx.options.node_name;
        let present = self.nodes.get(name).await?;
        let labels = missing(node.metadata.labels.as_ref(), present.metadata.labels.as_ref());
        let annotations = missing(node.metadata.annotations.as_ref(), present.metadata.annotations.as_ref());
        if !labels.is_empty() || !annotations.is_empty() {
            let patch = Patch::Strategic(json!({"metadata": {"labels": labels, "annotations": annotations}}));
            match self.nodes.patch(name, &PatchParams::default(), &patch).await {
                // They come when there is room; its pods do not wait for it.
                Err(kube::Error::Api(error)) if error.code == FULL => {
                    tracing::warn!(node = name, error = %error.message, "labels and annotations of the node are not set");
                }
                patched => drop(patched?),
            }
        }
        let node = reference(&present);
        let old = present.status.clone().unwrap_or_default();
        let status = status::status(cx, &health, &old, Timestamp::now());
        let shown = match self.send(&status, &old).await {
            Err(kube::Error::Api(error)) if error.code == FULL && old.conditions.is_some() => {
                tracing::warn!(%error, "the node is there and its status cannot be written yet: its pods are looked after");
                cx.node_changed.notify_one();
                return Ok(present);
            }
            sent => sent?,
        };
        if let Some(boot) = status::rebooted(&old, &status) {
            let message = format!("Node {name} has been rebooted, boot id: {boot}");
            cx.recorder.event(&node, Type::Warning, "Rebooted", message);
        }
        Ok(shown)
    }

    /// Writes the status in the place of `old`.
    async fn send(&self, status: &NodeStatus, old: &NodeStatus) -> Result<Node, kube::Error> {
        let mut body = status.to_tree().map_err(kube::Error::SerdeError)?;
        let amounts = self.cx.devices.amounts();
        extended::confine(&mut body, old, status, &amounts);
        // What is left out stays, and a machine may have been started anew without its swap.
        if let Some(info) = body.get_mut("nodeInfo").and_then(Value::as_object_mut) {
            info.entry("swap").or_insert(Value::Null);
        }
        // Two addresses of one type would merge into one.
        if let Some(addresses) = body.get_mut("addresses").and_then(Value::as_array_mut) {
            addresses.insert(0, json!({"$patch": "replace"}));
        }
        let patch = Patch::Strategic(json!({"status": body}));
        let shown = self.nodes.patch_status(&self.cx.options.node_name, &PatchParams::default(), &patch).await?;
        self.cx.devices.told(&amounts);
        Ok(shown)
    }

    /// Reports the status: once `registered`, on change, when somebody else has said otherwise, and every five minutes.
    pub async fn report(self: Arc<Self>, registered: Node, gate: Gate) -> Result<(), Infallible> {
        let reference = reference(&registered);
        self.cx.recorder.event(&reference, Type::Normal, "Starting", "Starting kubelet.");
        if self.cx.machine.may_swap_memory() {
            let message = "The tmpfs noswap option is not supported. Memory-backed volumes (e.g. secrets, emptyDirs, etc.) \
                           might be swapped to disk and should no longer be considered secure.";
            self.cx.recorder.event(&reference, Type::Warning, "PossibleMemoryBackedVolumesOnDisk", message);
        }
        let name = &self.cx.options.node_name;
        let nodes = self.cx.options.informers.of_selected::<Node>(&format!("metadata.name={name}"));
        let (mut changes, mut shutdown) = (nodes.changes(), self.cx.shutdown.subscribe());
        let mut network = self.cx.options.network.clone();
        let mut known = registered.status.unwrap_or_default();
        self.announce(&reference, &NodeStatus::default(), &known);
        gate.ready();
        let mut sent = tokio::time::Instant::now();
        let (mut retry, mut is_cordoned) = (None, false);
        loop {
            let next = retry.unwrap_or(sent + REPORT);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.cx.node_changed.notified() => {
                    // Several pulls make one report; a machine that shuts down does not wait for that.
                    tokio::select! {
                        () = tokio::time::sleep_until(sent + COALESCE) => {}
                        _ = shutdown.changed() => {}
                    }
                }
                () = self.cx.volume_waits.notified() => {}
                _ = shutdown.changed() => {}
                Ok(()) = network.changed() => {}
                change = changes.next() => {
                    if change.new.is_none() {
                        tracing::warn!("the Node object was deleted: the next status report, or a restart, registers the node again");
                    }
                    self.tell_cordon(&reference, change.new.as_deref(), &mut is_cordoned);
                    if self.overruled(&nodes, &known).is_none() {
                        continue;
                    }
                }
            }
            let overruled = self.overruled(&nodes, &known);
            let base = overruled.as_ref().unwrap_or(&known);
            let status = status::status(&self.cx, &self.health().await, base, Timestamp::now());
            if status::same(&status, base) && sent.elapsed() < REPORT {
                continue;
            }
            retry = None;
            match self.send(&status, base).await {
                Ok(_) => {
                    self.announce(&reference, base, &status);
                    known = status;
                    sent = tokio::time::Instant::now();
                }
                Err(kube::Error::Api(error)) if error.code == 404 => {
                    tracing::warn!("the Node object is gone, registering again");
                    known = self.register().await.status.unwrap_or_default();
                    sent = tokio::time::Instant::now();
                }
                Err(error) => {
                    tracing::warn!(error = client::why(&error), "node status not reported, trying again");
                    retry = Some(tokio::time::Instant::now() + RETRY.1);
                }
            }
        }
    }

    /// What somebody else has written of the node: the node controller, of a node that was silent, that nothing is known of its conditions; who
    /// has extended resources, that there are some.
    fn overruled(&self, nodes: &Informer<Node>, known: &NodeStatus) -> Option<NodeStatus> {
        let found = nodes.get(None, &self.cx.options.node_name)?.status.clone()?;
        status::is_overruled(known, &found, &self.cx.devices.amounts()).then_some(found)
    }

    /// Says which conditions changed: as events, and in the log when something is wrong.
    fn announce(&self, node: &ObjectReference, old: &NodeStatus, new: &NodeStatus) {
        for (reason, condition) in status::transitions(old, new) {
            let message = format!("Node {} status is now: {reason}", self.cx.options.node_name);
            let why = condition.message.as_deref().unwrap_or_default();
            if status::is_good(condition) {
                tracing::debug!("{message}: {why}");
            } else {
                tracing::warn!("{message}: {why}");
            }
            self.cx.recorder.event(node, Type::Normal, reason, message);
        }
    }

    /// Says that pods may be scheduled to the node no more, or again.
    fn tell_cordon(&self, reference: &ObjectReference, node: Option<&Node>, known: &mut bool) {
        let Some(node) = node else { return };
        let is_cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        if std::mem::replace(known, is_cordoned) != is_cordoned {
            let reason = if is_cordoned { "NodeNotSchedulable" } else { "NodeSchedulable" };
            let message = format!("Node {} status is now: {reason}", self.cx.options.node_name);
            self.cx.recorder.event(reference, Type::Normal, reason, message);
        }
    }

    /// Renews the lease every 10 s.
    pub async fn lease(self: Arc<Self>, node: Node) -> Result<(), Infallible> {
        let leases = Api::<Lease>::namespaced(self.cx.options.client.clone(), LEASES);
        let name = self.cx.options.node_name.clone();
        let mut ticks = tokio::time::interval(RENEW);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut delay = RETRY.0;
            while let Err(error) = renew(&leases, &name, &node).await {
                tracing::warn!(error = client::why(&error), "node lease not renewed, trying again");
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY.1);
            }
        }
    }
}

/// What is wanted and not present so.
fn missing<'a>(wanted: Option<&'a Pairs>, present: Option<&Pairs>) -> BTreeMap<&'a String, &'a String> {
    wanted.into_iter().flatten().filter(|(key, value)| present.and_then(|all| all.get(*key)) != Some(value)).collect()
}

/// What events about the node are about.
pub fn reference(node: &Node) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: node.metadata.name.clone(),
        uid: node.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The same before the API has the node. Clients look for events about a node by its name in the place of the UID, too.
pub fn reference_by_name(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

/// Renews the lease, or makes it.
async fn renew(leases: &Api<Lease>, name: &str, node: &Node) -> Result<(), kube::Error> {
    let now = MicroTime(Timestamp::now());
    let patch = json!({"spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}});
    match leases.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(error)) if error.code == 404 => {}
        other => return other.map(drop),
    }
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.to_owned(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let spec = LeaseSpec {
        holder_identity: Some(name.to_owned()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(now),
        ..LeaseSpec::default()
    };
    let metadata = ObjectMeta { name: Some(name.to_owned()), owner_references: Some(vec![owner]), ..ObjectMeta::default() };
    leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await.map(drop)
}
