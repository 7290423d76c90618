//! `/stats/summary`, upstream's `k8s.io/kubelet/pkg/apis/stats/v1alpha1`.

use std::collections::HashMap;
use std::ops::Add;

use jiff::Timestamp;
use runtime::DiskUsage;
use runtime::api::{Pressure, Stall, Stalls, Usage};
use serde_json::{Value, json};

use super::network::Counters;
use super::volumes::Used;
use super::{ContainerUsage, Interface, PodUsage, Snapshot, VolumeUsage};
use crate::node::supply::{Supplies, Supply};

/// CPU times of an earlier request, from which rates follow: time, and nanoseconds by identifier.
#[derive(Clone, Debug, Default)]
pub(crate) struct Earlier {
    at: Timestamp,
    cpu: HashMap<String, u64>,
}

/// Identifier of the node beside those of sandboxes and containers.
const NODE: &str = "";

impl Earlier {
    /// What a later request needs of this one.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let mut cpu = HashMap::from([(NODE.to_owned(), snapshot.node.cpu)]);
        cpu.extend(snapshot.system.iter().map(|one| (one.key(), one.usage.cpu.total)));
        for pod in &snapshot.pods {
            cpu.insert(pod.sandbox.clone(), pod.usage.cpu.total);
            cpu.extend(pod.containers.iter().map(|container| (container.id.clone(), container.usage.cpu.total)));
        }
        Self { at: snapshot.at, cpu }
    }

    /// Nanoseconds of CPU time a second since then; none when it is not known or too short ago.
    fn rate(&self, id: &str, cpu: u64, now: Timestamp) -> Option<u64> {
        let elapsed = now.duration_since(self.at).as_secs_f64();
        let used = cpu.checked_sub(*self.cpu.get(id)?)?;
        (elapsed >= 0.1).then(|| (used as f64 / elapsed) as u64)
    }
}

/// The summary; without file systems, networks and processes when only CPU and memory are asked for.
pub(crate) fn summary(snapshot: &Snapshot, earlier: Option<&Earlier>, only_cpu_and_memory: bool) -> Value {
    let (now, node) = (snapshot.at, &snapshot.node);
    let cpu = |id: &str, total: u64| {
        let mut cpu = json!({"time": now, "usageCoreNanoSeconds": total});
        if let Some(rate) = earlier.and_then(|earlier| earlier.rate(id, total, now)) {
            cpu["usageNanoCores"] = rate.into();
        }
        cpu
    };
    let mut of_node = json!({
        "nodeName": snapshot.node_name, "startTime": node.started, "cpu": cpu(NODE, node.cpu),
        "memory": {"time": now, "usageBytes": node.memory.usage, "workingSetBytes": node.memory.working_set,
            "availableBytes": node.memory.total.saturating_sub(node.memory.working_set), "rssBytes": node.memory.rss,
            "pageFaults": node.memory.page_faults, "majorPageFaults": node.memory.major_page_faults},
        "swap": {"time": now, "swapUsageBytes": node.memory.swap,
            "swapAvailableBytes": node.memory.swap_space.saturating_sub(node.memory.swap)},
    });
    add_pressure(&mut of_node, &node.pressure, now);
    let system = snapshot.system.iter().map(|one| {
        json!({"name": one.name, "startTime": one.started, "cpu": cpu(&one.key(), one.usage.cpu.total), "memory": memory(&one.usage, now)})
    });
    of_node["systemContainers"] = system.collect();
    if !only_cpu_and_memory {
        let fs = file_system(now, node.supplies.disk, node.supplies.inodes);
        of_node["fs"] = fs.clone();
        of_node["runtime"] = json!({"imageFs": fs, "containerFs": fs});
        if let Some(network) = network(now, &node.interfaces) {
            of_node["network"] = network;
        }
        if let Some(processes) = node.supplies.processes {
            let running = processes.total - processes.available;
            of_node["rlimit"] = json!({"time": now, "maxpid": processes.total, "curproc": running});
        }
    }
    let of_disk = |pod: &PodUsage, mut value: Value| {
        let disks = pod.containers.iter().map(|container| container.disk);
        let own = disks.clone().flat_map(|disk| [disk.rootfs, disk.logs]).flatten().fold(DiskUsage::default(), Add::add);
        let ephemeral = pod.volumes.iter().filter(|volume| volume.is_ephemeral);
        let all = ephemeral.fold(own, |all, volume| DiskUsage {
            bytes: all.bytes.saturating_add_signed(volume.bytes.used),
            inodes: all.inodes.saturating_add_signed(volume.inodes.used),
        });
        if !pod.volumes.is_empty() {
            value["volume"] = pod.volumes.iter().map(|one| volume(now, &pod.namespace, one)).collect();
        }
        value["ephemeral-storage"] = used(now, all, &node.supplies);
        for (index, disk) in disks.enumerate() {
            for (name, usage) in [("rootfs", disk.rootfs), ("logs", disk.logs)] {
                if let Some(usage) = usage {
                    value["containers"][index][name] = used(now, usage, &node.supplies);
                }
            }
        }
        value
    };
    let pods = snapshot.pods.iter().map(|pod| {
        let value = of_pod(pod, now, &cpu, only_cpu_and_memory);
        if only_cpu_and_memory { value } else { of_disk(pod, value) }
    });
    let pods: Vec<Value> = pods.collect();
    json!({"node": of_node, "pods": pods})
}

