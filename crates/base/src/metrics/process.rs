//! The process itself, under the names that every Prometheus client library uses.

use std::fmt;

use nix::sys::resource::{Resource, getrlimit};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::stat::{TICKS, field};

#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (stat, status) = (read("/proc/self/stat"), read("/proc/self/status"));
        let seconds = |number: usize| field(&stat, number).map(|ticks| ticks as f64 / TICKS as f64);
        let help = "Total user and system CPU time spent in seconds";
        let metric = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        ConstCounter::new(seconds(14).unwrap_or_default() + seconds(15).unwrap_or_default()).encode(metric)?;
        let boot = value(&read("/proc/stat"), "btime");
        let files = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
        let most = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft as f64);
        let start = boot.and_then(|boot| Some(boot + seconds(22)?));
        let bytes = |key: &str| value(&status, key).map(|kibibytes| kibibytes * 1024.0);
        for (name, help, value) in [
            ("process_start_time_seconds", "Start time of the process since unix epoch in seconds", start),
            ("process_resident_memory_bytes", "Resident memory size in bytes", bytes("VmRSS:")),
            ("process_virtual_memory_bytes", "Virtual memory size in bytes", bytes("VmSize:")),
            ("process_open_fds", "Number of open file descriptors", files),
            ("process_max_fds", "Maximum number of open file descriptors", most),
            ("process_threads", "Number of threads", value(&status, "Threads:")),
        ] {
            if let Some(value) = value {
                ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
            }
        }
        Ok(())
    }
}

/// The number behind a word at the beginning of a line.
fn value(text: &str, key: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_understood() {
        assert_eq!(value("Name:\ta\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12.0));
        assert_eq!(value("", "VmRSS:"), None);
    }
}
