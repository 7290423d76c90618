//! What a control group has read from and written to block devices, read from its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::api::IoUsage;

/// Devices by their numbers.
type Devices = BTreeMap<(u32, u32), IoUsage>;

/// `MAJOR:MINOR`.
fn device(numbers: &str) -> Option<(u32, u32)> {
    let (major, minor) = numbers.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `io.stat` of version 2.
pub(super) fn v2(dir: &Path) -> Vec<IoUsage> {
    let mut devices = Devices::new();
    read_v2(&fs::read_to_string(dir.join("io.stat")).unwrap_or_default(), &mut devices);
    listed(devices)
}

/// Two files of version 1, which count groups below as well.
pub(super) fn v1(dir: &Path) -> Vec<IoUsage> {
    let mut devices = Devices::new();
    let text = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
    read_v1(&text("blkio.throttle.io_service_bytes_recursive"), &mut devices, |device| {
        (&mut device.read_bytes, &mut device.written_bytes)
    });
    read_v1(&text("blkio.throttle.io_serviced_recursive"), &mut devices, |device| (&mut device.reads, &mut device.writes));
    listed(devices)
}

fn read_v2(text: &str, devices: &mut Devices) {
    let known = text.lines().filter_map(|line| line.split_once(' ')).filter_map(|(of, pairs)| Some((device(of)?, pairs)));
    for (numbers, pairs) in known {
        let device = devices.entry(numbers).or_default();
        for (name, value) in pairs.split(' ').filter_map(|pair| pair.split_once('=')) {
            let field = match name {
                "rbytes" => &mut device.read_bytes,
                "wbytes" => &mut device.written_bytes,
                "rios" => &mut device.reads,
                "wios" => &mut device.writes,
                _ => continue,
            };
            *field = value.parse().unwrap_or(0);
        }
    }
}

fn read_v1(text: &str, devices: &mut Devices, fields: fn(&mut IoUsage) -> (&mut u64, &mut u64)) {
    for line in text.lines() {
        // The last line has the sum of all devices.
        let [numbers, operation, value] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
        let Some(numbers) = device(numbers) else { continue };
        let (read, written) = fields(devices.entry(numbers).or_default());
        match operation {
            "Read" => *read = value.parse().unwrap_or(0),
            "Write" => *written = value.parse().unwrap_or(0),
            _ => {}
        }
    }
}

fn listed(devices: Devices) -> Vec<IoUsage> {
    devices.into_iter().map(|(device, usage)| IoUsage { device, ..usage }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_of_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
        assert_eq!((v1(dir.path()), v2(dir.path())), (Vec::new(), Vec::new()));
        let expected = [
            IoUsage { device: (999, 0), read_bytes: 4096, written_bytes: 8192, reads: 1, writes: 2 },
            IoUsage { device: (999, 1), read_bytes: 512, ..IoUsage::default() },
        ];
        put("io.stat", "999:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=7 dios=7\n999:1 rbytes=512 wbytes=0 rios=0 wios=0\n");
        assert_eq!(v2(dir.path()), expected);
        let bytes = "999:0 Read 4096\n999:0 Write 8192\n999:0 Sync 9\n999:0 Total 12288\n999:1 Read 512\nTotal 12800\n";
        put("blkio.throttle.io_service_bytes_recursive", bytes);
        put("blkio.throttle.io_serviced_recursive", "999:0 Read 1\n999:0 Write 2\nTotal 3\n");
        assert_eq!(v1(dir.path()), expected);
    }
}
