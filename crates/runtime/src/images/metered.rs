//! A bound on what is read to find the next entry of a tar stream.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

/// Most bytes between the contents of two entries.
pub(super) const HEADERS: u64 = 16 << 20;

/// Bounds what is read to find an entry. The library keeps long names and attributes in memory, however long they are,
/// and a few kilobytes of a compressed layer can hold gigabytes of them.
pub(super) struct Metered<R> {
    source: R,
    allowed: Rc<Cell<u64>>,
}

impl<R> Metered<R> {
    /// The source, and how many bytes may be read of it from now on.
    pub(super) fn new(source: R) -> (Self, Rc<Cell<u64>>) {
        let allowed = Rc::new(Cell::new(0));
        (Self { source, allowed: allowed.clone() }, allowed)
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowed = self.allowed.get();
        if allowed == 0 {
            let text = format!("the headers of an entry are larger than {HEADERS} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let most = usize::try_from(allowed).map_or(buffer.len(), |allowed| allowed.min(buffer.len()));
        let count = self.source.read(&mut buffer[..most])?;
        self.allowed.set(allowed - count as u64);
        Ok(count)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.source.seek(position)
    }
}
