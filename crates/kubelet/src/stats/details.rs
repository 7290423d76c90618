//! What only cAdvisor's page tells: read when that is asked for, since the other pages are asked for more often.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::NodeSystemInfo;
use runtime::api::{Error, IoUsage, ProcessUsage};

use super::Snapshot;
use crate::context::Context;

/// Numbers of a block device.
type Device = (u32, u32);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Details {
    /// Who the machine is.
    pub(crate) info: NodeSystemInfo,
    pub(crate) cores: usize,
    pub(crate) sockets: usize,
    /// What the processes of containers have open, by container.
    pub(crate) processes: BTreeMap<String, ProcessUsage>,
    /// Files of block devices, such as `/dev/sda`.
    pub(crate) names: BTreeMap<Device, String>,
    /// What went to and from the disk with the pods' data; none where no block device is behind it.
    pub(crate) disk: Option<DiskIo>,
}

/// What went to and from a block device (Documentation/admin-guide/iostats.rst).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskIo {
    pub(crate) device: Device,
    pub(crate) reads: Direction,
    pub(crate) writes: Direction,
    /// Requests that have not ended.
    pub(crate) in_progress: u64,
    /// How long there was any.
    pub(crate) busy: Duration,
    /// The sum of how long each took.
    pub(crate) waited: Duration,
}

/// Reading or writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Direction {
    pub(crate) completed: u64,
    pub(crate) merged: u64,
    /// Of 512 bytes, whatever the device has.
    pub(crate) sectors: u64,
    pub(crate) time: Duration,
}

impl DiskIo {
    /// Finds a device in `/proc/diskstats` by its name there.
    fn parse(table: &str, name: &str) -> Option<Self> {
        let of_line = |line: &str| {
            let mut words = line.split_whitespace();
            let device = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let is_it = words.next()? == name;
            let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
            let [r0, r1, r2, r3, w0, w1, w2, w3, in_progress, busy, waited, ..] = numbers[..] else { return None };
            let direction =
                |completed, merged, sectors, time| Direction { completed, merged, sectors, time: Duration::from_millis(time) };
            is_it.then(|| Self {
                device,
                reads: direction(r0, r1, r2, r3),
                writes: direction(w0, w1, w2, w3),
                in_progress,
                busy: Duration::from_millis(busy),
                waited: Duration::from_millis(waited),
            })
        };
        table.lines().find_map(of_line)
    }

    /// What groups are counted for.
    pub(crate) fn usage(&self) -> IoUsage {
        IoUsage {
            device: self.device,
            read_bytes: self.reads.sectors * 512,
            written_bytes: self.writes.sectors * 512,
            reads: self.reads.completed,
            writes: self.writes.completed,
        }
    }
}

impl Details {
    /// Reads what belongs to a snapshot.
    pub(crate) async fn collect(cx: &Arc<Context>, snapshot: &Snapshot) -> Result<Self, Error> {
        let processes = cx.runtime().process_usages().await?;
        let containers = snapshot.pods.iter().flat_map(|pod| pod.containers.iter().map(|container| &container.usage));
        let groups = snapshot.pods.iter().map(|pod| &pod.usage).chain(snapshot.system.iter().map(|one| &one.usage));
        let mut devices: Vec<Device> = containers.chain(groups).flat_map(|usage| &usage.io).map(|one| one.device).collect();
        let (info, cores, sockets) = (cx.machine.info.clone(), cx.machine.cores, cx.machine.sockets);
        let source = snapshot.node.device.clone();
        let read = move || {
            let disk = disk(Path::new(&source));
            devices.extend(disk.iter().map(|disk| disk.device));
            devices.sort_unstable();
            devices.dedup();
            let names = devices.into_iter().map(|device| (device, name(device))).collect();
            Self { info, cores, sockets, processes, names, disk }
        };
        tokio::task::spawn_blocking(read).await.map_err(|error| Error::Internal(error.to_string()))
    }

    /// The file of a block device.
    pub(crate) fn name(&self, device: Device) -> String {
        self.names.get(&device).cloned().unwrap_or_else(|| unnamed(device))
    }
}

fn unnamed((major, minor): Device) -> String {
    format!("/dev/block/{major}:{minor}")
}

fn name((major, minor): Device) -> String {
    let known = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).unwrap_or_default();
    let name = known.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| unnamed((major, minor)), |name| format!("/dev/{name}"))
}

/// The disk by what the table of mounts has for it, which may be a link such as those of the device mapper.
fn disk(source: &Path) -> Option<DiskIo> {
    let device = fs::canonicalize(source).ok()?;
    let name = device.strip_prefix("/dev").ok()?.to_str()?;
    // A slash of a device's name is an exclamation mark in the kernel's own tables.
    DiskIo::parse(&fs::read_to_string("/proc/diskstats").ok()?, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_counts_of_disks() {
        let table = "   7       0 loop0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n \
                     254       0 vda 3116 16 807032 1917 667 740 41636 636 2 1540 3038 32 0 524320 10 352 474\n \
                     254       1 vda1 1 2 3 4 5 6 7 8 9 10 11\n 8 0 sda 1 2\n";
        let expected = DiskIo {
            device: (254, 0),
            reads: Direction { completed: 3116, merged: 16, sectors: 807_032, time: Duration::from_millis(1917) },
            writes: Direction { completed: 667, merged: 740, sectors: 41_636, time: Duration::from_millis(636) },
            in_progress: 2,
            busy: Duration::from_millis(1540),
            waited: Duration::from_millis(3038),
        };
        let usage = expected.usage();
        assert_eq!((usage.read_bytes, usage.writes), (807_032 * 512, 667));
        for (name, device) in [("vda", Some((254, 0))), ("vda1", Some((254, 1))), ("sda", None), ("vd", None)] {
            assert_eq!(DiskIo::parse(table, name).map(|disk| disk.device), device, "{name}");
        }
        assert_eq!(DiskIo::parse(table, "vda"), Some(expected));
    }

    #[test]
    fn devices_have_the_names_of_their_files() {
        let one = fs::read_dir("/sys/dev/block").unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
        let (major, minor) = one.split_once(':').unwrap();
        let known = name((major.parse().unwrap(), minor.parse().unwrap()));
        assert!(Path::new(&known).exists() && !known.contains("block"), "{one}: {known}");
        assert_eq!(name((4095, 9)), "/dev/block/4095:9");
    }
}
