//! `/metrics/cadvisor`: what dashboards know of containers. Containers, pods and the node are told apart by their labels: a pod has
//! no `container`, the node no `pod` either.

use runtime::api::{CpuUsage, IoUsage, MemoryUsage, Pressure, Stall, Usage};

use super::disks::Disk;
use super::page::{Labels, Page, seconds};
use super::{Interface, Snapshot};
use crate::node::supply::Supply;

/// Something that is measured.
struct Row<'a> {
    labels: Labels<'a>,
    usage: Usage,
    started: f64,
    /// What it has on disk; none is all of it.
    disk: Option<Disk>,
}

/// The page.
pub(crate) fn cadvisor(snapshot: &Snapshot) -> String {
    let (rows, at, mut page) = (rows(snapshot), Some(snapshot.at), Page::default());
    let each = |value: fn(&Usage) -> f64| rows.iter().map(move |row| (row.labels.clone(), value(&row.usage)));
    let with = |extra: Labels<'static>, value: fn(&Usage) -> f64| {
        rows.iter().map(move |row| ([extra.clone(), row.labels.clone()].concat(), value(&row.usage)))
    };
    for (name, help, value) in COUNTERS {
        page.family((name, "counter", help), at, each(*value));
    }
    let total = ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.");
    page.family(total, at, with(vec![("cpu", "total")], |usage| seconds(usage.cpu.total)));
    let failures = ("container_memory_failures_total", "counter", "Cumulative count of memory allocation failures.");
    let kind = |kind| vec![("failure_type", kind), ("scope", "hierarchy")];
    let major = with(kind("pgmajfault"), |usage| usage.memory.major_page_faults as f64);
    page.family(failures, at, with(kind("pgfault"), |usage| usage.memory.page_faults as f64).chain(major));
    for (name, help, value) in GAUGES {
        page.family((name, "gauge", help), at, each(*value));
    }
    // Only who has a quota has a sample, as with cAdvisor.
    let limited = |value: fn((u64, u64)) -> u64| {
        let quotas = rows.iter().filter_map(|row| Some((row.labels.clone(), row.usage.cpu.quota?)));
        quotas.map(move |(labels, quota)| (labels, value(quota) as f64))
    };
    let quota = ("container_spec_cpu_quota", "gauge", "CPU quota of the container.");
    page.family(quota, at, limited(|(quota, _)| quota));
    let period = ("container_spec_cpu_period", "gauge", "CPU period of the container.");
    page.family(period, at, limited(|(_, period)| period));
    let started = ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.");
    page.family(started, at, rows.iter().map(|row| (row.labels.clone(), row.started)));
    let seen = ("container_last_seen", "gauge", "Last time a container was seen by the exporter");
    let now = snapshot.at.as_second() as f64;
    page.family(seen, at, rows.iter().map(|row| (row.labels.clone(), now)));
    for (name, help, stall) in PRESSURE {
        let known = rows.iter().filter_map(|row| Some((row.labels.clone(), stall(&row.usage.pressure)?.total.as_secs_f64())));
        page.family((name, "counter", help), at, known);
    }
    for (name, help, value) in DEVICES {
        let all = rows.iter().flat_map(|row| row.usage.io.iter().map(move |one| (row, one)));
        let samples = all.map(|(row, one)| ([vec![("device", one.device.as_str())], row.labels.clone()].concat(), value(one)));
        page.family((name, "counter", help), at, samples);
    }
    for (name, help, value) in FILE_SYSTEMS {
        let samples = file_systems(snapshot, &rows).map(|(labels, one)| (labels, value(&one) as f64));
        page.family((name, "gauge", help), at, samples);
    }
    for (name, help, value) in NETWORK {
        page.family((name, "counter", help), at, interfaces(snapshot).map(|(labels, interface)| (labels, value(interface))));
    }
    let machine = |value: f64| [(Labels::new(), value)];
    page.family(("machine_cpu_cores", "gauge", "Number of logical CPU cores."), at, machine(snapshot.node.cpus as f64));
    let memory = ("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.");
    page.family(memory, at, machine(snapshot.node.memory.total as f64));
    let swap = ("machine_swap_bytes", "gauge", "Amount of swap memory available on the machine.");
    page.family(swap, at, machine(snapshot.node.memory.swap_space as f64));
    let failed = ("container_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise");
    page.family(failed, None, machine(0.0));
    page.text()
}

type Family<T> = (&'static str, &'static str, fn(&T) -> f64);

const COUNTERS: &[Family<Usage>] = &[
    ("container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", |usage| seconds(usage.cpu.user)),
    ("container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.", |usage| seconds(usage.cpu.system)),
    ("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", |usage| usage.cpu.periods as f64),
    ("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", |usage| {
        usage.cpu.throttled_periods as f64
    }),
    ("container_oom_events_total", "Count of out of memory events observed for the container", |usage| {
        usage.memory.oom_kills as f64
    }),
    ("container_cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled.", |usage| {
        seconds(usage.cpu.throttled)
    }),
];

const GAUGES: &[Family<Usage>] = &[
    (
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |u| u.memory.usage as f64,
    ),
    ("container_memory_working_set_bytes", "Current working set in bytes.", |usage| usage.memory.working_set as f64),
    ("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", |usage| usage.memory.most as f64),
    ("container_memory_rss", "Size of RSS in bytes.", |usage| usage.memory.rss as f64),
    ("container_memory_cache", "Number of bytes of page cache memory.", |usage| usage.memory.cache as f64),
    ("container_memory_swap", "Container swap usage in bytes.", |usage| usage.memory.swap as f64),
    ("container_spec_memory_limit_bytes", "Memory limit for the container.", |usage| usage.memory.limit.unwrap_or(0) as f64),
    ("container_threads", "Number of threads running inside the container", |usage| usage.processes as f64),
];

