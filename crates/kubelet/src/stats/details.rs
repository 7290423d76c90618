//! What only cAdvisor's page tells: read when that is asked for, since the other pages are asked for more often.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::NodeSystemInfo;
use nix::sys::stat;
use runtime::api::{Error, IoUsage, ProcessUsage};

use super::Snapshot;
use super::paced::Paced;
use crate::context::Context;

/// Where the kernel tells of disks.
const PROC: &str = "/proc";
/// Where it tells of devices.
const SYS: &str = "/sys";

/// Major and minor number of a block device.
type Device = (u32, u32);

/// What the processes of containers have open, by container. To read it looks at each descriptor of each process, of which there may be millions.
pub(crate) type Processes = BTreeMap<String, ProcessUsage>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Details {
    /// Who the machine is.
    pub(crate) info: NodeSystemInfo,
    pub(crate) cores: usize,
    pub(crate) sockets: usize,
    /// What the processes of containers have open, by container.
    pub(crate) processes: Arc<Processes>,
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
    /// Finds a device in `/proc/diskstats`.
    fn parse(table: &str, device: Device) -> Option<Self> {
        let of_line = |line: &str| {
            let mut words = line.split_whitespace();
            let is_it = device == (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            // Behind its name.
            let numbers: Vec<u64> = words.skip(1).filter_map(|word| word.parse().ok()).collect();
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
    /// Reads what belongs to a snapshot; what processes have open, as it was measured a short time ago.
    pub(crate) async fn collect(cx: &Arc<Context>, snapshot: &Snapshot, processes: &Paced<Processes>) -> Result<Self, Error> {
        let of = cx.clone();
        let measure = || async move {
            let usages = of.runtime().process_usages().await;
            usages.unwrap_or_else(|error| {
                tracing::warn!(%error, "what processes of containers have open is not known");
                Processes::new()
            })
        };
        let processes = processes.scraped(&cx.tasks, "descriptors of containers", measure).await;
        let containers = snapshot.pods.iter().flat_map(|pod| pod.containers.iter().map(|container| &container.usage));
        let groups = snapshot.pods.iter().map(|pod| &pod.usage).chain(snapshot.system.iter().map(|one| &one.usage));
        let mut devices: Vec<Device> = containers.chain(groups).flat_map(|usage| &usage.io).map(|one| one.device).collect();
        let (info, cores, sockets) = (cx.machine.info.clone(), cx.machine.cores, cx.machine.sockets);
        let source = snapshot.node.device.clone();
        let read = move || {
            let disk = disk(Path::new(PROC), Path::new(&source));
            devices.extend(disk.iter().map(|disk| disk.device));
            devices.sort_unstable();
            devices.dedup();
            let names = devices.into_iter().map(|device| (device, name(Path::new(SYS), device))).collect();
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

fn name(sys: &Path, (major, minor): Device) -> String {
    let known = fs::read_to_string(sys.join(format!("dev/block/{major}:{minor}/uevent"))).unwrap_or_default();
    let name = known.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| unnamed((major, minor)), |name| format!("/dev/{name}"))
}

/// The disk by what the table of mounts has for it: the file of a block device, or a link to it such as those of the device mapper. Its numbers are
/// looked for, since the kernel may name it in another way than its file.
fn disk(proc: &Path, source: &Path) -> Option<DiskIo> {
    let file = fs::metadata(source).ok().filter(|file| file.file_type().is_block_device())?;
    let numbers = [stat::major(file.rdev()), stat::minor(file.rdev())].map(u32::try_from);
    let [Ok(major), Ok(minor)] = numbers else { return None };
    DiskIo::parse(&fs::read_to_string(proc.join("diskstats")).ok()?, (major, minor))
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
        // The line of the third is too short.
        for (device, reads) in [((254, 0), Some(3116)), ((254, 1), Some(1)), ((8, 0), None), ((254, 2), None)] {
            assert_eq!(DiskIo::parse(table, device).map(|disk| disk.reads.completed), reads, "{device:?}");
        }
        assert_eq!(DiskIo::parse(table, (254, 0)), Some(expected));
    }

    #[test]
    fn devices_have_the_names_of_their_files() {
        let sys = tempfile::tempdir().unwrap();
        for (device, file) in [((254, 1), "vda1"), ((104, 0), "cciss/c0d0")] {
            let directory = sys.path().join(format!("dev/block/{}:{}", device.0, device.1));
            fs::create_dir_all(&directory).unwrap();
            let told = format!("MAJOR={}\nMINOR={}\nDEVNAME={file}\nDEVTYPE=disk\n", device.0, device.1);
            fs::write(directory.join("uevent"), told).unwrap();
            assert_eq!(name(sys.path(), device), format!("/dev/{file}"));
        }
        assert_eq!(name(sys.path(), (4095, 9)), "/dev/block/4095:9");
    }

    /// What the kernel names `dm-0` is mounted by a link of the device mapper, and names of drivers may have slashes.
    #[test]
    fn the_disk_is_found_by_its_numbers() {
        if !nix::unistd::Uid::effective().is_root() {
            return eprintln!("SKIPPED: making a device needs root");
        }
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let line = |minor: u32, name: &str| format!(" 104 {minor:7} {name} 5 0 0 0 6 0 0 0 0 0 0\n");
        fs::write(at("diskstats"), line(15, "cciss!c0d0p15") + &line(16, "cciss/c0d1")).unwrap();
        for (minor, expected) in [(15, true), (16, true), (17, false)] {
            let (node, link) = (at(&format!("node{minor}")), at(&format!("link{minor}")));
            stat::mknod(&node, stat::SFlag::S_IFBLK, stat::Mode::S_IRUSR, stat::makedev(104, minor)).unwrap();
            std::os::unix::fs::symlink(&node, &link).unwrap();
            for source in [node, link] {
                let found = disk(scratch.path(), &source).map(|disk| disk.device);
                assert_eq!(found, expected.then_some((104, minor as u32)), "{}", source.display());
            }
        }
        // Other file systems have a word there, or a path of another machine.
        for source in ["tmpfs", "server:/export", "/dev/null"].map(Path::new).into_iter().chain([at("diskstats").as_path()]) {
            assert_eq!(disk(scratch.path(), source), None, "{}", source.display());
        }
    }
}
