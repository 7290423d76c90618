//! Hollow nodes: a kubelet without containers. It registers its node, renews the lease, and takes each pod that is bound to it through
//! its life, in simulated time.

mod pod;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use apiserver::authn::user;
use base::tasks::{OnFailure, Tasks};
use bytes::Bytes;
use client::Client;
use client::watch::{Event, Watch};
use futures::StreamExt;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::ask::{ask, code};
use crate::audit::Auditor;
use crate::kubelets::VOLUMES;
use crate::network::Network;
use crate::random::Random;

/// Upstream's `nodeStatusUpdateFrequency` and lease duration.
const RENEW: Duration = Duration::from_secs(10);
const LEASE: u64 = 40;

/// What runs on all nodes. No name may run twice.
#[derive(Clone, Default)]
pub(crate) struct Running(Arc<Mutex<Containers>>);

#[derive(Default)]
struct Containers {
    /// By the pod's namespace and name its uid and node.
    pods: BTreeMap<String, BTreeSet<(String, String)>>,
    /// Nodes on which nothing runs any more.
    dead: BTreeSet<String>,
}

impl Running {
    /// A pod's containers start. Tells of another one of its name whose containers run.
    fn started(&self, name: &str, uid: &str, node: &str) -> Option<String> {
        let Containers { pods, dead } = &mut *self.0.lock();
        if dead.contains(node) {
            return None;
        }
        let pods = pods.entry(name.to_owned()).or_default();
        pods.insert((uid.to_owned(), node.to_owned()));
        let (other, at) = pods.iter().find(|(other, _)| other != uid)?;
        Some(format!("pod {name} ({uid}) starts on {node} while {other} of the same name runs on {at}"))
    }

    /// A node is gone for good, with all that ran on it.
    pub(crate) fn died(&self, node: &str) {
        let Containers { pods, dead } = &mut *self.0.lock();
        dead.insert(node.to_owned());
        pods.values_mut().for_each(|pods| pods.retain(|(_, at)| at != node));
    }

    fn stopped(&self, name: &str, uid: &str) {
        if let Some(pods) = self.0.lock().pods.get_mut(name) {
            pods.retain(|(other, _)| other != uid);
        }
    }
}

/// One node.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) index: u8,
    pub(crate) network: Network,
    pub(crate) auditor: Arc<Auditor>,
    pub(crate) running: Running,
    pub(crate) random: Random,
}

/// What a kubelet's tasks share.
#[derive(Clone)]
struct Kubelet {
    node: String,
    index: u8,
    /// What its clock is ahead of the server's by, as its leases show, in seconds.
    ahead: i64,
    client: Client,
    auditor: Arc<Auditor>,
    running: Running,
}

/// A pod that is known, and its task.
struct Known {
    uid: String,
    seen: watch::Sender<Option<Value>>,
}

impl Node {
    /// Starts the kubelet under `tasks`.
    pub(crate) fn start(self, tasks: &Tasks) {
        let user = user(format!("system:node:{}", self.name), vec!["system:nodes".to_owned()]);
        let client = self.network.client(user, "kubelet", &self.name);
        let mut random = self.random;
        let ahead = *random.pick(&[0, 0, 0, -90, 90, 4000]);
        let kubelet = Kubelet { node: self.name, index: self.index, ahead, client, auditor: self.auditor, running: self.running };
        let (lease, registered) = (kubelet.clone(), kubelet.clone());
        let tasks_of_pods = tasks.clone();
        tasks.spawn_until_cancelled("hollow node", OnFailure::Shutdown, async move {
            registered.register().await;
            kubelet.follow(random, &tasks_of_pods).await
        });
        tasks.spawn_until_cancelled("hollow lease", OnFailure::Shutdown, async move { lease.renew().await });
    }
}

