//! How much is kept in memory of a stranger's files, which have a few compressed bytes each.

use std::io;
use std::path::Path;

/// What a path takes beyond its bytes, about.
const ENTRY: usize = 64;

/// Room for paths that are kept until something is done with all of them.
#[derive(Debug)]
pub(crate) struct Room {
    what: &'static str,
    most: usize,
    left: usize,
}

impl Room {
    /// Room of so many bytes for `what`.
    pub(crate) fn new(what: &'static str, most: usize) -> Self {
        Self { what, most, left: most }
    }

    /// One more path is kept.
    ///
    /// # Errors
    /// There is no room for it.
    pub(crate) fn take(&mut self, path: &Path) -> io::Result<()> {
        self.left = self.left.checked_sub(cost(path)).ok_or_else(|| {
            let (what, most) = (self.what, self.most >> 20);
            io::Error::new(io::ErrorKind::InvalidData, format!("{what} are more than can be kept track of ({most} MiB of paths)"))
        })?;
        Ok(())
    }

    /// One is kept no longer.
    pub(crate) fn give_back(&mut self, path: &Path) {
        self.left += cost(path);
    }
}

/// Bytes that a path takes, in memory and as a part of a JSON document, where some take more than in the path.
fn cost(path: &Path) -> usize {
    let escaped = |byte: &&u8| byte.is_ascii_control() || matches!(byte, b'"' | b'\\');
    let bytes = path.as_os_str().as_encoded_bytes();
    ENTRY + bytes.len() + 5 * bytes.iter().filter(escaped).count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn there_is_room_for_so_much() {
        let mut room = Room::new("links", 3 * (ENTRY + 1));
        let path = Path::new("a");
        (0..3).for_each(|_| room.take(path).unwrap());
        assert!(room.take(path).unwrap_err().to_string().contains("links are more than"));
        room.give_back(path);
        room.take(path).unwrap();
        assert_eq!(cost(Path::new("\n\"a")), ENTRY + 13);
    }
}
