//! cAdvisor's metrics: names, help and where their values are.

use runtime::api::{IoUsage, Pressure, ProcessUsage, Stall, Usage};

use super::super::Interface;
use super::super::details::DiskIo;
use super::super::page::seconds;
use super::FileSystem;

/// A metric: its name, its help and its value.
pub(super) type Family<T, V = f64> = (&'static str, &'static str, fn(&T) -> V);

pub(super) const COUNTERS: &[Family<Usage>] = &[
    ("container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", |usage| seconds(usage.cpu.user)),
    ("container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.", |usage| seconds(usage.cpu.system)),
    ("container_memory_failcnt", "Number of memory usage hits limits", |usage| usage.memory.limit_hits as f64),
    ("container_oom_events_total", "Count of out of memory events observed for the container", |usage| {
        usage.memory.oom_kills as f64
    }),
];

/// Of those that have a quota, as with cAdvisor.
pub(super) const QUOTA_COUNTERS: &[Family<Usage>] = &[
    ("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", |usage| usage.cpu.periods as f64),
    ("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", |usage| {
        usage.cpu.throttled_periods as f64
    }),
    ("container_cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled.", |usage| {
        seconds(usage.cpu.throttled)
    }),
    ("container_cpu_cfs_burst_periods_total", "Number of periods when burst occurs.", |usage| usage.cpu.bursts as f64),
    ("container_cpu_cfs_burst_seconds_total", "Total time duration the container has been bursted.", |usage| {
        seconds(usage.cpu.burst)
    }),
];

pub(super) const GAUGES: &[Family<Usage>] = &[
    (
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |u| u.memory.usage as f64,
    ),
    ("container_memory_working_set_bytes", "Current working set in bytes.", |usage| usage.memory.working_set as f64),
    ("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", |usage| usage.memory.most as f64),
    ("container_memory_rss", "Size of RSS in bytes.", |usage| usage.memory.rss as f64),
    ("container_memory_cache", "Number of bytes of page cache memory.", |usage| usage.memory.cache as f64),
    ("container_memory_mapped_file", "Size of memory mapped files in bytes.", |usage| usage.memory.mapped as f64),
    ("container_memory_total_active_file_bytes", "Current total active file in bytes.", |usage| usage.memory.active_file as f64),
    ("container_memory_total_inactive_file_bytes", "Current total inactive file in bytes.", |usage| {
        usage.memory.inactive_file as f64
    }),
    ("container_memory_kernel_usage", "Size of kernel memory allocated in bytes.", |usage| usage.memory.kernel as f64),
    ("container_memory_swap", "Container swap usage in bytes.", |usage| usage.memory.swap as f64),
    ("container_threads", "Number of threads running inside the container", |usage| usage.processes as f64),
    ("container_threads_max", "Maximum number of threads allowed inside the container, infinity if value is zero", |usage| {
        usage.processes_limit.unwrap_or(0) as f64
    }),
    // 0 where there is no limit, as with cAdvisor.
    ("container_spec_memory_limit_bytes", "Memory limit for the container.", |usage| usage.memory.limit.unwrap_or(0) as f64),
    ("container_spec_memory_swap_limit_bytes", "Memory swap limit for the container.", |usage| {
        usage.memory.swap_limit.unwrap_or(0) as f64
    }),
    ("container_spec_memory_reservation_limit_bytes", "Memory reservation limit for the container.", |usage| {
        usage.memory.reservation.unwrap_or(0) as f64
    }),
];

/// What containers have open.
pub(super) const PROCESSES: &[Family<ProcessUsage>] = &[
    ("container_processes", "Number of processes running inside the container.", |one| one.processes as f64),
    ("container_file_descriptors", "Number of open file descriptors for the container.", |one| one.descriptors as f64),
    ("container_sockets", "Number of open sockets for the container.", |one| one.sockets as f64),
];

/// Settings that not everything has.
pub(super) const SETTINGS: &[Family<Usage, Option<u64>>] = &[
    ("container_spec_cpu_period", "CPU period of the container.", |usage| usage.cpu.period),
    ("container_spec_cpu_quota", "CPU quota of the container.", |usage| usage.cpu.quota),
    ("container_spec_cpu_shares", "CPU share of the container.", |usage| usage.cpu.shares),
];

/// Waiting is what some processes do, stalled are all of a group.
pub(super) const PRESSURE: &[Family<Pressure, Option<Stall>>] = &[
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

pub(super) const DEVICES: &[Family<IoUsage>] = &[
    ("container_fs_reads_bytes_total", "Cumulative count of bytes read", |one| one.read_bytes as f64),
    ("container_fs_reads_total", "Cumulative count of reads completed", |one| one.reads as f64),
    ("container_fs_writes_bytes_total", "Cumulative count of bytes written", |one| one.written_bytes as f64),
    ("container_fs_writes_total", "Cumulative count of writes completed", |one| one.writes as f64),
];

/// What the kernel tells of whole devices only.
pub(super) const DISK_COUNTERS: &[Family<DiskIo>] = &[
    ("container_fs_reads_merged_total", "Cumulative count of reads merged", |disk| disk.reads.merged as f64),
    ("container_fs_sector_reads_total", "Cumulative count of sector reads completed", |disk| disk.reads.sectors as f64),
    ("container_fs_read_seconds_total", "Cumulative count of seconds spent reading", |disk| disk.reads.time.as_secs_f64()),
    ("container_fs_writes_merged_total", "Cumulative count of writes merged", |disk| disk.writes.merged as f64),
    ("container_fs_sector_writes_total", "Cumulative count of sector writes completed", |disk| disk.writes.sectors as f64),
    ("container_fs_write_seconds_total", "Cumulative count of seconds spent writing", |disk| disk.writes.time.as_secs_f64()),
    ("container_fs_io_time_seconds_total", "Cumulative count of seconds spent doing I/Os", |disk| disk.busy.as_secs_f64()),
    ("container_fs_io_time_weighted_seconds_total", "Cumulative weighted I/O time in seconds", |disk| disk.waited.as_secs_f64()),
];

pub(super) const FILE_SYSTEMS: &[Family<FileSystem, i64>] = &[
    ("container_fs_inodes_free", "Number of available Inodes", |one| one.inodes.available),
    ("container_fs_inodes_total", "Number of Inodes", |one| one.inodes.total),
    ("container_fs_limit_bytes", "Number of bytes that can be consumed by the container on this filesystem.", |one| {
        one.disk.total
    }),
    ("container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", |one| one.used),
];

pub(super) const NETWORK: &[Family<Interface>] = &[
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
