//! What all parts of one kubelet share.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::tasks::Tasks;
use client::Informer;
use client::events::{Recorder, Type};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::Resource;
use runtime::api::Runtime;
use tokio::sync::{Notify, watch};

use crate::allocatable::Allocatable;
use crate::certificates::Certificates;
use crate::claims::Claims;
use crate::clock::Clock;
use crate::cpus::Cpus;
use crate::devices::Devices;
use crate::dns::Resolv;
use crate::drivers::Drivers;
use crate::eviction::Condition;
use crate::eviction::requests::Requests;
use crate::fields::Facts;
use crate::images::garbage::collector::Collector;
use crate::images::providers::Providers;
use crate::images::records::Records;
use crate::node::machine::Machine;
use crate::numa::Memory;
use crate::options::Options;
use crate::refs::References;
use crate::spec::{Member, Model};
use crate::statics::Statics;
use crate::users::Users;

/// The file of hosts of a pod, in its directory.
pub const HOSTS: &str = "etc-hosts";
/// What a pod's directory has of each container.
pub const CONTAINERS: &str = "containers";

/// Shared by every pod's task.
pub struct Context {
    /// Configuration.
    pub options: Options,
    /// What is due is due by this clock.
    pub clock: Clock,
    /// Where everything of this kubelet runs.
    pub tasks: Tasks,
    /// Records events as `kubelet`.
    pub recorder: Recorder,
    /// Requests for certificates of pods.
    pub certificates: Certificates,
    /// Watches on the ConfigMaps and Secrets that pods refer to.
    pub references: References,
    /// For service environment variables.
    pub services: Informer<Service>,
    /// The machine's capacity.
    pub machine: Machine,
    /// What pods may take of it.
    pub allocatable: Allocatable,
    /// Storage drivers of this node.
    pub drivers: Drivers,
    /// Devices of the node's plugins.
    pub devices: Devices,
    /// Processors that containers have for themselves.
    pub cpus: Cpus,
    /// Memory of NUMA nodes that containers have for themselves.
    pub memory: Memory,
    /// Pods that a directory of the node describes.
    pub statics: Statics,
    /// Which images this kubelet has pulled, and with which credentials.
    pub pulls: Records,
    /// Removes images that nobody uses.
    pub collector: Collector,
    /// Programs that give credentials for images.
    pub providers: Providers,
    /// What pods claim.
    pub claims: Claims,
    /// User ids of pods with a user namespace.
    pub users: Users,
    /// What the node runs short of.
    pub conditions: watch::Sender<BTreeSet<Condition>>,
    /// The machine shuts down.
    pub shutdown: watch::Sender<bool>,
    /// Where others ask for the end of pods.
    pub evictions: Requests,
    /// Something happened that changes the node's status.
    pub node_changed: Notify,
    /// A volume waits until the node's status says that it is in use.
    pub volume_waits: Notify,
    /// The host's resolver configuration at start.
    pub host_resolv: Resolv,
}

impl Context {
    /// The container runtime.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.options.runtime
    }

    /// A pod is on its way out: who needs what it has of the node waits for that.
    pub fn leave(&self, uid: &str) {
        self.devices.leave(uid);
        self.cpus.leave(uid);
        self.memory.leave(uid);
    }

    /// Takes back what a pod has of the node for itself: devices, processors and memory. Idempotent.
    pub async fn give_back(&self, uid: &str) {
        self.devices.release(uid).await;
        self.cpus.release(self.runtime().as_ref(), uid).await;
        self.memory.release(uid).await;
    }

    /// The pods that have something of the node for themselves, by UID.
    pub fn owners(&self) -> BTreeSet<String> {
        self.devices.pods().into_iter().chain(self.cpus.pods()).chain(self.memory.pods()).collect()
    }

    /// The pods that the API binds to this node.
    pub fn pods_of_node(&self) -> Informer<Pod> {
        self.options.informers.of_selected(&format!("spec.nodeName={}", self.options.node_name))
    }

    /// The labels of the node; until the API has it, those that it registers with.
    pub fn node_labels(&self) -> BTreeMap<String, String> {
        let name = &self.options.node_name;
        let nodes = self.options.informers.of_selected::<Node>(&format!("metadata.name={name}"));
        let own = || self.options.node_labels(&self.machine.info.architecture);
        nodes.get(None, name).map_or_else(own, |node| node.metadata.labels.clone().unwrap_or_default())
    }

    /// Directory of everything that belongs to a pod.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.options.data_dir.join("pods").join(uid)
    }

    /// Directory of a pod's logs.
    pub fn log_dir(&self, model: &Model) -> PathBuf {
        let name = format!("{}_{}_{}", model.namespace(), model.name(), model.uid());
        self.options.pod_logs_dir.join(name)
    }

    /// Where the pod's directory says which logs are its own: other kubelets of the machine may have theirs beside them.
    pub fn log_record(&self, uid: &str) -> PathBuf {
        log_record(&self.pod_dir(uid))
    }

    /// Writes down where the pod's logs will be, before they are there.
    pub async fn record_logs(&self, model: &Model) -> io::Result<()> {
        tokio::fs::create_dir_all(self.pod_dir(model.uid())).await?;
        match tokio::fs::symlink(self.log_dir(model), self.log_record(model.uid())).await {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// File that a container writes its last words to.
    pub fn termination_log(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod_dir(uid).join(CONTAINERS).join(container).join(attempt.to_string())
    }

    /// Facts for the downward API, with the pod's addresses where they are known.
    pub fn facts(&self, pod_ips: Vec<std::net::IpAddr>) -> Facts {
        Facts {
            pod_ips,
            host_ips: self.options.node_ips.clone(),
            allocatable_milli_cpu: self.allocatable.milli_cpu,
            allocatable_memory: self.allocatable.memory,
            allocatable_storage: self.allocatable.storage,
        }
    }

    /// Records an event about a pod.
    pub fn pod_event(&self, model: &Model, kind: Type, reason: &str, message: impl Into<String>) {
        self.annotated_event(model, kind, reason, message, BTreeMap::new());
    }

    /// The same, with what programs read of it.
    pub fn annotated_event(
        &self,
        model: &Model,
        kind: Type,
        reason: &str,
        message: impl Into<String>,
        annotations: BTreeMap<String, String>,
    ) {
        self.recorder.annotated(&model.pod.object_ref(&()), kind, reason, message, annotations);
    }

    /// Records an event about a container.
    pub fn container_event(&self, model: &Model, member: &Member, kind: Type, reason: &str, message: impl Into<String>) {
        let mut object = model.pod.object_ref(&());
        object.field_path = Some(member.field_path());
        self.recorder.event(&object, kind, reason, message);
    }
}

/// In a pod's directory, the link to its logs.
pub fn log_record(pod_dir: &Path) -> PathBuf {
    pod_dir.join("logs")
}
