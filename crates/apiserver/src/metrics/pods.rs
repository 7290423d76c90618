//! What pods ask for and may take at most, as the scheduler and the kubelet count it (upstream: kube-scheduler's `/metrics/resources`).

use std::sync::Arc;

use base::metrics::{self, Format, Tell};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use pods::resources::{self, Amounts};
use registry::Entry;

const REQUEST: &str = "Resources requested by workloads on the cluster, broken down by pod. This shows the resource usage the scheduler and kubelet expect per pod for resources along with the unit for the resource if any.";
const LIMIT: &str = "Resources limit for workloads on the cluster, broken down by pod. This shows the resource usage the scheduler and kubelet expect per pod for resources along with the unit for the resource if any.";

/// Amounts by resource.
type Figures = Vec<(String, f64)>;

/// What is told of a pod.
#[derive(Debug)]
struct Row {
    namespace: String,
    pod: String,
    node: String,
    scheduler: String,
    priority: String,
    requests: Figures,
    limits: Figures,
}

impl Row {
    /// None of a pod that has ended.
    fn of(pod: Pod) -> Option<Self> {
        let spec = pod.spec?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let node = spec.node_name.clone().unwrap_or_default();
        if !node.is_empty() && matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        Some(Self {
            namespace: pod.metadata.namespace.unwrap_or_default(),
            pod: pod.metadata.name.unwrap_or_default(),
            scheduler: spec.scheduler_name.clone().unwrap_or_default(),
            priority: spec.priority.map(|priority| priority.to_string()).unwrap_or_default(),
            requests: figures(&resources::pod_requests(&spec)),
            limits: figures(&limits(&spec)),
            node,
        })
    }

    fn tell(&self, figures: &[(String, f64)], tell: &mut Tell<'_>) {
        for (resource, amount) in figures {
            let labels = [
                ("namespace", self.namespace.as_str()),
                ("pod", self.pod.as_str()),
                ("node", self.node.as_str()),
                ("scheduler", self.scheduler.as_str()),
                ("priority", self.priority.as_str()),
                ("resource", resource.as_str()),
                ("unit", unit(resource)),
            ];
            tell(&labels, *amount);
        }
    }
}

/// The limits of a pod: of a resource those of the containers that have one, and the overhead beside what is limited at all.
fn limits(spec: &PodSpec) -> Amounts<'_> {
    let mut total = resources::together(spec, resources::limits);
    total.extend(resources::amounts(spec.resources.as_ref().and_then(|resources| resources.limits.as_ref())));
    let overhead = resources::amounts(spec.overhead.as_ref());
    for (name, limit) in total.iter_mut().filter(|(_, limit)| !limit.is_zero()) {
        *limit += overhead.get(name).copied().unwrap_or_default();
    }
    total
}

/// What is nothing is not told.
fn figures(amounts: &Amounts<'_>) -> Figures {
    let some = amounts.iter().filter(|(_, amount)| !amount.is_zero());
    some.map(|(name, amount)| ((*name).to_owned(), amount.as_f64())).collect()
}

fn unit(resource: &str) -> &'static str {
    match resource {
        "cpu" => "cores",
        "memory" | "storage" | "ephemeral-storage" => "bytes",
        _ if resource.starts_with("hugepages-") => "bytes",
        _ if resource.starts_with("attachable-volumes-") => "integer",
        _ => "",
    }
}

/// The page for these pods.
pub(crate) fn page(pods: &[Arc<Entry>], format: Format) -> String {
    let rows = pods.iter().filter_map(|entry| Row::of(codec::from_slice(&entry.json).ok()?)).collect::<Vec<_>>();
    let requests = Arc::new(rows);
    let limits = requests.clone();
    let requests: metrics::Read = Box::new(move |tell| requests.iter().for_each(|row| row.tell(&row.requests, tell)));
    let limits: metrics::Read = Box::new(move |tell| limits.iter().for_each(|row| row.tell(&row.limits, tell)));
    metrics::page_of(format, [("kube_pod_resource_request", REQUEST, requests), ("kube_pod_resource_limit", LIMIT, limits)])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn row(pod: Value) -> Option<Row> {
        Row::of(codec::from_value(pod).unwrap())
    }

    /// Upstream, `podRequestsAndLimitsByLifecycle`: pods that have ended count no more; units are those of the resources.
    #[test]
    fn what_pods_ask_for() {
        let container =
            |limits: Value| json!({"name": "c", "resources": {"requests": {"cpu": "250m", "memory": "1Ki"}, "limits": limits}});
        let spec = json!({"nodeName": "n", "schedulerName": "s", "priority": 7, "overhead": {"cpu": "1", "memory": "1Ki"},
            "containers": [container(json!({"cpu": "500m"})), container(json!({"nvidia.com/gpu": "2", "hugepages-2Mi": "2Mi"}))]});
        let pod = |phase: &str| json!({"metadata": {"namespace": "a", "name": "p"}, "spec": spec, "status": {"phase": phase}});
        let found = row(pod("Running")).unwrap();
        let mut text = Vec::new();
        for figures in [&found.requests, &found.limits] {
            found.tell(figures, &mut |labels, value| {
                let values: Vec<&str> = labels.iter().map(|(_, value)| *value).collect();
                text.push(format!("{} {value}", values.join("/")));
            });
        }
        let expected = [
            "a/p/n/s/7/cpu/cores 1.5",
            "a/p/n/s/7/memory/bytes 3072",
            "a/p/n/s/7/cpu/cores 1.5",
            "a/p/n/s/7/hugepages-2Mi/bytes 2097152",
            "a/p/n/s/7/nvidia.com/gpu/ 2",
        ];
        assert_eq!(text, expected);
        assert!(row(pod("Succeeded")).is_none() && row(pod("Failed")).is_none());
        let waits = row(json!({"metadata": {"name": "p"}, "spec": {"containers": [container(json!({}))]}})).unwrap();
        assert_eq!((waits.node.as_str(), waits.priority.as_str(), waits.limits.len()), ("", "", 0));
    }
}
