//! `/metrics/cadvisor`: what dashboards know of containers. Containers, pods and the node are told apart by their labels: a pod has
//! no `container`, the node no `pod` either. The group of all pods has none of them but its `id`.
//!
//! Upstream's kubelet has three more that say nothing there, and are left out: container_tasks_state, container_cpu_load_average_10s and
//! container_cpu_load_d_average_10s are always 0, because their reader is off, and container_health_state is always -1, because
//! runtimes of Kubernetes know no such checks.

mod families;

use runtime::api::{CpuUsage, MemoryUsage, ProcessUsage, Ulimit, Usage};

use super::details::Details;
use super::disks::Disk;
use super::page::{Labels, Page, seconds};
use super::{Interface, Snapshot};
use crate::node::supply::Supply;
use families::{COUNTERS, DEVICES, DISK_COUNTERS, FILE_SYSTEMS, GAUGES, NETWORK, PRESSURE, PROCESSES, QUOTA_COUNTERS, SETTINGS};

/// Something that is measured.
struct Row<'a> {
    labels: Labels,
    usage: Usage,
    started: f64,
    /// What it has on disk; none is all of it.
    disk: Option<Disk>,
    /// Its processes, of containers.
    processes: Option<&'a ProcessUsage>,
}

/// What something has of the disk with the pods' data, and what that has.
struct FileSystem {
    used: i64,
    disk: Supply,
    inodes: Supply,
}

/// The page.
pub(crate) fn cadvisor(snapshot: &Snapshot, details: &Details) -> String {
    let (rows, mut page) = (rows(snapshot, details), Page::default());
    of_groups(&mut page, snapshot, &rows);
    of_processes(&mut page, snapshot, &rows);
    of_disks(&mut page, snapshot, details, &rows);
    let at = Some(snapshot.at);
    let interfaces: Vec<_> = interfaces(snapshot).collect();
    for (name, help, value) in NETWORK {
        page.family((name, "counter", help), at, interfaces.iter().map(|(labels, interface)| (labels, value(interface))));
    }
    of_machine(&mut page, snapshot, details);
    page.text()
}

