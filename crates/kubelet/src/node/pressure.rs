//! What the node runs short of, by thresholds like those of upstream's `evictionHard`
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/>). Pure.
//!
//! A tenth of a big disk, or of a file system whose quota is smaller than what it shows as its size, is plenty of room:
//! unlike upstream's `nodefs.available<10%`, the disk counts as short only when less than [`DISK`] bytes are left as well.

/// Memory that must be left, bytes: `memory.available<100Mi`.
const MEMORY: i64 = 100 << 20;
/// Room on the disk that is enough on any disk, bytes: `nodefs.available<1Gi`.
const DISK: i64 = 1 << 30;

/// A measure of something that can run out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// All there is.
    pub total: i64,
    /// What can still be had.
    pub available: i64,
}

impl Supply {
    fn below_percent(self, percent: i64) -> bool {
        i128::from(self.available) * 100 < i128::from(self.total) * i128::from(percent)
    }
}

/// What is left of the node; nothing where it could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supplies {
    /// Memory, bytes.
    pub memory: Option<Supply>,
    /// The file system with the pods' data, bytes.
    pub disk: Option<Supply>,
    /// Files that the same file system can hold; a total of 0 means no limit.
    pub inodes: Option<Supply>,
    /// Processes and threads.
    pub processes: Option<Supply>,
}

/// What is short, and why; nothing when there is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// `MemoryPressure`
    pub memory: Option<String>,
    /// `DiskPressure`
    pub disk: Option<String>,
    /// `PIDPressure`
    pub processes: Option<String>,
}

impl Pressure {
    /// Judges what is left.
    pub fn of(supplies: &Supplies) -> Self {
        let memory = supplies.memory.filter(|memory| memory.available < MEMORY);
        let disk = supplies.disk.filter(|disk| disk.available < DISK && disk.below_percent(10));
        let inodes = supplies.inodes.filter(|inodes| inodes.below_percent(5));
        let processes = supplies.processes.filter(|processes| processes.below_percent(5));
        let bytes = |left: Supply| format!("{} of {} MiB are left", left.available >> 20, left.total >> 20);
        let count = |left: Supply, of: &str| format!("{} of {} {of} are left", left.available, left.total);
        Self {
            memory: memory.map(bytes),
            disk: disk.map(bytes).or_else(|| inodes.map(|left| count(left, "inodes"))),
            processes: processes.map(|left| count(left, "process ids")),
        }
    }

    /// Which of memory, disk and processes are short.
    pub fn kinds(&self) -> [bool; 3] {
        [&self.memory, &self.disk, &self.processes].map(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(supplies: Supplies, expected: [&str; 3]) {
        let short = Pressure::of(&supplies);
        let shown = [&short.memory, &short.disk, &short.processes].map(|why| why.as_deref().unwrap_or_default());
        assert_eq!(shown, expected);
    }

    fn left(available: i64, total: i64) -> Option<Supply> {
        Some(Supply { total, available })
    }

    #[test]
    fn thresholds() {
        const GIB: i64 = 1 << 30;
        let none = Supplies::default();
        check(none, ["", "", ""]);
        check(Supplies { memory: left(99 << 20, GIB), ..none }, ["99 of 1024 MiB are left", "", ""]);
        check(Supplies { memory: left(100 << 20, GIB), ..none }, ["", "", ""]);
        check(Supplies { disk: left(20 * GIB, 252 * GIB), ..none }, ["", "", ""]);
        check(Supplies { disk: left(GIB - 1, 252 * GIB), ..none }, ["", "1023 of 258048 MiB are left", ""]);
        check(Supplies { disk: left(GIB / 2, 2 * GIB), ..none }, ["", "", ""]);
        check(Supplies { disk: left(100 << 20, 2 * GIB), ..none }, ["", "100 of 2048 MiB are left", ""]);
        check(Supplies { inodes: left(4, 100), ..none }, ["", "4 of 100 inodes are left", ""]);
        check(Supplies { inodes: left(0, 0), ..none }, ["", "", ""]);
        check(Supplies { processes: left(100, 32768), ..none }, ["", "", "100 of 32768 process ids are left"]);
    }
}