type OfPressure = (&'static str, &'static str, fn(&Pressure) -> Option<Stall>);

/// Waiting is what some processes do, stalled are all of a group.
const PRESSURE: &[OfPressure] = &[
    (
        "container_pressure_cpu_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
        |pressure| Some(pressure.cpu?.full),
    ),
    (
        "container_pressure_cpu_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to CPU congestion.",
        |pressure| Some(pressure.cpu?.some),
    ),
    (
        "container_pressure_memory_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        |pressure| Some(pressure.memory?.full),
    ),
    (
        "container_pressure_memory_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to memory congestion.",
        |pressure| Some(pressure.memory?.some),
    ),
    (
        "container_pressure_io_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        |pressure| Some(pressure.io?.full),
    ),
    (
        "container_pressure_io_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to IO congestion.",
        |pressure| Some(pressure.io?.some),
    ),
];

const DEVICES: &[Family<IoUsage>] = &[
    ("container_fs_reads_bytes_total", "Cumulative count of bytes read", |one| one.read_bytes as f64),
    ("container_fs_reads_total", "Cumulative count of reads completed", |one| one.reads as f64),
    ("container_fs_writes_bytes_total", "Cumulative count of bytes written", |one| one.written_bytes as f64),
    ("container_fs_writes_total", "Cumulative count of writes completed", |one| one.writes as f64),
];

type OfFileSystem = (&'static str, &'static str, fn(&FileSystem) -> i64);

/// What something has of the disk with the pods' data, and what that has.
struct FileSystem {
    used: i64,
    disk: Supply,
    inodes: Supply,
}

const FILE_SYSTEMS: &[OfFileSystem] = &[
    ("container_fs_inodes_free", "Number of available Inodes", |one| one.inodes.available),
    ("container_fs_inodes_total", "Number of Inodes", |one| one.inodes.total),
    ("container_fs_limit_bytes", "Number of bytes that can be consumed by the container on this filesystem.", |one| {
        one.disk.total
    }),
    ("container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", |one| one.used),
];

/// The node's file system, and what of it containers have that were measured: the own files of each, and its logs.
fn file_systems<'a>(snapshot: &'a Snapshot, rows: &'a [Row<'a>]) -> impl Iterator<Item = (Labels<'a>, FileSystem)> {
    let (supplies, device) = (&snapshot.node.supplies, snapshot.node.device.as_str());
    let room = supplies.disk.zip(supplies.inodes);
    let one = move |row: &Row<'a>, used: i64| {
        let (disk, inodes) = room?;
        Some(([vec![("device", device)], row.labels.clone()].concat(), FileSystem { used, disk, inodes }))
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

const NETWORK: &[Family<Interface>] = &[
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", |one| one.received.bytes as f64),
    ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", |one| {
        one.received.errors as f64
    }),
    ("container_network_receive_packets_total", "Cumulative count of packets received", |one| one.received.packets as f64),
    ("container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", |one| {
        one.received.dropped as f64
    }),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |one| one.sent.bytes as f64),
    ("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", |one| {
        one.sent.errors as f64
    }),
    ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |one| one.sent.packets as f64),
    ("container_network_transmit_packets_dropped_total", "Cumulative count of packets dropped while transmitting", |one| {
        one.sent.dropped as f64
    }),
];

fn labels<'a>([container, id, image, name, namespace, pod]: [&'a str; 6]) -> Labels<'a> {
    vec![("container", container), ("id", id), ("image", image), ("name", name), ("namespace", namespace), ("pod", pod)]
}

fn rows(snapshot: &Snapshot) -> Vec<Row<'_>> {
    let node = &snapshot.node;
    let memory = MemoryUsage {
        usage: node.memory.usage,
        working_set: node.memory.working_set,
        rss: node.memory.rss,
        cache: node.memory.cache,
        swap: node.memory.swap,
        limit: None,
        most: 0,
        oom_kills: 0,
        page_faults: node.memory.page_faults,
        major_page_faults: node.memory.major_page_faults,
    };
    let cpu = CpuUsage { total: node.cpu, ..CpuUsage::default() };
    let usage = Usage { cpu, memory, pressure: node.pressure, ..Usage::default() };
    let mut rows =
        vec![Row { labels: labels(["", "/", "", "", "", ""]), usage, started: node.started.as_second() as f64, disk: None }];
    for pod in &snapshot.pods {
        rows.push(Row {
            labels: labels(["", &pod.usage.group, "", "", &pod.namespace, &pod.name]),
            usage: pod.usage.clone(),
            started: pod.started.as_second() as f64,
            disk: Some(Disk::default()),
        });
        rows.extend(pod.containers.iter().map(|one| Row {
            labels: labels([&one.name, &one.usage.group, &one.image, &one.id, &pod.namespace, &pod.name]),
            usage: one.usage.clone(),
            started: one.started.as_second() as f64,
            disk: Some(one.disk),
        }));
    }
    rows
}

fn interfaces(snapshot: &Snapshot) -> impl Iterator<Item = (Labels<'_>, &Interface)> {
    let of_node = snapshot.node.interfaces.iter().map(|interface| {
        let own = labels(["", "/", "", "", "", ""]);
        ([own, vec![("interface", interface.name.as_str())]].concat(), interface)
    });
    let of_pods = snapshot.pods.iter().flat_map(|pod| {
        pod.interfaces.iter().map(move |interface| {
            let own = labels(["", &pod.usage.group, "", &pod.sandbox, &pod.namespace, &pod.name]);
            ([own, vec![("interface", interface.name.as_str())]].concat(), interface)
        })
    });
    of_node.chain(of_pods)
}
