//! `/metrics/resource`: what autoscaling needs, and no more (KEP-727).

use super::page::{Labels, Page, seconds};
use super::{ContainerUsage, PodUsage, Snapshot};

/// The page.
pub(crate) fn resource(snapshot: &Snapshot) -> String {
    let (at, mut page) = (Some(snapshot.at), Page::default());
    let all = snapshot.pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)));
    let all: Vec<_> = all.map(|(pod, container)| (of_container(pod, container), container)).collect();
    let containers =
        |value: fn(&ContainerUsage) -> Option<f64>| all.iter().filter_map(move |(labels, one)| Some((labels, value(one)?)));
    let of_pods: Vec<_> = snapshot.pods.iter().map(|pod| (of_pod(pod), pod)).collect();
    let pods = |value: fn(&PodUsage) -> f64| of_pods.iter().map(move |(labels, pod)| (labels, value(pod)));
    let node = |value: f64| [(Labels::default(), value)];
    let help = "[STABLE] Cumulative cpu time consumed by the container in core-seconds";
    let cpu = ("container_cpu_usage_seconds_total", "counter", help);
    page.family(cpu, at, containers(|container| Some(seconds(container.usage.cpu.total))));
    let help = "[STABLE] Current working set of the container in bytes";
    let memory = ("container_memory_working_set_bytes", "gauge", help);
    page.family(memory, at, containers(|container| Some(container.usage.memory.working_set as f64)));
    let help = "[STABLE] Start time of the container since unix epoch in seconds";
    let started = ("container_start_time_seconds", "gauge", help);
    page.family(started, None, containers(|container| Some(container.started.as_duration().as_secs_f64())));
    // Who may swap without limit has no sample, as upstream.
    let help = "[BETA] Current amount of the container swap limit in bytes. Reported only on non-windows systems";
    let limit = ("container_swap_limit_bytes", "gauge", help);
    page.family(limit, at, containers(|container| Some(container.usage.memory.swap_limit? as f64)));
    let help = "[BETA] Current amount of the container swap usage in bytes. Reported only on non-windows systems";
    let swap = ("container_swap_usage_bytes", "gauge", help);
    page.family(swap, at, containers(|container| Some(container.usage.memory.swap as f64)));
    let help = "[STABLE] Cumulative cpu time consumed by the node in core-seconds";
    page.family(("node_cpu_usage_seconds_total", "counter", help), at, node(seconds(snapshot.node.cpu)));
    let help = "[STABLE] Current working set of the node in bytes";
    page.family(("node_memory_working_set_bytes", "gauge", help), at, node(snapshot.node.memory.working_set as f64));
    let help = "[BETA] Current swap usage of the node in bytes. Reported only on non-windows systems";
    page.family(("node_swap_usage_bytes", "gauge", help), at, node(snapshot.node.memory.swap as f64));
    let help = "[STABLE] Cumulative cpu time consumed by the pod in core-seconds";
    page.family(("pod_cpu_usage_seconds_total", "counter", help), at, pods(|pod| seconds(pod.usage.cpu.total)));
    let help = "[STABLE] Current working set of the pod in bytes";
    page.family(("pod_memory_working_set_bytes", "gauge", help), at, pods(|pod| pod.usage.memory.working_set as f64));
    let help = "[BETA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems";
    page.family(("pod_swap_usage_bytes", "gauge", help), at, pods(|pod| pod.usage.memory.swap as f64));
    let help = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";
    page.family(("resource_scrape_error", "gauge", help), None, node(0.0));
    page.text()
}

fn of_container(pod: &PodUsage, container: &ContainerUsage) -> Labels {
    Labels::new([("container", container.name.as_str()), ("namespace", &pod.namespace), ("pod", &pod.name)])
}

fn of_pod(pod: &PodUsage) -> Labels {
    Labels::new([("namespace", pod.namespace.as_str()), ("pod", &pod.name)])
}