impl Kubelet {
    async fn register(&self) {
        let conditions = conditions();
        let resources = json!({"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "20Gi"});
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.node, "annotations": {VOLUMES.0: VOLUMES.1}, "labels": {"kubernetes.io/hostname": self.node, "kubernetes.io/os": "linux"}},
            "status": {"capacity": resources, "allocatable": resources, "conditions": conditions,
                "addresses": [{"type": "InternalIP", "address": format!("192.168.7.{}", self.index)}]}});
        self.insist("/api/v1/nodes", Method::POST, Some(&node)).await;
        // Whoever was there before has a status already, and perhaps an old one.
        let status = json!({"status": node["status"]});
        self.insist(&format!("/api/v1/nodes/{}/status", self.node), Method::PATCH, Some(&status)).await;
    }

    /// The node controller says that nothing is known of a node that was silent; the kubelet says otherwise.
    async fn contradict(&self) {
        let path = format!("/api/v1/nodes/{}", self.node);
        let Ok(node) = ask(&self.client, Method::GET, &path, None).await else { return };
        let known = |condition: &Value| condition["status"] != "Unknown";
        if !node["status"]["conditions"].as_array().into_iter().flatten().all(known) {
            let status = json!({"status": {"conditions": conditions()}});
            let _ = ask(&self.client, Method::PATCH, &format!("{path}/status"), Some(&status)).await;
        }
    }

    /// Sends a request until it is answered with success, or with an error that stays.
    async fn insist(&self, path: &str, method: Method, body: Option<&Value>) -> Option<Value> {
        let (mut wait, mut conflicts) = (Duration::from_millis(100), 0);
        loop {
            match ask(&self.client, method.clone(), path, body).await {
                Ok(object) => return Some(object),
                Err(error) => match code(&error) {
                    Some(404 | 422 | 403) => return None,
                    // That many tell of another object under that name, or of one that is there.
                    Some(409) if conflicts == 4 || method == Method::POST => return None,
                    Some(409) => conflicts += 1,
                    _ => {}
                },
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    async fn renew(&self) -> Result<(), Infallible> {
        let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        loop {
            let spec = json!({"holderIdentity": self.node, "leaseDurationSeconds": LEASE, "renewTime": micro_now(self.ahead)});
            let renewed = ask(&self.client, Method::PATCH, &format!("{path}/{}", self.node), Some(&json!({"spec": spec}))).await;
            if renewed.as_ref().is_err_and(|error| code(error) == Some(404)) {
                let lease = json!({"metadata": {"name": self.node}, "spec": spec});
                let _ = ask(&self.client, Method::POST, path, Some(&lease)).await;
            }
            if renewed.is_ok() {
                self.contradict().await;
            }
            let wait = if renewed.is_ok() { RENEW } else { Duration::from_secs(1) };
            tokio::time::sleep(wait).await;
        }
    }

    /// Follows the pods that are bound to this node, for ever.
    async fn follow(&self, mut random: Random, tasks: &Tasks) -> Result<(), Infallible> {
        let watch = Watch::new(self.client.clone(), "/api/v1/pods", &format!("spec.nodeName={}", self.node));
        let mut events = std::pin::pin!(watch.encoded());
        let mut pods: BTreeMap<String, Known> = BTreeMap::new();
        let mut listed = BTreeSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => listed.extend(self.seen(&object, &mut pods, &mut random, tasks)),
                Ok(Event::InitDone(_)) => pods.retain(|name, known| {
                    let there = listed.contains(name);
                    if !there {
                        known.seen.send_replace(None);
                    }
                    there
                }),
                Ok(Event::Apply(object)) => drop(self.seen(&object, &mut pods, &mut random, tasks)),
                Ok(Event::Delete(object)) => {
                    let pod: Value = serde_json::from_slice(&object).unwrap_or_default();
                    if let Some(known) = pods.remove(&pod::name(&pod)) {
                        known.seen.send_replace(None);
                    }
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Hands a pod's state to its task, which may be a new one.
    fn seen(&self, object: &Bytes, pods: &mut BTreeMap<String, Known>, random: &mut Random, tasks: &Tasks) -> Option<String> {
        let pod: Value = serde_json::from_slice(object).ok()?;
        let (name, uid) = (pod::name(&pod), pod["metadata"]["uid"].as_str()?.to_owned());
        if let Some(known) = pods.get(&name) {
            if known.uid == uid {
                known.seen.send_replace(Some(pod));
                return Some(name);
            }
            known.seen.send_replace(None);
        }
        let (seen, receiver) = watch::channel(Some(pod));
        pods.insert(name.clone(), Known { uid, seen });
        let life = pod::Life::new(self.clone(), Random::new(random.next()), receiver);
        tasks.spawn_until_cancelled("hollow pod", OnFailure::Shutdown, life.run());
        Some(name)
    }
}

fn conditions() -> Vec<Value> {
    let states = [("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False"), ("Ready", "True")];
    let condition = |(kind, status)| json!({"type": kind, "status": status, "reason": "Hollow", "message": "", "lastTransitionTime": now(), "lastHeartbeatTime": now()});
    states.into_iter().map(condition).collect()
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn micro_now(ahead: i64) -> String {
    let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(ahead);
    now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
