//! What the kubelet's page tells of the present: it is read when somebody asks, so that nothing has to be kept for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use runtime::api::{Container, ContainerState, Sandbox, SandboxState};

use super::volumes::Numbers;
use crate::node::supply::Supply;
use crate::spec::Model;
use crate::statics;
use crate::volumes::points::Table;
use crate::volumes::{claims, path, remote};

/// Volumes behind claims, and how full their file systems are: bytes and inodes. What is kept for root counts as used. And how many volumes
/// of any kind there are.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    used: BTreeMap<(String, String), (Supply, Supply)>,
    numbers: Numbers,
}

impl Claims {
    /// Of the pods of a node; what is not mounted is left out. Blocks for as long as a file system does.
    pub(crate) fn read(pods: &[Arc<Pod>], pod_dir: impl Fn(&str) -> std::path::PathBuf) -> Self {
        let (mut read, mounts) = (Self::default(), Table::read().unwrap_or_default());
        for model in pods.iter().cloned().map(Model::new) {
            let dir = pod_dir(model.uid());
            if is_active(&model.pod) {
                read.numbers.add(&model, &dir, &mounts);
            }
            for volume in model.spec().volumes.iter().flatten() {
                let Some(claim) = claims::name(&model, volume) else { continue };
                let key = (model.namespace().to_owned(), claim);
                if let Some(used) = remote::room_of_mount(&mounts, &path(&dir, volume)) {
                    read.used.insert(key, used);
                }
            }
        }
        read
    }
}

/// Whether it has not ended.
fn is_active(pod: &Pod) -> bool {
    !matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Numbers of pods: those of the API, and those of files.
#[derive(Clone, Copy, Debug, Default)]
struct Counts([usize; 2]);

impl Counts {
    fn of<'a>(pods: impl IntoIterator<Item = &'a Arc<Pod>>) -> Self {
        let mut counts = Self::default();
        for pod in pods {
            counts.0[usize::from(statics::is_static(pod.metadata.uid.as_deref().unwrap_or_default()))] += 1;
        }
        counts
    }

    fn samples(self) -> [(Vec<(&'static str, &'static str)>, f64); 2] {
        let [of_api, of_files] = self.0;
        [(vec![("static", "")], of_api as f64), (vec![("static", "true")], of_files as f64)]
    }
}

/// What a page tells.
#[derive(Debug)]
pub(crate) struct State {
    node: String,
    desired: Counts,
    active: Counts,
    sandboxes: usize,
    containers: BTreeMap<&'static str, usize>,
    claims: Claims,
}

impl State {
    pub(crate) fn new(node: &str, pods: &[Arc<Pod>], sandboxes: &[Sandbox], containers: &[Container], claims: Claims) -> Self {
        let mut by_state = BTreeMap::new();
        for container in containers {
            let state = match container.state {
                ContainerState::Created => "created",
                ContainerState::Running => "running",
                ContainerState::Exited => "exited",
            };
            *by_state.entry(state).or_default() += 1;
        }
        Self {
            node: node.to_owned(),
            desired: Counts::of(pods),
            active: Counts::of(pods.iter().filter(|pod| is_active(pod))),
            sandboxes: sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready).count(),
            containers: by_state,
            claims,
        }
    }
}

/// One family of gauges.
fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    samples: impl IntoIterator<Item = (Vec<(&'static str, &'a str)>, f64)>,
) -> fmt::Result {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        let gauge = ConstGauge::new(value);
        // Without labels there is one sample, and it has no braces.
        if labels.is_empty() {
            return gauge.encode(metric);
        }
        gauge.encode(metric.encode_family(&labels.as_slice())?)?;
    }
    Ok(())
}

type Share = fn(&(Supply, Supply)) -> i64;

const CLAIMS: [(&str, &str, Share); 6] = [
    ("kubelet_volume_stats_capacity_bytes", "Capacity in bytes of the volume", |(bytes, _)| bytes.total),
    ("kubelet_volume_stats_available_bytes", "Number of available bytes in the volume", |(bytes, _)| bytes.available),
    ("kubelet_volume_stats_used_bytes", "Number of used bytes in the volume", |(bytes, _)| bytes.total - bytes.available),
    ("kubelet_volume_stats_inodes", "Maximum number of inodes in the volume", |(_, inodes)| inodes.total),
    ("kubelet_volume_stats_inodes_free", "Number of free inodes in the volume", |(_, inodes)| inodes.available),
    ("kubelet_volume_stats_inodes_used", "Number of used inodes in the volume", |(_, inodes)| inodes.total - inodes.available),
];

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let e = &mut encoder;
        gauges(e, ("kubelet_node_name", "The node's name. The count is always 1"), [(vec![("node", self.node.as_str())], 1.0)])?;
        let help =
            "The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver";
        gauges(e, ("kubelet_desired_pods", help), self.desired.samples())?;
        let help = "The number of pods the kubelet considers active and which are being considered when admitting new pods. static is \
            true if the pod is not from the apiserver";
        gauges(e, ("kubelet_active_pods", help), self.active.samples())?;
        let running = [(Vec::new(), self.sandboxes as f64)];
        gauges(e, ("kubelet_running_pods", "Number of pods that have a running pod sandbox"), running)?;
        let containers = self.containers.iter().map(|(state, count)| (vec![("container_state", *state)], *count as f64));
        gauges(e, ("kubelet_running_containers", "Number of containers currently running"), containers)?;
        gauges(e, ("volume_manager_total_volumes", "Number of volumes in Volume Manager"), self.claims.numbers.samples())?;
        for (name, help, share) in CLAIMS {
            let samples = self.claims.used.iter().map(|((namespace, claim), used)| {
                (vec![("namespace", namespace.as_str()), ("persistentvolumeclaim", claim.as_str())], share(used) as f64)
            });
            gauges(e, (name, help), samples)?;
        }
        Ok(())
    }
}