/// What the kernel counts for each group.
fn of_groups(page: &mut Page, snapshot: &Snapshot, rows: &[Row<'_>]) {
    let at = Some(snapshot.at);
    let each = |value: fn(&Usage) -> f64| rows.iter().map(move |row| (&row.labels, value(&row.usage)));
    for (name, help, value) in COUNTERS {
        page.family((name, "counter", help), at, each(*value));
    }
    let with_quota = || rows.iter().filter(|row| row.usage.cpu.quota.is_some());
    for (name, help, value) in QUOTA_COUNTERS {
        page.family((name, "counter", help), at, with_quota().map(|row| (&row.labels, value(&row.usage))));
    }
    let total = ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.");
    let all_cpus = Labels::new([("cpu", "total")]);
    page.family(total, at, rows.iter().map(|row| (all_cpus.clone().then(&row.labels), seconds(row.usage.cpu.total))));
    let failures = ("container_memory_failures_total", "counter", "Cumulative count of memory allocation failures.");
    let faults = rows.iter().flat_map(|row| {
        let memory = &row.usage.memory;
        let [own, own_major] = memory.own_page_faults;
        let kinds = [
            ("pgfault", "container", own),
            ("pgmajfault", "container", own_major),
            ("pgfault", "hierarchy", memory.page_faults),
            ("pgmajfault", "hierarchy", memory.major_page_faults),
        ];
        kinds
            .map(|(kind, scope, count)| (Labels::new([("failure_type", kind), ("scope", scope)]).then(&row.labels), count as f64))
    });
    page.family(failures, at, faults);
    for (name, help, value) in GAUGES {
        page.family((name, "gauge", help), at, each(*value));
    }
    for (name, help, value) in SETTINGS {
        let known = rows.iter().filter_map(|row| Some((&row.labels, value(&row.usage)? as f64)));
        page.family((name, "gauge", help), at, known);
    }
    let started = ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.");
    page.family(started, at, rows.iter().map(|row| (&row.labels, row.started)));
    let seen = ("container_last_seen", "gauge", "Last time a container was seen by the exporter");
    let now = snapshot.at.as_second() as f64;
    page.family(seen, at, rows.iter().map(|row| (&row.labels, now)));
    for (name, help, stall) in PRESSURE {
        let known = rows.iter().filter_map(|row| Some((&row.labels, stall(&row.usage.pressure)?.total.as_secs_f64())));
        page.family((name, "counter", help), at, known);
    }
}

/// What containers have open.
fn of_processes(page: &mut Page, snapshot: &Snapshot, rows: &[Row<'_>]) {
    let at = Some(snapshot.at);
    let known = || rows.iter().filter_map(|row| Some((row, row.processes?)));
    for (name, help, value) in PROCESSES {
        page.family((name, "gauge", help), at, known().map(|(row, one)| (&row.labels, value(one))));
    }
    let help = "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice";
    let limits = known().filter_map(|(row, one)| {
        let limit = match one.open_files? {
            Ulimit::Unlimited => -1.0,
            Ulimit::Limited(limit) => limit as f64,
        };
        Some((Labels::new([("ulimit", "max_open_files")]).then(&row.labels), limit))
    });
    page.family(("container_ulimits_soft", "gauge", help), at, limits);
}

/// What goes to and from disks, and what is on them.
fn of_disks(page: &mut Page, snapshot: &Snapshot, details: &Details, rows: &[Row<'_>]) {
    let at = Some(snapshot.at);
    let devices = rows.iter().flat_map(|row| row.usage.io.iter().map(move |one| (row, one, details.name(one.device))));
    let devices: Vec<_> = devices.collect();
    let labelled = devices.iter().map(|(row, one, name)| (Labels::new([("device", name.as_str())]).then(&row.labels), one));
    let labelled: Vec<_> = labelled.collect();
    for (name, help, value) in DEVICES {
        page.family((name, "counter", help), at, labelled.iter().map(|(labels, one)| (labels, value(one))));
    }
    let operations = devices.iter().flat_map(|(row, one, name)| {
        let (major, minor) = (one.device.0.to_string(), one.device.1.to_string());
        [("Read", one.read_bytes), ("Write", one.written_bytes)].map(|(operation, bytes)| {
            let own = [("device", name.as_str()), ("major", &major), ("minor", &minor), ("operation", operation)];
            (Labels::new(own).then(&row.labels), bytes as f64)
        })
    });
    page.family(("container_blkio_device_usage_total", "counter", "Blkio Device bytes usage"), at, operations);
    if let Some(disk) = &details.disk {
        let labels = Labels::new([("device", details.name(disk.device).as_str())]).then(&of_node());
        for (name, help, value) in DISK_COUNTERS {
            page.family((name, "counter", help), at, [(&labels, value(disk))]);
        }
        let current = ("container_fs_io_current", "gauge", "Number of I/Os currently in progress");
        page.family(current, at, [(&labels, disk.in_progress as f64)]);
    }
    let file_systems: Vec<_> = file_systems(snapshot, rows).collect();
    for (name, help, value) in FILE_SYSTEMS {
        page.family((name, "gauge", help), at, file_systems.iter().map(|(labels, one)| (labels, value(one) as f64)));
    }
}

/// What the machine is and has.
fn of_machine(page: &mut Page, snapshot: &Snapshot, details: &Details) {
    let at = Some(snapshot.at);
    let info = &details.info;
    let ids = [("boot_id", info.boot_id.as_str()), ("machine_id", &info.machine_id), ("system_uuid", &info.system_uuid)];
    let ids = Labels::new(ids);
    for (name, help, value) in [
        ("machine_cpu_cores", "Number of logical CPU cores.", snapshot.node.cpus),
        ("machine_cpu_physical_cores", "Number of physical CPU cores.", details.cores as u64),
        ("machine_cpu_sockets", "Number of CPU sockets.", details.sockets as u64),
        ("machine_memory_bytes", "Amount of memory installed on the machine.", snapshot.node.memory.total),
        ("machine_swap_bytes", "Amount of swap memory available on the machine.", snapshot.node.memory.swap_space),
    ] {
        page.family((name, "gauge", help), at, [(&ids, value as f64)]);
    }
    let versions = [
        ("cadvisorRevision", ""),
        ("cadvisorVersion", ""),
        ("dockerVersion", ""),
        ("kernelVersion", info.kernel_version.as_str()),
        ("osVersion", &info.os_image),
    ];
    let help = "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.";
    page.family(("cadvisor_version_info", "gauge", help), at, [(Labels::new(versions), 1.0)]);
    for (name, of) in [("container_scrape_error", "container"), ("machine_scrape_error", "machine")] {
        let help = format!("1 if there was an error while getting {of} metrics, 0 otherwise");
        page.family((name, "gauge", &help), None, [(Labels::default(), 0.0)]);
    }
}

/// The node's file system, and what of it containers have that were measured: the own files of each, and its logs.
fn file_systems<'a>(snapshot: &'a Snapshot, rows: &'a [Row<'a>]) -> impl Iterator<Item = (Labels, FileSystem)> {
    let (supplies, device) = (&snapshot.node.supplies, snapshot.node.device.as_str());
    let room = supplies.disk.zip(supplies.inodes);
    let one = move |row: &Row<'_>, used: i64| {
        let (disk, inodes) = room?;
        Some((Labels::new([("device", device)]).then(&row.labels), FileSystem { used, disk, inodes }))
    };
    rows.iter().filter_map(move |row| {
        let used = match row.disk {
            None => room.map(|(disk, _)| disk.total - disk.available)?,
            Some(Disk { rootfs: None, logs: None }) => return None,
            Some(Disk { rootfs, logs }) => {
                let bytes = [rootfs, logs].into_iter().flatten().map(|usage| usage.bytes).sum::<u64>();
                i64::try_from(bytes).unwrap_or(i64::MAX)
            }
        };
        one(row, used)
    })
}

