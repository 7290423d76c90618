//! `/metrics/resource`: what autoscaling needs, and no more (KEP-727).

use super::page::{Labels, Page, seconds};
use super::{ContainerUsage, PodUsage, Snapshot};

/// The page.
pub(crate) fn resource(snapshot: &Snapshot) -> String {
    let (at, mut page) = (Some(snapshot.at), Page::default());
    let containers = |value: fn(&ContainerUsage) -> f64| {
        let all = snapshot.pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)));
        all.map(move |(pod, container)| (of_container(pod, container), value(container)))
    };
    let pods = |value: fn(&PodUsage) -> f64| snapshot.pods.iter().map(move |pod| (of_pod(pod), value(pod)));
    let node = |value: f64| [(Labels::new(), value)];
    let help = "[STABLE] Cumulative cpu time consumed by the container in core-seconds";
    let cpu = ("container_cpu_usage_seconds_total", "counter", help);
    page.family(cpu, at, containers(|container| seconds(container.usage.cpu.total)));
    let help = "[STABLE] Current working set of the container in bytes";
    let memory = ("container_memory_working_set_bytes", "gauge", help);
    page.family(memory, at, containers(|container| container.usage.memory.working_set as f64));
    let help = "[STABLE] Start time of the container since unix epoch in seconds";
    let started = ("container_start_time_seconds", "gauge", help);
    page.family(started, None, containers(|container| container.started.as_duration().as_secs_f64()));
    let help = "[BETA] Current amount of the container swap usage in bytes. Reported only on non-windows systems";
    page.family(("container_swap_usage_bytes", "gauge", help), at, containers(|container| container.usage.memory.swap as f64));
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

fn of_container<'a>(pod: &'a PodUsage, container: &'a ContainerUsage) -> Labels<'a> {
    vec![("container", &container.name), ("namespace", &pod.namespace), ("pod", &pod.name)]
}

fn of_pod(pod: &PodUsage) -> Labels<'_> {
    vec![("namespace", &pod.namespace), ("pod", &pod.name)]
}
