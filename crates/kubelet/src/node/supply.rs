//! What is left of the node.

/// A measure of something that can run out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// All there is.
    pub total: i64,
    /// What can still be had.
    pub available: i64,
}

impl Supply {
    /// How much of it is used, per cent, rounded up.
    pub fn used_percent(self) -> i128 {
        100 - i128::from(self.available.min(self.total)) * 100 / i128::from(self.total).max(1)
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