fn labels([container, id, image, name, namespace, pod]: [&str; 6]) -> Labels {
    Labels::new([("container", container), ("id", id), ("image", image), ("name", name), ("namespace", namespace), ("pod", pod)])
}

fn of_node() -> Labels {
    labels(["", "/", "", "", "", ""])
}

fn node(snapshot: &Snapshot, details: &Details) -> Usage {
    let (node, memory) = (&snapshot.node, &snapshot.node.memory);
    let faults = [memory.page_faults, memory.major_page_faults];
    let memory = MemoryUsage {
        usage: memory.usage,
        working_set: memory.working_set,
        rss: memory.rss,
        cache: memory.cache,
        mapped: memory.mapped,
        active_file: memory.active_file,
        inactive_file: memory.inactive_file,
        kernel: memory.kernel,
        swap: memory.swap,
        page_faults: memory.page_faults,
        major_page_faults: memory.major_page_faults,
        own_page_faults: faults,
        ..MemoryUsage::default()
    };
    let [user, system] = node.cpu_modes;
    let cpu = CpuUsage { total: node.cpu, user, system, ..CpuUsage::default() };
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    let (processes, limit) = node.supplies.processes.map(|all| (count(all.total - all.available), count(all.total))).unzip();
    Usage {
        cpu,
        memory,
        pressure: node.pressure,
        processes: processes.unwrap_or(0),
        processes_limit: limit,
        io: details.disk.iter().map(|disk| disk.usage()).collect(),
        ..Usage::default()
    }
}

fn rows<'a>(snapshot: &'a Snapshot, details: &'a Details) -> Vec<Row<'a>> {
    let started = snapshot.node.started.as_second() as f64;
    let row = |labels, usage, started| Row { labels, usage, started, disk: Some(Disk::default()), processes: None };
    let mut rows = vec![Row { disk: None, ..row(of_node(), node(snapshot, details), started) }];
    let all_pods = snapshot.system.iter().filter(|one| !one.usage.group.is_empty());
    rows.extend(
        all_pods
            .map(|one| row(labels(["", &one.usage.group, "", "", "", ""]), one.usage.clone(), one.started.as_second() as f64)),
    );
    for pod in &snapshot.pods {
        let of_pod = labels(["", &pod.usage.group, "", "", &pod.namespace, &pod.name]);
        rows.push(row(of_pod, pod.usage.clone(), pod.started.as_second() as f64));
        rows.extend(pod.containers.iter().map(|one| Row {
            labels: labels([&one.name, &one.usage.group, &one.image, &one.id, &pod.namespace, &pod.name]),
            usage: one.usage.clone(),
            started: one.started.as_second() as f64,
            disk: Some(one.disk),
            processes: details.processes.get(&one.id),
        }));
    }
    rows
}

fn interfaces(snapshot: &Snapshot) -> impl Iterator<Item = (Labels, &Interface)> {
    let with = |own: Labels, interface: &Interface| own.then(&Labels::new([("interface", interface.name.as_str())]));
    let of_node = snapshot.node.interfaces.iter().map(move |interface| (with(of_node(), interface), interface));
    let of_pods = snapshot.pods.iter().flat_map(move |pod| {
        pod.interfaces.iter().map(move |interface| {
            let own = labels(["", &pod.usage.group, "", &pod.sandbox, &pod.namespace, &pod.name]);
            (with(own, interface), interface)
        })
    });
    of_node.chain(of_pods)
}
