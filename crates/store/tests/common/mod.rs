//! What the fault tests share.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;
use store::{Change, Expect, Lane, Write};

/// A write in the durable lane whatever the key's state; none deletes.
pub(crate) fn write(key: &str, value: Option<Bytes>) -> Write {
    let change = value.map_or(Change::Delete, Change::Put);
    let key = Bytes::copy_from_slice(key.as_bytes());
    Write { key, expect: Expect::Anything, change, lane: Lane::Durable, ttl: None, note: None, holds: Vec::new(), removes: false }
}

/// `len` bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out.into()
}

#[allow(dead_code)] // Not every test asks.
/// Bytes that the directory takes on disk. Files that go away meanwhile count nothing.
pub(crate) fn disk(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