fn of_pod(pod: &PodUsage, now: Timestamp, cpu: &impl Fn(&str, u64) -> Value, only_cpu_and_memory: bool) -> Value {
    let of_container = |container: &ContainerUsage| {
        let mut value = json!({"name": container.name, "startTime": container.started,
            "cpu": cpu(&container.id, container.usage.cpu.total), "memory": memory(&container.usage, now),
            "swap": swap(&container.usage, now)});
        add_pressure(&mut value, &container.usage.pressure, now);
        value
    };
    let containers: Vec<Value> = pod.containers.iter().map(of_container).collect();
    let mut value = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}, "startTime": pod.started,
        "containers": containers, "cpu": cpu(&pod.sandbox, pod.usage.cpu.total), "memory": memory(&pod.usage, now),
        "swap": swap(&pod.usage, now),
    });
    add_pressure(&mut value, &pod.usage.pressure, now);
    if !only_cpu_and_memory {
        value["process_stats"] = json!({"process_count": pod.usage.processes});
        if let Some(network) = network(now, &pod.interfaces) {
            value["network"] = network;
        }
    }
    value
}

/// What is waited for, beside what is used (KEP-4205); nothing where the kernel does not tell.
fn add_pressure(value: &mut Value, pressure: &Pressure, now: Timestamp) {
    let stall = |Stall { total, averages: [avg10, avg60, avg300] }: Stall| {
        let [avg10, avg60, avg300] = [avg10, avg60, avg300].map(|hundredths| f64::from(hundredths) / 100.0);
        json!({"total": u64::try_from(total.as_nanos()).unwrap_or(u64::MAX), "avg10": avg10, "avg60": avg60, "avg300": avg300})
    };
    let psi = |stalls: Stalls| json!({"full": stall(stalls.full), "some": stall(stalls.some)});
    for (name, stalls) in [("cpu", pressure.cpu), ("memory", pressure.memory)] {
        if let Some(stalls) = stalls {
            value[name]["psi"] = psi(stalls);
        }
    }
    if let Some(stalls) = pressure.io {
        value["io"] = json!({"time": now, "psi": psi(stalls)});
    }
}

fn memory(usage: &Usage, now: Timestamp) -> Value {
    let used = &usage.memory;
    let mut memory = json!({"time": now, "usageBytes": used.usage, "workingSetBytes": used.working_set,
        "rssBytes": used.rss, "pageFaults": used.page_faults, "majorPageFaults": used.major_page_faults});
    if let Some(limit) = used.limit {
        memory["availableBytes"] = limit.saturating_sub(used.working_set).into();
    }
    memory
}

/// What is left is told of where there is a limit, as upstream.
fn swap(usage: &Usage, now: Timestamp) -> Value {
    let used = &usage.memory;
    let mut swap = json!({"time": now, "swapUsageBytes": used.swap});
    if let Some(limit) = used.swap_limit {
        swap["swapAvailableBytes"] = limit.saturating_sub(used.swap).into();
    }
    swap
}

/// All interfaces, and the first for itself.
fn network(now: Timestamp, interfaces: &[Interface]) -> Option<Value> {
    let mut network = interface(interfaces.first()?);
    network["time"] = json!(now);
    network["interfaces"] = interfaces.iter().map(interface).collect();
    Some(network)
}

/// A volume with the claim that is behind it.
fn volume(now: Timestamp, namespace: &str, volume: &VolumeUsage) -> Value {
    let mut value = json!({"time": now, "name": volume.name});
    let parts = [
        (volume.bytes, ["usedBytes", "capacityBytes", "availableBytes"]),
        (volume.inodes, ["inodesUsed", "inodes", "inodesFree"]),
    ];
    for (Used { used, supply }, [of_used, of_total, of_available]) in parts {
        value[of_used] = used.into();
        if let Some(supply) = supply {
            value[of_total] = supply.total.into();
            value[of_available] = supply.available.into();
        }
    }
    if let Some(claim) = &volume.claim {
        value["pvcRef"] = json!({"name": claim, "namespace": namespace});
    }
    value
}

fn interface(one: &Interface) -> Value {
    let Interface { name, received, sent } = one;
    let Counters { bytes: rx, errors: rx_errors, .. } = received;
    let Counters { bytes: tx, errors: tx_errors, .. } = sent;
    json!({"name": name, "rxBytes": rx, "rxErrors": rx_errors, "txBytes": tx, "txErrors": tx_errors})
}

/// What something has on the node's disk.
fn used(now: Timestamp, usage: DiskUsage, node: &Supplies) -> Value {
    let mut fs = file_system(now, node.disk, node.inodes);
    (fs["usedBytes"], fs["inodesUsed"]) = (usage.bytes.into(), usage.inodes.into());
    fs
}

fn file_system(now: Timestamp, disk: Option<Supply>, inodes: Option<Supply>) -> Value {
    let mut fs = json!({"time": now});
    if let Some(disk) = disk {
        fs["availableBytes"] = disk.available.into();
        fs["capacityBytes"] = disk.total.into();
        fs["usedBytes"] = (disk.total - disk.available).into();
    }
    if let Some(inodes) = inodes {
        fs["inodesFree"] = inodes.available.into();
        fs["inodes"] = inodes.total.into();
        fs["inodesUsed"] = (inodes.total - inodes.available).into();
    }
    fs
}
